//! Floor 1. Linux. System calls only; what they mean is written in `os`.

use core::cell::UnsafeCell;
use core::ffi::CStr;
use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use super::MapError;

/// Unmapped → Clean, at exactly this address, or nothing happens.
///
/// Kernels before 4.17 do not know `MAP_FIXED_NOREPLACE` and take the address as a wish: a different answer is given back.
pub(crate) fn map_at(address: usize, bytes: usize) -> Result<(), MapError> {
    map_fixed(address, bytes, libc::PROT_READ | libc::PROT_WRITE)
}

fn map_fixed(address: usize, bytes: usize, protection: i32) -> Result<(), MapError> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED_NOREPLACE;
    let wish = ptr::without_provenance_mut(address);
    // SAFETY: an anonymous mapping that replaces nothing (`MAP_FIXED_NOREPLACE`) cannot harm existing memory.
    let got = unsafe { libc::mmap(wish, bytes, protection, flags, -1, 0) };
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

/// Unmapped → Clean, behind a mapping that ends there: `from_bytes` of it become `to_bytes`. One mapping if the kernel agrees, because only one can
/// be moved; what has been moved once does not join with what is mapped behind it.
///
/// # Safety
///
/// - The range is ours and mapped.
pub(crate) unsafe fn extend_mapping(address: usize, from_bytes: usize, to_bytes: usize) -> Result<(), MapError> {
    // SAFETY: handed on to the caller; without flags it grows where it is, into what nobody has, or not at all.
    let got = unsafe { libc::mremap(super::pointer(address).cast(), from_bytes, to_bytes, 0) };
    if got != libc::MAP_FAILED {
        return Ok(());
    }
    map_at(address + from_bytes, to_bytes - from_bytes)
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

/// Address space that nobody can read or write, for good.
#[cfg(any(freestone_c, test))]
pub(crate) fn map_untouchable(bytes: usize) -> Option<usize> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: an anonymous mapping at an address of the kernel's choice replaces nothing.
    let got = unsafe { libc::mmap(ptr::null_mut(), bytes, libc::PROT_NONE, flags, -1, 0) };
    (got != libc::MAP_FAILED).then(|| got.expose_provenance())
}

/// Unmapped → Closed, at exactly this address, or nothing happens: takes address space, and no memory.
pub(crate) fn reserve_at(address: usize, bytes: usize) -> Result<(), MapError> {
    map_fixed(address, bytes, libc::PROT_NONE)
}

/// Closed → Clean. `false`: the kernel refused (it has to split a mapping and may not), nothing changed.
///
/// # Safety
///
/// - The range is ours and mapped, whole kernel pages.
pub(crate) unsafe fn open(address: usize, bytes: usize) -> bool {
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: handed on to the caller.
    unsafe { libc::mprotect(super::pointer(address).cast(), bytes, protection) == 0 }
}

/// Clean or Dirty → Closed: whoever touches it faults. The memory goes back. `false`: the kernel refused; perhaps it can be touched still, and what it holds
/// is of no use any more.
///
/// # Safety
///
/// - The range is ours, mapped, whole kernel pages, and its content is of no use to anybody.
pub(crate) unsafe fn close(address: usize, bytes: usize) -> bool {
    let range = super::pointer(address).cast::<c_void>();
    // First the access, so that nobody finds zeros there.
    // SAFETY: handed on to the caller.
    let is_closed = unsafe { libc::mprotect(range, bytes, libc::PROT_NONE) == 0 };
    // SAFETY: as above.
    let is_purged = unsafe { libc::madvise(range, bytes, libc::MADV_DONTNEED) == 0 };
    is_closed && is_purged
}

/// Is something mapped at this address?
pub(crate) fn is_mapped(address: usize) -> bool {
    let mut resident = 0_u8;
    let page = super::pointer(address & !(page_bytes() - 1));
    // SAFETY: asks about one page, whatever is there; the answer fits.
    unsafe { libc::mincore(page.cast(), 1, &raw mut resident) == 0 }
}

