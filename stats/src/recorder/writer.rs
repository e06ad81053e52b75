//! Writes records into slots: plain stores, no system call, in an order in which whatever is cut short shows.

use std::sync::atomic::{Ordering, fence};

use freestone::Pause;

use super::Ending;
use super::format::{
    self, BEING_WRITTEN, EVENT_ANOMALY, EVENT_ENDING, EVENT_LIMIT, Encoder, HEADER_BYTES, HEADER_CHECKED_FROM, Header,
    LimitFields, MAGIC, Moment, NAME_BYTES_MAX, Recorded, Ring, RingOf, SLOT_HEADER_BYTES, TEXT_BYTES_MAX, Text, Texts, VERSION,
    Visit,
};
use crate::Snapshot;

/// The largest slot.
pub(super) const SLOT_BYTES_MAX: usize = 4096;

/// The page that a recording begins with.
pub(super) fn header_page(header: &mut Header) -> [u8; HEADER_BYTES] {
    let mut page = [0; HEADER_BYTES];
    header.fields(&mut Encoder::new(&mut page[HEADER_CHECKED_FROM..]), Texts::Written);
    let checksum = crc32fast::hash(&page[HEADER_CHECKED_FROM..]);
    page[..8].copy_from_slice(&MAGIC);
    page[8..12].copy_from_slice(&VERSION.to_le_bytes());
    page[12..16].copy_from_slice(&checksum.to_le_bytes());
    page
}

/// Makes a slot in a buffer, and says how long it is.
pub(super) fn slot(buffer: &mut [u8], number: u64, kind: u16, fields: impl FnOnce(&mut Encoder<'_>)) -> usize {
    let mut encoder = Encoder::new(&mut buffer[SLOT_HEADER_BYTES..]);
    fields(&mut encoder);
    let length = encoder.length();
    let total = SLOT_HEADER_BYTES + length;
    buffer[12..14].copy_from_slice(&kind.to_le_bytes());
    buffer[14..16].fill(0);
    buffer[16..20].copy_from_slice(&(length as u32).to_le_bytes());
    buffer[20..24].fill(0);
    let checksum = format::checksum(number, &buffer[12..total]);
    buffer[..8].copy_from_slice(&number.to_le_bytes());
    buffer[8..12].copy_from_slice(&checksum.to_le_bytes());
    total
}

/// Writes into memory that is a recording: a mapped file, or in tests any bytes.
pub(super) struct Writer<M> {
    memory: M,
    rings: [Ring; 3],
    /// The number of the next record of each ring. They begin with 1.
    next: [u64; 3],
    /// Where a slot is made before it is copied: the file sees it half done for a microsecond, not for the time of encoding.
    buffer: [u8; SLOT_BYTES_MAX],
}

impl<M: AsMut<[u8]>> Writer<M> {
    /// On memory whose header is written, or will be.
    pub(super) fn new(memory: M, rings: [Ring; 3]) -> Self {
        Self { memory, rings, next: [1; 3], buffer: [0; SLOT_BYTES_MAX] }
    }

    /// The snapshot stays as it is.
    pub(super) fn snapshot(&mut self, moment: Moment, snapshot: &mut Snapshot) {
        self.put(RingOf::Snapshots, 0, |encoder| Recorded { moment, snapshot }.fields(encoder));
    }

    pub(super) fn pause(&mut self, pause: &mut Pause) {
        self.put(RingOf::Pauses, 0, |encoder| format::pause_fields(pause, encoder));
    }

    pub(super) fn limit(&mut self, mut moment: Moment, mut limit: LimitFields) {
        self.put(RingOf::Events, EVENT_LIMIT, |encoder| {
            moment.fields(encoder);
            limit.fields(encoder);
        });
    }

    pub(super) fn anomaly(&mut self, mut moment: Moment, name: &str, text: &str) {
        self.put(RingOf::Events, EVENT_ANOMALY, |encoder| {
            moment.fields(encoder);
            encoder.text(&mut Text::From(name, NAME_BYTES_MAX));
            encoder.text(&mut Text::From(text, TEXT_BYTES_MAX));
        });
    }

    pub(super) fn ending(&mut self, mut moment: Moment, mut ending: Ending) {
        self.put(RingOf::Events, EVENT_ENDING, |encoder| {
            moment.fields(encoder);
            format::ending_fields(&mut ending, encoder);
        });
    }

    /// Writes the next record of a ring, over the oldest one.
    ///
    /// 1. The slot's number becomes [`BEING_WRITTEN`].
    /// 2. All but the number is copied.
    /// 3. The number becomes the record's.
    ///
    /// A process that is killed in between has made all stores before that moment and none after it: its memory belongs to the kernel, and so
    /// does what is on its way there. The slot then says that it is being written. The checksum is for the rest: somebody who reads while we
    /// write, and pages that went to the disk at different times before the power failed.
    fn put(&mut self, ring_of: RingOf, kind: u16, fields: impl FnOnce(&mut Encoder<'_>)) {
        let ring = &self.rings[ring_of as usize];
        let number = self.next[ring_of as usize];
        let total = slot(&mut self.buffer, number, kind, fields);
        let Some(range) = ring.slot((number - 1) % ring.slots.max(1)) else { return };
        let Some(place) = self.memory.as_mut().get_mut(range) else { return };
        place[..8].copy_from_slice(&BEING_WRITTEN.to_le_bytes());
        // Release, twice: for the compiler above all, which must keep the three steps apart. Their partner is the end of the process, or who
        // reads the file, by a copy that the kernel makes.
        fence(Ordering::Release);
        place[8..total].copy_from_slice(&self.buffer[8..total]);
        fence(Ordering::Release);
        place[..8].copy_from_slice(&self.buffer[..8]);
        self.next[ring_of as usize] = number + 1;
    }

    /// What it writes into.
    pub(super) fn memory(&mut self) -> &mut [u8] {
        self.memory.as_mut()
    }
}
