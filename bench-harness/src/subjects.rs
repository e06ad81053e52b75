//! Who takes part: the allocators, each the global allocator of a binary of its own (`bin/`).
//!
//! A subject's binary is built by a call of cargo of its own, with its own feature and no other: cargo unites the features of what it builds
//! together, so that one call for all would put mimalloc's version 2 under the binary of version 3, and the checks of `freestone-checked` into
//! plain Freestone. It also makes a binary the same whoever else takes part, down to the places of its functions, which alone move a row by
//! several percent. As a last resort, each binary's proof refuses to be what it is not named after.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use freestone_bench::subject::locked;

use crate::Misuse;
use crate::record::LeftOut;

/// An allocator to measure.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Subject {
    /// The name in tables and on the command line.
    pub(crate) name: &'static str,
    /// The feature of this crate that brings it in. Without one it is always there, and has to build.
    pub(crate) feature: Option<&'static str>,
    /// The crate that it comes from, if that is not ours.
    package: Option<&'static str>,
    /// What it is, for the list.
    about: &'static str,
    /// What building it takes besides Rust.
    pub(crate) needs: &'static str,
    /// Does it take part unless others are named?
    pub(crate) by_default: bool,
    /// … and when everyone is asked for?
    is_everyone: bool,
    /// Is it an allocator as its users get it?
    is_rival: bool,
    /// Whose binary it is, under another environment.
    pub(crate) variant: Option<Variant>,
}

/// Another subject's binary, under another environment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Variant {
    /// The subject that is built.
    of: &'static str,
    /// The variable that makes the difference …
    variable: &'static str,
    /// … and what it adds to it.
    value: &'static str,
    /// What stands between the options in it.
    separator: char,
    /// Is it the allocator with knobs that advice on it begins with, for a table of its own?
    is_tuned: bool,
}

impl Variant {
    /// For the record: `NAME=VALUE`.
    pub(crate) fn option(&self) -> String {
        format!("{}={}", self.variable, self.value)
    }
}

/// The subject that the others are compared with.
pub(crate) const FREESTONE: &str = "freestone";

/// The word for all allocators there are.
pub(crate) const EVERYONE: &str = "all";

/// What building takes.
const LINKER: &str = "a linker";
const C: &str = "a C compiler";
const C_AND_MAKE: &str = "a C compiler and make";
const CPP: &str = "a C++17 compiler, and minutes";
const CPP_AND_CMAKE: &str = "a C++ compiler and cmake";

const SYSTEM: Subject = Subject { by_default: true, ..ours("system", "the C library's allocator") };
const JEMALLOC: Subject = Subject { by_default: true, ..peer("jemalloc", "tikv-jemallocator", C_AND_MAKE, "jemalloc 5.3") };
const MIMALLOC: Subject = Subject { by_default: true, ..peer("mimalloc", "mimalloc", C, "mimalloc 3, its crate's default") };
const TCMALLOC: Subject = peer("tcmalloc", "tcmalloc-better", CPP, "Google's TCMalloc, per CPU where the kernel lets it");
const PLANTED: Subject = Subject {
    feature: Some("planted"),
    is_everyone: false,
    is_rival: false,
    ..ours("freestone-planted", "Freestone with a fault planted in it, which the harness has to find")
};
const ITSELF: Subject = Subject { by_default: true, ..ours(FREESTONE, "Freestone as it is by default") };

