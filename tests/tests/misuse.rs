//! Everything a program can do wrong with a pointer, in three sizes and three modes. Each cell names when it must be stopped at the latest:
//! by the wrong call itself, within a thousand operations, or when the blocks come back to central.

use std::process::Command;

use freestone_tests::{Build, Stopped, build, run};

const CASES: [(&str, &[&str]); 10] = [
    ("double-at-once", &["double free"]),
    ("double-one-between", &["double free"]),
    ("double-after-a-thousand", &["double free"]),
    ("double-by-another-thread", &["double free"]),
    ("three-times", &["double free"]),
    ("wrong-layout", &["size mismatch"]),
    ("foreign-stack", &["foreign pointer"]),
    ("foreign-wild", &["foreign pointer"]),
    ("interior", &["interior pointer"]),
    ("misaligned", &["misaligned pointer"]),
];

/// Without samples, which now and then are caught earlier, and called otherwise: see `guarded`.
fn check(mode: &str, build_as: Build, environment: &str, latest: impl Fn(&str, usize) -> Stopped) {
    let environment = &format!("sample_interval:0,{environment}");
    let program = build("misuse", build_as);
    for size in [64, 4096, 256 << 10] {
        for (case, kinds) in CASES {
            let ending = run(Command::new(&program).args([case, &size.to_string()]).env("FREESTONE", environment));
            let when = Stopped::of(&ending);
            assert!(when <= latest(case, size), "{mode}: {case} of {size} B was stopped {when:?}: {ending:?}");
            assert_eq!(ending.signal, Some(libc::SIGABRT), "{mode}: {case} of {size} B: {ending:?}");
            let line = ending.err.trim_end();
            assert_eq!(line.lines().count(), 1, "{mode}: {case} of {size} B: one line, not {line:?}");
            let named = kinds.iter().any(|kind| line.starts_with(&format!("freestone: fatal: {kind}: ptr=0x")));
            assert!(named, "{mode}: {case} of {size} B is called {line:?}");
            assert!(line.contains(" class="), "{line:?}");
            assert!(line.contains(" B): "), "{line:?}");
            assert!(line.len() < 512, "{line:?}");
        }
        let innocent = run(Command::new(&program).args(["nothing", &size.to_string()]).env("FREESTONE", environment));
        assert_eq!(Stopped::of(&innocent), Stopped::Never, "{mode}: {innocent:?}");
        assert_eq!(innocent.err, "");
    }
}

/// Blocks of 256 KiB have a state of their own that every free checks, whatever the mode.
fn whole_blocks_at_the_call(size: usize, otherwise: Stopped) -> Stopped {
    if size >= 256 << 10 { Stopped::AtTheCall } else { otherwise }
}

#[test]
fn by_default_everything_is_found_when_it_comes_back_to_central() {
    check("default", Build::Plain, "", |_, size| whole_blocks_at_the_call(size, Stopped::AtCentral));
}

#[test]
fn checking_every_exchange_finds_it_within_a_thousand_operations() {
    check("check:exchange", Build::Plain, "check:exchange", |case, size| {
        let across_threads = case == "double-by-another-thread";
        whole_blocks_at_the_call(size, if across_threads { Stopped::AtCentral } else { Stopped::WithinAThousand })
    });
}

#[test]
fn the_feature_finds_it_at_the_call() {
    check("checked", Build::Checked, "", |_, _| Stopped::AtTheCall);
}

#[test]
fn it_dies_also_when_nobody_can_hear_it() {
    let program = build("misuse", Build::Checked);
    let script = format!("exec 2>&-; trap '' ABRT; exec {} double-at-once 64", program.display());
    let ending = run(Command::new("sh").args(["-c", &script]));
    assert_eq!((ending.signal, ending.out.as_str()), (Some(libc::SIGABRT), ""), "standard error closed, SIGABRT ignored");
    let script = format!("exec {} double-at-once 64 2>/dev/full", program.display());
    let ending = run(Command::new("sh").args(["-c", &script]));
    assert_eq!(ending.signal, Some(libc::SIGABRT), "standard error full");
}
