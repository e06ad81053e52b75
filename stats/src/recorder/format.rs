//! The file: a page that says who records, then three rings of slots, each slot with a number and a checksum.
//!
//! ```text
//!        0  header       one page: who writes, since when, where the rings are; checksummed
//!     4096  snapshots    slots of 4 KiB ┐
//!           pauses       slots of 64 B  ├ record n of a ring lies in slot (n − 1) mod slots
//!           events       slots of 256 B ┘
//!
//!   a slot  0 number   8 checksum   12 kind   14 –   16 length   20 –   24 …
//! ```
//!
//! All integers are little-endian, so that a file from one machine can be read on another. Pauses and events have rings of their own, so that
//! a thousand pauses a second push out neither snapshots nor the one event that tells.
//!
//! What is in a record is said once, by a function that visits its fields in order: writing and reading are two visitors of it, and cannot
//! disagree. A record may get longer at its end without a new version: who knows less ignores the rest, who knows more keeps its defaults. Counts
//! take as many bytes as they need (seven bits in each, the highest says that more follow). The page of a snapshot then has room for all classes
//! of any program; should it not, what matters least comes last and is missing. Spans by their free blocks are not kept at all.

use std::ops::Range;

use freestone::{CLASSES, Pause, PauseKind, RequestSamples, SlowPath, TIME_BUCKETS};

use super::{Ending, LimitKind};
use crate::Snapshot;

/// What every recording begins with.
pub(super) const MAGIC: [u8; 8] = *b"freestrc";
/// Of this layout. Another number is another layout.
pub(super) const VERSION: u32 = 1;
/// Bytes before the first ring.
pub(super) const HEADER_BYTES: usize = 4096;
/// Of the header, what its checksum does not cover: magic, version, checksum.
pub(super) const HEADER_CHECKED_FROM: usize = 16;
/// Bytes of a slot before its record.
pub(super) const SLOT_HEADER_BYTES: usize = 24;
/// The number of a slot that is being written. 0 is one that never was.
pub(super) const BEING_WRITTEN: u64 = u64::MAX;
/// The longest path of a program that is kept.
pub(super) const EXE_BYTES_MAX: usize = 1024;
/// The longest name and text of an anomaly.
pub(super) const NAME_BYTES_MAX: usize = 40;
pub(super) const TEXT_BYTES_MAX: usize = 160;

/// No count or size that is larger is believed: 128 PiB. Sums of some of them then fit 64 bits, whoever made the file.
const BELIEVED_MAX: u64 = 1 << 57;

// The snapshot's classes are written one after the other: another number of them is another layout.
const _: () = assert!(CLASSES == 92 && PauseKind::COUNT == 7, "raise VERSION");
const _: () = assert!(SlowPath::COUNT == 4 && TIME_BUCKETS == 26, "raise VERSION");

/// What is kept apart from what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum RingOf {
    Snapshots = 0,
    Pauses = 1,
    Events = 2,
}

impl RingOf {
    pub(super) const ALL: [Self; 3] = [Self::Snapshots, Self::Pauses, Self::Events];

    const fn slot_bytes(self) -> usize {
        match self {
            Self::Snapshots => 4096,
            Self::Pauses => 64,
            Self::Events => 256,
        }
    }
}

/// Where the slots of a ring are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Ring {
    pub(super) offset: u64,
    pub(super) slot_bytes: u64,
    pub(super) slots: u64,
}

impl Ring {
    /// The rings of a file of so many bytes: one sixteenth for pauses, one for events, what is left for snapshots.
    pub(super) const fn of_file(bytes: usize) -> [Self; 3] {
        let small = bytes / 16 / HEADER_BYTES * HEADER_BYTES;
        let snapshots = bytes - HEADER_BYTES - 2 * small;
        let mut offset = HEADER_BYTES;
        let mut rings = [Self { offset: 0, slot_bytes: 0, slots: 0 }; 3];
        let mut index = 0;
        while index < 3 {
            let slot_bytes = RingOf::ALL[index].slot_bytes();
            let slots = if index == 0 { snapshots } else { small } / slot_bytes;
            rings[index] = Self { offset: offset as u64, slot_bytes: slot_bytes as u64, slots: slots as u64 };
            offset += slots * slot_bytes;
            index += 1;
        }
        rings
    }

