//! Recordings in memory: what is written comes back, what was cut short or changed shows, and no bytes whatever make the reader panic.

use std::time::{Duration, Instant, UNIX_EPOCH};

use freestone::{Pause, PauseKind};

use super::format::{
    Decoder, Encoder, HEADER_BYTES, Header, LimitFields, Moment, Recorded, Ring, RingOf, SLOT_HEADER_BYTES, VERSION, Visit,
    checksum,
};
use super::writer::{Writer, header_page};
use super::{BYTES_MIN, Ending, LimitKind, ReadError, Recording, What};
use crate::Snapshot;
use crate::random::Random;

/// Gives every field another value, none of them implausible.
struct Fill(u64);

impl Visit for Fill {
    fn raw(&mut self, bytes: &mut [u8]) {
        self.0 += 1;
        let value = if bytes.len() == 1 { self.0 & 1 } else { self.0 };
        bytes.fill(0);
        for (byte, of_value) in bytes.iter_mut().zip(value.to_le_bytes()) {
            *byte = of_value;
        }
    }

    fn short(&mut self, value: &mut u64) {
        self.0 += 1;
        *value = self.0;
    }

    fn doubt(&mut self) {
        panic!("small values are plausible");
    }
}

const START: Moment = Moment { unix_ns: 1_800_000_000_000_000_000, steady_ns: 5_000_000_000_000 };

fn snapshot(number: u64) -> Snapshot {
    let mut snapshot = nothing();
    Recorded { moment: START, snapshot: &mut snapshot }.fields(&mut Fill(number * FIELDS));
    snapshot
}

/// More than a snapshot has.
const FIELDS: u64 = 10_000;

fn nothing() -> Snapshot {
    Snapshot::blank(Instant::now())
}

/// One second apart.
fn moment(number: u64) -> Moment {
    Moment { unix_ns: START.unix_ns + number * 1_000_000_000, steady_ns: START.steady_ns + number * 1_000_000_000 }
}

fn header() -> Header {
    Header {
        rings: Ring::of_file(BYTES_MIN),
        pid: 4711,
        started: START,
        interval_ns: 1_000_000_000,
        allowed_bytes: 1 << 30,
        exe: "/usr/bin/növel".to_owned(),
        library: "0.1.0".to_owned(),
        ..Header::default()
    }
}

/// A recording in memory with so many snapshots.
fn with_snapshots(count: u64) -> Writer<Vec<u8>> {
    let mut memory = vec![0; BYTES_MIN];
    memory[..HEADER_BYTES].copy_from_slice(&header_page(&mut header()));
    let mut writer = Writer::new(memory, Ring::of_file(BYTES_MIN));
    for number in 1..=count {
        writer.snapshot(moment(number), &mut snapshot(number));
    }
    writer
}

fn parse(writer: &mut Writer<Vec<u8>>) -> Recording {
    Recording::parse(writer.memory()).expect("a recording")
}

/// The numbers of the snapshots that a recording has, by their allocations.
fn numbers(recording: &Recording) -> Vec<u64> {
    recording.snapshots.iter().map(|snapshot| snapshot.heap.allocations / FIELDS).collect()
}

