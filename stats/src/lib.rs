//! What the Freestone allocator counts, for people: numbers of a moment, rates between two moments, a report in plain text.
//!
//! ```
//! use freestone::Freestone;
//!
//! #[global_allocator]
//! static GLOBAL: Freestone = Freestone::new();
//!
//! let before = freestone_stats::read();
//! let words: Vec<String> = (0..1000).map(|number| number.to_string()).collect();
//! let after = freestone_stats::read();
//!
//! let rates = after.since(&before);
//! assert!(rates.allocations >= 1000);
//! println!("{rates}");   // 1013 allocations (12.8 M/s), 52.1 KiB (675 MiB/s); …
//! println!("{after}");   // where every byte is, and which size classes hold the most
//! # drop(words);
//! ```
//!
//! Reading allocates nothing, stops nobody, and takes some ten microseconds. Formatting allocates, like all formatting.

pub mod pressure;
mod rates;
mod reading;
mod report;

pub use rates::Rates;
pub use reading::{Reading, read};
