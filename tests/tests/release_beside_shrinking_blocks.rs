//! One thread gives memory back while another shrinks large blocks and frees them: what is given back is the tail that the block no longer
//! needs, and its owner must not notice that somebody is at work there.

use std::alloc::Layout;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use freestone::{Freestone, HugePages};
use freestone_tests::{Block, Random, seed};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new().huge_pages(HugePages::Never);

const MIB: usize = 1 << 20;

/// Grows, shrinks and frees blocks of a few MiB, checking their content at every step.
fn breathe(seed: u64) {
    let mut random = Random::new(seed);
    for round in 0..1_500 {
        let layout = Layout::from_size_align(8 * MIB, 8).expect("a power of two");
        let mut block = Block::new(&GLOBAL, layout).expect("memory is there");
        block.fill(round as u8);
        for _ in 0..random.below(3) {
            assert!(block.resize(2 * MIB + 1 + random.below(4 * MIB)));
        }
        if random.below(2) == 0 {
            assert!(block.resize(2 * MIB + 1 + random.below(20 * MIB)));
        }
    }
}

#[test]
fn nobody_notices() {
    let seed = seed();
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let breathing = [scope.spawn(move || breathe(seed)), scope.spawn(move || breathe(!seed))];
        let releasing = scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                freestone::control::release_to_os();
            }
        });
        let ended: Vec<_> = breathing.into_iter().map(thread::ScopedJoinHandle::join).collect();
        done.store(true, Ordering::Relaxed);
        releasing.join().expect("giving back does not panic");
        assert!(ended.iter().all(Result::is_ok));
    });
}
