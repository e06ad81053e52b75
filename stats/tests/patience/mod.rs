//! Waiting for what continuous profiling does on its own thread.

use std::thread;
use std::time::{Duration, Instant};

use freestone_stats::continuous::{Handle, Stats};

/// A machine that is busy is given so long.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);

#[track_caller]
pub(crate) fn until(handle: &Handle, what: &str, is_so: impl Fn(&Stats) -> bool) -> Stats {
    let began = Instant::now();
    loop {
        let stats = handle.stats();
        if is_so(&stats) {
            return stats;
        }
        assert!(began.elapsed() < PATIENCE, "{what} did not happen: {stats:?}");
        thread::sleep(Duration::from_millis(5));
    }
}
