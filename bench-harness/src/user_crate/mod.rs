//! The verb `cargo`: builds a user's own program with each allocator, in a copy of its sources, and compares.
//!
//! ```text
//!   sources → copy → build → program
//!   which     patched  every   runs, as for the verb `program`
//!   binary             subject,
//!                      proved
//! ```
//!
//! A library that is preloaded is called through the dynamic linker; an allocator that is compiled into the program may be inlined there. Only the
//! latter is what somebody gets who adds the dependency. So here every subject is a build of its own, in the user's release profile and with the
//! user's versions of all else. `rust` knows what has to be understood of Rust for it.

mod build;
mod copy;
mod rust;
mod sources;

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::arguments::UserCrate;
use crate::cargo::Cargo;
use crate::child::Launcher;
use crate::machine::Machine;
use crate::record::{Kind, LeftOut, Session, Version};
use crate::report::Format;
use crate::subjects::EVERYONE;
use crate::{Ending, Misuse, program, rounds, say, session, show};
use build::{PEERS, Peer, Proved, Workshop};
use sources::Sources;

/// Beginnings of the variables that say how cargo builds.
const SETTINGS: [&str; 4] = ["CARGO_BUILD_", "CARGO_ENCODED_RUSTFLAGS=", "CARGO_PROFILE_RELEASE_", "RUSTFLAGS="];

/// Copies, patches, builds, runs, keeps and compares.
pub(crate) fn compare(asked: &UserCrate, format: Format) -> Result<Ending> {
    let wanted = wanted(&asked.subjects)?;
    let output = asked.output.as_deref().map(program::writable).transpose()?;
    let cargo = Cargo::find()?;
    let date = rounds::now();
    let sources = Sources::find(&cargo, &asked.manifest_path, asked.bin.as_deref())?;
    let folder = workshop(&cargo, &sources);
    let _alone = lock(&folder)?;
    let copy = copy::make(&sources, &folder)?;
    let workshop =
        Workshop { cargo: &cargo, sources: &sources, copy: &copy, folder: &folder, features: asked.features.as_deref() };
    let mut left_out = workshop.resolve(&wanted)?;
    let proved = build(&workshop, &wanted, &mut left_out)?;
    // Who asked for a subject is to notice that it is missing.
    let incomplete = left_out.iter().any(|its| asked.subjects.contains(&its.subject));

    let mut subjects: Vec<(String, &Proved)> = proved.iter().map(|its| (its.peer.name.to_owned(), its)).collect();
    subjects.insert(1, (format!("{} again", subjects[0].0), subjects[0].1));
    let session = Session {
        commit: session::commit(cargo.workspace()),
        seed: session::seed(asked.course.seed),
        repetitions: asked.course.repetitions.unwrap_or(10),
        workloads: vec![program::in_one_line(&command(Path::new(&sources.bin), &asked.arguments))],
        subjects: subjects
            .iter()
            .map(|(name, its)| Version { subject: name.clone(), version: its.version.clone(), option: None })
            .collect(),
        left_out,
        environment: program::steering(),
        flags: flags(&workshop)?,
        ..Session::new(date, Kind::Program, Machine::look(cargo.rustc().to_owned()))
    };
    let launcher = Launcher {
        environment: None,
        output: Some(output.unwrap_or_else(|| PathBuf::from("/dev/null"))),
        ..Launcher::new(Duration::from_secs(asked.course.timeout))
    };
    let path = session::kept_at(asked.course.json.as_deref(), &cargo, &session.date)?;
    let started = Instant::now();
    let run = |_, _, subject: usize| program::run(&launcher, None, &command(&subjects[subject].1.program, &asked.arguments));
    let kept = session::hold(session, &path, &[], run)?;
    let ending = show(&kept, format);
    if format == Format::Text {
        say(&session::farewell(&path, started.elapsed()));
    }
    Ok(if incomplete && ending != Ending::Interrupted { Ending::Badly } else { ending })
}

/// Those who were named, in this order, or everyone, or those who take part by default.
fn wanted(names: &[String]) -> Result<Vec<Peer>> {
    if names.is_empty() {
        return Ok(PEERS.into_iter().filter(|peer| peer.by_default).collect());
    }
    if names.iter().any(|name| name == EVERYONE) {
        return Ok(PEERS.to_vec());
    }
    let mut wanted = Vec::new();
    for name in names {
        let Some(peer) = PEERS.iter().find(|peer| peer.name == name) else {
            let all = PEERS.map(|peer| peer.name).join(", ");
            bail!(Misuse(format!("there is no subject '{name}' that is built into programs; they are {all}")));
        };
        ensure!(!wanted.contains(peer), Misuse(format!("there are two subjects named '{name}'")));
        wanted.push(*peer);
    }
    Ok(wanted)
}

