//! Floor 0. What a user may choose, and how it is written in `FREESTONE=key:value,key:value`.
//!
//! Parsing is pure: the text is handed in, complaints are handed out one by one, nothing is allocated, and the environment is
//! read elsewhere.

use core::time::Duration;

/// When a magazine that changes sides within a thread is checked block by block.
///
/// What reaches central (another thread's supply, a thread's end, memory given back) is always checked in full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Check {
    /// One exchange in 16: costs up to 7 % of a loop that does nothing but allocate and free, and little elsewhere. The default.
    Sampled,
    /// Every exchange: finds a double free within a thread's next few hundred operations; costs 1.3–1.5 × in tight loops.
    Exchange,
}

/// Whether new memory asks the kernel for 2 MiB pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum HugePages {
    /// Once the heap is large or growing in a burst. The default.
    Auto,
    /// Never: least memory, most page faults.
    Never,
    /// From the first step on: a heap costs at least 2 MiB.
    Always,
}

/// How much free memory is kept for the next phase of the program; the rest goes back to the operating system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Retain {
    /// None: what becomes free goes back at the next tick, a tenth of a second later. Least memory, most page faults.
    Off,
    /// What the program needed at most in the last `window_ms`, and `percent` of it more. What lies above goes back in `steps` equal parts,
    /// one per tick of a tenth of a second.
    Peak {
        /// Kept above the recent peak, in percent of it.
        percent: u16,
        /// How long a peak is remembered, in milliseconds. At least 100.
        window_ms: u16,
        /// In how many ticks an excess goes back. At least 1.
        steps: u8,
    },
    /// All of it, until somebody asks, a limit is near, or the kernel says that programs wait for memory.
    Keep,
}

impl Retain {
    /// The peak of the last five seconds and a tenth more, the rest in eight steps.
    pub const DEFAULT: Self = Self::Peak { percent: 10, window_ms: 5000, steps: 8 };
    /// Percentages above this are taken for it.
    const PERCENT_MAX: u16 = 1000;

    /// As one number, for a place that many threads read.
    pub(crate) const fn pack(self) -> u64 {
        match self {
            Self::Off => 1,
            Self::Keep => 2,
            Self::Peak { percent, window_ms, steps } => {
                let window_ms = if window_ms < 100 { 100 } else { window_ms };
                let steps = if steps == 0 { 1 } else { steps };
                let percent = if percent > Self::PERCENT_MAX { Self::PERCENT_MAX } else { percent };
                3 | (steps as u64) << 8 | (percent as u64) << 16 | (window_ms as u64) << 32
            }
        }
    }

    /// What [`pack`](Self::pack) was given; zero is the default.
    pub(crate) const fn unpack(packed: u64) -> Self {
        match packed as u8 {
            1 => Self::Off,
            2 => Self::Keep,
            3 => Self::Peak { percent: (packed >> 16) as u16, window_ms: (packed >> 32) as u16, steps: (packed >> 8) as u8 },
            _ => Self::DEFAULT,
        }
    }
}

/// Whether a thread of the allocator's own gives memory back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Background {
    /// Once there is enough to give back: 32 MiB for a second, or 48 MiB at any moment, or somebody waits for pressure. The default.
    Auto,
    /// From the first slow path on.
    On,
    /// Never: running threads do it on their slow paths, and a program that sleeps keeps what it has. Whoever frees so much that 48 MiB are
    /// free gives them back on the spot, but for a tenth of what is in use.
    Off,
}

/// How much memory the heap may hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Limit {
    /// As much as there is.
    None,
    /// So many bytes.
    Bytes(usize),
    /// So many percent, 1 to 100, of what the machine has or the control group allows, whichever is less.
    Percent(u8),
}

/// What happens when 95 % of the hard limit are reached, after one line on standard error and the pressure callbacks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Fuse {
    /// The program goes on; at the limit allocations fail. The default.
    Off,
    /// The process ends in an orderly way, with exit code 137, which container platforms read as out of memory.
    Exit,
}

