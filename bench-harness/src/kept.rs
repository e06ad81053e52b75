//! Reads what was kept, whoever wrote it: a session that was cut short, a file that somebody edited, or one that means harm.
//!
//! A line is believed when it is a record, and when it fits the session that it belongs to. At the first that is not, its session ends, and what
//! was read until then is kept: what comes after may mean something else than it says. The next session begins anew, as if nothing had been.
//!
//! What is read takes memory in proportion to the file, and so does printing it: numbers and lengths that work grows with have bounds here, far
//! above what anybody measures.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;

use anyhow::{Result, bail};

use crate::Misuse;
use crate::record::{End, Kept, Kind, Measurement, Outcome, Record, Run, Session, View};

/// A run with a sample of its memory every millisecond for five minutes fits.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// The command line allows a tenth of it.
const ROUNDS_MAX: u64 = 10_000;
const ROWS_MAX: usize = 4_096;
const SUBJECTS_MAX: usize = 256;
/// Of a subject, a row, a note: a table is as wide as its longest. The name of a command may have any length, as it is alone.
const NAME_BYTES_MAX: usize = 512;
/// Of notes, calls, and kinds of latencies in all of a session: each is a line of a table.
const NAMES_MAX: usize = 4_096;
/// Of one distribution: ten are taken.
const POINTS_MAX: usize = 64;
/// Rows times subjects.
const CELLS_MAX: usize = 65_536;
/// A year.
const NANOS_MAX: u64 = 366 * 86_400 * 1_000_000_000;
/// What processors can address.
const BYTES_MAX: u64 = 1 << 57;

impl Kept {
    /// Reads a file and returns its last session.
    ///
    /// # Errors
    ///
    /// If there is none, or something in it cannot be believed.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        match Self::salvage(path)? {
            (kept, None) => Ok(kept),
            (_, Some(damage)) => bail!(Misuse(damage)),
        }
    }

    /// Reads a file whose last session may have been cut short in the middle of a line, and says whether it was.
    ///
    /// # Errors
    ///
    /// If there is none, or something else in it cannot be believed.
    pub(crate) fn begun(path: &Path) -> Result<(Self, bool)> {
        let name = path.display();
        let opened = File::open(path).and_then(|file| Lines::new(file).read());
        match opened.map_err(|error| Misuse(format!("cannot read {name}: {error}")))? {
            (Some(session), None) => Ok((session, false)),
            (Some(session), Some(Damage { is_cut: true, .. })) => Ok((session, true)),
            (_, Some(damage)) => bail!(Misuse(damage.sentence(&name.to_string()))),
            (None, None) => bail!(Misuse(format!("{name} is empty"))),
        }
    }

    /// Reads a file and returns its last session, as far as it can be believed, and in a sentence what is wrong from there on.
    ///
    /// # Errors
    ///
    /// If there is no session at all.
    pub(crate) fn salvage(path: &Path) -> Result<(Self, Option<String>)> {
        let name = path.display();
        let opened = File::open(path).and_then(|file| Lines::new(file).read());
        let (session, damage) = opened.map_err(|error| Misuse(format!("cannot read {name}: {error}")))?;
        let damage = damage.map(|damage| damage.sentence(&name.to_string()));
        match (session, damage) {
            (Some(session), damage) => Ok((session, damage)),
            (None, Some(damage)) => bail!(Misuse(damage)),
            (None, None) => bail!(Misuse(format!("{name} is empty"))),
        }
    }
}

/// Where a session cannot be believed any more.
#[derive(Debug)]
struct Damage {
    line: u64,
    what: String,
    /// The file ends in the middle of this line.
    is_cut: bool,
}

impl Damage {
    fn sentence(self, file: &str) -> String {
        let Self { line, what, is_cut } = self;
        if is_cut {
            format!("line {line} of {file}, its last one, was cut short")
        } else {
            format!("line {line} of {file} {what}")
        }
    }
}

struct Lines<R> {
    reader: BufReader<R>,
    number: u64,
    line: Vec<u8>,
}

/// What the next line is.
enum Next {
    /// It is read.
    Line,
    /// It has no end, or none that is worth waiting for.
    Endless,
    /// There is none.
    Nothing,
}

impl<R: Read> Lines<R> {
    fn new(file: R) -> Self {
        Self { reader: BufReader::new(file), number: 0, line: Vec::new() }
    }

