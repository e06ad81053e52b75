//! The story of a process: who it was, how it ended, and what its heap did in the last minute.

use std::cmp::Reverse;
use std::fmt::Write;
use std::time::{Duration, SystemTime};

use freestone::{ClassSnapshot, PauseKind};
use freestone_stats::recorder::{Ending, Event, Life, LimitKind, RecordedPause, Recording, What};
use freestone_stats::{Diagnosis, Rates, Snapshot, verdict};

use super::words::{ALARM, change, clock, count, date, duration, plain, short_duration, size, spark, wrapped};

/// How wide the small pictures are.
const SPARK_COLUMNS: usize = 30;
/// How many classes, events and pauses are named.
const CLASSES: usize = 6;
const EVENTS: usize = 12;
const PAUSES: usize = 6;
/// A class whose live bytes changed by less is not named.
const CLASS_CHANGE_MIN: u64 = 64 << 10;

/// Tells it, for the last so much time of the recording.
pub(super) fn tell(recording: &Recording, time: Duration) -> String {
    let mut text = String::new();
    let last = recording.last(time);
    who(&mut text, recording);
    ending(&mut text, recording);
    let (Some(first), Some(end)) = (last.first(), last.last()) else {
        let _ = writeln!(text, "\nThere is no snapshot in it: the process ended before the first, or all of them are damaged.");
        return text;
    };
    let span = end.at.saturating_duration_since(first.at);
    let snapshots = if last.len() == 1 { "one snapshot".to_owned() } else { format!("{} snapshots", last.len()) };
    let _ = writeln!(text, "\nThe last {} ({snapshots}, up to {})", duration(span), clock(end.taken));
    memory(&mut text, recording, last);
    rates(&mut text, last);
    ledger(&mut text, first, end);
    classes(&mut text, first, end);
    events(&mut text, &recording.events, first.taken);
    pauses(&mut text, &recording.pauses, first.taken);
    let _ = writeln!(text, "\nVerdict");
    text.push_str(&verdict(last));
    text
}

pub(super) fn who(text: &mut String, recording: &Recording) {
    let origin = &recording.origin;
    let exe = if origin.exe.is_empty() { "a program".to_owned() } else { plain(&origin.exe) };
    let _ = writeln!(text, "{exe}, process {}", origin.pid);
    let _ = writeln!(
        text,
        "  recorded since {}, every {} (freestone-stats {})",
        date(origin.started),
        interval(origin.interval),
        plain(&origin.library),
    );
}

fn interval(interval: Duration) -> String {
    if interval.as_millis().is_multiple_of(1000) {
        format!("{} s", interval.as_secs())
    } else {
        format!("{} ms", interval.as_millis())
    }
}

/// How it ended, if it did.
fn ending(text: &mut String, recording: &Recording) {
    let last = recording.snapshots.last().map(|snapshot| snapshot.taken);
    let last = last.map_or_else(|| "none".to_owned(), date);
    let _ = match (recording.ending(), recording.life) {
        (Some(Ending::Exited), _) => writeln!(text, "  It exited in an orderly way; last record {last}."),
        (Some(Ending::Stopped), _) => writeln!(text, "  The program stopped recording; last record {last}."),
        (Some(_), _) => writeln!(text, "  Recording ended; last record {last}."),
        (None, Life::Running) => match stalled(recording) {
            Some(since) => {
                writeln!(
                    text,
                    "  {ALARM} It is still running, but has recorded nothing for {}; last record {last}.",
                    duration(since)
                )
            }
            None => writeln!(text, "  It is still running; last record {last}."),
        },
        (None, Life::MachineRestarted) => {
            writeln!(text, "  {ALARM} It ended without a farewell, and the machine was started again since; last record {last}.")
        }
        (None, Life::Unknown) => writeln!(text, "  Whether it still runs cannot be said here; last record {last}."),
        (None, Life::Ended) => {
            writeln!(text, "  {ALARM} It ended without a farewell: killed by a signal, or crashed; last record {last}.")
        }
    };
    if recording.ending().is_none() && recording.life == Life::Ended {
        let _ = match recording.oom_kills {
            Some(0) => writeln!(text, "  The OOM killer has killed nobody on this machine since recording began."),
            Some(1) => writeln!(text, "  {ALARM} The OOM killer has killed one process on this machine since recording began."),
            Some(kills) => {
                writeln!(text, "  {ALARM} The OOM killer has killed {kills} processes on this machine since recording began.")
            }
            None => writeln!(text, "  Whether it was the OOM killer, the kernel's log says (`journalctl -k`, `dmesg`)."),
        };
    }
    if recording.torn > 0 {
        let records = if recording.torn == 1 { "One record was" } else { "Some records were" };
        let _ = writeln!(text, "  {records} cut short or damaged, and left out ({}).", recording.torn);
    }
    if recording.missing_bytes > 0 {
        let _ = writeln!(text, "  {ALARM} The file was cut short: {} are missing.", size(recording.missing_bytes));
    }
}

