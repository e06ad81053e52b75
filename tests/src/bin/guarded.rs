//! Does one wrong thing to a guarded block, or a thousand right ones. What comes of it is what `tests/guarded.rs` looks at.
//!
//! Arguments: what to do, and in which way faults are handled. Says where its functions are, and which block it is about.

use std::alloc::{GlobalAlloc, Layout};
use std::ffi::{c_int, c_void};
use std::fmt::Write;
use std::hint::black_box;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};

use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// Where a block lies in its slot.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Upper,
    Lower,
    Any,
}

const PAGE: usize = 8192;

fn layout(size: usize) -> Layout {
    Layout::from_size_align(size, 8).expect("small")
}

#[inline(never)]
fn allocate_here(size: usize) -> *mut u8 {
    // SAFETY: the size is not zero.
    black_box(unsafe { GLOBAL.alloc(layout(size)) })
}

#[inline(never)]
fn free_here(block: *mut u8, size: usize) {
    // SAFETY: not always: that is what this program is for.
    unsafe { GLOBAL.dealloc(black_box(block), layout(size)) };
    black_box(());
}

#[inline(never)]
fn write_here(place: *mut u8) {
    // SAFETY: as above.
    unsafe { black_box(place).write_volatile(0) };
    black_box(());
}

#[inline(never)]
fn read_here(place: *mut u8) {
    // SAFETY: as above.
    black_box(unsafe { black_box(place).read_volatile() });
}

/// A guarded block at this end of its slot. Others go back.
fn guarded(size: usize, end: End) -> *mut u8 {
    for _ in 0..100_000 {
        let block = allocate_here(size);
        let is_upper = (block.addr() + size).next_multiple_of(8).is_multiple_of(PAGE);
        let fits = match end {
            End::Upper => is_upper,
            End::Lower => block.addr().is_multiple_of(PAGE),
            End::Any => true,
        };
        if freestone::control::is_guarded(block) && fits {
            return block;
        }
        free_here(block, size);
    }
    panic!("no block is guarded");
}

/// One line at a time, without the allocator.
fn say(line: &str) {
    // SAFETY: the line is readable.
    unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
}

/// What the test has to know, before anything goes wrong.
fn introduce(block: *mut u8) {
    let mut text = String::with_capacity(400);
    let functions: [(&str, usize); 4] = [
        ("allocate", allocate_here as *const () as usize),
        ("free", free_here as *const () as usize),
        ("write", write_here as *const () as usize),
        ("read", read_here as *const () as usize),
    ];
    for (name, address) in functions {
        writeln!(text, "{name} {address:#x}").expect("a string takes it");
    }
    writeln!(text, "block {block:p}").expect("a string takes it");
    // SAFETY: always allowed.
    writeln!(text, "thread {}", unsafe { libc::gettid() }).expect("a string takes it");
    say(&text);
}

fn on_another_thread(work: impl FnOnce() + Send + 'static) {
    std::thread::spawn(work).join().expect("it does not panic");
}

fn misuse(what: &str) -> bool {
    let (size, end) = match what {
        "overflow-1" | "overflow-8" | "overflow-page" | "underflow-within" => (64, End::Upper),
        "overflow-padding" => (13, End::Upper),
        "overflow-within" | "underflow" => (64, End::Lower),
        "use-after-free-read" | "use-after-free-write" | "double-free" | "wrong-layout" | "interior" => (100, End::Any),
        _ => return false,
    };
    let block = guarded(size, end);
    introduce(block);
    match what {
        "overflow-1" => write_here(block.wrapping_add(size)),
        "overflow-8" => write_here(block.wrapping_add(size + 7)),
        "overflow-page" => write_here(block.wrapping_add(size + 4095)),
        "overflow-padding" | "overflow-within" => {
            write_here(block.wrapping_add(size));
            say("done wrong\n");
            free_here(block, size);
        }
        "underflow" => write_here(block.wrapping_sub(1)),
        "underflow-within" => {
            write_here(block.wrapping_sub(1));
            say("done wrong\n");
            free_here(block, size);
        }
        "use-after-free-read" | "use-after-free-write" => {
            let address = block.expose_provenance();
            on_another_thread(move || free_here(std::ptr::with_exposed_provenance_mut(address), 100));
            let place = block.wrapping_add(12);
            if what == "use-after-free-read" { read_here(place) } else { write_here(place) }
        }
        "double-free" => {
            free_here(block, size);
            free_here(block, size);
        }
        "wrong-layout" => free_here(block, size + 100),
        "interior" => free_here(block.wrapping_add(8), size),
        _ => {}
    }
    say("went on\n");
    true
}

