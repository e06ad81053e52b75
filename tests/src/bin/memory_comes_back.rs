//! What a program does not use any more goes back to the system, by whoever is there to do it. One scenario per process; the argument says
//! which. `tests/memory_comes_back.rs` runs it.
//!
//! The allocator is not registered, so nothing but a scenario's own blocks moves the heap: while a scenario waits, nobody allocates.

use std::alloc::{Layout, System};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use freestone::{Background, Freestone, PAUSES_KEPT, Pause, PauseKind, Retain, control, recent_pauses, snapshot};
use freestone_tests::{Block, Random, comes_true, resident_anonymous_bytes, seed, thread_count};

#[global_allocator]
static HARNESS: System = System;

const DEFAULT: &Freestone = &Freestone::new();
const ON: &Freestone = &Freestone::new().background(Background::On);
const OFF: &Freestone = &Freestone::new().background(Background::Off);
const KEEPS: &Freestone = &Freestone::new().background(Background::On).retain(Retain::Keep);
const KEEPS_ALONE: &Freestone = &Freestone::new().background(Background::Off).retain(Retain::Keep);
const FOR_C: &Freestone = &Freestone::new().for_c();
const HASTY: &Freestone = &Freestone::new().background(Background::On).retain(Retain::Off);
/// Remembers peaks for half a second.
const FORGETFUL: &Freestone =
    &Freestone::new().background(Background::On).retain(Retain::Peak { percent: 10, window_ms: 500, steps: 2 });

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const BURST_BYTES: usize = 64 * MIB;
/// A peak is remembered for five seconds, and what goes back then takes a few more.
const PATIENCE: Duration = Duration::from_secs(20);

type Blocks = Vec<Block<'static, Freestone>>;

/// Small blocks of all sizes, so many bytes together, written to the last.
fn burst(handle: &'static Freestone, bytes: usize, random: &mut Random) -> Blocks {
    let mut blocks = Blocks::new();
    let mut sum = 0;
    while sum < bytes {
        let layout = Layout::from_size_align(random.spread(8, 1024), 8).expect("a small size");
        let mut block = Block::new(handle, layout).expect("memory is there");
        block.fill(sum as u8);
        sum += layout.size();
        blocks.push(block);
    }
    blocks
}

/// What is resident once the heap has begun.
fn before(handle: &'static Freestone) -> usize {
    drop(burst(handle, KIB, &mut Random::new(1)));
    resident_anonymous_bytes()
}

/// A burst that ends in the order in which it came. Says what was resident at its height.
///
/// Where nobody takes what lies in depots and in the caches of threads that are awake, a few blocks from everywhere would keep their pages.
fn rise_and_fall_in_order(handle: &'static Freestone, bytes: usize) -> usize {
    let blocks = burst(handle, bytes, &mut Random::new(seed()));
    let height = resident_anonymous_bytes();
    drop(blocks);
    height
}

/// A burst that ends in random order. Says what was resident at its height.
fn rise_and_fall(handle: &'static Freestone, bytes: usize) -> usize {
    let mut random = Random::new(seed());
    let mut blocks = burst(handle, bytes, &mut random);
    random.shuffle(&mut blocks);
    let height = resident_anonymous_bytes();
    drop(blocks);
    height
}

/// A tenth is kept, and a little always.
fn and_a_tenth(bytes: usize) -> usize {
    bytes + bytes / 10 + 4 * MIB
}

/// Sleeps and looks once a second, until no more than this is resident.
fn falls_while_asleep(most: usize) {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE && resident_anonymous_bytes() > most {
        thread::sleep(Duration::from_secs(1));
    }
    let resident = resident_anonymous_bytes();
    println!("{} KiB of at most {} KiB after {} ms", resident >> 10, most >> 10, begun.elapsed().as_millis());
    assert!(resident <= most, "{resident} bytes are resident, {:?}", snapshot().bytes);
}