/// For how long a process that runs has recorded nothing, if that is longer than it should be.
fn stalled(recording: &Recording) -> Option<Duration> {
    let last = recording.snapshots.last().map_or(recording.origin.started, |snapshot| snapshot.taken);
    let since = SystemTime::now().duration_since(last).ok()?;
    (since > recording.origin.interval * 3 + Duration::from_secs(1)).then_some(since)
}

fn resident(snapshot: &Snapshot) -> Option<u64> {
    snapshot.resident.map(|resident| resident.total)
}

fn live(snapshot: &Snapshot) -> u64 {
    snapshot.heap.bytes.live as u64
}

fn committed(snapshot: &Snapshot) -> u64 {
    snapshot.heap.bytes.committed() as u64
}

/// Live, committed and resident memory at the start, at the peak and at the end, and how much there may be.
pub(super) fn memory(text: &mut String, recording: &Recording, last: &[Snapshot]) {
    let (Some(first), Some(end)) = (last.first(), last.last()) else { return };
    let _ = writeln!(text, "  {:<16}{:>12}{:>12}{:>12}{:>14}", "", "at first", "peak", "at last", "change");
    let mut row = |name: &str, of: &dyn Fn(&Snapshot) -> u64| {
        let values: Vec<u64> = last.iter().map(of).collect();
        let (at_first, at_last) = (of(first), of(end));
        let peak = values.iter().copied().max().unwrap_or(0);
        let picture: Vec<f64> = values.iter().map(|&value| value as f64).collect();
        let _ = writeln!(
            text,
            "  {name:<16}{:>12}{:>12}{:>12}{:>14}  {}",
            size(at_first),
            size(peak),
            size(at_last),
            change(at_last.wrapping_sub(at_first) as i64),
            spark(&picture, SPARK_COLUMNS),
        );
    };
    row("live", &live);
    row("heap holds", &committed);
    if last.iter().all(|snapshot| snapshot.resident.is_some()) {
        row("resident", &|snapshot| resident(snapshot).unwrap_or(0));
    }
    let limits = &end.heap.limits;
    let mut bound = |name: &str, bytes: Option<u64>, of: u64, what: &str| {
        if let Some(bytes) = bytes.filter(|&bytes| bytes > 0) {
            let percent = of as f64 / bytes as f64 * 100.0;
            let alarm = if percent >= 95.0 { ALARM } else { ' ' };
            let _ = writeln!(text, " {alarm}{name:<16}{:>12}  of which {what} {percent:.0} %", size(bytes));
        }
    };
    bound("memory limit", limits.memory_limit.map(|bytes| bytes as u64), limits.held as u64, "the heap holds");
    bound("hard limit", limits.hard_limit.map(|bytes| bytes as u64), limits.held as u64, "the heap holds");
    let resident = resident(end).unwrap_or_else(|| committed(end));
    bound("may have", recording.origin.allowed_bytes, resident, "this process has");
}

