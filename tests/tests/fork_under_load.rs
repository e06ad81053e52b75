//! A process with eight threads at work forks again and again. Every child gets a whole heap: it allocates, frees what it inherited, takes
//! snapshots whose accounts hold, starts threads, and forks once more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use freestone::Freestone;
use freestone_tests::Random;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

fn churn(random: &mut Random, blocks: &mut Vec<Vec<u8>>) {
    let size = match random.below(200) {
        0 => random.spread(40_000, 3 << 20),
        1..10 => random.spread(1_000, 40_000),
        _ => random.spread(1, 1_000),
    };
    if blocks.len() < 200 {
        blocks.push(vec![1; size]);
    } else {
        let nth = random.below(200);
        blocks[nth] = vec![2; size];
    }
}

fn child(inherited: Vec<Vec<u8>>, generation: u32) -> ! {
    let mut random = Random::new(u64::from(generation));
    let mut blocks = Vec::new();
    (0..500).for_each(|_| churn(&mut random, &mut blocks));
    drop(inherited);
    let helper = thread::spawn(|| (0..100).map(|nth| vec![nth as u8; 5_000]).map(|block| block.len()).sum::<usize>());
    assert_eq!(helper.join().expect("a thread in the child does not panic"), 500_000);
    // The background thread may just be giving memory back: for a moment. What is wrong for longer was lost at the fork.
    let exact = || Some(freestone::snapshot()).filter(|snapshot| !snapshot.approximate);
    let later = || {
        thread::sleep(Duration::from_millis(1));
        exact()
    };
    let snapshot = exact().or_else(|| (0..1_000).find_map(|_| later()));
    let snapshot = snapshot.unwrap_or_else(|| panic!("the accounts do not hold: {:?}", freestone::snapshot().bytes));
    assert!(snapshot.frees <= snapshot.allocations);
    freestone::control::release_to_os();
    if generation < 2 {
        assert_eq!(fork_once(blocks, generation + 1), 0);
    }
    // SAFETY: always allowed; destructors of the parent's threads must not run here.
    unsafe { libc::_exit(0) }
}

fn fork_once(inherited: Vec<Vec<u8>>, generation: u32) -> i32 {
    // SAFETY: that a child of a process with threads may use the allocator is what is tested.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // A panic must not unwind into the test runner, whose other threads are not here.
        let _ = std::panic::catch_unwind(|| child(inherited, generation));
        // SAFETY: always allowed.
        unsafe { libc::_exit(1) }
    }
    assert!(pid > 0);
    let begun = Instant::now();
    let mut status = 0;
    // SAFETY: our child.
    while unsafe { libc::waitpid(pid, &raw mut status, libc::WNOHANG) } == 0 {
        if begun.elapsed() > Duration::from_secs(20) {
            // SAFETY: our child.
            unsafe { libc::kill(pid, libc::SIGKILL) };
            panic!("a child of generation {generation} hangs");
        }
        thread::sleep(Duration::from_micros(200));
    }
    status
}

#[test]
fn every_child_works() {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for worker in 0..8 {
            let done = &done;
            scope.spawn(move || {
                let mut random = Random::new(worker);
                let mut blocks = Vec::new();
                while !done.load(Ordering::Relaxed) {
                    churn(&mut random, &mut blocks);
                }
            });
        }
        let outcome = std::panic::catch_unwind(|| {
            for round in 0..100 {
                let heritage = (0..100).map(|nth| vec![3; nth * 37]).collect();
                let status = fork_once(heritage, 0);
                assert_eq!(status, 0, "child {round} ended with status {status:#x}");
            }
        });
        done.store(true, Ordering::Relaxed);
        // Workers are waited for, whatever happened.
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    assert!(!freestone::snapshot().approximate, "the parent is as before");
}
