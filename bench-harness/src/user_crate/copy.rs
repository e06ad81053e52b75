//! The patched copy of a workspace. All subjects are built from the same one, so that nothing differs between them but the feature that chooses the
//! allocator.
//!
//! ```text
//!   target/freestone-bench/crates/NAME-HASH/
//!     copy/      the workspace: one dependency more, one module more at the end of the binary's root
//!     subject/   that dependency: patch/lib.rs, with a feature for each allocator
//!     target/    what cargo builds of them
//!     bin/       the binary of each subject
//! ```
//!
//! Nothing is written outside this folder: every file that is patched is first seen to lie in the copy, whatever links there are.

use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};
use toml::{Table, Value};

use super::build::{PEERS, Peer};
use super::rust::without_allocators;
use super::sources::Sources;
use crate::Misuse;

/// The crate that brings the allocator in.
pub(crate) const SUBJECT: &str = "freestone-bench-subject";

/// What is added to the binary's root. A path that begins with `self` means the same in every edition, and all that needs `unsafe` is in the other
/// crate, so that no lint of the user's forbids it.
const MODULE: &str = "
// Added by freestone-bench, in this copy.
mod freestone_bench_brings_the_allocator {
    extern crate freestone_bench_subject as subject;
    #[global_allocator]
    static ALLOCATOR: self::subject::Allocator = self::subject::ALLOCATOR;
}
";

/// The feature of the copied package that chooses a subject.
pub(crate) fn feature(peer: &Peer) -> String {
    format!("{SUBJECT}-{}", peer.name)
}

/// Tables of dependencies in a manifest.
const DEPENDENCIES: [&str; 5] =
    ["dependencies", "dev-dependencies", "dev_dependencies", "build-dependencies", "build_dependencies"];

/// A copy that is ready to be built.
#[derive(Debug)]
pub(crate) struct Copy {
    /// The copied root of the workspace.
    pub(crate) root: PathBuf,
    /// The manifest of the binary's package in there.
    pub(crate) manifest: PathBuf,
    /// Sources in there whose own global allocators no longer are, with the line.
    pub(crate) unregistered: Vec<(PathBuf, usize)>,
    /// The release profile in the workspace's manifest, in one line.
    pub(crate) profile: Option<String>,
}

/// Copies the workspace into `folder` and patches it. What was there before is replaced.
pub(crate) fn make(sources: &Sources, folder: &Path) -> Result<Copy> {
    let root = folder.join("copy");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot replace {}", root.display()))?;
    }
    let mut copier =
        Copier { from: &sources.root, to: &root, left_out: [&sources.target, folder], rust: Vec::new(), manifests: Vec::new() };
    copier.folder(&sources.root)?;
    let (rust, manifests) = (copier.rust, copier.manifests);

    for manifest in manifests {
        keep_paths(&manifest, sources, &root)?;
    }
    let mut unregistered = Vec::new();
    for file in rust {
        // What is not text is not Rust, either.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        if let Some((patched, lines)) = without_allocators(&text) {
            replace(&root, &file, &patched)?;
            unregistered.extend(lines.into_iter().map(|line| (file.clone(), line)));
        }
    }

    let crate_root = moved(&sources.crate_root, sources, &root)?;
    let text = fs::read_to_string(&crate_root).with_context(|| format!("cannot read {}", sources.crate_root.display()))?;
    replace(&root, &crate_root, &format!("{text}\n{MODULE}"))?;

    let manifest = moved(&sources.manifest, sources, &root)?;
    edit(&root, &manifest, |table| {
        let dependency = Table::from_iter([("path".to_owned(), Value::from(text_of(&folder.join("subject"))?))]);
        table_in(table, "dependencies")?.insert(SUBJECT.to_owned(), Value::Table(dependency));
        // Features of a package, and not of its dependency alone: cargo locks what any feature of a package takes, so all subjects share one lock file.
        let features = table_in(table, "features")?;
        for peer in PEERS {
            features.insert(feature(&peer), Value::Array(vec![Value::from(format!("{SUBJECT}/{}", peer.name))]));
        }
        Ok(())
    })?;
    let mut profile = None;
    edit(&root, &root.join("Cargo.toml"), |table| {
        // Or cargo would look for a workspace further up, where the harness is.
        table_in(table, "workspace")?;
        profile = table.get("profile").and_then(|profiles| profiles.get("release")).map(in_one_line);
        Ok(())
    })?;
    Ok(Copy { root, manifest, unregistered, profile })
}