/// Rates from one snapshot to the next.
pub(super) fn rates(text: &mut String, last: &[Snapshot]) {
    let rates: Vec<Rates> = last.windows(2).map(|pair| pair[1].since(&pair[0])).collect();
    let Some(end) = rates.last() else { return };
    let _ = writeln!(text, "\n  {:<16}{:>12}{:>12}{:>12}", "per second", "median", "peak", "at last");
    let mut row = |name: &str, of: &dyn Fn(&Rates) -> f64, words: &dyn Fn(f64) -> String| {
        let values: Vec<f64> = rates.iter().map(of).collect();
        let mut sorted = values.clone();
        sorted.sort_by(f64::total_cmp);
        let _ = writeln!(
            text,
            "  {name:<16}{:>12}{:>12}{:>12}{:>14}  {}",
            words(sorted[sorted.len() / 2]),
            words(sorted[sorted.len() - 1]),
            words(of(end)),
            "",
            spark(&values, SPARK_COLUMNS),
        );
    };
    row("allocations", &Rates::allocations_per_second, &count);
    row("frees", &Rates::frees_per_second, &count);
    row("allocated", &Rates::allocated_bytes_per_second, &|bytes| size(bytes as u64));
    let os_calls = |rates: &Rates| {
        let seconds = rates.interval.as_secs_f64();
        if seconds > 0.0 { rates.os_calls as f64 / seconds } else { 0.0 }
    };
    row("OS calls", &os_calls, &count);
}

/// Where the heap's memory is, and where it went.
fn ledger(text: &mut String, first: &Snapshot, end: &Snapshot) {
    let (before, after) = (&first.heap.bytes, &end.heap.bytes);
    let lines = [
        ("live", before.live, after.live),
        ("caches", before.thread_cached + before.depot, after.thread_cached + after.depot),
        ("holes", before.holes, after.holes),
        ("free pages", before.dirty, after.dirty),
        ("metadata", before.metadata, after.metadata),
        ("lost at fork", before.lost_at_fork, after.lost_at_fork),
    ];
    let _ = writeln!(text, "\n  {:<16}{:>12}{:>12}{:>12}{:>14}", "what it holds", "at first", "", "at last", "change");
    for (name, before, after) in lines {
        if before + after > 0 {
            let moved = change(after.wrapping_sub(before) as i64);
            let _ = writeln!(text, "  {name:<16}{:>12}{:>12}{:>12}{moved:>14}", size(before as u64), "", size(after as u64));
        }
    }
}

fn live_bytes(class: &ClassSnapshot) -> u64 {
    class.live() * class.block_bytes as u64
}

/// The classes whose live bytes changed most.
pub(super) fn classes(text: &mut String, first: &Snapshot, end: &Snapshot) {
    let of_large = |snapshot: &Snapshot| {
        let large = &snapshot.heap.large;
        (large.allocated_bytes.saturating_sub(large.freed_bytes), large.allocations.saturating_sub(large.frees))
    };
    let both = first.heap.classes.iter().zip(&end.heap.classes);
    let mut changes: Vec<(String, u64, u64, u64)> = both
        .map(|(before, after)| {
            let name = format!("{} blocks", size(after.block_bytes as u64).replace(".0 ", " "));
            (name, live_bytes(before), live_bytes(after), after.live())
        })
        .collect();
    changes.push(("larger".to_owned(), of_large(first).0, of_large(end).0, of_large(end).1));
    changes.retain(|(_, before, after, _)| before.abs_diff(*after) >= CLASS_CHANGE_MIN);
    changes.sort_by_key(|(_, before, after, _)| Reverse(before.abs_diff(*after)));
    if changes.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n  {:<16}{:>12}{:>12}{:>12}{:>14}", "what changed", "at first", "", "at last", "change");
    for (name, before, after, blocks) in changes.iter().take(CLASSES) {
        let moved = change(after.wrapping_sub(*before) as i64);
        let blocks = count(*blocks as f64);
        let _ = writeln!(text, "  {name:<16}{:>12}{:>12}{:>12}{moved:>14}  {blocks} live", size(*before), "", size(*after));
    }
    if changes.len() > CLASSES {
        let _ = writeln!(text, "  and {} more", changes.len() - CLASSES);
    }
}

