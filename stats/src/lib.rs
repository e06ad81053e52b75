//! What your memory is doing, for people: every byte in one line, and a verdict in words.
//!
//! ```
//! use freestone::Freestone;
//!
//! #[global_allocator]
//! static GLOBAL: Freestone = Freestone::new();
//!
//! let before = freestone_stats::snapshot();
//! let words: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
//! let after = freestone_stats::snapshot();
//!
//! let rates = after.since(&before);
//! assert!(rates.allocations >= 1000);
//! println!("{rates}");   // 1013 allocations (12.8 M/s), 52.1 KiB (675 MiB/s); …
//! println!("{after}");   // where every byte is, and which size classes hold the most
//! println!("{}", freestone_stats::diagnose(&before, &after));   // is that a leak?
//! # drop(words);
//! ```
//!
//! | question | answer |
//! |---|---|
//! | What did the heap do, and what does it hold? | [`snapshot()`]: exact, allocates nothing, 5 µs and up to 0.5 µs a thread |
//! | Whose memory is it, in the whole process? | [`ledger()`]: every byte in one line, with an explicit *unexplained*; some milliseconds |
//! | How fast? | [`rates()`]: of the last second, ten, and minute; or [`Snapshot::since`] |
//! | Is it a leak? | [`diagnose`]: one of six words, with the numbers that led there and what to do |
//! | Where does it leak? | [`leaks()`], the verdict, or `FREESTONE_LEAK_REPORT=1` for a report at exit |
//! | Which thread? | [`threads()`] |
//! | Which part of the program, which tenant? | [`tag()`], [`tag::Tagged`], [`tag::tags`] |
//! | What could be better? | [`advice()`] |
//! | Can samples be believed? | [`agreement()`] |
//! | What was it doing when nobody looked? | [`history`], [`trace`], and the module `recorder`, whose file outlives SIGKILL |
//! | Does this function allocate? | [`mod@assert`], in tests |
//! | What can the program do about it? | [`pressure`], [`adaptive`] |
//!
//! [`init()`] starts whatever the environment asks for: one line in `main`.
//!
//! | feature | brings | crates |
//! |---|---|---|
//! | – | all of the above but the recorder | `crossbeam-epoch`, `bytesize` |
//! | `json` | everything as one versioned document | `serde`, `serde_json` |
//! | `openmetrics` | [metrics](metrics::all) as text, and a collector for your registry | `prometheus-client` |
//! | `metrics` | the same through the facade | `metrics` |
//! | `http` | a router for `axum`, a server for programs without a runtime, a live page | `axum`, `hyper`, `tokio` |
//! | `names` | names of functions at addresses: see [`mod@names`] | `cpp_demangle`, `memmap2`, `object`, `rustc-demangle` |
//! | `continuous` | profiles every so often, into a directory or to Pyroscope or Parca; with `continuous-tls` over https | `base64`, `ureq` |
//! | `recorder` | the last minutes in a file | `memmap2`, `crc32fast` |
//!
//! # Pressure
//!
//! A cache is welcome to memory that nobody else needs. [`pressure::on`] tells it when somebody does:
//!
//! ```
//! use std::sync::Arc;
//! use std::sync::atomic::{AtomicBool, Ordering};
//!
//! use freestone_stats::pressure::{self, Threshold};
//!
//! let shed = Arc::new(AtomicBool::new(false));
//! let wanted = Arc::clone(&shed);
//! let subscription = pressure::on(Threshold::of_memory_limit(70), move |_| wanted.store(true, Ordering::Relaxed));
//!
//! // Where the cache is used, and its lock is held anyway:
//! if shed.swap(false, Ordering::Relaxed) {
//!     // … drop half of it.
//! }
//! # drop(subscription);
//! ```
//!
//! The callback may run in the middle of any allocation of the program: see [`pressure`] for what it must not wait for, and
//! `examples/pressure.rs` for a whole program.
//!
//! # After the end
//!
//! With the feature `recorder` the last minutes of all this lie in a file that outlives the process, SIGKILL and the OOM killer included: see
//! the module `recorder`.
//!
//! # Retention that follows the load
//!
//! Free memory that is kept makes the next peak cheap, and the process large. A [`Controller`](adaptive::Controller) trades one
//! for the other by what the program knows of itself: how busy it is, and whether it answers in time.
//!
//! ```
//! use std::time::Duration;
//!
//! use freestone_stats::adaptive::Controller;
//!
//! let mut controller = Controller::new(Duration::from_millis(20));
//! // Every second:
//! # let (requests_per_second, p99) = (1000.0, Duration::from_millis(12));
//! controller.observe(requests_per_second, p99);
//! controller.apply();
//! ```

pub mod adaptive;
pub mod advice;
mod agreement;
pub mod assert;
#[cfg(feature = "continuous")]
pub mod continuous;
mod frames;
pub mod history;
#[cfg(feature = "http")]
pub mod http;
mod init;
#[cfg(feature = "json")]
pub mod json;
pub mod leaks;
mod ledger;
pub mod metrics;
#[cfg(feature = "metrics")]
pub mod metrics_facade;
pub mod names;
#[cfg(feature = "openmetrics")]
pub mod openmetrics;
mod own_thread;
mod point;
pub mod pressure;
mod process;
pub mod profile;
#[cfg(test)]
mod random;
mod rates;
#[cfg(feature = "recorder")]
pub mod recorder;
mod report;
mod slack;
mod snapshot;
pub mod tag;
mod threads;
pub mod trace;
pub mod verdict;

pub use advice::{Advice, advice};
pub use agreement::{Agreement, agreement};
pub use history::{Windows, rates};
pub use init::init;
pub use leaks::{Leaks, leaks};
pub use ledger::{Ledger, Line, Part, ledger};
pub use point::Point;
pub use process::Process;
pub use rates::Rates;
pub use snapshot::{Resident, Snapshot, snapshot};
pub use tag::tag;
pub use threads::{Thread, threads};
pub use verdict::{Diagnosis, Verdict, diagnose};
