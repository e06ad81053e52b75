//! Every allocation is a sample while eight threads allocate, hand over, die and are born again, on their own stacks, on those of signals, and with frame
//! pointers that point anywhere; while others read profiles, and while the process forks. Nothing faults, nothing waits for ever, and in the end nothing is
//! said to be alive that is not.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use freestone::profile;
use freestone::{Freestone, control};
use freestone_tests::{Random, join_all, seed};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new().sample_interval(1).guard_interval(64 << 10);

const THREADS: u32 = 8;
const FORKS: u32 = 12;
const WORK: Duration = Duration::from_secs(4);

/// Reads all sites; says how many samples of tags are alive.
fn live() -> u64 {
    let mut live = 0;
    profile::each_site(|site| {
        assert!(site.stack.frames().len() <= profile::FRAMES_MAX && !site.stack.frames().is_empty());
        assert!(site.live.samples + site.ended.samples + site.untracked.samples == site.allocated.samples, "{site:?}");
        live += if site.tag == 0 { 0 } else { site.live.samples };
    });
    live
}

fn block(random: &mut Random) -> Vec<u8> {
    let size = random.spread(1, 200_000);
    let mut block = Vec::with_capacity(size);
    block.resize(size.min(64), 7);
    black_box(block)
}

extern "C" fn allocate_a_little() {
    let mut blocks: Vec<Box<[u8; 40]>> = Vec::new();
    (0..20).for_each(|_| blocks.push(black_box(Box::new([3; 40]))));
}

/// Calls `work` with this for a frame pointer, as hand-written assembly may.
#[cfg(target_arch = "x86_64")]
#[unsafe(naked)]
extern "C" fn with_frame_pointer(_pointer: usize, _work: extern "C" fn()) {
    core::arch::naked_asm!("push rbp", "mov rbp, rdi", "call rsi", "pop rbp", "ret")
}

#[cfg(not(target_arch = "x86_64"))]
extern "C" fn with_frame_pointer(_pointer: usize, work: extern "C" fn()) {
    work();
}

extern "C" fn on_signal(_: libc::c_int) {
    allocate_a_little();
}

/// Signals of this kind are handled on a stack of their own, which std gives each of its threads.
fn catch_signals() {
    // SAFETY: numbers and an empty set, which zeros are.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_ONSTACK;
    // SAFETY: a handler for a signal that nobody else uses here.
    assert_eq!(unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, std::ptr::null_mut()) }, 0);
}

/// A short life: allocates, keeps some, leaves some to others.
fn live_once(tag: u32, random: &mut Random, others: &Sender<Vec<u8>>, until: Instant) {
    profile::set_tag(tag);
    let mut kept: Vec<Vec<u8>> = Vec::new();
    for _ in 0..random.below(400) {
        match random.below(12) {
            0 => {
                // Who takes it may have left.
                let _ = others.send(block(random));
            }
            1 => {
                let index = random.below(kept.len().max(1));
                if let Some(block) = kept.get_mut(index) {
                    block.reserve_exact(random.spread(1, 100_000));
                }
            }
            2 if !kept.is_empty() => drop(kept.swap_remove(random.below(kept.len()))),
            3 => {
                let near = std::ptr::from_ref(&tag).addr();
                let anywhere =
                    [near, near + 8 * random.below(10_000), near.wrapping_sub(random.below(1 << 20)), random.next_u64() as usize];
                with_frame_pointer(anywhere[random.below(4)], allocate_a_little);
            }
            4 => {
                // SAFETY: handled above; at this moment the thread is in no slow path.
                unsafe { libc::raise(libc::SIGUSR1) };
            }
            _ => kept.push(block(random)),
        }
        if Instant::now() > until {
            break;
        }
    }
    drop(kept);
    profile::set_tag(0);
}

/// A child allocates, reads a profile, and says whether all went well.
fn fork_once() {
    // SAFETY: the child allocates, which this allocator allows it, and ends without running anybody's destructors.
    let child = unsafe { libc::fork() };
    assert!(child >= 0);
    if child == 0 {
        let mut random = Random::new(5);
        profile::set_tag(99);
        let blocks: Vec<Vec<u8>> = (0..200).map(|_| block(&mut random)).collect();
        let is_well = live() > 100 && profile::summary().samples > 200;
        drop(blocks);
        // SAFETY: as above.
        unsafe { libc::_exit(i32::from(!is_well)) };
    }
    let mut status = 0;
    // SAFETY: our child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child of a fork");
}

#[test]
fn everything_at_once() {
    let first_seed = seed();
    catch_signals();
    let (others, taken) = channel::<Vec<u8>>();
    let is_over = AtomicBool::new(false);
    let (lives, reads) = (AtomicU64::new(0), AtomicU64::new(0));
    let until = Instant::now() + WORK;
    thread::scope(|scope| {
        let (is_over, lives, reads) = (&is_over, &lives, &reads);
        let taker = scope.spawn(move || taken.into_iter().for_each(drop));
        let reader = scope.spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                profile::measure_pinned();
                live();
                profile::reset_peak();
                reads.fetch_add(1, Ordering::Relaxed);
            }
        });
        let workers: Vec<_> = (1..=THREADS)
            .map(|tag| {
                let others = others.clone();
                scope.spawn(move || {
                    let mut random = Random::new(first_seed ^ u64::from(tag));
                    while Instant::now() < until {
                        let mut own = Random::new(random.next_u64());
                        let others = others.clone();
                        let life = thread::spawn(move || live_once(tag, &mut own, &others, until));
                        life.join().expect("it does not panic");
                        lives.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for _ in 0..FORKS {
            thread::sleep(WORK / (FORKS + 4));
            fork_once();
            control::release_to_os();
        }
        join_all(workers);
        drop(others);
        is_over.store(true, Ordering::Relaxed);
        join_all([taker, reader]);
    });
    let summary = profile::summary();
    println!("{lives:?} lives, {reads:?} readings, {summary:#?}");
    assert!(lives.into_inner() > 20 && reads.into_inner() > 0);
    assert!(summary.samples > 10_000 && summary.failed_stacks > 0 && summary.guarded > 10, "{summary:?}");
    assert_eq!(live(), 0, "something is said to be alive");
    // Neither of the two allocates.
    let (heap, summary) = (freestone::snapshot(), profile::summary());
    assert_eq!(heap.events.samples, summary.samples, "each sample was counted once");
}
