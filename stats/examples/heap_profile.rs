//! A heap profile in one line, of a program that was not prepared for it.
//!
//! ```text
//! RUSTFLAGS="-C force-frame-pointers=yes" cargo run --release --example heap_profile --features pprof,names -- heap.pb.gz
//! go tool pprof -top -cum heap.pb.gz
//! ```

use std::collections::HashMap;
use std::process::ExitCode;

use freestone::Freestone;
use freestone_stats::names::{Symbols, mappings};
use freestone_stats::profile::{self, Context, Kind};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// Names of all who ever came.
#[inline(never)]
fn index_of_visitors() -> HashMap<u64, String> {
    let mut index = HashMap::new();
    for visitor in 0..200_000 {
        index.insert(visitor, format!("visitor number {visitor}"));
    }
    index
}

/// Pages as they were last sent.
#[inline(never)]
fn cache_of_pages() -> Vec<Vec<u8>> {
    let mut pages = Vec::new();
    for page in 0..500 {
        pages.push(vec![b'x'; 40_000 + page * 10]);
    }
    pages
}

fn main() -> ExitCode {
    let (index, cache) = (index_of_visitors(), cache_of_pages());

    let path = std::env::args().nth(1).unwrap_or_else(|| "heap.pb.gz".to_owned());
    let (mut symbols, mappings) = (Symbols::new(), mappings());
    let mut context = Context { namer: Some(&mut symbols), mappings: &mappings, ..Context::default() };
    // This is the line.
    if let Err(error) = std::fs::write(&path, profile::take(Kind::Heap).pprof(&mut context)) {
        eprintln!("cannot write {path}: {error}");
        return ExitCode::FAILURE;
    }
    println!("go tool pprof -top -cum {path}\n");

    // The same for people.
    println!("{}", profile::take(Kind::Heap).top(Kind::Heap.default_value(), &mut context));
    drop((index, cache));
    ExitCode::SUCCESS
}
