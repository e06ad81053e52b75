//! Slack: what of its blocks the program did not ask for. Nobody remembers requests, so this is an estimate from those that the heap has looked at.
//!
//! Per class: live blocks × mean slack of the requests seen. Its error is the mean's (standard deviation ÷ √samples); a class of which no request
//! was seen could have any slack between none and the gap to the class below. Errors of classes are independent of each other, so they add up
//! as squares. What the estimate takes for granted is that blocks that live were asked for like all others.

use freestone::{RequestSamples, Snapshot};

/// Half of the 95 % interval is so many standard errors.
const STANDARD_ERRORS: f64 = 1.96;
/// Blocks beyond the classes are whole pages of the heap.
const PAGE_BYTES: usize = 8192;

/// An estimate, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Slack {
    pub(crate) bytes: u64,
    /// Half of the 95 % interval.
    pub(crate) error_bytes: u64,
}

pub(crate) fn estimate(heap: &Snapshot) -> Slack {
    let mut below = 0;
    let classes = heap.classes.iter().map(|class| {
        let gap = class.block_bytes - std::mem::replace(&mut below, class.block_bytes);
        of_class(class.live(), &class.requests, gap)
    });
    let large = of_class(heap.large.allocations.saturating_sub(heap.large.frees), &heap.large.requests, PAGE_BYTES);
    let (bytes, variance) = classes
        .chain([large])
        .fold((0.0, 0.0), |(bytes, variance), (of_class, error)| (bytes + of_class, error.mul_add(error, variance)));
    let live = heap.bytes.live as u64;
    Slack { bytes: (bytes as u64).min(live), error_bytes: ((STANDARD_ERRORS * variance.sqrt()) as u64).min(live) }
}

/// The slack of so many live blocks, and its standard error. `gap` is by how much a block is larger than one of the class below.
fn of_class(live: u64, seen: &RequestSamples, gap: usize) -> (f64, f64) {
    let (live, count) = (live as f64, seen.count as f64);
    // As if any request between two classes were as likely as any other.
    let (unseen_mean, unseen_deviation) = ((gap - 1) as f64 / 2.0, gap as f64 / 12_f64.sqrt());
    match seen.count {
        0 => (live * unseen_mean, live * unseen_deviation),
        1 => (live * seen.slack_bytes as f64, live * unseen_deviation),
        _ => {
            let mean = seen.slack_bytes as f64 / count;
            let variance = ((seen.slack_squared as f64 - mean * mean * count) / (count - 1.0)).max(0.0);
            (live * mean, live * (variance / count).sqrt())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(slack: &[u64]) -> RequestSamples {
        let mut samples = RequestSamples::default();
        samples.count = slack.len() as u64;
        samples.slack_bytes = slack.iter().sum();
        samples.slack_squared = slack.iter().map(|slack| slack * slack).sum();
        samples
    }

    #[test]
    fn a_class_has_its_mean_times_its_blocks() {
        assert_eq!(of_class(100, &samples(&[3, 3, 3, 3]), 8), (300.0, 0.0), "all alike");
        let (bytes, error) = of_class(100, &samples(&[0, 8, 0, 8]), 8);
        assert!((bytes - 400.0).abs() < 1e-9, "{bytes}");
        // The deviation is √(64 / 3), of the mean of four half of it.
        assert!((error - 100.0 * (64.0_f64 / 3.0).sqrt() / 2.0).abs() < 1e-9, "{error}");
        assert_eq!(of_class(0, &samples(&[7, 1]), 8), (0.0, 0.0));
    }

    #[test]
    fn a_class_that_nobody_looked_at_may_have_any() {
        let (bytes, error) = of_class(10, &samples(&[]), 8);
        assert!((bytes - 35.0).abs() < 1e-9, "{bytes}");
        assert!(error > 20.0, "{error}");
        let (bytes, error) = of_class(10, &samples(&[2]), 8);
        assert!((bytes - 20.0).abs() < 1e-9, "{bytes}");
        assert!(error > 20.0, "one is no sample");
    }

    #[test]
    fn errors_add_up_as_squares_and_nothing_exceeds_what_lives() {
        let mut heap = crate::snapshot().heap;
        heap.bytes.live = usize::MAX / 2;
        for (nth, class) in heap.classes.iter_mut().enumerate().take(4) {
            class.allocations = 1000;
            class.frees = 0;
            class.requests = samples(if nth < 2 { &[0, 6] } else { &[5, 5] });
        }
        heap.classes.iter_mut().skip(4).for_each(|class| class.allocations = class.frees);
        heap.large.allocations = heap.large.frees;
        let one = 1000.0 * (18.0_f64 / 2.0).sqrt();
        let slack = estimate(&heap);
        assert_eq!(slack.bytes, 3000 + 3000 + 5000 + 5000);
        assert_eq!(slack.error_bytes, (STANDARD_ERRORS * one * 2.0_f64.sqrt()) as u64);
        heap.bytes.live = 100;
        assert_eq!(estimate(&heap), Slack { bytes: 100, error_bytes: 100 });
    }
}
