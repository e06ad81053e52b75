//! Floor 1. Linux. System calls only; what they mean is written in `os`.

use core::ffi::CStr;
use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use super::MapError;

/// Unmapped → Clean, at exactly this address, or nothing happens.
///
/// Kernels before 4.17 do not know `MAP_FIXED_NOREPLACE` and take the address as a wish: a different answer is given back.
pub(crate) fn map_at(address: usize, bytes: usize) -> Result<(), MapError> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    let wish = ptr::without_provenance_mut(address);
    // SAFETY: an anonymous mapping that replaces nothing (`MAP_FIXED_NOREPLACE`) cannot harm existing memory.
    let got = unsafe { libc::mmap(wish, bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if got == libc::MAP_FAILED {
        return Err(match errno() {
            libc::ENOMEM | libc::EAGAIN => MapError::OutOfMemory,
            _ => MapError::Occupied,
        });
    }
    if got.addr() != address {
        // SAFETY: the mapping was made above and nobody knows of it yet.
        unsafe { libc::munmap(got, bytes) };
        return Err(MapError::Occupied);
    }
    got.expose_provenance();
    Ok(())
}

/// Unmapped → Clean, wherever the system likes.
pub(crate) fn map_anywhere(bytes: usize) -> Option<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: an anonymous mapping at an address of the kernel's choice replaces nothing.
    let got = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if got == libc::MAP_FAILED {
        return None;
    }
    got.expose_provenance();
    NonNull::new(got.cast())
}

/// Clean or Dirty → Unmapped. `false`: the kernel refused (it has to split a mapping and may not), nothing changed.
///
/// # Safety
///
/// - The range is ours and nobody uses it or will.
pub(crate) unsafe fn unmap(address: usize, bytes: usize) -> bool {
    // SAFETY: handed on to the caller.
    unsafe { libc::munmap(super::pointer(address).cast(), bytes) == 0 }
}

/// Dirty → Clean. `false`: the memory is still there, with its content.
///
/// # Safety
///
/// - The range is ours, mapped, whole kernel pages, and its content is of no use to anybody.
pub(crate) unsafe fn purge(address: usize, bytes: usize) -> bool {
    // SAFETY: handed on to the caller.
    unsafe { libc::madvise(super::pointer(address).cast(), bytes, libc::MADV_DONTNEED) == 0 }
}

/// Asks for 2 MiB pages at the next first touch. `false`: the kernel has none; harmless.
pub(crate) fn use_huge_pages(address: usize, bytes: usize) -> bool {
    // SAFETY: this advice changes how memory is backed, not what it holds.
    unsafe { libc::madvise(super::pointer(address).cast(), bytes, libc::MADV_HUGEPAGE) == 0 }
}

/// Asks for small pages only, whatever the system's default. `false`: the kernel has no others; harmless.
pub(crate) fn use_small_pages(address: usize, bytes: usize) -> bool {
    // SAFETY: this advice changes how memory is backed, not what it holds.
    unsafe { libc::madvise(super::pointer(address).cast(), bytes, libc::MADV_NOHUGEPAGE) == 0 }
}

/// Clean → Dirty: has the kernel put memory behind these addresses now, as a first touch would; what they hold stays. `false`: this kernel
/// cannot (before 5.14), or there is no memory.
pub(crate) fn populate(address: usize, bytes: usize) -> bool {
    // SAFETY: this advice changes how memory is backed, not what it holds.
    unsafe { libc::madvise(super::pointer(address).cast(), bytes, libc::MADV_POPULATE_WRITE) == 0 }
}

/// Moves the pages of one mapping to the start of another without copying. The old range becomes Unmapped, the rest of
/// the new one stays Clean. `false`: the source is as it was, but whether the target is still mapped nobody can say: most kernels unmap it
/// before they look at the source.
///
/// # Safety
///
/// - Both ranges are ours, each one mapping; nobody uses the target, and the caller alone uses the source.
pub(crate) unsafe fn move_mapping(from: usize, from_bytes: usize, to: usize, to_bytes: usize) -> bool {
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let target = super::pointer(to).cast::<c_void>();
    // SAFETY: handed on to the caller.
    let got = unsafe { libc::mremap(super::pointer(from).cast(), from_bytes, to_bytes, flags, target) };
    got == target
}

/// The kernel's page, in bytes: 4096 on most machines, 16 or 64 KiB on some.
pub(crate) fn page_bytes() -> usize {
    static PAGE_BYTES: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: the value is a constant of the system; whoever reads zero asks again.
    let known = PAGE_BYTES.load(Ordering::Relaxed);
    if known != 0 {
        return known;
    }
    // SAFETY: reads the auxiliary vector.
    let asked = unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize;
    let bytes = if asked.is_power_of_two() { asked } else { 4096 };
    PAGE_BYTES.store(bytes, Ordering::Relaxed);
    bytes
}

/// A clock that never goes back, in nanoseconds. About 20 ns.
pub(crate) fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A number that differs from process to process (the kernel's sixteen random bytes, stirred).
pub(crate) fn random() -> u64 {
    // SAFETY: reads the auxiliary vector.
    let bytes = unsafe { libc::getauxval(libc::AT_RANDOM) } as usize;
    let seed = if bytes == 0 {
        now_ns()
    } else {
        // SAFETY: the kernel puts sixteen bytes there before a process starts. They may be unaligned.
        unsafe { super::pointer(bytes).cast::<u64>().read_unaligned() }
    };
    // splitmix64: the canary of the stack protector comes from the same bytes and must not be shown.
    let mut mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Is address space itself scarce here (`RLIMIT_AS`)? Then what is free is better unmapped than kept clean.
pub(crate) fn address_space_is_limited() -> bool {
    let mut limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: `limit` is a valid place to write to.
    let answered = unsafe { libc::getrlimit(libc::RLIMIT_AS, &raw mut limit) } == 0;
    answered && limit.rlim_cur != libc::RLIM_INFINITY
}

/// Sleeps while `word` is `expected`; may wake without reason.
pub(crate) fn wait(word: &AtomicU32, expected: u32) {
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel reads the word, nothing else.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, expected, ptr::null::<libc::timespec>()) };
}

