//! Stacks that are what they should be, and stacks that are anything else.

use core::ffi::c_void;
use core::ptr;

use super::*;
use crate::chance;

const WORD: usize = size_of::<usize>();
const CODE: usize = 0x5555_5555_0000;

/// The same numbers for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> usize {
        let random;
        (self.0, random) = chance::next(self.0);
        random as usize
    }

    fn below(&mut self, bound: usize) -> usize {
        self.next() % bound
    }
}

impl StackBounds {
    /// All of this is known to be readable.
    fn of(range: Range<usize>) -> Self {
        Self { from: AtomicUsize::new(range.start), top: AtomicUsize::new(range.end) }
    }
}

/// Words that stand for a stack, the youngest first.
struct Synthetic(Vec<usize>);

impl Synthetic {
    /// A chain of so many links, every third word from the second on one; the last one ends it.
    fn chain(links: usize) -> Self {
        let mut words = vec![0; 3 * links + 2];
        let start = words.as_ptr().expose_provenance();
        for link in 0..links {
            let at = 1 + 3 * link;
            words[at] = if link + 1 == links { 0 } else { start + (at + 3) * WORD };
            words[at + 1] = CODE + link + 1;
        }
        Self(words)
    }

    fn address(&self, word: usize) -> usize {
        self.0.as_ptr().addr() + word * WORD
    }

    fn range(&self) -> Range<usize> {
        self.address(0)..self.address(self.0.len())
    }

    fn caller(&self) -> Caller {
        Caller { stack_pointer: self.address(0), frame_pointer: self.address(1), return_address: CODE }
    }

    /// What is found both where all is known to be readable and where nothing is.
    fn capture(&self, caller: Caller, room: usize) -> (Captured, Vec<usize>) {
        let mut frames = vec![0; room];
        let captured = capture(&caller, &mut frames, &StackBounds::of(self.range()));
        let mut again = vec![0; room];
        let bounds = StackBounds::new();
        assert_eq!(capture(&caller, &mut again, &bounds), captured);
        assert_eq!(again, frames);
        assert_eq!(bounds.known(), 0..0, "the heap is no stack");
        frames.truncate(captured.depth);
        (captured, frames)
    }
}

fn codes(count: usize) -> Vec<usize> {
    (0..count).map(|nth| CODE + nth).collect()
}

#[test]
fn a_chain_is_followed_to_its_end() {
    for links in 1..40 {
        let stack = Synthetic::chain(links);
        let (captured, frames) = stack.capture(stack.caller(), 64);
        assert_eq!(captured, Captured { depth: links + 1, is_cut: false, is_failed: false });
        assert_eq!(frames, codes(links + 1));
    }
}

#[test]
fn what_there_is_no_room_for_is_cut_off() {
    let stack = Synthetic::chain(10);
    for room in 1..11 {
        let (captured, frames) = stack.capture(stack.caller(), room);
        assert_eq!(captured, Captured { depth: room, is_cut: true, is_failed: false });
        assert_eq!(frames, codes(room));
    }
    assert_eq!(stack.capture(stack.caller(), 11).0, Captured { depth: 11, is_cut: false, is_failed: false });
    let nothing = capture(&stack.caller(), &mut [], &StackBounds::new());
    assert_eq!(nothing, Captured { depth: 0, is_cut: true, is_failed: false });
}

#[test]
fn where_the_caller_is_unknown_there_is_no_stack() {
    let stack = Synthetic::chain(10);
    let (captured, _) = stack.capture(Caller { return_address: 0, ..stack.caller() }, 64);
    assert_eq!(captured, Captured { depth: 0, is_cut: false, is_failed: true });
}

