//! Profiles into a directory that is missing, full, a pipe, a symlink, not ours, taken away and given back; and by a process that is killed while it
//! writes. This test runs itself as a child where the process must end, or says something on standard error.

mod patience;

use std::ffi::CString;
use std::fs::{self, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use freestone::Freestone;
use freestone_stats::continuous::{self, DirectoryOptions, Handle, Rotate, StartError, Stats};
use freestone_stats::profile::Kind;
use patience::{PATIENCE, until};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

const OFTEN: Duration = Duration::from_millis(100);
const NEVER: Duration = Duration::from_hours(24);
/// A user who may little.
const NOBODY: u32 = 65534;

// ---- the children -------------------------------------------------------------------------------------------------------

#[test]
#[ignore = "a child of the others"]
fn child() {
    let Ok(role) = std::env::var("ROLE") else { return };
    let path = PathBuf::from(std::env::var_os("DIRECTORY").unwrap_or_default());
    match role.as_str() {
        "writes without a pause" => {
            let kept = keep_much();
            let handle = continuous::to_directory(&path, often().max_files(20)).expect("it starts");
            println!("> ready");
            loop {
                handle.now();
                thread::yield_now();
                std::hint::black_box(&kept);
            }
        }
        "inits" => {
            freestone_stats::init();
            println!("> ready");
            let _ = std::io::stdin().read(&mut [0]);
        }
        other => panic!("no such role: {other}"),
    }
}

/// Something to be in profiles.
fn keep_much() -> Vec<Vec<u8>> {
    (0..2000).map(|size| vec![7; 1000 + size]).collect()
}

fn often() -> DirectoryOptions {
    DirectoryOptions::new().every(OFTEN)
}

fn on_request() -> DirectoryOptions {
    DirectoryOptions::new().every(NEVER)
}

/// A child in a role, which has said that it is ready.
struct Role(Child);

impl Role {
    fn start(role: &str, path: &Path, environment: &[(&str, &str)]) -> Self {
        Self::start_as(None, role, path, environment).unwrap_or_else(|| panic!("the child in the role {role:?} does not start"))
    }

    /// As another user, or `None` if that one cannot.
    fn start_as(user: Option<u32>, role: &str, path: &Path, environment: &[(&str, &str)]) -> Option<Self> {
        let mut command = Command::new(std::env::current_exe().expect("it has one"));
        command.args(["--ignored", "--exact", "child", "--nocapture", "--test-threads=1"]);
        command.env("ROLE", role).env("DIRECTORY", path).envs(environment.iter().copied()).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        let mut child = command.spawn().ok()?;
        let output = child.stdout.take().expect("piped");
        let ready = BufReader::new(output).lines().map_while(Result::ok).any(|line| line.ends_with("> ready"));
        ready.then_some(Self(child))
    }

    /// What it said on standard error until it was killed.
    fn kill(mut self) -> String {
        self.0.kill().expect("it is there");
        self.0.wait().expect("it was");
        let mut said = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            let _ = stderr.read_to_string(&mut said);
        }
        said
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }
}

// ---- what is there ------------------------------------------------------------------------------------------------------

/// A directory for one test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("freestone-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("it can be made");
        Self(path)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::set_permissions(&self.0, Permissions::from_mode(0o700));
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Names in a directory, sorted.
fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).expect("it can be read");
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("it can be read").file_name().into_string().expect("text")).collect();
    names.sort();
    names
}

fn profiles(path: &Path) -> Vec<String> {
    names(path).into_iter().filter(|name| name.ends_with(".pb.gz")).collect()
}

/// Asks for a profile, and waits until there is one.
#[track_caller]
fn one_more(handle: &Handle) -> Stats {
    let before = handle.stats().written;
    handle.now();
    until(handle, "another profile", |stats| stats.written > before)
}

fn is_root() -> bool {
    // SAFETY: always succeeds.
    unsafe { libc::geteuid() == 0 }
}

fn is_profile_name(name: &str, pid: u32) -> bool {
    let rest = name.strip_prefix("heap-").and_then(|rest| rest.strip_suffix(&format!("-{pid}.pb.gz")));
    rest.is_some_and(|time| time.len() == 20 && time.ends_with('Z') && time.as_bytes()[8] == b'T')
}

// ---- the tests ----------------------------------------------------------------------------------------------------------