#[test]
fn what_is_written_comes_back() {
    let mut writer = with_snapshots(3);
    let mut pause = Pause::default();
    (pause.kind, pause.ended_ns, pause.took_ns, pause.bytes) = (PauseKind::Assist, moment(2).steady_ns, 7_000_000, 99);
    writer.pause(&mut pause);
    let limit = LimitFields { kind: LimitKind::Exceeded, times: 5, held_bytes: 77, limit_bytes: Some(70) };
    writer.limit(moment(2), limit);
    writer.limit(moment(2), LimitFields { kind: LimitKind::Fuse, limit_bytes: None, ..limit });
    writer.anomaly(moment(3), "storm", &"ä".repeat(200));
    writer.ending(moment(4), Ending::Exited);

    let recording = parse(&mut writer);
    assert_eq!(recording.torn, 0);
    assert_eq!(recording.missing_bytes, 0);
    assert_eq!((recording.origin.exe.as_str(), recording.origin.pid), ("/usr/bin/növel", 4711));
    assert_eq!(recording.origin.allowed_bytes, Some(1 << 30));
    for (read, number) in recording.snapshots.iter().zip(1..) {
        assert!(read.heap == snapshot(number).heap, "{number}");
        // Whether it is known is a bit of its number.
        assert_eq!(read.resident, snapshot(number).resident);
    }
    assert_eq!(recording.snapshots.len(), 3);
    let second = Duration::from_secs(1);
    assert_eq!(recording.snapshots[2].since(&recording.snapshots[1]).interval, second);
    assert_eq!(recording.snapshots[2].taken.duration_since(recording.origin.started).ok(), Some(3 * second));

    assert_eq!(recording.pauses.len(), 1);
    assert_eq!(recording.pauses[0].pause, pause);
    assert_eq!(recording.pauses[0].at, recording.snapshots[1].at);
    assert_eq!(recording.pauses[0].taken, recording.snapshots[1].taken);
    let what: Vec<What> = recording.events.iter().map(|event| event.what.clone()).collect();
    let limit = |kind, limit_bytes| What::Limit { kind, times: 5, held_bytes: 77, limit_bytes };
    assert_eq!(what[0], limit(LimitKind::Exceeded, Some(70)));
    assert_eq!(what[1], limit(LimitKind::Fuse, None));
    assert_eq!(what[2], What::Anomaly { name: "storm".to_owned(), text: "ä".repeat(80) }, "cut at a character");
    assert_eq!(what[3], What::Ended(Ending::Exited));
    assert_eq!(recording.ending(), Some(Ending::Exited));
}

/// The real numbers of a process have values that `Fill` does not try, such as none.
#[test]
fn a_real_snapshot_comes_back() {
    let mut writer = with_snapshots(0);
    let mut real = nothing();
    real.heap = freestone::snapshot();
    writer.snapshot(START, &mut real);
    let recording = parse(&mut writer);
    assert!(recording.snapshots[0].heap == real.heap);
    assert_eq!(recording.snapshots[0].resident, None);
}

#[test]
fn the_newest_take_the_place_of_the_oldest() {
    let slots = Ring::of_file(BYTES_MIN)[RingOf::Snapshots as usize].slots;
    let mut writer = with_snapshots(3 * slots + 5);
    let recording = parse(&mut writer);
    assert_eq!(numbers(&recording), (2 * slots + 6..=3 * slots + 5).collect::<Vec<_>>());
    assert_eq!(recording.torn, 0);
    assert_eq!(recording.last(Duration::from_secs(9)).len(), 10);
    assert_eq!(recording.last(Duration::from_secs(1_000_000)).len() as u64, slots);
}

#[test]
fn the_largest_record_of_each_kind_fits_its_slot() {
    let room = Ring::of_file(BYTES_MIN)[RingOf::Snapshots as usize].slot_bytes as usize - SLOT_HEADER_BYTES;
    // A process that has allocated 4 billion blocks of every class, 4 million of which are there and 60 thousand are cached, in 4 million spans.
    let mut large = snapshot(1);
    for class in &mut large.heap.classes {
        (class.allocations, class.frees) = (1 << 32, (1 << 32) - (1 << 22));
        (class.thread_cached, class.depot, class.spans) = (60_000, 60_000, 1 << 22);
    }
    let mut bytes = [0; HEADER_BYTES];
    let mut encoder = Encoder::new(&mut bytes[..room]);
    Recorded { moment: START, snapshot: &mut large }.fields(&mut encoder);
    assert!(!encoder.is_full());
    let mut writer = with_snapshots(0);
    writer.anomaly(START, &"n".repeat(1000), &"t".repeat(1000));
    writer.pause(&mut Pause::default());
    assert_eq!(parse(&mut writer).events.len(), 1);
}