#[test]
#[cfg(not(feature = "backtrace"))]
fn a_frame_pointer_that_is_none_leaves_the_address_of_the_caller() {
    let stack = Synthetic::chain(10);
    let below = stack.address(0) - WORD;
    let last = stack.address(stack.0.len() - 1);
    for garbage in [0, 1, 8, below, stack.address(1) + 4, stack.address(1) - 1, 1 << 63, !0, !7, !15, (1 << 47) - 16, 1 << 47] {
        let (captured, frames) = stack.capture(Caller { frame_pointer: garbage, ..stack.caller() }, 64);
        assert_eq!(captured, Captured { depth: 1, is_cut: false, is_failed: true }, "{garbage:#x}");
        assert_eq!(frames, [CODE]);
    }
    // Its second word would lie beyond the top.
    let mut frames = [0; 64];
    let caller = Caller { frame_pointer: last, ..stack.caller() };
    assert_eq!(capture(&caller, &mut frames, &StackBounds::of(stack.range())).depth, 1);
}

#[test]
fn a_chain_that_turns_back_ends_there() {
    for back in 0..5 {
        let mut stack = Synthetic::chain(10);
        let to = stack.address(1 + 3 * back);
        // The link before the last one that is to be found.
        stack.0[1 + 3 * 4] = to;
        let (captured, frames) = stack.capture(stack.caller(), 64);
        assert_eq!(captured, Captured { depth: 6, is_cut: false, is_failed: false }, "back to link {back}");
        assert_eq!(frames, codes(6));
    }
}

#[test]
fn addresses_that_cannot_be_code_cut_the_chain() {
    let inside = |stack: &Synthetic| stack.address(20);
    let bad: [&dyn Fn(&Synthetic) -> usize; 5] = [&|_| 1, &|_| CODE_FROM - 1, &|_| CODE_TO, &|_| !0, &inside];
    for (nth, address) in bad.iter().enumerate() {
        let mut stack = Synthetic::chain(10);
        let address = address(&stack);
        stack.0[2 + 3 * 4] = address;
        let mut frames = [0; 64];
        let captured = capture(&stack.caller(), &mut frames, &StackBounds::of(stack.range()));
        if cfg!(target_arch = "aarch64") && nth == 2 {
            continue;
        }
        assert_eq!(captured, Captured { depth: 5, is_cut: true, is_failed: false }, "{address:#x}");
    }
    let mut stack = Synthetic::chain(10);
    stack.0[2 + 3 * 4] = 0;
    assert_eq!(stack.capture(stack.caller(), 64).0, Captured { depth: 5, is_cut: false, is_failed: false }, "so chains end, too");
}

/// Pages of which some can be read, some cannot, and some are not there.
struct Holes {
    start: usize,
    page_bytes: usize,
}

impl Holes {
    const PAGES: usize = 96;

    fn new(random: &mut Random) -> Self {
        let page_bytes = os::page_bytes();
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a mapping that replaces nothing.
        let start = unsafe { libc::mmap(ptr::null_mut(), Self::PAGES * page_bytes, protection, flags, -1, 0) };
        assert_ne!(start, libc::MAP_FAILED);
        let start = start.expose_provenance();
        let mut readable = [true; Self::PAGES];
        for (page, readable) in readable.iter_mut().enumerate() {
            let address = os::pointer(start + page * page_bytes);
            let kind = random.below(16);
            *readable = kind > 1;
            if kind == 0 {
                // SAFETY: a page of the mapping above.
                assert_eq!(unsafe { libc::mprotect(address.cast(), page_bytes, libc::PROT_NONE) }, 0);
            }
            if *readable {
                for word in 0..page_bytes / WORD {
                    // Mostly links upwards, and code; now and then anything.
                    let here = start + page * page_bytes + word * WORD;
                    let content = match random.below(8) {
                        0 => random.next(),
                        1..4 => here + random.below(4 * page_bytes) / WORD * WORD,
                        _ => CODE + random.below(1 << 20),
                    };
                    // SAFETY: a word of a page that is mapped and writable.
                    unsafe { os::pointer(here).cast::<usize>().write(content) };
                }
            }
        }
        // After all is written, because what lies next to a hole has its place for the taking.
        for (page, is_readable) in readable.into_iter().enumerate() {
            if !is_readable && random.below(2) == 0 {
                // SAFETY: a page of the mapping above that nobody uses.
                unsafe { libc::munmap(os::pointer(start + page * page_bytes).cast(), page_bytes) };
            }
        }
        Self { start, page_bytes }
    }

