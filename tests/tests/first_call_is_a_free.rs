//! A thread whose very first operation is a free has to be born on the way down; and so has the only thread of a forked child that never
//! used the allocator before.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use freestone::Freestone;

/// Not registered, so that nothing but what is written here uses it.
static UNDER_TEST: Freestone = Freestone::new();

const SIZES: [usize; 5] = [8, 1024, 5000, 200_000, 5 << 20];

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("a small power of two")
}

/// What a child inherits.
static HERITAGE: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

extern "C" fn frees_all(blocks: *mut c_void) -> *mut c_void {
    // SAFETY: the array that the test passes.
    let blocks = unsafe { &*blocks.cast::<[*mut u8; SIZES.len()]>() };
    for (&block, size) in blocks.iter().zip(SIZES) {
        // SAFETY: a live block of this size, given up here.
        unsafe { UNDER_TEST.dealloc(block, layout(size)) };
    }
    ptr::null_mut()
}

/// A bare thread: nothing of Rust's runtime comes before its first line.
fn in_a_bare_thread(work: extern "C" fn(*mut c_void) -> *mut c_void, argument: *mut c_void) {
    let mut thread = 0;
    // SAFETY: the function and what the argument points to outlive the thread, which is joined below.
    assert_eq!(unsafe { libc::pthread_create(&raw mut thread, ptr::null(), work, argument) }, 0);
    // SAFETY: created above.
    assert_eq!(unsafe { libc::pthread_join(thread, ptr::null_mut()) }, 0);
}

#[test]
fn in_a_thread_and_in_a_process() {
    let child = |work: fn()| {
        // SAFETY: the child only calls what is allowed between fork and exit here: the allocator under test and `_exit`.
        match unsafe { libc::fork() } {
            0 => {
                work();
                // SAFETY: always allowed.
                unsafe { libc::_exit(0) }
            }
            pid => {
                let mut status = 0;
                // SAFETY: our child.
                unsafe { libc::waitpid(pid, &raw mut status, 0) };
                status
            }
        }
    };
    // A free of something that never was ours is the process's first operation: it is told apart from a crash.
    let foreign = child(|| {
        // SAFETY: standard error is not of interest here.
        unsafe { libc::close(2) };
        let mut local = [0_u64; 8];
        // SAFETY: none; the allocator has to notice, at the latest when everything goes back.
        unsafe { UNDER_TEST.dealloc(local.as_mut_ptr().cast(), layout(64)) };
        freestone::control::release_to_os();
    });
    assert!(libc::WIFSIGNALED(foreign));
    assert_eq!(libc::WTERMSIG(foreign), libc::SIGABRT);

    let blocks = SIZES.map(|size| {
        // SAFETY: the size is not zero.
        unsafe { UNDER_TEST.alloc(layout(size)) }
    });
    assert!(blocks.iter().all(|block| !block.is_null()));
    in_a_bare_thread(frees_all, ptr::from_ref(&blocks).cast_mut().cast());
    assert_eq!(freestone::snapshot().live_blocks(), 0);

    // SAFETY: the size is not zero.
    HERITAGE.store(unsafe { UNDER_TEST.alloc(layout(64)) }, Ordering::Relaxed);
    let heir = child(|| {
        // SAFETY: the child's copy of a live block.
        unsafe { UNDER_TEST.dealloc(HERITAGE.load(Ordering::Relaxed), layout(64)) };
        assert_eq!(freestone::snapshot().live_blocks(), 0);
    });
    assert_eq!(heir, 0, "the child's first operation is a free of its parent's block");
}
