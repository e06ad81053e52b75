//! Speaks to cargo: what the workspace consists of, and please build the subjects.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::env;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use freestone_bench::workload::service::CLIENT;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;
use serde_json::Value;

use crate::machine::said;
use crate::subjects::{Built, Subject};

/// The cargo that built the harness, in the workspace that it was built from.
#[derive(Debug)]
pub(crate) struct Cargo {
    program: OsString,
    workspace: PathBuf,
    /// The same target folder, so that nothing is built twice and nothing is left elsewhere.
    target: PathBuf,
    /// The target triple of this machine.
    host: String,
    /// Such as `1.95.0`.
    rustc: String,
}

/// What `cargo metadata` says, as far as anybody asks.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    /// Every package of the build.
    pub(crate) packages: Vec<Package>,
    /// The ids of our own.
    pub(crate) workspace_members: Vec<String>,
    target_directory: PathBuf,
    resolve: Option<Resolve>,
}

/// A package.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    /// Unique.
    pub(crate) id: String,
    /// The name.
    pub(crate) name: String,
    /// The version.
    pub(crate) version: String,
    /// Its `Cargo.toml`; the sources lie beside.
    pub(crate) manifest_path: PathBuf,
    targets: Vec<Target>,
}

#[derive(Debug, Deserialize)]
struct Target {
    kind: Vec<String>,
}

impl Package {
    fn has(&self, kind: &str) -> bool {
        self.targets.iter().any(|target| target.kind.iter().any(|its| its == kind))
    }
}

#[derive(Debug, Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Debug, Deserialize)]
struct Node {
    id: String,
    deps: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    pkg: String,
    dep_kinds: Vec<DependencyKind>,
}

#[derive(Debug, Deserialize)]
struct DependencyKind {
    kind: Option<String>,
}

impl Metadata {
    /// How many artifacts cargo will report when it builds `package` and so many binaries of it: a library per package, once for the machine
    /// that builds and once for the program, and a build script where there is one. Cargo itself does not say (`--unit-graph` is unstable).
    fn artifacts(&self, package: &str, binaries: usize) -> Option<usize> {
        let packages: HashMap<&str, &Package> = self.packages.iter().map(|package| (&*package.id, package)).collect();
        let nodes: HashMap<&str, &Node> = self.resolve.as_ref()?.nodes.iter().map(|node| (&*node.id, node)).collect();
        let root = self.packages.iter().find(|its| its.name == package)?;
        let mut seen = HashSet::new();
        let mut scripts = HashSet::new();
        let mut waiting = vec![(&*root.id, false)];
        while let Some((id, for_build)) = waiting.pop() {
            let for_build = for_build || packages.get(id)?.has("proc-macro");
            if !seen.insert((id, for_build)) {
                continue;
            }
            if packages.get(id)?.has("custom-build") {
                scripts.insert(id);
            }
            for dependency in &nodes.get(id)?.deps {
                for kind in &dependency.dep_kinds {
                    match kind.kind.as_deref() {
                        None => waiting.push((&dependency.pkg, for_build)),
                        Some("build") => waiting.push((&dependency.pkg, true)),
                        Some(_) => {}
                    }
                }
            }
        }
        Some(seen.len() + scripts.len() + binaries)
    }
}

/// What is built together.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Group {
    /// The one that brings a peer in.
    feature: Option<&'static str>,
    /// Are the workloads that serve requests in it?
    has_services: bool,
    subjects: Vec<&'static Subject>,
    binaries: BTreeSet<String>,
}

impl Group {
    fn features(&self) -> Vec<&'static str> {
        self.feature.into_iter().chain(self.has_services.then_some("service")).collect()
    }
}

/// One for each feature; first of all what needs none, with the client of services if there are any.
fn groups(subjects: &[&'static Subject], has_services: bool) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    if has_services {
        groups.push(Group { feature: None, has_services, subjects: Vec::new(), binaries: BTreeSet::from([CLIENT.to_owned()]) });
    }
    for &subject in subjects {
        let place = groups.iter().position(|group| group.feature == subject.feature).unwrap_or_else(|| {
            groups.push(Group { feature: subject.feature, has_services, subjects: Vec::new(), binaries: BTreeSet::new() });
            groups.len() - 1
        });
        groups[place].subjects.push(subject);
        // Variants share one.
        groups[place].binaries.insert(subject.binary());
    }
    groups.sort_by_key(|group| group.feature.is_some());
    groups
}

