//! A cache that grows until callbacks say that memory is short, and sheds.
//!
//! The limit is what the environment says (`FREESTONE_MEMORY_LIMIT=64MiB`); else this program sets its own.
//!
//! ```text
//! $ cargo run -p freestone-stats --example pressure
//! 70 % of the limit: 46888 KiB are held
//!   shed: 158 entries stay, 6276 KiB went back to the system
//! 90 % of the limit: 59044 KiB are held
//!   shed: 55 entries stay, 44800 KiB went back to the system
//! ```

use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use freestone::{Freestone, Limit, control};
use freestone_stats::pressure::{self, Subscription, Threshold};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// What this program allows itself on a heap without limit.
const LIMIT_BYTES: usize = 64 << 20;
const ENTRY_BYTES: usize = 256 << 10;

/// What the callbacks ask for: the highest percentage that was reached since somebody looked, or 0.
static REACHED: AtomicU8 = AtomicU8::new(0);

/// Calls back at so many percent of the limit. The callback only leaves a note: it may run in the middle of an allocation of the
/// cache.
fn watch(percent: u8) -> Subscription {
    pressure::on(Threshold::of_memory_limit(percent), move |_| {
        // Relaxed: a hint, that nothing else depends on.
        REACHED.fetch_max(percent, Ordering::Relaxed);
    })
}

fn main() {
    if control::memory_limit().is_none() {
        control::set_memory_limit(Limit::Bytes(LIMIT_BYTES));
    }
    watch(70).forever();
    let _until_the_end_of_main = watch(90);

    let mut cache: Vec<Vec<u8>> = Vec::new();
    let mut sheds = 0;
    while sheds < 4 {
        cache.push(vec![7; ENTRY_BYTES]);
        // A program with more to do would not wait. Callbacks run on the heap's background thread, where there is one.
        std::thread::sleep(Duration::from_millis(2));
        // Relaxed: as above.
        let keep = match REACHED.swap(0, Ordering::Relaxed) {
            0 => continue,
            // Mild: a tenth goes, and the cache goes on growing until 90 % are reached.
            percent @ 0..90 => report(percent, cache.len() - cache.len() / 10),
            // Hard: so little stays that both thresholds are armed again.
            percent => report(percent, cache.len() / 4),
        };
        cache.truncate(keep);
        let released = control::release_to_os();
        println!("  shed: {} entries stay, {} KiB went back to the system", cache.len(), released >> 10);
        sheds += 1;
    }
}

/// Says what is the matter, and hands `keep` on.
fn report(percent: u8, keep: usize) -> usize {
    println!("{percent} % of the limit: {} KiB are held", control::held_bytes() >> 10);
    keep
}
