//! Words and pictures of numbers.

use std::time::{Duration, SystemTime};

use freestone_stats::recorder::What;

use super::story::event;
use super::words::{COLUMNS, change, count, date, duration, plain, short_duration, size, spark, wrapped};

#[test]
fn sizes_have_units_and_three_or_four_digits() {
    let sizes = [0, 1023, 1024, 1536, 1_048_524, 1_048_575, 5 << 30, u64::MAX].map(size);
    assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1023.9 KiB", "1.0 MiB", "5.0 GiB", "16384.0 PiB"]);
    assert_eq!([change(2048), change(-2048), change(0)], ["+2.0 KiB", "−2.0 KiB", "+0 B"]);
    assert_eq!(change(i64::MIN), "−8192.0 PiB");
}

#[test]
fn counts_and_times_are_short() {
    assert_eq!([0.0, 999.4, 999.6, 12_800.0, 3.1e6, 2e10].map(count), ["0", "999", "1.0 k", "12.8 k", "3.1 M", "20.0 G"]);
    let durations = [0, 9_900, 59_000, 250_000, 10_920_000, 435_600_000].map(|ms| duration(Duration::from_millis(ms)));
    assert_eq!(durations, ["0.0 s", "9.9 s", "59 s", "4 min 10 s", "3 h 2 min", "5 d 1 h"]);
    assert_eq!([800_000, 12_300_000, 2_100_000_000].map(short_duration), ["800 µs", "12.3 ms", "2.1 s"]);
    assert_eq!(date(SystemTime::UNIX_EPOCH + Duration::from_secs(86_399)), "1970-01-01 23:59:59 UTC");
}

#[test]
fn a_picture_starts_at_zero_and_shows_every_peak() {
    assert_eq!(spark(&[0.0, 1.0, 2.0, 4.0, 7.0], 30), "▁▂▃▅█");
    assert_eq!(spark(&[5.0; 3], 30), "███", "what stands still fills its line");
    assert_eq!(spark(&[0.0; 3], 30), "▁▁▁");
    assert_eq!(spark(&[], 30), "");
    let mut peak = vec![1.0; 100];
    peak[37] = 100.0;
    let picture = spark(&peak, 10);
    assert_eq!((picture.chars().count(), picture.chars().position(|char| char == '█')), (10, Some(3)));
}

#[test]
fn lines_end_where_they_should() {
    let text = "word ".repeat(100);
    let lines = wrapped(&text, 4);
    assert!(lines.lines().all(|line| line.chars().count() <= COLUMNS && line.starts_with("    word")), "{lines}");
    assert_eq!(lines.split_whitespace().count(), 100);
}

#[test]
fn an_event_is_as_wide_as_the_rest() {
    let text = "storm: ".to_owned() + &"word ".repeat(30);
    let what = What::Anomaly { name: "storm".to_owned(), text };
    let lines = event(SystemTime::UNIX_EPOCH, &what);
    assert!(lines.starts_with("  00:00:00  ! storm: word "), "{lines}");
    assert!(lines.lines().count() > 1 && lines.ends_with("word\n"), "{lines}");
    assert!(lines.lines().all(|line| line.chars().count() <= COLUMNS), "{lines}");
}

#[test]
fn a_file_cannot_move_the_cursor() {
    assert_eq!(plain("/bin/\x1b[2Jcat\n\u{9b}"), "/bin/?[2Jcat??");
}