impl Cargo {
    /// Finds cargo, the workspace and the target folder.
    pub(crate) fn find() -> Result<Self> {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
        ensure!(manifest.join("Cargo.toml").is_file(), "the sources this was built from are no longer at {}", manifest.display());
        let program = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let workspace = manifest.parent().context("the crate's folder has no parent")?.to_owned();
        // Where rustup is in use, `rustc` beside this very cargo is the one it calls.
        let beside = Path::new(&program).with_file_name("rustc");
        let rustc = env::var_os("RUSTC").unwrap_or_else(|| if beside.is_file() { beside.into() } else { "rustc".into() });
        let version = said(Command::new(&rustc).arg("-vV").current_dir(&workspace));
        let version = version.with_context(|| format!("cannot run {}", rustc.display()))?;
        let line = |name: &str| version.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
        let host = line("host: ").context("rustc does not say for which machine it builds")?;
        let rustc = line("release: ").context("rustc does not say its version")?;
        let mut cargo = Self { program, workspace, target: PathBuf::new(), host, rustc };
        cargo.target = match target_folder() {
            Some(target) => target,
            None => cargo.metadata(&[])?.1.target_directory,
        };
        Ok(cargo)
    }

    /// The same cargo, which builds other sources of this workspace into a folder of their own.
    pub(crate) fn elsewhere(&self, workspace: PathBuf, target: PathBuf) -> Self {
        Self { workspace, target, program: self.program.clone(), host: self.host.clone(), rustc: self.rustc.clone() }
    }

    /// The folder of our own in the target folder.
    pub(crate) fn folder(&self) -> PathBuf {
        self.target.join("freestone-bench")
    }

    /// The version of the compiler.
    pub(crate) fn rustc(&self) -> &str {
        &self.rustc
    }

    /// The root of the workspace.
    pub(crate) fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// The target triple of this machine.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// This cargo for another workspace, in that one's folder. What the files there ask of rustup does not count: the compiler is the same for all.
    pub(crate) fn command_in(&self, verb: &str, folder: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(verb).args(["--color", "never"]).current_dir(folder).stdin(Stdio::null());
        if env::var_os("RUSTUP_TOOLCHAIN").is_none() {
            let active = said(Command::new("rustup").args(["show", "active-toolchain"]).current_dir(&self.workspace));
            command.envs(active.as_ref().and_then(|line| Some(("RUSTUP_TOOLCHAIN", line.split_whitespace().next()?))));
        }
        command
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(verb).arg("--manifest-path").arg(self.workspace.join("bench-harness/Cargo.toml"));
        command.args(["--color", "never"]).current_dir(&self.workspace).stdin(Stdio::null());
        command
    }

    /// What cargo says about the workspace with these features on, as text and read. Asks the network only when what lies on the disk does
    /// not suffice.
    pub(crate) fn metadata(&self, features: &[&str]) -> Result<(String, Metadata)> {
        let mut complaint = String::new();
        for connection in [&["--offline"][..], &[]] {
            let mut command = self.command("metadata");
            command.args(["--format-version", "1", "--locked", "--filter-platform", &self.host]).args(connection);
            command.arg("--features").arg(features.join(","));
            let output = command.output().with_context(|| format!("cannot run {}", self.program.display()))?;
            if output.status.success() {
                let text = String::from_utf8(output.stdout).context("`cargo metadata` writes something that is not text")?;
                let metadata = serde_json::from_str(&text).context("`cargo metadata` writes something unexpected")?;
                return Ok((text, metadata));
            }
            complaint = one_line(&String::from_utf8_lossy(&output.stderr));
        }
        bail!("`cargo metadata` fails: {complaint}")
    }