    fn end(&self) -> usize {
        self.start + Self::PAGES * self.page_bytes
    }
}

/// Runs `work` in a child of its own and says how that ended. Nobody else maps anything there, not even into a hole.
fn in_a_child(work: impl FnOnce() + std::panic::UnwindSafe) -> i32 {
    // SAFETY: the child runs only `work`, and ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = i32::from(std::panic::catch_unwind(work).is_err());
        // SAFETY: nothing is to run after it.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: a child of ours, and a place to write to.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    status
}

/// A fault would end the child. That not being able to read is noticed at all is seen by having `is_readable` always say yes.
#[test]
fn no_frame_pointer_leads_to_a_page_that_cannot_be_read() {
    let seed = os::random();
    println!("seed {seed:#x}");
    let status = in_a_child(move || {
        let mut random = Random(seed);
        let mut deepest = 0;
        for _ in 0..20 {
            let holes = Holes::new(&mut random);
            for _ in 0..50_000 {
                deepest = deepest.max(capture_anywhere(&holes, &mut random));
            }
        }
        assert!(deepest > 4, "no chain was followed for more than {deepest} links");
    });
    assert_eq!(status, 0, "the child ended with status {status:#x}");
}

/// With a stack pointer in these pages and a frame pointer that may be anything. Says how deep it came.
fn capture_anywhere(holes: &Holes, random: &mut Random) -> usize {
    let stack_pointer = holes.start + random.below(Holes::PAGES * holes.page_bytes) / 16 * 16;
    let frame_pointer = match random.below(8) {
        0 => random.next(),
        1 => random.next() >> 16,
        2 => holes.end() - random.below(64),
        3 => holes.start + random.below(Holes::PAGES) * holes.page_bytes - random.below(3) * 8,
        _ => stack_pointer + random.below(3 * holes.page_bytes),
    };
    let caller = Caller { stack_pointer, frame_pointer, return_address: CODE };
    let bounds = StackBounds::new();
    let mut frames = [0; 64];
    let captured = capture(&caller, &mut frames, &bounds);
    assert!(captured.depth >= 1);
    assert!(frames[..captured.depth].iter().all(|frame| (CODE_FROM..CODE_TO).contains(frame)));
    let known = bounds.known();
    assert!(known.is_empty() || !known.contains(&stack_pointer), "this is not the stack of this thread");
    captured.depth
}

/// The thread's own stack, where pages once tested are not tested again: garbage leads nowhere else.
#[test]
fn no_frame_pointer_leads_off_the_own_stack() {
    let seed = os::random();
    println!("seed {seed:#x}");
    let mut random = Random(seed);
    let bounds = StackBounds::new();
    let mut words = [0_usize; 512];
    for word in &mut words {
        *word = random.next();
    }
    let here = words.as_mut_ptr().expose_provenance();
    for round in 0..1_000_000_usize {
        let mut frames = [0; 64];
        let frame_pointer = match random.below(4) {
            0 => random.next(),
            1 => here + random.below(1 << 22),
            _ => here + random.below(size_of_val(&words)) / WORD * WORD,
        };
        words[round % 512] = here + random.below(1 << 14) / WORD * WORD;
        core::hint::black_box(&mut words);
        let caller = Caller { stack_pointer: here, frame_pointer, return_address: CODE };
        assert!(capture(&caller, &mut frames, &bounds).depth >= 1);
    }
    let known = bounds.known();
    assert!(known.start <= here, "{known:x?} does not go down to {here:#x}");
    assert!(known.end > here + size_of_val(&words));
}

