//! Floor 4. Which pages of the kernel a new stretch of memory asks for.
//!
//! A first touch of a 2 MiB page costs 85 µs, of 512 small ones 640 µs, but it takes 2 MiB at once. So small heaps stay on small
//! pages, and a step asks for a huge page when the heap is large enough for 2 MiB not to matter, or when it is growing so fast that
//! the page will be filled anyway. Pure: numbers and time in, decision out.

use crate::config::{GROWTH_BURST_NS, HUGE_PAGES_BURST_BYTES, HUGE_PAGES_HEAP_BYTES};
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

    /// A step is about to be added to a heap of `heap_bytes`: shall it use huge pages?
    pub(crate) fn next_step_is_huge(&mut self, option: HugePages, heap_bytes: usize, now_ns: u64) -> bool {
        let filled_within = now_ns.saturating_sub(self.last_step_ns);
        self.last_step_ns = now_ns;
        match option {
            HugePages::Never => false,
            HugePages::Always => true,
            HugePages::Auto => {
                heap_bytes >= HUGE_PAGES_HEAP_BYTES || (heap_bytes >= HUGE_PAGES_BURST_BYTES && filled_within <= GROWTH_BURST_NS)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_heaps_stay_small_and_bursts_do_not() {
        let mut pace = GrowthPace::new();
        let burst = GROWTH_BURST_NS;
        assert!(!pace.next_step_is_huge(HugePages::Auto, 0, 1));
        assert!(!pace.next_step_is_huge(HugePages::Auto, HUGE_PAGES_BURST_BYTES - 1, 2));
        assert!(pace.next_step_is_huge(HugePages::Auto, HUGE_PAGES_BURST_BYTES, 2 + burst));
        assert!(!pace.next_step_is_huge(HugePages::Auto, HUGE_PAGES_BURST_BYTES, 3 + 2 * burst));
        assert!(pace.next_step_is_huge(HugePages::Auto, HUGE_PAGES_HEAP_BYTES, 900 * burst));
    }

    #[test]
    fn a_choice_is_a_choice() {
        let mut pace = GrowthPace::new();
        assert!(pace.next_step_is_huge(HugePages::Always, 0, 1));
        assert!(!pace.next_step_is_huge(HugePages::Never, usize::MAX, 1));
    }
}
