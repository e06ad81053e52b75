//! What continuous profiles allocate is in none of them: otherwise a program that does nothing would show its profiler at work, and a leak hunter would find that.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use freestone::Freestone;
use freestone_stats::continuous::{self, Counting, DirectoryOptions};
use freestone_stats::profile::{self, Kind};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

#[test]
fn profiles_every_so_often_do_not_show_themselves() {
    let path = std::env::temp_dir().join(format!("freestone-itself-{}", std::process::id()));
    fs::create_dir(&path).expect("it can be made");
    // So dense that whoever allocates a few pages is seen.
    freestone::control::set_sample_interval(256);
    let options = DirectoryOptions::new().every(Duration::from_hours(24)).counting(Counting::SinceLast);
    let handle = continuous::to_directory(&path, options).expect("it starts");
    let more = |count: u64| {
        for _ in 0..count {
            let (before, began) = (handle.stats().written, Instant::now());
            handle.now();
            while handle.stats().written == before {
                assert!(began.elapsed() < Duration::from_mins(2), "{:?}", handle.stats());
                thread::sleep(Duration::from_millis(1));
            }
        }
    };
    // The first ones read the names of all that is there.
    more(3);
    let before = profile::take(Kind::Allocs);
    more(10);
    let after = profile::take(Kind::Allocs);
    // The program does something too, and that shows.
    let seen: Vec<Vec<u8>> = (0..64).map(|number| vec![number; 4096]).collect();
    let own = profile::take(Kind::Allocs).since(&after);
    let meanwhile = after.since(&before);
    println!("{} bytes of the program, {} meanwhile", own.total(1), meanwhile.total(1));
    drop((seen, handle));
    let _ = fs::remove_dir_all(&path);
    assert!(own.total(1) > 200_000.0, "256 KiB, of which all but a few percent are samples: {}", own.total(1));
    assert!(meanwhile.total(1) < 4_000.0, "ten profiles allocate more than that: {}", meanwhile.total(1));
}
