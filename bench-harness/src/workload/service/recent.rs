//! The last few thousand orders, which is what a service has in memory besides the requests under way.
//!
//! An order takes a place that its id draws, and whoever had it goes. So orders live for very different times, as what programs keep does: half
//! of them for less than 0.7 generations, one in twenty for more than three. A ring would make each live as long as all others, and hand memory
//! back in the order in which it was taken.

use std::sync::{Mutex, PoisonError};

use super::orders::hash;

/// Orders, in whatever form.
#[derive(Debug)]
pub(super) struct Recent<T> {
    // A lock each: nobody waits for others, or what is measured were the lock.
    places: Box<[Mutex<Option<T>>]>,
}

impl<T> Recent<T> {
    /// Room for so many.
    pub(super) fn new(places: usize) -> Self {
        Self { places: (0..places).map(|_| Mutex::new(None)).collect() }
    }

    /// Keeps the order, and drops the one whose place it takes.
    pub(super) fn keep(&self, id: u64, order: T) {
        let drawn = hash(id, &[]).checked_rem(self.places.len() as u64);
        let Some(place) = drawn.map(|place| &self.places[place as usize]) else { return };
        let before = place.lock().unwrap_or_else(PoisonError::into_inner).replace(order);
        // Without the lock.
        drop(before);
    }
}