/// The program frees everything, and does nothing more.
fn all_of_a_burst() {
    let before = before(ON);
    let height = rise_and_fall(ON, BURST_BYTES);
    assert!(height >= before + BURST_BYTES, "the scenario has something to give back");
    falls_while_asleep(and_a_tenth(before));
    let now = snapshot();
    assert!(!now.approximate);
    assert_eq!((now.live_blocks(), now.bytes.live), (0, 0));
}

/// One block in 64 stays. Every page that holds no part of one goes.
fn all_but_survivors() {
    const PAGE_BYTES: usize = 4 * KIB;
    let before = before(ON);
    let mut random = Random::new(seed());
    let mut survivors = Blocks::new();
    let mut mortals = Blocks::new();
    for (nth, block) in burst(ON, BURST_BYTES, &mut random).into_iter().enumerate() {
        if nth % 64 == 0 { survivors.push(block) } else { mortals.push(block) }
    }
    random.shuffle(&mut mortals);
    drop(mortals);
    let pages_of = |block: &Block<'_, Freestone>| {
        let start = block.start().addr();
        start / PAGE_BYTES..=(start + block.layout().size() - 1) / PAGE_BYTES
    };
    let mut pages: Vec<usize> = survivors.iter().flat_map(pages_of).collect();
    pages.sort_unstable();
    pages.dedup();
    println!("{} survivors in {} pages", survivors.len(), pages.len());
    let needed = pages.len() * PAGE_BYTES;
    assert!(needed < BURST_BYTES * 3 / 4, "the scenario has something to give back");
    falls_while_asleep(and_a_tenth(before + needed));
    survivors.iter().for_each(Block::check);
    assert_eq!(snapshot().live_blocks(), survivors.len() as u64);
    // The rest of their pages can be used again.
    let again = burst(ON, 8 * MIB, &mut random);
    survivors.iter().for_each(Block::check);
    drop((survivors, again));
    assert_eq!(snapshot().live_blocks(), 0);
}

/// By default there is no thread until there is something for it to do.
fn a_drop_starts_the_thread() {
    let before = before(DEFAULT);
    assert_eq!((snapshot().background_thread, thread_count()), (false, 1));
    let height = rise_and_fall(DEFAULT, BURST_BYTES);
    assert!(height >= before + BURST_BYTES);
    assert!(comes_true(PATIENCE, || snapshot().background_thread), "{:?}", snapshot());
    assert_eq!((snapshot().events.background_starts, thread_count()), (1, 2));
    falls_while_asleep(and_a_tenth(before));
}

/// Where there is to be no thread, who frees gives back what reaches the mark, within its free. What comes after that is below the mark, and
/// some lies in caches.
fn a_drop_without_thread() {
    let before = before(OFF);
    let height = rise_and_fall(OFF, BURST_BYTES);
    let resident = resident_anonymous_bytes();
    println!("from {} KiB to {} KiB, at first {}", height >> 10, resident >> 10, before >> 10);
    assert!(height >= before + BURST_BYTES);
    assert!(resident <= and_a_tenth(before + BURST_BYTES / 2), "{:?}", snapshot().bytes);
    assert_eq!((snapshot().background_thread, thread_count()), (false, 1));
    assert!(snapshot().pauses[PauseKind::Release as usize].bytes as usize >= BURST_BYTES / 2);
}

/// Who wants to keep it keeps it: whoever is there to give it back.
fn what_is_kept(handle: &'static Freestone, for_so_long: Duration) {
    let before = before(handle);
    rise_and_fall_in_order(handle, BURST_BYTES);
    // Longer than any peak is remembered, and longer than caches of sleepers stay.
    thread::sleep(for_so_long);
    let resident = resident_anonymous_bytes();
    assert!(resident >= before + BURST_BYTES, "{resident} bytes are resident, {:?}", snapshot().bytes);
    assert_eq!(snapshot().pauses[PauseKind::Release as usize].bytes, 0);
    let released = control::release_to_os();
    assert!(released >= BURST_BYTES * 9 / 10, "who asks gets it: {released}");
    assert!(resident_anonymous_bytes() <= and_a_tenth(before));
}

