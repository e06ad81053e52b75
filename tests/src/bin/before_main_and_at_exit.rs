//! Uses the allocator before `main`, in destructors of the main thread's thread-locals, and in `atexit` handlers that register more of themselves.
//! Says what ran in which order; `tests/before_main_and_at_exit.rs` compares.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::RefCell;
use std::collections::HashMap;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// A line, without the allocator and without the standard library's locks.
fn say(line: &str) {
    // SAFETY: the line is readable.
    unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
}

/// Some of everything: small, medium and large blocks, growing, shrinking, content checked.
fn use_everything(seed: usize) {
    let mut blocks: Vec<Vec<u8>> = (0..60).map(|nth| vec![nth as u8; 1 + (seed * 7919 + nth * 104_729) % 300_000]).collect();
    for (nth, block) in blocks.iter_mut().enumerate() {
        block.resize(block.len() * 2, nth as u8);
        block.truncate(block.len() / 3);
        block.shrink_to_fit();
        assert!(block.iter().all(|&byte| usize::from(byte) == nth));
    }
    let huge = vec![0_u8; 3 << 20];
    assert!(huge.iter().all(|&byte| byte == 0));
    let map: HashMap<usize, String> = (0..100).map(|key| (key, key.to_string())).collect();
    assert_eq!(map[&42], "42");
}

/// A block from before `main` that lives until after it.
static EARLY: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());
const EARLY_LAYOUT: Layout = Layout::new::<[u64; 40]>();

extern "C" fn before_main() {
    // SAFETY: the size is not zero.
    let early = unsafe { GLOBAL.alloc(EARLY_LAYOUT) };
    assert!(!early.is_null());
    // SAFETY: a live block of this size.
    unsafe { early.write_bytes(0xea, EARLY_LAYOUT.size()) };
    EARLY.store(early, Ordering::Relaxed);
    use_everything(1);
    say("before main\n");
}

/// The loader calls what stands in this section before it calls `main`, and before the standard library knows of the process.
#[used]
// SAFETY: a function of the type that the loader expects.
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = before_main;

static DEPTH: AtomicU32 = AtomicU32::new(0);

fn register() {
    // SAFETY: a function that stays.
    assert_eq!(unsafe { libc::atexit(at_exit) }, 0);
}

extern "C" fn at_exit() {
    let depth = DEPTH.fetch_add(1, Ordering::Relaxed);
    use_everything(10 + depth as usize);
    say(["at exit\n", "at exit, registered at exit\n", "at exit, registered there\n"][depth as usize]);
    if depth < 2 {
        register();
        return;
    }
    let early = EARLY.swap(ptr::null_mut(), Ordering::Relaxed);
    // SAFETY: a live block of this size, written before `main`.
    let content = unsafe { std::slice::from_raw_parts(early, EARLY_LAYOUT.size()) };
    assert!(content.iter().all(|&byte| byte == 0xea));
    // SAFETY: a live block of this layout, and its last use.
    unsafe { GLOBAL.dealloc(early, EARLY_LAYOUT) };
    freestone::control::release_to_os();
    let now = freestone::snapshot();
    assert!(now.frees <= now.allocations);
    say(if now.approximate { "approximate\n" } else { "balanced\n" });
}

/// Allocates and frees when it is dropped, and has another thread-local made at that moment.
struct Local(Vec<u8>);

impl Drop for Local {
    fn drop(&mut self) {
        use_everything(self.0.len());
        LATE.with_borrow_mut(|late| late.push(Late(vec![1; 5_000])));
        say("thread-local dropped\n");
    }
}

struct Late(Vec<u8>);

impl Drop for Late {
    fn drop(&mut self) {
        use_everything(self.0.len());
        say("late thread-local dropped\n");
    }
}

thread_local! {
    static LOCAL: RefCell<Vec<Local>> = const { RefCell::new(Vec::new()) };
    static LATE: RefCell<Vec<Late>> = const { RefCell::new(Vec::new()) };
}

fn main() {
    assert!(!EARLY.load(Ordering::Relaxed).is_null(), "nothing ran before main");
    register();
    LOCAL.with_borrow_mut(|local| local.push(Local(vec![1; 77])));
    use_everything(2);
    let thread = std::thread::spawn(|| use_everything(3));
    thread.join().expect("the thread does not panic");
    say("main\n");
}