/// What happens to a pointer that this allocator never handed out, when somebody frees it through the C face.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Foreign {
    /// The process ends, with a line that names the pointer. The default.
    Abort,
    /// Nothing: it is leaked. Its usable size is 0, and `realloc` of it fails.
    Ignore,
}

/// What `malloc(0)` gives in the C face.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ZeroSize {
    /// An address of its own at which nothing can be read or written. The default.
    Unusable,
    /// A block of the smallest class.
    Usable,
}

/// Whether the allocator says in lines of text what it is doing. See `docs/trace.md`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Trace {
    /// No. The default.
    Off,
    /// One line per interval, and one per tenth of a second in which memory was given back.
    Lines,
    /// As well one per interval and kind of [anomaly](crate::anomaly).
    Anomalies,
}

/// From where programs call. Where calls come from C, a process that has no second thread is not given one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Face {
    Rust,
    C,
}

/// The options in force. Built by [`crate::Freestone`]'s builder methods, then overridden by the environment; most can be changed at run time
/// through [`crate::control`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Options {
    /// See [`Check`]. Key `check`, values `sampled` and `exchange`.
    pub check: Check,
    /// See [`HugePages`]. Key `huge_pages`, values `auto`, `never` and `always`.
    pub huge_pages: HugePages,
    /// See [`Retain`]. Key `retain`, values `off`, `default`, `keep`, or a percentage such as `25%`, which is kept above the recent peak.
    pub retain: Retain,
    /// See [`Background`]. Key `background`, values `auto`, `on` and `off`.
    pub background: Background,
    /// The soft limit: memory is given back to stay below it, but no allocation fails for it. Key `memory_limit` or the variable
    /// `FREESTONE_MEMORY_LIMIT`, values such as `2GiB` (units `B`, `KiB`, `MiB`, `GiB`, `TiB`), `90%`, `none`.
    pub memory_limit: Limit,
    /// The hard limit: allocations that would pass it fail. Key `hard_limit`, values as for `memory_limit`.
    pub hard_limit: Limit,
    /// See [`Fuse`]. Key `fuse`, values `off` and `exit`.
    pub fuse: Fuse,
    /// Everything is handed to the system's allocator, from the first allocation on; nothing is counted then. Key `bypass`, values `0` and `1`.
    pub bypass: bool,
    /// See [`Foreign`]. Key `foreign`, values `abort` and `ignore`.
    pub foreign: Foreign,
    /// See [`ZeroSize`]. Key `zero_size`, values `unusable` and `usable`.
    pub zero_size: ZeroSize,
    /// See [`Trace`]. Key `trace`, values `0`, `1` and `2`.
    pub trace: Trace,
    /// The time between two lines. Key `trace_interval`, values such as `500ms` and `10s`, from `100ms` to `1h`.
    pub trace_interval: Duration,
    /// The descriptor that the lines are written to. Key `trace_fd`, a number; 2 is standard error.
    pub trace_fd: u32,
    /// Bytes between two samples, on average; 0: none is taken, 1: every allocation is one; at most 1 GiB. Key `sample_interval`, values such as `512KiB`. See
    /// [`profile`](crate::profile).
    pub sample_interval: usize,
    /// Blocks of so many bytes are samples in any case, unless sampling is off. Key `sample_above`, values such as `16MiB`.
    pub sample_above: usize,
    /// Where a thread is held up by the allocator for so long, that is recorded, unless sampling is off. Key `stall_above`, values such as `100us`.
    pub stall_above: Duration,
    /// What is known of call sites may take so many bytes; 0: 1.5 MiB and 1/256 of what the heap holds. Key `profile_memory`, values such as `8MiB`.
    pub profile_memory: usize,
    /// Bytes that are allocated between two guarded blocks, on average; 0: there are none, 1: every sample of up to 8 KiB is one, as long as there is room for
    /// it. Key `guard_interval`, values such as `64MiB`.
    pub guard_interval: usize,
    /// Whether a fault beside a guarded block is told of before the process ends; see [`report_faults`](crate::control::report_faults). Key `fault_report`,
    /// values `0` and `1`.
    pub fault_report: bool,
    pub(crate) face: Face,
}