/// All of them, in the order of the table: Freestone last, beside the comparison.
pub(crate) const ALL: &[Subject] = &[
    SYSTEM,
    JEMALLOC,
    Subject {
        is_rival: false,
        ..peer(
            "jemalloc-stats",
            "tikv-jemalloc-ctl",
            C_AND_MAKE,
            "jemalloc with books: the report shows what they say, and it pays for them",
        )
    },
    MIMALLOC,
    peer("mimalloc-v2", "mimalloc", C, "mimalloc 2, by its crate's feature `v2`"),
    peer("snmalloc", "snmalloc-rs", CPP_AND_CMAKE, "snmalloc in its cmake build; its other one is half as fast"),
    peer("rpmalloc", "rpmalloc", C, "rpmalloc 1.4, which is what its crate has"),
    TCMALLOC,
    peer("stoolap-jemalloc", "stoolap-jemalloc", LINKER, "jemalloc's design, in Rust"),
    peer("rusty-alloc", "rusty_alloc-api", LINKER, "mimalloc's design, in Rust; gives back after 10 ms (`purge_delay`)"),
    // Fewer arenas than eight per core, and more in each thread's cache than seven: the two that advice on glibc begins with.
    tuned("system-tuned", SYSTEM, ("GLIBC_TUNABLES", "glibc.malloc.arena_max=2:glibc.malloc.tcache_count=127", ':')),
    // The first example of jemalloc's TUNING.md, for who has memory and prefers speed; `abort_conf` is what it recommends beside any.
    tuned(
        "jemalloc-tuned",
        JEMALLOC,
        (
            "_RJEM_MALLOC_CONF",
            "background_thread:true,metadata_thp:auto,dirty_decay_ms:30000,muzzy_decay_ms:30000,abort_conf:true",
            ',',
        ),
    ),
    // As long as jemalloc above, in place of a second.
    tuned("mimalloc-tuned", MIMALLOC, ("MIMALLOC_PURGE_DELAY", "30000", ',')),
    // TCMalloc itself reads no environment for this: its binary does, and tells it. Three times the default.
    tuned("tcmalloc-tuned", TCMALLOC, ("SUBJECT_TCMALLOC", "max_per_cpu_cache_size:4718592", ',')),
    // Of docs/tuning.md, what makes peaks after quiet moments cheap, and the first seconds.
    tuned("freestone-tuned", ITSELF, (VARIABLE, "retain:25%,huge_pages:always", ',')),
    variant("freestone-keep", "retain:keep", "Freestone that keeps all memory that it has"),
    variant("freestone-eager", "retain:off", "Freestone that gives back what is free at the next tick"),
    variant("freestone-off", "background:off", "Freestone without a thread of its own"),
    variant("freestone-unprofiled", "sample_interval:0", "Freestone without samples, so without profiles"),
    Subject {
        is_everyone: true,
        ..variant("freestone-profiled", "sample_interval:64KiB", "Freestone with eight times as many samples as by default")
    },
    Subject {
        feature: Some("checked"),
        is_rival: false,
        ..ours("freestone-checked", "Freestone that checks every free at the call")
    },
    PLANTED,
    Subject {
        name: UNPLANTED,
        about: "the same without the fault, which it is compared with",
        variant: Some(Variant { of: PLANTED.name, variable: "PLANTED", value: "off", separator: ',', is_tuned: false }),
        ..PLANTED
    },
    ITSELF,
];

/// In place of Freestone, where that is compared with itself and a fault.
const UNPLANTED: &str = "freestone-unplanted";

/// The variable that Freestone reads.
const VARIABLE: &str = "FREESTONE";

/// A subject that is always there.
const fn ours(name: &'static str, about: &'static str) -> Subject {
    Subject {
        name,
        about,
        feature: None,
        package: None,
        by_default: false,
        is_everyone: true,
        is_rival: true,
        needs: LINKER,
        variant: None,
    }
}

/// An allocator from a crate, under a feature that has the subject's name.
const fn peer(name: &'static str, package: &'static str, needs: &'static str, about: &'static str) -> Subject {
    Subject { feature: Some(name), package: Some(package), needs, ..ours(name, about) }
}

/// Freestone with an option that is not its default.
const fn variant(name: &'static str, value: &'static str, about: &'static str) -> Subject {
    let variant = Variant { of: FREESTONE, variable: VARIABLE, value, separator: ',', is_tuned: false };
    Subject { is_everyone: false, is_rival: false, variant: Some(variant), ..ours(name, about) }
}

/// A subject with knobs that advice on it begins with: a variable, what it is set to, and what stands between two options in it.
const fn tuned(name: &'static str, of: Subject, (variable, value, separator): (&'static str, &'static str, char)) -> Subject {
    let variant = Variant { of: of.name, variable, value, separator, is_tuned: true };
    Subject { name, about: of.about, by_default: false, is_everyone: false, is_rival: false, variant: Some(variant), ..of }
}

/// Ends the name of a subject that runs twice in each round: how far its figures are from those of the same subject is noise.
const AGAIN: &str = " again";

/// The name of a subject when it runs for the second time in a round.
pub(crate) fn again(subject: &str) -> String {
    format!("{subject}{AGAIN}")
}

/// Is it one that runs for the second time?
pub(crate) fn is_again(subject: &str) -> bool {
    subject.ends_with(AGAIN)
}

