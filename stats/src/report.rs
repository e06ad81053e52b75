//! The report: a snapshot as plain text, for a terminal or a log.

use std::fmt;

use bytesize::ByteSize;
use freestone::{ClassSnapshot, PauseKind};

use crate::Snapshot;

/// How many size classes the report names.
const CLASSES_NAMED: usize = 12;

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heap = &self.heap;
        writeln!(f, "freestone: {} live in {} blocks", ByteSize(heap.bytes.live as u64), heap.live_blocks())?;
        if heap.approximate {
            writeln!(f, "(threads were at work: figures may be off by what was on its way)")?;
        }
        ledger(f, heap)?;
        traffic(f, heap)?;
        giving_back(f, heap)?;
        classes(f, heap)
    }
}

/// Where every byte is, summing up to what is reserved.
fn ledger(f: &mut fmt::Formatter<'_>, heap: &freestone::Snapshot) -> fmt::Result {
    let bytes = &heap.bytes;
    let mut line = |what: &str, bytes: usize, meaning: &str| {
        let size = ByteSize(bytes as u64).to_string();
        writeln!(f, "{}", format!("  {what:<15}{size:>12}   {meaning}").trim_end())
    };
    line("live", bytes.live, "the program has it")?;
    line("thread caches", bytes.thread_cached, "free, at hand for the thread that freed it")?;
    line("depots", bytes.depot, "free, on its way between threads")?;
    line("holes", bytes.holes, "free, in spans that are in use")?;
    line("dirty", bytes.dirty, "free pages that still hold memory")?;
    line("metadata", bytes.metadata, "for the allocator itself")?;
    if bytes.lost_at_fork > 0 {
        line("lost at fork", bytes.lost_at_fork, "in caches of threads that stayed in the parent")?;
    }
    line("= committed", bytes.committed(), "the most of it that can be resident")?;
    line("released", bytes.released, "address space without memory")?;
    line("= reserved", bytes.reserved(), "")
}

/// What was asked for, and what that took.
fn traffic(f: &mut fmt::Formatter<'_>, heap: &freestone::Snapshot) -> fmt::Result {
    let events = &heap.events;
    writeln!(f, "  {} allocations, {}", heap.allocations, ByteSize(heap.allocated_bytes))?;
    writeln!(f, "  {} frees, {}", heap.frees, ByteSize(heap.freed_bytes))?;
    writeln!(
        f,
        "  {} exchanges, {} refills, {} flushes, {} depot takes, {} depot puts",
        events.exchanges, events.refills, events.flushes, events.depot_takes, events.depot_puts
    )?;
    writeln!(f, "  {} spans born, {} ended", events.span_births, events.span_deaths)?;
    writeln!(f, "  {} OS calls, {} refused", events.os_calls(), events.refusals)?;
    writeln!(f, "  {} thread records, {} of them waiting for a thread", heap.thread_records, heap.thread_records_pooled)
}

/// What went back to the system and how long that took, and what the limits did.
fn giving_back(f: &mut fmt::Formatter<'_>, heap: &freestone::Snapshot) -> fmt::Result {
    let by = if heap.background_thread { "by a thread of its own" } else { "by slow paths" };
    let all = [PauseKind::Release, PauseKind::Assist, PauseKind::ReleaseAll].map(|kind| heap.pauses[kind as usize].bytes);
    writeln!(f, "  {} given back, {by}; {} caches of sleeping threads taken", ByteSize(all.iter().sum()), heap.events.recalls)?;
    for kind in PauseKind::ALL {
        let pauses = heap.pauses[kind as usize];
        if pauses.count > 0 {
            let [p50, p99, max] = [pauses.p50_ns, pauses.p99_ns, pauses.max_ns].map(|ns| ns as f64 / 1e6);
            let what = match kind {
                PauseKind::Depot => "waits for depots",
                PauseKind::Central => "stays in central",
                PauseKind::PageHeap => "growths",
                PauseKind::System => "system calls",
                PauseKind::Release => "releases",
                PauseKind::Assist => "assists",
                PauseKind::ReleaseAll => "releases of everything",
                _ => "others",
            };
            writeln!(f, "  {} {what} of note: P50 {p50:.3} ms, P99 {p99:.3} ms, longest {max:.3} ms", pauses.count)?;
        }
    }
    let limits = heap.limits;
    for (what, limit) in [("memory limit", limits.memory_limit), ("hard limit", limits.hard_limit)] {
        if let Some(limit) = limit {
            writeln!(f, "  {what} {}, of which the heap holds {}", ByteSize(limit as u64), ByteSize(limits.held as u64))?;
        }
    }
    if limits.assists + limits.exceeded + limits.fuse_trips > 0 {
        let sticky = if limits.fuse_sticky { ", often" } else { "" };
        writeln!(
            f,
            "  {} assists, over the limit {} times, fuse tripped {} times{sticky}",
            limits.assists, limits.exceeded, limits.fuse_trips
        )?;
    }
    Ok(())
}

/// The size classes that hold the most.
fn classes(f: &mut fmt::Formatter<'_>, heap: &freestone::Snapshot) -> fmt::Result {
    let held = |class: &ClassSnapshot| class.live() * class.block_bytes as u64;
    let mut by_size: Vec<&ClassSnapshot> = heap.classes.iter().filter(|class| class.allocations > 0).collect();
    by_size.sort_by_key(|class| std::cmp::Reverse(held(class)));
    writeln!(f, "  {:>10} {:>12} {:>12} {:>12} {:>8} {:>14}", "block", "live", "blocks", "cached", "spans", "allocations")?;
    for class in by_size.iter().take(CLASSES_NAMED) {
        writeln!(
            f,
            "  {:>10} {:>12} {:>12} {:>12} {:>8} {:>14}",
            ByteSize(class.block_bytes as u64).to_string(),
            ByteSize(held(class)).to_string(),
            class.live(),
            class.thread_cached + class.depot,
            class.spans,
            class.allocations,
        )?;
    }
    if by_size.len() > CLASSES_NAMED {
        let rest = by_size.split_off(CLASSES_NAMED);
        let bytes = rest.iter().map(|class| held(class)).sum();
        writeln!(f, "  and {} classes more with {} live", rest.len(), ByteSize(bytes))?;
    }
    let large = heap.large;
    let live = large.allocated_bytes.saturating_sub(large.freed_bytes);
    writeln!(
        f,
        "  {:>10} {:>12} {:>12} {:>12} {:>8} {:>14}",
        "larger",
        ByteSize(live).to_string(),
        large.allocations.saturating_sub(large.frees),
        "-",
        "-",
        large.allocations
    )
}
