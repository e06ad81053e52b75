//! Who takes part: the allocators, each the global allocator of a binary of its own (`bin/`).

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

/// An allocator to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Subject {
    /// The name in tables and on the command line.
    pub(crate) name: &'static str,
    /// The feature of this crate that brings it in. Without one it is always there, and has to build.
    pub(crate) feature: Option<&'static str>,
    /// Does it take part unless others are named?
    pub(crate) by_default: bool,
    /// What building it takes besides Rust.
    pub(crate) needs: &'static str,
}

/// All of them, in the order of the table: Freestone last, beside the comparison.
pub(crate) const ALL: &[Subject] = &[
    Subject { name: "system", feature: None, by_default: true, needs: "a linker" },
    Subject { name: "jemalloc", feature: Some("jemalloc"), by_default: true, needs: "a C compiler and make" },
    Subject { name: "mimalloc", feature: Some("mimalloc"), by_default: true, needs: "a C compiler" },
    Subject { name: "snmalloc", feature: Some("snmalloc"), by_default: false, needs: "a C++ compiler and cmake" },
    Subject { name: FREESTONE, feature: None, by_default: true, needs: "a linker" },
];

/// The subject that the others are compared with.
pub(crate) const FREESTONE: &str = "freestone";

impl Subject {
    /// The subject with this name.
    pub(crate) fn by_name(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|subject| subject.name == name)
    }

    /// The name of its binary.
    pub(crate) fn binary(&self) -> String {
        format!("subject-{}", self.name)
    }
}

/// A subject whose binary exists.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    /// Which.
    pub(crate) subject: &'static Subject,
    /// Its binary.
    pub(crate) program: PathBuf,
}

/// The subjects' binaries that somebody else has built into a folder.
pub(crate) fn prebuilt(folder: &Path, subjects: &[&'static Subject]) -> Result<Vec<Built>> {
    let mut built = Vec::new();
    for subject in subjects {
        let program = std::path::absolute(folder.join(subject.binary()))?;
        ensure!(program.is_file(), "there is no {} in {}", subject.binary(), folder.display());
        built.push(Built { subject, program });
    }
    Ok(built)
}
