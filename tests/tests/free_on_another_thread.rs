//! Blocks of every kind are allocated here and freed there: nothing is lost, nothing is counted twice, and memory stays bounded however long
//! it goes on.

use std::sync::mpsc::sync_channel;

use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

#[test]
fn for_a_long_time() {
    let (sender, receiver) = sync_channel::<Vec<u8>>(256);
    let before = freestone::snapshot();
    let consumer = std::thread::spawn(move || receiver.into_iter().map(|block| block.len()).sum::<usize>());
    let mut sent = 0;
    let mut reserved = 0;
    for round in 0..200_000_usize {
        let size = [24, 500, 3_000, 30_000, 100_000, 300_000][round % 6] + round % 7;
        let block = vec![1_u8; if round % 50 < 6 { size } else { size % 600 + 1 }];
        sent += block.len();
        sender.send(block).expect("the consumer takes them all");
        if round == 50_000 {
            reserved = freestone::snapshot().bytes.committed();
        }
    }
    drop(sender);
    assert_eq!(consumer.join().expect("the consumer does not panic"), sent);
    let after = freestone::snapshot();
    assert!(after.bytes.committed() <= reserved + (8 << 20), "{} bytes became {}", reserved, after.bytes.committed());
    assert!(after.allocations - before.allocations >= 200_000);
    assert!(after.live_blocks() < before.live_blocks() + 50, "all of them were freed");
    assert!(after.events.depot_takes + after.events.refills > 0);
}
