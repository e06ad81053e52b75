//! The verbs that read recordings: of this test, which records itself, and of files that are none.

mod common;

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use freestone::Freestone;
use freestone_stats::recorder::{self, Builder, Recorder};

use common::{folder, harness, stderr, stdout};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

const OFTEN: Duration = Duration::from_millis(10);

fn record(path: &Path) -> Recorder {
    Builder::new().interval(OFTEN).start(path).expect("it starts")
}

/// Waits until there are so many snapshots.
fn wait_for(path: &Path, snapshots: usize) {
    for _ in 0..6000 {
        if recorder::read(path).is_ok_and(|recording| recording.snapshots.len() >= snapshots) {
            return;
        }
        thread::sleep(OFTEN);
    }
    panic!("{snapshots} snapshots do not come");
}

fn is_narrow_and_plain(text: &str) {
    let program = std::env::current_exe().expect("there is /proc").display().to_string();
    for line in text.lines() {
        // But for the one that names this program, which lies as deep as whoever runs it likes.
        assert!(line.chars().count() <= 100 || line.starts_with(&program), "{line}");
        assert!(!line.contains('\x1b'), "{line}");
        assert!(!line.ends_with(' '), "{line:?}");
    }
}

/// One after the other: a process has one recording.
#[test]
fn a_recording_is_shown_and_followed() {
    let path = folder("recorder").join("its.rec");
    let file = path.display().to_string();
    let recorder = record(&path);
    let leak: Vec<Vec<u8>> = (0..600).map(|_| vec![7; 10_000]).collect();
    wait_for(&path, 20);

    let lives = stdout(&harness(&["recorder", "show", &file]));
    assert!(lives.contains("It is still running; last record "), "{lives}");
    is_narrow_and_plain(&lives);
    let once = stdout(&harness(&["recorder", "follow", &file, "--once"]));
    assert!(once.contains("  running; after ") && once.contains("allocations"), "{once}");
    is_narrow_and_plain(&once);
    following_on_a_terminal_ends_with_q(&file);

    let following = Command::new(env!("CARGO_BIN_EXE_freestone-bench"))
        .args(["recorder", "follow", &file])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the harness was built");
    wait_for(&path, recorder::read(&path).expect("a recording").snapshots.len() + 120);
    drop(recorder);
    let followed = following.wait_with_output().expect("it ends by itself");
    assert!(followed.status.success());
    let text = stdout(&followed);
    assert!(text.matches("  running; after ").count() >= 1, "{text}");
    assert_eq!(text.matches("recording has ended").count(), 1, "{text}");
    is_narrow_and_plain(&text);

    let ended = harness(&["recorder", "show", &file]);
    let text = stdout(&ended);
    assert!(ended.status.success());
    is_narrow_and_plain(&text);
    assert!(text.contains("The program stopped recording; last record "), "{text}");
    assert!(text.contains(&format!("process {}", std::process::id())));
    for word in
        ["The last ", "  live ", "  heap holds ", "  resident ", "per second", "What happened", "The longest pauses", "Verdict"]
    {
        assert!(text.contains(word), "no {word} in\n{text}");
    }
    assert!(text.lines().any(|line| line.contains("10 KiB blocks") && line.contains('+')), "{text}");
    let short = stdout(&harness(&["recorder", "show", &file, "--seconds", "1"]));
    assert!(short.contains("The last 1.0 s") || short.contains("The last 0.9 s"), "{short}");
    drop(leak);
}