    /// The bytes of a slot. `None`: such a ring is nonsense.
    pub(super) fn slot(&self, index: u64) -> Option<Range<usize>> {
        let start = usize::try_from(index.checked_mul(self.slot_bytes)?.checked_add(self.offset)?).ok()?;
        let bytes = usize::try_from(self.slot_bytes).ok().filter(|&bytes| bytes >= SLOT_HEADER_BYTES)?;
        Some(start..start.checked_add(bytes)?)
    }
}

/// What goes through the fields of a record: writes them, or reads them.
pub(super) trait Visit {
    /// Bytes as they are.
    fn raw(&mut self, bytes: &mut [u8]);
    /// A number in as many bytes as it needs.
    fn short(&mut self, value: &mut u64);
    /// A field has a value that no process has.
    fn doubt(&mut self) {}

    fn u8(&mut self, value: &mut u8) {
        let mut bytes = [*value];
        self.raw(&mut bytes);
        [*value] = bytes;
    }

    /// Any 64 bits, such as a time.
    fn u64(&mut self, value: &mut u64) {
        let mut bytes = value.to_le_bytes();
        self.raw(&mut bytes);
        *value = u64::from_le_bytes(bytes);
    }

    /// A count or a size.
    fn count(&mut self, value: &mut u64) {
        self.short(value);
        if *value > BELIEVED_MAX {
            self.doubt();
        }
    }

    fn size(&mut self, value: &mut usize) {
        let mut wide = *value as u64;
        self.count(&mut wide);
        *value = usize::try_from(wide).unwrap_or(usize::MAX);
    }

    fn flag(&mut self, value: &mut bool) {
        let mut byte = u8::from(*value);
        self.u8(&mut byte);
        *value = byte != 0;
    }

    fn optional_size(&mut self, value: &mut Option<usize>) {
        // One more than it is, so that none is zero.
        let mut wide = value.map_or(0, |bytes| (bytes as u64).saturating_add(1));
        self.short(&mut wide);
        *value = wide.checked_sub(1).filter(|&bytes| bytes <= BELIEVED_MAX).and_then(|bytes| usize::try_from(bytes).ok());
    }

    fn text(&mut self, text: &mut Text<'_>) {
        let mut length = text.length() as u64;
        self.count(&mut length);
        text.visit(length as usize, self);
    }
}

/// A text that is written from where it lies, or read into a string.
pub(super) enum Text<'a> {
    From(&'a str, usize),
    Into(&'a mut String, usize),
}

impl Text<'_> {
    /// In bytes, as it is written.
    fn length(&self) -> usize {
        match self {
            Self::From(text, max) => text.floor_char_boundary(*max),
            Self::Into(..) => 0,
        }
    }

    fn visit(&mut self, length: usize, visit: &mut (impl Visit + ?Sized)) {
        let mut bytes = [0; EXE_BYTES_MAX];
        match self {
            Self::From(text, _) => {
                bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
                visit.raw(&mut bytes[..length]);
            }
            Self::Into(text, max) if length <= *max => {
                visit.raw(&mut bytes[..length]);
                **text = String::from_utf8_lossy(&bytes[..length]).into_owned();
            }
            Self::Into(..) => visit.doubt(),
        }
    }
}

/// Writes fields. From the first that does not fit on, nothing is written.
pub(super) struct Encoder<'a> {
    bytes: &'a mut [u8],
    length: usize,
    is_full: bool,
}

impl<'a> Encoder<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Self { bytes, length: 0, is_full: false }
    }

    /// How many bytes were written.
    pub(super) fn length(&self) -> usize {
        self.length
    }

    /// Did something not fit?
    #[cfg(test)]
    pub(super) fn is_full(&self) -> bool {
        self.is_full
    }
}

