//! Threads end while others still have their blocks: what they cached is used by the next, and a hundred thousand short threads leave
//! nothing behind.

use std::thread;

use freestone::Freestone;
use freestone_tests::resident_anonymous_bytes;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

fn short_thread(seed: usize) -> Vec<u8> {
    thread::spawn(move || {
        let blocks: Vec<Vec<u8>> = (0..20).map(|nth| vec![nth as u8; 16 + (seed * 131 + nth * 977) % 5_000]).collect();
        blocks.into_iter().nth(seed % 20).expect("one of twenty")
    })
    .join()
    .expect("the thread does not panic")
}

#[test]
fn a_hundred_thousand_times() {
    let mut survivors: Vec<Vec<u8>> = (0..100).map(short_thread).collect();
    let run = |threads: usize, survivors: &mut Vec<Vec<u8>>| {
        for nth in 0..threads {
            // Blocks outlive their threads for a while.
            survivors[nth % 100] = short_thread(nth);
        }
    };
    // Under `ThreadSanitizer`, which has memory of its own for every thread, only what it finds itself is of interest.
    let watched = cfg!(freestone_tsan);
    run(if watched { 100 } else { 20_000 }, &mut survivors);
    let before = (resident_anonymous_bytes(), freestone::snapshot());
    let threads = if watched { 1_000 } else { 100_000 };
    run(threads, &mut survivors);
    let after = (resident_anonymous_bytes(), freestone::snapshot());
    let drift = after.0.saturating_sub(before.0);
    println!("{drift} bytes more, {:?} before, {:?} after", before.1.bytes, after.1.bytes);
    // Ten bytes per thread would be more than this. What lies in depots and half-empty spans comes and goes by half as much.
    assert!(drift <= 1 << 20 || watched, "{drift} bytes more after 100,000 threads");
    assert!(after.1.thread_records <= before.1.thread_records + 1, "{} records", after.1.thread_records);
    assert!(after.1.events.record_adoptions >= threads as u64);
    assert!(survivors.iter().enumerate().all(|(nth, block)| block.iter().all(|&byte| usize::from(byte) == nth % 20)));
}
