//! Counts the instructions of a workload's timed part, on a processor that is simulated: callgrind, a tool of valgrind's.
//!
//! Time tells what a user feels, and wanders by some percent from run to run. Instructions tell nothing about caches, but they are the same at
//! every run to a fraction of a percent, on a busy machine as on a quiet one; so they are what a gate can be strict about. Allocators do much by the
//! clock, and maps hash by chance: both, and the number of the processor, are the same in every run, by a library that is preloaded
//! (`bench-harness/repeatable`, decision 25). What Freestone does because something took long is left out ([`BY_DURATION`]). And a subject is started by
//! the same words wherever it lies: its standard library keeps them in blocks as long as they are, and what lies where at the start is 13 % of
//! `small-program`. So rows of Freestone repeat to 0.03 %, and to 0.2 % on a machine that is three times slower.
//!
//! Only the timed part is counted: it begins and ends with calls of two functions that do nothing (`workload/mod.rs`), at which callgrind forgets
//! what it has, and writes it down.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::iter;
use std::os::unix::fs::symlink;
use std::path::{self, Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use freestone_bench::subject::SIMULATED;
use freestone_bench::workload::Workload;
use tempfile::TempDir;

use crate::cargo::Cargo;
use crate::child::{Failure, output};
use crate::plan::Row;
use crate::record::{Measurement, View};
use crate::rounds::{Launch, SUBJECT};
use crate::subjects::Built;

/// So much of the operations at most: seconds for a row. What a process does once is a part of that, the same part in each.
const PERCENT_MAX: u64 = 2;
/// How much more time it gets than a run that is timed.
const PATIENCE: u32 = 5;

/// The note of how much of the operations was done.
pub(crate) const PERCENT_NOTE: &str = "percent";

/// What the allocator does because something took long by the processor's counter, which nobody can stop. What they call belongs to them.
const BY_DURATION: [&str; 2] = ["freestone::heap::held_up", "freestone::pauses::Pauses::was_slow"];

const PRELOAD: &str = "LD_PRELOAD";
/// What lies in the folder where a subject is started, beside the subject: the names of callgrind's files begin with the first.
const COUNTS: &str = "counts";
const INPUTS: &str = "inputs";
const REPEATABLE: &str = "repeatable.so";
const BEGINS: &str = "freestone_bench_timed_part_begins";
const ENDS: &str = "freestone_bench_timed_part_ends";

/// Can instructions be counted here? If not, ends the sentence "instructions are not counted: ".
pub(crate) fn possible() -> Result<(), String> {
    valgrind().map(drop).ok_or_else(|| "there is no valgrind (a package of every distribution)".to_owned())
}

/// Why counting instructions of this workload would say nothing, if it would: behind "…, because".
pub(crate) fn refused(workload: &Workload) -> Option<&'static str> {
    if workload.is_over_time() {
        Some("they wait by the clock, which goes on while instructions are simulated")
    } else if workload.is_service() {
        Some("they wait for another process, which nobody simulates")
    } else if workload.has_threads() {
        Some("their threads wait for each other, and how long depends on the simulation")
    } else if workload.is_of_tails() {
        Some("they look at the clock all the time, which is most of what would be counted")
    } else {
        None
    }
}

/// Builds what makes such runs repeatable, if there are to be any, and returns its path.
pub(crate) fn repeatable(cargo: &Cargo, views: &[View]) -> Result<PathBuf> {
    if views.contains(&View::Instructions) { cargo.build_library("freestone-bench-repeatable") } else { Ok(PathBuf::new()) }
}

/// Where valgrind lies. Subjects run without a `PATH`.
fn valgrind() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/local/bin:/usr/bin:/bin"));
    env::split_paths(&path).map(|folder| folder.join("valgrind")).find(|program| program.is_file())
}

