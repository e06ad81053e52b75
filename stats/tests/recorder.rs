//! The flight recorder in processes that are killed, robbed of their file, forked and started twice: this test runs itself as a child in many roles.
//!
//! What a recording is worth shows when its process has ended without a word, so nearly every case here has a process that does.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, UNIX_EPOCH};

use freestone::{Freestone, Limit, control};
use freestone_stats::recorder::{self, Builder, Ending, Life, LimitKind, Recorder, Recording, Refusal, StartError, What, costs};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

const MIB: usize = 1 << 20;
/// The smallest recording, for cases that make many.
const SMALL: usize = 256 << 10;
const OFTEN: Duration = Duration::from_millis(10);

// ---- the children -------------------------------------------------------------------------------------------------------

/// What a child does is said in its environment. It answers on standard output, in lines that begin with `> `.
#[test]
#[ignore = "a child of the others"]
fn child() {
    let Ok(role) = std::env::var("ROLE") else { return };
    let path = PathBuf::from(std::env::var_os("RECORDING").unwrap_or_default());
    match role.as_str() {
        "grows" => grows(&path),
        "writes without a pause" => writes_without_a_pause(&path),
        "answers" => answers(&start(&path)),
        "rests" => answers(&Builder::new().interval(OFTEN).start(&path).expect("it starts")),
        "has no umask" => {
            // SAFETY: any mask will do.
            unsafe { libc::umask(0) };
            answers(&start(&path));
        }
        "has a umask of everything" => {
            // SAFETY: as above.
            unsafe { libc::umask(0o777) };
            answers(&start(&path));
        }
        "makes no system call" => makes_no_system_call(&path),
        "faults elsewhere" => faults_elsewhere(&path),
        "faults elsewhere with a handler" => {
            install_handler();
            faults_elsewhere(&path);
        }
        "forks" => forks(&path),
        "forks and faults there" => forks_and_faults_there(&path),
        "forks and exits there" => forks_and_exits_there(&path),
        "returns" => start(&path).forever(),
        "exits" => {
            start(&path).forever();
            std::process::exit(0);
        }
        "drops" => drop(start(&path)),
        "aborts" => {
            start(&path).forever();
            std::process::abort();
        }
        "inits" => {
            freestone_stats::init();
            answer("ready");
            wait_for_more();
        }
        "may write little" => may_write_little(&path),
        "is limited" => is_limited(&path),
        other => panic!("no such role: {other}"),
    }
}

fn start(path: &Path) -> Recorder {
    Builder::new().interval(OFTEN).bytes(SMALL).start(path).expect("it starts")
}

fn answer(text: &str) {
    println!("> {text}");
}

/// The next line from the parent. A parent that has gone ends the child.
fn wait_for_more() -> String {
    let mut line = String::new();
    match std::io::stdin().read_line(&mut line) {
        Ok(0) | Err(_) => std::process::exit(0),
        Ok(_) => line.trim().to_owned(),
    }
}

/// Says what it is asked, until it is killed.
fn answers(recorder: &Recorder) -> ! {
    answer("ready");
    loop {
        match wait_for_more().as_str() {
            "recording?" => answer(&recorder.is_recording().to_string()),
            "allocate" => answer(&format!("{}", vec![7_u8; 5 * MIB].iter().map(|&byte| u64::from(byte)).sum::<u64>())),
            other => answer(other),
        }
    }
}

fn grows(path: &Path) {
    start(path).forever();
    answer("ready");
    let mut all = Vec::new();
    loop {
        all.push(vec![7_u8; 10_000]);
        if all.len() == 10_000 {
            all.clear();
        }
    }
}

fn writes_without_a_pause(path: &Path) {
    let mut writer = costs::Costs::new(path, SMALL).expect("it starts");
    writer.store(&mut freestone_stats::snapshot());
    answer("ready");
    loop {
        let mut snapshot = freestone_stats::snapshot();
        for _ in 0..100 {
            writer.store(&mut snapshot);
        }
    }
}