/// A program in C that has one thread is not given a second one.
fn for_c() {
    let before = before(FOR_C);
    rise_and_fall(FOR_C, BURST_BYTES);
    thread::sleep(Duration::from_secs(2));
    // Slow paths come and go, and none of them starts one.
    drop(burst(FOR_C, MIB, &mut Random::new(2)));
    assert_eq!((snapshot().background_thread, thread_count()), (false, 1));
    assert!(resident_anonymous_bytes() <= and_a_tenth(before + BURST_BYTES / 2), "the freeing thread does it");
    let (end, is_over) = mpsc::channel::<()>();
    let second = thread::spawn(move || is_over.recv().is_err());
    rise_and_fall(FOR_C, BURST_BYTES);
    assert!(comes_true(PATIENCE, || snapshot().background_thread), "{:?}", snapshot().events);
    assert_eq!(thread_count(), 3);
    drop(end);
    assert!(second.join().expect("the thread does not panic"));
    falls_while_asleep(and_a_tenth(before));
}

/// The latest pauses, oldest first.
fn latest_pauses() -> Vec<Pause> {
    let mut pauses = vec![Pause::default(); PAUSES_KEPT];
    let count = recent_pauses(&mut pauses);
    pauses.truncate(count);
    pauses
}

/// Whatever is given back is told, one by one and in sum.
fn what_pauses_say() {
    before(KEEPS_ALONE);
    let mut last_ns = 0;
    let mut sum = 0;
    for round in 1..=3 {
        rise_and_fall(KEEPS_ALONE, 8 * MIB);
        // Some of what goes back lies beside these.
        let mut nth = 0;
        let mut survivors = burst(KEEPS_ALONE, 8 * MIB, &mut Random::new(seed()));
        survivors.retain(|_| {
            nth += 1;
            nth % 64 == 0
        });
        let released = control::release_to_os();
        assert!(released >= 6 * MIB, "{released}");
        sum += released as u64;
        let summary = snapshot().pauses[PauseKind::ReleaseAll as usize];
        assert_eq!((summary.count, summary.bytes), (round, sum));
        assert!(0 < summary.p50_ns && summary.p50_ns <= summary.p99_ns && summary.p99_ns <= summary.max_ns, "{summary:?}");
        assert!(summary.max_ns <= summary.total_ns, "{summary:?}");
        let pauses = latest_pauses();
        let releases: Vec<&Pause> = pauses.iter().filter(|pause| pause.kind == PauseKind::ReleaseAll).collect();
        assert_eq!(releases.len() as u64, round);
        let last = releases.last().expect("one a round");
        assert_eq!(last.bytes as usize, released);
        // Nothing is told twice.
        assert_eq!(snapshot().pauses[PauseKind::Release as usize].bytes, 0);
        assert!(last.took_ns > 0 && last.took_ns <= summary.max_ns, "{last:?}");
        assert!(last.ended_ns > last_ns, "{last:?}");
        last_ns = last.ended_ns;
        drop(survivors);
    }
    // And so is what goes back at leisure.
    control::set_retain(Retain::Off);
    control::set_background(Background::On);
    rise_and_fall(KEEPS_ALONE, BURST_BYTES);
    let at_leisure = || snapshot().pauses[PauseKind::Release as usize];
    assert!(comes_true(PATIENCE, || at_leisure().bytes as usize >= BURST_BYTES / 2), "{:?}", at_leisure());
    assert!(latest_pauses().iter().any(|pause| pause.kind == PauseKind::Release && pause.bytes > 0));
}