/// What an event is, in words.
fn event_words(what: &What) -> String {
    match what {
        What::Limit { kind, times, held_bytes, limit_bytes } => {
            let of = limit_bytes.map_or_else(String::new, |limit| format!(" of {}", size(limit)));
            let held = size(*held_bytes);
            let times = if *times == 1 { "once".to_owned() } else { format!("{} times", count(*times as f64)) };
            match kind {
                LimitKind::Assist => format!("{ALARM} over the memory limit: threads gave memory back {times}; held {held}{of}"),
                LimitKind::Exceeded => {
                    format!("{ALARM} over the memory limit, with nothing to give back: {times}; held {held}{of}")
                }
                LimitKind::Fuse => format!("{ALARM} the fuse tripped {times}, at 95 % of the hard limit; held {held}{of}"),
                LimitKind::Refused => format!("{ALARM} the hard limit refused memory {times}; held {held}{of}"),
                LimitKind::NearMemoryLimit => format!("{ALARM} 90 % of the memory limit reached; held {held}{of}"),
                LimitKind::NearHardLimit => format!("{ALARM} 90 % of the hard limit reached; held {held}{of}"),
                _ => format!("{ALARM} a limit; held {held}{of}"),
            }
        }
        What::Anomaly { text, .. } => format!("{ALARM} {}", plain(text)),
        What::Ended(Ending::Exited) => "the process exited".to_owned(),
        What::Ended(_) => "the program stopped recording".to_owned(),
        _ => "something that this program does not know".to_owned(),
    }
}

/// When it was and what: a line, or as many as it takes.
pub(super) fn event(taken: SystemTime, what: &What) -> String {
    format!("  {}  {}", clock(taken), wrapped(&event_words(what), 12).trim_start())
}

pub(super) fn events(text: &mut String, events: &[Event], since: SystemTime) {
    let events: Vec<&Event> = events.iter().filter(|event| event.taken >= since).collect();
    let _ = writeln!(text, "\nWhat happened");
    if events.is_empty() {
        let _ = writeln!(text, "  No limit was reached, and no rule found anything strange.");
    }
    let left_out = events.len().saturating_sub(EVENTS);
    if left_out > 0 {
        let _ = writeln!(text, "  ({left_out} more before these)");
    }
    text.extend(events[left_out..].iter().map(|its| event(its.taken, &its.what)));
}

/// The longest, in the order in which they ended.
pub(super) fn pauses(text: &mut String, pauses: &[RecordedPause], since: SystemTime) {
    let mut longest: Vec<&RecordedPause> = pauses.iter().filter(|pause| pause.taken >= since).collect();
    let _ = writeln!(text, "\nThe longest pauses");
    if longest.is_empty() {
        let _ = writeln!(text, "  None was longer than 100 µs.");
        return;
    }
    longest.sort_by_key(|its| Reverse(its.pause.took_ns));
    longest.truncate(PAUSES);
    longest.sort_by_key(|its| its.taken);
    for RecordedPause { taken, pause, .. } in longest {
        let what = match pause.kind {
            PauseKind::Depot => "a thread waited for a depot",
            PauseKind::Central => "a thread moved blocks to or from central",
            PauseKind::PageHeap => "the heap grew",
            PauseKind::System => "a call to the system",
            PauseKind::Release => "memory was given back at leisure",
            PauseKind::Assist => "a thread gave memory back, above the memory limit",
            PauseKind::ReleaseAll => "all that was free was given back",
            _ => "something else",
        };
        let about = if pause.bytes > 0 { format!(" ({})", size(pause.bytes)) } else { String::new() };
        let _ = writeln!(text, "  {}  {:>9}  {what}{about}", clock(*taken), short_duration(pause.took_ns));
    }
}

/// What to make of it: the one place that asks for a verdict.
fn verdict(last: &[Snapshot]) -> String {
    let diagnosis = verdict::of_snapshots(last);
    let Diagnosis { verdict, confidence, points, .. } = &diagnosis;
    let mut text = wrapped(&format!("{verdict} ({confidence} confidence, from {points} snapshots): {}", diagnosis.sentence), 2);
    let grown: Vec<String> = diagnosis.grown.iter().map(ToString::to_string).collect();
    if !grown.is_empty() {
        text.push_str(&wrapped(&format!("Most of it in {}.", grown.join(", ")), 2));
    }
    text.push_str(&wrapped(&diagnosis.advice, 2));
    text
}