#[test]
fn a_page_is_readable_or_not() {
    let word = 7_u64;
    assert!(os::is_readable((&raw const word).addr()));
    assert!(os::is_readable(a_page_is_readable_or_not as *const () as usize));
    assert!(!os::is_readable(0));
    assert!(!os::is_readable(8));
    assert!(!os::is_readable(1 << 60));
    assert!(!os::is_readable(!7));
    let untouchable = os::map_untouchable(os::page_bytes()).expect("there is room");
    assert!(!os::is_readable(untouchable));
}

#[test]
fn a_stack_deeper_than_one_capture_tests_is_known_in_the_end() {
    let page_bytes = os::page_bytes();
    let body = move || {
        let anchor = 0_usize;
        let near = (&raw const anchor).expose_provenance() & !15;
        // As if 200 pages were in use: they are there, the stack is larger.
        let stack_pointer = near - 200 * page_bytes;
        let caller = Caller { stack_pointer, frame_pointer: 0, return_address: CODE };
        let bounds = StackBounds::new();
        let mut before = usize::MAX;
        let mut rounds = 0;
        while !bounds.known().contains(&stack_pointer) {
            capture(&caller, &mut [0; 4], &bounds);
            assert!(bounds.known().start < before, "every capture learns something");
            before = bounds.known().start;
            rounds += 1;
        }
        assert!((3..=5).contains(&rounds), "{rounds} captures");
        bounds.forget();
        assert_eq!(bounds.known(), 0..0);
    };
    std::thread::Builder::new().stack_size(400 * page_bytes).spawn(body).expect("a thread").join().expect("it went well");
}

// ---- real stacks -------------------------------------------------------------------------------------------------------

std::thread_local! {
    static BOUNDS: StackBounds = const { StackBounds::new() };
    static CAUGHT: core::cell::RefCell<Option<(Captured, Vec<usize>)>> = const { core::cell::RefCell::new(None) };
}

entry! {
    /// Captures the stack it is called on, and leaves it in `CAUGHT`.
    fn catch(first: usize, second: usize, third: usize, fourth: usize) -> usize => catch_from
}

fn catch_from(first: usize, second: usize, third: usize, fourth: usize, caller: Caller) -> usize {
    let mut frames = [0; 64];
    let captured = BOUNDS.with(|bounds| capture(&caller, &mut frames, bounds));
    CAUGHT.with(|caught| *caught.borrow_mut() = Some((captured, frames[..captured.depth].to_vec())));
    first + 10 * second + 100 * third + 1000 * fourth
}

entry! { fn with_one(first: usize) -> usize => with_one_from }
entry! { fn with_two(first: usize, second: &[usize; 2]) -> usize => with_two_from }
entry! { unsafe fn with_three(first: usize, second: usize, third: *const usize) -> usize => with_three_from }
entry! { fn without_result(into: &AtomicUsize) => without_result_from }

fn with_one_from(first: usize, caller: Caller) -> usize {
    assert!((CODE_FROM..CODE_TO).contains(&caller.return_address));
    first
}

fn with_two_from(first: usize, second: &[usize; 2], caller: Caller) -> usize {
    assert!((CODE_FROM..CODE_TO).contains(&caller.return_address));
    first + 10 * second[1]
}

unsafe fn with_three_from(first: usize, second: usize, third: *const usize, caller: Caller) -> usize {
    assert!((CODE_FROM..CODE_TO).contains(&caller.return_address));
    // SAFETY: the test passes one that can be read.
    first + 10 * second + 100 * unsafe { *third }
}

fn without_result_from(into: &AtomicUsize, caller: Caller) {
    into.store(caller.return_address, Ordering::Relaxed);
}

