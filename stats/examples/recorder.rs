//! A service that leaks, with a flight recorder. Kill it, then ask the recording what happened:
//!
//! ```text
//! cargo run --example recorder --features recorder -- /tmp/leaky.rec &
//! kill -9 %1
//! cargo run -p freestone-bench -- recorder show /tmp/leaky.rec
//! ```
//!
//! `docs/recorder.md` shows what comes out.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use freestone::Freestone;
use freestone_stats::recorder;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// A session that nobody ever removes: this is the leak.
struct Session {
    _name: String,
    _history: Vec<u8>,
}

/// What a request needs while it is served.
fn serve(request: u64) -> usize {
    let headers: Vec<String> = (0..20).map(|header| format!("header-{header}: {request}")).collect();
    let body = vec![b'x'; 2000 + (request % 50) as usize * 100];
    headers.iter().map(String::len).sum::<usize>() + body.len()
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "leaky.rec".to_owned());
    let seconds = arguments.next().and_then(|seconds| seconds.parse().ok()).unwrap_or(u64::MAX);
    match recorder::start(&path) {
        Ok(recorder) => recorder.forever(),
        Err(error) => {
            eprintln!("no flight recorder: {error}");
            return ExitCode::FAILURE;
        }
    }
    let began = Instant::now();
    let mut sessions: HashMap<u64, Session> = HashMap::new();
    let mut served = 0;
    for request in 0.. {
        served += serve(request);
        if request % 4 == 0 {
            sessions.insert(request, Session { _name: format!("session {request}"), _history: vec![7; 12_000] });
        }
        std::thread::sleep(Duration::from_micros(500));
        if began.elapsed().as_secs() >= seconds {
            break;
        }
    }
    println!("served {served} bytes, and {} sessions are open", sessions.len());
    ExitCode::SUCCESS
}
