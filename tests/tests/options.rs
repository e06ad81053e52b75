//! Options come from the builder and from the environment, which wins. What the environment says and nobody understands is named, one line each,
//! and the program goes on with the rest; whatever bytes it holds, and whoever's rights the program has.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use freestone_tests::{Build, Ending, Random, build, run, seed};

/// Debug assertions check every free at the call, so what `check` chooses shows only without them.
fn program() -> std::path::PathBuf {
    build("options", Build::Plain)
}

fn with(program: &Path, environment: impl AsRef<OsStr>, handle: &str, show: &str) -> Ending {
    run(Command::new(program).args([handle, show]).env("FREESTONE", environment))
}

fn huge_pages(environment: impl AsRef<OsStr>) -> (String, String) {
    let ending = with(&program(), environment, "default", "huge_pages");
    assert_eq!(ending.code, Some(0), "{ending:#?}");
    (ending.out.trim_end().to_owned(), ending.err)
}

/// Can the kernel tell what it was told about huge pages?
fn kernel_has_huge_pages() -> bool {
    let has = Path::new("/sys/kernel/mm/transparent_hugepage/enabled").exists();
    if !has {
        println!("SKIPPED: this kernel has no transparent huge pages, so the option cannot be seen");
    }
    has
}

#[test]
fn the_environment_takes_effect() {
    let stopped = with(&program(), "check:exchange", "default", "check");
    assert_eq!((stopped.out.as_str(), stopped.signal), ("freed twice\n", Some(libc::SIGABRT)), "{stopped:#?}");
    // Without samples, which may happen to find it.
    let went_on = with(&program(), "check:sampled,sample_interval:0", "default", "check");
    assert_eq!(went_on.out, "freed twice\nwent on\n", "{went_on:#?}");
    if kernel_has_huge_pages() {
        assert_eq!(huge_pages("huge_pages:always"), ("hg".into(), String::new()));
        assert_eq!(huge_pages("huge_pages:never"), ("nh".into(), String::new()));
        assert_eq!(huge_pages("huge_pages:auto"), ("nh".into(), String::new()), "a heap this small");
        assert_eq!(
            huge_pages(" check : exchange ,, huge_pages : always , "),
            ("hg".into(), String::new()),
            "spaces, empty entries"
        );
        assert_eq!(huge_pages("huge_pages:never,huge_pages:always").0, "hg", "the last one wins");
    }
}

#[test]
fn the_builder_takes_effect_and_the_environment_wins() {
    let stopped = with(&program(), "", "built", "check");
    assert_eq!((stopped.out.as_str(), stopped.signal), ("freed twice\n", Some(libc::SIGABRT)), "{stopped:#?}");
    let went_on = with(&program(), "check:sampled,sample_interval:0", "built", "check");
    assert_eq!(went_on.out, "freed twice\nwent on\n", "{went_on:#?}");
    if kernel_has_huge_pages() {
        for (environment, told) in [("", "hg"), ("huge_pages:never", "nh"), ("check:sampled", "hg"), ("huge_pages:nevre", "hg")] {
            let ending = with(&program(), environment, "built", "huge_pages");
            assert_eq!((ending.code, ending.out.trim_end()), (Some(0), told), "{environment}: {ending:#?}");
        }
    }
    // What is not set at all is like what is empty.
    let unset = run(Command::new(program()).args(["default", "huge_pages"]).env_remove("FREESTONE"));
    assert_eq!((unset.code, unset.err.as_str()), (Some(0), ""), "{unset:#?}");
}