/// Enters a mode in which any system call but `read` and `write` is the end, and writes records in it.
fn makes_no_system_call(path: &Path) {
    let mut writer = costs::Costs::new(path, SMALL).expect("it starts");
    let mut snapshot = freestone_stats::snapshot();
    writer.store(&mut snapshot);
    // Any other call ends the thread without a word; somebody must say so.
    thread::spawn(|| {
        thread::sleep(Duration::from_secs(20));
        std::process::exit(9);
    });
    // SAFETY: the arguments are numbers.
    assert_eq!(unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_STRICT) }, 0);
    for _ in 0..1000 {
        writer.store(&mut snapshot);
    }
    // SAFETY: the text is readable; so is nothing that ends the thread.
    unsafe { libc::write(1, c"> written\n".as_ptr().cast(), 10) };
    // SAFETY: ends the thread, which is allowed; `_exit` would end the process, which is not.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
}

/// Touches a map of another file, of which nothing is left.
fn faults_elsewhere(path: &Path) {
    let recorder = start(path);
    let other = path.with_extension("other");
    let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&other).expect("a file");
    file.set_len(4096).expect("it grows");
    // SAFETY: a mapping of a file, at a place of the kernel's choice.
    let map = unsafe {
        libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    assert_ne!(map, libc::MAP_FAILED);
    file.set_len(0).expect("it shrinks");
    answer("ready");
    // SAFETY: it is mapped; that there is no page any more is what this is about.
    unsafe { map.cast::<u8>().write_volatile(7) };
    drop(recorder);
    unreachable!("the page is not there");
}

fn install_handler() {
    extern "C" fn handler(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
        // SAFETY: ends the process, which is allowed in a handler.
        unsafe { libc::_exit(42) };
    }
    // SAFETY: all zeros is a valid one.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as *const () as usize;
    action.sa_flags = libc::SA_SIGINFO;
    // SAFETY: the handler has the signature that the flag asks for.
    assert_eq!(unsafe { libc::sigaction(libc::SIGBUS, &raw const action, std::ptr::null_mut()) }, 0);
}

/// Leaves a child behind that lives on, drops the parent's recorder, and records for itself at another path.
fn forks(path: &Path) {
    let recorder = start(path);
    // SAFETY: the child does what a child on this allocator may.
    if unsafe { libc::fork() } == 0 {
        assert!(!recorder.is_recording());
        drop(recorder);
        let of_child = start(&path.with_extension("child"));
        thread::sleep(5 * OFTEN);
        assert!(of_child.is_recording());
        drop(of_child);
        answer("the child is ready");
        wait_for_more();
        std::process::exit(0);
    }
    answers(&recorder);
}

/// Where the parent has its recording, the child has a file of its own, of which nothing is left.
fn forks_and_faults_there(path: &Path) {
    let recorder = start(path);
    let maps = fs::read_to_string("/proc/self/maps").expect("it can be read");
    let line = maps.lines().find(|line| line.ends_with("its.rec")).expect("the recording is mapped");
    let start = usize::from_str_radix(line.split('-').next().expect("an address"), 16).expect("in hexadecimal");
    // SAFETY: the child does what a child on this allocator may.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let file = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path.with_extension("other"));
        let file = file.expect("a file");
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED_NOREPLACE);
        // SAFETY: where nothing is mapped, or not at all.
        let map = unsafe { libc::mmap(std::ptr::without_provenance_mut(start), 4096, protection, flags, file.as_raw_fd(), 0) };
        assert_eq!(map.addr(), start, "the parent's recording is not here");
        // SAFETY: it is mapped; that there is no page is what this is about.
        unsafe { map.cast::<u8>().write_volatile(7) };
        // SAFETY: always allowed.
        unsafe { libc::_exit(0) };
    }
    let mut status = 0;
    // SAFETY: our child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    answer(&status.to_string());
    answers(&recorder);
}