impl Visit for Encoder<'_> {
    fn raw(&mut self, bytes: &mut [u8]) {
        match self.bytes.get_mut(self.length..self.length + bytes.len()) {
            Some(place) if !self.is_full => {
                place.copy_from_slice(bytes);
                self.length += bytes.len();
            }
            _ => self.is_full = true,
        }
    }

    fn short(&mut self, value: &mut u64) {
        let mut bytes = [0; SHORT_BYTES_MAX];
        let mut left = *value;
        let mut length = 0;
        while left >= 0x80 {
            bytes[length] = left as u8 | 0x80;
            left >>= 7;
            length += 1;
        }
        bytes[length] = left as u8;
        self.raw(&mut bytes[..=length]);
    }
}

/// Seven bits in each.
const SHORT_BYTES_MAX: usize = 10;

/// Reads fields. Those beyond the end keep what they have.
pub(super) struct Decoder<'a> {
    bytes: &'a [u8],
    /// Some field had a value that is not believed.
    doubtful: bool,
}

impl<'a> Decoder<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, doubtful: false }
    }

    /// Is there a field that no process would have written?
    pub(super) fn is_doubtful(&self) -> bool {
        self.doubtful
    }
}

impl Visit for Decoder<'_> {
    fn raw(&mut self, bytes: &mut [u8]) {
        match self.bytes.split_at_checked(bytes.len()) {
            Some((field, rest)) => {
                bytes.copy_from_slice(field);
                self.bytes = rest;
            }
            // Whatever follows is not there either.
            None => self.bytes = &[],
        }
    }

    fn short(&mut self, value: &mut u64) {
        let mut read = 0;
        for (place, &byte) in self.bytes.iter().take(SHORT_BYTES_MAX).enumerate() {
            read |= u64::from(byte & 0x7f) << (7 * place);
            if byte < 0x80 {
                *value = read;
                self.bytes = &self.bytes[place + 1..];
                return;
            }
        }
        // Cut short, or longer than any number.
        self.doubtful |= self.bytes.len() >= SHORT_BYTES_MAX;
        self.bytes = &[];
    }

    fn doubt(&mut self) {
        self.doubtful = true;
    }
}

/// What the header says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Header {
    pub(super) rings: [Ring; 3],
    pub(super) pid: u64,
    /// When the process was started, in clock ticks since the machine was: together with the pid and the boot it is unique.
    pub(super) process_started_ticks: u64,
    pub(super) boot: [u8; 16],
    /// When recording began, on the wall and on the clock that never goes back, in nanoseconds.
    pub(super) started: Moment,
    pub(super) interval_ns: u64,
    pub(super) page_bytes: u64,
    /// What the machine or the control group allowed; 0: unknown.
    pub(super) allowed_bytes: u64,
    /// How often the kernel's OOM killer had killed since the machine was started; `u64::MAX`: unknown.
    pub(super) oom_kills: u64,
    pub(super) exe: String,
    pub(super) library: String,
}

impl Header {
    pub(super) fn fields(&mut self, visit: &mut impl Visit, texts: Texts) {
        for ring in &mut self.rings {
            visit.u64(&mut ring.offset);
            visit.u64(&mut ring.slot_bytes);
            visit.u64(&mut ring.slots);
        }
        visit.count(&mut self.pid);
        visit.u64(&mut self.process_started_ticks);
        visit.raw(&mut self.boot);
        self.started.fields(visit);
        visit.u64(&mut self.interval_ns);
        visit.count(&mut self.page_bytes);
        visit.count(&mut self.allowed_bytes);
        visit.u64(&mut self.oom_kills);
        texts.visit(&mut self.exe, EXE_BYTES_MAX, visit);
        texts.visit(&mut self.library, NAME_BYTES_MAX, visit);
    }
}

/// Are texts written or read?
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Texts {
    Written,
    Read,
}

impl Texts {
    fn visit(self, text: &mut String, max: usize, visit: &mut impl Visit) {
        match self {
            Self::Written => visit.text(&mut Text::From(text, max)),
            Self::Read => visit.text(&mut Text::Into(text, max)),
        }
    }
}