#[test]
fn what_nobody_understands_is_one_line() {
    for (environment, lines) in [
        ("", &[][..]),
        (",,, ,", &[]),
        ("chek:exchange", &["unknown option 'chek'"]),
        ("verbose", &["unknown option 'verbose'"]),
        (":", &["unknown option ''"]),
        ("check:maybe", &["option 'check' has no value 'maybe'"]),
        ("check", &["option 'check' has no value ''"]),
        ("huge_pages:ALWAYS", &["option 'huge_pages' has no value 'ALWAYS'"]),
        ("huge_pages:always:never", &["option 'huge_pages' has no value 'always:never'"]),
        ("one:1,huge_pages:2,two", &["unknown option 'one'", "option 'huge_pages' has no value '2'", "unknown option 'two'"]),
    ] {
        let (told, err) = huge_pages(environment);
        assert_ne!(told, "hg", "{environment:?}: what is not understood changes nothing");
        assert_eq!(err.lines().count(), lines.len(), "{environment:?}: {err}");
        for (line, expected) in err.lines().zip(lines) {
            assert!(line.starts_with("freestone: FREESTONE: "), "{line}");
            assert!(line.contains(expected), "{line}");
        }
    }
    if kernel_has_huge_pages() {
        let (told, err) = huge_pages("verbose,huge_pages:always,check:maybe");
        assert_eq!((told.as_str(), err.lines().count()), ("hg", 2), "the rest holds");
    }
}

/// What holds when nobody chooses, one line per option.
const DEFAULTS: [&str; 7] = [
    "check Sampled",
    "huge_pages Auto",
    "retain Peak { percent: 10, window_ms: 5000, steps: 8 }",
    "background Auto",
    "memory_limit None",
    "hard_limit None",
    "fuse Off",
];

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

/// [`DEFAULTS`], but for some.
fn defaults_but<'a>(changed: &[&'a str]) -> Vec<&'a str> {
    let key = |line: &'a str| line.split(' ').next();
    DEFAULTS.iter().map(|&line| changed.iter().copied().find(|&other| key(other) == key(line)).unwrap_or(line)).collect()
}

#[test]
fn every_option_is_read_back() {
    let program = program();
    let ending = with(&program, "", "default", "configuration");
    assert_eq!((lines(&ending.out), ending.err.as_str()), (DEFAULTS.to_vec(), ""));
    for (environment, changed) in [
        ("check:exchange", "check Exchange"),
        ("check:sampled", "check Sampled"),
        ("huge_pages:never", "huge_pages Never"),
        ("huge_pages:always", "huge_pages Always"),
        ("huge_pages:auto", "huge_pages Auto"),
        ("retain:off", "retain Off"),
        ("retain:keep", "retain Keep"),
        ("retain:keep,retain:default", "retain Peak { percent: 10, window_ms: 5000, steps: 8 }"),
        ("retain:25%", "retain Peak { percent: 25, window_ms: 5000, steps: 8 }"),
        ("background:on", "background On"),
        ("background:off", "background Off"),
        ("background:auto", "background Auto"),
        ("memory_limit:2GiB", "memory_limit Bytes(2147483648)"),
        ("memory_limit:90%", "memory_limit Percent(90)"),
        ("memory_limit:1GiB,memory_limit:none", "memory_limit None"),
        ("hard_limit:3000 MiB", "hard_limit Bytes(3145728000)"),
        ("hard_limit:100%", "hard_limit Percent(100)"),
        ("fuse:exit", "fuse Exit"),
        ("fuse:off", "fuse Off"),
    ] {
        let ending = with(&program, environment, "default", "configuration");
        assert_eq!((lines(&ending.out), ending.err.as_str()), (defaults_but(&[changed]), ""), "{environment}");
    }
}

