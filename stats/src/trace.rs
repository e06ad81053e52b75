//! Reads the trace: the lines that a program says under `FREESTONE=trace:1`. `docs/trace.md` documents every field.
//!
//! ```
//! use freestone_stats::trace::{self, Event};
//!
//! let log = "listening on :8080\n\
//!            freestone: trace v=1 kind=release pid=12 t=7.495374 who=background bytes=6291456 calls=3 took=0.000841 longest=0.000316 end\n";
//! for line in trace::parse_all(log.as_bytes()) {
//!     let (number, line) = line?;
//!     match line {
//!         Ok(line) => match line.event {
//!             Event::Release(release) => println!("{:?}: {} bytes went", line.t, release.bytes),
//!             _ => {}
//!         },
//!         Err(error) => eprintln!("line {number}: {error}"),
//!     }
//! }
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! What else is in the log is passed over, and so are fields and kinds of lines that a later version of Freestone added. What cannot be read is an
//! error, never a panic, whatever the bytes.

use std::fmt;
use std::io::{self, BufRead};
use std::time::Duration;

use freestone::anomaly::Kind;

/// With what a line of the trace begins, wherever in a line of a log that is: what collects logs puts times in front, and a program may not have
/// ended its own line.
const BEGINNING: &[u8] = b"freestone: trace v=";

/// The version of the format that is understood.
const VERSION: u64 = 1;

/// A line of the trace. Prints as it was written, without what was not understood.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Line {
    /// Number of the process.
    pub pid: u32,
    /// Since the heap began.
    pub t: Duration,
    /// What the line tells.
    pub event: Event,
}

/// What a line tells.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The trace begins.
    Start(Box<Start>),
    /// An interval is over.
    Interval(Box<Interval>),
    /// Memory was given back.
    Release(Release),
    /// Something is wrong in the interval that was told before.
    Anomaly(Anomaly),
    /// Something that a later version of Freestone has to say: its name.
    Other(String),
}