/// Can the word at this address be read? It should be aligned, so that it lies on one page. Asks the kernel, which reads it and answers that it could not,
/// by a call that does nothing else: it sets the signals of a thread in a way that does not exist. Changes `errno`.
pub(crate) fn is_readable(address: usize) -> bool {
    /// What the kernel takes a set of signals to be.
    const SIGNAL_SET_BYTES: usize = 8;
    const NO_SUCH_WAY: i32 = -1;
    let set = ptr::without_provenance::<c_void>(address & !(SIGNAL_SET_BYTES - 1));
    // SAFETY: the kernel reads the set, if it can, and then finds that it is not to do anything.
    let answer = unsafe { libc::syscall(libc::SYS_rt_sigprocmask, NO_SUCH_WAY, set, ptr::null::<c_void>(), SIGNAL_SET_BYTES) };
    // A null is no set at all.
    !set.is_null() && answer != 0 && errno() == libc::EINVAL
}

/// The top of the calling thread's own stack, if the stack pointer is close below it: what is in use lies below that address. `None`: this is another
/// stack, of a signal handler or a fiber, or nobody can say.
pub(crate) fn stack_top(stack_pointer: usize) -> Option<usize> {
    let is_close = |top: &usize| (1..=super::STACK_BYTES_MAX).contains(&top.wrapping_sub(stack_pointer));
    // The C libraries put what belongs to a thread at the upper end of its stack, if they made the stack.
    if let Some(top) = Some(thread_pointer()).filter(is_close) {
        return Some(top);
    }
    // The kernel puts the name of the program at the upper end of the stack on which it starts it. After a fork that stack may be another thread's, which is
    // gone: its place is not used again, but it is not the caller's stack either.
    // SAFETY: reads the auxiliary vector.
    let name = unsafe { libc::getauxval(libc::AT_EXECFN) } as usize;
    Some(name).filter(is_close).filter(|_| thread_id() == process_id())
}

/// Where the C library has what belongs to the calling thread. 0: nobody knows.
fn thread_pointer() -> usize {
    cfg_select! {
        target_arch = "x86_64" => {
            let address: usize;
            // SAFETY: the first word there is its own address, as the convention for thread-local variables demands.
            unsafe { core::arch::asm!("mov {}, fs:0", out(reg) address, options(nostack, preserves_flags, readonly, pure)) };
            address
        }
        target_arch = "aarch64" => {
            let address: usize;
            // SAFETY: reads a register.
            unsafe { core::arch::asm!("mrs {}, tpidr_el0", out(reg) address, options(nostack, preserves_flags, nomem, pure)) };
            address
        }
        _ => 0,
    }
}

/// Does the calling thread run on the stack that it has for signals?
pub(crate) fn is_on_signal_stack() -> bool {
    let mut stack = MaybeUninit::<libc::stack_t>::uninit();
    // SAFETY: a place to write to; nothing is changed.
    let answered = unsafe { libc::sigaltstack(ptr::null(), stack.as_mut_ptr()) } == 0;
    // SAFETY: written by the call above.
    answered && unsafe { stack.assume_init() }.ss_flags & libc::SS_ONSTACK != 0
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
    /// Not zero, so that it lies among the program's data, of which every process has a page, and not on a page of zeros of its own.
    const UNKNOWN: usize = 1;
    static PAGE_BYTES: AtomicUsize = AtomicUsize::new(UNKNOWN);
    // Relaxed: the value is a constant of the system; whoever finds it unknown asks again.
    let known = PAGE_BYTES.load(Ordering::Relaxed);
    if known != UNKNOWN {
        return known;
    }
    // SAFETY: reads the auxiliary vector.
    let asked = unsafe { libc::getauxval(libc::AT_PAGESZ) } as usize;
    let bytes = if asked.is_power_of_two() { asked } else { 4096 };
    PAGE_BYTES.store(bytes, Ordering::Relaxed);
    bytes
}