#[test]
fn arguments_and_results_pass_through() {
    assert_eq!(with_one(1), 1);
    assert_eq!(with_two(1, &[0, 2]), 21);
    let three = 3;
    // SAFETY: the place can be read.
    assert_eq!(unsafe { with_three(1, 2, &raw const three) }, 321);
    assert_eq!(catch(1, 2, 3, 4), 4321);
    let into = AtomicUsize::new(0);
    without_result(&into);
    assert!((CODE_FROM..CODE_TO).contains(&into.load(Ordering::Relaxed)));
}

cfg_select! {
    target_arch = "x86_64" => {
        /// Makes so many frames, one above the other, and calls `callee` in the last.
        #[unsafe(naked)]
        extern "C" fn descend(frames: usize, callee: extern "C" fn(usize, usize, usize, usize) -> usize) -> usize {
            core::arch::naked_asm!(
                "push rbp",
                "mov rbp, rsp",
                "dec rdi",
                "jz 2f",
                "call {again}",
                "pop rbp",
                "ret",
                "2:",
                "call rsi",
                "pop rbp",
                "ret",
                again = sym descend,
            )
        }
    }
    target_arch = "aarch64" => {
        /// Makes so many frames, one above the other, and calls `callee` in the last.
        #[unsafe(naked)]
        extern "C" fn descend(frames: usize, callee: extern "C" fn(usize, usize, usize, usize) -> usize) -> usize {
            core::arch::naked_asm!(
                "stp x29, x30, [sp, -16]!",
                "mov x29, sp",
                "subs x0, x0, 1",
                "b.eq 2f",
                "bl {again}",
                "ldp x29, x30, [sp], 16",
                "ret",
                "2:",
                "blr x1",
                "ldp x29, x30, [sp], 16",
                "ret",
                again = sym descend,
            )
        }
    }
}

fn caught() -> (Captured, Vec<usize>) {
    CAUGHT.with(|caught| caught.borrow_mut().take()).expect("something was caught")
}

/// `frames` calls of `descend`: one address behind the call of the callee, then one address again and again, then whoever called.
fn check_descent(frames: usize, caught: &[usize]) {
    let start = descend as *const () as usize;
    let is_inside = |address: usize| (start..start + 64).contains(&address);
    assert!(is_inside(caught[0]), "{caught:x?}");
    assert!(caught[1..frames].iter().all(|&address| address == caught[1] && is_inside(address)), "{caught:x?}");
    assert_ne!(caught[0], caught[1]);
    assert!(!is_inside(caught[frames]), "{caught:x?}");
}

#[test]
fn a_real_stack_is_followed() {
    for frames in [2, 3, 10, 30, 60] {
        descend(frames, catch);
        let (captured, addresses) = caught();
        assert!(captured.depth > frames);
        check_descent(frames, &addresses);
    }
    descend(100, catch);
    let (captured, addresses) = caught();
    assert_eq!(captured, Captured { depth: 64, is_cut: true, is_failed: false });
    check_descent(63, &[&addresses[..63], &[0]].concat());
    assert!(BOUNDS.with(|bounds| bounds.known().contains(&(&raw const addresses).addr())));
}

/// Calls `callee` as code without frame pointers does that uses the register for something else. Unwind tables know what it does.
#[unsafe(naked)]
#[cfg(target_arch = "x86_64")]
extern "C" fn call_without_frame(garbage: usize, callee: extern "C" fn(usize, usize, usize, usize) -> usize) -> usize {
    core::arch::naked_asm!(
        ".cfi_startproc",
        "push rbp",
        ".cfi_def_cfa_offset 16",
        ".cfi_offset rbp, -16",
        "mov rbp, rdi",
        "call rsi",
        "pop rbp",
        ".cfi_def_cfa_offset 8",
        "ret",
        ".cfi_endproc",
    )
}