/// Copies folders.
struct Copier<'a> {
    from: &'a Path,
    to: &'a Path,
    /// What cargo has built, and ourselves.
    left_out: [&'a Path; 2],
    /// Copied sources …
    rust: Vec<PathBuf>,
    /// … and manifests.
    manifests: Vec<PathBuf>,
}

impl Copier<'_> {
    fn folder(&mut self, from: &Path) -> Result<()> {
        let to = self.to.join(from.strip_prefix(self.from)?);
        let context = || format!("cannot copy {} to {}", from.display(), to.display());
        fs::create_dir_all(&to).with_context(context)?;
        for entry in fs::read_dir(from).with_context(context)? {
            let entry = entry.with_context(context)?;
            let (path, name) = (entry.path(), entry.file_name());
            let to = to.join(&name);
            let context = || format!("cannot copy {} to {}", path.display(), to.display());
            if name == ".git" || self.is_left_out(&path) {
                continue;
            }
            // What a link to a file points to is copied, so that whoever writes to the copy writes to nothing else. A link may also lead nowhere.
            let is_link = entry.file_type().with_context(context)?.is_symlink();
            let kind = fs::metadata(&path).map(|its| its.file_type());
            if is_link && !kind.as_ref().is_ok_and(fs::FileType::is_file) {
                // Cargo writes its lock file, and would do so through a link that leads nowhere yet.
                if name != "Cargo.lock" {
                    self.link(&path, &to).with_context(context)?;
                }
                continue;
            }
            let kind = kind.with_context(context)?;
            if kind.is_dir() {
                self.folder(&path)?;
            } else if kind.is_file() {
                copy_file(&path, &to).with_context(context)?;
                if name == "Cargo.toml" {
                    self.manifests.push(to);
                } else if to.extension().is_some_and(|extension| extension == "rs") {
                    self.rust.push(to);
                }
            }
        }
        Ok(())
    }

    fn is_left_out(&self, path: &Path) -> bool {
        self.left_out.contains(&path) || (path.ends_with("target") && path.join("CACHEDIR.TAG").is_file())
    }

    /// A folder that a link points to in the workspace is copied, too, and the link points there; to elsewhere it points as before.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let target = fs::read_link(from)?;
        let absolute = plain(&from.parent().unwrap_or(from).join(&target));
        let target = match absolute.strip_prefix(self.from) {
            Ok(_) if target.is_relative() => target,
            Ok(inside) => self.to.join(inside),
            Err(_) => absolute,
        };
        std::os::unix::fs::symlink(target, to)
    }
}

/// A file of its own that the owner may change.
fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::copy(from, to)?;
    let mut permissions = fs::metadata(to)?.permissions();
    if permissions.readonly() {
        permissions.set_mode(permissions.mode() | 0o200);
        fs::set_permissions(to, permissions)?;
    }
    Ok(())
}

/// Without `.` and `..`, by the words alone.
pub(crate) fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => _ = plain.pop(),
            other => plain.push(other),
        }
    }
    plain
}

/// Where a file of the workspace is in the copy.
fn moved(path: &Path, sources: &Sources, root: &Path) -> Result<PathBuf> {
    Ok(root.join(path.strip_prefix(&sources.root)?))
}

