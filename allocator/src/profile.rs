//! Floor 12. The face for who reads profiles: call sites, where threads were held up, and what there is to know about samples.
//!
//! Sampling is on from the first allocation; nothing has to be prepared. See [`Site`] for what is known of each call site. `freestone-stats` makes profiles in
//! the usual formats of this, with names.

use crate::heap;
use crate::sampling::{Portion, Sampling};
pub use crate::site::{Estimate, FRAMES_MAX, LIFETIME_BUCKETS, ProfileSummary, Site, Stack, Stall, StallKind, TEMPORARY_NS};
use crate::supply::Supply;
use crate::thread_cache::record::Record;

/// So many are copied at a time: other threads' samples wait meanwhile, and they lie on the stack.
const AT_A_TIME: usize = 8;

/// Calls for each call site there is, with a copy.
///
/// Allocates nothing, and takes 9 KiB of stack. Other threads' samples wait at most for as long as copying eight sites takes, some microseconds, and never
/// while `each` runs. Sites that come up meanwhile may be missed, and those that are there from beginning to end are not.
///
/// # Examples
///
/// ```
/// freestone::profile::each_site(|site| {
///     println!("{:?} has {:.0} bytes", site.stack.frames().first(), site.live.bytes);
/// });
/// ```
pub fn each_site(each: impl FnMut(&Site)) {
    copies(Sampling::sites, each);
}

/// As [`each_site`], of places where threads were held up by the allocator.
pub fn each_stall(each: impl FnMut(&Stall)) {
    copies(Sampling::stalls, each);
}

fn copies<T: Copy + Default>(some: impl Fn(&Sampling, u32, &mut [T]) -> Portion, mut each: impl FnMut(&T)) {
    let (mut next, mut copies) = (0, [T::default(); AT_A_TIME]);
    while let Some(portion) = heap::read(|supply| some(&supply.sampling, next, &mut copies)) {
        copies[..portion.count].iter().for_each(&mut each);
        if portion.is_last {
            break;
        }
        next = portion.next;
    }
}

/// What there is to know about all samples together.
#[must_use]
pub fn summary() -> ProfileSummary {
    let summary = |supply: &Supply| ProfileSummary { interval: supply.choices.interval() as usize, ..supply.sampling.summary() };
    heap::read(summary).unwrap_or_default()
}

/// Counts, for [`Site::pinned_bytes`], what is free beside blocks of each site. Some ten nanoseconds per sample that is alive.
pub fn measure_pinned() {
    heap::read(|supply| supply.sampling.measure_pinned(&supply.page_heap));
}

/// The live bytes of now count as the highest so far.
pub fn reset_peak() {
    heap::read(|supply| supply.sampling.reset_peak(&supply.page_heap));
}

/// Says under which tag the calling thread's allocations are sampled from now on, and which it was until now; 0: none. Allocates nothing; costs a few
/// nanoseconds.
pub fn set_tag(tag: u32) -> u32 {
    of_this_thread(|record| record.set_tag(tag)).unwrap_or(0)
}

/// Runs something of which nothing is to be seen in profiles: the allocations of the calling thread are not sampled meanwhile.
pub fn without_samples<R>(work: impl FnOnce() -> R) -> R {
    struct Muted(bool);
    impl Drop for Muted {
        fn drop(&mut self) {
            if self.0 {
                of_this_thread(Record::unmute);
            }
        }
    }
    let _muted = Muted(of_this_thread(Record::mute).is_some());
    work()
}

/// Changes what belongs to the calling thread alone: without a slow path, if its cache is there.
fn of_this_thread<R>(change: impl Fn(&Record) -> R) -> Option<R> {
    heap::current_record().map(&change).or_else(|| heap::with_record(|record, _| change(record)))
}

/// Makes chance come out the same way again, in threads that are born from now on and in the calling one. For tests.
#[doc(hidden)]
pub fn seed(seed: u64) {
    heap::read(|supply| supply.choices.set_seed(seed));
    heap::with_record(|record, supply| {
        record.set_seed(supply.choices.seed());
        record.draw_anew(supply);
    });
}
