//! A service that Prometheus scrapes, with nothing but the standard library around it: `/metrics` for Prometheus, `/stats.json` beside it for people.
//!
//! Both are made from one reading that is a second old at most (an argument changes that), so however many scrape, it costs the same, and what
//! both say fits together. A program that serves HTTP anyway calls [`freestone_stats::openmetrics::for_accept`] in a handler of its own.
//!
//! ```text
//! cargo run --example prometheus --features json,openmetrics
//!
//! curl http://127.0.0.1:9464/metrics
//! # HELP freestone_memory_bytes What the heap holds, by what it is; the sum is all that can be resident of it.
//! # TYPE freestone_memory_bytes gauge
//! freestone_memory_bytes{class="live"} 9722368
//! freestone_memory_bytes{class="slack"} 0
//! freestone_memory_bytes{class="thread_cache"} 7744
//! freestone_memory_bytes{class="depot"} 0
//! …
//! ```
//!
//! and in `prometheus.yml`:
//!
//! ```yaml
//! scrape_configs:
//!   - job_name: shop
//!     static_configs:
//!       - targets: ["127.0.0.1:9464"]
//! ```

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use freestone::Freestone;
use freestone_stats::json::Document;
use freestone_stats::metrics::Reading;
use freestone_stats::openmetrics;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

fn main() {
    let fresh_for_s = std::env::args().nth(1).and_then(|seconds| seconds.parse().ok()).unwrap_or(1);
    let listener = match TcpListener::bind("127.0.0.1:9464") {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("127.0.0.1:9464 cannot be listened at: {error}");
            std::process::exit(1);
        }
    };
    println!("http://127.0.0.1:9464/metrics");
    let words = work();
    serve(&listener, Duration::from_secs(fresh_for_s));
    drop(words);
}

/// Something to be seen.
pub(crate) fn work() -> Vec<String> {
    let mut words: Vec<String> = (0..200_000).map(|number| number.to_string().repeat(number % 9)).collect();
    words.retain(|word| word.len() % 3 == 0);
    words
}

/// Answers one request after the other, until nobody can come any more.
pub(crate) fn serve(listener: &TcpListener, fresh_for: Duration) {
    let mut last: Option<(Instant, Reading)> = None;
    for stream in listener.incoming().flatten() {
        let (_, reading) = match last.take().filter(|(at, _)| at.elapsed() < fresh_for) {
            Some(fresh) => last.insert(fresh),
            None => last.insert((Instant::now(), Reading::now())),
        };
        // Who hangs up early gets nothing, and needs nothing.
        let _: io::Result<()> = answer(&stream, reading);
    }
}

fn answer(stream: &TcpStream, reading: &Reading) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut request = String::new();
    let mut accepts_openmetrics = false;
    for line in BufReader::new(stream).lines() {
        let line = line?;
        if line.is_empty() {
            break;
        }
        accepts_openmetrics |= line.to_ascii_lowercase().starts_with("accept:") && line.contains("application/openmetrics-text");
        if request.is_empty() {
            request = line;
        }
    }
    let (status, content_type, body) = match request.split(' ').nth(1) {
        Some("/metrics") if accepts_openmetrics => ("200 OK", openmetrics::CONTENT_TYPE, openmetrics::text_of(reading)),
        Some("/metrics") => ("200 OK", openmetrics::PROMETHEUS_CONTENT_TYPE, openmetrics::prometheus_text_of(reading)),
        Some("/stats.json") => ("200 OK", "application/json", Document::of(reading.snapshot()).to_json()),
        _ => ("404 Not Found", "text/plain", "There are /metrics and /stats.json.\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut stream = stream;
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())
}
