//! Twelve programs, each with a fault or the look of one, at two sizes and with three seeds: every one must be called by its name.
//!
//! The programs run on Freestone in processes of their own, most of the time asleep, and ask for their diagnosis at the end. Time is what they
//! make of it: whoever looks at a clock in there, the allocator included, is told how many ticks there were. So a program takes longer on a machine that
//! is busy, and is the same: a cache that never gets to its bound, or a load that is not let through, would be called by another name, and rightly.
//!
//! One alone: `VERDICT=true_leak:small:1 cargo test -p freestone-stats --test verdicts -- --ignored --exact program --nocapture`. More seeds:
//! `VERDICT_SEEDS=1..21`. With `VERDICT_POINTS=DIRECTORY` the points of each run are written there.

#[path = "../src/random.rs"]
mod random;

use std::collections::VecDeque;
use std::ffi::c_int;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::hint::black_box;
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use freestone::{Background, Freestone, HugePages, Retain, control};
use freestone_stats::profile::{Sites, sites};
use freestone_stats::{Point, Snapshot, Verdict, diagnose, history};
use random::Random;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// So much time passes at once, and so long a program sleeps before it does.
const TICK: Duration = Duration::from_millis(10);
/// How often a point is taken.
const SAMPLE: Duration = Duration::from_millis(30);
/// So many programs run at a time: they sleep.
const AT_A_TIME: usize = 36;

/// What time it is in this process, in nanoseconds. 0: what the system says.
static NOW_NS: AtomicI64 = AtomicI64::new(0);

/// Takes the place of the C library's, for all that is linked into this process.
///
/// # Safety
///
/// As there: `time` is a place to write to.
#[unsafe(no_mangle)]
unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, time: *mut libc::timespec) -> c_int {
    // Relaxed, here and below: a number, and whoever waits for something else than a later one is told so by other means.
    if clock != libc::CLOCK_MONOTONIC || NOW_NS.load(Ordering::Relaxed) == 0 {
        // SAFETY: the caller's promise.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) } as c_int;
    }
    let now_ns = NOW_NS.fetch_add(LOOK_NS, Ordering::Relaxed);
    // SAFETY: the caller's promise.
    unsafe { time.write(libc::timespec { tv_sec: now_ns / SECOND_NS, tv_nsec: now_ns % SECOND_NS }) };
    0
}

const SECOND_NS: i64 = 1_000_000_000;
/// A look at the clock takes so long: there are some who wait for it to go on.
const LOOK_NS: i64 = 1_000;
/// So far the clock is ahead of the kernel's: who asks the kernel to be woken at some time sleeps until a tick wakes him.
const AHEAD_NS: i64 = 3600 * SECOND_NS;