/// What the calling thread has used of a processor, in nanoseconds. A system call.
pub(crate) fn thread_cpu_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// A clock that never goes back, in nanoseconds. About 20 ns.
pub(crate) fn now_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// The time of day, in nanoseconds since 1970.
pub(crate) fn wall_clock_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// A counter that runs at some constant speed, in a few nanoseconds; where there is none, the clock.
#[inline]
pub(crate) fn cycles() -> u64 {
    cfg_select! {
        target_arch = "x86_64" => {
            // SAFETY: every such processor has the instruction.
            unsafe { core::arch::x86_64::_rdtsc() }
        }
        _ => now_ns(),
    }
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

/// As [`wait`], for so long at most.
pub(crate) fn wait_for(word: &AtomicU32, expected: u32, ns: u64) {
    let time = libc::timespec { tv_sec: (ns / 1_000_000_000) as i64, tv_nsec: (ns % 1_000_000_000) as i64 };
    let operation = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel reads the word and the time, nothing else.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, expected, &raw const time) };
}

/// Wakes one thread that sleeps on `word`.
pub(crate) fn wake_one(word: &AtomicU32) {
    let operation = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: the kernel uses the address as a name only.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), operation, 1) };
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

/// The kernel's number of the calling process.
pub(crate) fn process_id() -> u32 {
    // SAFETY: always allowed.
    unsafe { libc::getpid() as u32 }
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
        // A raw call: the C library's is a cancellation point, which allocating must not be.
        let written = unsafe { libc::syscall(libc::SYS_write, libc::STDERR_FILENO, line.as_ptr(), line.len()) };
        if written <= 0 {
            if written < 0 && errno() == libc::EINTR {
                continue;
            }
            return;
        }
        line = &line[written as usize..];
    }
}

/// Writes to a descriptor of the program's what it takes at once, in one call, so that lines of several threads do not mix; says how many bytes
/// that was. Never waits for who reads them, and raises no signal when nobody does.
///
/// Whoever else writes there at the same time may fill it between the question and the call, which then waits all the same.
pub(crate) fn write_at_once(descriptor: i32, line: &[u8]) -> usize {
    let mut ready = libc::pollfd { fd: descriptor, events: libc::POLLOUT, revents: 0 };
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // Raw calls: the C library's are cancellation points, which allocating must not be.
    // SAFETY: one descriptor and a time that are readable; no mask.
    let answer = unsafe { libc::syscall(libc::SYS_ppoll, &raw mut ready, 1, &raw const now, ptr::null::<c_void>(), 0) };
    // An error is a descriptor that is closed, or a pipe that nobody reads.
    if answer != 1 || ready.revents != libc::POLLOUT {
        return 0;
    }
    // Who read may have gone since. Then the signal comes to this thread, and is taken from it unseen, unless one was waiting for it before.
    without_signal(libc::SIGPIPE, || {
        loop {
            // SAFETY: `line` is readable.
            let written = unsafe { libc::syscall(libc::SYS_write, descriptor, line.as_ptr(), line.len()) };
            if written >= 0 || errno() != libc::EINTR {
                break usize::try_from(written).unwrap_or(0);
            }
        }
    })
}

