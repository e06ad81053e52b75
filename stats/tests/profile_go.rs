//! Go's own tool reads our profiles, and shows the figures that we show: `-top`, `-traces`, `-base`, `-raw`, `-comments`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{fs, process};

use freestone::Freestone;
use freestone_stats::profile::{self, Builder, Context, Frame, Kind, Profile, Row};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// A folder for one test.
struct Scratch(PathBuf);

impl Scratch {
    /// `None`, with a loud line, where there is no Go.
    fn new(name: &str) -> Option<Self> {
        let found = Command::new("go").args(["tool", "-n", "pprof"]).output().is_ok_and(|output| output.status.success());
        if !found {
            println!("SKIPPED: {name} needs `go tool pprof` (Debian package golang-go), which is not here");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("freestone-{name}-{}", process::id()));
        fs::create_dir_all(&folder).expect("a folder for the test");
        Some(Self(folder))
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, bytes).expect("a file for the test");
        path
    }

    /// What `go tool pprof` prints. It looks for no symbols: all names are ours.
    fn pprof(&self, arguments: &[&str], file: &Path) -> String {
        let output = Command::new("go")
            .args(["tool", "pprof", "-symbolize=none", "-nodefraction=0", "-edgefraction=0", "-nodecount=100000"])
            .args(arguments)
            .arg(file)
            .env("HOME", &self.0)
            .env("PPROF_TMPDIR", &self.0)
            .output()
            .expect("go starts");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "go tool pprof {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Call sites in three layers, with sizes and counts of all magnitudes; the same for the same `seed`.
fn synthetic(kind: Kind, rows: u64, seed: u64) -> Profile {
    let mut builder = Builder::new(kind);
    for number in 0..rows {
        let chance = (number ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let (leaf, middle) = ((chance >> 60) as usize, (chance >> 56) as usize & 7);
        let objects = f64::from((chance >> 32) as u16) + 0.4;
        let block_bytes = 16 << (chance >> 29 & 7);
        let values = [objects * 2.0, objects * 2.0 * block_bytes as f64, objects, objects * block_bytes as f64];
        let mut row = Row::new(number + 1, 1, values, values.map(f64::sqrt));
        (row.block_bytes, row.tag) = (block_bytes, (chance >> 20) as u32 % 3);
        builder.push(row, &[0x4000 + leaf * 16, 0x3000 + middle * 16, 0x2000]);
    }
    let mut profile = builder.finish();
    profile.summary.interval = 512 << 10;
    profile
}

/// Names for [`synthetic`]: every other leaf was inlined.
fn names(address: usize) -> Vec<Frame> {
    let frame = |function: String| Frame { function, file: Some("src/deep.rs".to_owned()), line: Some(7) };
    match address + 1 {
        0x2000 => vec![frame("main".to_owned())],
        address @ 0x3000..0x4000 => vec![frame(format!("middle::<{}>", address / 16 % 8))],
        address if address / 16 % 2 == 0 => vec![frame(format!("leaf_{}", address / 16 % 16))],
        address => vec![frame(format!("leaf_{}", address / 16 % 16)), frame("outer".to_owned())],
    }
}

/// Figures of `-top`: function, flat, cum.
fn top_of_go(text: &str) -> BTreeMap<String, (f64, f64)> {
    let lines = text.lines().skip_while(|line| !line.trim_start().starts_with("flat ")).skip(1);
    lines
        .map(|line| {
            let mut words = line.split_whitespace();
            let mut next = || words.next().unwrap_or_else(|| panic!("a column is missing: {line}"));
            let (flat, _, _, cum, _) = (next(), next(), next(), next(), next());
            let name = words.collect::<Vec<_>>().join(" ");
            (name.trim_end_matches(" (inline)").to_owned(), (number(flat), number(cum)))
        })
        .collect()
}

/// `12B` and `12` are 12.
fn number(text: &str) -> f64 {
    text.trim_end_matches(char::is_alphabetic).parse().unwrap_or_else(|_| panic!("{text} is no number"))
}

fn assert_tops_agree(profile: &Profile, value: usize, text: &str) {
    let theirs = top_of_go(text);
    let mut namer = names;
    let ours = profile.top(value, &mut Context { namer: Some(&mut namer), ..Context::default() });
    assert_eq!(theirs.len(), ours.functions.len(), "{text}");
    // Each sample of the file was rounded.
    let rounding = profile.rows.len() as f64 / 2.0;
    for function in &ours.functions {
        let &(flat, cum) = theirs.get(&function.name).unwrap_or_else(|| panic!("{} is not in {text}", function.name));
        assert!((flat - function.flat).abs() <= rounding, "{}: {flat} is not {}", function.name, function.flat);
        assert!((cum - function.cum).abs() <= rounding, "{}: {cum} is not {}", function.name, function.cum);
    }
}

fn named(profile: &Profile) -> Vec<u8> {
    let mut namer = names;
    profile.pprof(&mut Context { namer: Some(&mut namer), ..Context::default() })
}

#[test]
fn top_agrees_in_every_column() {
    let Some(scratch) = Scratch::new("top_agrees_in_every_column") else { return };
    for kind in [Kind::Heap, Kind::Allocs] {
        let profile = synthetic(kind, 500, 1);
        let file = scratch.write("profile.pb.gz", &named(&profile));
        for (value, of) in kind.value_types().iter().enumerate() {
            let index = format!("-sample_index={}", of.name);
            let text = scratch.pprof(&["-top", "-unit=B", &index], &file);
            assert!(text.contains(&format!("Type: {}", of.name)), "{text}");
            assert_tops_agree(&profile, value, &text);
        }
        // Unless somebody chooses, what is shown is what is shown by us.
        let text = scratch.pprof(&["-top", "-unit=B"], &file);
        assert_tops_agree(&profile, kind.default_value(), &text);
    }
}

#[test]
fn traces_have_stacks_labels_and_values() {
    let Some(scratch) = Scratch::new("traces_have_stacks_labels_and_values") else { return };
    let mut profile = synthetic(Kind::Heap, 40, 2);
    profile.rows.retain(|row| row.tag == 2);
    let tag = |tag: u32| Some(format!("tenant-{tag}"));
    let mut namer = names;
    let bytes = profile.pprof(&mut Context { namer: Some(&mut namer), tags: Some(&tag), ..Context::default() });
    let text = scratch.pprof(&["-traces", "-unit=B"], &scratch.write("profile.pb.gz", &bytes));
    let traces: Vec<&str> = text.split("-----------+-------------------------------------------------------").skip(1).collect();
    let traces: Vec<&&str> = traces.iter().filter(|trace| !trace.trim().is_empty()).collect();
    assert_eq!(traces.len(), profile.rows.len(), "{text}");
    for (row, trace) in profile.rows.iter().zip(traces) {
        let lines: Vec<&str> = trace.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        let size = if row.block_bytes < 1024 { format!("{}B", row.block_bytes) } else { format!("{}kB", row.block_bytes / 1024) };
        assert!(lines.iter().any(|line| *line == format!("bytes:  {size}")), "{trace}");
        assert!(lines.contains(&"tag:  tenant-2"), "{trace}");
        let stack: Vec<&str> = lines.iter().skip(2).copied().collect();
        let (value, innermost) = stack[0].split_once(char::is_whitespace).expect("a value and a function");
        assert!((number(value) - row.values[3]).abs() <= 0.5, "{trace}");
        let expected: Vec<String> =
            profile.frames(row).flat_map(|address| names(address - 1)).map(|frame| frame.function).collect();
        let shown: Vec<&str> = std::iter::once(innermost.trim()).chain(stack[1..].iter().copied()).collect();
        let shown: Vec<&str> = shown.iter().map(|name| name.trim_end_matches(" (inline)")).collect();
        assert_eq!(shown, expected, "{trace}");
    }
}

#[test]
fn base_is_what_since_says() {
    let Some(scratch) = Scratch::new("base_is_what_since_says") else { return };
    let earlier = synthetic(Kind::Heap, 300, 3);
    let mut later = synthetic(Kind::Heap, 300, 3);
    for row in later.rows.iter_mut().step_by(3) {
        row.values = [row.values[0] * 1.5, row.values[1] * 1.5, row.values[2] * 0.25, row.values[3] * 0.25];
    }
    let difference = later.since(&earlier);
    let [before, after] = [("before", &earlier), ("after", &later)].map(|(name, profile)| scratch.write(name, &named(profile)));
    for (value, name) in [(1, "alloc_space"), (3, "inuse_space")] {
        let (base, index) = (format!("-base={}", before.display()), format!("-sample_index={name}"));
        let text = scratch.pprof(&["-top", "-unit=B", &base, &index], &after);
        assert_tops_agree(&difference, value, &text);
        // And the difference as a file of its own.
        let text = scratch.pprof(&["-top", "-unit=B", &index], &scratch.write("difference", &named(&difference)));
        assert_tops_agree(&difference, value, &text);
    }
}

#[test]
fn raw_and_comments_are_what_was_written() {
    let Some(scratch) = Scratch::new("raw_and_comments_are_what_was_written") else { return };
    let mut profile = synthetic(Kind::Heap, 3, 4);
    profile.exact.totals = [Some(1), Some(2), Some(3), Some(4)];
    let file = scratch.write("profile.pb.gz", &profile.pprof(&mut Context::default()));
    let raw = scratch.pprof(&["-raw"], &file);
    assert!(raw.contains("PeriodType: space bytes"), "{raw}");
    assert!(raw.contains("Period: 524288"), "{raw}");
    assert!(raw.contains("alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes[dflt]"), "{raw}");
    assert!(raw.contains("0x1fff"), "addresses are those of calls: {raw}");
    assert!(raw.contains("bytes:["), "{raw}");
    let comments = scratch.pprof(&["-comments"], &file);
    for note in profile.notes() {
        assert!(comments.contains(&note), "{note} is not in {comments}");
    }
    assert!(comments.contains("(exact: 4)"), "{comments}");
}

#[test]
fn every_kind_of_this_process_is_read() {
    let Some(scratch) = Scratch::new("every_kind_of_this_process_is_read") else { return };
    freestone::control::set_sample_interval(1 << 10);
    let kept: Vec<Vec<u8>> = (0..2000).map(|size| vec![1; size]).collect();
    for kind in Kind::ALL {
        let profile = profile::take(kind);
        let mappings = freestone_stats::names::mappings();
        let bytes = profile.pprof(&mut Context { mappings: &mappings, ..Context::default() });
        let file = scratch.write("profile.pb.gz", &bytes);
        for (value, of) in kind.value_types().iter().enumerate() {
            let index = format!("-sample_index={}", of.name);
            let text = scratch.pprof(&["-top", "-unit=B", "-addresses", &index], &file);
            let flat: f64 = top_of_go(&text).values().map(|(flat, _)| flat).sum();
            let total = profile.total(value);
            if of.unit != "nanoseconds" {
                assert!((flat - total).abs() <= profile.rows.len() as f64, "{}: {flat} is not {total}: {text}", of.name);
            }
        }
    }
    drop(kept);
}
