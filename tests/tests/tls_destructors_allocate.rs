//! A thread's end is not one moment: destructors of Rust's thread-locals run, then up to four rounds of destructors of thread-specific data,
//! ours among them. All of them may allocate and free, also those that run after ours, and also in a thread that never did before.

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

static KEYS: [AtomicU32; 2] = [AtomicU32::new(0), AtomicU32::new(0)];
static ROUNDS: AtomicUsize = AtomicUsize::new(0);

fn use_everything(seed: usize) {
    let most = |nth: usize| if nth.is_multiple_of(10) { 100_000 } else { 5_000 };
    let blocks: Vec<Vec<u8>> = (0..50).map(|nth| vec![nth as u8; 1 + (seed * 7919 + nth * 104_729) % most(nth)]).collect();
    assert!(blocks.iter().enumerate().all(|(nth, block)| block.iter().all(|&byte| usize::from(byte) == nth)));
}

/// Sets its key again every time, so that it runs in every round that the system grants.
unsafe extern "C" fn every_round(key: *mut c_void) {
    use_everything(ROUNDS.fetch_add(1, Ordering::Relaxed));
    let nth = key.addr() - 1;
    // SAFETY: the key exists.
    unsafe { libc::pthread_setspecific(KEYS[nth].load(Ordering::Relaxed), key) };
}

struct AllocatesWhenDropped(Vec<u8>);

impl Drop for AllocatesWhenDropped {
    fn drop(&mut self) {
        use_everything(self.0.len());
    }
}

thread_local! {
    static LOCAL: RefCell<Vec<AllocatesWhenDropped>> = const { RefCell::new(Vec::new()) };
}

extern "C" fn only_sets_keys(_: *mut c_void) -> *mut c_void {
    for (nth, key) in KEYS.iter().enumerate() {
        // SAFETY: the key exists.
        unsafe { libc::pthread_setspecific(key.load(Ordering::Relaxed), ptr::without_provenance(nth + 1)) };
    }
    ptr::null_mut()
}

fn new_key(nth: usize) {
    let mut key = 0;
    // SAFETY: a place to write to and a function that stays.
    assert_eq!(unsafe { libc::pthread_key_create(&raw mut key, Some(every_round)) }, 0);
    KEYS[nth].store(key, Ordering::Relaxed);
}

#[test]
fn in_every_round_and_order() {
    // One key is older than the allocator's own (which it makes at the first operation of the process, long past: so this is as old as a
    // program's can be), one is made after many others.
    new_key(0);
    let _others: Vec<libc::pthread_key_t> = (0..40)
        .map(|_| {
            let mut key = 0;
            // SAFETY: a place to write to.
            unsafe { libc::pthread_key_create(&raw mut key, None) };
            key
        })
        .collect();
    new_key(1);

    let settle = || freestone::snapshot();
    let mut before = settle();
    for round in 0..600 {
        if round == 100 {
            before = settle();
        }
        // A thread of Rust, whose locals are dropped first.
        std::thread::spawn(move || {
            LOCAL.with(|local| local.borrow_mut().extend((0..3).map(|nth| AllocatesWhenDropped(vec![0; nth * round]))));
            only_sets_keys(ptr::null_mut());
        })
        .join()
        .expect("the thread does not panic");
        // A bare thread that touches the allocator for the first time in a destructor.
        let mut thread = 0;
        // SAFETY: a function that stays.
        assert_eq!(unsafe { libc::pthread_create(&raw mut thread, ptr::null(), only_sets_keys, ptr::null_mut()) }, 0);
        // SAFETY: created above.
        assert_eq!(unsafe { libc::pthread_join(thread, ptr::null_mut()) }, 0);
    }
    assert_eq!(ROUNDS.load(Ordering::Relaxed), 600 * 2 * 2 * 4, "two threads a round, two keys, four rounds of destructors");
    let after = settle();
    assert!(
        after.live_blocks() <= before.live_blocks() + 10,
        "{} live blocks became {}",
        before.live_blocks(),
        after.live_blocks()
    );
    // Records of threads that were born in the last round, which nobody tells us the end of, are found and used again.
    assert!(after.thread_records <= 40, "{} records", after.thread_records);
}
