//! A session in other forms: Markdown, CSV, JSON, Bencher Metric Format, a page.
//!
//! [`csv`](super::csv) goes by runs, as they were; the others by [`Matrix`], which says what the runs come to.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

use super::figures::Matrix;
use super::{Format, Report, bmf, csv, matrix, page};
use crate::arguments::Export;
use crate::plain::{plain, tamed};
use crate::record::Kept;
use crate::{Ending, Misuse, complain};

/// Reads a session and writes it in a form: to a file, or to the standard output.
pub(crate) fn export(file: &Path, format: Export, output: Option<&Path>) -> Result<Ending> {
    let (kept, damage) = Kept::salvage(file)?;
    if let Some(path) = output {
        let real = |path: &Path| fs::canonicalize(path).ok();
        ensure!(real(file) != real(path), Misuse(format!("{} is the record itself, which is not written over", path.display())));
    }
    let text = text(&kept, format)?;
    match output {
        Some(path) => fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?,
        // That nobody listens is no reason to complain; that a disk is full is.
        None => match io::stdout().lock().write_all(text.as_bytes()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                return Err(error).context("cannot write to the standard output");
            }
            _ => {}
        },
    }
    let ending = complain(&Report::of(&kept));
    match damage {
        None if kept.end.is_none() => {
            eprintln!("the session was cut short; what was written is of what there is");
            Ok(Ending::Badly)
        }
        None => Ok(ending),
        Some(damage) => bail!(Misuse(format!("{damage}; what was written is of what comes before it"))),
    }
}

/// A session in a form.
pub(crate) fn text(kept: &Kept, format: Export) -> Result<String> {
    Ok(match format {
        Export::Table => plain(&Report::of(&tamed(kept, Format::Text)).print(Format::Text)).into_owned(),
        Export::Markdown => plain(&Report::of(&tamed(kept, Format::Markdown)).print(Format::Markdown)).into_owned(),
        Export::Csv => csv::text(kept)?,
        Export::Json => matrix::text(&Matrix::of(kept))?,
        Export::Bmf => bmf::text(&Matrix::of(kept))?,
        Export::Html => page::text(&Matrix::of(kept)),
    })
}
