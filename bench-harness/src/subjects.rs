//! Who takes part: the allocators, each the global allocator of a binary of its own (`bin/`).

use std::collections::BTreeMap;
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
    /// Whose binary it is, under another environment. Such a column shows what a choice costs; it is nobody to compare Freestone with.
    pub(crate) variant: Option<Variant>,
}

/// Another subject's binary, under another environment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Variant {
    /// The subject that is built.
    of: &'static str,
    /// The variable that makes the difference …
    pub(crate) variable: &'static str,
    /// … and what it adds to it.
    pub(crate) value: &'static str,
}

/// All of them, in the order of the table: Freestone last, beside the comparison.
pub(crate) const ALL: &[Subject] = &[
    Subject { name: "system", feature: None, by_default: true, needs: "a linker", variant: None },
    Subject { name: "jemalloc", feature: Some("jemalloc"), by_default: true, needs: "a C compiler and make", variant: None },
    Subject { name: "mimalloc", feature: Some("mimalloc"), by_default: true, needs: "a C compiler", variant: None },
    Subject { name: "snmalloc", feature: Some("snmalloc"), by_default: false, needs: "a C++ compiler and cmake", variant: None },
    variant("freestone-keep", "retain:keep"),
    variant("freestone-eager", "retain:off"),
    variant("freestone-off", "background:off"),
    Subject { name: FREESTONE, feature: None, by_default: true, needs: "a linker", variant: None },
];

/// Freestone with an option that is not its default.
const fn variant(name: &'static str, option: &'static str) -> Subject {
    let variant = Variant { of: FREESTONE, variable: "FREESTONE", value: option };
    Subject { name, feature: None, by_default: false, needs: "a linker", variant: Some(variant) }
}

/// The subject that the others are compared with.
pub(crate) const FREESTONE: &str = "freestone";

impl Subject {
    /// The subject with this name.
    pub(crate) fn by_name(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|subject| subject.name == name)
    }

    /// The name of its binary, which a variant shares.
    pub(crate) fn binary(&self) -> String {
        format!("subject-{}", self.variant.map_or(self.name, |variant| variant.of))
    }

    /// The environment of its processes: what was asked for, and what makes a variant. An option list that both add to holds both.
    pub(crate) fn environment(&self, asked: &[(String, String)]) -> BTreeMap<String, String> {
        let mut environment: BTreeMap<String, String> = asked.iter().cloned().collect();
        if let Some(Variant { variable, value, .. }) = self.variant {
            let options = environment.entry(variable.to_owned()).or_default();
            if !options.is_empty() {
                options.push(',');
            }
            options.push_str(value);
        }
        environment
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

#[cfg(test)]
mod tests {
    use super::Subject;

    #[test]
    fn a_variant_shares_the_binary_and_adds_to_the_environment() {
        let eager = Subject::by_name("freestone-eager").expect("it is one of them");
        assert_eq!(eager.binary(), "subject-freestone");
        let asked = [("FREESTONE".to_owned(), "check:exchange".to_owned()), ("LANG".to_owned(), "C".to_owned())];
        let said = |asked| format!("{:?}", eager.environment(asked));
        assert_eq!(said(&[]), r#"{"FREESTONE": "retain:off"}"#);
        assert_eq!(said(&asked), r#"{"FREESTONE": "check:exchange,retain:off", "LANG": "C"}"#);
        let plain = Subject::by_name("freestone").expect("it is one of them");
        assert!(plain.environment(&[]).is_empty());
    }
}
