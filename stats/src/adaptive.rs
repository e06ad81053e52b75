//! Adaptive retention: how much free memory to keep, from throughput and latency.
//!
//! ```
//! use std::time::Duration;
//!
//! use freestone_stats::adaptive::Controller;
//!
//! let mut controller = Controller::new(Duration::from_millis(20));
//! # let measured = [(1200.0, Duration::from_millis(7)), (1350.0, Duration::from_millis(9))];
//! // Every second or so, with what the program measures anyway:
//! for (requests_per_second, p99) in measured {
//!     controller.observe(requests_per_second, p99);
//!     controller.apply();
//! }
//! ```
//!
//! The heap keeps the memory that recent demand explains: the peak of a *window*, and some *percent* above. What is beyond, it
//! gives back in so many equal *steps*, one each tick. A [`Controller`] turns all three:
//!
//! - **Throughput**, relative to the highest seen, decides how much to keep: 5 % over 2 s when idle, 50 % over 20 s at the
//!   highest, in proportion between. A busy program will need its memory again; an idle one should leave it to others. The
//!   highest seen is forgotten slowly, by half in about 3,500 observations: an hour, at one per second. A load that stays lower
//!   is then the new highest.
//! - **Latency** beyond its target has memory given back earlier and in smaller steps, so that each tick takes less time: a P99
//!   of twice the target halves the window and doubles the steps, and so on up to eight times, 64 steps. Up to the target there
//!   are 8 steps.
//!
//! No value changes by more than a quarter of itself up, or a fifth down, per observation. For observations that stay the same,
//! each of them arrives and stays: only the forgetting of a higher throughput moves percent and window on, upward, as slowly as
//! said above.
//!
//! The controller has no clock, asks nobody, and allocates nothing: one that is fed the same gives the same.

use std::ops::RangeInclusive;
use std::time::Duration;

use freestone::{Retain, control};

/// What is kept above the peak, in percent of it.
const PERCENT: RangeInclusive<u16> = 5..=50;
/// Over how long the peak is taken.
const WINDOW_MS: RangeInclusive<u16> = 2_000..=20_000;
/// In how many ticks what is beyond goes back.
const STEPS: RangeInclusive<u8> = 8..=64;
/// A P99 of so many times the target is answered in full.
const OVERRUN_MAX: f64 = 8.0;
/// What an observation leaves of the highest throughput seen: half in 3,465 of them.
const PEAK_DECAY: f64 = 0.9998;
/// An observation raises the highest throughput seen to at most so many times its value, so that one wrong figure is soon
/// forgotten.
const PEAK_GROWTH_MAX: f64 = 1.25;
/// A highest throughput of so many requests per second, one in a quarter of an hour, is as good as none: the next figure takes
/// its place.
const PEAK_MIN: f64 = 1e-3;
/// The shortest target: a P99 of no time at all is nobody's target.
const P99_TARGET_MIN: Duration = Duration::from_micros(1);

/// Turns throughput and latency into a setting for the heap. See the [module](self).
#[derive(Clone, PartialEq, Debug)]
pub struct Controller {
    p99_target: Duration,
    /// Requests per second, the highest seen, decayed. [`PEAK_MIN`]: none seen.
    peak: f64,
    percent: u16,
    window_ms: u16,
    steps: u8,
}

impl Controller {
    /// A controller that begins with the heap's default: 10 percent, 5 seconds, 8 steps.
    ///
    /// `p99_target` is the latency up to which the program is content; less than a microsecond counts as one. [`Duration::MAX`]
    /// leaves latency out.
    #[must_use]
    pub fn new(p99_target: Duration) -> Self {
        Self { p99_target: p99_target.max(P99_TARGET_MIN), peak: PEAK_MIN, percent: 10, window_ms: 5_000, steps: 8 }
    }

    /// Takes an observation in, and says what to keep from now on: always a [`Retain::Peak`] with 5 to 50 percent, 2,000 to
    /// 20,000 ms, 8 to 64 steps.
    ///
    /// To be called at regular intervals, of a second or so. From the same state, more throughput never means less percent or a
    /// shorter window, and never other steps; a longer `p99` never means fewer steps or a longer window, and never another
    /// percent.
    ///
    /// A throughput that is negative, infinite or not a number is no observation: nothing changes. Zero is one: idle. A `p99` of
    /// zero means that none was measured, and counts as within the target.
    pub fn observe(&mut self, requests_per_second: f64, p99: Duration) -> Retain {
        if requests_per_second.is_finite() && requests_per_second >= 0.0 {
            let load = self.load(requests_per_second);
            let overrun = self.overrun(p99);
            self.percent = towards(self.percent.into(), between(&PERCENT, load)) as u16;
            let window_ms = (between(&WINDOW_MS, load) / overrun).max(f64::from(*WINDOW_MS.start()));
            self.window_ms = towards(self.window_ms.into(), window_ms) as u16;
            self.steps = towards(self.steps.into(), f64::from(*STEPS.start()) * overrun) as u8;
        }
        self.retain()
    }

    /// The setting as it stands.
    #[must_use]
    pub fn retain(&self) -> Retain {
        Retain::Peak { percent: self.percent, window_ms: self.window_ms, steps: self.steps }
    }