/// The child goes through the farewell of the standard library.
fn forks_and_exits_there(path: &Path) {
    let recorder = start(path);
    // SAFETY: as above.
    let child = unsafe { libc::fork() };
    if child == 0 {
        std::process::exit(0);
    }
    let mut status = 0;
    // SAFETY: our child.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0);
    answers(&recorder);
}

fn may_write_little(path: &Path) {
    let limit = libc::rlimit { rlim_cur: 100_000, rlim_max: 100_000 };
    // SAFETY: the limit is readable.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit) }, 0);
    let error = recorder::start(path).expect_err("it is too large");
    answer(&error.to_string());
}

/// Holds more than its limits, step by step.
fn is_limited(path: &Path) {
    control::set_memory_limit(Limit::Bytes(64 * MIB));
    control::set_hard_limit(Limit::Bytes(256 * MIB));
    Builder::new().interval(Duration::from_hours(1)).bytes(SMALL).start(path).expect("it starts").forever();
    let mut all = Vec::new();
    // More than there may be. It shows with the next look.
    assert!(Vec::<u8>::new().try_reserve_exact(1 << 30).is_err());
    for _ in 0..125 {
        all.push(vec![7_u8; 2 * MIB]);
        thread::sleep(Duration::from_millis(4));
    }
    thread::sleep(Duration::from_millis(300));
    answer("ready");
    wait_for_more();
    drop(all);
}

/// A child, and the lines between it and us.
struct Role {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    errors: ChildStderr,
}

impl Role {
    fn play(role: &str, path: &Path) -> Self {
        Self::play_with(role, path, &[])
    }

    fn play_with(role: &str, path: &Path, environment: &[(&str, &Path)]) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("a test knows where it is"));
        command.args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"]);
        command.env("ROLE", role).env("RECORDING", path).env("RUST_BACKTRACE", "0");
        command.envs(environment.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the child starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let errors = child.stderr.take().expect("piped");
        Self { child, input, output, errors }
    }

    /// Plays until the child has said that it is ready.
    fn ready(role: &str, path: &Path) -> Self {
        let mut played = Self::play(role, path);
        assert_eq!(played.heard(), "ready", "{role}");
        played
    }

    /// The next answer; nothing if there is none any more.
    fn heard(&mut self) -> String {
        for line in self.output.by_ref().lines() {
            // Whatever the test's own frame printed may stand before it.
            if let Some((_, answer)) = line.expect("text").split_once("> ") {
                return answer.to_owned();
            }
        }
        String::new()
    }

    fn asked(&mut self, question: &str) -> String {
        writeln!(self.input, "{question}").expect("the child listens");
        self.heard()
    }

    /// Kills it, as the OOM killer would. Returns what it had said on standard error.
    fn kill(mut self) -> String {
        self.child.kill().expect("it lives");
        self.ended().1
    }

    /// Waits for the end: code, or signal below zero; and what it had said on standard error.
    fn ended(mut self) -> (i32, String) {
        let mut errors = String::new();
        self.errors.read_to_string(&mut errors).expect("text");
        let status = self.child.wait().expect("our child");
        (status.code().unwrap_or_else(|| -status.signal().unwrap_or(0)), errors)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }
}

/// An empty folder of its own for each case.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("recorder").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("cargo gives tests a folder");
    folder
}

fn read(path: &Path) -> Recording {
    recorder::read(path).expect("a recording")
}

/// There is one recording in a process, and tests share theirs.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until something is so, for a minute at most.
fn wait_until(what: &str, is_so: impl FnMut() -> bool) {
    let mut is_so = is_so;
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_mins(1), "{what} does not happen");
        thread::sleep(OFTEN);
    }
}

/// Times differ from run to run, and a seed replays them.
fn seed() -> u64 {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64));
    println!("replay with SEED={seed}");
    seed
}