/// From here on, time passes at ticks.
fn stop_the_clock() {
    let (looked, earlier) = (Instant::now(), freestone::snapshot());
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a place to write to.
    unsafe { clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    NOW_NS.store(now.tv_sec * SECOND_NS + now.tv_nsec + AHEAD_NS, Ordering::Relaxed);
    let passed_ns = [looked.elapsed().as_nanos() as i64, (freestone::snapshot().at_ns - earlier.at_ns) as i64];
    assert!(passed_ns.iter().all(|&passed_ns| passed_ns >= AHEAD_NS), "they look at another clock: {passed_ns:?}");
}

/// A program, and what it is to be called.
struct Program {
    name: &'static str,
    is: Verdict,
    run: fn(&mut Work),
}

const PROGRAMS: [Program; 12] = [
    Program { name: "true_leak", is: Verdict::LeakSuspected, run: true_leak },
    Program { name: "slow_leak_in_noise", is: Verdict::LeakSuspected, run: slow_leak_in_noise },
    Program { name: "sawtooth", is: Verdict::Steady, run: sawtooth },
    Program { name: "burst", is: Verdict::Steady, run: burst },
    Program { name: "cache_fills_to_a_bound", is: Verdict::Steady, run: cache_fills_to_a_bound },
    Program { name: "pinned_pages", is: Verdict::Fragmentation, run: pinned_pages },
    Program { name: "retain_keep", is: Verdict::Retention, run: retain_keep },
    Program { name: "c_library", is: Verdict::NotOurs, run: c_library },
    Program { name: "hoarding", is: Verdict::Retention, run: hoarding },
    Program { name: "mapped_files", is: Verdict::NotOurs, run: mapped_files },
    Program { name: "steady_churn", is: Verdict::Steady, run: steady_churn },
    Program { name: "growth_with_load", is: Verdict::GrowthWithLoad, run: growth_with_load },
];

/// What every program has: a size, a seed, memory that it always holds, and two snapshots.
struct Work {
    /// 1: small. More: so many times as large.
    scale: usize,
    random: Random,
    base: Vec<Vec<u8>>,
    began: Instant,
    earlier: Option<(Snapshot, Sites)>,
    later: Option<(Snapshot, Sites)>,
}

impl Work {
    fn new(scale: usize, seed: u64) -> Self {
        Self { scale, random: Random(seed), base: Vec::new(), began: Instant::now(), earlier: None, later: None }
    }

    /// Some block, all of it written.
    fn block(&mut self) -> Vec<u8> {
        let bytes = match self.random.below(16) {
            0 => 4 * KIB + self.random.below(28 * KIB),
            1..4 => KIB + self.random.below(3 * KIB),
            _ => 16 + self.random.below(KIB),
        };
        black_box(vec![1; bytes])
    }

    /// Blocks of so many bytes together.
    fn blocks(&mut self, bytes: usize) -> Vec<Vec<u8>> {
        let mut blocks = Vec::new();
        let mut held = 0;
        while held < bytes {
            let block = self.block();
            held += block.len();
            blocks.push(block);
        }
        blocks
    }

    /// Takes what the program always holds. Half of the programs are looked at from before that on.
    fn begin(&mut self, base_bytes: usize) {
        if self.random.below(2) == 0 {
            self.look();
        }
        self.base = self.blocks(base_bytes);
        self.look();
        self.began = Instant::now();
    }

    fn look(&mut self) {
        self.earlier.get_or_insert_with(|| (freestone_stats::snapshot(), sites()));
    }

    /// Replaces some of what it always holds.
    fn churn(&mut self, blocks: usize) {
        for _ in 0..blocks.min(self.base.len()) {
            let place = self.random.below(self.base.len());
            self.base[place] = self.block();
        }
    }

    /// Goes on to the next tick. Says how far the program is, from 0 to 1. `None`: it is over, and was looked at a last time.
    fn tick(&mut self, seconds: f64) -> Option<f64> {
        // For the others: who takes points, and who gives memory back.
        thread::sleep(TICK);
        NOW_NS.fetch_add(TICK.as_nanos() as i64, Ordering::Relaxed);
        // Wakes the one who takes points, so that he looks at the clock.
        history::set_interval(SAMPLE);
        let progress = self.began.elapsed().as_secs_f64() / seconds;
        if progress >= 1.0 {
            self.later = Some((freestone_stats::snapshot(), sites()));
            return None;
        }
        Some(progress)
    }
}

/// What is never freed grows as time passes.
fn true_leak(work: &mut Work) {
    let total = (work.random.between(2.0, 6.0) * (work.scale * MIB) as f64) as usize;
    work.begin(6 * work.scale * MIB);
    let mut leaked = 0;
    while let Some(progress) = work.tick(8.0) {
        work.churn(20);
        while leaked < (total as f64 * progress) as usize {
            let block = work.block();
            leaked += block.len();
            std::mem::forget(block);
        }
    }
}

/// As above, beside a queue that is full and empty all the time.
fn slow_leak_in_noise(work: &mut Work) {
    let noise = (work.random.between(4.0, 8.0) * (work.scale * MIB) as f64) as usize;
    let total = noise / 2;
    work.begin(8 * work.scale * MIB);
    let mut leaked = 0;
    let mut queue = VecDeque::new();
    let mut queued = 0;
    let mut goal = 0;
    while let Some(progress) = work.tick(9.0) {
        while leaked < (total as f64 * progress) as usize {
            let block = work.block();
            leaked += block.len();
            std::mem::forget(block);
        }
        // Another one, mostly, at each look.
        if work.random.below(2) == 0 {
            goal = work.random.below(noise);
        }
        while queued < goal {
            let block = work.block();
            queued += block.len();
            queue.push_back(block);
        }
        while queued > goal {
            queued -= queue.pop_front().map_or(0, |block| block.len());
        }
    }
}

/// Collects, and then drops all of it, again and again.
fn sawtooth(work: &mut Work) {
    let tooth = work.random.between(0.4, 1.4);
    let height = (work.random.between(6.0, 14.0) * (work.scale * MIB) as f64) as usize;
    work.begin(6 * work.scale * MIB);
    let mut collected = Vec::new();
    let mut held = 0;
    let mut phase = work.random.between(0.0, 1.0) * tooth;
    let mut last = 0.0;
    while let Some(progress) = work.tick(8.0) {
        work.churn(5);
        phase += (progress - last) * 8.0;
        last = progress;
        if phase > tooth {
            phase = 0.0;
            collected.clear();
            held = 0;
        }
        while held < (height as f64 * phase / tooth) as usize {
            let block = work.block();
            held += block.len();
            collected.push(block);
        }
    }
}

/// Needs much for a moment, once. What is free then goes back: by the background thread, which wakes for 32 MiB, as without one only so much goes as
/// the program happens to pass slow paths; and with small pages, as free parts of huge ones stay while the program comes and goes beside them. Of less,
/// much stays at times, and to call that retention is right.
fn burst(work: &mut Work) {
    control::set_background(Background::On);
    control::set_huge_pages(HugePages::Never);
    let begins = work.random.between(0.05, 0.15);
    let ends = begins + work.random.between(0.05, 0.1);
    let height = (work.random.between(40.0, 56.0) * (work.scale * MIB) as f64) as usize;
    work.begin(6 * work.scale * MIB);
    let mut extra = Vec::new();
    while let Some(progress) = work.tick(14.0) {
        work.churn(10);
        if progress > ends {
            extra = Vec::new();
        } else if progress > begins && extra.is_empty() {
            extra = work.blocks(height);
        }
    }
    drop(extra);
}

/// Keeps what it made, up to a bound; from there on each new entry takes the place of an old one.
fn cache_fills_to_a_bound(work: &mut Work) {
    let full_at = work.random.between(0.2, 0.5);
    let bound = (work.random.between(6.0, 16.0) * (work.scale * MIB) as f64) as usize;
    work.begin(6 * work.scale * MIB);
    let per_tick = bound / (full_at * 800.0) as usize;
    let mut cache = VecDeque::new();
    let mut held = 0;
    while work.tick(8.0).is_some() {
        let mut made = 0;
        while made < per_tick {
            let block = work.block();
            made += block.len();
            held += block.len();
            cache.push_back(block);
        }
        while held > bound {
            held -= cache.pop_front().map_or(0, |block: Vec<u8>| block.len());
        }
    }
}

/// Of much that was there, a little stays: a block here and there, on every page.
fn pinned_pages(work: &mut Work) {
    let total = (work.random.between(16.0, 32.0) * (work.scale * MIB) as f64) as usize;
    let bytes = 64 << work.random.below(3);
    work.begin(2 * work.scale * MIB);
    let mut many: Vec<Vec<u8>> = (0..total / bytes).map(|_| black_box(vec![1; bytes])).collect();
    // One per 2 KiB.
    let every = 2 * KIB / bytes;
    let mut place = 0;
    many.retain(|_| {
        place += 1;
        place % every == 0
    });
    many.shrink_to_fit();
    work.began = Instant::now();
    while work.tick(10.0).is_some() {
        work.churn(10);
    }
}

/// What was free once stays.
fn retain_keep(work: &mut Work) {
    control::set_retain(Retain::Keep);
    let total = (work.random.between(16.0, 32.0) * (work.scale * MIB) as f64) as usize;
    work.begin(4 * work.scale * MIB);
    drop(work.blocks(total));
    work.began = Instant::now();
    while work.tick(9.0).is_some() {
        work.churn(10);
    }
}

/// Somebody else grows.
fn c_library(work: &mut Work) {
    let total = (work.random.between(16.0, 32.0) * (work.scale * MIB) as f64) as usize;
    work.begin(4 * work.scale * MIB);
    let mut taken = 0;
    while let Some(progress) = work.tick(8.0) {
        work.churn(10);
        while taken < (total as f64 * progress) as usize {
            let bytes = 64 + work.random.below(16 * KIB);
            // SAFETY: any size will do.
            let block = unsafe { libc::malloc(bytes) };
            let block = NonNull::new(black_box(block)).expect("the C library has memory");
            // SAFETY: a block of so many bytes, that nobody else knows.
            unsafe { libc::memset(block.as_ptr(), 1, bytes) };
            taken += bytes;
        }
    }
}

/// Many threads that have had much, and sleep with their caches full.
fn hoarding(work: &mut Work) {
    control::set_background(Background::Off);
    let count = 48 * work.scale;
    work.begin(64 * KIB);
    let filled = Arc::new(AtomicUsize::new(0));
    let enough = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..count as u64)
        .map(|number| {
            let (filled, enough) = (Arc::clone(&filled), Arc::clone(&enough));
            let mut random = Random(work.random.next() ^ number);
            let body = move || {
                for _ in 0..40 {
                    let blocks: Vec<Vec<u8>> = (0..200).map(|_| vec![1; 16 + random.below(2 * KIB)]).collect();
                    drop(black_box(blocks));
                }
                filled.fetch_add(1, Ordering::Relaxed);
                while !enough.load(Ordering::Relaxed) {
                    thread::park();
                }
            };
            thread::Builder::new().stack_size(64 * KIB).spawn(body).expect("there is room for a thread")
        })
        .collect();
    while filled.load(Ordering::Relaxed) < count {
        thread::sleep(TICK);
    }
    work.began = Instant::now();
    while work.tick(9.0).is_some() {}
    // Relaxed: they look again whenever they wake.
    enough.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.thread().unpark();
        thread.join().expect("no thread panics");
    }
}