/// One moment on two clocks, in nanoseconds: since 1970, and since some moment before the machine's start that its programs share.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Moment {
    pub(super) unix_ns: u64,
    pub(super) steady_ns: u64,
}

impl Moment {
    pub(super) fn fields(&mut self, visit: &mut impl Visit) {
        visit.u64(&mut self.unix_ns);
        visit.u64(&mut self.steady_ns);
    }
}

/// A snapshot as it is recorded: its two clocks are in the moment.
pub(super) struct Recorded<'a> {
    pub(super) moment: Moment,
    pub(super) snapshot: &'a mut Snapshot,
}

impl Recorded<'_> {
    pub(super) fn fields(&mut self, visit: &mut impl Visit) {
        self.moment.fields(visit);
        let mut is_known = self.snapshot.resident.is_some();
        let mut resident = self.snapshot.resident.unwrap_or_default();
        visit.flag(&mut is_known);
        visit.count(&mut resident.total);
        visit.count(&mut resident.file_backed);
        self.snapshot.resident = is_known.then_some(resident);
        let heap = &mut self.snapshot.heap;
        totals(heap, visit);
        events(&mut heap.events, visit);
        limits(heap, visit);
        classes(heap, visit);
        slow_paths(heap, visit);
        details(heap, visit);
    }
}

fn totals(heap: &mut freestone::Snapshot, visit: &mut impl Visit) {
    visit.u64(&mut heap.at_ns);
    visit.count(&mut heap.allocations);
    visit.count(&mut heap.frees);
    visit.u64(&mut heap.allocated_bytes);
    visit.u64(&mut heap.freed_bytes);
    let bytes = &mut heap.bytes;
    for size in [
        &mut bytes.live,
        &mut bytes.thread_cached,
        &mut bytes.depot,
        &mut bytes.holes,
        &mut bytes.dirty,
        &mut bytes.released,
        &mut bytes.metadata,
        &mut bytes.profiler,
        &mut bytes.lost_at_fork,
    ] {
        visit.size(size);
    }
    visit.count(&mut heap.large.allocations);
    visit.count(&mut heap.large.frees);
    visit.count(&mut heap.large.allocated_bytes);
    visit.count(&mut heap.large.freed_bytes);
    visit.size(&mut heap.thread_records);
    visit.size(&mut heap.thread_records_pooled);
    visit.flag(&mut heap.background_thread);
    visit.flag(&mut heap.approximate);
}

fn events(events: &mut freestone::Events, visit: &mut impl Visit) {
    for count in [
        &mut events.exchanges,
        &mut events.refills,
        &mut events.flushes,
        &mut events.depot_takes,
        &mut events.depot_puts,
        &mut events.span_births,
        &mut events.span_deaths,
        &mut events.maps,
        &mut events.unmaps,
        &mut events.purges,
        &mut events.advices,
        &mut events.moves,
        &mut events.refusals,
        &mut events.record_births,
        &mut events.record_adoptions,
        &mut events.ticks,
        &mut events.release_rounds,
        &mut events.huge_page_pauses,
        &mut events.recalls,
        &mut events.background_starts,
        &mut events.samples,
        &mut events.sample_ends,
        &mut events.dropped,
    ] {
        visit.count(count);
    }
}

fn limits(heap: &mut freestone::Snapshot, visit: &mut impl Visit) {
    let limits = &mut heap.limits;
    visit.optional_size(&mut limits.memory_limit);
    visit.optional_size(&mut limits.hard_limit);
    visit.size(&mut limits.held);
    visit.count(&mut limits.assists);
    visit.count(&mut limits.exceeded);
    visit.count(&mut limits.refusals);
    visit.count(&mut limits.fuse_trips);
    visit.flag(&mut limits.fuse_sticky);
    for pause in &mut heap.pauses {
        visit.count(&mut pause.count);
        visit.count(&mut pause.total_ns);
        visit.count(&mut pause.p50_ns);
        visit.count(&mut pause.p99_ns);
        visit.count(&mut pause.max_ns);
        visit.count(&mut pause.bytes);
    }
}

