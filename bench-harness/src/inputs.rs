//! Prepares what the real workloads read (`workload/real.rs`): the same files for all subjects of a session.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use freestone_bench::workload::real::{METADATA, SOURCES};

use crate::cargo::Cargo;

/// No more of the sources than this.
const SOURCES_BYTES_MAX: usize = 16 << 20;
/// No more of one package than this: some consist of tables that a program wrote.
const PACKAGE_BYTES_MAX: usize = 1 << 20;

/// Writes the inputs and returns their folder.
pub(crate) fn prepare(cargo: &Cargo) -> Result<PathBuf> {
    let folder = cargo.folder().join("inputs");
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let (text, metadata) = cargo.metadata(&[])?;
    write(&folder.join(METADATA), text.as_bytes())?;

    let mut packages = metadata.packages;
    // Our own first, then the others by name.
    packages.sort_by_cached_key(|its| (!metadata.workspace_members.contains(&its.id), its.name.clone(), its.version.clone()));
    let mut sources = Vec::new();
    for package in packages {
        let Some(root) = package.manifest_path.parent() else { continue };
        let mut files = Vec::new();
        collect(root, &mut files)?;
        files.sort();
        let end = (sources.len() + PACKAGE_BYTES_MAX).min(SOURCES_BYTES_MAX);
        for file in files {
            // Not every test of a parser is text.
            let Ok(text) = fs::read_to_string(&file) else { continue };
            if sources.len() + text.len() <= end {
                sources.extend_from_slice(text.as_bytes());
            }
        }
    }
    write(&folder.join(SOURCES), &sources)?;
    Ok(folder)
}

/// The Rust files of a package, but not those in a target folder of cargo's or in hidden ones.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if folder.join("CACHEDIR.TAG").is_file() {
        return Ok(());
    }
    let entries = fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot list {}", folder.display()))?;
        let (path, name) = (entry.path(), entry.file_name());
        let kind = entry.file_type().with_context(|| format!("cannot look at {}", path.display()))?;
        if kind.is_dir() && !name.to_string_lossy().starts_with('.') {
            collect(&path, files)?;
        } else if kind.is_file() && path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

/// Puts the whole file there or nothing: another session may be reading the one that was there before.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let unfinished = path.with_extension(format!("{}.unfinished", std::process::id()));
    fs::write(&unfinished, bytes)
        .and_then(|()| fs::rename(&unfinished, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::collect;
    use std::path::Path;

    #[test]
    fn only_rust_is_collected() {
        let mut files = Vec::new();
        collect(Path::new(env!("CARGO_MANIFEST_DIR")), &mut files).expect("the crate has a folder");
        assert!(files.iter().any(|file| file.ends_with("src/inputs.rs")));
        assert!(files.iter().all(|file| file.extension().is_some_and(|extension| extension == "rs")));
    }
}