/// A file is mapped and read, a little more at every tick.
fn mapped_files(work: &mut Work) {
    let total = (work.random.between(16.0, 32.0) * (work.scale * MIB) as f64) as usize;
    work.begin(4 * work.scale * MIB);
    let path = std::env::temp_dir().join(format!("freestone-verdicts-{}", std::process::id()));
    // A hole: nothing is written to the disk.
    let file = File::options().read(true).write(true).create_new(true).open(&path).expect("there is room for a file");
    fs::remove_file(&path).expect("it is ours");
    file.set_len(total as u64).expect("a length is only a number");
    // SAFETY: a new mapping, at a place that the kernel chooses.
    let mapped = unsafe { libc::mmap(std::ptr::null_mut(), total, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
    assert_ne!(mapped, libc::MAP_FAILED);
    let mut read = 0;
    while let Some(progress) = work.tick(8.0) {
        work.churn(10);
        while read < (total as f64 * progress) as usize {
            // SAFETY: within the mapping, of a file that is as long and stays so.
            black_box(unsafe { mapped.cast::<u8>().wrapping_add(read).read_volatile() });
            read += 4 * KIB;
        }
    }
}

/// Much comes and goes, and as much is there.
fn steady_churn(work: &mut Work) {
    let per_tick = work.random.between(50.0, 200.0) as usize;
    work.begin(8 * work.scale * MIB);
    while work.tick(8.0).is_some() {
        work.churn(per_tick);
    }
}

/// Sessions are opened; each holds memory, and each has work to do. With every other seed each is a thread.
fn growth_with_load(work: &mut Work) {
    /// A thread works at one tick of so many.
    const TURNS: usize = 8;
    let most = work.random.between(24.0, 48.0);
    let by_threads = work.random.below(2) == 0;
    let each = work.scale * MIB / 4;
    work.begin(2 * work.scale * MIB);
    let mut sessions: Vec<Vec<Vec<u8>>> = Vec::new();
    let mut threads: Vec<Sender<()>> = Vec::new();
    let (done, is_done) = channel();
    let mut turn = 0;
    while let Some(progress) = work.tick(8.0) {
        let wanted = (most * (0.15 + 0.85 * progress)) as usize;
        while by_threads && threads.len() < wanted {
            let mut own = Work::new(work.scale, work.random.next());
            let (request, requests) = channel();
            let done = done.clone();
            let body = move || {
                own.base = own.blocks(each);
                // Until nobody asks any more.
                for () in requests {
                    own.churn(10);
                    done.send(()).expect("somebody waits for it");
                }
            };
            thread::Builder::new().stack_size(256 * KIB).spawn(body).expect("there is room for a thread");
            threads.push(request);
        }
        let of_turn = || threads.iter().skip(turn).step_by(TURNS);
        of_turn().for_each(|thread| thread.send(()).expect("it is there"));
        of_turn().for_each(|_| is_done.recv().expect("it says so"));
        turn = (turn + 1) % TURNS;
        while !by_threads && sessions.len() < wanted {
            sessions.push(work.blocks(each));
        }
        for session in &mut sessions {
            for _ in 0..2 {
                let place = work.random.below(session.len());
                session[place] = work.block();
            }
        }
    }
}

/// How a run is named: `true_leak:small:1`.
struct Case {
    program: &'static Program,
    scale: usize,
    seed: u64,
}

impl Case {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(':');
        let name = words.next()?;
        let program = PROGRAMS.iter().find(|program| program.name == name)?;
        let scale = SIZES.iter().find(|size| Some(size.0) == words.clone().next())?.1;
        let seed = words.nth(1)?.parse().ok()?;
        Some(Self { program, scale, seed })
    }
}

const SIZES: [(&str, usize); 2] = [("small", 1), ("large", 4)];
const SEEDS: Range<u64> = 1..4;

/// Runs the one program that `VERDICT` names, and prints its diagnosis.
#[test]
#[ignore = "the other test runs it, in a process of its own"]
fn program() {
    let name = std::env::var("VERDICT").expect("VERDICT says which: true_leak:small:1");
    let case = Case::parse(&name).expect("PROGRAM:small|large:SEED");
    stop_the_clock();
    history::set_interval(SAMPLE);
    history::start();
    // So that no two programs have the same numbers.
    let number = PROGRAMS.iter().position(|program| program.name == case.program.name).expect("it is one of them") as u64;
    let mut work = Work::new(case.scale, Random(case.seed << 8 | number << 4 | case.scale as u64).next());
    (case.program.run)(&mut work);
    let ((earlier, sites_before), (later, sites_after)) = (work.earlier.expect("it was looked at"), work.later.expect("twice"));
    let leaks = freestone_stats::leaks(&sites_before, &sites_after);
    let diagnosis = diagnose(&earlier, &later);
    if let Some(directory) = std::env::var_os("VERDICT_POINTS") {
        let (first, last) = (Point::of(&earlier), Point::of(&later));
        let between = history::points().into_iter().filter(|point| first.at_ns < point.at_ns && point.at_ns < last.at_ns);
        let mut text = String::new();
        for point in [first].into_iter().chain(between).chain([last]) {
            writeln!(text, "{}", row(&point)).expect("a string has room");
        }
        fs::write(std::path::Path::new(&directory).join(&name), text).expect("the directory is there");
    }
    println!("{diagnosis}\n{leaks}");
    if case.program.is != Verdict::LeakSuspected {
        assert!(leaks.leaks.is_empty(), "a healthy program does not leak");
        assert!(diagnosis.verdict == Verdict::LeakSuspected || diagnosis.sites.is_empty());
    }
    println!("{VERDICT_IS}{}", diagnosis.verdict.key());
}

/// Before the name in the output of a program.
const VERDICT_IS: &str = "the verdict is ";

/// A point as numbers.
fn row(point: &Point) -> String {
    let resident = point.resident.unwrap_or_default();
    let numbers = [
        point.at_ns,
        point.live,
        point.thread_cached,
        point.depot,
        point.holes,
        point.dirty,
        point.metadata,
        point.released,
        point.allocations,
        point.frees,
        point.allocated_bytes,
        point.freed_bytes,
        point.os_calls,
        point.given_back,
        resident.total,
        resident.file_backed,
        u64::from(point.threads),
        u64::from(point.settles_ms),
    ];
    numbers.map(|number| number.to_string()).join(" ")
}

/// Runs a case. `Err`: what it said, if that was not its name.
fn check(case: &str, is: Verdict) -> Result<(), String> {
    let this = std::env::current_exe().expect("this program has a path");
    let mut command = Command::new(this);
    command.args(["--ignored", "--exact", "program", "--nocapture"]).env("VERDICT", case);
    // What the one who runs the tests has set is not meant for these.
    let output = command.env_remove("FREESTONE").output().expect("this program runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let named = text.lines().find_map(|line| line.split(VERDICT_IS).nth(1));
    if output.status.success() && named == Some(is.key()) {
        return Ok(());
    }
    let again = format!("VERDICT={case} cargo test -p freestone-stats --test verdicts -- --ignored --exact program --nocapture");
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{case} is {}, and was called {named:?}:\n{text}{errors}again: {again}\n", is.key()))
}

/// All of them.
#[test]
fn every_program_is_called_by_its_name() {
    let seeds = std::env::var("VERDICT_SEEDS").ok().and_then(|text| {
        let (start, end) = text.split_once("..")?;
        Some(start.parse().ok()?..end.parse().ok()?)
    });
    let seeds = seeds.unwrap_or(SEEDS);
    println!("seeds {seeds:?}");
    let mut cases = Vec::new();
    for seed in seeds {
        for (size, _) in SIZES {
            cases.extend(PROGRAMS.iter().map(|program| (format!("{}:{size}:{seed}", program.name), program.is)));
        }
    }
    let count = cases.len();
    let cases = Mutex::new(cases.into_iter());
    let next = || cases.lock().expect("nobody panics").next();
    let wrong: Vec<String> = thread::scope(|scope| {
        let run = || std::iter::from_fn(next).filter_map(|(case, is)| check(&case, is).err()).collect::<Vec<_>>();
        let runners: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(run)).collect();
        runners.into_iter().flat_map(|runner| runner.join().expect("nobody panics")).collect()
    });
    assert!(wrong.is_empty(), "{} of {count} are called by a wrong name\n\n{}", wrong.len(), wrong.join("\n"));
}
