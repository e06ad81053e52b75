//! Times: as text in file names and headers, and how long to wait before trying again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The last moment that fits the form of [`utc`], the end of the year 9999, less a day: whoever looks for a free name may count up.
const LAST_MS: u64 = 253_402_300_799_999 - 86_400_000;
/// Nobody waits longer than this, whatever a server says.
const WAIT_MAX: Duration = Duration::from_mins(10);
const DAY_S: u64 = 86_400;

/// Milliseconds since 1970, whatever the clock says: before that they are 0, and they end with the year 9999.
pub(super) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(LAST_MS).min(LAST_MS))
}

/// `20261121T190532.123Z`: in the order of time when sorted as text, and fit for file names.
pub(super) fn utc(unix_ms: u64) -> String {
    let unix_ms = unix_ms.min(LAST_MS + DAY_S * 1000);
    let (seconds, ms) = (unix_ms / 1000, unix_ms % 1000);
    let (year, month, day) = date(seconds / DAY_S);
    let (hour, minute, second) = (seconds % DAY_S / 3600, seconds % 3600 / 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}.{ms:03}Z")
}

/// Is it of the form of [`utc`]?
pub(super) fn is_utc(text: &str) -> bool {
    let form = b"ddddddddTdddddd.dddZ";
    text.len() == form.len()
        && text.bytes().zip(form).all(|(is, want)| if *want == b'd' { is.is_ascii_digit() } else { is == *want })
}

/// Year, month and day of a day since 1970. Years are counted from March, so that the day that comes every four years is the last of its year
/// (the algorithm is Howard Hinnant's `civil_from_days`).
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// The days since 1970 of a date; the other way round.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = year.checked_sub(u64::from(month <= 2))?;
    let (era, year_of_era) = (year / 400, year % 400);
    let month_from_march = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * month_from_march + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

/// A time as people write it: `15s`, `500ms`, `1m`, `1h`, not nothing.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok().filter(|&number| number > 0)?;
    let seconds = |factor: u64| number.checked_mul(factor).map(Duration::from_secs);
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" | "min" => seconds(60),
        "h" => seconds(3600),
        _ => None,
    }
}

/// What a server's `Retry-After` says, at most ten minutes: seconds, or a date, of the one form that servers send
/// (`Sun, 06 Nov 1994 08:49:37 GMT`). What is of another form says nothing.
pub(super) fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(text.parse().map_or(WAIT_MAX, Duration::from_secs).min(WAIT_MAX));
    }
    let then_s = imf_fixdate(text)?;
    // A clock that runs differently there is why this is bounded too.
    Some(Duration::from_secs(then_s.saturating_sub(unix_ms(now) / 1000)).min(WAIT_MAX))
}

fn imf_fixdate(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut parts = text.split_once(", ")?.1.strip_suffix(" GMT")?.split(' ');
    let number = |text: &str, max: u64| text.parse::<u64>().ok().filter(|&number| number <= max);
    let day = number(parts.next()?, 31).filter(|&day| day >= 1)?;
    let name = parts.next()?;
    let month = MONTHS.iter().position(|&month| month == name)? as u64 + 1;
    let year = number(parts.next()?, 9999)?;
    let mut clock = parts.next()?.split(':');
    let (hour, minute, second) = (number(clock.next()?, 23)?, number(clock.next()?, 59)?, number(clock.next()?, 60)?);
    Some(days(year, month, day)? * DAY_S + hour * 3600 + minute * 60 + second)
}

/// A number that nobody knows beforehand, from what the standard library seeds its maps with. For spreading, not for secrets.
pub(super) fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Some time between half of this and all of it.
pub(super) fn jittered(time: Duration, chance: u64) -> Duration {
    let share = f64::from(u32::try_from(chance >> 32).unwrap_or(0)) / f64::from(u32::MAX);
    time.mul_f64(0.5 + 0.5 * share)
}

/// How long to wait after a failure: twice as long as after the one before, from a given time to ten minutes.
#[derive(Debug)]
pub(super) struct Backoff {
    first: Duration,
    failures: u32,
}

