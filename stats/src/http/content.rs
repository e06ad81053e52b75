//! What the answers say. Each function reads the heap itself: an answer is of the moment in which it was made.

use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use bytesize::ByteSize;
use serde::Serialize;

use crate::json::{self, Document};

/// The verdict is on so much of what lies behind, as in the document.
const VERDICT_REACH: Duration = Duration::from_mins(10);

/// The live page, but for the nonce.
const PAGE: &str = include_str!("ui.html");

/// What draws its flame graph.
const FLAME: &str = include_str!("flame.js");

/// The live page, with the nonce that its script and its style need.
pub(super) fn page(nonce: &str) -> String {
    PAGE.replace("{{nonce}}", nonce).replace("{{flame}}", FLAME)
}

/// A text that nobody can guess, for one answer: what the system's randomness and `SipHash` make of nothing.
pub(super) fn nonce() -> String {
    let half = || RandomState::new().hash_one(0_u8);
    format!("{:016x}{:016x}", half(), half())
}

pub(super) fn stats() -> String {
    format!("{}\n{}", crate::snapshot(), crate::rates())
}

pub(super) fn stats_json() -> String {
    json::stats()
}

pub(super) fn ledger() -> String {
    crate::ledger().to_string()
}

pub(super) fn ledger_json() -> String {
    part("ledger", |document| document.ledger)
}

pub(super) fn classes() -> String {
    let heap = crate::snapshot().heap;
    let mut text = format!(
        "{:>12}{:>14}{:>12}{:>16}{:>16}{:>12}{:>10}{:>8}\n",
        "block", "live blocks", "live", "allocations", "frees", "cached", "depot", "spans"
    );
    for class in heap.classes.iter().filter(|class| class.allocations > 0 || class.spans > 0) {
        let block_bytes = class.block_bytes as u64;
        let _ = writeln!(
            text,
            "{:>12}{:>14}{:>12}{:>16}{:>16}{:>12}{:>10}{:>8}",
            ByteSize(block_bytes).to_string(),
            class.live(),
            ByteSize(class.live().saturating_mul(block_bytes)).to_string(),
            class.allocations,
            class.frees,
            class.thread_cached,
            class.depot,
            class.spans
        );
    }
    let large = heap.large;
    let _ = writeln!(
        text,
        "{:>12}{:>14}{:>12}{:>16}{:>16}",
        "larger",
        large.allocations.saturating_sub(large.frees),
        ByteSize(large.allocated_bytes.saturating_sub(large.freed_bytes)).to_string(),
        large.allocations,
        large.frees
    );
    text
}

pub(super) fn classes_json() -> String {
    part("classes", |document| document.classes)
}

pub(super) fn threads() -> String {
    let mut text =
        format!("{:>10}  {:<18}{:>12}{:>16}{:>16}{:>14}\n", "thread", "name", "cached", "allocations", "frees", "allocated");
    for thread in crate::threads() {
        let id = thread.id.map_or_else(|| "ended".to_owned(), |id| id.to_string());
        // A program chooses names; a line stays a line.
        let name: String = thread.name.unwrap_or_default().chars().filter(|letter| !letter.is_control()).collect();
        let _ = writeln!(
            text,
            "{id:>10}  {name:<18}{:>12}{:>16}{:>16}{:>14}",
            ByteSize(thread.cached_bytes).to_string(),
            thread.allocations,
            thread.frees,
            ByteSize(thread.allocated_bytes).to_string()
        );
    }
    text
}

pub(super) fn threads_json() -> String {
    part("threads", |document| document.threads)
}

pub(super) fn verdict() -> String {
    format!("{}\n{}", crate::verdict::recent(VERDICT_REACH), crate::agreement())
}

pub(super) fn verdict_json() -> String {
    part("verdict", |document| document.verdict)
}

pub(super) fn tags() -> String {
    crate::tag::report()
}

pub(super) fn tags_json() -> String {
    json::Tags::now().to_json()
}

pub(super) fn leaks() -> String {
    crate::leaks::recent(VERDICT_REACH).to_string()
}

pub(super) fn leaks_json() -> String {
    json::Leaks::of(&crate::leaks::recent(VERDICT_REACH)).to_json()
}

pub(super) fn advice() -> String {
    crate::advice().to_string()
}

pub(super) fn advice_json() -> String {
    json::Advice::of(&crate::advice()).to_json()
}

pub(super) fn config() -> String {
    let pairs = Document::now().config;
    let width = pairs.keys().map(String::len).max().unwrap_or_default();
    pairs.iter().fold(String::new(), |mut text, (key, value)| {
        let _ = writeln!(text, "{key:<width$}  {value}");
        text
    })
}

pub(super) fn config_json() -> String {
    part("config", |document| document.config)
}

pub(super) fn released(bytes: usize) -> String {
    format!("{} went back to the system ({bytes} bytes)\n", ByteSize(bytes as u64))
}

pub(super) fn released_json(bytes: usize) -> String {
    format!("{{\"version\":{},\"released_bytes\":{bytes}}}", json::VERSION)
}

/// A part of the document of now, with what one needs to know of the whole: `{"version":…,"taken_unix_ms":…,"classes":[…]}`.
fn part<T: Serialize>(key: &'static str, choose: fn(Document) -> T) -> String {
    let document = Document::now();
    let (version, taken) = (document.version, document.taken_unix_ms);
    // String keys and finite numbers: this cannot fail.
    let value = serde_json::to_string(&choose(document)).unwrap_or_default();
    format!("{{\"version\":{version},\"taken_unix_ms\":{taken},\"{key}\":{value}}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_nonce_comes_twice() {
        let [first, second] = [nonce(), nonce()];
        assert_ne!(first, second);
        assert_eq!(first.len(), 32);
    }

    #[test]
    fn the_page_asks_for_nothing_from_elsewhere() {
        let page = page("0123");
        for left_out in ["{{nonce}}", "{{flame}}"] {
            assert!(!page.contains(left_out), "{left_out} is left out");
        }
        for outside in ["http://", "https://", "//cdn", "@import", "url("] {
            // Names of XML, and what is in the page itself.
            let is_inside =
                |at: usize| ["http://www.w3.org/2000/svg", "url(#"].iter().any(|inside| page[at..].starts_with(inside));
            let found = page.match_indices(outside).find(|(at, _)| !is_inside(*at));
            assert!(found.is_none(), "{outside} in the page");
        }
    }
}