    fn next(&mut self) -> io::Result<Next> {
        self.line.clear();
        self.number += 1;
        let bytes = self.reader.by_ref().take(LINE_BYTES_MAX + 1).read_until(b'\n', &mut self.line)?;
        Ok(match bytes as u64 {
            0 => Next::Nothing,
            1..=LINE_BYTES_MAX => Next::Line,
            _ => Next::Endless,
        })
    }

    /// The last session, and where it cannot be believed.
    fn read(mut self) -> io::Result<(Option<Kept>, Option<Damage>)> {
        let mut last: Option<Reading> = None;
        let mut damage: Option<Damage> = None;
        loop {
            match self.next()? {
                Next::Nothing => break,
                Next::Line => {}
                Next::Endless => {
                    let what = format!("has more than {} MiB, which no record needs", LINE_BYTES_MAX >> 20);
                    damage.get_or_insert(Damage { line: self.number, what, is_cut: false });
                    break;
                }
            }
            if self.line.trim_ascii().is_empty() {
                continue;
            }
            let wrong = match (self.record(), &mut last) {
                (Ok(Record::Session(session)), last) => match check_session(&session) {
                    Ok(()) => {
                        *last = Some(Reading::of(session));
                        damage = None;
                        None
                    }
                    Err(what) => {
                        // The file's last session is this one, and not the one before.
                        *last = None;
                        damage = None;
                        Some((what, false))
                    }
                },
                // What follows a line that cannot be believed is not asked.
                _ if damage.is_some() => None,
                (Ok(_), None) => Some(("comes before a session begins".to_owned(), false)),
                (Ok(Record::Run(run)), Some(last)) => last.add(run).err().map(|what| (what, false)),
                (Ok(Record::End(end)), Some(last)) => last.end(end).err().map(|what| (what, false)),
                (Err(wrong), _) => Some(wrong),
            };
            if let Some((what, is_cut)) = wrong {
                damage.get_or_insert(Damage { line: self.number, what, is_cut });
            }
        }
        Ok((last.map(|last| last.kept), damage))
    }

    /// The line as a record, or what is wrong with it and whether the file ends in the middle of it.
    fn record(&self) -> Result<Record, (String, bool)> {
        let is_last = self.line.last() != Some(&b'\n');
        let text = std::str::from_utf8(&self.line);
        let text = text.map_err(|error| ("is not UTF-8".to_owned(), is_last && error.error_len().is_none()))?;
        serde_json::from_str(text).map_err(|error| {
            // Its line is always the first, as it sees no other.
            let why = error.to_string().replace(" at line 1 column ", " at column ");
            (format!("is not a record of a session: {}", why.trim_end()), is_last && error.is_eof())
        })
    }
}

/// A session while it is read.
struct Reading {
    kept: Kept,
    /// The runs that are there: how they were looked at, the places of row and subject, the round.
    seen: HashSet<(&'static str, usize, usize, u64)>,
    /// All names in them.
    names: HashSet<String>,
}

impl Reading {
    fn of(session: Session) -> Self {
        Self { kept: Kept { session, runs: Vec::new(), end: None }, seen: HashSet::new(), names: HashSet::new() }
    }

    fn add(&mut self, run: Run) -> Result<(), String> {
        let session = &self.kept.session;
        is_of(session, &run.session)?;
        let place = session.workloads.iter().position(|row| *row == run.workload);
        let row = place.ok_or_else(|| format!("is a run on '{}', which is no row of its session", shortened(&run.workload)))?;
        let place = session.subjects.iter().position(|its| its.subject == run.subject);
        let subject =
            place.ok_or_else(|| format!("is a run of '{}', who is no subject of its session", shortened(&run.subject)))?;
        if !(1..=session.repetitions).contains(&run.round) {
            return Err(format!("is a run of round {}, and its session has rounds 1 to {}", run.round, session.repetitions));
        }
        let view = match run.view {
            View::Timed => "timed",
            View::Calls => "calls",
            View::Instructions => "instructions",
        };
        if !self.seen.insert((view, row, subject, run.round)) {
            let (subject, row) = (shortened(&run.subject), shortened(&run.workload));
            return Err(format!("is a second run of {subject} on {row} in round {}", run.round));
        }
        if let Outcome::Measured(measurement) = &run.outcome {
            check_figures(measurement)?;
            self.check_names(measurement)?;
        }
        self.kept.runs.push(run);
        Ok(())
    }

    fn end(&mut self, end: End) -> Result<(), String> {
        is_of(&self.kept.session, &end.session)?;
        if self.kept.end.is_some() {
            return Err("is a second end of its session".to_owned());
        }
        self.kept.end = Some(end);
        Ok(())
    }