    /// Builds the subjects, by a call for each feature (`subjects.rs` says why), and the client of services where there are any. Peers that do not
    /// build are handed back; what always takes part has to.
    pub(crate) fn build(&self, subjects: &[&'static Subject], has_services: bool) -> Result<(Vec<Built>, Vec<&'static Subject>)> {
        let mut built = Vec::new();
        let mut failed = Vec::new();
        for group in groups(subjects, has_services) {
            let names: Vec<&str> = group.subjects.iter().map(|subject| subject.name).collect();
            match (self.build_group(&group)?, group.feature) {
                (Ok(its), _) => built.extend(its),
                (Err(message), Some(_)) => {
                    eprintln!("{} does not build; cargo says:\n{message}", names.join(", "));
                    failed.extend(group.subjects);
                }
                (Err(message), None) => {
                    eprintln!("{message}");
                    bail!("cargo cannot build {}; above is what it says", names.join(" and "))
                }
            }
        }
        Ok((built, failed))
    }

    /// Builds what belongs to one feature, or hands back what cargo said.
    fn build_group(&self, group: &Group) -> Result<std::result::Result<Vec<Built>, String>> {
        let arguments = group.binaries.iter().flat_map(|binary| ["--bin", binary]);
        let names: Vec<&str> = group.binaries.iter().map(String::as_str).collect();
        let mut built = Vec::new();
        let complaint = self.build_package(("freestone-bench", "release"), &group.features(), arguments, &names, |artifact| {
            let binary = artifact["target"]["name"].as_str().unwrap_or_default();
            if let Some(program) = artifact["executable"].as_str() {
                let its = group.subjects.iter().filter(|subject| subject.binary() == binary);
                built.extend(its.map(|subject| Built { subject, program: program.into() }));
            }
        })?;
        if let Some(complaint) = complaint {
            return Ok(Err(complaint));
        }
        let (all, count) = (group.subjects.len(), built.len());
        ensure!(count == all, "cargo built {count} of {all} subjects and says that all is well");
        Ok(Ok(built))
    }

    /// Builds a package of the workspace as a library to preload, and returns its path.
    pub(crate) fn build_library(&self, package: &str) -> Result<PathBuf> {
        let mut library = None;
        let complaint = self.build_package((package, "preload"), &[], [], &[package], |artifact| {
            let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
            if all(&artifact["target"]["kind"]).iter().any(|kind| kind == "cdylib") {
                let files = all(&artifact["filenames"]);
                library = files
                    .iter()
                    .filter_map(Value::as_str)
                    .map(PathBuf::from)
                    .find(|file| file.extension() == Some("so".as_ref()));
            }
        })?;
        if let Some(complaint) = complaint {
            eprintln!("{complaint}");
            bail!("cargo cannot build {package}; above is what it says");
        }
        library.with_context(|| format!("cargo built {package}, and says of no shared library that it is in there"))
    }

    /// Builds a package of the workspace in a profile, shows every artifact that cargo reports, and returns what cargo complains about if it fails.
    fn build_package<'a>(
        &self,
        (package, profile): (&str, &str),
        features: &[&str],
        arguments: impl IntoIterator<Item = &'a str>,
        names: &[&str],
        look: impl FnMut(&Value),
    ) -> Result<Option<String>> {
        let arguments: Vec<&str> = arguments.into_iter().collect();
        let metadata = self.metadata(features).ok();
        let artifacts = metadata.and_then(|(_, metadata)| metadata.artifacts(package, (arguments.len() / 2).max(1)));
        let bar = progress(artifacts)?;
        if bar.is_hidden() {
            eprintln!("building {}", names.join(", "));
        }
        let mut command = self.command("build");
        command.args(["--profile", profile, "--locked", "--package", package, "--message-format", "json-render-diagnostics"]);
        command.arg("--target-dir").arg(&self.target).args(arguments);
        if !features.is_empty() {
            command.arg("--features").arg(features.join(","));
        }
        watched(command, &bar, look)
    }
}

