//! Uses up an address space of 64 MiB with blocks of every kind, one after the other, and lives on. `tests/out_of_memory.rs` runs it.
//!
//! Argument: who sets the limit, `outside` or `itself`. Prints how far each kind came.

use std::alloc::{Layout, alloc, alloc_zeroed, dealloc, realloc};
use std::ffi::c_void;
use std::hint::black_box;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use freestone::Freestone;
use freestone_tests::limit_address_space;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

const MIB: usize = 1 << 20;
const LIMIT_BYTES: usize = 64 * MIB;

/// Name, layout, and how much of the limit blocks of this kind must at least reach. The rest is the program itself, the stack of a thread
/// that C's library keeps after its end (8 MiB), and what does not make up a whole step or a whole block.
const KINDS: [(&str, Layout, usize); 6] = [
    ("small", layout(64, 8), 40 * MIB),
    ("medium", layout(4 << 10, 16), 40 * MIB),
    ("whole", layout(100 << 10, 4096), 36 * MIB),
    ("run", layout(MIB, 8), 40 * MIB),
    ("aligned run", layout(600 << 10, 64 << 10), 36 * MIB),
    ("huge", layout(8 * MIB, 8), 24 * MIB),
];

const fn layout(size: usize, align: usize) -> Layout {
    match Layout::from_size_align(size, align) {
        Ok(layout) => layout,
        Err(_) => panic!("a power of two"),
    }
}

/// Blocks of one layout, linked through their first words, so that the test itself needs no memory.
struct Chain {
    layout: Layout,
    newest: *mut Link,
    count: usize,
}

struct Link {
    older: *mut Link,
    number: usize,
}

impl Chain {
    fn new(layout: Layout) -> Self {
        Self { layout, newest: ptr::null_mut(), count: 0 }
    }

    fn bytes(&self) -> usize {
        self.count * self.layout.size()
    }

    /// What stands behind the link of a block.
    fn rest(&self, link: *mut Link) -> (*mut u8, usize) {
        (link.wrapping_add(1).cast(), self.layout.size() - size_of::<Link>())
    }

    /// One more block, written to its end. `false`: no memory.
    fn grow(&mut self) -> bool {
        let block = if self.count.is_multiple_of(3) {
            // SAFETY: the size is not zero.
            unsafe { alloc_zeroed(self.layout) }
        } else {
            // SAFETY: as above.
            unsafe { alloc(self.layout) }
        };
        if block.is_null() {
            return false;
        }
        assert!(block.addr().is_multiple_of(self.layout.align()));
        let link = block.cast::<Link>();
        let (rest, length) = self.rest(link);
        // SAFETY: a new block of this size.
        unsafe { rest.write_bytes(self.count as u8, length) };
        // SAFETY: as above, and aligned to 8 at least.
        unsafe { link.write(Link { older: self.newest, number: self.count }) };
        self.newest = link;
        self.count += 1;
        true
    }

    /// Checks the newest block and gives it back.
    fn shrink(&mut self) {
        self.count -= 1;
        // SAFETY: `grow` wrote it.
        let Link { older, number } = unsafe { self.newest.read() };
        assert_eq!(number, self.count, "a link changed under its owner");
        let (rest, length) = self.rest(self.newest);
        // SAFETY: `grow` wrote these bytes.
        let content = unsafe { std::slice::from_raw_parts(rest, length) };
        assert!(content.iter().all(|&byte| byte == self.count as u8), "block {number} changed under its owner");
        // SAFETY: a live block of this layout, forgotten below.
        unsafe { dealloc(self.newest.cast(), self.layout) };
        self.newest = older;
    }

    /// Takes what there is; says how many bytes.
    fn take_all(&mut self) -> usize {
        while self.grow() {}
        self.bytes()
    }

    fn free_all(&mut self) {
        while self.count > 0 {
            self.shrink();
        }
    }
}

/// Memory is out, as `chain` found: every other request is answered too, by a block or by null.
fn ask_for_everything(chain: &Chain) {
    for (_, layout, _) in KINDS {
        let mut more = Chain::new(layout);
        // Smaller ones may still fit between the others; they are given back.
        for _ in 0..100 {
            if !more.grow() {
                break;
            }
        }
        more.free_all();
    }
    let one = Layout::new::<u64>();
    // SAFETY: the size is not zero.
    let small = black_box(unsafe { alloc(one) });
    if !small.is_null() {
        // SAFETY: a live block of this layout.
        unsafe { dealloc(small, one) };
    }
    // A block that cannot grow stays what it is: `shrink` will look at it.
    // SAFETY: a live block of this layout; the new size is not zero.
    let grown = unsafe { realloc(chain.newest.cast(), chain.layout, 2 * LIMIT_BYTES) };
    assert!(grown.is_null(), "a block of twice the limit");
    // A compiler may leave out an allocation that nobody looks at and say it was not null: so somebody looks.
    // SAFETY: the size is not zero.
    assert!(black_box(unsafe { alloc(layout(2 * LIMIT_BYTES, 8)) }).is_null());
    // SAFETY: the size is not zero.
    assert!(black_box(unsafe { alloc_zeroed(layout(isize::MAX as usize - 4095, 4096)) }).is_null());
    assert!(Vec::<u8>::new().try_reserve(2 * LIMIT_BYTES).is_err());
    assert!(Vec::<u64>::new().try_reserve_exact(usize::MAX / 16).is_err());
}

