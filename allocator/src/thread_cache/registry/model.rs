//! Explores every schedule of newborn threads, ending threads and a reader: a reader sees records as they were when they were enlisted, and
//! a pooled record is adopted once.

use super::*;
use loom::cell::UnsafeCell;
use loom::sync::Arc;

/// A record with something in it that must be seen.
struct Record {
    older: AtomicPtr<Record>,
    pooled_before: AtomicPtr<Record>,
    content: UnsafeCell<u32>,
}

// SAFETY: the point of the model: whether accesses are ordered is what loom checks.
unsafe impl Sync for Record {}

impl Enlisted for Record {
    fn older(&self) -> &AtomicPtr<Self> {
        &self.older
    }

    fn pooled_before(&self) -> &AtomicPtr<Self> {
        &self.pooled_before
    }
}

fn record(content: u32) -> &'static Record {
    Box::leak(Box::new(Record {
        older: AtomicPtr::default(),
        pooled_before: AtomicPtr::default(),
        content: UnsafeCell::new(content),
    }))
}

#[test]
fn a_reader_sees_whole_records() {
    loom::model(|| {
        let registry = Arc::new(Registry::<Record>::new());
        registry.enlist(record(1));
        let newborn = {
            let registry = Arc::clone(&registry);
            loom::thread::spawn(move || {
                let newborn = record(0);
                // SAFETY: not enlisted yet, so nobody else has it.
                newborn.content.with_mut(|content| unsafe { *content = 2 });
                registry.enlist(newborn);
            })
        };
        // SAFETY: written before the record was enlisted; loom reports it if that is not seen.
        let sum: u32 = registry.records().map(|record| record.content.with(|content| unsafe { *content })).sum();
        assert!(sum == 1 || sum == 3, "saw {sum}");
        newborn.join().expect("the newborn does not panic");
        assert_eq!(registry.records().count(), 2);
    });
}

#[test]
fn a_pooled_record_is_adopted_once_with_all_its_last_owner_did() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(4);
    model.max_branches = 20_000;
    model.check(|| {
        let registry = Arc::new(Registry::<Record>::new());
        let left = record(0);
        registry.enlist(left);
        let ending = {
            let registry = Arc::clone(&registry);
            loom::thread::spawn(move || {
                // SAFETY: the record is this thread's until it is pooled.
                left.content.with_mut(|content| unsafe { *content = 7 });
                registry.pool(left);
            })
        };
        let adopt = |registry: &Registry<Record>| {
            let adopted = registry.adopt();
            if let Some(record) = adopted {
                // SAFETY: adopted, so it is this thread's.
                record.content.with_mut(|content| unsafe {
                    assert_eq!(*content, 7);
                    *content += 1;
                });
            }
            u32::from(adopted.is_some())
        };
        let adopter = {
            let registry = Arc::clone(&registry);
            loom::thread::spawn(move || adopt(&registry))
        };
        let here = adopt(&registry);
        ending.join().expect("the ending thread does not panic");
        let adopted = here + adopter.join().expect("the adopter does not panic");
        let late = u32::from(registry.adopt().is_some());
        assert_eq!(adopted + late, 1);
    });
}
