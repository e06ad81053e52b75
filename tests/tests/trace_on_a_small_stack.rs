//! A thread with the smallest stack that there may be attends to the heap, and writes the trace, since there is no background thread that would: what is on its
//! stack fits beside what a thread needs anyway.

use std::alloc::{Layout, alloc, dealloc};
use std::ffi::c_void;
use std::hint::black_box;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use freestone::{Background, Freestone, Trace, control};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

static DONE: AtomicBool = AtomicBool::new(false);

extern "C" fn allocates(_: *mut c_void) -> *mut c_void {
    let mut nth = 0_usize;
    while !DONE.load(Ordering::Relaxed) {
        nth += 1;
        let layout = Layout::from_size_align(64 + nth % 64 * 600, 8).expect("a small power of two");
        // SAFETY: of some bytes.
        let block = black_box(unsafe { alloc(layout) });
        // SAFETY: allocated above.
        unsafe { dealloc(block, layout) };
    }
    ptr::null_mut()
}

#[test]
fn lines_need_little_stack() {
    control::set_background(Background::Off);
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    control::set_trace_fd(u32::try_from(writer.as_raw_fd()).expect("it is open"));
    control::set_trace_interval(Duration::from_millis(100));
    control::set_trace(Trace::Anomalies);
    // SAFETY: numbers, and null.
    let mut attributes: libc::pthread_attr_t = unsafe { std::mem::zeroed() };
    // SAFETY: a place made for them.
    assert_eq!(unsafe { libc::pthread_attr_init(&raw mut attributes) }, 0);
    // SAFETY: initialised above.
    assert_eq!(unsafe { libc::pthread_attr_setstacksize(&raw mut attributes, libc::PTHREAD_STACK_MIN) }, 0);
    let mut thread = 0;
    // SAFETY: `allocates` is what a thread may begin with.
    assert_eq!(unsafe { libc::pthread_create(&raw mut thread, &raw const attributes, allocates, ptr::null_mut()) }, 0);
    // This thread waits, so the other one writes.
    let mut told = Vec::new();
    while !["kind=start", "kind=interval"].iter().all(|kind| String::from_utf8_lossy(&told).contains(kind)) {
        let mut bytes = [0; 4096];
        let count = reader.read(&mut bytes).expect("it can be read");
        told.extend_from_slice(&bytes[..count]);
    }
    control::set_trace(Trace::Off);
    DONE.store(true, Ordering::Relaxed);
    // SAFETY: a thread of ours.
    assert_eq!(unsafe { libc::pthread_join(thread, ptr::null_mut()) }, 0);
}