/// Runs something of which a signal may come to the calling thread, which then never learns of it.
fn without_signal<R>(signal: i32, work: impl FnOnce() -> R) -> R {
    /// What the kernel takes a set of signals to be.
    const SIGNAL_SET_BYTES: usize = 8;
    let mut one = MaybeUninit::<libc::sigset_t>::uninit();
    let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: plain calls on places made for them, each initialised by the first call that gets it.
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one act: hold the signal back")]
    let was_pending = unsafe {
        libc::sigemptyset(one.as_mut_ptr());
        libc::sigaddset(one.as_mut_ptr(), signal);
        libc::sigemptyset(pending.as_mut_ptr());
        libc::sigpending(pending.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, one.as_ptr(), before.as_mut_ptr());
        libc::sigismember(pending.as_ptr(), signal) == 1
    };
    let result = work();
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the set and the time are readable, and nobody is told what came; then the mask from before, which the call above wrote.
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one act: let signals through again")]
    unsafe {
        let wait =
            || libc::syscall(libc::SYS_rt_sigtimedwait, one.as_ptr(), ptr::null::<c_void>(), &raw const now, SIGNAL_SET_BYTES);
        while !was_pending && wait() < 0 && errno() == libc::EINTR {}
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
    }
    result
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

/// By how much the addresses at which the program is loaded differ from those in its file. Reads what the kernel told the program at its start.
pub(crate) fn load_base() -> usize {
    #[repr(C)]
    struct ProgramHeader {
        kind: u32,
        _flags: u32,
        _offset: u64,
        address: u64,
        _rest: [u64; 4],
    }
    const PT_PHDR: u32 = 6;
    // SAFETY: reads the auxiliary vector.
    let (headers, count) = (unsafe { libc::getauxval(libc::AT_PHDR) } as usize, unsafe { libc::getauxval(libc::AT_PHNUM) });
    if headers == 0 {
        return 0;
    }
    // SAFETY: the kernel says that so many headers are there. They are part of the program's image, which stays.
    let all = unsafe { core::slice::from_raw_parts(super::pointer(headers).cast::<ProgramHeader>(), count as usize) };
    all.iter().find(|header| header.kind == PT_PHDR).map_or(0, |itself| headers.wrapping_sub(itself.address as usize))
}

/// The value of an environment variable, or nothing in a process that runs with somebody else's rights (`AT_SECURE`).
pub(crate) fn environment(name: &CStr) -> Option<&'static [u8]> {
    // SAFETY: reads the auxiliary vector.
    if unsafe { libc::getauxval(libc::AT_SECURE) } != 0 {
        return None;
    }
    // SAFETY: read once; the C library sets it before it runs anything of the program's.
    if unsafe { environ }.is_null() {
        // Relaxed: set by the only thread there is at that time.
        let handed = HANDED.load(Ordering::Relaxed);
        return if handed.is_null() { early_environment(name.to_bytes()) } else { handed_environment(handed, name.to_bytes()) };
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

/// What the loader handed to our constructor, which runs before the C library's own has set `environ`.
static HANDED: AtomicPtr<*const libc::c_char> = AtomicPtr::new(ptr::null_mut());

/// Remembers the environment until the C library does.
#[cfg(freestone_c)]
pub(crate) fn hand_environment(handed: *mut *const libc::c_char) {
    HANDED.store(handed, Ordering::Relaxed);
}

#[cold]
fn handed_environment(mut entry: *const *const libc::c_char, name: &[u8]) -> Option<&'static [u8]> {
    loop {
        // SAFETY: an array that ends with a null.
        let text = unsafe { entry.read() };
        if text.is_null() {
            return None;
        }
        // SAFETY: of strings that end with a zero byte, on the stack of the process.
        let text = unsafe { CStr::from_ptr(text) }.to_bytes();
        if let Some(value) = text.strip_prefix(name).and_then(|rest| rest.strip_prefix(b"=")) {
            return Some(value);
        }
        // SAFETY: not the last one.
        entry = unsafe { entry.add(1) };
    }
}

unsafe extern "C" {
    /// Null until the C library is initialised. The dynamic linker calls `ifunc` resolvers, which may allocate, before.
    static environ: *const *const libc::c_char;
}

/// As [`environment`], from what the kernel remembers: as much as fits.
#[cold]
fn early_environment(name: &[u8]) -> Option<&'static [u8]> {
    struct Text(UnsafeCell<[u8; 32 << 10]>);
    // SAFETY: used while the process has one thread, before the C library is there.
    unsafe impl Sync for Text {}
    static TEXT: Text = Text(UnsafeCell::new([0; 32 << 10]));
    // SAFETY: as above; the same content is written every time.
    let text = read_file(c"/proc/self/environ", unsafe { &mut *TEXT.0.get() })?;
    text.split(|&byte| byte == 0).find_map(|entry| entry.strip_prefix(name)?.strip_prefix(b"="))
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

/// The calling thread's value, or null.
pub(crate) fn exit_value(key: u32) -> *mut c_void {
    // SAFETY: `key` came from `exit_key`.
    unsafe { libc::pthread_getspecific(key) }
}

/// Runs these around every `fork` from now on.
pub(crate) fn at_fork(prepare: unsafe extern "C" fn(), parent: unsafe extern "C" fn(), child: unsafe extern "C" fn()) -> bool {
    // SAFETY: three functions that stay.
    unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) == 0 }
}

