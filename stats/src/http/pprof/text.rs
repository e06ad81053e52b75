//! A profile as text, for `debug=1`: for people, and in the older text formats of pprof, so that `go tool pprof` reads it as well.
//!
//! ```text
//!   heap profile: 3: 1728 [10: 5760] @ heapprofile       blocks: bytes that it has, [that it ever allocated]
//!   # inuse_space: 1728 ± 998 bytes estimated, 1664 exact
//!   3: 1728 [10: 5760] @ 0x55d0c04a1234 0x55d0c04a0f00    a call site, and its stack
//!   #   ± 1.7: 998 [3.1: 1797]; 3 samples, blocks of 576 bytes
//!   #   0x55d0c04a1234  orders::parse                     with names
//! ```
//!
//! What begins with `#` is for people.

use std::fmt::Write as _;

use crate::http::naming::one_line;
use crate::profile::{Context, Kind, Profile, Row};

/// The whole profile, the largest sites first.
pub(super) fn text(profile: &Profile, names: &mut Context<'_>) -> String {
    let mut text = String::new();
    head(&mut text, profile);
    totals(&mut text, profile);
    let default = profile.kind.default_value();
    let mut rows: Vec<&Row> = profile.rows.iter().collect();
    rows.sort_unstable_by(|a, b| b.values[default].total_cmp(&a.values[default]).then(a.id.cmp(&b.id)));
    for row in rows {
        site(&mut text, profile, row, names);
    }
    text
}

fn head(text: &mut String, profile: &Profile) {
    let total = |value| whole(profile.total(value));
    // Nothing can be wrong with writing to a text, here and below.
    let _ = match profile.kind {
        Kind::Heap | Kind::Allocs => writeln!(text, "heap profile: {} @ heapprofile", four(total)),
        Kind::Peak => writeln!(text, "heap profile: {} @ heapprofile", two(total)),
        Kind::Contention => writeln!(text, "--- contention:\ncycles/second=1000000000\nsampling period=1"),
        Kind::Lifetimes | Kind::Fragmentation => {
            writeln!(text, "{} profile: total {}", profile.kind.name(), total(profile.kind.default_value()))
        }
    };
}

/// Exact counts beside estimates.
fn totals(text: &mut String, profile: &Profile) {
    for (value, of) in profile.kind.value_types().iter().enumerate() {
        let [total, error] = [profile.total(value), profile.total_error(value)].map(whole);
        let _ = write!(text, "# {}: {total} ± {error} {} estimated", of.name, of.unit);
        let _ = match profile.exact.totals[value] {
            Some(exact) => writeln!(text, ", {exact} exact"),
            None => writeln!(text),
        };
    }
    let summary = &profile.summary;
    let _ = match summary.interval {
        0 => writeln!(text, "# sampling is off: see control::set_sample_interval"),
        interval => writeln!(text, "# {} samples so far, one in {interval} bytes", summary.samples),
    };
    if summary.lost > 0 || summary.untracked > 0 || summary.forgotten_sites > 0 {
        let _ = writeln!(
            text,
            "# {} samples are not in it, of {} nobody will see the end, {} sites were forgotten",
            summary.lost, summary.untracked, summary.forgotten_sites
        );
    }
}

