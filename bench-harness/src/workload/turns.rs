//! Several subjects side by side on one processor, which the kernel lends them by turns.
//!
//! A processor that is shared with other machines runs now faster, now slower, by tens of percent within a second; runs of a tenth of a second that
//! follow each other meet different ones of these moods. Processes that are on it at the same time, for some milliseconds each, meet the same ones.
//! So subjects that run side by side are compared to about a percent where one after the other they are apart by ten (`docs/benchmarking.md`).
//!
//! What is timed then is the time that the processor spent on the process, all of its threads included: turns of others are not in it. Neither is
//! waiting, and the clock on the wall goes on while others have their turns; so this is only for work that never waits, and in which nothing
//! is given back by the clock ([`Workload::is_side_by_side`](super::Workload::is_side_by_side)).

use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What a subject is told to share a processor: this, `=`, and its number.
pub const PROCESSOR: &str = "processor";

/// The shorter, the more alike are the moods that all meet; the longer, the less of it goes by with cold caches.
const TURN: Duration = Duration::from_millis(4);

static SHARES: OnceLock<()> = OnceLock::new();

/// Stays on this processor from now on, with the threads that are to come, in turns of 4 ms where the kernel lets us say how long (Linux 6.12).
///
/// # Errors
///
/// If there is no such processor for us.
pub fn share(processor: usize) -> std::io::Result<()> {
    // SAFETY: all zeros is a set without any processor.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    if processor >= libc::CPU_SETSIZE as usize {
        return Err(std::io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: the set has a place for it.
    unsafe { libc::CPU_SET(processor, &mut set) };
    // SAFETY: the set is as long as we say.
    if unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    // Of a batch nobody expects that it is woken soon, so nobody's turn ends before its time.
    // SAFETY: all zeros is a valid `sched_attr`.
    let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
    attributes.size = size_of_val(&attributes) as u32;
    attributes.sched_policy = libc::SCHED_BATCH as u32;
    attributes.sched_runtime = TURN.as_nanos() as u64;
    // SAFETY: the attributes are as long as they say. Where the kernel does not know turns, or does not allow them, it chooses them itself.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    let _ = SHARES.set(());
    Ok(())
}

/// Measures the timed part of a workload.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Stopwatch {
    /// By the clock.
    Wall(Instant),
    /// By what the processor has spent on this process.
    Processor(Duration),
}

impl Stopwatch {
    /// From now on.
    pub(crate) fn start() -> Self {
        if SHARES.get().is_some() { Self::Processor(spent()) } else { Self::Wall(Instant::now()) }
    }

    /// Until now.
    pub(crate) fn elapsed(self) -> Duration {
        match self {
            Self::Wall(start) => start.elapsed(),
            Self::Processor(start) => spent().saturating_sub(start),
        }
    }
}

/// What processors have spent on this process, all of its threads.
fn spent() -> Duration {
    // SAFETY: all zeros is a valid `timespec`.
    let mut time: libc::timespec = unsafe { std::mem::zeroed() };
    // SAFETY: `time` is a valid place to write to, and every process has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[cfg(test)]
mod tests {
    use super::{Stopwatch, share, spent};
    use std::time::Duration;

    #[test]
    fn a_processor_that_is_not_there_is_refused() {
        for processor in [1_000, 100_000] {
            assert!(share(processor).is_err(), "{processor}");
        }
    }

    #[test]
    fn sleeping_is_time_on_the_wall_and_none_of_the_processors() {
        let (wall, processor) = (Stopwatch::start(), Stopwatch::Processor(spent()));
        std::thread::sleep(Duration::from_millis(200));
        // Other tests of this process may run meanwhile, on as many processors as there are; none of them for as long.
        assert!(matches!(wall, Stopwatch::Wall(_)), "nobody shares a processor here");
        assert!(wall.elapsed() >= Duration::from_millis(200));
        let before = spent();
        let mut sum = 0_u64;
        for number in 0..2_000_000_u64 {
            sum = std::hint::black_box(sum.wrapping_add(number));
        }
        assert!(spent() > before, "{sum}");
        assert!(processor.elapsed() > Duration::ZERO);
    }
}