/// Starts a thread that runs `entry` and is nobody's to wait for. It sees no signals: handlers of the program run elsewhere. `false`: there is
/// no room for one. glibc may allocate here (from its own heap).
pub(crate) fn spawn(entry: extern "C" fn(*mut c_void) -> *mut c_void) -> bool {
    // Of a stack only what is touched takes memory. glibc puts thread-local variables there, which may be many: they get the most of it, and if
    // that is too little, more; where address space is scarce, what such a thread needs with few of them. Asking glibc how many there are
    // would take the lock of the dynamic loader, which in the child of a fork may be nobody's to give back.
    [1 << 20, 16 << 20, 256 << 10].into_iter().any(|stack_bytes| spawn_with(entry, stack_bytes))
}

fn spawn_with(entry: extern "C" fn(*mut c_void) -> *mut c_void, stack_bytes: usize) -> bool {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let mut before = MaybeUninit::<libc::sigset_t>::uninit();
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    let mut thread = MaybeUninit::<libc::pthread_t>::uninit();
    // SAFETY: plain calls on places made for them, each initialised by the first call that gets it. Not the raw system call for the mask:
    // glibc has signals of its own that must stay open, or `setuid` would wait for ever.
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "one act: start a thread")]
    unsafe {
        if libc::pthread_attr_init(attributes.as_mut_ptr()) != 0 {
            return false;
        }
        libc::pthread_attr_setdetachstate(attributes.as_mut_ptr(), libc::PTHREAD_CREATE_DETACHED);
        libc::pthread_attr_setstacksize(attributes.as_mut_ptr(), stack_bytes);
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr());
        let error = libc::pthread_create(thread.as_mut_ptr(), attributes.as_ptr(), entry, ptr::null_mut());
        libc::pthread_sigmask(libc::SIG_SETMASK, before.as_ptr(), ptr::null_mut());
        libc::pthread_attr_destroy(attributes.as_mut_ptr());
        error == 0
    }
}

/// Gives the calling thread a name. One without works as well.
pub(crate) fn name_thread(name: &CStr) {
    // SAFETY: a name that ends with a zero byte.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// Does the process have a second thread? `true` where nobody can say.
pub(crate) fn has_threads() -> bool {
    let mut text = [0; 1024];
    let Some(text) = read_file(c"/proc/self/stat", &mut text) else { return true };
    // Behind the name, which may hold anything but ends with the last parenthesis: the 18th of what follows.
    let behind_name = text.iter().rposition(|&byte| byte == b')').unwrap_or(0);
    let mut fields = text[behind_name..].split(|&byte| byte == b' ');
    fields.nth(18) != Some(b"1")
}

/// Reads the beginning of a file; says how much there was. `None`: it cannot be read.
pub(crate) fn read_file<'a>(path: &CStr, into: &'a mut [u8]) -> Option<&'a [u8]> {
    // Raw calls: the C library's are cancellation points, which allocating must not be.
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    // SAFETY: the path ends with a zero byte.
    let file = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags) };
    if file < 0 {
        return None;
    }
    let mut length = 0;
    while length < into.len() {
        // SAFETY: the rest of `into` is writable.
        let got = unsafe { libc::syscall(libc::SYS_read, file, into[length..].as_mut_ptr(), into.len() - length) };
        if got < 0 && errno() == libc::EINTR {
            continue;
        }
        if got <= 0 {
            break;
        }
        length += got as usize;
    }
    // SAFETY: opened above.
    unsafe { libc::syscall(libc::SYS_close, file) };
    Some(&into[..length])
}

