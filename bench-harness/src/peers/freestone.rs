//! Freestone: how it shows that it is in use, and what else it offers.

#[path = "freestone_books.rs"]
mod books;
#[path = "../user_crate/patch/serves/freestone.rs"]
mod serves;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use freestone::{Limit, PauseKind, control};
use freestone_bench::controls::{Controls, Note};
use freestone_stats::adaptive::Controller;

/// It serves boxes, and leaves most frees unchecked.
#[allow(dead_code, reason = "one of the two binaries that share this file asks")]
pub(crate) fn proof() -> Result<String, String> {
    // Whoever builds the two together builds one of them wrong.
    if cfg!(feature = "checked") {
        return Err("it was built to check every free".to_owned());
    }
    serves_boxes()
}

/// It serves boxes, and checks every free at the call.
#[allow(dead_code, reason = "one of the two binaries that share this file asks")]
pub(crate) fn proof_of_checked() -> Result<String, String> {
    if cfg!(not(feature = "checked")) {
        return Err("it was built without the feature that checks every free".to_owned());
    }
    serves_boxes().map(|version| format!("{version} checked"))
}

/// All crates of the workspace have one version.
fn serves_boxes() -> Result<String, String> {
    serves::boxes()?;
    Ok(env!("CARGO_PKG_VERSION").to_owned())
}

/// What Freestone offers a program besides memory.
#[allow(dead_code, reason = "a binary that registers nothing has no use for it")]
pub(crate) const CONTROLS: Controls = Controls {
    set_memory_limit: Some(|bytes| control::set_memory_limit(bytes.map_or(Limit::None, Limit::Bytes))),
    thread_idle: Some(control::thread_idle),
    observe: Some(observe),
    notes: Some(note_pauses),
    heap_in_use: Some(|| Some(freestone::snapshot().bytes.live as u64)),
    allocations: Some(|| freestone::snapshot().allocations),
    books: Some(books::note),
};

/// What the service reports is made into what the heap keeps. A P99 of a quarter of a millisecond is the target of the workload that reports.
fn observe(requests_per_second: f64, p99: Duration) {
    static CONTROLLER: Mutex<Option<Controller>> = Mutex::new(None);
    let mut controller = CONTROLLER.lock().unwrap_or_else(PoisonError::into_inner);
    let controller = controller.get_or_insert_with(|| Controller::new(Duration::from_micros(250)));
    controller.observe(requests_per_second, p99);
    controller.apply();
}

/// How long giving back took, and how often the limit made itself felt.
fn note_pauses(note: &mut Note<'_>) {
    let heap = freestone::snapshot();
    let release = heap.pauses[PauseKind::Release as usize];
    note("release_total_ns", release.total_ns);
    note("release_p99_ns", release.p99_ns);
    note("release_max_ns", release.max_ns);
    note("given_back_bytes", release.bytes);
    let assist = heap.pauses[PauseKind::Assist as usize];
    note("assists", heap.limits.assists);
    note("assist_p99_ns", assist.p99_ns);
    note("assist_max_ns", assist.max_ns);
    note("limit_exceeded", heap.limits.exceeded);
}