/// Of one that passes all bounds the totals are there, and the classes.
#[test]
fn what_does_not_fit_is_missing_and_spoils_nothing() {
    let mut enormous = snapshot(1);
    for class in &mut enormous.heap.classes {
        (class.allocations, class.frees, class.block_bytes) = (1 << 50, 1 << 49, 100);
        (class.thread_cached, class.depot, class.spans) = (1 << 40, 1 << 40, 1 << 30);
        (class.requests.count, class.requests.slack_squared) = (1 << 50, 1 << 60);
    }
    let mut writer = with_snapshots(0);
    writer.snapshot(START, &mut enormous);
    let recording = parse(&mut writer);
    let read = &recording.snapshots[0].heap;
    assert_eq!(recording.torn, 0);
    assert_eq!((read.bytes, read.events), (enormous.heap.bytes, enormous.heap.events));
    for (read, written) in read.classes.iter().zip(&enormous.heap.classes) {
        assert_eq!((read.allocations, read.frees, read.spans), (written.allocations, written.frees, written.spans));
    }
    assert_eq!(read.classes[0].requests, enormous.heap.classes[0].requests);
    assert_eq!(read.classes[91].requests.count, 0, "it did not fit");
}

/// A process that is killed between two stores leaves the first of them. Here with every number of bytes that may have been stored.
#[test]
fn a_record_that_was_cut_short_shows_and_spoils_no_other() {
    let before = with_snapshots(60).memory().to_vec();
    let after = with_snapshots(61).memory().to_vec();
    let ring = Ring::of_file(BYTES_MIN)[RingOf::Snapshots as usize];
    let slot = ring.slot(60 % ring.slots).expect("in the file");
    let whole = numbers(&Recording::parse(&before).expect("a recording"));
    for stored in (0..100).chain((100..=slot.len() - 8).step_by(17)) {
        let mut cut = before.clone();
        cut[slot.start..slot.start + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        let copied = slot.start + 8..slot.start + 8 + stored;
        cut[copied.clone()].copy_from_slice(&after[copied]);
        let recording = Recording::parse(&cut).expect("a recording");
        assert_eq!(recording.torn, 1, "after {stored} bytes");
        assert_eq!(numbers(&recording), whole[1..], "after {stored} bytes");
    }
}

#[test]
fn a_bit_that_was_changed_shows() {
    let whole = with_snapshots(5).memory().to_vec();
    let slot = Ring::of_file(BYTES_MIN)[RingOf::Snapshots as usize].slot(4).expect("in the file");
    let length = u32::from_le_bytes(whole[slot.start + 16..slot.start + 20].try_into().expect("four bytes")) as usize;
    // All bits of the slot's own, and of the record one in every byte and a bit.
    let own = 8 * SLOT_HEADER_BYTES;
    for bit in (0..own).chain((own..own + 8 * length).step_by(11)) {
        let mut changed = whole.clone();
        changed[slot.start + bit / 8] ^= 1 << (bit % 8);
        let recording = Recording::parse(&changed).expect("a recording");
        assert_eq!((recording.torn, numbers(&recording)), (1, vec![1, 2, 3, 4]), "bit {bit}");
    }
}

#[test]
fn a_record_in_the_wrong_place_shows() {
    let mut writer = with_snapshots(5);
    let ring = Ring::of_file(BYTES_MIN)[RingOf::Snapshots as usize];
    let (from, to) = (ring.slot(1).expect("in the file"), ring.slot(7).expect("in the file"));
    writer.memory().copy_within(from, to.start);
    let recording = parse(&mut writer);
    assert_eq!((recording.torn, numbers(&recording)), (1, vec![1, 2, 3, 4, 5]));
}

#[test]
fn what_is_no_recording_is_called_what_it_is() {
    let whole = with_snapshots(2).memory().to_vec();
    let said = |bytes: &[u8]| Recording::parse(bytes).map(|_| ()).expect_err("no recording").to_string();
    assert_eq!(said(b""), "it ends after 0 bytes, before it says whose recording it is");
    assert_eq!(said(b"free"), "it ends after 4 bytes, before it says whose recording it is");
    assert_eq!(said(&whole[..4095]), "it ends after 4095 bytes, before it says whose recording it is");
    assert_eq!(said(b"\x7fELF and so on"), "it is not a recording of Freestone");
    assert_eq!(said(&[0; 8192]), "it is not a recording of Freestone");
    let mut future = whole.clone();
    future[8..12].copy_from_slice(&7_u32.to_le_bytes());
    assert_eq!(said(&future), "it has version 7, and this program reads version 1: a newer freestone-bench can read it");
    let mut damaged = whole.clone();
    damaged[100] ^= 1;
    assert!(matches!(Recording::parse(&damaged), Err(ReadError::Corrupt)));
}

#[test]
fn of_a_file_that_was_cut_short_the_rest_is_read() {
    let whole = with_snapshots(30).memory().to_vec();
    for bytes in (HEADER_BYTES..whole.len()).step_by(1000) {
        let recording = Recording::parse(&whole[..bytes]).expect("a recording");
        let snapshots = ((bytes - HEADER_BYTES) / 4096).min(30);
        assert_eq!(numbers(&recording), (1..=snapshots as u64).collect::<Vec<_>>(), "{bytes} bytes");
        assert_eq!(recording.missing_bytes, (whole.len() - bytes) as u64);
        assert_eq!(recording.torn, 0);
    }
}

fn random() -> Random {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| UNIX_EPOCH.elapsed().map_or(1, |since| since.as_nanos() as u64));
    println!("replay with SEED={seed}");
    Random(seed)
}

