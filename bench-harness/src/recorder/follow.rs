//! A process that runs, as its recorder sees it: drawn anew once a second.
//!
//! On a terminal the picture stays in its place, and q or Ctrl-C ends it. Elsewhere there is a block of lines per second, without escapes. The
//! terminal is asked to hand over keys as they are pressed, and gets back what it had.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Read, Write as _};
use std::mem;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, anyhow};
use freestone_stats::recorder::{Life, ReadError, Recording};

use super::words::{COLUMNS, clock, duration, size, styled};
use super::{read, story};

const PERIOD: Duration = Duration::from_secs(1);
/// What the picture is of.
const WINDOW: Duration = Duration::from_mins(1);
/// For so long a file that is not there, or not whole, may be one that is just being made.
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) fn follow(file: &Path, once: bool) -> Result<()> {
    let mut recording = read("follow", file)?;
    if once {
        crate::say(&styled(&picture(&recording)));
        return Ok(());
    }
    let screen = io::stdout().is_terminal();
    let keys = if screen { Keys::new() } else { None };
    if screen {
        print("\x1b[2J");
    }
    let mut unreadable: Option<Instant> = None;
    loop {
        let drawn = picture(&recording);
        print(&if screen { in_place(&drawn, keys.is_some()) } else { format!("{drawn}\n") });
        if recording.life != Life::Running && recording.life != Life::Unknown {
            return Ok(());
        }
        if wait(keys.as_ref()) == Key::Quit {
            return Ok(());
        }
        // A program that starts again makes a new file under the same name.
        match freestone_stats::recorder::read(file) {
            Ok(read) => {
                recording = read;
                unreadable = None;
            }
            Err(error) if unreadable.get_or_insert_with(Instant::now).elapsed() > PATIENCE => return Err(gone(file, &error)),
            Err(_) => {}
        }
    }
}

fn gone(file: &Path, error: &ReadError) -> anyhow::Error {
    anyhow!("cannot follow {} any further: {error}", file.display())
}

/// What there is to see at the moment.
fn picture(recording: &Recording) -> String {
    let mut text = String::new();
    let last = recording.last(WINDOW);
    story::who(&mut text, recording);
    let Some(end) = last.last() else {
        let _ = writeln!(text, "  no snapshot yet; {}", state(recording));
        return text;
    };
    let running = end.taken.duration_since(recording.origin.started).unwrap_or_default();
    let heap = &end.heap;
    let threads = heap.thread_records.saturating_sub(heap.thread_records_pooled);
    let _ = writeln!(
        text,
        "  {}  {}; after {}; {} threads, {} blocks live",
        clock(end.taken),
        state(recording),
        duration(running),
        threads,
        heap.live_blocks(),
    );
    text.push('\n');
    story::memory(&mut text, recording, last);
    story::rates(&mut text, last);
    if let Some(first) = last.first() {
        story::classes(&mut text, first, end);
    }
    let since = end.taken.checked_sub(WINDOW).unwrap_or(SystemTime::UNIX_EPOCH);
    if let Some(event) = recording.events.iter().rev().find(|event| event.taken >= since) {
        let _ = write!(text, "\n{}", story::event(event.taken, &event.what));
    }
    if let Some(worst) = recording.pauses.iter().filter(|its| its.taken >= since).max_by_key(|its| its.pause.took_ns) {
        let took = super::words::short_duration(worst.pause.took_ns);
        let _ = writeln!(
            text,
            "  {}  the longest pause of the last minute: {took} ({})",
            clock(worst.taken),
            size(worst.pause.bytes)
        );
    }
    text
}

fn state(recording: &Recording) -> &'static str {
    match (recording.ending(), recording.life) {
        (Some(_), _) => "recording has ended",
        (None, Life::Running) => "running",
        (None, Life::Unknown) => "perhaps running",
        (None, _) => "! ended without a farewell: killed by a signal, or crashed",
    }
}

/// The picture over the one before: each line ends what was there, and the last one what is below.
fn in_place(drawn: &str, has_keys: bool) -> String {
    let (rows, columns) = terminal_size();
    let mut text = String::from("\x1b[H");
    let mut lines: Vec<String> = styled(drawn).lines().map(|line| clipped(line, columns)).collect();
    lines.truncate(rows.saturating_sub(2));
    for line in lines {
        let _ = write!(text, "{line}\x1b[0m\x1b[K\r\n");
    }
    let ends = if has_keys { "q ends this view" } else { "Ctrl-C ends this view" };
    let _ = write!(text, "\x1b[K\r\n\x1b[2m{ends}\x1b[0m\x1b[K\x1b[J\r");
    text
}

/// So many columns of a line, whose escapes take none.
fn clipped(line: &str, columns: usize) -> String {
    let mut clipped = String::new();
    let mut width = 0;
    let mut in_escape = false;
    for char in line.chars() {
        in_escape |= char == '\x1b';
        width += usize::from(!in_escape);
        if in_escape || width <= columns {
            clipped.push(char);
        }
        // An escape ends with its first letter.
        in_escape &= !char.is_ascii_alphabetic();
    }
    clipped
}

/// Rows and columns.
fn terminal_size() -> (usize, usize) {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the place to write to is valid.
    let got = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    let known = |value: u16, default: usize| if got == 0 && value > 0 { value.into() } else { default };
    (known(size.ws_row, 40), known(size.ws_col, COLUMNS))
}

/// To stdout. That nobody listens ends the program with the next write of anybody else.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Quit,
    None,
}

/// A keyboard that hands over keys as they are pressed.
struct Keys {
    before: libc::termios,
}

impl Keys {
    /// `None`: there is none.
    fn new() -> Option<Self> {
        // SAFETY: numbers, which are written before they are read.
        let mut before: libc::termios = unsafe { mem::zeroed() };
        // SAFETY: the place to write to is valid.
        if !io::stdin().is_terminal() || unsafe { libc::tcgetattr(libc::STDIN_FILENO, &raw mut before) } != 0 {
            return None;
        }
        let mut as_pressed = before;
        // Ctrl-C is a key as well: nobody else would put the terminal back.
        as_pressed.c_lflag &= !(libc::ICANON | libc::ECHO | libc::ISIG);
        // SAFETY: a valid one.
        (unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const as_pressed) } == 0).then_some(Self { before })
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        // SAFETY: what it was before.
        unsafe { libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, &raw const self.before) };
        print("\r\n");
    }
}

/// Waits for the next picture, or for a key.
fn wait(keys: Option<&Keys>) -> Key {
    if keys.is_none() {
        std::thread::sleep(PERIOD);
        return Key::None;
    }
    let until = Instant::now() + PERIOD;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut poll = libc::pollfd { fd: libc::STDIN_FILENO, events: libc::POLLIN, revents: 0 };
        // SAFETY: one valid entry.
        let ready = unsafe { libc::poll(&raw mut poll, 1, left.as_millis() as libc::c_int + 1) };
        if ready <= 0 {
            return Key::None;
        }
        let mut pressed = [0; 16];
        match io::stdin().read(&mut pressed) {
            // The terminal has gone.
            Ok(0) | Err(_) => return Key::Quit,
            // q, Q, Ctrl-C, Ctrl-D, or escape alone, which also begins what arrows send.
            Ok(count) => {
                let pressed = &pressed[..count];
                if pressed == [0x1b] || pressed.iter().any(|key| matches!(key, b'q' | b'Q' | 3 | 4)) && pressed[0] != 0x1b {
                    return Key::Quit;
                }
            }
        }
    }
}