/// Runs a subject on a little of a row. The measurement is what it says of itself, with its instructions; its times and its memory mean nothing.
pub(crate) fn count(launch: &Launch<'_>, built: &Built, row: &Row) -> Result<Measurement, Failure> {
    let valgrind = valgrind().ok_or_else(|| Failure { reason: "there is no valgrind".to_owned(), hopeless: true })?;
    let folder = TempDir::with_prefix("freestone-bench-")
        .map_err(|error| Failure::once(format!("there is no folder to count in: {error}")))?;
    let link = |name: &str, elsewhere: &Path| {
        symlink(elsewhere, folder.path().join(name))
            .map_err(|error| Failure::once(format!("cannot link to {}: {error}", elsewhere.display())))
    };
    link(SUBJECT, &built.program)?;
    if row.workload.is_real() {
        link(INPUTS, launch.inputs)?;
    }
    // For ld.so a space or a colon ends a path, and anything may stand in that of the workspace.
    link(REPEATABLE, launch.repeatable)?;
    let little = Launch { percent: launch.percent.min(PERCENT_MAX), inputs: Path::new(INPUTS), ..*launch };
    let mut command = Command::new(valgrind);
    command.current_dir(&folder).args(["--tool=callgrind", "--quiet"]);
    command.arg(format!("--zero-before={BEGINS}")).arg(format!("--dump-before={ENDS}"));
    // Counting ends where such a function begins, and goes on where it ends; and it has begun before.
    command.args(BY_DURATION.map(|function| format!("--toggle-collect={function}"))).arg("--collect-atstart=yes");
    command.arg(format!("--callgrind-out-file={COUNTS}")).arg(format!("./{SUBJECT}")).args(little.words(row));
    command.arg(format!("{}={}", SIMULATED.0, SIMULATED.1));
    // The same words in the environment put the stack at the same place.
    command.env_clear().envs(built.subject.environment(launch.environment));
    let others =
        launch.environment.iter().filter(|(name, _)| name == PRELOAD).flat_map(|(_, libraries)| libraries.split([':', ' ']));
    // What is named by its path is found from where the harness was started; what is not, by the linker.
    let others =
        others.map(|its| if its.contains('/') { path::absolute(its).unwrap_or_default() } else { its.into() }.into_os_string());
    let libraries: Vec<OsString> = iter::once(format!("./{REPEATABLE}").into()).chain(others).collect();
    command.env(PRELOAD, libraries.join(OsStr::new(":")));
    let said = output(&mut command, launch.timeout.saturating_mul(PATIENCE).min(Duration::from_hours(1).max(launch.timeout)))?;
    let mut measurement = Launch::understood(&said.stdout)?;
    measurement.instructions = Some(written(folder.path())?);
    measurement.notes.insert(PERCENT_NOTE.to_owned(), little.percent);
    Ok(measurement)
}

/// The sum of what callgrind has written down at the ends of timed parts: usually there is one.
fn written(folder: &Path) -> Result<u64, Failure> {
    let unreadable = |error| Failure::once(format!("callgrind's counts cannot be read: {error}"));
    let mut parts = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        if entry.file_name().as_encoded_bytes().starts_with(COUNTS.as_bytes()) {
            let text = fs::read(entry.path()).map_err(unreadable)?;
            parts.extend(part(&String::from_utf8_lossy(&text)));
        }
    }
    if parts.is_empty() {
        return Err(Failure::once("its timed part was not found: it is an older binary, or was stripped".to_owned()));
    }
    Ok(parts.into_iter().sum())
}

/// The instructions in one of callgrind's files, if it was written at the end of a timed part.
fn part(text: &str) -> Option<u64> {
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let trigger = text.lines().any(|line| line.starts_with("desc: Trigger:") && line.trim_end().ends_with(ENDS));
    if trigger { value("totals:")?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{BY_DURATION, part};

    /// Callgrind says nothing about a name that it does not meet.
    #[test]
    fn what_goes_by_duration_goes_by_these_names() {
        for name in BY_DURATION {
            let words: Vec<&str> = name.split("::").collect();
            let (file, function) = (words[1], words[words.len() - 1]);
            let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../allocator/src").join(file).with_extension("rs");
            let source = fs::read_to_string(file).expect("a file of the allocator");
            let lines: Vec<&str> = source.lines().map(str::trim).collect();
            let place = lines.iter().position(|line| line.starts_with(&format!("fn {function}("))).expect(name);
            assert_eq!(lines[place - 1], "#[inline(never)]", "{name} has to be a function in the binary, too");
        }
    }

    #[test]
    fn only_what_was_written_at_the_end_of_a_timed_part_counts() {
        let file = |trigger: &str| {
            format!("version: 1\npart: 1\ndesc: Trigger: {trigger}\nevents: Ir\nsummary: 400011\n\ntotals: 400012\n")
        };
        assert_eq!(part(&file("--dump-before=freestone_bench_timed_part_ends")), Some(400_012));
        assert_eq!(part(&file("Program termination")), None);
        assert_eq!(part("desc: Trigger: --dump-before=freestone_bench_timed_part_ends\ntotals: many\n"), None);
        assert_eq!(part(""), None);
    }
}
