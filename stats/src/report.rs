//! The report: a snapshot as plain text, for a terminal or a log.
//!
//! It stays within 100 columns whatever the numbers are: counts of up to 20 digits stand as they are where there is room, and are shortened where
//! there is not.

use std::fmt;

use bytesize::ByteSize;
use freestone::{ClassSnapshot, LimitSnapshot, PauseKind, SlowPath};

use crate::Snapshot;

/// How many size classes the report names.
const CLASSES_NAMED: usize = 12;
/// How many of the longest pauses it lists.
const PAUSES_NAMED: usize = 5;

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let heap = &self.heap;
        writeln!(f, "freestone: {} live in {} blocks", ByteSize(heap.bytes.live as u64), heap.live_blocks())?;
        if heap.approximate {
            writeln!(f, "(threads were at work: figures may be off by what was on its way)")?;
        }
        ledger(f, heap)?;
        if let Some(resident) = self.resident {
            let [total, files] = [resident.total, resident.file_backed].map(ByteSize);
            writeln!(f, "  the process has {total} in memory, {files} of that files or shared")?;
        }
        traffic(f, heap)?;
        giving_back(f, heap)?;
        limits(f, &heap.limits)?;
        slow_paths(f, heap)?;
        pauses(f, self)?;
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
    if bytes.profiler > 0 {
        line("profiler", bytes.profiler, "what samples take beyond their blocks")?;
    }
    if bytes.lost_at_fork > 0 {
        line("lost at fork", bytes.lost_at_fork, "in caches of threads that stayed in the parent")?;
    }
    line("= committed", bytes.committed(), "the most of it that can be resident")?;
    line("released", bytes.released, "address space without memory")?;
    line("= reserved", bytes.reserved(), "")
}

/// What was asked for, and what that took: two columns of counts.
fn traffic(f: &mut fmt::Formatter<'_>, heap: &freestone::Snapshot) -> fmt::Result {
    let events = &heap.events;
    let bytes = |bytes| ByteSize(bytes).to_string();
    let rows = [
        ("allocations", heap.allocations, bytes(heap.allocated_bytes), "exchanges", events.exchanges),
        ("frees", heap.frees, bytes(heap.freed_bytes), "refills", events.refills),
        ("spans born", events.span_births, String::new(), "flushes", events.flushes),
        ("spans ended", events.span_deaths, String::new(), "depot takes", events.depot_takes),
        ("OS calls", events.os_calls(), String::new(), "depot puts", events.depot_puts),
        ("refused", events.refusals, String::new(), "caches recalled", events.recalls),
        ("thread records", heap.thread_records as u64, String::new(), "of them waiting", heap.thread_records_pooled as u64),
    ];
    for (what, count, size, beside, beside_count) in rows {
        writeln!(f, "  {what:<14} {count:>20} {size:>11}     {beside:<15} {beside_count:>20}")?;
    }
    Ok(())
}

/// What went back to the system.
fn giving_back(f: &mut fmt::Formatter<'_>, heap: &freestone::Snapshot) -> fmt::Result {
    let by = if heap.background_thread { "by a thread of its own" } else { "by slow paths" };
    let kinds = [PauseKind::Release, PauseKind::Assist, PauseKind::ReleaseAll];
    let all = kinds.iter().fold(0, |sum: u64, &kind| sum.saturating_add(heap.pauses[kind as usize].bytes));
    writeln!(f, "  {} given back, {by}", ByteSize(all))
}

/// The limits, and what they did.
fn limits(f: &mut fmt::Formatter<'_>, limits: &LimitSnapshot) -> fmt::Result {
    for (what, limit) in [("memory limit", limits.memory_limit), ("hard limit", limits.hard_limit)] {
        if let Some(limit) = limit {
            writeln!(f, "  {what} {}, of which the heap holds {}", ByteSize(limit as u64), ByteSize(limits.held as u64))?;
        }
    }
    if [limits.assists, limits.exceeded, limits.fuse_trips].iter().any(|&count| count > 0) {
        let sticky = if limits.fuse_sticky { ", often" } else { "" };
        let [assists, exceeded, trips] = [limits.assists, limits.exceeded, limits.fuse_trips].map(|count| short_count(count, 14));
        writeln!(f, "  {assists} assists, over the limit {exceeded} times, fuse tripped {trips} times{sticky}")?;
    }
    Ok(())
}