/// Something in the text that has no effect, to be reported on a line of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Complaint<'a> {
    /// No option has this key.
    UnknownKey(&'a [u8]),
    /// The option exists; this is not one of its values.
    BadValue(&'a [u8], &'a [u8]),
}

impl Options {
    /// The shortest time between two lines of the trace: as often as somebody looks …
    const TRACE_INTERVAL_MIN: Duration = Duration::from_millis(100);
    /// … and the longest.
    const TRACE_INTERVAL_MAX: Duration = Duration::from_hours(1);

    /// An interval, within its bounds.
    pub(crate) const fn within_bounds(interval: Duration) -> Duration {
        let ns = interval.as_nanos();
        if ns < Self::TRACE_INTERVAL_MIN.as_nanos() {
            Self::TRACE_INTERVAL_MIN
        } else if ns > Self::TRACE_INTERVAL_MAX.as_nanos() {
            Self::TRACE_INTERVAL_MAX
        } else {
            interval
        }
    }

    /// The longest interval between samples: what is drawn has 32 bits.
    pub(crate) const SAMPLE_INTERVAL_MAX: usize = 1 << 30;

    /// What holds when nobody chooses.
    pub(crate) const DEFAULT: Self = Self {
        check: Check::Sampled,
        huge_pages: HugePages::Auto,
        retain: Retain::DEFAULT,
        background: Background::Auto,
        memory_limit: Limit::None,
        hard_limit: Limit::None,
        fuse: Fuse::Off,
        bypass: false,
        foreign: Foreign::Abort,
        zero_size: ZeroSize::Unusable,
        trace: Trace::Off,
        trace_interval: Duration::from_secs(1),
        trace_fd: 2,
        sample_interval: 512 << 10,
        sample_above: 16 << 20,
        stall_above: Duration::from_micros(100),
        profile_memory: 0,
        guard_interval: 64 << 20,
        fault_report: false,
        face: if cfg!(freestone_c) { Face::C } else { Face::Rust },
    };

    /// Applies `text`, entry by entry from left to right, so that the last one wins. Empty entries are fine.
    pub(crate) fn apply<'a>(&mut self, text: &'a [u8], mut complain: impl FnMut(Complaint<'a>)) {
        for entry in text.split(|&byte| byte == b',') {
            let entry = entry.trim_ascii();
            if entry.is_empty() {
                continue;
            }
            let colon = entry.iter().position(|&byte| byte == b':').unwrap_or(entry.len());
            let key = entry[..colon].trim_ascii();
            let value = entry[colon..].strip_prefix(b":").unwrap_or(b"").trim_ascii();
            if let Err(complaint) = self.set(key, value) {
                complain(complaint);
            }
        }
    }

