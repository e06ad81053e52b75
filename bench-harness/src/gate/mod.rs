//! The verb `gate`: did a change make it slower or larger, and where does that come from?
//!
//! ```text
//!   sources ──────────→ findings ────────→ causes ─────────────→ print
//!   two sessions, or    which figures      which size classes,   for a terminal,
//!   two builds in one   got worse, surely  slow paths, calls     or for a pull request
//! ```
//!
//! Two files are compared as they are. Revisions are built, and run in turns with each other in one session, because nothing is as much like a
//! run as the run beside it; where a row got worse, both builds run it once more under a tracer, to see which calls into the system moved. And a
//! build is compared with a file by its instructions alone, which is what the project's own `.ci/run` does.

mod causes;
mod findings;
mod print;
mod sources;

use std::fs;

use anyhow::{Context, Result, ensure};

use crate::arguments::Gate;
use crate::report::Format;
use crate::{Ending, Misuse, interrupt, say};
use findings::{Findings, Limits};
use sources::Pair;

/// Compares what was with what is. The answer is the exit code: 1 if something got worse by more than it may.
pub(crate) fn compare(asked: &Gate, format: Format) -> Result<Ending> {
    let limits = Limits::of(asked)?;
    if asked.renew {
        say(&sources::renew(asked)?);
        return Ok(Ending::Well);
    }
    let mut pair = Pair::of(asked)?;
    let subjects = pair.subjects(asked)?;
    let mut findings = Findings::of(&pair, &subjects, &limits)?;
    if pair.look_closer(&findings)? {
        findings = Findings::of(&pair, &subjects, &limits)?;
    }
    say(&print::verdict(&pair, &findings, &limits, format));
    if let Some(path) = &asked.comment {
        let comment = print::comment(&pair, &findings, &limits);
        fs::write(path, comment).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(match findings.fail() {
        _ if interrupt::is_asked() => Ending::Interrupted,
        true => Ending::No,
        false => Ending::Well,
    })
}

/// Says no to a number that cannot be a share of anything.
fn share(option: &str, percent: f64) -> Result<f64> {
    let is_share = percent.is_finite() && (0.0..=1_000_000.0).contains(&percent);
    ensure!(is_share, Misuse(format!("{option} {percent} is not a share in percent; 5 is one")));
    Ok(percent / 100.0)
}