#[test]
fn profiles_appear_with_their_names_and_rights_and_end_with_the_handle() {
    let place = Place::new("appear");
    let handle = continuous::to_directory(&place.0, often().kinds(&[Kind::Heap, Kind::Contention])).expect("it starts");
    let stats = until(&handle, "three rounds", |stats| stats.written >= 6);
    assert_eq!((stats.failed, stats.dropped, stats.waiting, stats.last_error), (0, 0, 0, None));
    assert!(stats.taken >= stats.written);
    assert!(stats.last_written.is_some());
    drop(handle);
    let written = names(&place.0);
    assert!(written.len() >= 6, "{written:?}");
    for name in &written {
        let heap = name.replace("contention-", "heap-");
        assert!(is_profile_name(&heap, std::process::id()), "{name}");
        assert_eq!(fs::metadata(place.at(name)).expect("it is there").mode() & 0o7777, 0o600, "{name}");
    }
    assert!(written.iter().any(|name| name.starts_with("contention-")));
    thread::sleep(OFTEN * 3);
    assert_eq!(names(&place.0), written, "nothing comes after the end");
}

#[test]
fn what_is_written_is_read_by_the_tool_of_go() {
    let place = Place::new("go");
    let kept: Vec<Vec<u8>> = (0..32).map(|number| vec![number; 1 << 20]).collect();
    let handle = continuous::to_directory(&place.0, on_request()).expect("it starts");
    one_more(&handle);
    let file = place.at(&profiles(&place.0)[0]);
    let Ok(output) = Command::new("go").args(["tool", "pprof", "-raw"]).arg(&file).output() else {
        println!("SKIPPED: no Go here (Debian package golang-go), so its tool read no profile");
        eprintln!("SKIPPED: no Go here (Debian package golang-go), so its tool read no profile");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("PeriodType: space bytes"), "{text}");
    assert!(text.contains("alloc_objects/count alloc_space/bytes inuse_objects/count inuse_space/bytes[dflt]"), "{text}");
    // A line of values for each stack; the last is of what is in use.
    let in_use = |line: &str| line.split_once(':')?.0.split_whitespace().nth(3)?.parse::<u64>().ok();
    let sum: u64 = text.lines().filter_map(in_use).sum();
    assert!(sum >= 20 << 20, "{sum} bytes of 32 MiB: {text}");
    // Names are in the file, since the tool finds those of Go's programs only; and they are whole.
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_once(" M=1 ").map(|(_, name)| name)).collect();
    assert!(names.iter().any(|name| name.contains("::")), "{text}");
    assert!(!names.iter().any(|name| name.starts_with("::")), "{text}");
    drop(kept);
}

#[test]
fn a_umask_takes_nothing_from_the_owner() {
    // Another process's, since this one has other threads that make files.
    let place = Place::new("umask");
    let script = "umask 0777; exec \"$0\" --ignored --exact child --nocapture --test-threads=1";
    let mut child = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().expect("it has one"))
        .envs([("ROLE", "inits"), ("FREESTONE_PROFILE_EVERY", "100ms")])
        .env("FREESTONE_PROFILE_DIR", &place.0)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let began = Instant::now();
    while profiles(&place.0).is_empty() {
        assert!(began.elapsed() < PATIENCE, "no profile came");
        thread::sleep(Duration::from_millis(10));
    }
    child.kill().expect("it is there");
    child.wait().expect("it was");
    for name in profiles(&place.0) {
        assert_eq!(fs::metadata(place.at(&name)).expect("it is there").mode() & 0o7777, 0o600, "{name}");
    }
}

#[test]
fn the_oldest_go_when_there_are_too_many_and_nobody_elses() {
    let place = Place::new("many");
    // Of another process, of this one but of another form, and what only looks like one of ours.
    let own = std::process::id();
    let kept = [
        "heap-20200101T000000.000Z-1.pb.gz".to_owned(),
        format!("heap-20200101T000000Z-{own}.pb.gz"),
        format!("heap-20200101T000000.000Z-{own}.pb.gz.bak"),
        format!("cpu-20200101T000000.000Z-{own}.pb.gz"),
        format!("heap-20200101T000000.000Z-0{own}.pb.gz"),
        "notes.txt".to_owned(),
    ];
    for name in &kept {
        fs::write(place.at(name), "x").expect("it can be written");
    }
    let link = format!("heap-20200101T000000.001Z-{own}.pb.gz");
    symlink(place.at("notes.txt"), place.at(&link)).expect("it can be made");
    let folder = format!("heap-20200101T000000.002Z-{own}.pb.gz");
    fs::create_dir(place.at(&folder)).expect("it can be made");
    // Of this process, by its name: it was there before.
    let earlier = format!("heap-20200101T000000.003Z-{own}.pb.gz");
    fs::write(place.at(&earlier), "x").expect("it can be written");

    let handle = continuous::to_directory(&place.0, on_request().max_files(3)).expect("it starts");
    let mut newest = Vec::new();
    for round in 0..8 {
        let stats = one_more(&handle);
        let mut ours = profiles(&place.0);
        ours.retain(|name| is_profile_name(name, own) && *name != link && *name != folder);
        assert!(ours.len() <= 3, "{ours:?}");
        assert_eq!(ours.contains(&earlier), round < 2, "the oldest goes first: {ours:?}");
        assert_eq!(stats.deleted, stats.written.saturating_sub(2));
        newest.push(ours.last().expect("one was written").clone());
    }
    newest.sort();
    newest.dedup();
    assert_eq!(newest.len(), 8, "the newest is never the one that goes");
    let there = names(&place.0);
    for name in kept.iter().chain([&link, &folder]) {
        assert!(there.contains(name), "{name} is gone: {there:?}");
    }
    assert_eq!(fs::read(place.at("notes.txt")).expect("it is there"), b"x");
}