fn classes(heap: &mut freestone::Snapshot, visit: &mut impl Visit) {
    for class in &mut heap.classes {
        visit.size(&mut class.block_bytes);
        visit.short(&mut class.allocations);
        visit.short(&mut class.frees);
        visit.count(&mut class.thread_cached);
        visit.count(&mut class.depot);
        visit.count(&mut class.spans);
        // In bytes: whoever reads this multiplies.
        let blocks = class.allocations.max(class.frees).max(class.thread_cached).max(class.depot);
        if blocks.checked_mul(class.block_bytes.max(1) as u64).is_none_or(|bytes| bytes > BELIEVED_MAX) {
            visit.doubt();
        }
    }
    // Sums of the classes.
    if heap.allocated_bytes.max(heap.freed_bytes) > BELIEVED_MAX << 5 {
        visit.doubt();
    }
}

fn slow_paths(heap: &mut freestone::Snapshot, visit: &mut impl Visit) {
    for path in &mut heap.slow_paths {
        visit.count(&mut path.count);
        visit.count(&mut path.total_ns);
        path.buckets.iter_mut().for_each(|count| visit.count(count));
    }
}

/// Of classes what matters least.
fn details(heap: &mut freestone::Snapshot, visit: &mut impl Visit) {
    requests(&mut heap.large.requests, visit);
    for class in &mut heap.classes {
        visit.size(&mut class.span_bytes);
        visit.size(&mut class.holes_bytes);
        requests(&mut class.requests, visit);
        if class.spans.checked_mul(class.span_bytes as u64).is_none_or(|bytes| bytes > BELIEVED_MAX) {
            visit.doubt();
        }
    }
}

fn requests(requests: &mut RequestSamples, visit: &mut impl Visit) {
    visit.count(&mut requests.count);
    visit.count(&mut requests.slack_bytes);
    visit.short(&mut requests.slack_squared);
}

/// Writes or reads a pause.
pub(super) fn pause_fields(pause: &mut Pause, visit: &mut impl Visit) {
    let mut kind = pause.kind as u8;
    visit.u8(&mut kind);
    visit.u64(&mut pause.ended_ns);
    visit.count(&mut pause.took_ns);
    visit.count(&mut pause.bytes);
    match PauseKind::ALL.get(usize::from(kind)) {
        Some(&known) => pause.kind = known,
        None => visit.doubt(),
    }
}

/// Kinds of events, by the number in their slot.
pub(super) const EVENT_LIMIT: u16 = 1;
pub(super) const EVENT_ANOMALY: u16 = 2;
pub(super) const EVENT_ENDING: u16 = 3;

/// Something that a limit did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct LimitFields {
    pub(super) kind: LimitKind,
    pub(super) times: u64,
    pub(super) held_bytes: u64,
    /// `None`: there is none any more.
    pub(super) limit_bytes: Option<usize>,
}

impl LimitFields {
    pub(super) fn fields(&mut self, visit: &mut impl Visit) {
        let mut kind = self.kind as u8;
        visit.u8(&mut kind);
        match LimitKind::ALL.get(usize::from(kind)) {
            Some(&known) => self.kind = known,
            None => visit.doubt(),
        }
        visit.count(&mut self.times);
        visit.count(&mut self.held_bytes);
        visit.optional_size(&mut self.limit_bytes);
    }
}

/// Writes or reads how recording ended.
pub(super) fn ending_fields(ending: &mut Ending, visit: &mut impl Visit) {
    let mut kind = *ending as u8;
    visit.u8(&mut kind);
    match Ending::ALL.get(usize::from(kind)) {
        Some(&known) => *ending = known,
        None => visit.doubt(),
    }
}

/// The checksum of a slot: over its number and all that follows the checksum.
pub(super) fn checksum(number: u64, rest: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(rest);
    hasher.finalize()
}
