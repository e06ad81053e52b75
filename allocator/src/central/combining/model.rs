//! Explores every schedule of threads that give while another holds the lock: no magazine is left behind.

use super::*;
use crate::sync::Rank;
use core::ptr::NonNull;
use loom::sync::Arc;

fn magazine() -> Magazine {
    let words = Vec::leak(vec![0_u64; 64]);
    // SAFETY: zeros, aligned, more than a header and two entries need, leaked.
    unsafe { Magazine::new(NonNull::from(words).cast(), crate::config::MAGAZINE_BLOCKS_MAX) }
}

fn give_from(threads: usize) {
    let rooms = Arc::new(Combining::new(Lock::new(Rank::Central, 0_u32)));
    let givers: Vec<_> = (0..threads)
        .map(|_| {
            let rooms = Arc::clone(&rooms);
            loom::thread::spawn(move || rooms.give(magazine(), |worked_on, _| *worked_on += 1))
        })
        .collect();
    rooms.act(&mut 0, |_| (), |worked_on, _| *worked_on += 1);
    for giver in givers {
        giver.join().expect("no giver panics");
    }
    assert!(rooms.waiting.load(Ordering::Relaxed).is_null(), "a magazine was left behind");
    assert_eq!(*rooms.lock.lock(), threads as u32);
}

#[test]
fn what_comes_while_the_lock_is_held_is_worked_off() {
    loom::model(|| give_from(1));
}

#[test]
fn also_when_two_come() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(4);
    model.check(|| give_from(2));
}