#[test]
#[cfg(target_arch = "x86_64")]
fn code_without_frame_pointers_shows_its_caller_or_is_unwound_by_tables() {
    let start = call_without_frame as *const () as usize;
    for garbage in [0, 1, start, 1 << 63] {
        call_without_frame(garbage, catch);
        let (captured, addresses) = caught();
        assert!((start..start + 16).contains(&addresses[0]));
        if cfg!(feature = "backtrace") {
            assert!(captured.depth > 5, "down to where the thread began: {addresses:x?}");
            assert_eq!(captured, Captured { depth: addresses.len(), is_cut: false, is_failed: false });
            assert!(addresses[1..].iter().all(|address| !(start..start + 16).contains(address)));
        } else {
            assert_eq!(captured, Captured { depth: 1, is_cut: false, is_failed: true });
        }
    }
}

extern "C" fn on_signal(_: i32) {
    descend(20, catch);
}

#[test]
fn on_the_stack_of_a_signal_handler_nothing_is_remembered() {
    const BYTES: usize = 64 << 10;
    let mut memory = vec![0_u8; BYTES];
    let stack = libc::stack_t { ss_sp: memory.as_mut_ptr().cast::<c_void>(), ss_flags: 0, ss_size: BYTES };
    let mut before = stack;
    // SAFETY: memory that lives until the stack from before is put back.
    assert_eq!(unsafe { libc::sigaltstack(&raw const stack, &raw mut before) }, 0);
    // SAFETY: all zero is a value of it.
    let mut action: libc::sigaction = unsafe { core::mem::zeroed() };
    action.sa_sigaction = on_signal as *const () as usize;
    action.sa_flags = libc::SA_ONSTACK;
    // SAFETY: a handler that stays, for a signal that nobody else here uses.
    assert_eq!(unsafe { libc::sigaction(libc::SIGURG, &raw const action, ptr::null_mut()) }, 0);
    for known_before in [false, true] {
        if known_before {
            descend(2, catch);
            caught();
        }
        let known = BOUNDS.with(StackBounds::known);
        assert_eq!(known.is_empty(), !known_before);
        // SAFETY: to the calling thread, which has a handler for it.
        unsafe { libc::raise(libc::SIGURG) };
        let (captured, addresses) = caught();
        assert!(captured.depth > 20);
        check_descent(20, &addresses);
        assert_eq!(BOUNDS.with(StackBounds::known), known);
    }
    // SAFETY: as it was.
    unsafe { libc::sigaltstack(&raw const before, ptr::null_mut()) };
}

#[test]
#[ignore = "a measurement"]
fn what_a_capture_costs() {
    for frames in [1, 8, 30, 60] {
        static FRAMES: AtomicUsize = AtomicUsize::new(0);
        FRAMES.store(frames, Ordering::Relaxed);
        entry! { fn measure(a: usize, b: usize, c: usize, d: usize) -> usize => measure_from }
        fn measure_from(_: usize, _: usize, _: usize, _: usize, caller: Caller) -> usize {
            const ROUNDS: u32 = 100_000;
            let bounds = StackBounds::new();
            let mut frames = [0; 64];
            let mut best = [f64::MAX; 2];
            for _ in 0..20 {
                for (way, best) in best.iter_mut().enumerate() {
                    let rounds = if way == 0 { ROUNDS } else { ROUNDS / 50 };
                    let begin = std::time::Instant::now();
                    for _ in 0..rounds {
                        if way == 1 {
                            bounds.forget();
                        }
                        core::hint::black_box(capture(core::hint::black_box(&caller), &mut frames, &bounds));
                    }
                    *best = best.min(begin.elapsed().as_secs_f64() * 1e9 / f64::from(rounds));
                }
            }
            let depth = capture(&caller, &mut frames, &bounds).depth;
            println!("{depth} frames: {:.1} ns with known bounds, {:.0} ns with unknown ones", best[0], best[1]);
            0
        }
        descend(FRAMES.load(Ordering::Relaxed), measure);
    }
}
