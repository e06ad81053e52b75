//! Floor 1. Faults: what a thread touched that it may not, told to somebody before the process ends of it.
//!
//! A handler for `SIGSEGV` and `SIGBUS`, in front of whatever was there. It looks at the address and the registers, tells the one who asked, and then has happen
//! what would have happened without it: who handled these signals before is called, with the same arguments, the same signals held back, and on the same
//! stack; where nobody did, the access is repeated and the kernel ends the process. A handler that the program sets later takes the place of this one.
//!
//! Nothing here allocates or takes a lock. The handler runs on the stack that the thread has for signals, which Rust gives to each of its threads; on one that
//! has none, an overflown stack ends the process without a word, as ever. Such stacks are small, of 8 KiB the kernel alone takes 3.4 for what was in registers
//! (AVX-512), and the handler that comes after ours needs some too: so what there is to tell is told on a stack of our own.

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::mem::{self, MaybeUninit};
use core::ptr;
use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

/// What a thread did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// What it touched.
    pub(crate) address: usize,
    pub(crate) access: Access,
    /// Where its code was.
    pub(crate) instruction: usize,
    pub(crate) stack_pointer: usize,
    pub(crate) frame_pointer: usize,
}

/// How it touched it.
#[allow(dead_code, reason = "which of these there are depends on the processor")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
    /// This processor does not say.
    Unknown,
}

/// Who is told.
#[derive(Debug)]
pub(crate) struct Watcher {
    /// Does he know what lies at this address?
    pub(crate) concerns: fn(usize) -> bool,
    pub(crate) tell: fn(&Fault),
}

const SIGNALS: [c_int; 2] = [libc::SIGSEGV, libc::SIGBUS];

/// Who handled each signal before.
struct Before {
    handler: AtomicUsize,
    flags: AtomicUsize,
}

static BEFORE: [Before; 2] =
    [const { Before { handler: AtomicUsize::new(libc::SIG_DFL), flags: AtomicUsize::new(0) } }; SIGNALS.len()];
static WATCHER: AtomicPtr<Watcher> = AtomicPtr::new(ptr::null_mut());

/// What was told so far.
static TOLD: AtomicU32 = AtomicU32::new(NOTHING);
const NOTHING: u32 = 0;
/// A thread is at it.
const TELLING: u32 = 1;
/// Of one fault. The process probably ends of it; and if somebody has it go on, it need not be told for ever.
const ENOUGH: u32 = 2;

/// Has `watcher` told of the first fault that concerns him. `false`: the system does not let us.
pub(crate) fn watch_faults(watcher: &'static Watcher) -> bool {
    // Release, here and below: before a handler that reads it. Pairs with the Acquires there.
    let is_first =
        WATCHER.compare_exchange(ptr::null_mut(), ptr::from_ref(watcher).cast_mut(), Ordering::AcqRel, Ordering::Acquire);
    // Only once: who came in front of this handler meanwhile may call it when he is done, and must not be called by it.
    if is_first.is_err() {
        return true;
    }
    SIGNALS.into_iter().zip(&BEFORE).fold(true, |all, (signal, before)| stand_before(signal, before) && all)
}

/// Does somebody handle them?
pub(crate) fn are_faults_handled() -> bool {
    let mut now = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: asks only; a place to write to.
    let answered = unsafe { libc::sigaction(libc::SIGSEGV, ptr::null(), now.as_mut_ptr()) } == 0;
    // SAFETY: written by the call above.
    answered && unsafe { now.assume_init() }.sa_sigaction != libc::SIG_DFL
}

fn stand_before(signal: c_int, before: &Before) -> bool {
    let mut old = MaybeUninit::<libc::sigaction>::uninit();
    // SAFETY: asks only; a place to write to.
    if unsafe { libc::sigaction(signal, ptr::null(), old.as_mut_ptr()) } != 0 {
        return false;
    }
    // SAFETY: written by the call above.
    let old = unsafe { old.assume_init() };
    before.handler.store(old.sa_sigaction, Ordering::Release);
    before.flags.store(old.sa_flags as usize, Ordering::Release);
    let is_somebody = !matches!(old.sa_sigaction, libc::SIG_DFL | libc::SIG_IGN);
    // As the one before would be called: which signals wait, and on which stack, is the kernel's to arrange.
    let kept = old.sa_flags & (libc::SA_ONSTACK | libc::SA_NODEFER | libc::SA_RESTART);
    let mut new = old;
    new.sa_sigaction = handler as *const () as usize;
    new.sa_flags = libc::SA_SIGINFO | if is_somebody { kept } else { libc::SA_ONSTACK };
    // SAFETY: a handler that stays; the set of signals was written by the call above.
    unsafe { libc::sigaction(signal, &raw const new, ptr::null_mut()) == 0 }
}

extern "C" fn handler(signal: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let errno = super::KeepErrno::new();
    // SAFETY: the kernel's to read, while the handler runs.
    let code = unsafe { (*info).si_code };
    // What others sent is no fault.
    if code > 0 {
        // SAFETY: as above.
        tell(&unsafe { fault(info, context) });
    }
    drop(errno);
    let Some(before) = SIGNALS.iter().position(|&ours| ours == signal).map(|nth| &BEFORE[nth]) else { return };
    let flags = before.flags.load(Ordering::Acquire) as c_int;
    match before.handler.load(Ordering::Acquire) {
        // One that was sent may be ignored; a fault cannot, and the kernel would end the process.
        libc::SIG_IGN if code <= 0 => {}
        libc::SIG_DFL | libc::SIG_IGN => end_by_default(signal, code),
        theirs => {
            if flags & libc::SA_RESETHAND != 0 {
                before.handler.store(libc::SIG_DFL, Ordering::Release);
            }
            // SAFETY: what was registered as a handler. One that takes the number only does not look at what else is in registers.
            let theirs: extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = unsafe { mem::transmute(theirs) };
            theirs(signal, info, context);
        }
    }
}