/// Wakes one thread that sleeps on `word`.
pub(crate) fn wake_one(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel uses the address as a name only.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, 1) };
}

/// A number that no other living thread has: the address of its `errno`. Needs no thread-local of ours, cannot fail, and stays
/// the same in the child of a fork.
#[inline]
pub(crate) fn thread_token() -> usize {
    // SAFETY: always allowed.
    unsafe { libc::__errno_location() }.addr()
}

/// The processor the calling thread runs on, now or a moment ago. A few nanoseconds.
#[inline]
pub(crate) fn processor() -> usize {
    // SAFETY: always allowed.
    let number = unsafe { libc::sched_getcpu() };
    // A kernel that does not know answers −1.
    usize::try_from(number).unwrap_or(0)
}

/// The kernel's number of the calling thread.
pub(crate) fn thread_id() -> u32 {
    // SAFETY: always allowed.
    unsafe { libc::syscall(libc::SYS_gettid) as u32 }
}

/// Has the thread with this number ended? `false` also when its number was given out again.
pub(crate) fn thread_is_gone(thread: u32) -> bool {
    // SAFETY: always allowed.
    let process = unsafe { libc::getpid() };
    // SAFETY: signal 0 is a question, not a signal.
    let answer = unsafe { libc::syscall(libc::SYS_tgkill, process, thread, 0) };
    answer != 0 && errno() == libc::ESRCH
}

/// Says a line on standard error as well as it can: partial writes are continued, errors end it.
pub(crate) fn write_error(mut line: &[u8]) {
    while !line.is_empty() {
        // SAFETY: `line` is readable.
        let written = unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
        if written <= 0 {
            if written < 0 && errno() == libc::EINTR {
                continue;
            }
            return;
        }
        line = &line[written as usize..];
    }
}

/// Ends the process by `SIGABRT`, even when the program blocks, ignores or handles that signal.
pub(crate) fn abort() -> ! {
    // SAFETY: plain system calls with valid arguments on the way out; nothing of ours is used after them.
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one act: die")]
    unsafe {
        let mut action: libc::sigaction = core::mem::zeroed();
        action.sa_sigaction = libc::SIG_DFL;
        libc::sigaction(libc::SIGABRT, &raw const action, ptr::null_mut());
        let mut set: libc::sigset_t = core::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGABRT);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut());
        libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::syscall(libc::SYS_gettid), libc::SIGABRT);
        libc::_exit(128 + libc::SIGABRT)
    }
}

/// The value of an environment variable, or nothing in a process that runs with somebody else's rights (`AT_SECURE`).
pub(crate) fn environment(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: reads the auxiliary vector.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return None;
    }
    // SAFETY: `name` ends with a zero byte. A program that changes its environment at the same time is already in breach of
    // `setenv`'s contract; this runs at the process's first allocation, usually before `main`.
    let value = unsafe { libc::getenv(name.as_ptr()) };
    if value.is_null() {
        return None;
    }
    // SAFETY: `getenv` returns a string that ends with a zero byte and stays where it is unless the program replaces it.
    Some(unsafe { CStr::from_ptr(value) }.to_bytes())
}

/// A key whose `destructor` runs in every thread that set a value for it, each time the thread goes through its destructors
/// with a value set.
pub(crate) fn exit_key(destructor: unsafe extern "C" fn(*mut c_void)) -> Option<u32> {
    let mut key = 0;
    // SAFETY: `key` is a valid place to write to, `destructor` is a function that stays.
    let created = unsafe { libc::pthread_key_create(&raw mut key, Some(destructor)) } == 0;
    created.then_some(key)
}

/// Sets the calling thread's value: not null, or the destructor will not run. glibc may allocate here (from its own heap).
pub(crate) fn set_exit_value(key: u32, value: *const c_void) -> bool {
    // SAFETY: `key` came from `exit_key`.
    unsafe { libc::pthread_setspecific(key, value) == 0 }
}

/// Runs these around every `fork` from now on.
pub(crate) fn at_fork(
    prepare: unsafe extern "C" fn(),
    parent: unsafe extern "C" fn(),
    child: unsafe extern "C" fn(),
) -> bool {
    // SAFETY: three functions that stay.
    unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) == 0 }
}

fn errno() -> i32 {
    // SAFETY: always allowed, and the place is readable by its thread.
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "the place exists to be read")]
    unsafe {
        *libc::__errno_location()
    }
}

/// Keeps `errno` for the program: a slow path holds one of these, and whatever failed inside is not seen outside.
#[derive(Debug)]
pub(crate) struct KeepErrno(i32);

impl KeepErrno {
    pub(crate) fn new() -> Self {
        Self(errno())
    }
}

impl Drop for KeepErrno {
    fn drop(&mut self) {
        // SAFETY: always allowed, and the place is writable by its thread.
        #[expect(clippy::multiple_unsafe_ops_per_block, reason = "the place exists to be written")]
        unsafe {
            *libc::__errno_location() = self.0;
        }
    }
}
