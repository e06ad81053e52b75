//! A small profile that the tests of all formats know, and what is true of profiles themselves.

#![expect(clippy::float_cmp, reason = "these numbers are exact")]

use std::time::Duration;

use super::*;

/// Three call sites of which two share the outer frames; names as in a real program, with all that formats stumble over.
pub(super) fn towers() -> Profile {
    let mut builder = Builder::new(Kind::Heap);
    let row =
        |id, block_bytes, tag, samples, values, errors| Row { id, tag, block_bytes, samples, values, errors, ..Row::default() };
    let raise = [4096.0, 3_145_664.0, 4095.0, 3_145_664.0];
    builder.push(row(1, 768, 0, 6, raise, [1000.0, 1e6, 1000.0, 1e6]), &[0x4000, 0x3000, 0x2000]);
    builder.push(row(2, 64, 7, 1, [2.0, 128.0, 1.0, 64.0], [0.0; 4]), &[0x4000, 0x3000, 0x2000]);
    builder.push(row(3, 0, 0, 4, [2.0, 4_194_304.0, 1.0, 2_097_152.0], [1.0, 3e6, 1.0, 2e6]), &[0x5000, 0x3000, 0x2000]);
    builder.push_row(row(4, 64, 0, 1, [1.0, 64.0, 1.0, 64.0], [0.0; 4]), &[0x4000], true, builder::Detail::None);
    let mut profile = builder.finish();
    profile.taken = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    profile.summary.interval = 512 << 10;
    profile.exact.totals = [Some(4101), Some(7_340_160), Some(4098), Some(5_242_944)];
    profile
}

/// What functions of [`towers`] are called: one was inlined.
pub(super) fn towers_names(address: usize) -> Vec<Frame> {
    let frame =
        |function: &str, line| Frame { function: function.to_owned(), file: Some("src/tower.rs".to_owned()), line: Some(line) };
    match address {
        0x1fff => vec![frame("main", 5)],
        0x2fff => vec![frame("tower::build", 12)],
        0x3fff => vec![frame("tower::raise", 20)],
        0x4fff => vec![frame("<[u8; 4] as tower::Stone>::cut", 31), frame("tower::floor", 44)],
        _ => Vec::new(),
    }
}

#[test]
fn rows_have_their_stacks() {
    let profile = towers();
    assert_eq!(profile.frames(&profile.rows[0]).collect::<Vec<_>>(), [0x4000, 0x3000, 0x2000]);
    assert_eq!(profile.frames(&profile.rows[1]).rev().collect::<Vec<_>>(), [0x2000, 0x3000, 0x4000]);
    assert_eq!(profile.frames(&profile.rows[3]).len(), 1);
    assert!(profile.is_cut(&profile.rows[3]));
    assert_eq!(profile.addresses(), [0x4000, 0x3000, 0x2000, 0x5000]);
    assert_eq!(profile.total(2), 4098.0);
    assert_eq!(profile.samples(), 12);
}

#[test]
fn kinds_are_found_by_name() {
    for kind in Kind::ALL {
        assert_eq!(Kind::of_name(kind.name()), Some(kind));
        assert!(kind.default_value() < kind.value_types().len());
        assert!(kind.value_types().len() <= VALUES_MAX);
    }
    assert_eq!(Kind::of_name("goroutine"), None);
    assert_eq!(Kind::Heap.value_of_name("inuse_space"), Some(3));
    assert_eq!(Kind::Peak.value_of_name("alloc_space"), None);
}

#[test]
fn buckets_of_lifetimes_end_where_the_allocator_says() {
    assert_eq!(lifetime_bucket_end(0), Some(Duration::from_micros(1)));
    assert_eq!(lifetime_bucket_end(5), Some(Duration::from_micros(1024)));
    assert_eq!(lifetime_bucket_end(14), Some(Duration::from_micros(1 << 28)));
    assert_eq!(lifetime_bucket_end(15), None);
}

#[test]
fn a_profile_of_now_has_exact_counts() {
    let kept = vec![1u8; 100];
    let heap = take(Kind::Heap);
    assert_eq!(heap.exact.totals.map(|total| total.is_some()), [true; 4]);
    assert!(heap.duration.is_none());
    assert_eq!(take(Kind::Contention).exact.totals, [None; 4]);
    drop(kept);
}

#[test]
fn notes_say_what_it_stands_on_and_what_is_missing() {
    let mut profile = towers();
    profile.summary.lost = 3;
    profile.summary.forgotten_sites = 5;
    let notes = profile.notes().join("\n");
    for what in [
        ": heap; 12 samples, one per 524288 bytes on average",
        "inuse_space: 5242944 ± 2236068 bytes (exact: 5242944)",
        "3 samples were not recorded",
        "5 call sites",
    ] {
        assert!(notes.contains(what), "{what}: {notes}");
    }
    assert!(!notes.contains("cut off"), "{notes}");
}
