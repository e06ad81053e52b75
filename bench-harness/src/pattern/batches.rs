//! Patterns of batches: blocks that come together go together, but in another order, or on another thread.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use freestone_bench::workload::Rng;

use super::block::{Block, retired};
use super::{Extent, on_threads};

type Batch = Vec<Block>;

/// So many batches may be on their way: enough that whoever is ahead is seldom put to sleep, which would measure the kernel.
const WAITING_MAX: usize = 64;

/// Threads in a ring: each frees what the one before it allocates.
pub(super) fn handover(extent: Extent) -> u64 {
    const BLOCKS: u32 = 256;
    let (threads, batches) = (extent.threads(2) as usize, extent.scaled(15_000));
    let (mut senders, receivers): (Vec<_>, Vec<_>) = (0..threads).map(|_| sync_channel::<Batch>(WAITING_MAX)).unzip();
    senders.rotate_left(1);
    // Each thread takes its own ends.
    let ends: Vec<_> = senders.into_iter().zip(receivers).map(|ends| Mutex::new(Some(ends))).collect();
    on_threads(threads as u64, |number| {
        let taken = ends[number as usize].lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((sender, receiver)) = taken else { return 0 };
        let mut rng = Rng::new(number);
        let mut sum = 0_u64;
        for _ in 0..batches {
            let batch = (0..BLOCKS).map(|index| Block::new(rng.between(16, 256), index)).collect();
            sum = sum.wrapping_add(pass(batch, &sender, &receiver));
        }
        drop(sender);
        receiver.iter().fold(sum, |sum, batch| sum.wrapping_add(retired(batch)))
    })
}

/// Sends a batch, and frees what has come meanwhile: also while there is no room, or all of a ring could wait for each other.
fn pass(mut batch: Batch, sender: &SyncSender<Batch>, receiver: &Receiver<Batch>) -> u64 {
    let mut sum = 0_u64;
    loop {
        sum = receiver.try_iter().fold(sum, |sum, batch| sum.wrapping_add(retired(batch)));
        match sender.try_send(batch) {
            Err(TrySendError::Full(back)) => batch = back,
            // Nobody leaves before the one in front of him.
            Ok(()) | Err(TrySendError::Disconnected(_)) => return sum,
        }
        thread::yield_now();
    }
}

/// After Lever and Boreham, "`malloc()` performance in a multithreaded Linux environment" (2000): half of the threads allocate, the others free,
/// and no block is freed by whom it was allocated by.
pub(super) fn xmalloc(extent: Extent) -> u64 {
    const BLOCKS: u32 = 120;
    const SIZES: [usize; 8] = [16, 24, 40, 64, 88, 136, 256, 400];
    let threads = extent.threads(4).max(2);
    let (producers, batches) = (threads / 2, extent.scaled(60_000));
    let (sender, receiver) = sync_channel::<Batch>(WAITING_MAX);
    let senders: Mutex<Vec<_>> = Mutex::new((0..producers).map(|_| sender.clone()).collect());
    drop(sender);
    let receiver = Mutex::new(receiver);
    on_threads(threads, |number| {
        if number >= producers {
            let next = || receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
            return std::iter::from_fn(|| next().ok()).fold(0, |sum, batch| sum.wrapping_add(retired(batch)));
        }
        let sender = senders.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut rng = Rng::new(number);
        for _ in 0..batches {
            let batch = (0..BLOCKS).map(|index| Block::new(SIZES[rng.below(SIZES.len())], index)).collect();
            // Consumers stay until the last producer has gone.
            _ = sender.as_ref().map(|sender| sender.send(batch));
        }
        0
    })
}

/// After `sh6bench`: see [`batches_of_sizes`].
pub(super) fn sh6(extent: Extent) -> u64 {
    on_threads(extent.threads(4), |number| batches_of_sizes(number, extent.scaled(1_600), Some))
}

/// After `sh8bench`, where threads also free what others have allocated: each thread leaves every other batch for whoever comes
/// next, and takes the one that was left before.
pub(super) fn sh8(extent: Extent) -> u64 {
    let left: Mutex<Option<Batch>> = Mutex::default();
    let sum = on_threads(extent.threads(4), |number| {
        let mut count = 0_u64;
        batches_of_sizes(number, extent.scaled(1_600), |batch| {
            count += 1;
            if count.is_multiple_of(2) { left.lock().unwrap_or_else(PoisonError::into_inner).replace(batch) } else { Some(batch) }
        })
    });
    let last = left.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.wrapping_add(last.map_or(0, retired))
}

/// Rounds in which every small size has its turn, the smaller the more blocks. A batch is freed from the top, from the bottom or at random; of
/// each, a few blocks stay until the next round. `exchange` may give it to somebody else and return another one, or none.
fn batches_of_sizes(seed: u64, rounds: u64, mut exchange: impl FnMut(Batch) -> Option<Batch>) -> u64 {
    const SIZES: [usize; 10] = [8, 16, 24, 48, 64, 96, 160, 256, 512, 1_000];
    const BYTES: usize = 16 << 10;
    const STAYING: usize = 8;
    let mut rng = Rng::new(seed);
    let mut staying = Vec::new();
    let mut sum = 0_u64;
    for round in 0..rounds as usize {
        let old = std::mem::take(&mut staying);
        for (place, bytes) in SIZES.into_iter().enumerate() {
            let count = BYTES / bytes + 2 * STAYING;
            let mut batch: Batch = (0..count).map(|_| Block::new(bytes, rng.below(1 << 20) as u32)).collect();
            staying.extend(batch.drain(..STAYING));
            let Some(mut batch) = exchange(batch) else { continue };
            match (round + place) % 3 {
                0 => batch.reverse(),
                1 => {}
                // Whoever's batch it is, its order says nothing about what this thread draws next.
                _ => shuffle(&mut Rng::new(round as u64), &mut batch),
            }
            sum = sum.wrapping_add(retired(batch));
        }
        sum = sum.wrapping_add(retired(old));
    }
    sum.wrapping_add(retired(staying))
}

/// Fisher and Yates.
fn shuffle(rng: &mut Rng, batch: &mut Batch) {
    for last in (1..batch.len()).rev() {
        batch.swap(last, rng.below(last + 1));
    }
}