/// What must be true of every recording, however its process ended.
fn check(recording: &Recording) {
    assert!(!recording.snapshots.is_empty());
    for pair in recording.snapshots.windows(2) {
        assert!(pair[0].at <= pair[1].at);
        let (earlier, later) = (&pair[0].heap, &pair[1].heap);
        assert!(earlier.allocations <= later.allocations);
        assert!(earlier.frees <= later.frees);
        assert!(earlier.events.maps <= later.events.maps);
    }
    for snapshot in &recording.snapshots {
        let heap = &snapshot.heap;
        let of_classes: u64 = heap.classes.iter().map(|class| class.allocations).sum();
        assert_eq!(of_classes + heap.large.allocations, heap.allocations, "a record is of one moment");
    }
}

// ---- what a process's end leaves ----------------------------------------------------------------------------------------

#[test]
fn a_process_that_is_killed_leaves_its_last_moments() {
    let folder = folder("killed");
    let mut seed = seed();
    for round in 0..40 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let path = folder.join(format!("{round}.rec"));
        let role = Role::ready("grows", &path);
        let pid = role.pid();
        thread::sleep(Duration::from_micros(20_000 + (seed >> 33) % 60_000));
        role.kill();
        let recording = read(&path);
        check(&recording);
        assert!(recording.torn <= 1, "one at most was being written");
        assert_eq!(recording.origin.pid, pid);
        assert_eq!((recording.life, recording.ending()), (Life::Ended, None));
        assert!(recording.origin.exe.contains("recorder"), "{}", recording.origin.exe);
    }
}

/// Nothing but writing, so that now and then a kill falls into the copying of a record: that takes a fiftieth of
/// the time. Cuts after every byte are tried in the unit tests.
#[test]
fn a_kill_in_the_middle_of_a_record_costs_that_record() {
    let folder = folder("torn");
    let mut seed = seed();
    let mut torn = 0;
    for round in 0..100 {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let path = folder.join(format!("{round}.rec"));
        let role = Role::ready("writes without a pause", &path);
        thread::sleep(Duration::from_micros(1000 + (seed >> 33) % 3000));
        role.kill();
        let recording = read(&path);
        check(&recording);
        assert!(recording.torn <= 1);
        torn += recording.torn;
    }
    println!("{torn} of 100 kills fell into the copying of a record");
}

#[test]
fn an_orderly_end_says_so() {
    let folder = folder("orderly");
    for (role, code, ending) in [
        ("returns", 0, Some(Ending::Exited)),
        ("exits", 0, Some(Ending::Exited)),
        ("drops", 0, Some(Ending::Stopped)),
        ("aborts", -libc::SIGABRT, None),
    ] {
        let path = folder.join(role);
        let (ended, errors) = Role::play(role, &path).ended();
        assert_eq!(ended, code, "{role}: {errors}");
        let recording = read(&path);
        check(&recording);
        assert_eq!(recording.ending(), ending, "{role}");
        assert_eq!(recording.life, Life::Ended, "{role}");
        assert_eq!(recording.torn, 0);
    }
}

#[test]
fn a_process_that_lives_can_be_read() {
    let path = folder("lives").join("its.rec");
    let mut role = Role::ready("answers", &path);
    wait_until("a second snapshot", || read(&path).snapshots.len() > 1);
    let recording = read(&path);
    check(&recording);
    assert_eq!(recording.life, Life::Running);
    assert!(recording.torn <= 1);
    assert_eq!(recording.origin.interval, OFTEN);
    assert_eq!(role.asked("recording?"), "true");
    role.kill();
}

#[test]
fn at_a_limit_it_does_not_wait() {
    let path = folder("limited").join("its.rec");
    let role = Role::ready("is limited", &path);
    role.kill();
    let recording = read(&path);
    check(&recording);
    let count = |wanted: LimitKind| {
        let is_it = |what: &What| matches!(what, What::Limit { kind, .. } if *kind == wanted);
        recording.events.iter().filter(|event| is_it(&event.what)).count()
    };
    // The interval is an hour: that there is more than the first snapshot is due to the limits.
    assert!(recording.snapshots.len() > 1);
    assert!(count(LimitKind::NearMemoryLimit) > 0, "{:?}", recording.events);
    assert!(count(LimitKind::NearHardLimit) > 0, "{:?}", recording.events);
    assert!(count(LimitKind::Fuse) > 0, "{:?}", recording.events);
    assert_eq!(count(LimitKind::Refused), 1, "{:?}", recording.events);
    let limit = recording.events.iter().find_map(|event| match event.what {
        What::Limit { kind: LimitKind::NearMemoryLimit, limit_bytes, .. } => limit_bytes,
        _ => None,
    });
    assert_eq!(limit, Some(64 << 20));
}