impl Subject {
    /// The subject with this name.
    pub(crate) fn by_name(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|subject| subject.name == name)
    }

    /// The same, with the knobs that advice on it begins with; `None` where there are none.
    pub(crate) fn tuned(&self) -> Option<&'static Self> {
        ALL.iter().find(|its| its.variant.is_some_and(|variant| variant.is_tuned && variant.of == self.name))
    }

    /// Is it compared with `reference`? Freestone is with the other allocators as they are, Freestone tuned with the others tuned. What shows
    /// the cost of a choice (a variant, a build with checks or books) is compared with nobody: the best choice for a row says nothing about
    /// the default. A planted fault is compared with the same binary without it.
    pub(crate) fn is_rival_of(&self, reference: &Self) -> bool {
        let is_tuned = |subject: &Self| subject.variant.is_some_and(|variant| variant.is_tuned);
        match reference.name {
            UNPLANTED => self.name == PLANTED.name,
            _ if is_tuned(reference) => is_tuned(self) && self.name != reference.name,
            _ => self.is_rival && self.name != reference.name,
        }
    }

    /// The name of its binary, which a variant shares.
    pub(crate) fn binary(&self) -> String {
        format!("subject-{}", self.variant.map_or(self.name, |variant| variant.of))
    }

    /// The environment of its processes: what was asked for, and what makes a variant. An option list that both add to holds both.
    pub(crate) fn environment(&self, asked: &[(String, String)]) -> BTreeMap<String, String> {
        let mut environment: BTreeMap<String, String> = asked.iter().cloned().collect();
        if let Some(Variant { variable, value, separator, .. }) = self.variant {
            let options = environment.entry(variable.to_owned()).or_default();
            if !options.is_empty() {
                options.push(separator);
            }
            options.push_str(value);
        }
        environment
    }
}

/// Whom of these the others are compared with: Freestone, or where everybody is tuned, Freestone tuned.
pub(crate) fn reference<'a>(names: impl IntoIterator<Item = &'a str>) -> Option<&'static Subject> {
    let subjects: Vec<&Subject> = names.into_iter().filter_map(Subject::by_name).collect();
    let tuned = ITSELF.tuned().map_or("", |its| its.name);
    [FREESTONE, tuned, UNPLANTED].iter().find_map(|name| subjects.iter().find(|subject| subject.name == *name).copied())
}

/// Those with these names, or by default, in the order of the table.
pub(crate) fn chosen(names: &[String], and_by_default: bool) -> Vec<&'static Subject> {
    let is_everyone = names.iter().any(|name| name == EVERYONE);
    let is_chosen = |subject: &&Subject| {
        names.iter().any(|name| name == subject.name)
            || (is_everyone && subject.is_everyone)
            || (and_by_default && subject.by_default)
    };
    ALL.iter().filter(is_chosen).collect()
}

/// All of them, with what they are and need: those of the default run have a star.
pub(crate) fn list() -> String {
    let mut text =
        String::from("The subjects; those with a * make up the default run, and --subjects all has those with a + as well.\n\n");
    for subject in ALL {
        let mark = match (subject.by_default, subject.is_everyone) {
            (true, _) => '*',
            (false, true) => '+',
            (false, false) => ' ',
        };
        let _ = write!(text, "{mark} {:<20} {}", subject.name, subject.about);
        let _ = match (subject.variant, subject.package) {
            (Some(variant), _) => writeln!(text, ", with {}", variant.option()),
            (None, Some(package)) => {
                writeln!(text, ": {package} {}, needs {}", locked(package).unwrap_or("of unknown version"), subject.needs)
            }
            (None, None) => writeln!(text),
        };
    }
    text
}

/// A subject whose binary exists.
#[derive(Clone, Debug)]
pub(crate) struct Built {
    /// Which.
    pub(crate) subject: &'static Subject,
    /// Its binary.
    pub(crate) program: PathBuf,
}