/// A thread that waits to be told to allocate for the first time in its life: then there is no memory, not even for its record.
static NEWBORN: AtomicUsize = AtomicUsize::new(WAITS);
const WAITS: usize = 0;
const ALLOCATES: usize = 1;
const DONE: usize = 2;
const ENDS: usize = 3;

fn wait_for(state: usize) {
    while NEWBORN.load(Ordering::Acquire) != state {
        std::thread::yield_now();
    }
}

extern "C" fn newborn(_: *mut c_void) -> *mut c_void {
    let layout = layout(200, 8);
    wait_for(ALLOCATES);
    // SAFETY: the size is not zero.
    let block = black_box(unsafe { alloc(layout) });
    NEWBORN.store(DONE, Ordering::Release);
    wait_for(ENDS);
    // By now there is memory again, and the thread gets some whether it has a record or not.
    // SAFETY: the size is not zero.
    let second = black_box(unsafe { alloc(layout) });
    assert!(!second.is_null());
    // SAFETY: a live block of this layout.
    unsafe { dealloc(second, layout) };
    if !block.is_null() {
        // SAFETY: as above.
        unsafe { dealloc(block, layout) };
    }
    ptr::null_mut()
}

#[expect(clippy::large_stack_arrays, reason = "that is what it is for")]
extern "C" fn uses_its_stack(_: *mut c_void) -> *mut c_void {
    let numbers: Vec<u64> = (0..1_000).collect();
    let mut stack = [0_u8; 256 << 10];
    black_box(&mut stack).fill(1);
    ptr::without_provenance_mut(numbers.iter().sum::<u64>() as usize)
}

fn start(work: extern "C" fn(*mut c_void) -> *mut c_void) -> libc::pthread_t {
    let mut thread = 0;
    // SAFETY: a function that stays. No attributes: the stack is as large as the system's default, usually 8 MiB.
    let started = unsafe { libc::pthread_create(&raw mut thread, ptr::null(), work, ptr::null_mut()) };
    assert_eq!(started, 0, "pthread_create found no room");
    thread
}

fn join(thread: libc::pthread_t) -> *mut c_void {
    let mut result = ptr::null_mut();
    // SAFETY: a thread of ours that nobody has joined.
    assert_eq!(unsafe { libc::pthread_join(thread, &raw mut result) }, 0);
    result
}

/// The allocator lives within the limit and leaves room to others: nothing is reserved that is not used.
fn others_find_room(most: usize) {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    for bytes in [64 << 10, 4 * MIB, most] {
        // SAFETY: a new mapping replaces nothing.
        let mapping = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        assert_ne!(mapping, libc::MAP_FAILED, "mmap of {bytes} bytes found no room");
        // SAFETY: mapped above, and nobody uses it.
        assert_eq!(unsafe { libc::munmap(mapping, bytes) }, 0);
    }
    assert_eq!(join(start(uses_its_stack)).addr(), 499_500);
}

fn main() {
    let mut kept: Vec<Vec<u8>> = Vec::new();
    match std::env::args().nth(1).as_deref() {
        Some("outside") => {}
        Some("itself") => {
            // The heap is there already, with some of each kind, and has to live with less from now on.
            kept = (0..300).map(|nth| vec![nth as u8; 10 + nth * 37]).collect();
            kept.push(vec![7; 3 * MIB]);
            kept.push(vec![8; 150 << 10]);
            drop(vec![9_u8; 20 * MIB]);
            limit_address_space(LIMIT_BYTES);
        }
        _ => panic!("who sets the limit: outside or itself?"),
    }
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a place to write to.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) }, 0);
    assert_eq!(limit.rlim_cur, LIMIT_BYTES as u64);
    // What was freed before the limit came is still warm, and less is left for others.
    let held = freestone::snapshot().bytes.reserved();
    assert!(held <= if kept.is_empty() { 3 * MIB } else { 32 * MIB }, "{held} bytes are mapped before anything is asked for");
    others_find_room(if kept.is_empty() { 40 * MIB } else { 20 * MIB });
    let thread = start(newborn);
    let already: usize = kept.iter().map(Vec::len).sum();
    for round in 0..2 {
        for (name, layout, least) in KINDS {
            let mut chain = Chain::new(layout);
            let reached = chain.take_all();
            if NEWBORN.load(Ordering::Acquire) == WAITS {
                NEWBORN.store(ALLOCATES, Ordering::Release);
                wait_for(DONE);
            }
            ask_for_everything(&chain);
            chain.free_all();
            println!("{name}: {} KiB in round {round}", reached >> 10);
            assert!(reached + already >= least, "{name}: {reached} of {LIMIT_BYTES} bytes");
        }
    }
    NEWBORN.store(ENDS, Ordering::Release);
    join(thread);
    assert!(kept.iter().take(300).enumerate().all(|(nth, block)| block.iter().all(|&byte| byte == nth as u8)));
    drop(kept);
    // As if nothing had been.
    let sums: Vec<usize> = (0..100_usize).map(|nth| vec![nth; 1 + nth * 40].iter().sum()).collect();
    assert!(sums.iter().enumerate().all(|(nth, &sum)| sum == nth * (1 + nth * 40)));
    println!("alive");
}
