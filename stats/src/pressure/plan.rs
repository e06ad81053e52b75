//! The plan: which thresholds were crossed, and when to look again. Pure: numbers in, decisions out.
//!
//! ```text
//!   held ▲         ┌── called once                ┌── called again
//!        │ ────────●──────────────────────────────●────── threshold
//!        │        ╱ ╲    ╱╲    ╱╲                ╱
//!        │       ╱   ╲  ╱  ╲  ╱  ╲              ╱
//!        │ ─────╱─────╲╱────╲╱────●────────────╱──────── 90 % of it: armed again below
//!        │     ╱                   ╲__________╱
//!        └────────────────────────────────────────────▶ time
//! ```
//!
//! The distance between the two lines keeps memory that hovers around a threshold from calling all the time.

/// The share of a threshold that held memory must fall below to arm it again is one less one part in so many: 90 %.
const HYSTERESIS_PART: usize = 10;

/// How much held memory is too much. Made by [`bytes`](Self::bytes), [`of_memory_limit`](Self::of_memory_limit) or
/// [`of_hard_limit`](Self::of_hard_limit).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Threshold(Measure);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Measure {
    Bytes(usize),
    OfMemoryLimit(Percent),
    OfHardLimit(Percent),
}

/// From 1 to 100.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Percent(u8);

impl Percent {
    const fn clamped(percent: u8) -> Self {
        Self(match percent {
            0 => 1,
            1..=100 => percent,
            _ => 100,
        })
    }

    /// Rounded down.
    fn of(self, limit: usize) -> usize {
        // At most `limit`, which fits.
        (limit as u128 * u128::from(self.0) / 100) as usize
    }
}

impl Threshold {
    /// So many bytes held from the system, as [`freestone::control::held_bytes`] counts them. 0 is crossed once, and never armed
    /// again.
    #[must_use]
    pub const fn bytes(bytes: usize) -> Self {
        Self(Measure::Bytes(bytes))
    }

    /// So many percent of the memory limit, whatever it is at the time; never crossed while there is none.
    ///
    /// `percent` goes from 1 to 100; 0 means 1, and more than 100 means 100.
    #[must_use]
    pub const fn of_memory_limit(percent: u8) -> Self {
        Self(Measure::OfMemoryLimit(Percent::clamped(percent)))
    }

    /// So many percent of the hard limit, whatever it is at the time; never crossed while there is none. At 95 % the fuse calls
    /// everybody anyway.
    ///
    /// `percent` goes from 1 to 100; 0 means 1, and more than 100 means 100.
    #[must_use]
    pub const fn of_hard_limit(percent: u8) -> Self {
        Self(Measure::OfHardLimit(Percent::clamped(percent)))
    }

    /// In bytes, under these limits. `None`: a share of a limit that is not set.
    pub(super) fn resolve(self, limits: Limits) -> Option<usize> {
        match self.0 {
            Measure::Bytes(bytes) => Some(bytes),
            Measure::OfMemoryLimit(percent) => limits.memory.map(|limit| percent.of(limit)),
            Measure::OfHardLimit(percent) => limits.hard.map(|limit| percent.of(limit)),
        }
    }
}

/// The limits in force, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Limits {
    pub(super) memory: Option<usize>,
    pub(super) hard: Option<usize>,
}

/// Where a threshold stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Reaching the threshold calls.
    Armed,
    /// It was reached, and memory has not fallen far enough since.
    Crossed {
        /// The threshold at the last look, in bytes: a limit that has changed since has moved it.
        at: usize,
    },
}

/// What a look at a threshold asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub(super) enum Verdict {
    Rest,
    Call,
}

impl State {
    /// Crossed → Armed, when `held` has fallen below 90 % of the threshold, when a limit has moved the threshold above it, or
    /// when there is no threshold any more.
    #[must_use]
    pub(super) fn rearmed(self, threshold: Option<usize>, held: usize) -> Self {
        match (self, threshold) {
            (Self::Armed, _) | (Self::Crossed { .. }, None) => Self::Armed,
            (Self::Crossed { at }, Some(threshold)) => {
                let moved_above = at != threshold && held < threshold;
                if moved_above || held < rearm_below(threshold) { Self::Armed } else { Self::Crossed { at: threshold } }
            }
        }
    }

    /// Crossed → Armed as in [`rearmed`](Self::rearmed), and Armed → Crossed, with a call, when `held` has reached the threshold.
    pub(super) fn look(self, threshold: Option<usize>, held: usize) -> (Self, Verdict) {
        match (self.rearmed(threshold, held), threshold) {
            (Self::Armed, Some(threshold)) if held >= threshold => (Self::Crossed { at: threshold }, Verdict::Call),
            (state, _) => (state, Verdict::Rest),
        }
    }
}

/// Below so many bytes a threshold that was crossed is armed again: 90 %, rounded up.
fn rearm_below(threshold: usize) -> usize {
    threshold - threshold / HYSTERESIS_PART
}

/// Between which amounts of held memory nothing happens, whatever the amount: from `below` on, and less than `above`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Bounds {
    /// `usize::MAX`: nothing happens above.
    pub(super) above: usize,
    /// 0: nothing happens below.
    pub(super) below: usize,
}

impl Bounds {
    /// Nothing ever happens.
    pub(super) const WIDEST: Self = Self { above: usize::MAX, below: 0 };