// ---- what it costs the process ------------------------------------------------------------------------------------------

#[test]
fn writing_a_record_makes_no_system_call() {
    let mut role = Role::play("makes no system call", &folder("quiet").join("its.rec"));
    assert_eq!(role.heard(), "written");
    let _ = role.child.kill();
    role.ended();
}

#[test]
fn the_thread_allocates_nothing_and_takes_no_signals() {
    let path = folder("at_rest").join("its.rec");
    let role = Role::ready("rests", &path);
    wait_until("some snapshots", || read(&path).snapshots.len() > 30);
    let tasks = format!("/proc/{}/task", role.pid());
    let own = fs::read_dir(tasks).expect("it lives").filter_map(|task| {
        let task = task.expect("a folder").path();
        let name = fs::read_to_string(task.join("comm")).expect("a name");
        (name.trim() == "freestone-rec").then(|| fs::read_to_string(task.join("status")).expect("a status"))
    });
    let status: Vec<String> = own.collect();
    assert_eq!(status.len(), 1, "one thread");
    let blocked = status[0].lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("what is blocked");
    let blocked = u64::from_str_radix(blocked.trim(), 16).expect("bits");
    for (signal, is_blocked) in [(libc::SIGTERM, true), (libc::SIGUSR1, true), (libc::SIGPIPE, true), (libc::SIGBUS, false)] {
        assert_eq!(blocked >> (signal - 1) & 1 == 1, is_blocked, "signal {signal}");
    }
    let recording = read(&path);
    // The main thread waits for us, and allocates nothing either once it does.
    let counts: Vec<u64> = recording.snapshots.iter().skip(10).map(|snapshot| snapshot.heap.allocations).collect();
    assert!(counts.len() > 10);
    assert!(counts.iter().all(|&count| count == counts[0]), "{counts:?}");
    role.kill();
}

#[test]
fn no_descriptor_stays_open() {
    let _alone = alone();
    let path = folder("descriptors").join("its.rec");
    let is_open = |path: &Path| {
        let open = fs::read_dir("/proc/self/fd").expect("we live");
        open.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).any(|target| target == path)
    };
    let recorder = start(&path);
    assert!(!is_open(&path));
    drop(recorder);
    let file = File::open(&path).expect("it is there");
    assert!(is_open(&path), "the test would see one");
    drop(file);
}

// ---- what happens to the file -------------------------------------------------------------------------------------------

#[test]
fn nobody_else_may_read_it_whatever_the_umask() {
    let folder = folder("mode");
    for role in ["answers", "has no umask", "has a umask of everything"] {
        let path = folder.join(role);
        let role = Role::ready(role, &path);
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o7777, 0o600);
        role.kill();
    }
}

