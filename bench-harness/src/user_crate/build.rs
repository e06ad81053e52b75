//! Builds the copy, once for each subject, and lets each binary prove what serves its memory.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

use super::copy::{Copy, SUBJECT, feature};
use super::sources::Sources;
use crate::cargo::{Cargo, one_line, progress, watched};
use crate::child::output;
use crate::record::LeftOut;
use crate::subjects::FREESTONE;

/// An allocator that can be brought into any crate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Peer {
    /// The subject, and the feature of the crate that brings it in.
    pub(crate) name: &'static str,
    /// Does it take part unless others are named?
    pub(crate) by_default: bool,
    /// The crates that it takes from the registry.
    crates: &'static [&'static str],
    /// The one that is built from C.
    foreign: Option<&'static str>,
}

impl Peer {
    /// Does it come without a download?
    pub(crate) fn is_always_there(&self) -> bool {
        self.crates.is_empty()
    }
}

/// All of them.
pub(crate) const PEERS: [Peer; 5] = [
    Peer { name: "system", by_default: true, crates: &[], foreign: None },
    Peer {
        name: "jemalloc",
        by_default: true,
        crates: &["tikv-jemallocator", "tikv-jemalloc-sys"],
        foreign: Some("tikv-jemalloc-sys"),
    },
    Peer { name: "mimalloc", by_default: true, crates: &["mimalloc"], foreign: Some("libmimalloc-sys") },
    Peer { name: "snmalloc", by_default: false, crates: &["snmalloc-rs"], foreign: Some("snmalloc-sys") },
    Peer { name: FREESTONE, by_default: true, crates: &[], foreign: None },
];

/// A workspace in which subjects are built.
#[derive(Debug)]
pub(crate) struct Workshop<'a> {
    pub(crate) cargo: &'a Cargo,
    pub(crate) sources: &'a Sources,
    pub(crate) copy: &'a Copy,
    /// Where the copy and all that belongs to it lies.
    pub(crate) folder: &'a Path,
    /// Features of the user's package.
    pub(crate) features: Option<&'a str>,
}

/// A binary that was seen to run on its allocator.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Proved {
    /// Which.
    pub(crate) peer: Peer,
    /// What it says of itself.
    pub(crate) version: String,
    /// The binary.
    pub(crate) program: PathBuf,
}

/// The crate that goes into the user's program.
const SOURCES: [(&str, &str); 6] = [
    ("lib.rs", include_str!("patch/lib.rs")),
    ("serves/system.rs", include_str!("patch/serves/system.rs")),
    ("serves/freestone.rs", include_str!("patch/serves/freestone.rs")),
    ("serves/jemalloc.rs", include_str!("patch/serves/jemalloc.rs")),
    ("serves/mimalloc.rs", include_str!("patch/serves/mimalloc.rs")),
    ("serves/snmalloc.rs", include_str!("patch/serves/snmalloc.rs")),
];
/// What a subject's version is asked by, and the name of the variable that asks.
const ANSWER: &str = "freestone-bench-proof ";
const QUESTION: &str = "FREESTONE_BENCH_PROOF";

/// How long a binary may take to prove itself.
const PATIENCE: Duration = Duration::from_mins(1);