    /// Applies one option. A value that is not understood changes nothing.
    pub(crate) fn set<'a>(&mut self, key: &'a [u8], value: &'a [u8]) -> Result<(), Complaint<'a>> {
        match key {
            b"check" => {
                let values: [(&[u8], _); 2] = [(b"sampled", Check::Sampled), (b"exchange", Check::Exchange)];
                choose(&mut self.check, value, &values)
            }
            b"huge_pages" => {
                let values: [(&[u8], _); 3] =
                    [(b"auto", HugePages::Auto), (b"never", HugePages::Never), (b"always", HugePages::Always)];
                choose(&mut self.huge_pages, value, &values)
            }
            b"background" => {
                let values: [(&[u8], _); 3] = [(b"auto", Background::Auto), (b"on", Background::On), (b"off", Background::Off)];
                choose(&mut self.background, value, &values)
            }
            b"fuse" => {
                let values: [(&[u8], _); 2] = [(b"off", Fuse::Off), (b"exit", Fuse::Exit)];
                choose(&mut self.fuse, value, &values)
            }
            b"bypass" => {
                let values: [(&[u8], _); 2] = [(b"0", false), (b"1", true)];
                choose(&mut self.bypass, value, &values)
            }
            b"foreign" => {
                let values: [(&[u8], _); 2] = [(b"abort", Foreign::Abort), (b"ignore", Foreign::Ignore)];
                choose(&mut self.foreign, value, &values)
            }
            b"zero_size" => {
                let values: [(&[u8], _); 2] = [(b"unusable", ZeroSize::Unusable), (b"usable", ZeroSize::Usable)];
                choose(&mut self.zero_size, value, &values)
            }
            b"trace" => {
                let values: [(&[u8], _); 3] = [(b"0", Trace::Off), (b"1", Trace::Lines), (b"2", Trace::Anomalies)];
                choose(&mut self.trace, value, &values)
            }
            b"trace_interval" => put(&mut self.trace_interval, parse_interval(value)),
            b"trace_fd" => {
                let is_descriptor = |number: &u64| i32::try_from(*number).is_ok();
                put(&mut self.trace_fd, parse_number(value).filter(is_descriptor).map(|number| number as u32))
            }
            b"sample_interval" => {
                put(&mut self.sample_interval, parse_bytes(value).filter(|&bytes| bytes <= Self::SAMPLE_INTERVAL_MAX))
            }
            b"sample_above" => put(&mut self.sample_above, parse_bytes(value)),
            b"stall_above" => put(&mut self.stall_above, parse_time(value)),
            b"guard_interval" => put(&mut self.guard_interval, parse_bytes(value)),
            b"fault_report" => {
                let values: [(&[u8], _); 2] = [(b"0", false), (b"1", true)];
                choose(&mut self.fault_report, value, &values)
            }
            b"profile_memory" => put(&mut self.profile_memory, parse_bytes(value)),
            b"retain" => put(&mut self.retain, parse_retain(value)),
            b"memory_limit" => put(&mut self.memory_limit, parse_limit(value)),
            b"hard_limit" => put(&mut self.hard_limit, parse_limit(value)),
            _ => return Err(Complaint::UnknownKey(key)),
        }
        .ok_or(Complaint::BadValue(key, value))
    }
}

/// Sets `option` to what `value` stands for.
fn choose<T: Copy>(option: &mut T, value: &[u8], values: &[(&[u8], T)]) -> Option<()> {
    put(option, values.iter().find(|(name, _)| *name == value).map(|(_, meaning)| *meaning))
}

fn put<T>(option: &mut T, value: Option<T>) -> Option<()> {
    *option = value?;
    Some(())
}

