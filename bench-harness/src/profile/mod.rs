//! Heap profiles in files of pprof, offline: names with lines for their addresses, and tables and pictures of them.
//!
//! ```text
//!   file → naming, binary → file        addresses get names  (name)
//!        → stacks → table               who has the most     (top, diff)
//!                 → folded → graph      lines, a picture     (folded, flamegraph)
//!   binary → file                       names are kept       (symbols)
//! ```

mod binary;
mod folded;
mod naming;
mod stacks;
mod table;

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use freestone_stats::names::Binary;
use freestone_stats::profile::pprof::{self, proto};

use crate::arguments::{Chosen, Profile};
use crate::report::Format;
use crate::{Given as _, Misuse};
use stacks::Stacks;

/// Larger files are not read: one of 100,000 stacks has ten megabytes.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Does what was asked.
pub(crate) fn obey(asked: &Profile, format: Format) -> Result<()> {
    match asked {
        Profile::Name(asked) => {
            let mut profile = read(&asked.file).given()?;
            let said = naming::name(&mut profile, &asked.file, &asked.binary, &asked.debug_dir, asked.force).given()?;
            let output = asked.output.clone().unwrap_or_else(|| named_file(&asked.file));
            write(&output, &pprof::encode(&profile))?;
            eprint!("{said}");
            if output.as_os_str() != "-" {
                eprintln!("wrote {}", output.display());
            }
        }
        Profile::Top { file, chosen, n } => crate::say(&table::of(&stacks(file, chosen).given()?, file, *n, format)),
        Profile::Diff { before, after, sample, n } => {
            let chosen = Chosen { base: Some(before.clone()), sample: sample.clone() };
            crate::say(&table::of(&stacks(after, &chosen).given()?, after, *n, format));
        }
        Profile::Folded { file, chosen, output } => {
            let text = folded::lines(&stacks(file, chosen).given()?);
            match output {
                Some(output) => write(output, text.as_bytes())?,
                None => crate::say(&text),
            }
        }
        Profile::Flamegraph { file, chosen, output } => {
            let svg = folded::flamegraph(&stacks(file, chosen).given()?, file).given()?;
            write(output, &svg)?;
        }
        Profile::Symbols { binary, output, into } => keep(binary, output.as_deref(), into.as_deref())?,
    }
    Ok(())
}

/// What was chosen of a file, perhaps with what is in another one taken away.
fn stacks(file: &Path, chosen: &Chosen) -> Result<Stacks> {
    let profile = read(file)?;
    let mut stacks = Stacks::of(&profile, chosen.sample.as_deref(), file)?;
    if let Some(base) = &chosen.base {
        let earlier = read(base)?;
        stacks.compare(&Stacks::of(&earlier, Some(&stacks.sample), base)?, base)?;
    }
    Ok(stacks)
}

fn read(file: &Path) -> Result<proto::Profile> {
    let name = if file.as_os_str() == "-" { "the standard input".into() } else { file.display().to_string() };
    let cannot = || format!("cannot read {name}");
    let mut bytes = Vec::new();
    if file.as_os_str() == "-" {
        io::stdin().lock().take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(cannot)?;
    } else {
        File::open(file).with_context(cannot)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).with_context(cannot)?;
    }
    ensure!(bytes.len() as u64 <= FILE_BYTES_MAX, "cannot read {name}: it has more than a gigabyte, which no profile needs");
    pprof::decode(&bytes).with_context(cannot)
}

/// As a whole, or not at all: a reader never sees half a file, and one that was there stays if there is no room for another.
fn write(file: &Path, bytes: &[u8]) -> Result<()> {
    let cannot = || format!("cannot write {}", file.display());
    if file.as_os_str() == "-" {
        return io::stdout().lock().write_all(bytes).context("cannot write to the standard output");
    }
    if fs::metadata(file).is_ok_and(|its| !its.is_file()) {
        // A device, or a pipe.
        return fs::write(file, bytes).with_context(cannot);
    }
    let mut name = file.file_name().with_context(cannot)?.to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let new = file.with_file_name(name);
    let written = fs::write(&new, bytes).and_then(|()| fs::rename(&new, file));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written.with_context(cannot)
}

/// `heap.named.pb.gz` of `heap.pb.gz`.
fn named_file(file: &Path) -> PathBuf {
    if file.as_os_str() == "-" {
        return file.to_owned();
    }
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let stem = [".pb.gz", ".pprof.gz", ".gz", ".pb", ".pprof"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(&name);
    file.with_file_name(format!("{stem}.named.pb.gz"))
}

/// Keeps the names of a program's functions, so that it can be stripped.
fn keep(binary: &Path, output: Option<&Path>, into: Option<&Path>) -> Result<()> {
    let open = |file: &Path| Binary::open(file, &[]).map_err(anyhow::Error::from).given();
    let whole = open(binary)?;
    let kept = whole.symbols_to_keep().map_err(anyhow::Error::from).given()?;
    let Some(into) = into else {
        let output = output.map_or_else(|| with_end(binary, ".symbols"), Path::to_owned);
        write(&output, &kept)?;
        eprintln!(
            "wrote {} ({} bytes); it belongs beside the stripped program, which must keep its name",
            output.display(),
            kept.len()
        );
        return Ok(());
    };
    let stripped = open(into)?;
    let (one, other) = (whole.build_id().unwrap_or("none"), stripped.build_id().unwrap_or("none"));
    if one != other {
        let sentence = "their build ids are";
        bail!(Misuse(format!("{} is another build than {}: {sentence} {other} and {one}", into.display(), binary.display())));
    }
    let mut bytes = fs::read(into).with_context(|| format!("cannot read {}", into.display()))?;
    bytes.extend_from_slice(&kept);
    let mode = fs::metadata(into).map(|its| its.permissions()).with_context(|| format!("cannot read {}", into.display()))?;
    write(into, &bytes)?;
    fs::set_permissions(into, mode).with_context(|| format!("cannot make {} a program again", into.display()))?;
    eprintln!("{} has names again, and {} bytes more", into.display(), kept.len());
    Ok(())
}

fn with_end(path: &Path, end: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(end);
    name.into()
}