#[test]
fn a_directory_of_ones_own_has_files_of_earlier_processes_rotated_too() {
    let place = Place::new("all");
    for pid in 1..=5 {
        fs::write(place.at(&format!("heap-2020010{pid}T000000.000Z-{pid}.pb.gz")), "x").expect("it can be written");
    }
    let handle = continuous::to_directory(&place.0, on_request().max_files(4).rotate(Rotate::All)).expect("it starts");
    one_more(&handle);
    let left = profiles(&place.0);
    assert_eq!(left.len(), 4);
    assert_eq!(left[0], "heap-20200103T000000.000Z-3.pb.gz", "{left:?}");
}

#[test]
fn the_oldest_go_when_they_are_too_large_together() {
    let place = Place::new("large");
    let own = std::process::id();
    let old: Vec<String> = (0..4).map(|number| format!("heap-20200101T00000{number}.000Z-{own}.pb.gz")).collect();
    for name in &old {
        fs::write(place.at(name), vec![b'x'; 1 << 20]).expect("it can be written");
    }
    let handle = continuous::to_directory(&place.0, on_request().max_bytes(3 << 20)).expect("it starts");
    let stats = one_more(&handle);
    let left = profiles(&place.0);
    let sum: u64 = left.iter().map(|name| fs::metadata(place.at(name)).expect("it is there").len()).sum();
    assert!(sum <= 3 << 20, "{sum} bytes in {left:?}");
    assert!(left.contains(&old[3]), "no more goes than must");
    assert!(!left.contains(&old[0]));
    assert_eq!(stats.deleted, 4 + 1 - left.len() as u64);
}

#[test]
fn a_profile_that_is_larger_than_all_may_be_is_not_written() {
    let place = Place::new("tiny");
    let kept = keep_much();
    let handle = continuous::to_directory(&place.0, on_request().max_bytes(1)).expect("it starts");
    handle.now();
    let stats = until(&handle, "a failure", |stats| stats.failed == 1);
    assert_eq!((stats.written, stats.dropped), (0, 1));
    assert!(stats.last_error.is_some_and(|error| error.contains("larger than all files together")));
    assert_eq!(names(&place.0), [""; 0]);
    drop(kept);
}

#[test]
fn what_is_no_directory_is_refused_at_once() {
    let place = Place::new("refused");
    let refused = |path: &Path| match continuous::to_directory(path, often()) {
        Err(error) => error,
        Ok(handle) => panic!("{} was taken: {handle:?}", path.display()),
    };
    let is_directory_error = |path: &Path, code: i32| match refused(path) {
        StartError::Directory(said, error) => assert_eq!((said.as_path(), error.raw_os_error()), (path, Some(code))),
        other => panic!("{}: {other}", path.display()),
    };
    is_directory_error(&place.at("missing"), libc::ENOENT);
    fs::write(place.at("file"), "x").expect("it can be written");
    is_directory_error(&place.at("file"), libc::ENOTDIR);
    is_directory_error(&place.at("file/under"), libc::ENOTDIR);
    let pipe = CString::new(place.at("pipe").as_os_str().as_bytes()).expect("no zero byte");
    // SAFETY: a string that ends with a zero.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    is_directory_error(&place.at("pipe"), libc::ENOTDIR);
    is_directory_error(Path::new("/dev/null"), libc::ENOTDIR);
    is_directory_error(Path::new(""), libc::ENOENT);

    fs::create_dir(place.at("real")).expect("it can be made");
    symlink(place.at("real"), place.at("link")).expect("it can be made");
    symlink(place.at("nowhere"), place.at("dangling")).expect("it can be made");
    for link in ["link", "dangling"] {
        match refused(&place.at(link)) {
            StartError::Symlink(path) => assert_eq!(path, place.at(link)),
            other => panic!("{link}: {other}"),
        }
    }
    assert_eq!(names(&place.at("real")), [""; 0]);
    assert_eq!(fs::read(place.at("file")).expect("it is there"), b"x");

    for wrong in [often().kinds(&[]), often().max_files(0), often().max_bytes(0)] {
        assert!(matches!(continuous::to_directory(&place.0, wrong), Err(StartError::Options(_))));
    }
    assert!(continuous::to_directory("a\0b", often()).is_err());
}

