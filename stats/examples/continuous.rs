//! A service whose heap is profiled every so often, into a directory, and to Pyroscope or Parca if there is one.
//!
//! ```text
//! mkdir -p /tmp/profiles
//! cargo run --example continuous --features continuous -- /tmp/profiles 10 http://127.0.0.1:4040
//! go tool pprof -top -base /tmp/profiles/heap-FIRST.pb.gz /tmp/profiles/heap-LAST.pb.gz
//! ```

use std::collections::VecDeque;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use freestone::Freestone;
use freestone_stats::continuous::{self, DirectoryOptions, Handle, PushOptions, StartError};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

fn start(directory: &str, server: Option<&str>) -> Result<Vec<Handle>, StartError> {
    let options = DirectoryOptions::new().every(Duration::from_secs(1)).max_files(60).max_bytes(16 << 20);
    let mut handles = vec![continuous::to_directory(directory, options)?];
    if let Some(address) = server {
        let options = PushOptions::new().every(Duration::from_secs(5)).service("example").label("region", "here");
        handles.push(continuous::push(address, options)?);
    }
    Ok(handles)
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let directory = arguments.next().unwrap_or_else(|| ".".to_owned());
    let seconds = arguments.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(10);
    let handles = match start(&directory, arguments.next().as_deref()) {
        Ok(handles) => handles,
        Err(error) => {
            eprintln!("no profiles: {error}");
            return ExitCode::FAILURE;
        }
    };

    // A queue that is filled faster than it is emptied.
    let mut queue = VecDeque::new();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds) {
        queue.extend((0..200).map(|message| vec![message; 2000]));
        queue.drain(..150);
        thread::sleep(Duration::from_millis(20));
    }
    for handle in &handles {
        let stats = handle.stats();
        print!("{} profiles taken, {} written, {} deleted since", stats.taken, stats.written, stats.deleted);
        println!(", {} waiting{}", stats.waiting, stats.last_error.map(|error| format!("; {error}")).unwrap_or_default());
    }
    // Dropping a handle ends its thread.
    drop(handles);
    ExitCode::SUCCESS
}
