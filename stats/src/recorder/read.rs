//! Reads recordings: of a process that lives, or has ended in whatever way. Whatever bytes are there, nothing panics.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use freestone::Pause;

use super::format::{
    self, BEING_WRITTEN, Decoder, EVENT_ANOMALY, EVENT_ENDING, EVENT_LIMIT, HEADER_BYTES, HEADER_CHECKED_FROM, Header,
    LimitFields, MAGIC, Moment, NAME_BYTES_MAX, Recorded, Ring, RingOf, SLOT_HEADER_BYTES, TEXT_BYTES_MAX, Text, Texts, VERSION,
    Visit,
};
use super::{BYTES_MAX, Ending, LimitKind, surroundings};
use crate::Snapshot;

/// What a recording has to tell, oldest first.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct Recording {
    /// Who recorded.
    pub origin: Origin,
    /// Is the process still there? Only [`read`] can say; of bytes in memory it is not known.
    pub life: Life,
    /// The snapshots. Their `at` is right relative to each other and to the events, and to nothing else.
    pub snapshots: Vec<Snapshot>,
    /// What limits did, anomalies, and the end.
    pub events: Vec<Event>,
    /// The longest pauses of each interval.
    pub pauses: Vec<RecordedPause>,
    /// Records that were cut short or changed: at most one where only the process died, more where the machine did.
    pub torn: usize,
    /// Bytes that are missing at the end of the file.
    pub missing_bytes: u64,
    /// How often the kernel's OOM killer has killed on this machine since recording began, whomever. Only [`read`] can say, and only until
    /// the machine is started again.
    pub oom_kills: Option<u64>,
}

/// Who recorded.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Origin {
    /// The program's path. Its arguments are not kept: there may be passwords among them.
    pub exe: String,
    /// The process, as it saw itself.
    pub pid: u32,
    /// When recording began.
    pub started: SystemTime,
    /// How often there is a snapshot.
    pub interval: Duration,
    /// What the machine or the control group allowed the process when recording began, in bytes.
    pub allowed_bytes: Option<u64>,
    /// The version of `freestone-stats` in the program.
    pub library: String,
}

/// Is the process that recorded still there?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Life {
    /// It is.
    Running,
    /// It is not, or it has stopped recording.
    Ended,
    /// The machine has been started again since.
    MachineRestarted,
    /// Nobody can say.
    Unknown,
}

/// Something that happened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Event {
    /// When, on the clock of the snapshots.
    pub at: Instant,
    /// When, on the wall.
    pub taken: SystemTime,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum What {
    /// A limit did something.
    Limit {
        /// What.
        kind: LimitKind,
        /// How often, since the snapshot before.
        times: u64,
        /// What the heap held.
        held_bytes: u64,
        /// The limit.
        limit_bytes: Option<u64>,
    },
    /// A rule found something strange.
    Anomaly {
        /// The rule.
        name: String,
        /// What it found, its name first.
        text: String,
    },
    /// Recording ended in an orderly way.
    Ended(Ending),
}

/// Something that took its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct RecordedPause {
    /// When it ended, on the clock of the snapshots.
    pub at: Instant,
    /// When it ended, on the wall.
    pub taken: SystemTime,
    /// What, and how long.
    pub pause: Pause,
}

/// Why something cannot be read.
#[derive(Debug)]
#[non_exhaustive]
pub enum ReadError {
    /// The system does not let us.
    Io(io::Error),
    /// It is no file, or larger than any recording.
    NotAFile,
    /// It does not begin like a recording.
    NotARecording,
    /// It begins like one, and ends before it says who it is of: so many bytes.
    TooShort(u64),
    /// It is of another version than this library reads.
    Version(u32),
    /// Its first page was changed, or never finished.
    Corrupt,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "it cannot be read: {error}"),
            Self::NotAFile => f.write_str("it is no file, or larger than any recording"),
            Self::NotARecording => f.write_str("it is not a recording of Freestone"),
            Self::TooShort(bytes) => write!(f, "it ends after {bytes} bytes, before it says whose recording it is"),
            Self::Version(version) if *version > VERSION => {
                write!(
                    f,
                    "it has version {version}, and this program reads version {VERSION}: a newer freestone-bench can read it"
                )
            }
            Self::Version(version) => write!(f, "it has version {version}, and this program reads version {VERSION}"),
            Self::Corrupt => f.write_str("its first page is damaged"),
        }
    }
}

