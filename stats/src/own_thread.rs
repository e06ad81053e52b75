//! Threads of our own: nobody knows of them, so no signal of the program may come to them. Programs that wait for signals on one thread block them on
//! all others, and would miss what comes here.

use std::mem::MaybeUninit;
use std::ptr;

/// Signals that a thread brings upon itself: to block those only hides what happened.
const OWN: [libc::c_int; 7] =
    [libc::SIGBUS, libc::SIGSEGV, libc::SIGILL, libc::SIGFPE, libc::SIGABRT, libc::SIGTRAP, libc::SIGSYS];

/// Runs `spawn` with the program's signals blocked: threads are born with what is blocked where they are started.
pub(crate) fn without_signals<T>(spawn: impl FnOnce() -> T) -> T {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: a place to write to.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    for signal in OWN {
        // SAFETY: filled by the call before.
        unsafe { libc::sigdelset(all.as_mut_ptr(), signal) };
    }
    // SAFETY: filled above, and a place to write to.
    let blocked = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) } == 0;
    let result = spawn();
    if blocked {
        // SAFETY: written by the call that blocked them.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut()) };
    }
    result
}