    /// Hands the setting to the heap, by [`freestone::control::set_retain`]. There is one heap: two controllers would overwrite
    /// each other.
    pub fn apply(&self) {
        control::set_retain(self.retain());
    }

    /// Throughput as a share of the highest seen, from 0 to 1.
    fn load(&mut self, requests_per_second: f64) -> f64 {
        let seen = if self.peak > PEAK_MIN {
            requests_per_second.clamp(self.peak * PEAK_DECAY, self.peak * PEAK_GROWTH_MAX)
        } else {
            requests_per_second
        };
        self.peak = seen.max(PEAK_MIN);
        (requests_per_second / self.peak).min(1.0)
    }

    /// How many times the target the P99 is, from 1 to [`OVERRUN_MAX`].
    fn overrun(&self, p99: Duration) -> f64 {
        (p99.as_secs_f64() / self.p99_target.as_secs_f64()).clamp(1.0, OVERRUN_MAX)
    }
}

/// So far into a range: 0 is its start, 1 its end.
fn between(range: &RangeInclusive<u16>, share: f64) -> f64 {
    let (start, end) = (f64::from(*range.start()), f64::from(*range.end()));
    start + (end - start) * share
}

/// The whole number nearest to `goal` that is at most a quarter more, or a fifth less, than `now`.
///
/// Every range starts above 4, so a quarter is at least 1 and there is always a way on.
fn towards(now: u32, goal: f64) -> u32 {
    (goal.round() as u32).clamp((now * 4).div_ceil(5), now * 5 / 4)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGET: Duration = Duration::from_millis(10);

    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Setting {
        percent: u16,
        window_ms: u16,
        steps: u8,
    }

    fn setting(retain: Retain) -> Setting {
        let Retain::Peak { percent, window_ms, steps } = retain else { panic!("always a peak") };
        Setting { percent, window_ms, steps }
    }

    fn throughputs() -> Vec<f64> {
        let powers = (-4..=6).map(|power| 10_f64.powi(power));
        let steps = (0..=20).map(|step| f64::from(step) * 60.0);
        let mut all: Vec<f64> = powers.chain(steps).chain([f64::MIN_POSITIVE, f64::MAX, 5e-324, -0.0]).collect();
        all.sort_by(f64::total_cmp);
        all
    }

    fn latencies() -> Vec<Duration> {
        let micros = [0, 1, 9_999, 10_000, 10_001, 12_000, 15_000, 20_000, 30_000, 50_000, 79_000, 80_000, 81_000, 1_000_000];
        micros.into_iter().map(Duration::from_micros).chain([Duration::MAX]).collect()
    }

    /// Controllers in all kinds of states.
    fn controllers() -> Vec<Controller> {
        let mut all = Vec::new();
        for target in [Duration::ZERO, TARGET, Duration::MAX] {
            for (throughput, p99) in [(0.0, 0), (1000.0, 5), (1000.0, 25), (1e9, 500)] {
                for observations in [0, 1, 7, 100] {
                    let mut controller = Controller::new(target);
                    controller.observe(500.0, Duration::ZERO);
                    for _ in 0..observations {
                        controller.observe(throughput, Duration::from_millis(p99));
                    }
                    all.push(controller);
                }
            }
            all.push(Controller::new(target));
        }
        all
    }

    #[test]
    fn it_begins_with_the_default() {
        assert_eq!(setting(Controller::new(TARGET).retain()), setting(Retain::DEFAULT));
    }

    #[test]
    fn every_answer_is_within_its_range_and_near_the_last() {
        for controller in controllers() {
            for throughput in throughputs() {
                for p99 in latencies() {
                    let mut controller = controller.clone();
                    let mut before = setting(controller.retain());
                    for _ in 0..3 {
                        let after = setting(controller.observe(throughput, p99));
                        assert!(PERCENT.contains(&after.percent), "{after:?}");
                        assert!(WINDOW_MS.contains(&after.window_ms), "{after:?}");
                        assert!(STEPS.contains(&after.steps), "{after:?}");
                        let pairs: [(u32, u32); 3] = [
                            (before.percent.into(), after.percent.into()),
                            (before.window_ms.into(), after.window_ms.into()),
                            (before.steps.into(), after.steps.into()),
                        ];
                        for (old, new) in pairs {
                            assert!(new * 4 <= old * 5, "from {old} to {new}");
                            assert!(new * 5 >= old * 4, "from {old} to {new}");
                        }
                        before = after;
                    }
                }
            }
        }
    }

    #[test]
    fn more_throughput_keeps_more_and_nothing_else() {
        for controller in controllers() {
            for p99 in latencies() {
                let answers = throughputs().into_iter().map(|throughput| setting(controller.clone().observe(throughput, p99)));
                let answers: Vec<Setting> = answers.collect();
                for pair in answers.windows(2) {
                    assert!(pair[0].percent <= pair[1].percent, "{pair:?}");
                    assert!(pair[0].window_ms <= pair[1].window_ms, "{pair:?}");
                    assert_eq!(pair[0].steps, pair[1].steps);
                }
            }
        }
    }

    #[test]
    fn more_latency_gives_back_earlier_and_in_smaller_steps() {
        for controller in controllers() {
            for throughput in throughputs() {
                let answers = latencies().into_iter().map(|p99| setting(controller.clone().observe(throughput, p99)));
                let answers: Vec<Setting> = answers.collect();
                for pair in answers.windows(2) {
                    assert!(pair[0].window_ms >= pair[1].window_ms, "{pair:?}");
                    assert!(pair[0].steps <= pair[1].steps, "{pair:?}");
                    assert_eq!(pair[0].percent, pair[1].percent);
                }
            }
        }
    }

    #[test]
    fn what_is_no_throughput_changes_nothing() {
        for controller in controllers() {
            for throughput in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0, -f64::MIN_POSITIVE] {
                let mut observing = controller.clone();
                let answer = setting(observing.observe(throughput, Duration::from_secs(1)));
                assert_eq!(answer, setting(controller.retain()));
                assert_eq!(observing, controller, "after {throughput}");
            }
        }
    }

    fn after(observations: usize, controller: &mut Controller, throughput: f64, p99: Duration) -> Setting {
        for _ in 0..observations {
            controller.observe(throughput, p99);
        }
        setting(controller.retain())
    }

    #[test]
    fn the_corners_are_reached() {
        let mut controller = Controller::new(TARGET);
        let full = Setting { percent: 50, window_ms: 20_000, steps: 8 };
        assert_eq!(after(20, &mut controller, 1000.0, TARGET), full, "busy and content");
        let late = Setting { percent: 50, window_ms: 10_000, steps: 16 };
        assert_eq!(after(20, &mut controller, 1000.0, TARGET * 2), late, "twice the target");
        let worst = Setting { percent: 50, window_ms: 2500, steps: 64 };
        assert_eq!(after(20, &mut controller, 1000.0, TARGET * 100), worst);
        let idle = Setting { percent: 5, window_ms: 2000, steps: 8 };
        assert_eq!(after(20, &mut controller, 0.0, Duration::ZERO), idle);
        let mut never_busy = Controller::new(TARGET);
        assert_eq!(after(20, &mut never_busy, 0.0, Duration::ZERO), idle);
    }

    #[test]
    fn a_constant_load_arrives_and_stays() {
        for mut controller in controllers() {
            for share in [0.0, 0.1, 0.35, 0.5, 0.99, 1.0] {
                for p99 in latencies() {
                    let peak = controller.peak.max(1.0);
                    controller.peak = peak;
                    let throughput = peak * share;
                    // From one end of the range to the other is less than 15 steps of a quarter or a fifth; down there they are
                    // rounded.
                    let arrived = after(20, &mut controller, throughput, p99);
                    let mut before = arrived;
                    for _ in 0..200 {
                        let now = setting(controller.observe(throughput, p99));
                        assert_eq!(now.steps, before.steps);
                        assert!(now.percent >= before.percent, "only upward, by forgetting");
                        assert!(now.window_ms >= before.window_ms);
                        before = now;
                    }
                    // 0.9998 to the power of 200 is 0.96.
                    assert!(before.percent <= arrived.percent + 2, "{arrived:?} to {before:?}");
                    assert!(before.window_ms <= arrived.window_ms + 800, "{arrived:?} to {before:?}");
                }
            }
        }
    }

    #[test]
    fn at_the_highest_load_nothing_moves_any_more() {
        let mut controller = Controller::new(TARGET);
        let arrived = after(20, &mut controller, 123.4, TARGET * 3);
        for _ in 0..10_000 {
            assert_eq!(setting(controller.observe(123.4, TARGET * 3)), arrived);
        }
    }

    #[test]
    fn a_lower_load_becomes_the_highest_in_time() {
        let mut controller = Controller::new(TARGET);
        after(20, &mut controller, 1000.0, TARGET);
        let at_half = after(20, &mut controller, 500.0, TARGET);
        assert_eq!(at_half.percent, 28, "half way");
        assert!(after(1000, &mut controller, 500.0, TARGET).percent < 35);
        let forgotten = after(3000, &mut controller, 500.0, TARGET);
        assert_eq!(forgotten, Setting { percent: 50, window_ms: 20_000, steps: 8 });
        assert_eq!(after(3000, &mut controller, 500.0, TARGET), forgotten);
    }

    #[test]
    fn after_days_of_nothing_the_next_figure_is_the_highest() {
        let mut controller = Controller::new(TARGET);
        let idle = after(500_000, &mut controller, 0.0, TARGET);
        assert_eq!(idle.percent, 5);
        after(20, &mut controller, 1000.0, TARGET);
        assert_eq!(after(20, &mut controller, 500.0, TARGET).percent, 28);
    }

    #[test]
    fn one_wrong_figure_is_soon_forgotten() {
        let mut controller = Controller::new(TARGET);
        after(100, &mut controller, 1000.0, TARGET);
        controller.observe(f64::MAX, TARGET);
        let after_it = after(20, &mut controller, 1000.0, TARGET);
        assert!(after_it.percent >= 40, "{after_it:?}");
    }
}
