//! Everything that is known of call sites in the format of DHAT, Valgrind's heap profiler: the Firefox profiler and `dh_view.html` load it.
//!
//! DHAT's points have what no other format has in one file: all that a stack ever allocated, what it has now, what it had at the peak, and how long blocks
//! lived. The difference is that DHAT saw every block, at the end of the program; this are estimates, at any time. Three of its figures are to be read so:
//!
//! - *Maximum* of a point is the larger of what it has and what it had at the peak of the whole heap: its own maximum is not known.
//! - Lifetimes are of blocks that ended, in microseconds; blocks that live have no lifetime yet.
//! - A point is a stack: blocks of all sizes and tags together.

use std::sync::Arc;

use freestone::profile::Site;
use serde::Serialize;

use super::labels::call_of;
use super::stacks::{Interner, NumberMap, Stacks};
use super::{Context, Frame};

/// The version of DHAT's format.
const VERSION: u32 = 2;

/// A file, field by field as DHAT calls them.
#[derive(Serialize)]
struct Document {
    #[serde(rename = "dhatFileVersion")]
    version: u32,
    mode: &'static str,
    verb: &'static str,
    /// Lifetimes of blocks are known, accesses are not.
    bklt: bool,
    bkacc: bool,
    /// The unit of time, and of a million of it.
    tu: &'static str,
    #[serde(rename = "Mtu")]
    million_tu: &'static str,
    /// Blocks that lived no longer are short-lived.
    tuth: u64,
    cmd: String,
    pid: u32,
    /// When the file was written, and when live bytes were highest.
    te: u64,
    tg: u64,
    pps: Vec<Point>,
    ftbl: Vec<String>,
}

/// A point of the program: bytes and blocks in all, their lifetimes, their maximum, what there was at the peak, and what there is.
#[derive(Serialize, Default)]
struct Point {
    tb: u64,
    tbk: u64,
    tl: u64,
    mb: u64,
    mbk: u64,
    gb: u64,
    gbk: u64,
    eb: u64,
    ebk: u64,
    fs: Vec<u32>,
}

/// The same while it is added up.
#[derive(Clone, Copy, Default)]
struct Sums {
    allocated: [f64; 2],
    live: [f64; 2],
    peak: [f64; 2],
    lifetime_ns: f64,
}

/// What is known of this process at the moment, as a file of DHAT: give it a name that ends in `.json`.
#[must_use]
pub fn dhat(context: &mut Context<'_>) -> String {
    freestone::profile::without_samples(|| {
        let (summary, heap) = (freestone::profile::summary(), freestone::snapshot());
        let began_ns = heap.at_ns.saturating_sub(heap.age_ns);
        let (stacks, sums) = read();
        let mut writing =
            Writing { stacks: &stacks, frames_of: vec![None; stacks.addresses().len()], ftbl: vec!["[root]".to_owned()] };
        let pps = sums.into_iter().map(|(stack, sums)| writing.point(stack, &sums, context)).collect();
        let document = Document {
            version: VERSION,
            mode: "heap",
            verb: "Allocated",
            bklt: true,
            bkacc: false,
            tu: "µs",
            million_tu: "s",
            tuth: freestone::profile::TEMPORARY_NS / 1000,
            cmd: std::env::args_os().next().map_or_else(|| "?".to_owned(), |name| name.to_string_lossy().into_owned()),
            pid: std::process::id(),
            te: heap.age_ns / 1000,
            tg: summary.peak_ns.saturating_sub(began_ns) / 1000,
            pps,
            ftbl: writing.ftbl,
        };
        // Keys are strings and numbers are integers, so this cannot fail.
        serde_json::to_string(&document).unwrap_or_default()
    })
}

/// All sites, by stack; in the order in which stacks came up.
fn read() -> (Arc<Stacks>, Vec<(u32, Sums)>) {
    let (mut interner, mut places) = (Interner::default(), NumberMap::<u32, usize>::default());
    let mut sums: Vec<(u32, Sums)> = Vec::new();
    freestone::profile::each_site(|site| {
        let stack = interner.stack(site.stack.frames().iter().copied(), site.stack.is_cut);
        let place = *places.entry(stack).or_insert(sums.len());
        if place == sums.len() {
            sums.push((stack, Sums::default()));
        }
        sums[place].1.add(site);
    });
    (Arc::new(interner.into_stacks()), sums)
}