fn tell(fault: &Fault) {
    let watcher = WATCHER.load(Ordering::Acquire);
    if watcher.is_null() {
        return;
    }
    // SAFETY: only ever set from such a reference.
    let watcher = unsafe { &*watcher };
    if !(watcher.concerns)(fault.address) {
        return;
    }
    match TOLD.compare_exchange(NOTHING, TELLING, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => {
            let telling = Telling { watcher, fault };
            call_on(OWN_STACK.0.get().addr() + OWN_STACK_BYTES, (&raw const telling).expose_provenance(), tell_now);
            TOLD.store(ENOUGH, Ordering::Release);
        }
        // Another thread's turn ends the process, but not before all is said; and if it does not come to an end, then this one's.
        Err(TELLING) => super::wait_for(&TOLD, TELLING, 1_000_000_000),
        Err(_) => {}
    }
}

/// What there is to do on the stack of our own.
struct Telling<'a> {
    watcher: &'static Watcher,
    fault: &'a Fault,
}

extern "C" fn tell_now(telling: usize) {
    // SAFETY: `tell` hands it over, and waits.
    let telling = unsafe { &*super::pointer(telling).cast::<Telling<'_>>() };
    (telling.watcher.tell)(telling.fault);
}

const OWN_STACK_BYTES: usize = 32 << 10;

/// Takes no memory before it is used. Who sets `TOLD` to "telling" has it.
#[repr(align(16))]
struct OwnStack(UnsafeCell<[u8; OWN_STACK_BYTES]>);

// SAFETY: one thread uses it, once; see above.
unsafe impl Sync for OwnStack {}

static OWN_STACK: OwnStack = OwnStack(UnsafeCell::new([0; OWN_STACK_BYTES]));

/// Calls a function on another stack, which ends at `top`.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
extern "C" fn call_on(top: usize, argument: usize, callee: extern "C" fn(usize)) {
    core::arch::naked_asm!(
        "push rbp",
        "mov rbp, rsp",
        "mov rsp, rdi",
        "mov rdi, rsi",
        "call rdx",
        "mov rsp, rbp",
        "pop rbp",
        "ret",
    )
}

/// Calls a function on another stack, which ends at `top`.
#[cfg(target_arch = "aarch64")]
#[unsafe(naked)]
extern "C" fn call_on(top: usize, argument: usize, callee: extern "C" fn(usize)) {
    core::arch::naked_asm!(
        "stp x29, x30, [sp, -16]!",
        "mov x29, sp",
        "mov sp, x0",
        "mov x0, x1",
        "blr x2",
        "mov sp, x29",
        "ldp x29, x30, [sp], 16",
        "ret",
    )
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
extern "C" fn call_on(_: usize, argument: usize, callee: extern "C" fn(usize)) {
    callee(argument);
}

/// The process ends as it would have without us.
fn end_by_default(signal: c_int, code: c_int) {
    // SAFETY: all zero is a value of it: the default, and no flags.
    let default: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: the default for a signal that exists.
    unsafe { libc::sigaction(signal, &raw const default, ptr::null_mut()) };
    // A fault happens again when the handler returns; what somebody sent has to be sent again, and comes then.
    if code <= 0 {
        // SAFETY: to the calling thread.
        unsafe { libc::syscall(libc::SYS_tgkill, super::process_id(), super::thread_id(), signal) };
    }
}

/// What the kernel says of a fault.
///
/// # Safety
///
/// - Both are what the kernel handed to a handler, for a fault.
unsafe fn fault(info: *mut libc::siginfo_t, context: *mut c_void) -> Fault {
    /// The bit for an access that writes, of what x86-64 says of a fault.
    #[cfg(target_arch = "x86_64")]
    const WRITES: usize = 2;
    // SAFETY: handed on to the caller.
    let info = unsafe { &*info };
    // SAFETY: a fault has an address.
    let address = unsafe { info.si_addr() }.addr();
    // SAFETY: handed on to the caller.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    cfg_select! {
        target_arch = "x86_64" => {
            let register = |number: c_int| context.uc_mcontext.gregs[number as usize] as usize;
            Fault {
                address,
                access: if register(libc::REG_ERR) & WRITES != 0 { Access::Write } else { Access::Read },
                instruction: register(libc::REG_RIP),
                stack_pointer: register(libc::REG_RSP),
                frame_pointer: register(libc::REG_RBP),
            }
        }
        target_arch = "aarch64" => Fault {
            address,
            access: Access::Unknown,
            instruction: context.uc_mcontext.pc as usize,
            stack_pointer: context.uc_mcontext.sp as usize,
            frame_pointer: context.uc_mcontext.regs[29] as usize,
        },
        _ => {
            let _ = context;
            Fault { address, access: Access::Unknown, instruction: 0, stack_pointer: 0, frame_pointer: 0 }
        }
    }
}