#[test]
fn nothing_that_has_a_name_is_written_to() {
    // Whatever name a profile would get in the next seconds has something under it already: links, to see that nobody follows them.
    let place = Place::new("taken");
    let victim = place.at("victim");
    fs::write(&victim, "precious").expect("it can be written");
    let handle = continuous::to_directory(&place.0, on_request()).expect("it starts");
    one_more(&handle);
    let first = profiles(&place.0).remove(0);
    // Names of ours differ in the time. A second and a half of them, from now on.
    let began = first.rsplit_once('.').map(|_| first.clone()).expect("it has a suffix");
    let stem = &began[..began.find('.').expect("it has one")];
    let own = std::process::id();
    for ms in 0..1000 {
        let name = place.at(&format!("{stem}.{ms:03}Z-{own}.pb.gz"));
        if !name.exists() {
            symlink(&victim, name).expect("it can be made");
        }
    }
    for _ in 0..3 {
        one_more(&handle);
    }
    assert_eq!(fs::read(&victim).expect("it is there"), b"precious");
    let links = names(&place.0).iter().filter(|name| place.at(name).is_symlink()).count();
    assert_eq!(links, 999, "none was replaced");
}

#[test]
fn a_directory_that_goes_and_comes_back_is_found_again() {
    let place = Place::new("comes-back");
    let path = place.at("profiles");
    fs::create_dir(&path).expect("it can be made");
    let handle = continuous::to_directory(&path, on_request()).expect("it starts");
    one_more(&handle);
    fs::remove_dir_all(&path).expect("it can be removed");
    handle.now();
    let stats = until(&handle, "a failure", |stats| stats.failed >= 1);
    assert!(stats.last_error.is_some_and(|error| error.contains("profiles")));

    // A symlink in its place is not followed.
    fs::create_dir(place.at("elsewhere")).expect("it can be made");
    symlink(place.at("elsewhere"), &path).expect("it can be made");
    handle.now();
    let stats = until(&handle, "another failure", |stats| stats.failed >= 2);
    assert!(stats.last_error.is_some_and(|error| error.contains("is a symlink")));
    assert_eq!(names(&place.at("elsewhere")), [""; 0]);

    fs::remove_file(&path).expect("it can be removed");
    fs::create_dir(&path).expect("it can be made");
    one_more(&handle);
    assert_eq!(profiles(&path).len(), 1);
}

#[test]
fn a_directory_that_may_not_be_written_to_is_tried_again() {
    let place = Place::new("forbidden");
    let directory = place.0.to_str().expect("text");
    // Root may write everywhere, so somebody else tries.
    let environment = [("FREESTONE_PROFILE_DIR", directory), ("FREESTONE_PROFILE_EVERY", "100ms")];
    let user = if is_root() { Some(NOBODY) } else { None };
    fs::set_permissions(&place.0, Permissions::from_mode(0o555)).expect("it is ours");
    let child = Role::start_as(user, "inits", &place.0, &environment);
    let Some(mut child) = child else {
        println!("SKIPPED: another user cannot start this test from where it lies");
        eprintln!("SKIPPED: another user cannot start this test from where it lies");
        return;
    };
    let mut said = String::new();
    let mut lines = BufReader::new(child.0.stderr.take().expect("piped"));
    while !said.contains("freestone: ") {
        assert!(lines.read_line(&mut said).is_ok_and(|bytes| bytes > 0), "it ended early: {said}");
    }
    assert!(said.contains("no profile was written: cannot make a file in") && said.contains("Permission denied"), "{said}");
    fs::set_permissions(&place.0, Permissions::from_mode(0o777)).expect("it is ours");
    let began = Instant::now();
    while profiles(&place.0).is_empty() {
        assert!(began.elapsed() < PATIENCE, "no profile came");
        thread::sleep(Duration::from_millis(10));
    }
    child.kill();
}

