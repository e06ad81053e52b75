//! What a flight recorder wrote: its story, a view of a process that lives, and what recording costs.
//!
//! ```text
//!   file → story: what happened until the end     (show)
//!        → screen: what happens now               (follow)
//!   snapshots → costs: the map, and `write`       (compare)
//! ```

mod costs;
mod follow;
mod story;
#[cfg(test)]
mod tests;
mod words;

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use freestone_stats::recorder::{self, Recording};

use crate::Misuse;
use crate::arguments::Recorder;

/// Does what was asked.
pub(crate) fn obey(asked: &Recorder) -> Result<()> {
    match asked {
        Recorder::Show { file, seconds } => {
            crate::say(&words::styled(&story::tell(&read("show", file)?, Duration::from_secs(*seconds))));
            Ok(())
        }
        Recorder::Follow { file, once } => follow::follow(file, *once),
        Recorder::Compare { rounds, folder } => {
            crate::say(&costs::compare(*rounds, folder.as_deref())?);
            Ok(())
        }
    }
}

fn read(verb: &str, file: &Path) -> Result<Recording> {
    recorder::read(file).or_else(|error| bail!(Misuse(format!("cannot {verb} {}: {error}", file.display()))))
}