/// Lets cargo build, shows what it is at, looks at every artifact that it reports as JSON, and returns what it complains about if it fails.
pub(crate) fn watched(mut command: Command, bar: &ProgressBar, mut look: impl FnMut(&Value)) -> Result<Option<String>> {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut cargo = command.spawn().with_context(|| format!("cannot run {}", command.get_program().display()))?;
    let (stdout, stderr) = (cargo.stdout.take().context("stdout is a pipe")?, cargo.stderr.take().context("stderr is a pipe")?);
    let listener = thread::spawn({
        let bar = bar.clone();
        move || listen(stderr, &bar)
    });
    for line in BufReader::new(stdout).lines().map_while(std::result::Result::ok) {
        let message: Value = serde_json::from_str(&line).unwrap_or_default();
        if message["reason"] == "compiler-artifact" {
            bar.inc(1);
            look(&message);
        }
    }
    let status = cargo.wait().context("cannot wait for cargo")?;
    bar.finish_and_clear();
    let complaint = listener.join().map_err(|_| anyhow!("cannot read what cargo says"))?;
    Ok(if status.success() { None } else { Some(complaint) })
}

/// The folder that cargo built this very program into: it has put its tag there.
fn target_folder() -> Option<PathBuf> {
    let program = env::current_exe().ok()?;
    program.ancestors().find(|folder| folder.join("CACHEDIR.TAG").is_file()).map(Path::to_owned)
}

/// So many artifacts to build, if somebody knows.
pub(crate) fn progress(artifacts: Option<usize>) -> Result<ProgressBar> {
    let (bar, template) = match artifacts {
        Some(artifacts) => (ProgressBar::new(artifacts as u64), "building {bar:30} {pos:>3}/{len} {wide_msg}"),
        None => (ProgressBar::no_length(), "building {spinner} {pos:>3} {wide_msg}"),
    };
    bar.set_style(ProgressStyle::with_template(template)?);
    bar.enable_steady_tick(Duration::from_millis(100));
    Ok(bar)
}

/// Shows what cargo is at, and keeps what it complains about: the end of it, where the reason stands.
fn listen(stderr: impl Read, bar: &ProgressBar) -> String {
    const LINES_MAX: usize = 60;
    const STEPS: [&str; 7] = ["Compiling", "Downloading", "Downloaded", "Locking", "Updating", "Blocking", "Finished"];
    let mut complaints = Vec::new();
    for line in BufReader::new(stderr).lines().map_while(std::result::Result::ok) {
        if STEPS.iter().any(|step| line.trim_start().starts_with(step)) {
            bar.set_message(line.trim().to_owned());
        } else {
            complaints.push(line);
        }
    }
    // Of a build script, cargo prints all that it said before, too.
    let heading = complaints.iter().rposition(|line| line.trim() == "--- stderr");
    let first = heading.map_or(0, |heading| heading + 1).max(complaints.len().saturating_sub(LINES_MAX));
    complaints[first..].join("\n").trim_matches('\n').to_owned()
}

/// The first line of an error message, and what it says of the cause, without the warnings before it.
pub(crate) fn one_line(complaint: &str) -> String {
    let error = if complaint.starts_with("error") { 0 } else { complaint.find("\nerror").unwrap_or(0) };
    let lines = complaint[error..].lines().map(|line| line.trim().trim_start_matches("error: "));
    lines.filter(|line| !line.is_empty()).take(4).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::groups;
    use crate::subjects::{EVERYONE, chosen};

    #[test]
    fn no_two_features_are_built_together() {
        let everyone = [EVERYONE, "jemalloc-tuned", "freestone-off"].map(str::to_owned);
        for has_services in [false, true] {
            let groups = groups(&chosen(&everyone, false), has_services);
            let said: Vec<String> = groups
                .iter()
                .map(|its| {
                    format!("{}: {}", its.features().join(","), its.binaries.iter().cloned().collect::<Vec<_>>().join(" "))
                })
                .collect();
            let first = if has_services {
                "service: client subject-freestone subject-system"
            } else {
                ": subject-freestone subject-system"
            };
            assert_eq!(said[0], first);
            let service = if has_services { ",service" } else { "" };
            for peer in
                ["jemalloc", "jemalloc-stats", "mimalloc", "mimalloc-v2", "snmalloc", "rpmalloc", "tcmalloc", "rusty-alloc"]
            {
                assert!(said.contains(&format!("{peer}{service}: subject-{peer}")), "{said:?}");
            }
            assert!(said.contains(&format!("checked{service}: subject-freestone-checked")), "{said:?}");
        }
        assert!(groups(&[], false).is_empty());
    }
}
