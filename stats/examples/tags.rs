//! Which part of the program holds the memory? Tags for two components and for every tenant, and what is on their account.
//!
//! ```text
//! cargo run --example tags
//! ```

use std::collections::HashMap;

use freestone::Freestone;
use freestone_stats::tag::{self, Tagged};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// Rows of a file, which stay.
fn ingest(rows: u32) -> HashMap<u32, String> {
    let _t = freestone_stats::tag("ingest");
    (0..rows).map(|row| (row, format!("the text of row {row}"))).collect()
}

/// A report, which is sent and forgotten.
fn render(rows: &HashMap<u32, String>) -> usize {
    let _t = freestone_stats::tag("render");
    rows.values().map(|text| format!("<tr><td>{text}</td></tr>").len()).sum()
}

/// What a tenant asked for. It waits in between, and goes on wherever there is a thread.
async fn serve(requests: u32) -> Vec<Vec<u8>> {
    let mut answers = Vec::new();
    for request in 0..requests {
        answers.push(vec![b'x'; 1000 + request as usize]);
        tokio::task::yield_now().await;
    }
    answers
}

fn main() {
    let rows = ingest(100_000);
    let bytes = render(&rows);

    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().expect("there are threads");
    let tenants = ["tenant-1", "tenant-2", "tenant-3"];
    let work = (0..).zip(tenants).map(|(number, name)| runtime.spawn(serve(2000 + 1000 * number).tagged(name)));
    let work: Vec<_> = work.collect();
    let answers: Vec<_> = work.into_iter().map(|task| runtime.block_on(task).expect("it does not panic")).collect();

    println!("{bytes} bytes rendered\n");
    println!("{:<10} {:>12} {:>14} {:>24}", "tag", "allocations", "bytes", "live, by samples");
    for tag in tag::tags() {
        let live = format!("{:.0} ± {:.0} KiB", tag.live.bytes / 1024.0, tag.live_error_bytes() / 1024.0);
        println!("{:<10} {:>12} {:>14} {live:>24}", tag.name, tag.allocations, tag.allocated_bytes);
    }
    drop((rows, answers));
}