/// How often slow paths took how long.
fn slow_paths(f: &mut fmt::Formatter<'_>, heap: &freestone::Snapshot) -> fmt::Result {
    let line = |f: &mut fmt::Formatter<'_>, columns: [&str; 5]| {
        let [what, count, p50, p99, all] = columns;
        writeln!(f, "  {what:<18} {count:>20} {p50:>12} {p99:>12} {all:>14}")
    };
    let mut is_first = true;
    for path in SlowPath::ALL {
        let times = &heap.slow_paths[path as usize];
        if times.count == 0 {
            continue;
        }
        if is_first {
            line(f, ["slow paths", "count", "half within", "99 % within", "together"])?;
            is_first = false;
        }
        let what = match path {
            SlowPath::Refill => "refills",
            SlowPath::Map => "maps",
            SlowPath::Release => "releases",
            SlowPath::LockWait => "waits for locks",
            _ => "others",
        };
        let [p50, p99, all] = [times.percentile_ns(50), times.percentile_ns(99), times.total_ns].map(short_time);
        line(f, [what, &times.count.to_string(), &p50, &p99, &all])?;
    }
    Ok(())
}

/// What took longest lately.
fn pauses(f: &mut fmt::Formatter<'_>, snapshot: &Snapshot) -> fmt::Result {
    for (place, pause) in snapshot.longest_pauses().iter().take(PAUSES_NAMED).enumerate() {
        let what = match pause.kind {
            PauseKind::Depot => "wait for a depot",
            PauseKind::Central => "stay in central",
            PauseKind::PageHeap => "growth",
            PauseKind::System => "system call",
            PauseKind::Release => "release",
            PauseKind::Assist => "assist",
            PauseKind::ReleaseAll => "release of everything",
            _ => "other",
        };
        let of = if pause.bytes > 0 { format!(" of {}", ByteSize(pause.bytes)) } else { String::new() };
        let before = short_time(snapshot.heap.at_ns.saturating_sub(pause.ended_ns));
        let title = if place == 0 { "longest pauses" } else { "" };
        writeln!(f, "  {title:<18} {:>12}  {what}{of}, {before} before", short_time(pause.took_ns))?;
    }
    Ok(())
}

/// The size classes that hold the most.
fn classes(f: &mut fmt::Formatter<'_>, heap: &freestone::Snapshot) -> fmt::Result {
    let held = |class: &ClassSnapshot| class.live().saturating_mul(class.block_bytes as u64);
    let mut by_size: Vec<&ClassSnapshot> = heap.classes.iter().filter(|class| class.allocations > 0).collect();
    by_size.sort_by_key(|class| std::cmp::Reverse(held(class)));
    let line = |f: &mut fmt::Formatter<'_>, block: &str, live: u64, counts: [&str; 4]| {
        let live = ByteSize(live).to_string();
        let [blocks, cached, spans, allocations] = counts;
        writeln!(f, "  {block:>10} {live:>12} {blocks:>14} {cached:>14} {spans:>10} {allocations:>20}")
    };
    writeln!(f, "  {:>10} {:>12} {:>14} {:>14} {:>10} {:>20}", "block", "live", "blocks", "cached", "spans", "allocations")?;
    for class in by_size.iter().take(CLASSES_NAMED) {
        let counts = [
            short_count(class.live(), 14),
            short_count(class.thread_cached.saturating_add(class.depot), 14),
            short_count(class.spans, 10),
            class.allocations.to_string(),
        ];
        line(f, &ByteSize(class.block_bytes as u64).to_string(), held(class), counts.each_ref().map(String::as_str))?;
    }
    if by_size.len() > CLASSES_NAMED {
        let rest = by_size.split_off(CLASSES_NAMED);
        let bytes = rest.iter().map(|class| held(class)).fold(0, u64::saturating_add);
        writeln!(f, "  and {} classes more with {} live", rest.len(), ByteSize(bytes))?;
    }
    let large = heap.large;
    let live = large.allocated_bytes.saturating_sub(large.freed_bytes);
    let blocks = short_count(large.allocations.saturating_sub(large.frees), 14);
    line(f, "larger", live, [&blocks, "-", "-", &large.allocations.to_string()])
}