#[test]
fn what_is_not_ours_is_not_touched() {
    let _alone = alone();
    let folder = folder("refused");
    let refused = |path: &Path| match recorder::start(path) {
        Err(StartError::Refused(_, refusal)) => refusal,
        other => panic!("{}: {other:?}", path.display()),
    };
    let target = folder.join("target");
    fs::write(&target, "").expect("a file");
    symlink(&target, folder.join("symlink")).expect("a symlink");
    assert_eq!(refused(&folder.join("symlink")), Refusal::Symlink);
    symlink(folder.join("nowhere"), folder.join("dangling")).expect("a symlink");
    assert_eq!(refused(&folder.join("dangling")), Refusal::Symlink);
    assert!(!folder.join("nowhere").exists());
    assert_eq!(fs::metadata(&target).expect("it is there").len(), 0);

    assert_eq!(refused(&folder), Refusal::NotAFile);
    let pipe = folder.join("pipe");
    let name = CString::new(pipe.as_os_str().as_bytes()).expect("no zero bytes");
    // SAFETY: the name ends with a zero byte.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    assert_eq!(refused(&pipe), Refusal::NotAFile);
    assert_eq!(refused(Path::new("/dev/null")), Refusal::NotAFile);

    fs::hard_link(&target, folder.join("other name")).expect("a link");
    assert_eq!(refused(&target), Refusal::OtherLinks);

    let letter = folder.join("letter");
    fs::write(&letter, "Dear diary,").expect("a file");
    assert!(matches!(recorder::start(&letter), Err(StartError::NotARecording(_))));
    assert_eq!(fs::read_to_string(&letter).expect("it is there"), "Dear diary,");
    // Nor what would be pushed out by putting a recording aside.
    let path = folder.join("its.rec");
    drop(start(&path));
    fs::rename(&letter, folder.join("its.rec.1")).expect("a free name");
    assert!(
        matches!(Builder::new().bytes(SMALL).start(&path), Err(StartError::NotARecording(path)) if path.ends_with("its.rec.1"))
    );
    assert_eq!(fs::read_to_string(folder.join("its.rec.1")).expect("it is there"), "Dear diary,");

    let missing = recorder::start(folder.join("no/such/folder")).expect_err("there is no folder").to_string();
    assert!(missing.starts_with("cannot open ") && missing.ends_with("No such file or directory (os error 2)"), "{missing}");

    // SAFETY: always succeeds.
    if unsafe { libc::geteuid() } == 0 {
        let others = folder.join("others");
        fs::write(&others, "").expect("a file");
        std::os::unix::fs::chown(&others, Some(12_345), None).expect("root may");
        assert_eq!(refused(&others), Refusal::NotOurs);
    } else {
        println!("SKIPPED: only root can make a file of another user");
    }
}

/// A small disk of its own, for as long as this lives.
struct Mounted(CString);

impl Mounted {
    /// `None`: we may not.
    fn tmpfs(place: &Path, size: &str) -> Option<Self> {
        let options = CString::new(format!("size={size}")).expect("no zero bytes");
        let place = CString::new(place.as_os_str().as_bytes()).expect("no zero bytes");
        // SAFETY: all texts end with a zero byte.
        let mounted = unsafe {
            libc::mount(c"tmpfs".as_ptr(), place.as_ptr(), c"tmpfs".as_ptr(), libc::MS_NOSUID, options.as_ptr().cast())
        };
        (mounted == 0).then_some(Self(place))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // SAFETY: the text ends with a zero byte.
        unsafe { libc::umount2(self.0.as_ptr(), libc::MNT_DETACH) };
    }
}

#[test]
fn a_full_disk_is_an_error_at_the_start() {
    let _alone = alone();
    let place = folder("full_disk");
    let Some(_mounted) = Mounted::tmpfs(&place, "1m") else {
        println!("SKIPPED: a disk that is full takes a mount, and only root may mount");
        eprintln!("SKIPPED: a disk that is full takes a mount, and only root may mount");
        return;
    };
    let path = place.join("its.rec");
    let error = recorder::start(&path).expect_err("4 MiB do not fit").to_string();
    let is_there = path.exists();
    // An earlier recording has its name back.
    drop(start(&path));
    let before = fs::metadata(&path).expect("it is there").ino();
    let again = recorder::start(&path).map(drop);
    let after = fs::metadata(&path).map(|its| its.ino());
    // Whoever fits, and sees the disk fill up later, goes on.
    fs::remove_file(&path).expect("it is there");
    let mut role = Role::ready("answers", &path);
    let filled = fs::write(place.join("filler"), vec![7; 2 * MIB]);
    thread::sleep(10 * OFTEN);
    let recording = role.asked("recording?");
    role.kill();
    let read = recorder::read(&path);
    assert!(error.ends_with("No space left on device (os error 28)"), "{error}");
    assert!(!is_there, "nothing is left of it");
    assert!(again.is_err());
    assert_eq!(after.ok(), Some(before));
    assert!(filled.is_err());
    assert_eq!(recording, "true");
    check(&read.expect("a recording"));
}