/// Pages that the program has locked stay; the rest goes all the same, and they do too once they are not locked any more.
fn some_pages_are_locked() {
    const LOCKED_BYTES: usize = 8 * MIB;
    const LAYOUT: Layout = Layout::new::<[u8; 32 * KIB]>();
    let before = before(FORGETFUL);
    let mut blocks: Blocks =
        (0..BURST_BYTES / LAYOUT.size()).map(|_| Block::new(FORGETFUL, LAYOUT).expect("memory is there")).collect();
    for block in &mut blocks {
        block.fill(7);
    }
    blocks.sort_by_key(|block| block.start().addr());
    let start = blocks[0].start();
    // SAFETY: locking changes nothing that a program sees. The blocks lie side by side, and what is not mapped is refused.
    if unsafe { libc::mlock(start.cast(), LOCKED_BYTES) } != 0 {
        println!("SKIPPED: this process may not lock memory: {}", std::io::Error::last_os_error());
        return;
    }
    drop(blocks);
    // What goes back in one call with something that is locked may stay with it.
    falls_while_asleep(and_a_tenth(before + LOCKED_BYTES + 4 * MIB));
    let again: Blocks = (0..100).map(|_| Block::zeroed(FORGETFUL, LAYOUT).expect("memory is there")).collect();
    drop(again);
    // SAFETY: as above.
    assert_eq!(unsafe { libc::munlock(start.cast(), LOCKED_BYTES) }, 0);
    control::release_to_os();
    let resident = resident_anonymous_bytes();
    assert!(resident <= and_a_tenth(before), "{resident} bytes are resident, {:?}", snapshot().bytes);
    assert!(!snapshot().approximate);
}

/// A process that has locked all its memory, now and in future, can give nothing back, and works.
fn all_pages_are_locked() {
    before(FORGETFUL);
    // SAFETY: locking changes nothing that a program sees.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } != 0 {
        println!("SKIPPED: this process may not lock memory: {}", std::io::Error::last_os_error());
        return;
    }
    for _ in 0..3 {
        rise_and_fall(FORGETFUL, BURST_BYTES);
        thread::sleep(Duration::from_secs(1));
        control::release_to_os();
        let layout = Layout::new::<[u8; 100 * KIB]>();
        drop((0..100).map(|_| Block::zeroed(FORGETFUL, layout).expect("memory is there")).collect::<Blocks>());
    }
    let height = resident_anonymous_bytes();
    // SAFETY: always allowed.
    assert_eq!(unsafe { libc::munlockall() }, 0);
    rise_and_fall(FORGETFUL, BURST_BYTES);
    falls_while_asleep(and_a_tenth(height - BURST_BYTES));
    assert!(comes_true(PATIENCE, || !snapshot().approximate));
    assert_eq!(snapshot().live_blocks(), 0);
}

/// From now on the system makes no thread and no process.
fn refuse_threads() {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IS: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD_NUMBER, 0, 0, 0),
        step(IS, libc::SYS_clone as u32, 2, 0),
        step(IS, libc::SYS_clone3 as u32, 1, 0),
        step(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(RETURN, libc::SECCOMP_RET_ERRNO | libc::EAGAIN as u32, 0, 0),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: plain numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    // SAFETY: the program and its steps are readable during the call.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) }, 0);
}

/// Where there can be no thread, those that run give memory back on their slow paths, and who frees much at once does it on the spot.
fn no_thread_can_be_made() {
    refuse_threads();
    assert!(thread::Builder::new().spawn(|| ()).is_err(), "the system refuses");
    let before = before(FORGETFUL);
    rise_and_fall_in_order(FORGETFUL, 40 * MIB);
    let begun = Instant::now();
    let works_on = || {
        drop(burst(FORGETFUL, 256 * KIB, &mut Random::new(3)));
        // Huge pages in which something goes on are not broken up.
        resident_anonymous_bytes() <= and_a_tenth(before + 8 * MIB)
    };
    assert!(comes_true(PATIENCE, works_on), "{:?}", snapshot().bytes);
    println!("after {} ms", begun.elapsed().as_millis());
    let events = snapshot().events;
    // The next attempt is ten seconds later.
    let attempts = 1 + begun.elapsed().as_secs() / 10;
    assert!((1..=attempts).contains(&events.refusals), "{events:?}");
    assert_eq!(events.background_starts, events.refusals);
    rise_and_fall(FORGETFUL, BURST_BYTES);
    let resident = resident_anonymous_bytes();
    assert!(resident <= and_a_tenth(before + BURST_BYTES / 2), "{resident} bytes are resident, {:?}", snapshot().bytes);
    assert_eq!((snapshot().background_thread, thread_count()), (false, 1));
}