/// Everything that somebody does with a recording.
fn look_through(recording: &Recording) {
    let mut text = format!("{:?}", recording.origin);
    for pair in recording.snapshots.windows(2) {
        text += &pair[1].since(&pair[0]).to_string();
    }
    for snapshot in &recording.snapshots {
        text += &snapshot.to_string();
        std::hint::black_box(snapshot.heap.bytes.reserved() + snapshot.heap.live_blocks() as usize);
    }
    std::hint::black_box((text, recording.ending(), recording.last(Duration::from_mins(1)).len()));
}

#[test]
fn no_bytes_make_the_reader_panic() {
    let mut random = random();
    let mut writer = with_snapshots(20);
    writer.anomaly(moment(3), "storm", "of 64-byte blocks");
    writer.limit(moment(2), LimitFields { kind: LimitKind::Exceeded, times: 5, held_bytes: 77, limit_bytes: Some(70) });
    writer.pause(&mut Pause::default());
    let whole = writer.memory().to_vec();
    for _ in 0..600 {
        let mut bytes = whole.clone();
        for _ in 0..=random.below(20) {
            // Half of the changes hit the first two pages, where most of what is believed stands.
            let among = if random.below(2) == 0 { 2 * HEADER_BYTES } else { bytes.len() };
            let at = random.below(among);
            bytes[at] = [0, 1, 0x7f, 0x80, 0xff, random.below(256) as u8][random.below(6)];
        }
        if random.below(3) == 0 {
            bytes.truncate(random.below(bytes.len()));
        }
        if random.below(2) == 0 {
            forge(&mut bytes);
        }
        if let Ok(recording) = Recording::parse(&bytes) {
            look_through(&recording);
        }
    }
}