impl std::error::Error for ReadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        if let Self::Io(error) = self { Some(error) } else { None }
    }
}

/// Reads a recording, of a process that runs or has ended.
///
/// # Errors
///
/// When it cannot be read, is no recording, or is of another version.
pub fn read(path: impl AsRef<Path>) -> Result<Recording, ReadError> {
    // Nobody waits at a pipe.
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let mut file = opened.map_err(ReadError::Io)?;
    let metadata = file.metadata().map_err(ReadError::Io)?;
    if !metadata.is_file() || metadata.len() > BYTES_MAX as u64 {
        return Err(ReadError::NotAFile);
    }
    let mut bytes = Vec::with_capacity(metadata.len() as usize);
    // By copies that the kernel makes: mapped, a file that somebody cuts short meanwhile would be our end.
    Read::by_ref(&mut file).take(BYTES_MAX as u64).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    let (mut recording, header) = parse(&bytes)?;
    recording.life = life(&file, &header, &recording.events);
    let same_machine = surroundings::boot().is_some_and(|boot| boot == header.boot);
    recording.oom_kills = surroundings::oom_kills()
        .filter(|_| same_machine && header.oom_kills != u64::MAX)
        .map(|kills| kills.saturating_sub(header.oom_kills));
    Ok(recording)
}

impl Recording {
    /// Reads a recording from bytes.
    ///
    /// # Errors
    ///
    /// When they are no recording, or one of another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, ReadError> {
        parse(bytes).map(|(recording, _)| recording)
    }

    /// How recording ended, if it did so in an orderly way. A process that was killed says nothing.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.events.iter().rev().find_map(|event| if let What::Ended(ending) = event.what { Some(ending) } else { None })
    }

    /// The end of the recording: the snapshots of its last so many seconds.
    #[must_use]
    pub fn last(&self, time: Duration) -> &[Snapshot] {
        let Some(newest) = self.snapshots.last() else { return &[] };
        let first = self.snapshots.iter().position(|its| newest.at.saturating_duration_since(its.at) <= time);
        self.snapshots.get(first.unwrap_or(0)..).unwrap_or_default()
    }
}

/// The pid in the header of a file, if there is one.
pub(super) fn pid_of(file: &File) -> Option<u32> {
    let mut page = [0; HEADER_BYTES];
    file.read_exact_at(&mut page, 0).ok()?;
    let header = header(&page).ok()?;
    u32::try_from(header.pid).ok()
}

fn header(bytes: &[u8]) -> Result<Header, ReadError> {
    let too_short = || ReadError::TooShort(bytes.len() as u64);
    if bytes.is_empty() {
        return Err(too_short());
    }
    let start = bytes.get(..MAGIC.len()).unwrap_or(bytes);
    if !MAGIC.starts_with(start) {
        return Err(ReadError::NotARecording);
    }
    let version = u32_at(bytes, 8).ok_or_else(too_short)?;
    if version != VERSION {
        return Err(ReadError::Version(version));
    }
    let page = bytes.get(..HEADER_BYTES).ok_or_else(too_short)?;
    let rest = &page[HEADER_CHECKED_FROM..];
    if u32_at(page, 12) != Some(crc32fast::hash(rest)) {
        return Err(ReadError::Corrupt);
    }
    let mut header = Header::default();
    let mut decoder = Decoder::new(rest);
    header.fields(&mut decoder, Texts::Read);
    // Slots of other sizes would make a small file into many records.
    let expected = Ring::of_file(BYTES_MAX).map(|ring| ring.slot_bytes);
    let is_sound = !decoder.is_doubtful() && header.rings.map(|ring| ring.slot_bytes) == expected;
    if is_sound { Ok(header) } else { Err(ReadError::Corrupt) }
}