/// The machine's memory in bytes; 0 if nobody can say.
pub(crate) fn memory_bytes() -> usize {
    // SAFETY: always allowed.
    let pages = unsafe { libc::sysconf(libc::_SC_PHYS_PAGES) };
    usize::try_from(pages).unwrap_or(0).saturating_mul(page_bytes())
}

const MEMBARRIER_PRIVATE_EXPEDITED: i32 = 1 << 3;
const MEMBARRIER_REGISTER_PRIVATE_EXPEDITED: i32 = 1 << 4;

/// Asks for the right to [`barrier`]. `false`: this kernel (before 4.14) or its sandbox has none.
pub(crate) fn allow_barriers() -> bool {
    // SAFETY: changes nothing that a program could see.
    unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0 }
}

/// Has every thread of the process go through a full memory barrier before this returns. A few microseconds. `false`: it did not happen.
pub(crate) fn barrier() -> bool {
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_PRIVATE_EXPEDITED, 0, 0) == 0 }
}

/// Ends the process in an orderly way: what was registered for the end still runs.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: the caller is in no room of ours, so that what runs at the end may allocate.
    unsafe { libc::exit(code) }
}

fn errno() -> i32 {
    // SAFETY: always allowed, and the place is readable by its thread.
    #[expect(clippy::multiple_unsafe_ops_per_block, reason = "the place exists to be read")]
    unsafe {
        *libc::__errno_location()
    }
}

/// Tells a C program why something failed.
#[cfg(freestone_c)]
pub(crate) fn set_errno(errno: i32) {
    drop(KeepErrno(errno));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn raise(signal: i32) {
        // SAFETY: to the calling thread, which holds it back.
        unsafe { libc::syscall(libc::SYS_tgkill, process_id(), thread_id(), signal) };
    }

    fn is_pending(signal: i32) -> bool {
        let mut pending = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: a place made for it.
        unsafe { libc::sigpending(pending.as_mut_ptr()) };
        // SAFETY: written by the call above.
        unsafe { libc::sigismember(pending.as_ptr(), signal) == 1 }
    }

    /// Both signals end a process that has done nothing about them.
    #[test]
    fn a_signal_that_was_raised_meanwhile_is_gone_and_one_that_waited_stays() {
        without_signal(libc::SIGUSR1, || raise(libc::SIGUSR1));
        assert!(!is_pending(libc::SIGUSR1));
        without_signal(libc::SIGUSR2, || {
            raise(libc::SIGUSR2);
            without_signal(libc::SIGUSR2, || {});
            assert!(is_pending(libc::SIGUSR2), "it is not ours to take");
            without_signal(libc::SIGUSR2, || raise(libc::SIGUSR2));
            assert!(is_pending(libc::SIGUSR2));
        });
        assert!(!is_pending(libc::SIGUSR2));
    }

    #[test]
    fn a_pipe_that_nobody_reads_takes_nothing() {
        let mut ends = [0; 2];
        // SAFETY: a place for two descriptors.
        assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
        assert_eq!(write_at_once(ends[1], b"line"), 4);
        // SAFETY: descriptors of ours.
        unsafe { libc::close(ends[0]) };
        assert_eq!(write_at_once(ends[1], b"line"), 0);
        // SAFETY: as above.
        unsafe { libc::close(ends[1]) };
        assert_eq!(write_at_once(-1, b"line"), 0);
    }
}
