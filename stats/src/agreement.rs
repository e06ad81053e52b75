//! Agreement: three ways to count the same, held against each other. What samples add up to, what the heap counts exactly, and how often its probes fired.
//!
//! Samples are as good as the chance that picks them. If that were biased, or if some were lost, every profile would be wrong and none would show it; but the
//! sums over all sites are known exactly, from counters that know nothing of samples. Beyond four standard errors they disagree, and this says so.

use std::fmt;

use bytesize::ByteSize;
use freestone::Snapshot;
use freestone::profile::{self, Estimate, ProfileSummary};

/// Farther apart than so many standard errors is disagreement: chance does that once in 16,000 looks.
const DEVIATION_MAX: f64 = 4.0;
/// What is no sample by intention does not count as missing: the heap's readers allocate too. Such a part of all …
const LEFT_OUT_SHARE: f64 = 0.002;
/// … and so many bytes.
const LEFT_OUT_BYTES: f64 = (1 << 20) as f64;

/// An estimate, and what it should be.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct Compared {
    /// By samples.
    pub sampled: f64,
    /// The standard error of that.
    pub error: f64,
    /// By counters.
    pub exact: u64,
    /// How many standard errors lie between the two; 0 where none do, as the counters moved on while they were read.
    pub deviation: f64,
}

impl Compared {
    /// `exact`: before and after the estimate was read.
    fn of(sampled: f64, variance: f64, exact: [u64; 2], left_out: f64) -> Self {
        let error = variance.sqrt();
        let [low, high] = [exact[0].min(exact[1]) as f64 - left_out, exact[0].max(exact[1]) as f64];
        let apart = (low - sampled).max(sampled - high).max(0.0);
        // Chance does not come in parts of a byte.
        let deviation = if apart < 1.0 { 0.0 } else { apart / error.max(1.0) };
        Self { sampled, error, exact: u64::midpoint(exact[0], exact[1]), deviation }
    }

    /// What lies between the two may be chance.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.deviation <= DEVIATION_MAX
    }
}

/// What [`agreement`] found. Prints as three lines at most.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
#[non_exhaustive]
pub struct Agreement {
    /// Bytes between two samples, on average; 0: sampling is off, and what was allocated meanwhile is missing from the sums.
    pub sample_interval: usize,
    /// Bytes ever allocated.
    pub allocated_bytes: Compared,
    /// Blocks ever allocated.
    pub allocations: Compared,
    /// Bytes that live. `None`: of some samples nobody knows whether they do.
    pub live_bytes: Option<Compared>,
    /// Samples by the profiler's own count.
    pub samples: u64,
    /// Samples by the counter that is booked where the probe `sample` fires, and as often.
    pub sample_probes: u64,
    /// Ends of samples, by the profiler's own count.
    pub ends: u64,
    /// The same by the counter of the probe `sample_end`.
    pub end_probes: u64,
    /// What samples were taken, and not recorded.
    pub lost: u64,
}

/// Holds samples against exact counters and the counts of probes, as of now.
#[must_use]
pub fn agreement() -> Agreement {
    let before = freestone::snapshot();
    let summary = profile::summary();
    let after = freestone::snapshot();
    compare(&summary, &before, &after)
}

fn compare(summary: &ProfileSummary, before: &Snapshot, after: &Snapshot) -> Agreement {
    let of_bytes = |estimate: &Estimate, of: fn(&Snapshot) -> u64| {
        let exact = [of(before), of(after)];
        let left_out = LEFT_OUT_BYTES + exact[1] as f64 * LEFT_OUT_SHARE;
        Compared::of(estimate.bytes, estimate.bytes_variance, exact, left_out)
    };
    let allocations = [before.allocations, after.allocations];
    // Many blocks are small, and one of them stands for thousands.
    let left_out = 1000.0 + allocations[1] as f64 * LEFT_OUT_SHARE;
    let all = &summary.allocated;
    Agreement {
        sample_interval: summary.interval,
        allocated_bytes: of_bytes(all, |heap| heap.allocated_bytes),
        allocations: Compared::of(all.objects, all.objects_variance, allocations, left_out),
        live_bytes: (summary.untracked == 0).then(|| of_bytes(&summary.live, |heap| heap.bytes.live as u64)),
        samples: summary.samples,
        sample_probes: nearest(summary.samples, [before.events.samples, after.events.samples]),
        ends: summary.ends,
        end_probes: nearest(summary.ends, [before.events.sample_ends, after.events.sample_ends]),
        lost: summary.lost,
    }
}

/// Of all that a counter was while another was read, what is nearest to that.
fn nearest(count: u64, [low, high]: [u64; 2]) -> u64 {
    count.clamp(low, high.max(low))
}