fn parse(bytes: &[u8]) -> Result<(Recording, Header), ReadError> {
    let header = header(bytes)?;
    let clock = Clock { base: Instant::now(), started: header.started };
    let mut torn = 0;
    let mut snapshots: Vec<Snapshot> = Vec::new();
    let mut moments: Vec<(Moment, What)> = Vec::new();
    let mut pauses: Vec<Pause> = Vec::new();
    each(bytes, &header.rings[RingOf::Snapshots as usize], &mut torn, |_, decoder| {
        let mut snapshot = Snapshot::blank(clock.base);
        let mut recorded = Recorded { moment: Moment::default(), snapshot: &mut snapshot };
        recorded.fields(decoder);
        let moment = recorded.moment;
        (snapshot.at, snapshot.taken) = (clock.at(moment.steady_ns), wall(moment.unix_ns));
        (!decoder.is_doubtful()).then(|| snapshots.push(snapshot))
    });
    each(bytes, &header.rings[RingOf::Pauses as usize], &mut torn, |_, decoder| {
        let mut pause = Pause::default();
        format::pause_fields(&mut pause, decoder);
        (!decoder.is_doubtful()).then(|| pauses.push(pause))
    });
    each(bytes, &header.rings[RingOf::Events as usize], &mut torn, |kind, decoder| {
        let mut moment = Moment::default();
        moment.fields(decoder);
        let what = event(kind, decoder)?;
        (!decoder.is_doubtful()).then(|| moments.push((moment, what)))
    });

    let expected = header.rings.iter().filter_map(|ring| ring.slot(ring.slots)).map(|end| end.start as u64).max().unwrap_or(0);
    let recording = Recording {
        origin: origin(&header),
        life: Life::Unknown,
        snapshots,
        events: moments
            .into_iter()
            .map(|(moment, what)| Event { at: clock.at(moment.steady_ns), taken: wall(moment.unix_ns), what })
            .collect(),
        pauses: pauses
            .into_iter()
            .map(|pause| RecordedPause { at: clock.at(pause.ended_ns), taken: clock.wall(pause.ended_ns), pause })
            .collect(),
        torn,
        missing_bytes: expected.saturating_sub(bytes.len() as u64),
        oom_kills: None,
    };
    Ok((recording, header))
}

