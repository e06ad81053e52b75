//! Numbers as people read them, and rows of them as small pictures.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use anstyle::{AnsiColor, Style};
use jiff::Timestamp;

/// The widest line.
pub(super) const COLUMNS: usize = 100;

/// `512 B`, `3.4 MiB`, `1.2 GiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // What would be rounded to 1024 is one of the next.
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// The same of something that may shrink.
pub(super) fn change(bytes: i64) -> String {
    let sign = if bytes < 0 { '−' } else { '+' };
    format!("{sign}{}", size(bytes.unsigned_abs()))
}

/// `950`, `12.8 k`, `3.1 M`.
pub(super) fn count(count: f64) -> String {
    match count {
        ..999.5 => format!("{count:.0}"),
        ..999_950.0 => format!("{:.1} k", count / 1e3),
        ..999_950_000.0 => format!("{:.1} M", count / 1e6),
        _ => format!("{:.1} G", count / 1e9),
    }
}

/// `2.3 s`, `4 min 10 s`, `3 h 2 min`, `5 d 1 h`.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// `12.3 ms`, `800 µs`.
pub(super) fn short_duration(ns: u64) -> String {
    match ns {
        0..1_000_000 => format!("{} µs", ns / 1000),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

/// `2026-11-21 15:45:26 UTC`.
pub(super) fn date(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| "an impossible time".to_owned(), |time| time.strftime("%F %T UTC").to_string())
}

/// `15:45:26`.
pub(super) fn clock(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| "--:--:--".to_owned(), |time| time.strftime("%T").to_string())
}

/// A row of values as one of blocks, at most so wide: from zero to the highest, which fills the line. What falls into one column shows by its highest.
pub(super) fn spark(values: &[f64], columns: usize) -> String {
    const BLOCKS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let columns = columns.min(values.len());
    let highest = values.iter().copied().fold(0.0, f64::max);
    let block = |column: usize| {
        let among = &values[column * values.len() / columns..(column + 1) * values.len() / columns];
        let value = among.iter().copied().fold(0.0, f64::max);
        if highest > 0.0 { BLOCKS[(value / highest * 7.0).round() as usize] } else { BLOCKS[0] }
    };
    (0..columns).map(block).collect()
}

/// Text from a file, as one may print it: what could move a cursor is not among it.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '?' } else { char }).collect()
}

/// Breaks text into lines, the first as wide as the others; what follows is indented.
pub(super) fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = String::new();
    let mut width = usize::MAX;
    for word in text.split_whitespace() {
        let length = word.chars().count();
        if width.saturating_add(1 + length) > COLUMNS {
            let _ = write!(lines, "{}{:indent$}{word}", if lines.is_empty() { "" } else { "\n" }, "");
            width = indent + length;
        } else {
            let _ = write!(lines, " {word}");
            width += 1 + length;
        }
    }
    lines.push('\n');
    lines
}

/// Titles in bold, alarms in red. A title begins its line, all else is indented.
pub(super) fn styled(text: &str) -> String {
    let (title, alarm) = (Style::new().bold(), AnsiColor::Red.on_default());
    let mut styled = String::with_capacity(text.len() + text.len() / 8);
    for line in text.lines() {
        let _ = if line.starts_with(|first: char| !first.is_whitespace()) {
            writeln!(styled, "{title}{line}{title:#}")
        } else if line.contains(ALARM) {
            writeln!(styled, "{alarm}{line}{alarm:#}")
        } else {
            writeln!(styled, "{line}")
        };
    }
    styled
}

/// Stands before what somebody should look at.
pub(super) const ALARM: char = '!';