/// Declares what a kind of line has, in the order in which it is written.
macro_rules! fields {
    ($(#[$about:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $type:ty,)+ }) => {
        $(#[$about])*
        #[derive(Clone, PartialEq, Debug, Default)]
        #[non_exhaustive]
        pub struct $name {
            $($(#[$doc])* pub $field: $type,)+
        }

        impl $name {
            fn read(fields: &Fields<'_>) -> Result<Self, ParseError> {
                Ok(Self { $($field: Value::read(fields, stringify!($field))?,)+ })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(self.$field.write(stringify!($field), f)?;)+
                Ok(())
            }
        }
    };
}

fields! {
    /// Who speaks, and the options in force.
    Start {
        /// Time of day, since 1970.
        unix: Duration,
        /// Of Freestone.
        version: String,
        /// The kernel's page, in bytes.
        os_page: u64,
        /// When frees are checked.
        check: String,
        /// Which pages new memory asks for.
        huge_pages: String,
        /// How much free memory is kept: `off`, `keep` or a percentage.
        retain: String,
        /// How long a peak is remembered.
        retain_window: Option<Duration>,
        /// In how many ticks an excess goes back.
        retain_steps: Option<u64>,
        /// Whether there is to be a background thread.
        background: String,
        /// The soft limit in bytes.
        memory_limit: Option<u64>,
        /// The hard limit in bytes.
        hard_limit: Option<u64>,
        /// What happens when 95 % of it are reached.
        fuse: String,
        /// 1: lines per interval and release; 2: per anomaly too.
        trace: u64,
        /// Time between two lines.
        trace_interval: Duration,
        /// The descriptor they are written to.
        trace_fd: u64,
    }
}

fields! {
    /// What happened in an interval, and how things stood at its end. Bytes are those of blocks.
    Interval {
        /// How long it was.
        dt: Duration,
        /// Blocks allocated.
        allocs: u64,
        /// Blocks freed.
        frees: u64,
        /// Bytes allocated.
        alloc_bytes: u64,
        /// Bytes freed.
        free_bytes: u64,
        /// Blocks that the program has.
        live_blocks: u64,
        /// Bytes that the program has.
        live: u64,
        /// Bytes in caches of threads.
        thread_cached: u64,
        /// Bytes on their way between threads.
        depot: u64,
        /// Bytes free beside live blocks.
        holes: u64,
        /// Bytes of free pages that still hold memory.
        dirty: u64,
        /// Bytes for the allocator itself.
        metadata: u64,
        /// Bytes that samples take beyond their blocks.
        profiler: u64,
        /// Bytes in caches of threads that a `fork` left behind.
        lost_at_fork: u64,
        /// The sum of the eight lines above.
        committed: u64,
        /// Bytes of address space without memory.
        released: u64,
        /// Bytes that the kernel has in memory for the process, files aside. `None`: it does not tell.
        resident: Option<u64>,
        /// The soft limit in bytes.
        memory_limit: Option<u64>,
        /// The hard limit in bytes.
        hard_limit: Option<u64>,
        /// Threads that have a cache.
        threads: u64,
        /// Times that blocks came from the shared spans.
        refills: u64,
        /// Times that blocks went to them.
        flushes: u64,
        /// Calls to the system, of all kinds.
        os_calls: u64,
        /// Of these, calls that gave memory back.
        purges: u64,
        /// Of these, calls that were refused.
        refused: u64,
        /// Slow paths of more than 0.1 ms, releases aside.
        pauses: u64,
        /// The longest of them.
        pause_longest: Duration,
        /// Ticks, assists, and times that somebody asked, in which memory was given back.
        release_rounds: u64,
        /// Bytes given back.
        release_bytes: u64,
        /// Time that took.
        release_took: Duration,
        /// The longest at a stretch.
        release_longest: Duration,
        /// Bytes taken from the system.
        taken_bytes: u64,
        /// Times that a thread had to give back because it took memory above the soft limit.
        assists: u64,
        /// Times that it should have and could not.
        exceeded: u64,
        /// Times that 95 % of the hard limit were reached.
        fuse_trips: u64,
        /// Times that huge pages were done without for a while.
        huge_page_pauses: u64,
        /// Blocks allocated since the heap began.
        allocs_total: u64,
        /// Blocks freed since then.
        frees_total: u64,
        /// Bytes allocated since then.
        alloc_bytes_total: u64,
        /// Bytes freed since then.
        free_bytes_total: u64,
        /// There is a background thread.
        background_thread: bool,
        /// Figures may be off by what was on its way.
        approximate: bool,
        /// Kinds of anomalies that there were.
        anomalies: u64,
        /// Lines that nobody took since the start of the process.
        lost: u64,
    }
}

fields! {
    /// Memory that was given back.
    Release {
        /// By whom.
        who: Who,
        /// How many bytes.
        bytes: u64,
        /// How many times.
        calls: u64,
        /// All of them together.
        took: Duration,
        /// The longest of them.
        longest: Duration,
    }
}

fields! {
    /// Something that is wrong.
    Anomaly {
        /// Which; see [`kind`](Self::kind).
        name: String,
        /// What was measured, in the unit of its kind.
        value: f64,
        /// What it is above.
        threshold: f64,
        /// The size class that it is about.
        class: Option<u64>,
        /// The size of its blocks in bytes.
        block: Option<u64>,
    }
}

impl Anomaly {
    /// What it is, and through that what to do. `None`: a rule that this version does not know.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Kind::of_name(&self.name)
    }
}

/// Who gave memory back.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[non_exhaustive]
pub enum Who {
    /// The background thread.
    #[default]
    Background,
    /// A thread on its slow path.
    SlowPath,
    /// A thread that took memory above the soft limit.
    Assist,
    /// Whoever asked for all of it, or whose allocation found none.
    Asked,
    /// Somebody whom this version does not know.
    Other(String),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Background => "background",
            Self::SlowPath => "slow_path",
            Self::Assist => "assist",
            Self::Asked => "asked",
            Self::Other(name) => name,
        })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, fields): (&str, &dyn fmt::Display) = match &self.event {
            Event::Start(start) => ("start", start),
            Event::Interval(interval) => ("interval", interval),
            Event::Release(release) => ("release", release),
            Event::Anomaly(anomaly) => ("anomaly", anomaly),
            Event::Other(kind) => (kind, &""),
        };
        write!(f, "freestone: trace v={VERSION} kind={kind} pid={}", self.pid)?;
        self.t.write("t", f)?;
        write!(f, "{fields} end")
    }
}

