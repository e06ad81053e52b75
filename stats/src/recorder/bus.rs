//! A store into a mapped file fails by a signal, SIGBUS: when somebody cut the file short, the disk cannot take or give a page, or a file
//! system that copies on write has no room for the copy. It must not cost the process its life.
//!
//! So a handler looks whether the address is the recording's. Then it puts anonymous memory in its place, and the store goes on to nowhere;
//! the recorder sees that afterwards, and ends. All other faults go to whoever was there before: the standard library, a crash reporter, or the
//! kernel, which ends the process as if we were not there.
//!
//! A handler that the program installs later and that does not pass on what is not its own takes this protection away, and nothing else. The
//! roads not taken are in `docs/decisions/0022-flight-recorder.md`.

use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Once, OnceLock};

use libc::{c_int, c_void, siginfo_t};

/// The recording's memory: where it begins, how long it is. Written before the first store into it, and after the last.
static START: AtomicUsize = AtomicUsize::new(0);
static BYTES: AtomicUsize = AtomicUsize::new(0);
/// The process that has the memory. A child of `fork` inherits what is above, and has something else there, or nothing.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// The recording's memory was replaced.
static STRUCK: AtomicBool = AtomicBool::new(false);
/// Who was told of such faults before us.
static EARLIER: OnceLock<Earlier> = OnceLock::new();

/// There is one handler, for all recordings that follow each other.
static INSTALLED: Once = Once::new();

struct Earlier(libc::sigaction);

// SAFETY: numbers and the address of a function, which do not belong to a thread.
unsafe impl Send for Earlier {}
// SAFETY: as above; nobody changes them.
unsafe impl Sync for Earlier {}

/// From now on faults in this memory are survived. There is one recording in a process.
pub(super) fn guard(memory: &[u8]) {
    // Relaxed: the handler that matters runs on the thread that stores, after this. Another thread that faults elsewhere finds no range that
    // contains its address, whatever mixture it sees.
    STRUCK.store(false, Ordering::Relaxed);
    PROCESS.store(std::process::id(), Ordering::Relaxed);
    START.store(memory.as_ptr().addr(), Ordering::Relaxed);
    // Release: with what is above. Pairs with the Acquire in `replace`, when another thread writes the farewell.
    BYTES.store(memory.len(), Ordering::Release);
    INSTALLED.call_once(install);
}

/// No longer. Must come before the memory is unmapped: something else may be there next.
pub(super) fn unguard() {
    // Relaxed: whoever stores into the memory has stopped, and the recorder's lock says so.
    BYTES.store(0, Ordering::Relaxed);
}

/// Did a fault happen since `guard`? Then nothing that was written after it is in the file.
pub(super) fn was_struck() -> bool {
    // Relaxed: set on this thread, or under the recorder's lock.
    STRUCK.load(Ordering::Relaxed)
}

fn install() {
    // SAFETY: all zeros is a `sigaction`: the default, no flags, nothing blocked.
    let mut earlier: libc::sigaction = unsafe { mem::zeroed() };
    // Asked before it is replaced, so that there is no moment at which the handler does not know it.
    // SAFETY: the place to write to is valid.
    if unsafe { libc::sigaction(libc::SIGBUS, ptr::null(), &raw mut earlier) } != 0 {
        return;
    }
    let _ = EARLIER.set(Earlier(earlier));
    // SAFETY: as above.
    let mut ours: libc::sigaction = unsafe { mem::zeroed() };
    ours.sa_sigaction = on_fault as *const () as usize;
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_RESTART;
    // SAFETY: the handler has the signature that SA_SIGINFO asks for, and does only what is allowed in one.
    unsafe { libc::sigaction(libc::SIGBUS, &raw const ours, ptr::null_mut()) };
}

/// The handler. Loads, two system calls, and nothing that allocates or locks.
extern "C" fn on_fault(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    // SAFETY: the kernel gives a handler with SA_SIGINFO a valid one.
    let code = unsafe { (*info).si_code };
    // Positive: the kernel's own. A signal that somebody sends has no address.
    if code > 0 {
        // SAFETY: as above.
        let info = unsafe { &*info };
        // SAFETY: for a fault the address is there.
        let address = unsafe { info.si_addr() };
        if replace(address.addr()) {
            return;
        }
    }
    pass_on(signal, code, info, context);
}

/// Is the address the recording's? Then there is other memory now.
fn replace(address: usize) -> bool {
    // Acquire: pairs with the Release in `guard`.
    let bytes = BYTES.load(Ordering::Acquire);
    let start = START.load(Ordering::Relaxed);
    if bytes == 0 || !(start..start + bytes).contains(&address) || PROCESS.load(Ordering::Relaxed) != std::process::id() {
        return false;
    }
    STRUCK.store(true, Ordering::Relaxed);
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    // SAFETY: always succeeds.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: errno is the thread's own.
    let kept = unsafe { errno.read() };
    // SAFETY: the range is the recording's mapping, all of it; who stores there does not care what is there.
    let got = unsafe { libc::mmap(ptr::without_provenance_mut(start), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    // SAFETY: as above.
    unsafe { errno.write(kept) };
    got != libc::MAP_FAILED
}

/// Lets the one who was there before us have it.
fn pass_on(signal: c_int, code: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let (handler, flags) = EARLIER.get().map_or((libc::SIG_DFL, 0), |earlier| (earlier.0.sa_sigaction, earlier.0.sa_flags));
    if handler == libc::SIG_DFL || (handler == libc::SIG_IGN && code > 0) {
        // The instruction is run again, and then nobody stands between it and the kernel. A signal that was sent is sent again.
        // SAFETY: all zeros is the default.
        let default: libc::sigaction = unsafe { mem::zeroed() };
        // SAFETY: a valid one.
        unsafe { libc::sigaction(signal, &raw const default, ptr::null_mut()) };
        if code <= 0 {
            // SAFETY: any signal may be raised.
            unsafe { libc::raise(signal) };
        }
    } else if handler != libc::SIG_IGN && flags & libc::SA_SIGINFO != 0 {
        // SAFETY: who installed it with this flag gave a function of this kind.
        let handler = unsafe { mem::transmute::<usize, extern "C" fn(c_int, *mut siginfo_t, *mut c_void)>(handler) };
        handler(signal, info, context);
    } else if handler != libc::SIG_IGN {
        // SAFETY: without the flag, of this kind.
        let handler = unsafe { mem::transmute::<usize, extern "C" fn(c_int)>(handler) };
        handler(signal);
    }
}