/// Writes a new file in the place of one in the copy. A folder on the way may be a link out of it: then nothing is written.
fn replace(root: &Path, path: &Path, text: &str) -> Result<()> {
    let context = || format!("cannot write {}", path.display());
    let folder = path.parent().with_context(context)?;
    let is_inside = fs::canonicalize(folder).with_context(context)?.starts_with(fs::canonicalize(root).with_context(context)?);
    ensure!(
        is_inside,
        Misuse(format!("{} is a link to outside of the workspace; what is there would have to be changed", folder.display()))
    );
    fs::remove_file(path).with_context(context)?;
    fs::write(path, text).with_context(context)
}

fn edit(root: &Path, manifest: &Path, change: impl FnOnce(&mut Table) -> Result<()>) -> Result<()> {
    let text = fs::read_to_string(manifest).with_context(|| format!("cannot read {}", manifest.display()))?;
    let mut table: Table = text.parse().with_context(|| format!("cannot read {}", manifest.display()))?;
    change(&mut table)?;
    replace(root, manifest, &toml::to_string(&table)?)
}

/// The table with this name, perhaps a new one.
fn table_in<'a>(table: &'a mut Table, name: &str) -> Result<&'a mut Table> {
    let entry = table.entry(name).or_insert_with(|| Value::Table(Table::new()));
    entry.as_table_mut().with_context(|| format!("[{name}] in the manifest is no table"))
}

fn text_of(path: &Path) -> Result<String> {
    path.to_str().map(str::to_owned).with_context(|| Misuse(format!("{} is not text, and a manifest is", path.display())))
}

/// Dependencies whose path leads out of the workspace get an absolute one. A manifest that nobody can read belongs to nobody's build.
fn keep_paths(manifest: &Path, sources: &Sources, root: &Path) -> Result<()> {
    let Some(mut table) = fs::read_to_string(manifest).ok().and_then(|text| text.parse::<Table>().ok()) else { return Ok(()) };
    let original = sources.root.join(manifest.strip_prefix(root)?);
    let folder = original.parent().context("a manifest lies in a folder")?;
    let mut changed = false;
    for dependency in dependencies(&mut table) {
        let Some(Value::String(path)) = dependency.get_mut("path") else { continue };
        let there = folder.join(&*path);
        let real = fs::canonicalize(&there).unwrap_or_else(|_| plain(&there));
        if !real.starts_with(&sources.root) {
            *path = text_of(&real)?;
            changed = true;
        }
    }
    if changed { replace(root, manifest, &toml::to_string(&table)?) } else { Ok(()) }
}

/// Everything in a manifest that may be a dependency with a path: for all and for targets, of the workspace, and patches.
fn dependencies(table: &mut Table) -> Vec<&mut Table> {
    fn tables(value: &mut Value) -> impl Iterator<Item = (&String, &mut Value)> {
        value.as_table_mut().into_iter().flatten()
    }
    let mut found: Vec<&mut Value> = Vec::new();
    for (name, value) in table.iter_mut() {
        match name.as_str() {
            name if DEPENDENCIES.contains(&name) || name == "replace" => found.push(value),
            "workspace" => found.extend(tables(value).filter(|(name, _)| *name == "dependencies").map(|(_, value)| value)),
            "patch" => found.extend(tables(value).map(|(_, value)| value)),
            "target" => {
                let of_targets = tables(value).flat_map(|(_, target)| tables(target));
                found.extend(of_targets.filter(|(name, _)| DEPENDENCIES.contains(&name.as_str())).map(|(_, value)| value));
            }
            _ => {}
        }
    }
    found.into_iter().flat_map(tables).filter_map(|(_, dependency)| dependency.as_table_mut()).collect()
}

/// A table as one reads it in a line: `debug = 1, lto = "fat"`.
fn in_one_line(value: &Value) -> String {
    match value {
        Value::Table(table) => {
            let pairs: Vec<String> = table
                .iter()
                .map(|(name, value)| {
                    if value.is_table() { format!("{name} = {{ {} }}", in_one_line(value)) } else { format!("{name} = {value}") }
                })
                .collect();
            pairs.join(", ")
        }
        other => other.to_string(),
    }
}
