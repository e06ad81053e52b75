//! A thread with the smallest stack that there may be forks. What is done in the child to make its accounts close must not need more than that.

use std::ffi::c_void;
use std::ptr;

use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// How the child ended.
extern "C" fn forks(_: *mut c_void) -> *mut c_void {
    // SAFETY: that a child may be made here is what is tested.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: always allowed.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: our child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    ptr::without_provenance_mut(status as usize)
}

#[test]
fn a_child_needs_no_more_stack_than_its_parent() {
    let stack_bytes = libc::PTHREAD_STACK_MIN;
    // SAFETY: numbers, and null.
    let mut attributes: libc::pthread_attr_t = unsafe { std::mem::zeroed() };
    // SAFETY: a place made for them.
    assert_eq!(unsafe { libc::pthread_attr_init(&raw mut attributes) }, 0);
    // SAFETY: initialised above.
    assert_eq!(unsafe { libc::pthread_attr_setstacksize(&raw mut attributes, stack_bytes) }, 0);
    let mut thread = 0;
    // SAFETY: `forks` is what a thread may begin with.
    assert_eq!(unsafe { libc::pthread_create(&raw mut thread, &raw const attributes, forks, ptr::null_mut()) }, 0);
    let mut status = ptr::null_mut();
    // SAFETY: a thread of ours.
    assert_eq!(unsafe { libc::pthread_join(thread, &raw mut status) }, 0);
    assert_eq!(status.addr(), 0, "the wait status of the child; {} is a fault", libc::SIGSEGV);
}
