//! Floor 4. Which pages of the kernel a new stretch of memory asks for.
//!
//! A first touch of a 2 MiB page costs 85 µs, of 512 small ones 640 µs, but it takes 2 MiB at once. So small heaps stay on small
//! pages, and a step asks for a huge page when the heap is large enough for 2 MiB not to matter, or when it is growing so fast that
//! the page will be filled anyway. A guard turns huge pages off for a while when the kernel takes long to find them: where memory is
//! fragmented, or a host has taken it back, 2 MiB at once came in 1300 µs, small pages as ever (2026-11). Pure: numbers and time in,
//! decision out.

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::config::{
    BURST_GAP_SHARE, GROWTH_BURST_NS, HUGE_LONG_PAUSE_NS, HUGE_LONG_STALL_NS, HUGE_PAGES_BURST_BYTES, HUGE_PAGES_HEAP_BYTES,
    HUGE_PAUSE_NS, HUGE_STALL_NS, HUGE_STALLS_MAX,
};
use crate::options::HugePages;

/// Remembers how fast the heap grew.
#[derive(Debug)]
pub(crate) struct GrowthPace {
    last_step_ns: u64,
}

impl GrowthPace {
    pub(crate) const fn new() -> Self {
        Self { last_step_ns: 0 }
    }

    /// A step is about to be added to a heap of `heap_bytes` whose steps have `gap_bytes` free: shall it use huge pages?
    pub(crate) fn next_step_is_huge(&mut self, option: HugePages, heap_bytes: usize, gap_bytes: usize, now_ns: u64) -> bool {
        let filled_within = now_ns.saturating_sub(self.last_step_ns);
        self.last_step_ns = now_ns;
        match option {
            HugePages::Never => false,
            HugePages::Always => true,
            HugePages::Auto => {
                // Steps with gaps: it grows because something large did not fit, and may not need much of the next one.
                let fills_up = gap_bytes <= heap_bytes / BURST_GAP_SHARE;
                let bursts = heap_bytes >= HUGE_PAGES_BURST_BYTES && filled_within <= GROWTH_BURST_NS && fills_up;
                heap_bytes >= HUGE_PAGES_HEAP_BYTES || bursts
            }
        }
    }
}

/// Watches how long huge pages take to come.
#[derive(Debug)]
pub(crate) struct StallGuard {
    /// Stalls in a row.
    stalls: AtomicU32,
    /// No huge pages before this time.
    off_until_ns: AtomicU64,
}

// Relaxed: advice, nothing is ordered by it.
impl StallGuard {
    pub(crate) const fn new() -> Self {
        Self { stalls: AtomicU32::new(0), off_until_ns: AtomicU64::new(0) }
    }

    /// Are huge pages worth asking for at the moment?
    pub(crate) fn allows(&self, now_ns: u64) -> bool {
        now_ns >= self.off_until_ns.load(Ordering::Relaxed)
    }

    /// A huge page took so long to come. `true`: for a while there are to be none.
    #[must_use]
    pub(crate) fn came(&self, took_ns: u64, now_ns: u64) -> bool {
        if took_ns > HUGE_LONG_STALL_NS {
            self.off_until_ns.store(now_ns.saturating_add(HUGE_LONG_PAUSE_NS), Ordering::Relaxed);
            return true;
        }
        if took_ns <= HUGE_STALL_NS {
            self.stalls.store(0, Ordering::Relaxed);
            return false;
        }
        let is_enough = self.stalls.fetch_add(1, Ordering::Relaxed) + 1 >= HUGE_STALLS_MAX;
        if is_enough {
            // After the pause a single stall is enough.
            self.stalls.store(HUGE_STALLS_MAX - 1, Ordering::Relaxed);
            self.off_until_ns.store(now_ns.saturating_add(HUGE_PAUSE_NS), Ordering::Relaxed);
        }
        is_enough
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_in_a_row_turn_huge_pages_off_for_a_while() {
        let guard = StallGuard::new();
        let mut now = 1;
        for _ in 0..HUGE_STALLS_MAX - 1 {
            assert!(!guard.came(HUGE_STALL_NS + 1, now));
        }
        assert!(guard.allows(now), "not yet");
        assert!(!guard.came(HUGE_STALL_NS, now));
        for _ in 0..HUGE_STALLS_MAX - 1 {
            assert!(!guard.came(HUGE_STALL_NS + 1, now));
        }
        assert!(guard.allows(now), "they were not in a row");
        assert!(guard.came(HUGE_STALL_NS + 1, now));
        assert!(!guard.allows(now));
        assert!(!guard.allows(now + HUGE_PAUSE_NS - 1));
        now += HUGE_PAUSE_NS;
        assert!(guard.allows(now), "tried again");
        assert!(guard.came(HUGE_STALL_NS + 1, now));
        assert!(!guard.allows(now), "and found wanting at once");
        now += HUGE_PAUSE_NS;
        assert!(!guard.came(1, now));
        assert!(!guard.came(HUGE_STALL_NS + 1, now));
        assert!(guard.allows(now), "one that came in time makes up for the others");
    }

    #[test]
    fn one_long_stall_turns_them_off_for_a_minute() {
        let guard = StallGuard::new();
        assert!(!guard.came(HUGE_LONG_STALL_NS, 1));
        assert!(guard.allows(2), "not long enough");
        assert!(guard.came(HUGE_LONG_STALL_NS + 1, 3));
        assert!(!guard.allows(3 + HUGE_LONG_PAUSE_NS - 1));
        assert!(guard.allows(3 + HUGE_LONG_PAUSE_NS));
    }

    #[test]
    fn small_heaps_stay_small_and_bursts_do_not() {
        let mut pace = GrowthPace::new();
        let burst = GROWTH_BURST_NS;
        let gap = HUGE_PAGES_BURST_BYTES / BURST_GAP_SHARE;
        assert!(!pace.next_step_is_huge(HugePages::Auto, 0, 0, 1));
        assert!(!pace.next_step_is_huge(HugePages::Auto, HUGE_PAGES_BURST_BYTES - 1, 0, 2));
        assert!(pace.next_step_is_huge(HugePages::Auto, HUGE_PAGES_BURST_BYTES, gap, 2 + burst));
        assert!(!pace.next_step_is_huge(HugePages::Auto, HUGE_PAGES_BURST_BYTES, gap + 1, 2 + burst));
        assert!(!pace.next_step_is_huge(HugePages::Auto, HUGE_PAGES_BURST_BYTES, 0, 3 + 2 * burst));
        assert!(pace.next_step_is_huge(HugePages::Auto, HUGE_PAGES_HEAP_BYTES, HUGE_PAGES_HEAP_BYTES, 900 * burst));
    }

    #[test]
    fn a_choice_is_a_choice() {
        let mut pace = GrowthPace::new();
        assert!(pace.next_step_is_huge(HugePages::Always, 0, 0, 1));
        assert!(!pace.next_step_is_huge(HugePages::Never, usize::MAX, 0, 1));
    }
}
