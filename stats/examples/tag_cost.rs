//! What tags cost: nanoseconds of a scope, of one with a name, of a poll, and of a thread's counts, which each reads twice.
//!
//! ```text
//! $ cargo run --release -p freestone-stats --example tag_cost
//! ```

use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use freestone::Freestone;
use freestone_stats::tag::{Tag, Tagged};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

const TIMES: u32 = 200_000;

/// The median of eleven, in nanoseconds.
fn time(what: &str, mut work: impl FnMut()) {
    let mut all: Vec<f64> = (0..11)
        .map(|_| {
            let began = Instant::now();
            (0..TIMES).for_each(|_| work());
            began.elapsed().as_nanos() as f64 / f64::from(TIMES)
        })
        .collect();
    all.sort_by(f64::total_cmp);
    println!("{what:<44}{:>8.1} ns", all[all.len() / 2]);
}

struct Never;

impl Future for Never {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

fn main() {
    // A thread that has used some twenty classes, as threads do.
    let kept: Vec<Vec<u8>> = (0..2000).map(|number| vec![1; 16 << (number % 12)]).collect();
    let ingest = Tag::new("ingest");
    for number in 0..200 {
        let _ = Tag::new(&format!("tenant {number}"));
    }
    time("a block, there and back", || drop(black_box(Box::new([1_u8; 64]))));
    time("this_thread()", || {
        black_box(freestone::this_thread());
    });
    time("thread_allocated()", || {
        black_box(freestone::thread_allocated());
    });
    time("a scope, by Tag", || drop(black_box(freestone_stats::tag(ingest))));
    time("a scope, by name", || drop(black_box(freestone_stats::tag("ingest"))));
    let mut task = Box::pin(Never.tagged(ingest));
    time("a poll", || {
        black_box(task.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    });
    let outer = freestone_stats::tag(ingest);
    time("a scope of the same tag within", || drop(black_box(freestone_stats::tag(ingest))));
    drop(outer);
    drop(kept);
}