/// A file system of its own, which goes with this.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` for who may not mount.
    fn new(path: &Path, options: &str) -> Option<Self> {
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(path).output();
        mount.is_ok_and(|output| output.status.success()).then(|| Self(path.to_owned()))
    }

    fn again(&self, options: &str) {
        let mount = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(&self.0).status();
        assert!(mount.is_ok_and(|status| status.success()));
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_disk_that_is_full_or_read_only_is_tried_again_and_nothing_half_written_stays() {
    let place = Place::new("full");
    let Some(mounted) = Mounted::new(&place.0, "size=64k,mode=700") else {
        println!("SKIPPED: a disk that is full takes a mount, and only root may mount");
        eprintln!("SKIPPED: a disk that is full takes a mount, and only root may mount");
        return;
    };
    let kept = keep_much();
    let handle = continuous::to_directory(&place.0, on_request()).expect("it starts");
    fs::write(place.at("filler"), []).expect("it can be made");
    let mut filler = OpenOptions::new().append(true).open(place.at("filler")).expect("it is there");
    while filler.write_all(&[7; 4096]).is_ok() {}
    drop(filler);
    handle.now();
    let stats = until(&handle, "a failure", |stats| stats.failed >= 1);
    assert!(stats.last_error.is_some_and(|error| error.contains("No space left")));
    assert_eq!(names(&place.0), ["filler"], "neither half a profile nor a temporary file");

    mounted.again("ro");
    handle.now();
    let stats = until(&handle, "another failure", |stats| stats.failed >= 2);
    assert!(stats.last_error.is_some_and(|error| error.contains("Read-only")));

    mounted.again("rw,size=8m");
    one_more(&handle);
    assert_eq!(names(&place.0).len(), 2);
    drop((handle, kept));
}

#[test]
fn a_process_that_is_killed_leaves_no_half_profile() {
    let place = Place::new("killed");
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let mut random = seed | 1;
    for round in 0..20 {
        let child = Role::start("writes without a pause", &place.0, &[]);
        let began = Instant::now();
        let pid = child.pid();
        while !profiles(&place.0).iter().any(|name| is_profile_name(name, pid)) {
            assert!(began.elapsed() < PATIENCE, "round {round}: no profile came");
        }
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        thread::sleep(Duration::from_micros(random % 10_000));
        child.kill();
        for name in profiles(&place.0) {
            assert!(is_whole(&place.at(&name)), "round {round}: {name} is not whole");
        }
    }
    // What the killed ones left under temporary names goes with the next look.
    fs::write(place.at(".freestone-1-00ff.tmp"), "half").expect("it can be written");
    fs::write(place.at(".freestone-keep.tmp"), "not ours").expect("it can be written");
    let handle = continuous::to_directory(&place.0, on_request()).expect("it starts");
    one_more(&handle);
    let temporary: Vec<_> = names(&place.0).into_iter().filter(|name| name.starts_with(".freestone")).collect();
    assert_eq!(temporary, [".freestone-keep.tmp"]);
}

/// Does it unpack to its end?
fn is_whole(path: &Path) -> bool {
    let bytes = fs::read(path).expect("it is there");
    freestone_stats::profile::pprof::decode(&bytes).is_ok()
}

#[test]
fn what_the_environment_asks_for_is_one_line_when_it_cannot_be_had() {
    let place = Place::new("environment");
    let missing = place.at("missing");
    let missing = missing.to_str().expect("text");
    let child = Role::start(
        "inits",
        &place.0,
        &[
            ("FREESTONE_PROFILE_DIR", missing),
            ("FREESTONE_PROFILE_EVERY", "100ms"),
            ("FREESTONE_PROFILE_PUSH", "htp://somewhere"),
            ("FREESTONE_PROFILE_LABELS", "region"),
        ],
    );
    thread::sleep(OFTEN * 10);
    // It comes late, and is found.
    fs::create_dir(missing).expect("it can be made");
    let began = Instant::now();
    while profiles(Path::new(missing)).is_empty() {
        assert!(began.elapsed() < PATIENCE, "no profile came");
        thread::sleep(Duration::from_millis(10));
    }
    let said = child.kill();
    let lines: Vec<_> = said.lines().filter(|line| line.starts_with("freestone: ")).collect();
    let has = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!(has("no profile was written: cannot use the directory"), 1, "{said}");
    assert_eq!(has("FREESTONE_PROFILE_PUSH: the address does not begin with"), 1, "{said}");
    assert_eq!(has("FREESTONE_PROFILE_LABELS has region"), 1, "{said}");
    assert_eq!(lines.len(), 3, "{said}");

    let child = Role::start("inits", &place.0, &[("FREESTONE_PROFILE_DIR", missing), ("FREESTONE_PROFILE_EVERY", "often")]);
    let said = child.kill();
    assert!(said.contains("FREESTONE_PROFILE_EVERY=often is no time such as"), "{said}");
}
