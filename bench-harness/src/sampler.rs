//! What is resident in a process over time, looked at from outside: a thread inside would make it a process with threads, which allocators treat
//! otherwise.
//!
//! A look is one read of `/proc/PID/statm`, for which the kernel takes no lock of the process, and, where the workload publishes it
//! ([`live`](freestone_bench::live)), of what it holds. There is one every 10 ms. When there are too many, every other one is forgotten and the
//! next ones are twice as far apart, so a long run costs no more than a short one, and no run can fill a record. Peaks between two looks are missed:
//! for the peak there is `VmHWM`.
//!
//! The kernel counts pages by processor and adds them up now and then, so what it says is some dozens of pages off for each processor that
//! the process has run on: up to 256 KiB here, with two.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

use freestone_bench::live::{self, Sheet};

use crate::machine::page_bytes;
use crate::record::Sample;

/// How much of a run is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Detail {
    /// For a curve, and with what the workload holds.
    Fine,
    /// For an idea of it.
    Coarse,
}

impl Detail {
    /// Looks at a run, at most.
    fn most(self) -> usize {
        match self {
            Self::Fine => 200,
            Self::Coarse => 40,
        }
    }
}

/// Looks at one process.
#[derive(Debug)]
pub(crate) struct Sampler {
    sheet: Option<Sheet>,
    /// Of the process, once there is one.
    statm: Option<File>,
    page_bytes: u64,
    born_ns: u64,
    period: Duration,
    next: Instant,
    taken: Thinned,
}

impl Sampler {
    const PERIOD: Duration = Duration::from_millis(10);

    /// For a process that is not yet there. Its command is told where to publish what it holds.
    pub(crate) fn new(detail: Detail, command: &mut Command) -> Self {
        // Without one, nobody knows what the process holds, and all else goes on.
        let sheet = if detail == Detail::Fine { Sheet::new().ok() } else { None };
        if let Some(sheet) = &sheet {
            command.env(live::VARIABLE, sheet.number());
        }
        Self {
            sheet,
            statm: None,
            page_bytes: page_bytes().unwrap_or(4096),
            born_ns: live::monotonic_ns(),
            period: Self::PERIOD,
            next: Instant::now(),
            taken: Thinned::new(detail.most()),
        }
    }

    /// The process is there.
    pub(crate) fn begin(&mut self, process: u32) {
        self.born_ns = live::monotonic_ns();
        self.statm = File::open(format!("/proc/{process}/statm")).ok();
        self.next = Instant::now() + self.period;
    }

    /// When to look next.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Looks, unless the process is gone.
    pub(crate) fn look(&mut self) {
        let now = Instant::now();
        if let Some(sample) = self.sample()
            && self.taken.push(sample) == Kept::EveryOther
        {
            self.period *= 2;
        }
        // Who is late does not catch up: looking twice in a row says nothing new.
        self.next = (self.next + self.period).max(now + self.period / 2);
    }

    fn sample(&self) -> Option<Sample> {
        let mut text = [0; 128];
        let length = self.statm.as_ref()?.read_at(&mut text, 0).ok()?;
        let rss_bytes = anonymous_pages(text.get(..length)?)? * self.page_bytes;
        let live_bytes = self.sheet.as_ref().and_then(Sheet::live_bytes);
        Some(Sample { ms: self.ms(live::monotonic_ns()), rss_bytes, live_bytes })
    }

    fn ms(&self, at_ns: u64) -> u64 {
        at_ns.saturating_sub(self.born_ns) / 1_000_000
    }

    /// What was seen, in the order of time. Where a workload said that it began, that is a sample, too, which it took of itself.
    pub(crate) fn samples(self) -> Vec<Sample> {
        let beginning = self.sheet.as_ref().and_then(Sheet::beginning).map(|beginning| Sample {
            ms: self.ms(beginning.at_ns),
            rss_bytes: beginning.before_bytes,
            live_bytes: Some(0),
        });
        let mut samples = self.taken.samples;
        if let Some(beginning) = beginning {
            let place = samples.partition_point(|sample| sample.live_bytes.is_none());
            samples.insert(place, beginning);
        }
        samples
    }
}

/// The pages of a process that no file backs, of the line `size resident shared …`. `None` when it has none, for then it is no more.
fn anonymous_pages(statm: &[u8]) -> Option<u64> {
    let mut numbers = std::str::from_utf8(statm).ok()?.split_whitespace().skip(1).map(str::parse::<u64>);
    let (resident, shared) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (resident > 0).then(|| resident.saturating_sub(shared))
}

/// Samples, so many at most.
#[derive(Debug)]
struct Thinned {
    samples: Vec<Sample>,
    most: usize,
}

/// What happened to those that there were.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kept {
    All,
    EveryOther,
}

impl Thinned {
    /// Has room for all of them from the beginning.
    fn new(most: usize) -> Self {
        Self { samples: Vec::with_capacity(most), most }
    }

    fn push(&mut self, sample: Sample) -> Kept {
        let is_full = self.samples.len() == self.most;
        if is_full {
            let mut number = 0;
            self.samples.retain(|_| {
                number += 1;
                number % 2 == 1
            });
        }
        self.samples.push(sample);
        if is_full { Kept::EveryOther } else { Kept::All }
    }
}

#[cfg(test)]
mod tests {
    use super::{Kept, Sample, Thinned, anonymous_pages};

    #[test]
    fn what_no_file_backs_is_resident_and_not_shared() {
        assert_eq!(anonymous_pages(b"5000 1300 300 20 0 900 0\n"), Some(1_000));
        assert_eq!(anonymous_pages(b"0 0 0 0 0 0 0\n"), None, "a process that nobody has waited for");
        assert_eq!(anonymous_pages(b""), None);
        assert_eq!(anonymous_pages(b"1 x"), None);
    }

    #[test]
    fn of_many_samples_a_few_are_kept_from_the_first_to_the_last_and_evenly() {
        let mut taken = Thinned::new(40);
        let (mut ms, mut period) = (0, 10);
        for _ in 0..500 {
            if taken.push(Sample { ms, ..Sample::default() }) == Kept::EveryOther {
                period *= 2;
            }
            ms += period;
            assert!(taken.samples.len() <= 40);
        }
        let times: Vec<u64> = taken.samples.iter().map(|sample| sample.ms).collect();
        assert_eq!(times[0], 0);
        assert_eq!(times.last(), Some(&(ms - period)));
        assert!(taken.samples.len() >= 20);
        let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let (least, most) = (gaps.iter().min(), gaps.iter().max());
        assert!(most <= least.map(|least| 2 * least).as_ref(), "{gaps:?}");
    }
}
