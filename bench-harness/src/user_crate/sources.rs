//! Which program it is: asks cargo about the user's workspace, and finds the binary in there. Writes nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use super::copy::plain;
use crate::Misuse;
use crate::cargo::{Cargo, one_line};

/// A binary of the user's, and the workspace that it is in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Sources {
    /// The folder with the workspace's `Cargo.toml` and `Cargo.lock`.
    pub(crate) root: PathBuf,
    /// Where cargo builds it into, which may lie in the workspace.
    pub(crate) target: PathBuf,
    /// The package of the binary.
    pub(crate) package: String,
    /// Its version.
    pub(crate) version: String,
    /// Its `Cargo.toml`.
    pub(crate) manifest: PathBuf,
    /// The binary.
    pub(crate) bin: String,
    /// The source file that it begins with.
    pub(crate) crate_root: PathBuf,
}

/// What `cargo metadata --no-deps` says, as far as anybody asks.
#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_default_members: Vec<String>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Package {
    id: String,
    name: String,
    version: String,
    manifest_path: PathBuf,
    default_run: Option<String>,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
    src_path: PathBuf,
}

impl Package {
    fn binaries(&self) -> impl Iterator<Item = (&Self, &Target)> {
        self.targets.iter().filter(|target| target.kind.iter().any(|kind| kind == "bin")).map(move |target| (self, target))
    }
}

impl Sources {
    /// The binary with this name in the workspace of `manifest`, or the one that `cargo run` would take.
    pub(crate) fn find(cargo: &Cargo, manifest: &Path, bin: Option<&str>) -> Result<Self> {
        let manifest = if manifest.is_dir() { manifest.join("Cargo.toml") } else { manifest.to_owned() };
        let shown = manifest.display();
        let real = fs::canonicalize(&manifest).ok().filter(|path| path.is_file());
        let manifest = real.with_context(|| Misuse(format!("there is no manifest {shown}; --manifest-path names one")))?;
        let metadata = metadata(cargo, &manifest)?;
        let (package, target) = metadata.choose(&manifest, bin)?;
        let root = &metadata.workspace_root;
        // Cargo says of it what the manifest says, with all `..`.
        let crate_root = plain(&target.src_path);
        let members = metadata.packages.iter().map(|package| &package.manifest_path);
        for path in members.chain([&crate_root]) {
            ensure!(
                path.starts_with(root),
                Misuse(format!(
                    "{} lies outside the workspace {}, which cannot be copied without it",
                    path.display(),
                    root.display()
                ))
            );
        }
        Ok(Self {
            root: root.clone(),
            target: metadata.target_directory.clone(),
            package: package.name.clone(),
            version: package.version.clone(),
            manifest: package.manifest_path.clone(),
            bin: target.name.clone(),
            crate_root,
        })
    }
}

/// Without dependencies cargo resolves nothing, so it asks nobody and leaves the lock file as it is.
fn metadata(cargo: &Cargo, manifest: &Path) -> Result<Metadata> {
    let mut command = cargo.command_in("metadata", manifest.parent().unwrap_or(manifest));
    command.args(["--format-version", "1", "--no-deps", "--manifest-path"]).arg(manifest);
    let output = command.output().context("cannot run cargo")?;
    if !output.status.success() {
        let complaint = one_line(&String::from_utf8_lossy(&output.stderr));
        bail!(Misuse(format!("cargo cannot read {}: {complaint}", manifest.display())));
    }
    serde_json::from_slice(&output.stdout).context("`cargo metadata` writes something unexpected")
}

impl Metadata {
    /// As `cargo run` chooses: a package's own binaries, or those of all default members where the manifest is a workspace only. A name is looked for
    /// in the whole workspace besides.
    fn choose(&self, manifest: &Path, bin: Option<&str>) -> Result<(&Package, &Target)> {
        let own: Vec<&Package> = match self.packages.iter().find(|package| package.manifest_path == manifest) {
            Some(package) => vec![package],
            None => self.packages.iter().filter(|package| self.workspace_default_members.contains(&package.id)).collect(),
        };
        let candidates = |packages: &[&'_ Package]| -> Vec<(usize, String)> {
            let named = |(package, target): (&Package, &Target)| {
                let place = self.packages.iter().position(|its| its.id == package.id)?;
                bin.is_none_or(|bin| bin == target.name).then(|| (place, target.name.clone()))
            };
            packages.iter().flat_map(|package| package.binaries()).filter_map(named).collect()
        };
        let mut found = candidates(&own);
        let all: Vec<&Package> = self.packages.iter().collect();
        if found.is_empty() && bin.is_some() {
            found = candidates(&all);
        }
        if bin.is_none() && found.len() > 1 {
            let defaults: Vec<&str> = own.iter().filter_map(|package| package.default_run.as_deref()).collect();
            if let [default] = defaults[..] {
                found.retain(|(_, name)| name == default);
            }
        }
        let shown = manifest.display();
        let names = |packages: &[&Package]| -> String {
            let names: BTreeSet<&str> =
                packages.iter().flat_map(|package| package.binaries()).map(|(_, target)| &*target.name).collect();
            names.into_iter().collect::<Vec<_>>().join(", ")
        };
        match (&found[..], bin) {
            ([(place, name)], _) => {
                let package = &self.packages[*place];
                let target = package.binaries().map(|(_, target)| target).find(|target| target.name == *name);
                Ok((package, target.context("a binary that was found is there")?))
            }
            ([], Some(bin)) if !names(&all).is_empty() => {
                bail!(Misuse(format!("{shown} has no binary '{bin}'; it has {}", names(&all))))
            }
            ([], _) => bail!(Misuse(format!("{shown} has no binary to measure"))),
            (_, None) => bail!(Misuse(format!("{shown} has several binaries, and --bin names none: {}", names(&own)))),
            (several, Some(bin)) => {
                let packages: BTreeSet<&str> = several.iter().map(|(place, _)| &*self.packages[*place].name).collect();
                let packages = packages.into_iter().collect::<Vec<_>>().join(", ");
                bail!(Misuse(format!("{shown} has several binaries '{bin}', in {packages}; --manifest-path chooses the package")))
            }
        }
    }
}