impl Agreement {
    /// All agree.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.allocated_bytes.agrees()
            && self.allocations.agrees()
            && self.live_bytes.is_none_or(|live| live.agrees())
            && self.probes_agree()
    }

    fn probes_agree(&self) -> bool {
        self.samples == self.sample_probes && self.ends == self.end_probes
    }

    /// Whether they agree, in a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        if self.samples == 0 {
            return match self.sample_interval {
                0 => "Sampling is off, so there is nothing to compare.".to_owned(),
                _ => "There was no sample yet, so there is nothing to compare.".to_owned(),
            };
        }
        if self.holds() {
            return "What samples add up to agrees with what is counted.".to_owned();
        }
        let sums = self.allocated_bytes.agrees() && self.allocations.agrees() && self.live_bytes.is_none_or(|live| live.agrees());
        if sums {
            return "The profiler counts other samples than its probes: this is a bug of Freestone.".to_owned();
        }
        let why = if self.sample_interval == 0 {
            "sampling is off, and what came since is missing"
        } else if self.lost > 0 {
            "samples were lost"
        } else {
            "sampling was off for a while, or this is a bug of Freestone"
        };
        format!("What samples add up to disagrees with what is counted: {why}. Profiles are off by as much.")
    }
}

impl fmt::Display for Agreement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.samples == 0 {
            return writeln!(f, "{}", self.sentence());
        }
        let bytes = |bytes: f64| ByteSize(bytes.max(0.0) as u64);
        let verdict = |compared: &Compared| {
            let word = if compared.agrees() { "agree" } else { "disagree" };
            format!("they {word} ({:.1} σ)", compared.deviation)
        };
        let mut line = |what: &str, compared: &Compared| {
            let Compared { sampled, error, exact, .. } = *compared;
            let (sampled, error, exact) = (bytes(sampled), bytes(error), ByteSize(exact));
            writeln!(f, "sampled: {sampled} ± {error} {what}, exact {exact}: {}", verdict(compared))
        };
        line("allocated", &self.allocated_bytes)?;
        if let Some(live) = &self.live_bytes {
            line("live", live)?;
        }
        let Self { samples, sample_probes, ends, end_probes, .. } = self;
        if self.probes_agree() {
            writeln!(f, "{samples} samples and {ends} ends of them, and as many probes")?;
        } else {
            writeln!(f, "{samples} samples and {ends} ends of them, but {sample_probes} and {end_probes} probes: they disagree")?;
        }
        if self.holds() { Ok(()) } else { writeln!(f, "{}", self.sentence()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(sampled: f64, error: f64, exact: u64) -> Agreement {
        let mut summary = ProfileSummary::default();
        (summary.interval, summary.samples, summary.ends) = (1 << 19, 20_412, 7);
        (summary.allocated.bytes, summary.allocated.bytes_variance) = (sampled, error * error);
        let mut heap = crate::snapshot().heap;
        heap.allocated_bytes = exact;
        (heap.allocations, heap.bytes.live) = (0, 0);
        (heap.events.samples, heap.events.sample_ends) = (20_412, 7);
        compare(&summary, &heap, &heap)
    }

    #[test]
    fn what_agrees_says_so() {
        let gib = 1_073_741_824.0;
        let agreement = case(10.2 * gib, 0.1 * gib, (10.18 * gib) as u64);
        assert!(agreement.holds(), "{agreement:?}");
        let text = agreement.to_string();
        assert_eq!(text.lines().next(), Some("sampled: 10.2 GiB ± 102.4 MiB allocated, exact 10.2 GiB: they agree (0.2 σ)"));
        assert!(text.ends_with("20412 samples and 7 ends of them, and as many probes\n"), "{text}");
    }

    #[test]
    fn what_disagrees_says_so_too() {
        let agreement = case(10e9, 1e8, 12_000_000_000);
        assert!(!agreement.holds());
        let text = agreement.to_string();
        assert!(text.contains("they disagree (19.") && text.contains("Profiles are off by as much."), "{text}");
        // Much more than there is: nothing is left out on that side.
        assert!(!case(10e9, 1e8, 9_590_000_000).holds());
        assert!(case(10e9, 1e8, 9_700_000_000).holds());
    }

    #[test]
    fn probes_are_counted_one_by_one() {
        let mut agreement = case(0.0, 0.0, 0);
        assert!(agreement.holds());
        agreement.sample_probes += 1;
        assert!(!agreement.holds());
        assert!(agreement.to_string().contains("they disagree"), "{agreement}");
    }

    #[test]
    fn without_samples_there_is_nothing_to_compare() {
        let mut agreement = Agreement::default();
        assert_eq!(agreement.to_string(), "Sampling is off, so there is nothing to compare.\n");
        agreement.sample_interval = 1;
        assert_eq!(agreement.to_string(), "There was no sample yet, so there is nothing to compare.\n");
    }
}