/// A terminal of its own, as a person has it.
fn following_on_a_terminal_ends_with_q(file: &str) {
    let (mut ours, mut its) = (0, 0);
    let size = libc::winsize { ws_row: 30, ws_col: 60, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the places to write to are valid, the size is readable; nobody wants the name.
    let opened =
        unsafe { libc::openpty(&raw mut ours, &raw mut its, std::ptr::null_mut(), std::ptr::null_mut(), &raw const size) };
    assert_eq!(opened, 0);
    // SAFETY: just opened, and owned by nobody else.
    let mut ours = unsafe { File::from_raw_fd(ours) };
    // SAFETY: as above.
    let its = unsafe { File::from_raw_fd(its) };
    let flags = |terminal: &File| {
        // SAFETY: numbers, which are written before they are read.
        let mut settings: libc::termios = unsafe { std::mem::zeroed() };
        // SAFETY: the place to write to is valid.
        assert_eq!(unsafe { libc::tcgetattr(terminal.as_raw_fd(), &raw mut settings) }, 0);
        settings.c_lflag & (libc::ICANON | libc::ECHO | libc::ISIG)
    };
    let before = flags(&its);
    let mut following = Command::new(env!("CARGO_BIN_EXE_freestone-bench"));
    let shared = |file: &File| Stdio::from(file.try_clone().expect("one more"));
    following.args(["recorder", "follow", file]).env("TERM", "xterm").stdin(shared(&its)).stdout(shared(&its));
    let mut following = following.spawn().expect("the harness was built");

    let mut seen = String::new();
    let mut some = [0; 4096];
    while seen.matches("q ends this view").count() < 2 {
        let count = ours.read(&mut some).expect("it draws");
        seen += &String::from_utf8_lossy(&some[..count]);
    }
    assert_eq!(flags(&its), 0, "keys come as they are pressed");
    ours.write_all(b"q").expect("it listens");
    assert!(following.wait().expect("it ends").success());
    assert_eq!(flags(&its), before, "the terminal is as it was");
    // Lines end where the terminal does, however narrow it is.
    let mut drawn = seen.replace("\r\n", "\n").replace("\x1b[H", "\n");
    for escape in ["\x1b[K", "\x1b[J", "\x1b[2J", "\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[31m"] {
        drawn = drawn.replace(escape, "");
    }
    assert!(!drawn.contains('\x1b'), "{drawn:?}");
    assert!(drawn.lines().all(|line| line.trim_end_matches('\r').chars().count() <= 60), "{drawn}");
}

#[test]
fn what_is_no_recording_gets_one_sentence() {
    let folder = folder("no_recording");
    let file = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).expect("the folder is writable");
        path.display().to_string()
    };
    let future = [b"freestrc".as_slice(), &9_u32.to_le_bytes(), &[0; 5000]].concat();
    for (path, why) in [
        (file("prose", b"Dear diary,"), "it is not a recording of Freestone"),
        (file("empty", b""), "it ends after 0 bytes, before it says whose recording it is"),
        (file("future", &future), "it has version 9, and this program reads version 1: a newer freestone-bench can read it"),
        ("nowhere.rec".to_owned(), "it cannot be read: No such file or directory (os error 2)"),
        (folder.display().to_string(), "it is no file, or larger than any recording"),
    ] {
        for verb in ["show", "follow"] {
            let output = harness(&["recorder", verb, &path]);
            assert_eq!(stderr(&output), format!("freestone-bench: cannot {verb} {path}: {why}\n"));
            assert_eq!(output.status.code(), Some(2));
            assert!(output.stdout.is_empty());
        }
    }
    let output = harness(&["recorder", "compare", "--folder", "/dev/null/nowhere"]);
    assert!(stderr(&output).starts_with("freestone-bench: cannot make /dev/null/nowhere/"), "{}", stderr(&output));
    assert_eq!(output.status.code(), Some(3));
}

#[test]
fn a_comparison_has_a_row_for_each_way() {
    let folder = folder("recorder_costs");
    let output = harness(&["recorder", "compare", "--rounds", "1", "--folder", &folder.display().to_string()]);
    let text = stdout(&output);
    assert!(output.status.success(), "{}", stderr(&output));
    // The first line names the folder, whose name may be long.
    is_narrow_and_plain(text.split_once('\n').map_or("", |(_, rest)| rest));
    for row in ["snapshot() alone", "recorder: stores into a map", "pwrite into a ring", "write at the end of a log"] {
        assert_eq!(text.matches(row).count(), 3, "{text}");
    }
    assert_eq!(fs::read_dir(&folder).expect("it is there").count(), 0, "nothing stays");
}