/// Calls for each whole record of a ring, oldest first, and counts the others.
fn each(bytes: &[u8], ring: &Ring, torn: &mut usize, mut record: impl FnMut(u16, &mut Decoder<'_>) -> Option<()>) {
    let mut found: Vec<(u64, &[u8])> = Vec::new();
    for index in 0..ring.slots {
        // Slots beyond the end of the file are missing, not torn; so is all of a ring that makes no sense.
        let Some(slot) = ring.slot(index).and_then(|range| bytes.get(range)) else { break };
        match number_of(slot, index, ring.slots) {
            Some(0) => {}
            Some(number) => found.push((number, slot)),
            None => *torn += 1,
        }
    }
    found.sort_unstable_by_key(|&(number, _)| number);
    for (_, slot) in found {
        let kind = slot.get(12..14).and_then(|bytes| bytes.try_into().ok()).map_or(0, u16::from_le_bytes);
        let mut decoder = Decoder::new(payload(slot).unwrap_or_default());
        if record(kind, &mut decoder).is_none() {
            *torn += 1;
        }
    }
}

/// The number of the record in a slot, 0 if there never was one. `None`: it is torn.
fn number_of(slot: &[u8], index: u64, slots: u64) -> Option<u64> {
    let number = u64_at(slot, 0)?;
    if number == 0 {
        return slot.iter().take(SLOT_HEADER_BYTES).all(|&byte| byte == 0).then_some(0);
    }
    if number == BEING_WRITTEN || (number - 1) % slots != index {
        return None;
    }
    let end = SLOT_HEADER_BYTES + payload(slot)?.len();
    (u32_at(slot, 8)? == format::checksum(number, &slot[12..end])).then_some(number)
}

fn payload(slot: &[u8]) -> Option<&[u8]> {
    let length = u32_at(slot, 16)? as usize;
    slot.get(SLOT_HEADER_BYTES..SLOT_HEADER_BYTES.checked_add(length)?)
}

fn event(kind: u16, decoder: &mut Decoder<'_>) -> Option<What> {
    Some(match kind {
        EVENT_LIMIT => {
            let mut limit = LimitFields { kind: LimitKind::Assist, times: 0, held_bytes: 0, limit_bytes: None };
            limit.fields(decoder);
            What::Limit {
                kind: limit.kind,
                times: limit.times,
                held_bytes: limit.held_bytes,
                limit_bytes: limit.limit_bytes.map(|bytes| bytes as u64),
            }
        }
        EVENT_ANOMALY => {
            let (mut name, mut text) = (String::new(), String::new());
            decoder.text(&mut Text::Into(&mut name, NAME_BYTES_MAX));
            decoder.text(&mut Text::Into(&mut text, TEXT_BYTES_MAX));
            What::Anomaly { name, text }
        }
        EVENT_ENDING => {
            let mut ending = Ending::Stopped;
            format::ending_fields(&mut ending, decoder);
            What::Ended(ending)
        }
        // From a newer library: it is there, and says nothing to us.
        _ => return None,
    })
}

fn origin(header: &Header) -> Origin {
    Origin {
        exe: header.exe.clone(),
        pid: u32::try_from(header.pid).unwrap_or(0),
        started: wall(header.started.unix_ns),
        interval: Duration::from_nanos(header.interval_ns),
        allowed_bytes: (header.allowed_bytes > 0).then_some(header.allowed_bytes),
        library: header.library.clone(),
    }
}

/// Is the process there that wrote this? Its number may have been given to another; but not with the same start.
fn life(file: &File, header: &Header, events: &[Event]) -> Life {
    if matches!(events.last(), Some(Event { what: What::Ended(_), .. })) {
        return Life::Ended;
    }
    let boot = surroundings::boot();
    if boot.is_some_and(|boot| boot != header.boot) {
        return Life::MachineRestarted;
    }
    let pid = u32::try_from(header.pid).unwrap_or(0);
    if boot.is_some() && surroundings::process_started_ticks(pid) == Some(header.process_started_ticks) {
        return Life::Running;
    }
    // From another container its number is another. But the lock is held for as long as the file is mapped.
    match file.try_lock_shared() {
        Ok(()) => {
            let _ = file.unlock();
            Life::Ended
        }
        Err(std::fs::TryLockError::WouldBlock) => Life::Running,
        Err(std::fs::TryLockError::Error(_)) => Life::Unknown,
    }
}

/// From the process's clocks to ours.
struct Clock {
    /// Stands for the moment at which recording began.
    base: Instant,
    started: Moment,
}

impl Clock {
    fn at(&self, steady_ns: u64) -> Instant {
        let started = self.started.steady_ns;
        let moved = if steady_ns >= started {
            self.base.checked_add(Duration::from_nanos(steady_ns - started))
        } else {
            self.base.checked_sub(Duration::from_nanos(started - steady_ns))
        };
        moved.unwrap_or(self.base)
    }

    /// The wall's clock at a moment of the other: as they went together when recording began.
    fn wall(&self, steady_ns: u64) -> SystemTime {
        wall(self.started.unix_ns.saturating_add_signed(steady_ns.wrapping_sub(self.started.steady_ns) as i64))
    }
}

fn wall(unix_ns: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_nanos(unix_ns)).unwrap_or(UNIX_EPOCH)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().copied().map(u64::from_le_bytes)
}