#[test]
fn a_limit_on_file_sizes_is_an_error_and_no_signal() {
    let path = folder("file_size").join("its.rec");
    let mut role = Role::play("may write little", &path);
    assert!(role.heard().ends_with("file too large"));
    let (code, errors) = role.ended();
    assert_eq!(code, 0, "{errors}");
    assert!(!path.exists());
}

#[test]
fn a_process_whose_file_is_cut_short_lives_and_answers() {
    let folder = folder("cut_short");
    for bytes in [0, 1, 4096, 10_000, SMALL as u64 - 1] {
        let path = folder.join(bytes.to_string());
        let mut role = Role::ready("answers", &path);
        let file = OpenOptions::new().write(true).open(&path).expect("it is there");
        file.set_len(bytes).expect("it shrinks");
        wait_until("the end of recording", || role.asked("recording?") == "false");
        assert_eq!(role.asked("allocate"), (7 * 5 * MIB).to_string());
        let errors = role.kill();
        assert_eq!(errors.matches("freestone: the recording ").count(), 1, "{errors}");
        assert!(errors.contains("cut short"), "{errors}");
        match recorder::read(&path) {
            Ok(recording) => assert!(recording.missing_bytes > 0),
            Err(error) => assert!(bytes < 4096 && error.to_string().starts_with("it ends after"), "{error}"),
        }
    }
}

/// No look at the file comes before the store here: the store itself fails, again and again, in file after file.
#[test]
fn a_store_into_a_file_that_is_gone_goes_nowhere() {
    let folder = folder("gone");
    let path = folder.join("its.rec");
    let mut role = Role::ready("writes without a pause", &path);
    OpenOptions::new().write(true).open(&path).expect("it is there").set_len(0).expect("it shrinks");
    thread::sleep(Duration::from_millis(50));
    assert!(role.child.try_wait().expect("our child").is_none(), "it still writes");
    role.kill();
}

#[test]
fn faults_that_are_not_ours_end_the_process_as_before() {
    let folder = folder("elsewhere");
    let (code, errors) = Role::ready("faults elsewhere", &folder.join("its.rec")).ended();
    assert_eq!(code, -libc::SIGBUS, "{errors}");
    let (code, errors) = Role::ready("faults elsewhere with a handler", &folder.join("again.rec")).ended();
    assert_eq!(code, 42, "the program's own handler decides: {errors}");
}

#[test]
fn faults_of_a_child_of_fork_are_its_own() {
    let mut role = Role::play("forks and faults there", &folder("child_faults").join("its.rec"));
    assert_eq!(role.heard(), libc::SIGBUS.to_string(), "its memory must not be replaced behind its back");
}

#[test]
fn a_process_whose_file_is_deleted_lives_and_answers() {
    let path = folder("deleted").join("its.rec");
    let mut role = Role::ready("answers", &path);
    fs::remove_file(&path).expect("it is there");
    assert_eq!(role.asked("allocate"), (7 * 5 * MIB).to_string());
    // Its place is free: another may have it.
    let mut other = Role::ready("answers", &path);
    thread::sleep(10 * OFTEN);
    assert_eq!(role.asked("hello"), "hello");
    assert_eq!(other.asked("recording?"), "true");
    let errors = role.kill();
    assert_eq!(errors.matches("is not in its place any more").count(), 1, "{errors}");
    assert_eq!(read(&path).life, Life::Running);
    other.kill();
}

// ---- two of them --------------------------------------------------------------------------------------------------------