/// What the child of a fork does with the heap it got. `false`: something does not hold.
fn child(heritage: Blocks, waits: bool) -> bool {
    let first = snapshot();
    let mut holds = !first.approximate && !first.background_thread && first.live_blocks() >= heritage.len() as u64;
    let inherited = heritage.len() as u64;
    heritage.iter().for_each(Block::check);
    drop(heritage);
    drop(burst(HASTY, MIB, &mut Random::new(4)));
    if waits {
        // It was told to have a thread, and its own slow paths start one.
        let started = || {
            drop(burst(HASTY, 64 * KIB, &mut Random::new(5)));
            snapshot().background_thread
        };
        holds &= comes_true(PATIENCE / 2, started) && thread_count() == 2;
    }
    let mut last = snapshot();
    holds &= comes_true(PATIENCE / 2, || {
        last = snapshot();
        !last.approximate
    });
    holds && last.live_blocks() == first.live_blocks() - inherited
}

/// A process forks again and again, while others produce garbage and the background thread gives it back.
fn forks() {
    static ENOUGH: AtomicBool = AtomicBool::new(false);
    let seed = seed();
    let mut random = Random::new(seed);
    let produce = |nth: u64| {
        thread::spawn(move || {
            let mut random = Random::new(seed ^ nth);
            while !ENOUGH.load(Ordering::Relaxed) {
                drop(burst(HASTY, random.spread(64 * KIB, 4 * MIB), &mut random));
                thread::sleep(Duration::from_millis(random.below(20) as u64));
            }
        })
    };
    let producers: Vec<_> = (1..=3).map(produce).collect();
    assert!(comes_true(PATIENCE, || snapshot().background_thread));
    for nth in 0..100 {
        let heritage = burst(HASTY, 64 * KIB, &mut random);
        // SAFETY: that a child of a process with threads may use the allocator is what is tested; the C library's own may be used, too.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // The panic of a check must not unwind into what the parent does next.
            let holds = std::panic::catch_unwind(|| child(heritage, nth % 10 == 0)).unwrap_or(false);
            // SAFETY: always allowed; destructors of the parent's threads must not run here.
            unsafe { libc::_exit(i32::from(!holds)) }
        }
        assert!(pid > 0);
        let mut status = 0;
        // SAFETY: a child of ours and a place to write to.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(status, 0, "child {nth}");
    }
    ENOUGH.store(true, Ordering::Relaxed);
    for producer in producers {
        producer.join().expect("the thread does not panic");
    }
    let released = snapshot().pauses[PauseKind::Release as usize];
    assert!(released.bytes as usize >= MIB, "there was something to give back meanwhile: {released:?}");
    assert!(comes_true(PATIENCE, || !snapshot().approximate));
    assert_eq!(snapshot().live_blocks(), 0);
}

fn main() {
    // The scenario's own lists must not stay with the C library: left to itself it raises this bound with every list that is freed.
    // SAFETY: no thread allocates meanwhile.
    assert_eq!(unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, 128 * KIB as i32) }, 1);
    match std::env::args().nth(1).as_deref() {
        Some("all") => all_of_a_burst(),
        Some("survivors") => all_but_survivors(),
        Some("drop") => a_drop_starts_the_thread(),
        Some("alone") => a_drop_without_thread(),
        Some("kept") => what_is_kept(KEEPS, Duration::from_secs(8)),
        Some("kept_alone") => what_is_kept(KEEPS_ALONE, Duration::ZERO),
        Some("for_c") => for_c(),
        Some("pauses") => what_pauses_say(),
        Some("some_locked") => some_pages_are_locked(),
        Some("all_locked") => all_pages_are_locked(),
        Some("refused") => no_thread_can_be_made(),
        Some("forks") => forks(),
        _ => panic!("which scenario?"),
    }
    println!("alive");
}