/// A count in so many columns at most: as it is, or if that is too long, rounded down to thousands, millions and so on.
fn short_count(count: u64, columns: usize) -> String {
    let exact = count.to_string();
    if exact.len() <= columns {
        return exact;
    }
    let mut count = count;
    let mut result = exact;
    for unit in [" k", " M", " G", " T", " P"] {
        count /= 1000;
        result = format!("{count}{unit}");
        if result.len() <= columns {
            break;
        }
    }
    result
}

/// A time with three digits or so: `512 ns`, `4.1 µs`, `12.3 ms`, `1.2 s`.
fn short_time(ns: u64) -> String {
    let [micro, milli, second] = [1e3, 1e6, 1e9];
    match ns as f64 {
        short if short < micro => format!("{ns} ns"),
        short if short < milli => format!("{:.1} µs", short / micro),
        short if short < second => format!("{:.1} ms", short / milli),
        long => format!("{:.1} s", long / second),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot;

    fn width(line: &str) -> usize {
        line.chars().count()
    }

    #[test]
    fn it_fits_a_terminal_whatever_the_numbers_are() {
        let extreme = crate::metrics::tests::extreme();
        let report = extreme.to_string();
        for line in report.lines() {
            assert!(width(line) <= 100, "{} columns: {line}\n{report}", width(line));
            assert!(!line.ends_with(' '), "{line:?}");
        }
        for word in ["18446744073709551615", "EiB", "waits for locks", "longest pauses", "hard limit", "often"] {
            assert!(report.contains(word), "no {word} in\n{report}");
        }
    }

    #[test]
    fn tables_are_aligned() {
        let report = crate::metrics::tests::extreme().to_string();
        let table: Vec<&str> = report.lines().skip_while(|line| !line.trim_start().starts_with("block ")).collect();
        let widths: Vec<usize> = table.iter().filter(|line| !line.contains("classes more")).map(|line| width(line)).collect();
        assert!(widths.len() >= 3, "{report}");
        assert!(widths.iter().all(|width| *width == widths[0]), "{widths:?}\n{report}");
    }

    #[test]
    fn nothing_is_a_report_too() {
        // This test does not run on Freestone, so there is nothing but zeros.
        let report = snapshot().to_string();
        assert!(report.starts_with("freestone: 0 B live in 0 blocks\n"), "{report}");
        assert!(!report.contains("half within") && !report.contains("longest"), "{report}");
    }

    #[test]
    fn counts_are_shortened_only_where_they_must_be() {
        assert_eq!(short_count(12_345_678, 8), "12345678");
        assert_eq!(short_count(12_345_678, 7), "12345 k");
        assert_eq!(short_count(12_345_678, 6), "12 M");
        assert_eq!(short_count(u64::MAX, 10), "18446744 T");
        assert_eq!(short_count(u64::MAX, 20), "18446744073709551615");
    }

    #[test]
    fn times_have_a_unit_that_suits_them() {
        let times = [0, 999, 1000, 123_456, 12_345_678, 1_500_000_000, u64::MAX].map(short_time);
        assert_eq!(times, ["0 ns", "999 ns", "1.0 µs", "123.5 µs", "12.3 ms", "1.5 s", "18446744073.7 s"]);
    }
}