    fn check_names(&mut self, measurement: &Measurement) -> Result<(), String> {
        let Measurement { notes, os_calls, latencies, .. } = measurement;
        for name in notes.keys().chain(os_calls.keys()).chain(latencies.keys()) {
            if name.len() > NAME_BYTES_MAX {
                return Err(format!("names something by more than {NAME_BYTES_MAX} letters"));
            }
            if !self.names.contains(name) {
                self.names.insert(name.clone());
            }
        }
        if self.names.len() > NAMES_MAX {
            return Err(format!("is the one with which its session has more than {NAMES_MAX} kinds of figures"));
        }
        Ok(())
    }
}

fn is_of(session: &Session, date: &str) -> Result<(), String> {
    if session.date == date {
        return Ok(());
    }
    Err(format!("belongs to the session '{}', and stands in that of '{}'", shortened(date), shortened(&session.date)))
}

fn check_session(session: &Session) -> Result<(), String> {
    let Session { repetitions, percent, workloads, subjects, floors, kind, .. } = session;
    if !(1..=ROUNDS_MAX).contains(repetitions) {
        return Err(format!("is a session of {repetitions} rounds, where 1 to {ROUNDS_MAX} make sense"));
    }
    if !(1..=100).contains(percent) {
        return Err(format!("is a session of {percent} % of the operations"));
    }
    let subjects: Vec<&str> = subjects.iter().map(|version| &*version.subject).collect();
    let rows: Vec<&str> = workloads.iter().map(|row| &**row).collect();
    for (names, what, most) in [(&rows, "row", ROWS_MAX), (&subjects, "subject", SUBJECTS_MAX)] {
        if names.is_empty() || names.len() > most {
            return Err(format!("is a session of {} {what}s, where 1 to {most} make sense", names.len()));
        }
        let is_alone = *kind == Kind::Program && what == "row" && names.len() == 1;
        if !is_alone && names.iter().any(|name| name.len() > NAME_BYTES_MAX) {
            return Err(format!("names a {what} by more than {NAME_BYTES_MAX} letters"));
        }
        let mut seen = HashSet::new();
        if let Some(name) = names.iter().find(|name| !seen.insert(**name)) {
            return Err(format!("names the {what} '{}' twice", shortened(name)));
        }
    }
    if rows.len() * subjects.len() > CELLS_MAX {
        return Err(format!("is a session of more than {CELLS_MAX} rows times subjects"));
    }
    if let Some(name) = floors.keys().find(|name| !rows.contains(&&***name)) {
        return Err(format!("has a floor for '{}', which is no row of it", shortened(name)));
    }
    Ok(())
}

/// Figures that nobody can have measured.
fn check_figures(measurement: &Measurement) -> Result<(), String> {
    let Measurement { operations, nanos, peak_rss_bytes, anonymous_bytes, .. } = measurement;
    if *operations == 0 {
        return Err("says that nothing was done".to_owned());
    }
    if *nanos > NANOS_MAX {
        return Err("says that it took more than a year".to_owned());
    }
    if *peak_rss_bytes.max(anonymous_bytes) > BYTES_MAX {
        return Err("says that it had more memory than can be addressed".to_owned());
    }
    if measurement.latencies.values().any(|its| its.points.len() > POINTS_MAX) {
        return Err(format!("has a distribution of more than {POINTS_MAX} points, where ten are taken"));
    }
    Ok(())
}

/// As much of a name as a sentence can hold.
fn shortened(name: &str) -> String {
    const LETTERS_MAX: usize = 60;
    let mut short: String = name.chars().take(LETTERS_MAX).collect();
    if name.chars().nth(LETTERS_MAX).is_some() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use std::fmt::Write;

    use super::Lines;
    use crate::arguments::Export;
    use crate::report::{Report, styled, text};
    use freestone_bench::workload::Rng;

    /// Two rounds of two subjects on two rows, with notes, latencies, samples, floors and a failure.
    fn whole() -> Vec<u8> {
        let machine = r#"{"cpu":"A Fine CPU","cores":2,"is_virtual":false,"memory_bytes":1073741824,"kernel":"Linux 6","huge_pages":"madvise","governor":null,"rustc":"1.95.0","load_average":"0 0 0"}"#;
        let mut text = format!(
            r#"{{"record":"session","date":"d","kind":"workloads","commit":"c","machine":{machine},"seed":7,"repetitions":2,"percent":50,"workloads":["strings","burst-idle-64m-small"],"subjects":[{{"subject":"system","version":"2"}},{{"subject":"freestone","version":"1","option":"A=b"}}],"left_out":[{{"subject":"snmalloc","reason":"no cmake"}}],"environment":["A=b"],"scenario":"own","floors":{{"strings":{{"min_qps":1.5,"max_p99_us":3.0,"max_error_rate":0.5,"max_peak_rss":1048576}}}}}}"#
        ) + "\n";
        for round in 1..=2 {
            for (row, subject) in [("strings", "system"), ("burst-idle-64m-small", "freestone"), ("strings", "freestone")] {
                let outcome = if (round, row) == (2, "burst-idle-64m-small") {
                    r#"{"failed":"signal: 11 (SIGSEGV)"}"#
                } else {
                    r#"{"measured":{"operations":10,"nanos":50,"checksum":"a","peak_rss_bytes":1048576,"minor_faults":0,"major_faults":0,"notes":{"rss_01_s":3,"live_bytes":4,"x_ns":0},"latencies":{"request":{"count":9,"mean_ns":1,"max_ns":1,"points":[[500000,1],[990000,5]]}},"resident":[{"ms":1,"rss_bytes":3},{"ms":2,"rss_bytes":3,"live_bytes":2}],"os_calls":{"mmap":3},"instructions":7}}"#
                };
                let _ = writeln!(
                    text,
                    r#"{{"record":"run","session":"d","date":"d","round":{round},"subject":"{subject}","version":"1","workload":"{row}","outcome":{outcome}}}"#
                );
            }
        }
        text += "{\"record\":\"end\",\"session\":\"d\",\"seconds\":60,\"cores_of_others\":0.5}\n";
        text.into_bytes()
    }

    /// Reads and prints as `report` does, in the form of this number.
    fn shown(bytes: &[u8], form: usize) -> (usize, bool) {
        let (kept, damage) = Lines::new(bytes).read().expect("memory can be read");
        if let Some(kept) = &kept {
            let report = Report::of(kept);
            // One in four, as intervals take their time.
            let forms = [Export::Table, Export::Markdown, Export::Csv, Export::Json, Export::Bmf, Export::Html];
            if form.is_multiple_of(4) {
                let text = text(kept, forms[form / 4 % forms.len()]).expect("whatever was read can be written");
                assert!(!styled(&text).contains('\0'));
            }
            assert!(report.missed().len() <= report.floors());
            let _ = report.problems();
        }
        (kept.map_or(0, |kept| kept.runs.len()), damage.is_some())
    }

    #[test]
    fn whatever_is_done_to_a_file_it_is_read_and_printed() {
        let whole = whole();
        assert_eq!(shown(&whole, 0), (6, false));
        let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
        let mut rng = Rng::new(11);
        let (mut well, mut in_part, mut not_at_all) = (0, 0, 0);
        for round in 0..2_000 {
            let mut bytes = whole.clone();
            for _ in 0..=rng.below(3) {
                let (at, length) = (rng.below(bytes.len()), rng.below(40));
                let end = (at + length).min(bytes.len());
                match rng.below(7) {
                    0 => bytes[at] ^= 1 << rng.below(8),
                    1 => bytes.truncate(at.max(1)),
                    2 => drop(bytes.drain(at..end.min(bytes.len() - 1))),
                    3 => {
                        let piece = bytes[at..end].to_vec();
                        bytes.splice(at..at, piece);
                    }
                    4 => {
                        let piece = [
                            &b"-1"[..],
                            b"1e999",
                            b"18446744073709551615",
                            b"\0",
                            b"\x1b[31m",
                            b"null",
                            b"{",
                            b"]",
                            b"\xff",
                            b"0",
                        ];
                        bytes.splice(at..at, piece[rng.below(piece.len())].iter().copied());
                    }
                    // Figures are where it hurts.
                    5 => {
                        let digits: Vec<usize> = (0..bytes.len()).filter(|index| bytes[*index].is_ascii_digit()).collect();
                        if let Some(&digit) = digits.get(rng.below(digits.len().max(1))) {
                            bytes[digit] = b"0123456789"[rng.below(10)];
                        }
                    }
                    // Lines in another order.
                    _ => bytes.extend_from_slice(lines[rng.below(lines.len())]),
                }
            }
            match shown(&bytes, round) {
                (_, false) => well += 1,
                (1.., true) => in_part += 1,
                (0, true) => not_at_all += 1,
            }
        }
        // That all of these happen shows that they are tried.
        assert!(well > 100 && in_part > 100 && not_at_all > 100, "{well} {in_part} {not_at_all}");
    }
}