/// Why a line of the trace cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ParseError {
    /// It does not end with the word `end`: it was cut off.
    Truncated,
    /// It is of this version of the format, which is not known here.
    Version(String),
    /// A field is missing.
    Missing(&'static str),
    /// A field stands twice.
    Twice(&'static str),
    /// A field has no such value.
    Value(&'static str, String),
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("the line was cut off: it does not end with 'end'"),
            Self::Version(version) => {
                write!(f, "the line is of version '{version}' of the trace, and only version {VERSION} is known here")
            }
            Self::Missing(field) => write!(f, "the field '{field}' is missing"),
            Self::Twice(field) => write!(f, "the field '{field}' stands twice"),
            Self::Value(field, value) => write!(f, "the field '{field}' has no value '{value}'"),
        }
    }
}

impl std::error::Error for ParseError {}

/// What somebody else wrote, for a message: short, and nothing that speaks to a terminal.
fn quoted(text: &[u8]) -> String {
    const LENGTH: usize = 40;
    let shown = text[..text.len().min(LENGTH)].escape_ascii().to_string();
    if text.len() > LENGTH { shown + "…" } else { shown }
}

/// The fields of a line, as they stand there.
struct Fields<'a>(Vec<(&'a [u8], &'a [u8])>);

impl<'a> Fields<'a> {
    /// Up to the word `end`. What follows it belongs to whoever keeps logs.
    fn split(text: &'a [u8]) -> Result<Self, ParseError> {
        let mut fields = Vec::new();
        for word in text.split(|&byte| byte == b' ') {
            let is_end = word.strip_prefix(b"end").is_some_and(|rest| {
                !rest.first().is_some_and(|&byte| byte == b'=' || byte == b'_' || byte.is_ascii_alphanumeric())
            });
            if is_end {
                return Ok(Self(fields));
            }
            if let Some(at) = word.iter().position(|&byte| byte == b'=') {
                fields.push((&word[..at], &word[at + 1..]));
            }
        }
        Err(ParseError::Truncated)
    }

    fn find(&self, name: &'static str) -> Result<Option<&'a [u8]>, ParseError> {
        let mut found = self.0.iter().filter(|(its, _)| *its == name.as_bytes()).map(|(_, value)| *value);
        let value = found.next();
        if found.next().is_some() { Err(ParseError::Twice(name)) } else { Ok(value) }
    }
}

/// What a field can hold.
trait Value: Sized {
    fn of(text: &str) -> Option<Self>;

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    fn read(fields: &Fields<'_>, name: &'static str) -> Result<Self, ParseError> {
        let value = fields.find(name)?.ok_or(ParseError::Missing(name))?;
        let known = std::str::from_utf8(value).ok().and_then(Self::of);
        known.ok_or_else(|| ParseError::Value(name, quoted(value)))
    }

    fn write(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " {name}=")?;
        self.show(f)
    }
}