#[test]
fn every_option_of_the_builder_and_of_run_time_is_read_back() {
    let program = program();
    let full = [
        "check Exchange",
        "huge_pages Never",
        "retain Peak { percent: 20, window_ms: 700, steps: 3 }",
        "background Off",
        "memory_limit Bytes(3221225472)",
        "hard_limit Percent(70)",
        "fuse Exit",
    ];
    let ending = with(&program, "", "full", "configuration");
    assert_eq!((lines(&ending.out), ending.err.as_str()), (full.to_vec(), ""));
    let all_else = "check:sampled,huge_pages:auto,retain:default,background:auto,memory_limit:none,hard_limit:none,fuse:off";
    let ending = with(&program, all_else, "full", "configuration");
    assert_eq!((lines(&ending.out), ending.err.as_str()), (DEFAULTS.to_vec(), ""), "the environment wins, everywhere");
    let changed = defaults_but(&[
        "huge_pages Always",
        "retain Peak { percent: 30, window_ms: 900, steps: 5 }",
        "background On",
        "memory_limit Bytes(5368709120)",
        "hard_limit Bytes(7516192768)",
        "fuse Exit",
    ]);
    for environment in ["", "retain:keep,background:off,hard_limit:9GiB"] {
        let ending = with(&program, environment, "default", "at_run_time");
        let mut expected = changed.clone();
        expected.push("limits Some(5368709120) Some(7516192768)");
        assert_eq!((lines(&ending.out), ending.err.as_str()), (expected, ""), "{environment}");
    }
}

#[test]
fn what_no_option_understands_leaves_its_default() {
    let program = program();
    for (key, values) in [
        ("check", &["", "on", "Exchange"][..]),
        ("huge_pages", &["", "on", "AUTO", "2MiB"]),
        ("retain", &["", "10", "1001%", "-1%", "peak", "%"]),
        ("background", &["", "yes", "1", "ON"]),
        ("memory_limit", &["", "0", "2GB", "101%", "-1GiB", "1.5GiB", "99999999999999999999", "lots"]),
        ("hard_limit", &["", "0%", "0GiB", "2gib", "GiB", "18446744073709551615TiB"]),
        ("fuse", &["", "on", "137", "exit now"]),
    ] {
        for value in values {
            let ending = with(&program, format!("{key}:{value}"), "default", "configuration");
            assert_eq!((ending.code, lines(&ending.out)), (Some(0), DEFAULTS.to_vec()), "{key}:{value}");
            assert_eq!(ending.err, format!("freestone: FREESTONE: option '{key}' has no value '{value}'; ignored\n"));
            // A value that the builder chose is kept as well.
            let built = with(&program, format!("{key}:{value}"), "full", "configuration");
            assert_eq!(built.out, with(&program, "", "full", "configuration").out, "{key}:{value}");
        }
    }
}

#[test]
fn the_memory_limit_has_a_variable_of_its_own() {
    let program = program();
    let read_back = |limit: &str, environment: &str| {
        let mut command = Command::new(&program);
        command.args(["default", "configuration"]).env("FREESTONE", environment).env("FREESTONE_MEMORY_LIMIT", limit);
        run(&mut command)
    };
    for (limit, environment, changed) in [
        ("2GiB", "", "memory_limit Bytes(2147483648)"),
        (" 80% ", "", "memory_limit Percent(80)"),
        ("2GiB", "memory_limit:1GiB", "memory_limit Bytes(2147483648)"),
        ("none", "memory_limit:1GiB", "memory_limit None"),
    ] {
        let ending = read_back(limit, environment);
        assert_eq!((lines(&ending.out), ending.err.as_str()), (defaults_but(&[changed]), ""), "{limit}, {environment}");
    }
    for limit in ["", "2GB", "0", "101%", "a lot"] {
        let ending = read_back(limit, "memory_limit:1GiB");
        assert_eq!((ending.code, lines(&ending.out)), (Some(0), defaults_but(&["memory_limit Bytes(1073741824)"])), "{limit:?}");
        let complaint = format!("freestone: FREESTONE_MEMORY_LIMIT: option 'memory_limit' has no value '{limit}'; ignored\n");
        assert_eq!(ending.err, complaint);
    }
}