#[test]
fn one_path_is_for_one_process() {
    let _alone = alone();
    let path = folder("twice").join("its.rec");
    let mut role = Role::ready("answers", &path);
    match recorder::start(&path) {
        Err(StartError::InUse(_, pid)) => assert_eq!(pid, Some(role.pid())),
        other => panic!("{other:?}"),
    }
    assert_eq!(role.asked("recording?"), "true");
    role.kill();
    // Once it is gone, its recording is put aside.
    let killed = read(&path);
    let recorder = start(&path);
    let aside = read(&path.with_extension("rec.1"));
    assert_eq!(aside.origin.pid, killed.origin.pid);
    assert_eq!(read(&path).origin.pid, std::process::id());
    match recorder::start(path.with_extension("other")) {
        Err(StartError::Recording(at)) => assert_eq!(at, path),
        other => panic!("{other:?}"),
    }
    drop(recorder);
}

#[test]
fn three_earlier_recordings_are_kept() {
    let folder = folder("kept");
    let path = folder.join("its.rec");
    let pids: Vec<u32> = (0..6)
        .map(|_| {
            let role = Role::ready("answers", &path);
            let pid = role.pid();
            role.kill();
            pid
        })
        .collect();
    let pid = |name: &str| read(&folder.join(name)).origin.pid;
    assert_eq!([pid("its.rec"), pid("its.rec.1"), pid("its.rec.2"), pid("its.rec.3")], [pids[5], pids[4], pids[3], pids[2]]);
    assert_eq!(fs::read_dir(&folder).expect("a folder").count(), 4);
}

#[test]
fn a_child_of_fork_has_no_part_in_it() {
    let _alone = alone();
    let path = folder("fork").join("its.rec");
    let mut role = Role::play("forks", &path);
    let mut said = [role.heard(), role.heard()];
    said.sort();
    assert_eq!(said, ["ready", "the child is ready"]);
    let pid = role.pid();
    let of_child = read(&path.with_extension("child"));
    assert_ne!(of_child.origin.pid, pid);
    assert_eq!(of_child.ending(), Some(Ending::Stopped));
    let recording = read(&path);
    check(&recording);
    assert_eq!((recording.origin.pid, recording.life, recording.ending()), (pid, Life::Running, None));
    // The parent is killed; the child lives on, and holds nothing.
    role.child.kill().expect("it lives");
    role.child.wait().expect("our child");
    drop(start(&path));
    drop(role);
}

#[test]
fn a_child_of_fork_that_exits_says_no_farewell() {
    let path = folder("fork_exits").join("its.rec");
    let mut role = Role::ready("forks and exits there", &path);
    let before = read(&path).snapshots.len();
    wait_until("more snapshots of the parent", || read(&path).snapshots.len() > before);
    assert_eq!(role.asked("recording?"), "true");
    assert_eq!(read(&path).ending(), None);
    role.kill();
}

// ---- init ---------------------------------------------------------------------------------------------------------------

#[test]
fn the_environment_starts_it() {
    let folder = folder("environment");
    let mut role = Role::play_with("inits", Path::new(""), &[("FREESTONE_RECORDER", &folder.join("its.%p.rec"))]);
    assert_eq!(role.heard(), "ready");
    let path = folder.join(format!("its.{}.rec", role.pid()));
    wait_until("a snapshot", || read(&path).snapshots.len() == 1);
    role.kill();

    let mut role = Role::play_with("inits", Path::new(""), &[("FREESTONE_RECORDER", &folder)]);
    assert_eq!(role.heard(), "ready", "the program does not mind");
    let errors = role.kill();
    let expected = format!("freestone: no flight recorder: {} is no regular file\n", folder.display());
    assert_eq!(errors, expected);

    let mut role = Role::play("inits", Path::new(""));
    assert_eq!(role.heard(), "ready");
    assert_eq!(role.kill(), "");
}

#[test]
fn permissions_of_an_empty_file_are_narrowed() {
    let _alone = alone();
    let path = folder("empty").join("its.rec");
    fs::write(&path, "").expect("a file");
    fs::set_permissions(&path, Permissions::from_mode(0o666)).expect("ours");
    drop(start(&path));
    assert_eq!(fs::metadata(&path).expect("it is there").mode() & 0o7777, 0o600);
    check(&read(&path));
}