/// Digits, and nothing but digits. (Parsing by itself would take a sign too.)
fn digits(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

impl Value for u64 {
    fn of(text: &str) -> Option<Self> {
        digits(text)
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Value for u32 {
    fn of(text: &str) -> Option<Self> {
        digits(text)?.try_into().ok()
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl Value for bool {
    fn of(text: &str) -> Option<Self> {
        match text {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        }
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self { "1" } else { "0" })
    }
}

impl Value for f64 {
    fn of(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.')?;
        let is_number = |text: &str| digits(text).is_some();
        if is_number(whole) && fraction.len() == 3 && is_number(fraction) { text.parse().ok() } else { None }
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:.3}")
    }
}

impl Value for Duration {
    fn of(text: &str) -> Option<Self> {
        let (seconds, micros) = text.split_once('.')?;
        let micros = digits(micros).filter(|_| micros.len() == 6)?;
        Some(Self::new(digits(seconds)?, micros as u32 * 1_000))
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.as_secs(), self.subsec_micros())
    }
}

impl Value for String {
    fn of(text: &str) -> Option<Self> {
        let is_word = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_word.then(|| text.to_owned())
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl Value for Who {
    fn of(text: &str) -> Option<Self> {
        let known = [Self::Background, Self::SlowPath, Self::Assist, Self::Asked].into_iter().find(|who| who.to_string() == text);
        known.or_else(|| String::of(text).map(Self::Other))
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl<T: Value> Value for Option<T> {
    fn of(text: &str) -> Option<Self> {
        T::of(text).map(Some)
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().map_or(Ok(()), |value| value.show(f))
    }

    fn read(fields: &Fields<'_>, name: &'static str) -> Result<Self, ParseError> {
        if fields.find(name)?.is_some() { T::read(fields, name).map(Some) } else { Ok(None) }
    }

    fn write(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ref().map_or(Ok(()), |value| value.write(name, f))
    }
}

/// Reads a line. `None`: it is none of the trace's, but of the program's own.
///
/// ```
/// use freestone_stats::trace;
///
/// assert_eq!(trace::parse("listening on :8080"), Ok(None));
/// assert_eq!(trace::parse("freestone: trace v=1 kind=interval pid=12 t=1.0003"), Err(trace::ParseError::Truncated));
/// ```
///
/// # Errors
///
/// When it is of the trace but not whole, of a version that is not known here, or its fields are not what they should be.
pub fn parse(line: impl AsRef<[u8]>) -> Result<Option<Line>, ParseError> {
    let line = line.as_ref();
    // The last one: in front of it may be one that was cut off.
    let Some(at) = line.windows(BEGINNING.len()).rposition(|window| window == BEGINNING) else { return Ok(None) };
    let text = &line[at + BEGINNING.len()..];
    let version = text.split(|&byte| !byte.is_ascii_digit()).next().unwrap_or_default();
    if version.len() == text.len() {
        return Err(ParseError::Truncated);
    }
    if std::str::from_utf8(version).ok().and_then(digits) != Some(VERSION) {
        return Err(ParseError::Version(quoted(text.split(|&byte| byte == b' ').next().unwrap_or_default())));
    }
    let fields = Fields::split(text)?;
    let kind = String::read(&fields, "kind")?;
    let event = match kind.as_str() {
        "start" => Event::Start(Box::new(Start::read(&fields)?)),
        "interval" => Event::Interval(Box::new(Interval::read(&fields)?)),
        "release" => Event::Release(Release::read(&fields)?),
        "anomaly" => Event::Anomaly(Anomaly::read(&fields)?),
        _ => Event::Other(kind),
    };
    Ok(Some(Line { pid: Value::read(&fields, "pid")?, t: Value::read(&fields, "t")?, event }))
}

/// Reads a whole log, line by line, and passes over what is not of the trace: the number of each line, counted from 1, and what it says or why it
/// cannot be read. However long lines are, little of them is kept.
pub fn parse_all<R: BufRead>(log: R) -> Lines<R> {
    Lines { log, number: 0, line: Vec::new() }
}

/// The lines of a trace in a log. See [`parse_all`].
#[derive(Debug)]
pub struct Lines<R> {
    log: R,
    number: u64,
    line: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// A line of a log may be of any length. Of a longer one …
    const KEPT_MAX: usize = 64 << 10;
    /// … the end is kept: a line of the trace is at most 2 KiB long, and ends what it stands in.
    const KEPT: usize = 8 << 10;

    /// How many lines of the log have been read, of all kinds.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// `false`: there is none.
    fn read_line(&mut self) -> io::Result<bool> {
        self.line.clear();
        let mut is_any = false;
        loop {
            let there = match self.log.fill_buf() {
                Ok(there) => there,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if there.is_empty() {
                self.number += u64::from(is_any);
                return Ok(is_any);
            }
            is_any = true;
            let end = there.iter().position(|&byte| byte == b'\n');
            let part = &there[..end.unwrap_or(there.len())];
            self.line.extend_from_slice(part);
            let used = part.len() + usize::from(end.is_some());
            self.log.consume(used);
            if self.line.len() > Self::KEPT_MAX {
                self.line.drain(..self.line.len() - Self::KEPT);
            }
            if end.is_some() {
                self.number += 1;
                return Ok(true);
            }
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = io::Result<(u64, Result<Line, ParseError>)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.read_line() {
                Err(error) => return Some(Err(error)),
                Ok(false) => return None,
                Ok(true) => {}
            }
            if let Some(line) = parse(&self.line).transpose() {
                return Some(Ok((self.number, line)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: &str = "freestone: trace v=1 kind=start pid=31777 t=0.000107 unix=1795276660.949041 version=0.1.0 os_page=4096 check=sampled huge_pages=auto retain=10% retain_window=5.000000 retain_steps=8 background=auto hard_limit=77 fuse=off trace=2 trace_interval=1.000000 trace_fd=2 end";
    const INTERVAL: &str = "freestone: trace v=1 kind=interval pid=31777 t=8.098892 dt=1.007353 allocs=0 frees=0 alloc_bytes=0 free_bytes=0 live_blocks=2 live=584 thread_cached=824 depot=0 holes=137856 dirty=8249344 metadata=420312 profiler=0 lost_at_fork=0 committed=8808920 released=45389352 resident=9232384 threads=1 refills=0 flushes=0 os_calls=84 purges=84 refused=0 pauses=0 pause_longest=0.000000 release_rounds=7 release_bytes=42123264 release_took=0.003084 release_longest=0.000316 taken_bytes=0 assists=0 exceeded=0 fuse_trips=0 huge_page_pauses=0 allocs_total=6120004 frees_total=6120002 alloc_bytes_total=147044168 free_bytes_total=147043584 background_thread=1 approximate=0 anomalies=1 lost=0 end";
    const RELEASE: &str = "freestone: trace v=1 kind=release pid=31777 t=7.495374 who=background bytes=6291456 calls=3 took=0.000841 longest=0.000316 end";
    const ANOMALY: &str = "freestone: trace v=1 kind=anomaly pid=31777 t=4.056305 name=allocation_storm value=893608.338 threshold=5000.000 class=0 block=8 end";
    const ALL: [&str; 4] = [START, INTERVAL, RELEASE, ANOMALY];

    fn event(line: &str) -> Event {
        parse(line).expect("it can be read").expect("it is of the trace").event
    }

    #[test]
    fn fields_have_their_types() {
        let Event::Start(start) = event(START) else { panic!("no start") };
        assert_eq!((start.unix, start.retain_steps), (Duration::new(1_795_276_660, 949_041_000), Some(8)));
        assert_eq!((start.retain.as_str(), start.memory_limit, start.hard_limit), ("10%", None, Some(77)));
        let Event::Interval(interval) = event(INTERVAL) else { panic!("no interval") };
        assert_eq!((interval.dt, interval.release_longest), (Duration::from_micros(1_007_353), Duration::from_micros(316)));
        assert_eq!((interval.resident, interval.background_thread, interval.approximate), (Some(9_232_384), true, false));
        let Event::Release(release) = event(RELEASE) else { panic!("no release") };
        assert_eq!((release.who, release.bytes, release.calls), (Who::Background, 6_291_456, 3));
        let Event::Anomaly(anomaly) = event(ANOMALY) else { panic!("no anomaly") };
        assert_eq!((anomaly.kind(), anomaly.class, anomaly.block), (Some(Kind::AllocationStorm), Some(0), Some(8)));
        assert!((anomaly.value - 893_608.338).abs() < 1e-9);
        for line in ALL {
            let read = parse(line).expect("it can be read").expect("it is of the trace");
            assert_eq!((read.pid, read.to_string().as_str()), (31_777, line));
        }
    }

    #[test]
    fn what_is_not_of_the_trace_is_passed_over() {
        for line in
            ["", "freestone: fatal: double free", "freestone: trace of a bear", "freestone: trac", "FREESTONE: trace v=1 end"]
        {
            assert_eq!(parse(line), Ok(None), "{line}");
        }
        assert_eq!(parse([0xff, 0, b'\r']), Ok(None));
    }

    #[test]
    fn a_line_is_found_in_what_is_around_it() {
        let expected = parse(RELEASE);
        for (before, after) in [
            ("2026-11-20T10:00:00.1Z stderr F ", ""),
            ("progress 50 %", "\r"),
            (r#"{"log":""#, r#"\n","stream":"stderr"}"#),
            ("freestone: trace v=1 kind=interval pid=7 t=1.2", ""),
            ("\u{fffd}\u{1b}[31m", "\u{1b}[0m"),
        ] {
            assert_eq!(parse(format!("{before}{RELEASE}{after}")), expected, "{before}…{after}");
        }
    }

    #[test]
    fn what_comes_later_is_passed_over_too() {
        assert_eq!(parse(RELEASE.replace(" who=", " where=there endless=1 end_of=x who=")), parse(RELEASE));
        assert_eq!(event(&RELEASE.replace("kind=release", "kind=forecast")), Event::Other("forecast".to_owned()));
        let Event::Release(release) = event(&RELEASE.replace("=background", "=gardener")) else { panic!("no release") };
        assert_eq!(release.who, Who::Other("gardener".to_owned()));
        let Event::Anomaly(anomaly) = event(&ANOMALY.replace("allocation_storm", "drought")) else { panic!("no anomaly") };
        assert_eq!(anomaly.kind(), None);
    }

    #[test]
    fn what_cannot_be_read_is_said_in_a_sentence() {
        let cases = [
            (RELEASE.replace(" end", ""), "the line was cut off: it does not end with 'end'"),
            (RELEASE[..19].to_owned(), "the line was cut off: it does not end with 'end'"),
            (RELEASE.replace("v=1", "v=2"), "the line is of version '2' of the trace, and only version 1 is known here"),
            (RELEASE.replace("v=1", "v=next"), "the line is of version 'next' of the trace, and only version 1 is known here"),
            (RELEASE.replace(" bytes=6291456", ""), "the field 'bytes' is missing"),
            (RELEASE.replace(" pid=31777", ""), "the field 'pid' is missing"),
            (RELEASE.replace(" kind=release", ""), "the field 'kind' is missing"),
            (RELEASE.replace(" calls=3", " calls=3 calls=3"), "the field 'calls' stands twice"),
            (RELEASE.replace("calls=3", "calls=-3"), "the field 'calls' has no value '-3'"),
            (RELEASE.replace("calls=3", "calls=+3"), "the field 'calls' has no value '+3'"),
            (RELEASE.replace("calls=3", "calls="), "the field 'calls' has no value ''"),
            (RELEASE.replace("calls=3", "calls=18446744073709551616"), "the field 'calls' has no value '18446744073709551616'"),
            (RELEASE.replace("pid=31777", "pid=4294967296"), "the field 'pid' has no value '4294967296'"),
            (RELEASE.replace("t=7.495374", "t=7"), "the field 't' has no value '7'"),
            (RELEASE.replace("t=7.495374", "t=.5"), "the field 't' has no value '.5'"),
            (RELEASE.replace("t=7.495374", "t=7.4953740"), "the field 't' has no value '7.4953740'"),
            (RELEASE.replace("t=7.495374", "t=NaN"), "the field 't' has no value 'NaN'"),
            (ANOMALY.replace("=893608.338", "=inf"), "the field 'value' has no value 'inf'"),
            (ANOMALY.replace("=893608.338", "=1e300"), "the field 'value' has no value '1e300'"),
            (ANOMALY.replace("=893608.338", "=.338"), "the field 'value' has no value '.338'"),
            (INTERVAL.replace("approximate=0", "approximate=2"), "the field 'approximate' has no value '2'"),
            (INTERVAL.replace("resident=", "resident=x"), "the field 'resident' has no value 'x9232384'"),
            (
                RELEASE.replace("background", &"\u{7f}".repeat(50)),
                &format!("the field 'who' has no value '{}…'", r"\x7f".repeat(40)),
            ),
        ];
        for (line, sentence) in cases {
            assert_eq!(parse(&line).map_err(|error| error.to_string()), Err(sentence.to_owned()), "{line}");
        }
    }

    #[test]
    fn a_log_is_read_line_by_line_however_long_they_are() {
        let long = "x".repeat(1 << 20);
        let log = format!("hello\n{START}\n\n{long}{RELEASE}\n{long}\n{}\n{ANOMALY}", &INTERVAL[..300]);
        for capacity in [1, 7, 1 << 16] {
            let mut lines = parse_all(io::BufReader::with_capacity(capacity, log.as_bytes()));
            let read: Vec<_> = lines.by_ref().map(|line| line.expect("memory can be read")).collect();
            assert!(lines.line.capacity() < 1 << 18, "{}", lines.line.capacity());
            let said: Vec<(u64, String)> = read
                .into_iter()
                .map(|(number, line)| (number, line.map_or_else(|error| error.to_string(), |line| line.to_string())))
                .collect();
            let cut = ParseError::Truncated.to_string();
            let expected = [(2, START), (4, RELEASE), (6, cut.as_str()), (7, ANOMALY)];
            assert_eq!(said, expected.map(|(number, line)| (number, line.to_owned())));
        }
        assert_eq!(parse_all(io::empty()).count(), 0);
    }

    #[test]
    fn a_log_that_cannot_be_read_says_so() {
        struct Broken;
        impl io::Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let error = parse_all(io::BufReader::new(Broken)).next().expect("something is said").expect_err("it is broken");
        assert_eq!(error.to_string(), "broken");
    }

    /// Bytes are changed, cut out and put in. Whatever comes of it is read or refused, and what is read can be written and read again.
    #[test]
    fn no_bytes_at_all_can_harm() {
        let chosen = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
        let seed: u64 = chosen.unwrap_or_else(|| {
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
            now.as_nanos() as u64
        });
        println!("replay with SEED={seed}");
        let mut state = seed | 1;
        let mut below = |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        };
        let (mut read, mut refused) = (0, 0);
        for _ in 0..50_000 {
            let mut line = ALL[below(ALL.len())].as_bytes().to_vec();
            for _ in 0..=below(3) {
                let at = below(line.len());
                let byte = b" =.0129-end\xff\0\nvkindtpx"[below(22)];
                match below(5) {
                    0 => line.truncate(at.max(1)),
                    1 => line[at] = byte,
                    2 => line.insert(at, byte),
                    3 => drop(line.drain(at..line.len().min(at + 12))),
                    _ => line.extend_from_within(at..),
                }
                if line.is_empty() {
                    line.push(b' ');
                }
            }
            match parse(&line) {
                Ok(Some(line)) => {
                    read += 1;
                    assert_eq!(parse(line.to_string()).as_ref(), Ok(&Some(line)));
                }
                Ok(None) => {}
                Err(error) => {
                    refused += 1;
                    assert!(error.to_string().len() < 400, "{error}");
                }
            }
        }
        assert!(read > 1_000 && refused > 1_000, "{read} were read, {refused} were refused");
    }
}
