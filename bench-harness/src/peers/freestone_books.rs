//! What Freestone's own books say at the end of a run: how often each slow path was taken, and what each size class saw. When the gate finds that
//! a row got worse, it looks here for where that comes from (`gate/causes.rs`).

use freestone::{SlowPath, Snapshot};
use freestone_bench::controls::Note;

/// Notes the books under names with a dot in them: `slow.` and what a slow path is called, or `class.`, the block size and a figure. What is zero
/// is left out.
pub(crate) fn note(note: &mut Note<'_>) {
    let heap = freestone::snapshot();
    let mut unless_zero = |name: &'static str, figure: u64| {
        if figure > 0 {
            note(name, figure);
        }
    };
    for (name, count) in slow_paths(&heap) {
        unless_zero(name, count);
    }
    for class in &heap.classes {
        // Names of notes live for ever, and so may these, at the end of a process.
        let mut of_class = |figure: &str, value: u64| {
            if value > 0 {
                unless_zero(format!("class.{}.{figure}", class.block_bytes).leak(), value);
            }
        };
        of_class("allocations", class.allocations);
        of_class("span_bytes", class.spans * class.span_bytes as u64);
        of_class("holes_bytes", class.holes_bytes as u64);
    }
    unless_zero("class.large.allocations", heap.large.allocations);
    unless_zero("class.large.allocated_bytes", heap.large.allocated_bytes);
}

fn slow_paths(heap: &Snapshot) -> [(&'static str, u64); 20] {
    let events = heap.events;
    [
        ("slow.exchanges", events.exchanges),
        ("slow.refills", events.refills),
        ("slow.flushes", events.flushes),
        ("slow.depot_takes", events.depot_takes),
        ("slow.depot_puts", events.depot_puts),
        ("slow.span_births", events.span_births),
        ("slow.span_deaths", events.span_deaths),
        ("slow.maps", events.maps),
        ("slow.unmaps", events.unmaps),
        ("slow.purges", events.purges),
        ("slow.advices", events.advices),
        ("slow.moves", events.moves),
        ("slow.release_rounds", events.release_rounds),
        ("slow.huge_page_pauses", events.huge_page_pauses),
        ("slow.record_births", events.record_births),
        ("slow.record_adoptions", events.record_adoptions),
        ("slow.recalls", events.recalls),
        ("slow.samples", events.samples),
        ("slow.assists", heap.limits.assists),
        ("slow.lock_waits", heap.slow_paths[SlowPath::LockWait as usize].count),
    ]
}