// ---- innocent programs -------------------------------------------------------------------------------------------------

/// Everything that programs do with blocks, a million times, with every sample guarded that can be.
fn innocent(operations: usize) {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let work = |thread: u64, operations: usize| {
        let mut random = freestone_tests::Random::new(seed + thread);
        let mut held: Vec<Vec<u8>> = Vec::new();
        let mut strings = Vec::new();
        for _ in 0..operations {
            match random.below(8) {
                0..3 => {
                    let size = random.spread(1, 16 << 10);
                    held.push(vec![random.next_u64() as u8; size]);
                }
                3 if !held.is_empty() => {
                    let nth = random.below(held.len());
                    let by = random.below(100);
                    let vec = &mut held[nth];
                    let first = vec[0];
                    // `realloc`, mostly within a class, and to sizes that are no whole words.
                    vec.reserve_exact(vec.len() + by - vec.len().min(by) + 1);
                    vec.resize(vec.len() + by, first);
                    vec.shrink_to_fit();
                    assert!(vec.iter().all(|&byte| byte == first));
                }
                4 => {
                    let zeros = vec![0_u8; random.spread(1, 9000)];
                    assert!(zeros.iter().all(|&byte| byte == 0));
                    held.push(zeros);
                }
                5 => {
                    let mut text = String::new();
                    for _ in 0..random.below(20) {
                        write!(text, "{}", random.below(1000)).expect("a string takes it");
                    }
                    strings.push(text);
                }
                _ if !held.is_empty() => {
                    let gone = held.swap_remove(random.below(held.len()));
                    assert!(gone.iter().all(|byte| *byte == gone[0]));
                }
                _ => {}
            }
            // Few at a time, so that slots are free again and again.
            if held.len() > 24 {
                held.truncate(4);
            }
            if strings.len() > 8 {
                strings.clear();
            }
        }
    };
    std::thread::scope(|scope| {
        for thread in 1..4 {
            scope.spawn(move || work(thread, operations / 4));
        }
        work(0, operations / 4);
    });
    let summary = freestone::profile::summary();
    say(&format!("{} guarded\n", summary.guarded));
}

fn full() {
    let blocks: Vec<*mut u8> = (0..1000).map(|_| allocate_here(64)).collect();
    let count = blocks.iter().filter(|block| freestone::control::is_guarded(**block)).count();
    let summary = freestone::profile::summary();
    say(&format!("{count} of 1000 guarded, {} live\n", summary.guarded_live));
    for &block in &blocks {
        write_here(block.wrapping_add(63));
    }
    for block in blocks {
        free_here(block, 64);
    }
    let snapshot = freestone::snapshot();
    say(&format!("approximate {}\n", snapshot.approximate));
}

/// Children of forks have slots of their own.
fn forks() {
    let block = guarded(64, End::Upper);
    // SAFETY: one thread.
    let child = unsafe { libc::fork() };
    if child == 0 {
        free_here(block, 64);
        let other = guarded(64, End::Upper);
        free_here(other, 64);
        // SAFETY: the end of the child.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: a child of ours, and a place to write to.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    write_here(block.wrapping_add(63));
    free_here(block, 64);
    say(&format!("child {status}\n"));
}

// ---- handlers ----------------------------------------------------------------------------------------------------------

/// What the program's own handler saw.
static SEEN: AtomicUsize = AtomicUsize::new(0);
static ON_ALTERNATE: AtomicUsize = AtomicUsize::new(0);
static HELD_BACK: AtomicUsize = AtomicUsize::new(0);

extern "C" fn own_handler(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: what the kernel handed over.
    let info = unsafe { &*info };
    // SAFETY: of a fault, which has an address.
    let address = unsafe { info.si_addr() }.addr();
    SEEN.store(address, Ordering::Relaxed);
    // SAFETY: all zeros is a value of it.
    let mut stack: libc::stack_t = unsafe { std::mem::zeroed() };
    // SAFETY: asks only.
    unsafe { libc::sigaltstack(std::ptr::null(), &raw mut stack) };
    ON_ALTERNATE.store(usize::from(stack.ss_flags & libc::SS_ONSTACK != 0), Ordering::Relaxed);
    // SAFETY: as above.
    let mut mask: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: asks only.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &raw mut mask) };
    // SAFETY: a set.
    let is_held_back = unsafe { libc::sigismember(&raw const mask, libc::SIGUSR1) };
    HELD_BACK.store(is_held_back as usize, Ordering::Relaxed);
    say("own handler\n");
    // Has the access go well when it is repeated, as handlers of garbage collectors do.
    let page = std::ptr::with_exposed_provenance_mut::<c_void>(address & !4095);
    // SAFETY: nobody else uses the page.
    if unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_WRITE) } != 0 {
        // SAFETY: the end.
        unsafe { libc::_exit(9) };
    }
}