/// The subjects' binaries that somebody else has built into a folder, and who is not there although everyone was to take part. Whoever was named
/// has to be there.
pub(crate) fn prebuilt(folder: &Path, subjects: &[&'static Subject], named: &[String]) -> Result<(Vec<Built>, Vec<LeftOut>)> {
    let is_everyone = named.iter().any(|name| name == EVERYONE);
    let mut built = Vec::new();
    let mut left_out = Vec::new();
    for subject in subjects {
        let program = std::path::absolute(folder.join(subject.binary()))?;
        let missing = format!("there is no {} in {}", subject.binary(), folder.display());
        if program.is_file() {
            built.push(Built { subject, program });
        } else {
            let is_named = !is_everyone || named.iter().any(|name| name == subject.name);
            ensure!(!is_named, Misuse(missing));
            left_out.push(LeftOut { subject: subject.name.to_owned(), reason: missing });
        }
    }
    Ok((built, left_out))
}

#[cfg(test)]
mod tests {
    use super::{ALL, EVERYONE, FREESTONE, Subject, chosen, list, reference};

    fn subject(name: &str) -> &'static Subject {
        Subject::by_name(name).unwrap_or_else(|| panic!("{name} is one of them"))
    }

    fn names(subjects: &[&Subject]) -> String {
        subjects.iter().map(|subject| subject.name).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_variant_shares_the_binary_and_adds_to_the_environment() {
        let eager = subject("freestone-eager");
        assert_eq!(eager.binary(), "subject-freestone");
        let asked = [("FREESTONE".to_owned(), "check:exchange".to_owned()), ("LANG".to_owned(), "C".to_owned())];
        let said = |asked| format!("{:?}", eager.environment(asked));
        assert_eq!(said(&[]), r#"{"FREESTONE": "retain:off"}"#);
        assert_eq!(said(&asked), r#"{"FREESTONE": "check:exchange,retain:off", "LANG": "C"}"#);
        assert!(subject(FREESTONE).environment(&[]).is_empty());
        let asked = [("GLIBC_TUNABLES".to_owned(), "glibc.malloc.hugetlb=1".to_owned())];
        let options = subject("system-tuned").environment(&asked);
        assert!(options["GLIBC_TUNABLES"].starts_with("glibc.malloc.hugetlb=1:glibc.malloc."), "{options:?}");
    }

    #[test]
    fn names_are_unique_and_variants_are_of_somebody() {
        for (place, its) in ALL.iter().enumerate() {
            assert!(ALL[..place].iter().all(|before| before.name != its.name), "{}", its.name);
            assert_ne!(its.name, EVERYONE);
            if let Some(variant) = its.variant {
                let of = subject(variant.of);
                assert_eq!(of.feature, its.feature, "{} needs what builds {}", its.name, of.name);
                assert!(of.variant.is_none(), "{}", its.name);
                assert!(!its.is_rival, "{}", its.name);
            }
        }
    }

    #[test]
    fn everyone_is_everyone_but_what_asks_for_the_cost_of_a_choice() {
        assert_eq!(names(&chosen(&[], true)), "system jemalloc mimalloc freestone");
        assert_eq!(
            names(&chosen(&[EVERYONE.to_owned()], false)),
            "system jemalloc jemalloc-stats mimalloc mimalloc-v2 snmalloc rpmalloc tcmalloc stoolap-jemalloc rusty-alloc \
             freestone-profiled freestone-checked freestone"
        );
        let two = ["freestone".to_owned(), "freestone-off".to_owned()];
        assert_eq!(names(&chosen(&two, false)), "freestone-off freestone");
    }

    #[test]
    fn only_other_allocators_as_they_are_come_out_best() {
        let rivals = |of: &str| {
            let of = subject(of);
            names(&ALL.iter().filter(|its| its.is_rival_of(of)).collect::<Vec<_>>())
        };
        let plain = "system jemalloc mimalloc mimalloc-v2 snmalloc rpmalloc tcmalloc stoolap-jemalloc rusty-alloc";
        assert_eq!(rivals(FREESTONE), plain);
        assert_eq!(rivals("freestone-tuned"), "system-tuned jemalloc-tuned mimalloc-tuned tcmalloc-tuned");
        assert_eq!(rivals("freestone-unplanted"), "freestone-planted");
    }

    #[test]
    fn tuned_subjects_are_compared_with_each_other_where_nobody_is_plain() {
        let tuned: Vec<_> = chosen(&[], true).iter().filter_map(|its| its.tuned()).collect();
        assert_eq!(names(&tuned), "system-tuned jemalloc-tuned mimalloc-tuned freestone-tuned");
        let of = |names: &[&'static str]| reference(names.iter().copied()).map(|its| its.name);
        assert_eq!(of(&["system-tuned", "freestone-tuned"]), Some("freestone-tuned"));
        assert_eq!(of(&["freestone-tuned", "freestone", "freestone-checked"]), Some("freestone"));
        assert_eq!(of(&["system", "freestone-off", "no such subject"]), None);
    }

    #[test]
    fn the_list_says_what_everyone_needs_and_in_which_version() {
        let list = list();
        for its in ALL {
            assert!(
                list.lines().any(|line| line.get(2..).is_some_and(|line| line.starts_with(its.name)) && line.contains(its.about)),
                "{}",
                its.name
            );
            if let Some(package) = its.package {
                assert!(list.contains(package) && list.contains(its.needs), "{package}");
            }
        }
        assert!(!list.contains("unknown"), "{list}");
    }
}
