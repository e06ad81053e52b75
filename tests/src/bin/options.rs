//! Shows which options are in force, by what they do. `tests/options.rs` runs it. Arguments:
//!
//! 1. which handle makes the first allocation: `default`, `built` with options of its own, or `full`, which chooses every option;
//! 2. what to show: `huge_pages` prints what the kernel was told about the heap (`hg`, `nh` or nothing); `check` frees twice and prints how far
//!    the program came; `configuration` prints every option as the allocator reads it back; `at_run_time` the same, after all that can be
//!    changed was.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;

use freestone::{Background, Check, Freestone, Fuse, HugePages, Limit, Retain, control};

static DEFAULT: Freestone = Freestone::new();
static BUILT: Freestone = Freestone::new().check(Check::Exchange).huge_pages(HugePages::Always);
static FULL: Freestone = Freestone::new()
    .check(Check::Exchange)
    .huge_pages(HugePages::Never)
    .retain(Retain::Peak { percent: 20, window_ms: 700, steps: 3 })
    .background(Background::Off)
    .memory_limit(Limit::Bytes(3 << 30))
    .hard_limit(Limit::Percent(70))
    .fuse(Fuse::Exit);

/// Whoever makes the first allocation decides, so nothing else may.
#[global_allocator]
static BESIDE: std::alloc::System = std::alloc::System;

const LAYOUT: Layout = Layout::new::<[u64; 8]>();

fn alloc(handle: &Freestone) -> *mut u8 {
    // SAFETY: the size is not zero.
    black_box(unsafe { handle.alloc(LAYOUT) })
}

fn free(handle: &Freestone, block: *mut u8) {
    // SAFETY: not always: `check` frees one twice.
    unsafe { handle.dealloc(black_box(block), LAYOUT) };
}

/// The flags of the mapping that an address lies in, as `/proc/self/smaps` has them.
fn flags_of(address: usize) -> String {
    let smaps = std::fs::read_to_string("/proc/self/smaps").expect("the kernel tells");
    let mut within = false;
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:").filter(|_| within) {
            return flags.trim().to_owned();
        }
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        if let Some((from, to)) = range {
            let bound = |text| usize::from_str_radix(text, 16);
            if let (Ok(from), Ok(to)) = (bound(from), bound(to)) {
                within = (from..to).contains(&address);
            }
        }
    }
    String::new()
}

/// One line per option.
fn print_configuration() {
    let now = control::configuration();
    println!("check {:?}", now.check);
    println!("huge_pages {:?}", now.huge_pages);
    println!("retain {:?}", now.retain);
    println!("background {:?}", now.background);
    println!("memory_limit {:?}", now.memory_limit);
    println!("hard_limit {:?}", now.hard_limit);
    println!("fuse {:?}", now.fuse);
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let handle = match arguments[1].as_str() {
        "built" => &BUILT,
        "full" => &FULL,
        _ => &DEFAULT,
    };
    let block = alloc(handle);
    match arguments[2].as_str() {
        "huge_pages" => {
            let flags = flags_of(block.addr());
            let told: Vec<&str> = flags.split(' ').filter(|&flag| flag == "hg" || flag == "nh").collect();
            println!("{}", told.join(" "));
        }
        "check" => {
            let more: Vec<*mut u8> = (0..20).map(|_| alloc(handle)).collect();
            free(handle, block);
            free(handle, block);
            println!("freed twice");
            for _ in 0..1_000 {
                free(handle, alloc(handle));
            }
            println!("went on");
            drop(more);
        }
        "configuration" => print_configuration(),
        "at_run_time" => {
            control::set_huge_pages(HugePages::Always);
            control::set_retain(Retain::Peak { percent: 30, window_ms: 900, steps: 5 });
            control::set_background(Background::On);
            control::set_memory_limit(Limit::Bytes(5 << 30));
            control::set_hard_limit(Limit::Bytes(7 << 30));
            control::set_fuse(Fuse::Exit);
            print_configuration();
            println!("limits {:?} {:?}", control::memory_limit(), control::hard_limit());
        }
        _ => panic!("what to show: huge_pages, check, configuration or at_run_time?"),
    }
}