/// Digits, and nothing but digits.
pub(crate) fn parse_number(text: &[u8]) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    text.iter().try_fold(0_u64, |number, &byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

fn parse_retain(value: &[u8]) -> Option<Retain> {
    match value {
        b"off" => Some(Retain::Off),
        b"default" => Some(Retain::DEFAULT),
        b"keep" => Some(Retain::Keep),
        _ => {
            let percent = parse_number(value.strip_suffix(b"%")?)?;
            let percent = u16::try_from(percent).ok().filter(|&percent| percent <= Retain::PERCENT_MAX)?;
            let Retain::Peak { window_ms, steps, .. } = Retain::DEFAULT else { return None };
            Some(Retain::Peak { percent, window_ms, steps })
        }
    }
}

/// A number with a unit of time.
fn parse_time(value: &[u8]) -> Option<Duration> {
    // Those that end with "s" before that. Patterns, not a table: pointers in tables cost every process memory.
    let (digits, ns) = match value {
        [digits @ .., b'n', b's'] => (digits, 1),
        [digits @ .., b'u', b's'] => (digits, 1_000),
        [digits @ .., b'm', b's'] => (digits, 1_000_000),
        [digits @ .., b's'] => (digits, 1_000_000_000),
        [digits @ .., b'm', b'i', b'n'] => (digits, 60_000_000_000),
        [digits @ .., b'h'] => (digits, 3_600_000_000_000),
        _ => return None,
    };
    Some(Duration::from_nanos(parse_number(digits.trim_ascii())?.checked_mul(ns)?))
}

fn parse_interval(value: &[u8]) -> Option<Duration> {
    let interval = parse_time(value)?;
    (Options::TRACE_INTERVAL_MIN..=Options::TRACE_INTERVAL_MAX).contains(&interval).then_some(interval)
}

/// A number of bytes without a unit, or with one of those of GOMEMLIMIT.
fn parse_bytes(value: &[u8]) -> Option<usize> {
    let (digits, shift) = match value {
        [digits @ .., b'K', b'i', b'B'] => (digits, 10),
        [digits @ .., b'M', b'i', b'B'] => (digits, 20),
        [digits @ .., b'G', b'i', b'B'] => (digits, 30),
        [digits @ .., b'T', b'i', b'B'] => (digits, 40),
        [digits @ .., b'B'] | digits => (digits, 0),
    };
    usize::try_from(parse_number(digits.trim_ascii())?.checked_mul(1_u64 << shift)?).ok()
}

/// A number of bytes, or a percentage. A limit of nothing is none that anybody means.
fn parse_limit(value: &[u8]) -> Option<Limit> {
    if value == b"none" {
        return Some(Limit::None);
    }
    if let Some(percent) = value.strip_suffix(b"%") {
        let percent = parse_number(percent.trim_ascii())?;
        return (1..=100).contains(&percent).then_some(Limit::Percent(percent as u8));
    }
    parse_bytes(value).filter(|&bytes| bytes > 0).map(Limit::Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(text: &str) -> (Options, Vec<Complaint<'_>>) {
        let mut options = Options::DEFAULT;
        let mut complaints = Vec::new();
        options.apply(text.as_bytes(), |complaint| complaints.push(complaint));
        (options, complaints)
    }

    #[test]
    fn nothing_changes_nothing() {
        assert_eq!(applied(""), (Options::DEFAULT, vec![]));
        assert_eq!(applied(" , ,,"), (Options::DEFAULT, vec![]));
    }

    #[test]
    fn the_last_entry_wins_and_spaces_are_fine() {
        let (options, complaints) = applied(" check : exchange , huge_pages:never,huge_pages:always");
        assert_eq!(options, Options { check: Check::Exchange, huge_pages: HugePages::Always, ..Options::DEFAULT });
        assert_eq!(complaints, []);
    }

    #[test]
    fn what_is_not_understood_is_named_and_the_rest_holds() {
        let (options, complaints) = applied("chek:exchange,check:maybe,check,huge_pages:never,\u{fffd}");
        assert_eq!(options, Options { huge_pages: HugePages::Never, ..Options::DEFAULT });
        assert_eq!(
            complaints,
            [
                Complaint::UnknownKey(b"chek"),
                Complaint::BadValue(b"check", b"maybe"),
                Complaint::BadValue(b"check", b""),
                Complaint::UnknownKey("\u{fffd}".as_bytes()),
            ]
        );
    }

    #[test]
    fn every_option_can_be_written() {
        let text = "retain:keep,background:off,memory_limit:2GiB,hard_limit:90%,fuse:exit,bypass:1,foreign:ignore,zero_size:usable,trace:2,trace_interval:500ms,trace_fd:7,guard_interval:1MiB,fault_report:1";
        let (options, complaints) = applied(text);
        assert_eq!(complaints, []);
        let expected = Options {
            retain: Retain::Keep,
            background: Background::Off,
            memory_limit: Limit::Bytes(2 << 30),
            hard_limit: Limit::Percent(90),
            fuse: Fuse::Exit,
            bypass: true,
            foreign: Foreign::Ignore,
            zero_size: ZeroSize::Usable,
            trace: Trace::Anomalies,
            trace_interval: Duration::from_millis(500),
            trace_fd: 7,
            guard_interval: 1 << 20,
            fault_report: true,
            ..Options::DEFAULT
        };
        assert_eq!(options, expected);
        assert_eq!(applied(&format!("{text},retain:default,background:auto,memory_limit:none,hard_limit:none,fuse:off,bypass:0,foreign:abort,zero_size:unusable,trace:0,trace_interval:1s,trace_fd:2,guard_interval:64MiB,fault_report:0")).0, Options::DEFAULT);
    }

    #[test]
    fn limits_are_sizes_or_shares() {
        let good: [(&str, Limit); 9] = [
            ("none", Limit::None),
            ("1", Limit::Bytes(1)),
            ("7B", Limit::Bytes(7)),
            ("64 KiB", Limit::Bytes(64 << 10)),
            ("512MiB", Limit::Bytes(512 << 20)),
            ("2GiB", Limit::Bytes(2 << 30)),
            ("3TiB", Limit::Bytes(3 << 40)),
            ("1%", Limit::Percent(1)),
            ("100%", Limit::Percent(100)),
        ];
        for (text, limit) in good {
            assert_eq!(parse_limit(text.as_bytes()), Some(limit), "{text}");
        }
        let bad = [
            "",
            "0",
            "0GiB",
            "GiB",
            "-1",
            "+1",
            "1.5GiB",
            "2GB",
            "2gib",
            "2G",
            "0%",
            "101%",
            "%",
            "1e9",
            "18446744073709551616",
            "18446744073709551615TiB",
            "2GiB ",
            "none ",
            "\u{ff12}GiB",
        ];
        for text in bad {
            assert_eq!(parse_limit(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn intervals_have_units_and_bounds() {
        for (text, ms) in [("100ms", 100), ("999ms", 999), ("1s", 1_000), ("10 s", 10_000), ("3min", 180_000), ("1h", 3_600_000)]
        {
            assert_eq!(parse_interval(text.as_bytes()), Some(Duration::from_millis(ms)), "{text}");
        }
        for text in
            ["", "0", "1", "s", "ms", "99ms", "0s", "61min", "2h", "3601s", "1.5s", "-1s", "1S", "1s ", "18446744073709551615h"]
        {
            assert_eq!(parse_interval(text.as_bytes()), None, "{text}");
        }
        let within = |ms| Options::within_bounds(Duration::from_millis(ms)).as_millis();
        assert_eq!([0, 99, 100, 5_000, 3_600_000, 3_600_001].map(within), [100, 100, 100, 5_000, 3_600_000, 3_600_000]);
        assert_eq!(Options::within_bounds(Duration::MAX), Options::TRACE_INTERVAL_MAX);
    }

    #[test]
    fn the_trace_goes_to_any_descriptor_there_can_be() {
        for (text, fd) in
            [("0", Some(0)), ("2147483647", Some(i32::MAX as u32)), ("2147483648", None), ("-1", None), ("stderr", None)]
        {
            let written = format!("trace_fd:{text}");
            let (options, complaints) = applied(&written);
            assert_eq!((options.trace_fd, complaints.len()), (fd.unwrap_or(2), usize::from(fd.is_none())), "{text}");
        }
    }

    #[test]
    fn what_to_retain_is_a_word_or_a_share() {
        assert_eq!(parse_retain(b"0%"), Some(Retain::Peak { percent: 0, window_ms: 5000, steps: 8 }));
        assert_eq!(parse_retain(b"1000%"), Some(Retain::Peak { percent: 1000, window_ms: 5000, steps: 8 }));
        for text in ["", "%", "10", "1001%", "-1%", "on", "Off", "keep "] {
            assert_eq!(parse_retain(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_to_retain_fits_into_a_number() {
        for retain in
            [Retain::Off, Retain::Keep, Retain::DEFAULT, Retain::Peak { percent: 1000, window_ms: u16::MAX, steps: u8::MAX }]
        {
            assert_eq!(Retain::unpack(retain.pack()), retain);
        }
        assert_eq!(Retain::unpack(0), Retain::DEFAULT);
        let clamped = Retain::unpack(Retain::Peak { percent: u16::MAX, window_ms: 0, steps: 0 }.pack());
        assert_eq!(clamped, Retain::Peak { percent: 1000, window_ms: 100, steps: 1 });
    }

    #[test]
    fn no_bytes_at_all_can_harm() {
        let mut options = Options::DEFAULT;
        let mut state = 1_u64;
        for length in 0..2_000 {
            let mut text = vec![0_u8; length % 97];
            for byte in &mut text {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                *byte = b"check:exchange,huge_pages\0\xffmory_limit:9%GiBretain"[(state >> 33) as usize % 49];
            }
            let mut entries = 0;
            options.apply(&text, |_| entries += 1);
            assert!(entries <= text.len());
        }
    }
}