/// The number alone, as handlers were in the old days.
extern "C" fn old_handler(signal: c_int) {
    say(if signal == libc::SIGSEGV { "old handler\n" } else { "wrong number\n" });
    // SAFETY: the end.
    unsafe { libc::_exit(7) };
}

fn handle(handler: usize, flags: c_int) {
    // SAFETY: all zeros is a value of it.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler;
    action.sa_flags = flags;
    // SAFETY: a set of the action's.
    unsafe { libc::sigaddset(&raw mut action.sa_mask, libc::SIGUSR1) };
    // SAFETY: a handler that stays.
    unsafe { libc::sigaction(libc::SIGSEGV, &raw const action, std::ptr::null_mut()) };
}

/// A page that cannot be touched, and is none of the allocator's.
fn foreign_page() -> *mut u8 {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a mapping that replaces nothing.
    let page = unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_NONE, flags, -1, 0) };
    page.expose_provenance();
    page.cast()
}

fn foreign(how: &str) -> bool {
    let page = foreign_page();
    match how {
        "own" => {
            say(&format!("foreign {page:p}\n"));
            write_here(page.wrapping_add(8));
            let (seen, alternate, held_back) = (&SEEN, &ON_ALTERNATE, &HELD_BACK);
            let is_right = seen.load(Ordering::Relaxed) == page.addr() + 8;
            say(&format!(
                "right {is_right} alternate {} held back {}\n",
                alternate.load(Ordering::Relaxed),
                held_back.load(Ordering::Relaxed)
            ));
        }
        "default" => write_here(page),
        "null" => read_here(std::ptr::without_provenance_mut(8)),
        "sent" => {
            // SAFETY: to the process itself.
            unsafe { libc::raise(libc::SIGSEGV) };
            say("survived\n");
        }
        "overflow" => {
            #[inline(never)]
            fn deeper(depth: usize) -> usize {
                if depth == usize::MAX {
                    return 0;
                }
                let frame = black_box([depth; 512]);
                deeper(black_box(depth + 1)) + frame[depth % 512]
            }
            say(&format!("{}\n", deeper(0)));
        }
        _ => return false,
    }
    true
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let what = arguments.get(1).map_or("", String::as_str);
    match arguments.get(2).map_or("", String::as_str) {
        "own-before" | "own-alternate-before" => {
            let alternate = if arguments[2] == "own-before" { 0 } else { libc::SA_ONSTACK };
            handle(own_handler as *const () as usize, libc::SA_SIGINFO | alternate);
            assert!(freestone::control::report_faults());
        }
        "own-after" => {
            assert!(freestone::control::report_faults());
            handle(own_handler as *const () as usize, libc::SA_SIGINFO | libc::SA_ONSTACK);
        }
        "old-before" => {
            handle(old_handler as *const () as usize, 0);
            assert!(freestone::control::report_faults());
        }
        "ignored-before" => {
            handle(libc::SIG_IGN, 0);
            assert!(freestone::control::report_faults());
        }
        "default-before" => {
            handle(libc::SIG_DFL, 0);
            assert!(freestone::control::report_faults());
        }
        "twice" => {
            assert!(freestone::control::report_faults());
            assert!(freestone::control::report_faults());
        }
        _ => {}
    }
    let done = match what {
        "innocent" => {
            innocent(1_000_000);
            true
        }
        "full" => {
            full();
            true
        }
        "forks" => {
            forks();
            true
        }
        _ => match what.strip_prefix("foreign-") {
            Some(how) => foreign(how),
            None => misuse(what),
        },
    };
    if !done {
        say("usage: guarded WHAT [HANDLER]\n");
        return ExitCode::from(2);
    }
    ExitCode::SUCCESS
}