    /// Narrowed so that this threshold is looked at when it is crossed, or armed again.
    #[must_use]
    pub(super) fn including(self, state: State, threshold: Option<usize>) -> Self {
        match (state, threshold) {
            (_, None) => self,
            (State::Armed, Some(threshold)) => Self { above: self.above.min(threshold), ..self },
            (State::Crossed { .. }, Some(threshold)) => Self { below: self.below.max(rearm_below(threshold)), ..self },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Amounts on which all combinations are tried; ten parts fit twice, so that 90 % is a number of its own.
    const AMOUNTS: usize = 23;

    fn after(held: &[usize], threshold: usize) -> (State, usize) {
        let mut calls = 0;
        let mut state = State::Armed;
        for &held in held {
            let (next, verdict) = state.look(Some(threshold), held);
            calls += usize::from(verdict == Verdict::Call);
            state = next;
        }
        (state, calls)
    }

    /// The rule in other words: a look calls if memory is there, and either it never was, or it was below 90 % since the last
    /// time.
    fn calls_expected(held: &[usize], threshold: usize) -> usize {
        let mut calls = 0;
        let mut last_call = None;
        for (now, &amount) in held.iter().enumerate() {
            let fell = last_call.is_none_or(|last: usize| held[last..now].iter().any(|&amount| amount * 10 < threshold * 9));
            if amount >= threshold && fell {
                calls += 1;
                last_call = Some(now);
            }
        }
        calls
    }

    #[test]
    fn every_course_of_four_looks_calls_once_per_crossing() {
        for threshold in 0..AMOUNTS {
            for course in 0..AMOUNTS.pow(4) {
                let held = [course % 23, course / 23 % 23, course / 529 % 23, course / 12_167];
                assert_eq!(after(&held, threshold).1, calls_expected(&held, threshold), "{held:?} over {threshold}");
            }
        }
    }

    /// All states that a threshold may be in after looks at `held`, or that it may be in before its first.
    fn states(threshold: Option<usize>, held: usize) -> impl Iterator<Item = State> {
        let crossed = threshold.filter(|&threshold| held >= rearm_below(threshold)).map(|at| State::Crossed { at });
        [Some(State::Armed), crossed].into_iter().flatten()
    }

    fn thresholds() -> impl Iterator<Item = Option<usize>> {
        (0..AMOUNTS).map(Some).chain([None])
    }

    #[test]
    fn bounds_let_nothing_happen_inside_and_something_outside() {
        for held in 0..AMOUNTS {
            for first in thresholds() {
                for second in thresholds() {
                    for first_state in states(first, held) {
                        for second_state in states(second, held) {
                            let pair = [(first, first_state), (second, second_state)];
                            let bounds = pair
                                .iter()
                                .fold(Bounds::WIDEST, |bounds, &(threshold, state)| bounds.including(state, threshold));
                            for next in 0..AMOUNTS + 2 {
                                let happens =
                                    pair.iter().any(|&(threshold, state)| state.look(threshold, next) != (state, Verdict::Rest));
                                let outside = next >= bounds.above || next < bounds.below;
                                assert_eq!(happens, outside, "{pair:?}, {bounds:?}, now {next}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn no_thresholds_have_no_bounds() {
        assert_eq!(Bounds::WIDEST.including(State::Armed, None), Bounds { above: usize::MAX, below: 0 });
        assert_eq!(Bounds::WIDEST.including(State::Armed, Some(usize::MAX)), Bounds::WIDEST);
        assert_eq!(Bounds::WIDEST.including(State::Crossed { at: 0 }, Some(0)), Bounds::WIDEST, "nothing is less than no bytes");
    }

    #[test]
    fn rearming_alone_never_crosses_and_agrees_with_a_look() {
        for threshold in thresholds() {
            for at in thresholds() {
                let state = at.map_or(State::Armed, |at| State::Crossed { at });
                for held in 0..AMOUNTS {
                    let rearmed = state.rearmed(threshold, held);
                    assert!(state != State::Armed || rearmed == State::Armed);
                    let (looked, verdict) = state.look(threshold, held);
                    assert_eq!(looked != rearmed, verdict == Verdict::Call);
                }
            }
        }
    }

    #[test]
    fn a_limit_that_moves_is_looked_at_anew() {
        let crossed = State::Crossed { at: 70 };
        assert_eq!(crossed.look(Some(70), 65), (crossed, Verdict::Rest), "not moved, not below 63");
        assert_eq!(crossed.look(Some(72), 71), (State::Armed, Verdict::Rest), "moved above what is held");
        assert_eq!(crossed.look(Some(35), 71), (State::Crossed { at: 35 }, Verdict::Rest), "still crossed: no second call");
        assert_eq!(State::Armed.look(Some(35), 40), (State::Crossed { at: 35 }, Verdict::Call), "moved below what is held");
        assert_eq!(crossed.look(None, 71), (State::Armed, Verdict::Rest));
        assert_eq!(State::Armed.look(None, usize::MAX), (State::Armed, Verdict::Rest), "no limit, no call");
    }

    #[test]
    fn percentages_are_exact_and_stay_within_the_limit() {
        let limits = Limits { memory: Some(1000), hard: Some(usize::MAX) };
        for percent in 0..=u8::MAX {
            let clamped = usize::from(percent).clamp(1, 100);
            assert_eq!(Threshold::of_memory_limit(percent).resolve(limits), Some(clamped * 10));
            let of_all = Threshold::of_hard_limit(percent).resolve(limits).expect("it is set");
            assert_eq!(of_all == usize::MAX, clamped == 100);
            assert_eq!(Threshold::of_memory_limit(percent).resolve(Limits::default()), None);
            assert_eq!(Threshold::of_hard_limit(percent).resolve(Limits { hard: None, ..limits }), None);
        }
        assert_eq!(Threshold::bytes(7).resolve(Limits::default()), Some(7));
    }

    #[test]
    fn ninety_percent_is_rounded_up_and_does_not_overflow() {
        for threshold in 0..10_000 {
            assert_eq!(rearm_below(threshold), (threshold * 9).div_ceil(10));
        }
        assert!(rearm_below(usize::MAX) < usize::MAX);
    }
}