impl Backoff {
    pub(super) fn new(first: Duration) -> Self {
        Self { first, failures: 0 }
    }

    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Another failure: so long.
    pub(super) fn failed(&mut self, chance: u64) -> Duration {
        let time = self.first.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        // Who wants a profile less than every ten minutes does not want more of them because they fail.
        jittered(time.min(WAIT_MAX.max(self.first)), chance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_text_in_their_own_order() {
        for (unix_ms, text) in [
            (0, "19700101T000000.000Z"),
            (951_782_399_999, "20000228T235959.999Z"),
            (951_782_400_000, "20000229T000000.000Z"),
            (1_735_689_599_000, "20241231T235959.000Z"),
            (1_795_287_932_123, "20261121T190532.123Z"),
            (4_107_542_400_000, "21000301T000000.000Z"),
            (LAST_MS, "99991230T235959.999Z"),
            (u64::MAX, "99991231T235959.999Z"),
        ] {
            assert_eq!(utc(unix_ms), text);
            assert!(is_utc(text));
        }
        for text in ["", "20261121T190532.123", "20261121T190532,123Z", "2026-11-21T19:05:32Z", "20261121T190532.12éZ"] {
            assert!(!is_utc(text), "{text}");
        }
    }

    #[test]
    fn days_and_dates_are_each_others_opposite() {
        let mut text = String::new();
        for day in 0..200_000 {
            let (year, month, of_month) = date(day);
            assert_eq!(days(year, month, of_month), Some(day));
            let next = utc(day * DAY_S * 1000);
            assert!(next > text, "{next} comes after {text}");
            text = next;
        }
        assert_eq!(days(1969, 12, 31), None);
    }

    #[test]
    fn a_clock_may_say_what_it_wants() {
        assert_eq!(unix_ms(UNIX_EPOCH - Duration::from_hours(24)), 0);
        assert_eq!(unix_ms(UNIX_EPOCH + Duration::from_secs(u64::from(u32::MAX) * 1000)), LAST_MS);
        assert_eq!(unix_ms(UNIX_EPOCH + Duration::from_millis(1_795_287_932_123)), 1_795_287_932_123);
    }

    #[test]
    fn durations_as_people_write_them() {
        for (text, seconds) in [("15s", 15.0), ("500ms", 0.5), ("1m", 60.0), ("2min", 120.0), ("1h", 3600.0)] {
            assert_eq!(duration(text).map(|time| time.as_secs_f64()), Some(seconds));
        }
        for text in
            ["", "15", "s", "0s", "-1s", "1.5s", "1 s", "15S", "1d", "99999999999999999999s", "18446744073709551615h", "é"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn servers_say_when_to_come_again() {
        let now = UNIX_EPOCH + Duration::from_secs(784_111_777);
        for (text, seconds) in [
            ("0", Some(0)),
            (" 7 ", Some(7)),
            ("86400", Some(600)),
            ("99999999999999999999999", Some(600)),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(3)),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(0)),
            ("Sun, 06 Nov 9999 08:49:37 GMT", Some(600)),
            ("", None),
            ("-1", None),
            ("soon", None),
            ("1.5", None),
            ("Sun, 00 Nov 1994 08:49:37 GMT", None),
            ("Sun, 06 Nov 1994 08:49 GMT", None),
            ("Sun, 06 Nov 1994 25:49:37 GMT", None),
            ("Sunday, 06-Nov-94 08:49:37 GMT", None),
            ("Sun, 01 Jan 0000 00:00:00 GMT", None),
        ] {
            assert_eq!(retry_after(text, now), seconds.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn failures_are_further_and_further_apart() {
        let mut backoff = Backoff::new(Duration::from_secs(1));
        let mut least = Duration::from_millis(500);
        for _ in 0..100 {
            assert_eq!(backoff.failed(0), least);
            least = (least * 2).min(WAIT_MAX / 2);
        }
        assert_eq!(backoff.failed(u64::MAX), WAIT_MAX);
        backoff.succeeded();
        assert_eq!(backoff.failed(u64::MAX), Duration::from_secs(1));
        assert_eq!(Backoff::new(Duration::from_hours(1)).failed(u64::MAX), Duration::from_hours(1));
        let chances: Vec<u64> = (0..100).map(|_| chance()).collect();
        assert!(chances.windows(2).all(|two| two[0] != two[1]), "{chances:x?}");
    }
}