#[test]
fn any_bytes_are_survived() {
    let long_key = "k".repeat(100_000);
    let (_, err) = huge_pages(&long_key);
    assert_eq!(err.lines().count(), 1, "one line for one key, however long");
    assert!(err.len() < 512, "{} bytes were said about one key", err.len());
    let (told, err) = huge_pages(",".repeat(100_000) + "huge_pages:always");
    assert_eq!((told.as_str(), err.as_str()), (if kernel_has_huge_pages() { "hg" } else { "" }, ""));
    let (_, err) = huge_pages(OsStr::from_bytes(b"ch\xffck:exchange,check:\x80\x1b[31m"));
    assert_eq!(err.lines().count(), 2, "{err}");
    assert!(err.is_ascii(), "a terminal must not be told what to do: {err:?}");
    assert!(err.bytes().all(|byte| byte == b'\n' || !byte.is_ascii_control()), "{err:?}");
    let mut random = Random::new(seed());
    for _ in 0..40 {
        let length = random.below(400);
        let bytes = (0..length).map(|_| b"check:exchange,huge_pages \n\xff\xc3\x01"[random.below(30)]).collect();
        let text = OsString::from_vec(bytes);
        let entries = text.as_bytes().split(|&byte| byte == b',').count();
        let ending = with(&program(), &text, "default", "huge_pages");
        assert_eq!(ending.code, Some(0), "{text:?}: {ending:#?}");
        assert!(ending.err.lines().count() <= entries, "{text:?}: {ending:#?}");
    }
}

#[test]
fn a_closed_standard_error_is_survived() {
    let script = format!("exec {} default huge_pages 2>&-", program().display());
    let ending = run(Command::new("sh").args(["-c", &script]).env("FREESTONE", "no,such,options"));
    assert_eq!((ending.code, ending.err.as_str()), (Some(0), ""), "{ending:#?}");
}

/// Not root, and nobody who is logged in.
const SOMEBODY: u32 = 65_534;

/// A program that runs with more rights than its caller must not take orders from the caller's environment.
#[test]
fn a_program_with_other_rights_does_not_listen() {
    // SAFETY: always allowed.
    if unsafe { libc::geteuid() } != 0 {
        println!("SKIPPED: only root can make a program that runs as somebody else");
        return;
    }
    let folder = std::env::temp_dir().join(format!("freestone-options-{}", std::process::id()));
    std::fs::create_dir(&folder).expect("a new folder");
    std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o755)).expect("a folder of ours");
    let copy = folder.join("options");
    std::fs::copy(program(), &copy).expect("there is room for a copy");
    chown(&copy, Some(SOMEBODY), Some(SOMEBODY)).expect("root may");
    let environment = "huge_pages:always,verbose";
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o755)).expect("root may");
    let ordinary = with(&copy, environment, "default", "huge_pages");
    std::fs::set_permissions(&copy, PermissionsExt::from_mode(0o4755)).expect("root may");
    let mut command = Command::new(&copy);
    command.args(["default", "huge_pages"]).env("FREESTONE", environment);
    let secured = run(&mut command);
    let is_obeyed = is_setuid_obeyed(&folder);
    std::fs::remove_dir_all(&folder).expect("a folder of ours");
    assert_eq!(ordinary.err.lines().count(), 1, "the same program with nobody else's rights listens: {ordinary:#?}");
    if !is_obeyed {
        println!("SKIPPED: {} is mounted nosuid", folder.display());
        return;
    }
    assert_eq!((secured.code, secured.err.as_str()), (Some(0), ""), "{secured:#?}");
    if kernel_has_huge_pages() {
        assert_eq!(ordinary.out, "hg\n");
        assert_ne!(secured.out, "hg\n", "the environment was obeyed");
    }
}

/// Is the bit that lends rights worth anything in this folder?
fn is_setuid_obeyed(folder: &Path) -> bool {
    // SAFETY: plain numbers.
    let mut file_system: libc::statvfs = unsafe { std::mem::zeroed() };
    let path = std::ffi::CString::new(folder.as_os_str().as_bytes()).expect("a path without zero bytes");
    // SAFETY: the path ends with a zero byte, and the answer has a place.
    let answered = unsafe { libc::statvfs(path.as_ptr(), &raw mut file_system) } == 0;
    answered && file_system.f_flag & libc::ST_NOSUID == 0
}