impl Sums {
    fn add(&mut self, site: &Site) {
        let columns = [(&mut self.allocated, &site.allocated), (&mut self.live, &site.live), (&mut self.peak, &site.peak)];
        for ([bytes, blocks], estimate) in columns {
            *bytes += estimate.bytes;
            *blocks += estimate.objects;
        }
        self.lifetime_ns += site.lifetime_ns;
    }
}

struct Writing<'a> {
    stacks: &'a Stacks,
    /// By index of the address: its frames in the table, innermost first.
    frames_of: Vec<Option<Box<[u32]>>>,
    ftbl: Vec<String>,
}

impl Writing<'_> {
    fn point(&mut self, stack: u32, sums: &Sums, context: &mut Context<'_>) -> Point {
        let whole = |[bytes, blocks]: [f64; 2]| [bytes.round().max(0.0) as u64, blocks.round().max(0.0) as u64];
        let ([tb, tbk], [gb, gbk], [eb, ebk]) = (whole(sums.allocated), whole(sums.peak), whole(sums.live));
        let mut fs = Vec::new();
        for index in self.stacks.numbers(stack) {
            fs.extend_from_slice(self.frames(index as usize, context));
        }
        Point { tb, tbk, tl: (sums.lifetime_ns / 1000.0) as u64, mb: gb.max(eb), mbk: gbk.max(ebk), gb, gbk, eb, ebk, fs }
    }

    fn frames(&mut self, index: usize, context: &mut Context<'_>) -> &[u32] {
        let (stacks, ftbl) = (self.stacks, &mut self.ftbl);
        self.frames_of[index].get_or_insert_with(|| {
            let address = call_of(stacks.addresses()[index]);
            let place = context.place(address);
            let named = context.name(address).into_iter();
            named
                .map(|frame| {
                    ftbl.push(line(address, &frame, &place));
                    (ftbl.len() - 1) as u32
                })
                .collect()
        })
    }
}

/// `0x4AA1D9F: _nl_normalize_codeset (l10nflist.c:332)`, or `(in libc.so.6+0x1d9f)` where no line is known.
fn line(address: usize, frame: &Frame, place: &str) -> String {
    match (&frame.file, frame.line) {
        (Some(file), Some(line)) => format!("{address:#x}: {} ({file}:{line})", frame.function),
        (Some(file), None) => format!("{address:#x}: {} ({file})", frame.function),
        (None, _) => format!("{address:#x}: {} (in {place})", frame.function),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_written_as_valgrind_does() {
        let frame = |file: Option<&str>, line| Frame { function: "a::b".to_owned(), file: file.map(str::to_owned), line };
        assert_eq!(line(0x4AA, &frame(Some("b.rs"), Some(7)), ""), "0x4aa: a::b (b.rs:7)");
        assert_eq!(line(0x4AA, &frame(Some("b.rs"), None), ""), "0x4aa: a::b (b.rs)");
        assert_eq!(line(0x4AA, &frame(None, None), "app+0x2"), "0x4aa: a::b (in app+0x2)");
    }

    #[test]
    fn a_stack_that_calls_inlined_functions_has_all_of_them() {
        let mut interner = Interner::default();
        let [first, second] = [[0x11, 0x31], [0x21, 0x31]].map(|frames: [usize; 2]| interner.stack(frames.into_iter(), false));
        let stacks = interner.into_stacks();
        let mut names = |address: usize| {
            let frame = |function: &str| Frame { function: function.to_owned(), ..Frame::default() };
            if address == 0x10 { vec![frame("inner"), frame("outer")] } else { Vec::new() }
        };
        let mut context = Context { namer: Some(&mut names), ..Context::default() };
        let mut writing = Writing { stacks: &stacks, frames_of: vec![None; 3], ftbl: vec!["[root]".to_owned()] };
        let sums = Sums { allocated: [640.0, 10.0], live: [128.0, 2.0], peak: [64.4, 1.0], lifetime_ns: 5000.9 };
        let point = writing.point(first, &sums, &mut context);
        assert_eq!([point.tb, point.tbk, point.tl, point.mb, point.mbk], [640, 10, 5, 128, 2]);
        assert_eq!([point.gb, point.gbk, point.eb, point.ebk], [64, 1, 128, 2]);
        assert_eq!(point.fs, [1, 2, 3]);
        assert_eq!(writing.point(second, &sums, &mut context).fs, [4, 3]);
        assert_eq!(
            writing.ftbl,
            ["[root]", "0x10: inner (in 0x10)", "0x10: outer (in 0x10)", "0x30: 0x30 (in 0x30)", "0x20: 0x20 (in 0x20)"]
        );
    }
}