fn site(text: &mut String, profile: &Profile, row: &Row, names: &mut Context<'_>) {
    let value = |value: usize| whole(row.values[value]);
    let frames = profile.frames(row);
    if frames.len() == 0 {
        // Some of the formats have no words for this.
        return;
    }
    let _ = match profile.kind {
        Kind::Heap | Kind::Allocs => write!(text, "\n{} @", four(value)),
        Kind::Peak => write!(text, "\n{} @", two(value)),
        Kind::Contention => write!(text, "\n{} {} @", value(1), value(0)),
        Kind::Lifetimes | Kind::Fragmentation => write!(text, "\n{} @", value(profile.kind.default_value())),
    };
    for address in profile.frames(row) {
        let _ = write!(text, " {address:#x}");
    }
    text.push_str("\n#\t");
    for (value, of) in profile.kind.value_types().iter().enumerate() {
        let _ = write!(text, "{}: {:.0} ± {:.0}, ", of.name, row.values[value], row.errors[value]);
    }
    let _ = write!(text, "{} samples", row.samples);
    if row.block_bytes > 0 {
        let _ = write!(text, ", blocks of {} bytes", row.block_bytes);
    }
    if row.tag > 0 {
        let _ = write!(text, ", tag {}", one_line(&names.tag(row.tag)));
    }
    text.push('\n');
    for address in frames {
        // Within the call, which may be the last thing that a function does.
        for frame in names.name(address.saturating_sub(1)) {
            let _ = write!(text, "#\t{address:#x}\t{}", one_line(&frame.function));
            let _ = match (&frame.file, frame.line) {
                (Some(file), Some(line)) => writeln!(text, "\t{}:{line}", one_line(file)),
                _ => writeln!(text),
            };
        }
    }
}

/// `in use: bytes [allocated: bytes]`, of the columns of [`Kind::Heap`]. No bytes without a block: pprof refuses that.
fn four(value: impl Fn(usize) -> u64) -> String {
    let some = |objects: usize, bytes: usize| value(objects).max(u64::from(value(bytes) > 0));
    format!("{}: {} [{}: {}]", some(2, 3), value(3), some(0, 1), value(1))
}

/// The same without what was allocated.
fn two(value: impl Fn(usize) -> u64) -> String {
    format!("{}: {} [0: 0]", value(0).max(u64::from(value(1) > 0)), value(1))
}

/// An estimate in whole numbers. What is said of the present is never below nothing.
fn whole(value: f64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "rounded, and what is below nothing becomes nothing"
    )]
    {
        value.round() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Builder;

    fn of(kind: Kind) -> String {
        let mut builder = Builder::new(kind);
        let mut row = Row::default();
        (row.block_bytes, row.samples, row.values, row.errors) = (64, 1, [10.4, 640.0, 1.0, 64.0], [3.0, 192.0, 0.5, 32.0]);
        builder.push(row.clone(), &[0x1234, 0x5678]);
        // Fewer blocks than one, which is no reason to have none.
        (row.tag, row.values, row.errors) = (7, [0.4, 1000.0, 0.4, 128.4], [0.0; 4]);
        builder.push(row, &[0x1235]);
        text(&builder.finish(), &mut Context::default())
    }

    #[test]
    fn heaps_are_in_the_format_that_pprof_reads() {
        let text = of(Kind::Heap);
        assert!(
            text.starts_with("heap profile: 1: 192 [11: 1640] @ heapprofile\n# alloc_objects: 11 ± 3 count estimated\n"),
            "{text}"
        );
        assert!(text.contains("\n1: 128 [1: 1000] @ 0x1235\n#\t"), "{text}");
        assert!(text.contains("\n1: 64 [10: 640] @ 0x1234 0x5678\n#\t"), "{text}");
        assert!(
            text.contains("inuse_space: 64 ± 32, 1 samples, blocks of 64 bytes\n#\t0x1234\t0x1233\n#\t0x5678\t0x5677\n"),
            "{text}"
        );
        assert!(text.find("0x1235") < text.find("0x1234"), "the largest comes first: {text}");
        assert!(text.contains(", tag 7\n"), "{text}");
        assert!(of(Kind::Peak).starts_with("heap profile: 11: 1640 [0: 0] @ heapprofile\n"));
    }

    #[test]
    fn the_others_are_in_formats_of_one_or_two_numbers() {
        let text = of(Kind::Contention);
        assert!(text.starts_with("--- contention:\ncycles/second=1000000000\nsampling period=1\n#"), "{text}");
        assert!(text.contains("\n640 10 @ 0x1234 0x5678\n"), "{text}");
        for kind in [Kind::Lifetimes, Kind::Fragmentation] {
            let text = of(kind);
            assert!(text.starts_with(&format!("{} profile: total 11\n#", kind.name())), "{text}");
            assert!(text.contains("\n10 @ 0x1234 0x5678\n"), "{text}");
        }
    }
}