/// The folder for all that belongs to one workspace.
fn workshop(cargo: &Cargo, sources: &Sources) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    sources.root.hash(&mut hasher);
    let hash = hasher.finish() & 0xffff_ffff;
    cargo.folder().join("crates").join(format!("{}-{hash:08x}", sources.root.file_name().unwrap_or_default().display()))
}

/// Nobody else copies and builds there until the file is dropped, by whatever end.
fn lock(folder: &Path) -> Result<File> {
    let context = || format!("cannot write {}", folder.display());
    fs::create_dir_all(folder).with_context(context)?;
    let file = File::create(folder.join("lock")).with_context(context)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!("another session measures the same workspace, in {}", folder.display()),
        Err(TryLockError::Error(error)) => Err(error).with_context(context),
    }
}

/// Builds all that can be built. Of what cannot, the reason is said at once and kept.
fn build(workshop: &Workshop<'_>, wanted: &[Peer], left_out: &mut Vec<LeftOut>) -> Result<Vec<Proved>> {
    let mut proved = Vec::new();
    for peer in wanted {
        if left_out.iter().any(|its| its.subject == peer.name) {
            continue;
        }
        match workshop.build(*peer)? {
            Ok(built) => proved.push(built),
            // What does not build as it is would not build with others, either.
            Err(reason) if proved.is_empty() && peer.is_always_there() => {
                bail!("{} cannot be measured on {}: {reason}", workshop.sources.bin, peer.name)
            }
            Err(reason) => left_out.push(LeftOut { subject: peer.name.to_owned(), reason }),
        }
    }
    for its in &*left_out {
        eprintln!("{} is left out: {}", its.subject, its.reason);
    }
    ensure!(!proved.is_empty(), "{} cannot be measured on anybody", workshop.sources.bin);
    Ok(proved)
}

/// What is run: a binary with what was typed behind it.
fn command(program: &Path, arguments: &[OsString]) -> Vec<OsString> {
    [program.as_os_str()].into_iter().chain(arguments.iter().map(OsString::as_os_str)).map(OsString::from).collect()
}

/// How the subjects were built, and what was changed for it: sentences for the record.
fn flags(workshop: &Workshop<'_>) -> Result<Vec<String>> {
    let Workshop { sources, copy, .. } = workshop;
    let commit = session::commit(&sources.root).map_or_else(String::new, |commit| format!(", commit {commit}"));
    let mut flags = vec![
        format!("{} {}{commit}, by {}", sources.package, sources.version, workshop.words()),
        match &copy.profile {
            Some(profile) => format!("its release profile: {profile}"),
            None => "its release profile is cargo's".to_owned(),
        },
    ];
    // Cargo takes its settings from variables, too.
    let variables = env::vars_os().map(|(name, value)| format!("{}={}", name.display(), value.display()));
    let is_setting = |pair: &String| SETTINGS.iter().any(|beginning| pair.starts_with(beginning));
    flags.extend(variables.filter(is_setting).collect::<BTreeSet<_>>());
    flags.extend(workshop.settings().iter().map(|file| format!("settings of cargo in {}", file.display())));
    if sources.root.join("Cargo.lock").is_file() {
        let raised = workshop.raised()?;
        flags.push(if raised.is_empty() {
            "all versions are those of its lock file".to_owned()
        } else {
            format!("all versions are those of its lock file, but for what the subjects need: {}", raised.join(", "))
        });
    } else {
        flags.push("it has no lock file, so the versions are cargo's choice".to_owned());
    }
    let compiled = workshop.compiled();
    for (file, line) in copy.unregistered.iter().filter(|(file, _)| compiled.contains(file)) {
        let file = file.strip_prefix(&copy.root).unwrap_or(file);
        flags.push(format!("its own #[global_allocator] in line {line} of {} does not count", file.display()));
    }
    Ok(flags)
}

#[cfg(test)]
mod tests {
    use super::{Peer, wanted};

    #[test]
    fn subjects_are_those_that_were_named_or_everyone() {
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            let name = |peer: &Peer| peer.name;
            wanted(&names).map(|wanted| wanted.iter().map(name).collect::<Vec<_>>().join(" ")).map_err(|error| error.to_string())
        };
        assert_eq!(of(&[]), Ok("system jemalloc mimalloc freestone".to_owned()));
        assert_eq!(of(&["all"]), Ok("system jemalloc mimalloc snmalloc freestone".to_owned()));
        assert_eq!(of(&["freestone", "system"]), Ok("freestone system".to_owned()));
        assert_eq!(of(&["system", "system"]), Err("there are two subjects named 'system'".to_owned()));
    }
}