impl Workshop<'_> {
    /// Adds the subjects to the copy's lock file, in our versions. Where the program needs another version of a peer itself, that one is taken: cargo
    /// links a C library once. Peers that do not go together with the program are handed back.
    pub(crate) fn resolve(&self, wanted: &[Peer]) -> Result<Vec<LeftOut>> {
        let locked = Lock::read(&self.cargo.workspace().join("Cargo.lock"))?;
        let exact = |peer: &Peer| -> Vec<(&'static str, String)> {
            peer.crates.iter().filter_map(|name| Some((*name, format!("={}", locked.version(name)?)))).collect()
        };
        let any = |peer: &Peer| -> Vec<(&'static str, String)> {
            exact(peer).into_iter().map(|(name, _)| (name, "*".to_owned())).collect()
        };
        // The usual case first: all at once.
        let mut crates: Vec<_> = wanted.iter().flat_map(exact).collect();
        if self.locks(&crates)?.is_ok() {
            return Ok(Vec::new());
        }
        crates.clear();
        if let Err(complaint) = self.locks(&crates)? {
            bail!("cargo cannot resolve the dependencies of {} together with Freestone's: {complaint}", self.sources.package);
        }
        let mut left_out = Vec::new();
        for peer in wanted.iter().filter(|peer| !peer.is_always_there()) {
            let mut complaint = None;
            let with = [exact(peer), any(peer)].into_iter().map(|more| [&crates[..], &more].concat());
            let mut found = None;
            for with in with {
                match self.locks(&with)? {
                    Ok(()) => found = Some(with),
                    Err(said) => _ = complaint.get_or_insert(said),
                }
                if found.is_some() {
                    break;
                }
            }
            match (found, complaint) {
                (Some(with), _) => crates = with,
                (None, complaint) => {
                    let reason =
                        format!("it does not go together with {}: {}", self.sources.package, complaint.unwrap_or_default());
                    left_out.push(LeftOut { subject: peer.name.to_owned(), reason });
                }
            }
        }
        // The last attempt may have been in vain.
        match self.locks(&crates)? {
            Ok(()) => Ok(left_out),
            Err(complaint) => bail!("cargo cannot resolve the dependencies of {}: {complaint}", self.sources.package),
        }
    }

    /// Writes the crate that brings the allocators in, with these crates of peers, and lets cargo complete the lock file; or hands back what it says.
    fn locks(&self, crates: &[(&'static str, String)]) -> Result<std::result::Result<(), String>> {
        /// So many crates may be in the way.
        const NEWER_MAX: usize = 8;
        self.write_subject(crates)?;
        let mut before = String::new();
        for _ in 0..NEWER_MAX {
            let Err(complaint) = self.completes_lock()? else { return Ok(Ok(())) };
            // Cargo keeps what is locked, also where that is too old for what was added.
            let too_old = complaint.split_once("failed to select a version for `").and_then(|(_, rest)| rest.split('`').next());
            let Some(too_old) = too_old.filter(|_| complaint != before) else { return Ok(Err(complaint)) };
            let mut update = self.command("update");
            update.args(["--package", too_old, "--manifest-path"]).arg(&self.copy.manifest);
            if !update.output().context("cannot run cargo")?.status.success() {
                return Ok(Err(complaint));
            }
            before = complaint;
        }
        Ok(Err(before))
    }

    /// Lets cargo complete the lock file, or hands back what it says.
    fn completes_lock(&self) -> Result<std::result::Result<(), String>> {
        let mut complaint = String::new();
        for connection in [&["--offline"][..], &[]] {
            let mut command = self.command("metadata");
            command
                .args(["--format-version", "1", "--filter-platform", self.cargo.host(), "--manifest-path"])
                .arg(&self.copy.manifest);
            let output = command.args(connection).output().context("cannot run cargo")?;
            if output.status.success() {
                return Ok(Ok(()));
            }
            complaint = one_line(&String::from_utf8_lossy(&output.stderr));
        }
        Ok(Err(complaint))
    }

    fn write_subject(&self, crates: &[(&'static str, String)]) -> Result<()> {
        let folder = self.folder.join("subject");
        let allocator = self.cargo.workspace().join("allocator");
        let text = |text: &str| Value::String(text.to_owned());
        let optional = |key: &str, value: &str| {
            Value::Table(Table::from_iter([(key.to_owned(), text(value)), ("optional".to_owned(), Value::Boolean(true))]))
        };
        let mut dependencies = Table::new();
        let allocator = allocator.to_str().context("the path of the allocator is not text")?;
        dependencies.insert("freestone".to_owned(), optional("path", allocator));
        for (name, version) in crates {
            dependencies.insert((*name).to_owned(), optional("version", version));
        }
        let brought = |name: &str| dependencies.contains_key(name).then(|| text(&format!("dep:{name}")));
        let features: Table = PEERS
            .iter()
            .map(|peer| {
                let own = if peer.name == FREESTONE { &["freestone"][..] } else { peer.crates };
                (peer.name.to_owned(), Value::Array(own.iter().filter_map(|name| brought(name)).collect()))
            })
            .collect();
        let package = Table::from_iter([
            ("name".to_owned(), text(SUBJECT)),
            ("version".to_owned(), text(env!("CARGO_PKG_VERSION"))),
            ("edition".to_owned(), text("2024")),
        ]);
        let manifest = Table::from_iter([
            ("package".to_owned(), Value::Table(package)),
            ("dependencies".to_owned(), Value::Table(dependencies)),
            ("features".to_owned(), Value::Table(features)),
            // A root of its own: the harness' workspace, further up, does not know it.
            ("workspace".to_owned(), Value::Table(Table::new())),
        ]);
        let context = || format!("cannot write {}", folder.display());
        fs::create_dir_all(folder.join("src/serves")).with_context(context)?;
        fs::write(folder.join("Cargo.toml"), toml::to_string(&manifest)?).with_context(context)?;
        SOURCES.iter().try_for_each(|(name, text)| fs::write(folder.join("src").join(name), text).with_context(context))
    }

    /// Cargo in the copy. Files of settings that lie above the workspace count there as they do for the user; git finds no repository above, least
    /// of all ours.
    fn command(&self, verb: &str) -> Command {
        let folder = self.copy.manifest.parent().unwrap_or(&self.copy.root);
        let mut command = self.cargo.command_in(verb, folder);
        for file in self.settings() {
            command.arg("--config").arg(file);
        }
        command.env("GIT_CEILING_DIRECTORIES", self.folder);
        command
    }

    /// Cargo's files of settings above the workspace, but for the one at home, which counts anywhere.
    pub(crate) fn settings(&self) -> Vec<PathBuf> {
        let home = env::var_os("CARGO_HOME").map(PathBuf::from).or_else(|| Some(env::home_dir()?.join(".cargo")));
        let above = self.sources.root.ancestors().skip(1).map(|folder| folder.join(".cargo"));
        let mut files: Vec<PathBuf> = above
            .filter(|folder| Some(folder) != home.as_ref())
            .flat_map(|folder| [folder.join("config.toml"), folder.join("config")])
            .filter(|file| file.is_file())
            .collect();
        // The nearest has the last word.
        files.reverse();
        files
    }

    /// What somebody would type to build a subject so, without what only says where files are.
    pub(crate) fn words(&self) -> String {
        let features = self.features.map_or_else(String::new, |features| format!(" --features {features}"));
        format!("cargo build --release --package {} --bin {}{features}", self.sources.package, self.sources.bin)
    }

    /// Builds a subject and lets it prove itself, or says why it cannot take part.
    pub(crate) fn build(&self, peer: Peer) -> Result<std::result::Result<Proved, String>> {
        let mut complaint = String::new();
        for connection in [&["--offline"][..], &[]] {
            let mut executable = None;
            let bar = progress(None)?;
            if bar.is_hidden() && complaint.is_empty() {
                eprintln!("building {} with {}", self.sources.bin, peer.name);
            }
            let said = watched(self.rustc_command(peer, connection), &bar, |artifact| {
                if artifact["target"]["name"] == *self.sources.bin {
                    executable = artifact["executable"].as_str().map(PathBuf::from).or(executable.take());
                }
            })?;
            match said {
                None => {
                    let executable = executable.context("cargo says that all is well, and of no program that it is built")?;
                    let program = self.keep(peer, &executable)?;
                    return Ok(prove(peer, &program).map(|version| Proved { peer, version, program }));
                }
                // Compiling again would end as before.
                Some(said) if !said.contains("offline") => {
                    complaint = said;
                    break;
                }
                Some(said) => complaint = said,
            }
        }
        eprintln!("{} does not build with {}; cargo says:\n{complaint}", self.sources.bin, peer.name);
        Ok(Err(format!("{} does not build with it: {}", self.sources.bin, first_error(&complaint))))
    }

    /// Through `cargo rustc`, because what it hands on is for the binary alone: there, lints that the user denies are none about our module.
    fn rustc_command(&self, peer: Peer, connection: &[&str]) -> Command {
        let mut command = self.command("rustc");
        command.args(["--release", "--locked", "--message-format", "json-render-diagnostics", "--bin", &self.sources.bin]);
        command.arg("--manifest-path").arg(&self.copy.manifest).arg("--target-dir").arg(self.folder.join("target"));
        if let Some(features) = self.features {
            command.args(["--features", features]);
        }
        command.args(["--features", &feature(&peer)]);
        // With debug information asked for, build scripts compile some of the peers without optimisation, or with assertions.
        if let Some(name) = peer.foreign {
            command.arg("--config").arg(format!("profile.release.package.{name}.debug=false"));
        }
        command.args(connection).args(["--", "--cap-lints", "allow"]);
        command
    }

    /// The next subject's binary will have the same path, so this one moves.
    fn keep(&self, peer: Peer, executable: &Path) -> Result<PathBuf> {
        let folder = self.folder.join("bin").join(peer.name);
        let program = folder.join(executable.file_name().context("a program has a name")?);
        let context = || format!("cannot write {}", program.display());
        fs::create_dir_all(&folder).with_context(context)?;
        // Not over the old one, which may be running.
        let _ = fs::remove_file(&program);
        fs::copy(executable, &program).with_context(context)?;
        Ok(program)
    }

    /// The sources that the binary was compiled from, as cargo wrote them down beside it.
    pub(crate) fn compiled(&self) -> BTreeSet<PathBuf> {
        let note = self.folder.join("target/release").join(format!("{}.d", self.sources.bin));
        let text = fs::read_to_string(note).unwrap_or_default();
        // Spaces in names are escaped.
        let text = text.split_once(": ").map_or("", |(_, files)| files).replace("\\ ", "\0");
        text.split_whitespace().map(|file| PathBuf::from(file.replace('\0', " "))).collect()
    }

    /// What the copy's lock file has in other versions than the user's: a subject needs it newer.
    pub(crate) fn raised(&self) -> Result<Vec<String>> {
        let theirs = Lock::read(&self.sources.root.join("Cargo.lock"))?;
        let ours = Lock::read(&self.copy.root.join("Cargo.lock"))?;
        let gone = theirs.0.iter().filter(|entry| !ours.0.contains(entry));
        let raised = gone.filter_map(|(name, version)| {
            let now = ours.0.iter().find(|entry| entry.0 == *name && !theirs.0.contains(entry))?;
            Some(format!("{name} {version} → {}", now.1))
        });
        Ok(raised.collect())
    }
}

/// Asks a binary who serves its memory. One without the answer in it would run as it always does, so it is not even asked.
fn prove(peer: Peer, program: &Path) -> std::result::Result<String, String> {
    let bytes = fs::read(program).map_err(|error| format!("cannot read {}: {error}", program.display()))?;
    if !bytes.windows(QUESTION.len()).any(|window| window == QUESTION.as_bytes()) {
        return Err("the linker left out what proves that it serves memory".to_owned());
    }
    let said = output(Command::new(program).env(QUESTION, "1"), PATIENCE).map_err(|failure| failure.reason)?;
    let version = said.stdout.lines().find_map(|line| line.strip_prefix(ANSWER));
    let version = version.ok_or("the program does not say whether it serves memory")?;
    Ok(if version.is_empty() {
        peer.crates.first().map_or("of unknown version", |name| name).to_owned()
    } else {
        version.to_owned()
    })
}

/// The sentence of a complaint that names the reason.
fn first_error(complaint: &str) -> String {
    let line = complaint.lines().find(|line| line.starts_with("error")).unwrap_or(complaint);
    one_line(line)
}

/// The packages of a lock file, by name and version. Of none that is there, none.
struct Lock(BTreeSet<(String, String)>);

impl Lock {
    fn read(path: &Path) -> Result<Self> {
        if !path.is_file() {
            return Ok(Self(BTreeSet::new()));
        }
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let table: Table = text.parse().with_context(|| format!("{} is not a lock file", path.display()))?;
        let packages = table.get("package").and_then(Value::as_array).into_iter().flatten();
        let text = |package: &Value, key: &str| package.get(key).and_then(Value::as_str).map(str::to_owned);
        Ok(Self(packages.filter_map(|package| Some((text(package, "name")?, text(package, "version")?))).collect()))
    }

    /// Without what is behind a plus, which is no part of what one can ask for.
    fn version(&self, name: &str) -> Option<&str> {
        let (_, version) = self.0.iter().find(|its| its.0 == name)?;
        version.split('+').next()
    }
}