/// Makes all checksums right, so that the reader believes what it reads, or not, for other reasons.
fn forge(bytes: &mut [u8]) {
    if let Some(page) = bytes.get_mut(..HEADER_BYTES) {
        let sum = crc32fast::hash(&page[16..]);
        page[12..16].copy_from_slice(&sum.to_le_bytes());
    }
    for ring in Ring::of_file(BYTES_MIN) {
        for slot in (0..ring.slots).filter_map(|index| ring.slot(index)) {
            let Some(slot) = bytes.get_mut(slot) else { continue };
            let length = u32::from_le_bytes(slot[16..20].try_into().expect("four bytes")) as usize;
            let number = u64::from_le_bytes(slot[..8].try_into().expect("eight bytes"));
            if let Some(rest) = slot.get(12..SLOT_HEADER_BYTES + length) {
                let sum = checksum(number, rest);
                slot[8..12].copy_from_slice(&sum.to_le_bytes());
            }
        }
    }
}

#[test]
fn figures_that_no_process_has_are_not_believed() {
    let mut writer = with_snapshots(2);
    let mut hostile = snapshot(3);
    hostile.heap.bytes.live = usize::MAX;
    writer.snapshot(START, &mut hostile);
    let mut hostile = snapshot(4);
    (hostile.heap.classes[91].allocations, hostile.heap.classes[91].block_bytes) = (1 << 50, 1 << 20);
    writer.snapshot(START, &mut hostile);
    let recording = parse(&mut writer);
    assert_eq!((numbers(&recording), recording.torn), (vec![1, 2], 2));
}

/// A file says by its version how it is laid out. Fields that move without a new one would be read as others.
#[test]
fn the_layout_changes_with_the_version_only() {
    let mut writer = with_snapshots(1);
    writer.pause(&mut Pause::default());
    writer.limit(moment(2), LimitFields { kind: LimitKind::Exceeded, times: 5, held_bytes: 77, limit_bytes: Some(70) });
    writer.anomaly(moment(3), "storm", "of 64-byte blocks");
    writer.ending(moment(4), Ending::Exited);
    let layout = crc32fast::hash(writer.memory());
    assert_eq!(
        (VERSION, layout),
        (1, 3_019_733_919),
        "a new order, or a field in the middle, takes a new VERSION; one at the end does not"
    );
}

/// A later library may write more at a record's end, an earlier one wrote less.
#[test]
fn records_may_be_longer_or_shorter() {
    let mut bytes = [0; HEADER_BYTES];
    let mut encoder = Encoder::new(&mut bytes);
    Recorded { moment: START, snapshot: &mut snapshot(1) }.fields(&mut encoder);
    encoder.u64(&mut 99);
    let length = encoder.length();
    let mut longer = nothing();
    Recorded { moment: START, snapshot: &mut longer }.fields(&mut Decoder::new(&bytes[..length]));
    assert!(longer.heap == snapshot(1).heap);
    // Without the details of the last class.
    let mut shorter = nothing();
    Recorded { moment: START, snapshot: &mut shorter }.fields(&mut Decoder::new(&bytes[..length - 8 - 10]));
    assert!(shorter.heap.classes[..91] == snapshot(1).heap.classes[..91]);
    assert_eq!(shorter.heap.classes[91].allocations, snapshot(1).heap.classes[91].allocations);
    assert_eq!(shorter.heap.classes[91].requests.slack_squared, 0);
}

/// Seven bits in a byte: at all their edges.
#[test]
fn numbers_take_as_many_bytes_as_they_need() {
    let edges = (0..64).map(|bits| 1_u64 << bits);
    for value in edges.flat_map(|edge| [edge - 1, edge, edge + 1]).chain([u64::MAX]) {
        let mut bytes = [0; 16];
        let mut encoder = Encoder::new(&mut bytes);
        encoder.short(&mut value.clone());
        let length = encoder.length();
        assert_eq!(length, (64 - (value | 1).leading_zeros() as usize).div_ceil(7));
        let mut read = 0;
        Decoder::new(&bytes[..length]).short(&mut read);
        assert_eq!(read, value);
        let mut read = 77;
        Decoder::new(&bytes[..length - 1]).short(&mut read);
        assert_eq!(read, 77, "cut short, it is not there");
    }
    let mut endless = Decoder::new(&[0xff; 20]);
    endless.short(&mut 0);
    assert!(endless.is_doubtful());
}
