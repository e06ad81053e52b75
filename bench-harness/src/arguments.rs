//! The command line. Whatever is wrong with it is said in one sentence.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// Below the options. The lines end by hand: for wrapping them clap would need one more crate.
const DEFAULTS: &str = "\
Without options: the scenario `default`, which runs the telling workloads ten times on each of system (the C library's
allocator), jemalloc, mimalloc and freestone. Every run is a process of its own, and the subjects take turns in random
order. All this needs Rust, a C compiler and make, and takes two to five minutes once it is built. Ctrl-C ends it early:
what was measured is shown and kept, and --resume goes on with it.

Exit codes: 0 all went well; 1 all was done and the answer is no (a gate, a floor); 2 the command line or a file that
it names is wrong; 3 something failed, such as a run; 130 somebody pressed Ctrl-C.";

/// Compares Freestone with other allocators, in time and in memory, and says so where it loses or where there is no difference
#[derive(Debug, Parser)]
#[command(name = "freestone-bench", bin_name = "freestone-bench", version, args_conflicts_with_subcommands = true)]
#[command(after_help = DEFAULTS, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// What to do instead of measuring.
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,

    #[command(flatten)]
    pub(crate) measure: Measure,

    /// Print the tables as Markdown.
    #[arg(long, global = true)]
    pub(crate) markdown: bool,

    /// List the workloads and what they are good for, and measure nothing.
    #[arg(long)]
    pub(crate) list: bool,
}

/// What cannot be said anew of a session that goes on.
const SAID_BY_THE_FILE: [&str; 11] =
    ["json", "full", "workloads", "subjects", "with", "repetitions", "percent", "seed", "env", "instructions", "calls"];

/// How to measure. Behind `run`, this has the last word over what the scenario says.
#[derive(Clone, Debug, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(crate) struct Measure {
    /// The scenario `full`: all workloads but those of memory over time and the services, in twenty minutes or so.
    #[arg(long)]
    pub(crate) full: bool,

    /// These workloads: names, beginnings of names, or patterns with *.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', action = ArgAction::Append)]
    pub(crate) workloads: Vec<String>,

    /// These subjects, such as system,jemalloc,freestone; all is every one, and --list names them.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', action = ArgAction::Append, conflicts_with = "with")]
    pub(crate) subjects: Vec<String>,

    /// One more subject than usual, such as snmalloc (which needs cmake and a C++ compiler).
    #[arg(long, value_name = "NAMES", value_delimiter = ',', action = ArgAction::Append)]
    pub(crate) with: Vec<String>,

    /// The subjects with knobs that advice on them begins with, in place of their defaults: a table of its own.
    #[arg(long)]
    pub(crate) tuned: bool,

    /// Runs of each subject on each workload; fewer than six say nothing at 95 %.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) repetitions: Option<u64>,

    /// Do so much of the operations only, for a quick look.
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) percent: Option<u64>,

    /// Decides the order of the runs; a session prints its own.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,

    /// Give up on a run after this time; without it, after two minutes.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: Option<u64>,

    /// Set a variable for the subjects, which otherwise run with none.
    #[arg(long, value_name = "NAME=VALUE", action = ArgAction::Append, value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,

    /// Keep the records in this file, at its end, rather than in the target folder.
    #[arg(long, value_name = "PATH")]
    pub(crate) json: Option<PathBuf>,

    /// Run the subjects' binaries in this folder, such as an earlier build's, instead of building them.
    #[arg(long, value_name = "FOLDER")]
    pub(crate) prebuilt: Option<PathBuf>,

    /// Count instructions as well, by callgrind (which is slow, and needs valgrind).
    #[arg(long)]
    pub(crate) instructions: bool,

    /// Count calls into the system as well, by their kind, in a run of its own.
    #[arg(long)]
    pub(crate) calls: bool,

    /// Go on with a session that was cut short, whose file this is, as it began: by Ctrl-C, or when the machine went down.
    #[arg(long, value_name = "FILE", conflicts_with_all = SAID_BY_THE_FILE)]
    pub(crate) resume: Option<PathBuf>,

    /// Print what would be run and how long that would take, and measure nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// What to do instead of measuring.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Follow a scenario: a TOML file, or one of those that come with the harness (smoke, default, full, service, memory, scaling, tuned).
    Run {
        /// The file, or the name.
        scenario: String,
        #[command(flatten)]
        measure: Measure,
    },
    /// Check scenarios without running them: line and key of each mistake.
    Check {
        /// Files, or names.
        #[arg(required = true)]
        scenarios: Vec<String>,
    },
    /// Print the table of a file that an earlier session kept, or make something else of it.
    Report {
        /// A file of JSON lines; of several sessions in it the last one counts.
        file: PathBuf,
        /// What to make of it.
        #[arg(long, value_enum, default_value_t = Export::Table)]
        format: Export,
        /// Write to this file.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Say whether a change made it slower or larger, and where that comes from; exit code 1 if it did.
    Gate(Gate),
    /// Build your own program with each allocator, in copies of its sources, and compare.
    Cargo(UserCrate),
    /// Write the tables in README and docs from the records that they name.
    Tables(Tables),
    /// Sum up what a program said under FREESTONE=trace:1 or trace:2: rates, memory, what went back, anomalies.
    Trace {
        /// A log with such lines in it, whatever else is in it; - is the standard input.
        file: PathBuf,
    },
    /// Run any command on several malloc libraries, and compare its time and its memory.
    Program(Program),
    /// Run the classic allocator patterns on several malloc libraries, and compare time and memory.
    Patterns(Patterns),
    /// Read what a flight recorder wrote (`FREESTONE_RECORDER=FILE` in the program).
    #[command(subcommand)]
    Recorder(Recorder),
    /// Read heap profiles in files of pprof: name their functions, list them, draw them, compare them.
    #[command(subcommand)]
    Profile(Profile),
    /// Our own: run a command and say what it cost.
    #[command(hide = true)]
    Launch {
        /// What to preload.
        #[arg(long)]
        library: Option<PathBuf>,
        /// Where the command writes to.
        #[arg(long)]
        output: Option<PathBuf>,
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Our own: run a command and count its calls into the system.
    #[command(hide = true)]
    CountCalls {
        /// The command.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
    /// Our own: run a pattern in this process.
    #[command(hide = true)]
    Pattern {
        /// Which.
        name: String,
        /// Do so much of it only.
        #[arg(long, default_value_t = 100)]
        percent: u64,
        /// In place of its usual number of threads.
        #[arg(long)]
        threads: Option<u64>,
    },
    /// Our own: say where malloc comes from.
    #[command(hide = true)]
    Proof,
}

/// What to make of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub(crate) enum Export {
    /// The tables as they are printed.
    #[default]
    Table,
    /// The tables as Markdown.
    Markdown,
    /// A row for each sample, with all provenance.
    Csv,
    /// A matrix of rows, subjects and figures with their intervals.
    Json,
    /// Bencher Metric Format.
    Bmf,
    /// A page in one file: plots, tables that can be sorted, no need of a network.
    Html,
}

/// Which records, and where the tables are.
#[derive(Debug, Args)]
pub(crate) struct Tables {
    /// Only say whether they are as the records have it; exit code 1 if not.
    #[arg(long, conflicts_with = "keep")]
    pub(crate) check: bool,
    /// First keep the last session of this file as a record, and have the tables that wait for one of its name come from it.
    #[arg(long, value_name = "FILE")]
    pub(crate) keep: Option<PathBuf>,
    /// The name of that record; without it, that of its scenario.
    #[arg(long, requires = "keep")]
    pub(crate) name: Option<String>,
    /// The sources, with README.md, docs and bench-harness/record in it; without it, those that this folder is in.
    #[arg(long)]
    pub(crate) folder: Option<PathBuf>,
}

/// What is compared with what.
#[derive(Debug, Args)]
pub(crate) struct Gate {
    /// Before: a file of records, a folder with binaries of subjects, or a revision that git knows, which is built.
    #[arg(long, value_name = "FILE|FOLDER|REVISION")]
    pub(crate) base: String,
    /// After: likewise; without it, the tree as it is. With a file before, only instructions of a build are compared, on the rows of the file.
    #[arg(long, value_name = "FILE|FOLDER|REVISION")]
    pub(crate) new: Option<String>,
    /// How much slower, in percent, is too much.
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    pub(crate) max_slower: f64,
    /// How much more P99, in percent, is too much.
    #[arg(long, value_name = "PERCENT", default_value_t = 10.0)]
    pub(crate) max_p99: f64,
    /// How much more peak memory, in percent, is too much.
    #[arg(long, value_name = "PERCENT", default_value_t = 5.0)]
    pub(crate) max_peak: f64,
    /// How many more instructions, in percent, are too many.
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0)]
    pub(crate) max_instructions: f64,
    /// Write a comment for a pull request to this file.
    #[arg(long, value_name = "FILE")]
    pub(crate) comment: Option<PathBuf>,
    /// Count the instructions on the rows of the file that is the base anew, and put them into it; begin it where there is none.
    #[arg(long, conflicts_with_all = ["new", "comment"])]
    pub(crate) renew: bool,
    /// How to measure revisions.
    #[command(flatten)]
    pub(crate) measure: Measure,
}

/// A program of the user's own.
#[derive(Debug, Args)]
pub(crate) struct UserCrate {
    /// The binary.
    #[arg(long, value_name = "NAME")]
    pub(crate) bin: Option<String>,
    /// Its package's manifest; without it, the one of this folder.
    #[arg(long, value_name = "PATH", default_value = "Cargo.toml")]
    pub(crate) manifest_path: PathBuf,
    /// Features of the package.
    #[arg(long, value_name = "NAMES")]
    pub(crate) features: Option<String>,
    /// These subjects: system, jemalloc, mimalloc, snmalloc, freestone, or all; without it, all but snmalloc, which wants cmake.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', action = ArgAction::Append)]
    pub(crate) subjects: Vec<String>,
    #[command(flatten)]
    pub(crate) course: Course,
    /// Let the program write to this file, at its end, rather than nowhere.
    #[arg(long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,
    /// What the program gets as arguments. It reads nothing, and has the environment that you have.
    #[arg(last = true, value_name = "ARGUMENTS")]
    pub(crate) arguments: Vec<OsString>,
}

/// What to do with a recording.
#[derive(Debug, Subcommand)]
pub(crate) enum Recorder {
    /// Tell the story of the last minute: of a process that was killed, or of one that runs.
    Show {
        /// The recording.
        file: PathBuf,
        /// Tell of so much time before the end.
        #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
        seconds: u64,
    },
    /// Watch a process that runs: once a second, until q or Ctrl-C, or until it ends.
    Follow {
        /// The recording.
        file: PathBuf,
        /// Say it once.
        #[arg(long)]
        once: bool,
    },
    /// Measure what recording costs here, by the map and by `write`, in turns.
    Compare {
        /// How many turns each gets; fewer than six say nothing at 95 %.
        #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..=1000))]
        rounds: u64,
        /// Where the files are made; without it, in the folder for temporary ones.
        #[arg(long, value_name = "FOLDER")]
        folder: Option<PathBuf>,
    },
}

/// What to do with a heap profile. - is the standard input.
#[derive(Debug, Subcommand)]
pub(crate) enum Profile {
    /// Add the names of functions, with files, lines and what was inlined, from the program and its debug file.
    Name(Name),
    /// List the functions that have the most; what Rust's own library takes for a function is its own.
    Top {
        /// The profile, such as heap.pb.gz.
        file: PathBuf,
        #[command(flatten)]
        chosen: Chosen,
        /// So many functions.
        #[arg(short, value_name = "N", default_value_t = 20)]
        n: usize,
    },
    /// Print every stack as a line, as tools for flame graphs read it.
    Folded {
        /// The profile.
        file: PathBuf,
        #[command(flatten)]
        chosen: Chosen,
        /// Write to this file.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Draw a flame graph: an SVG file with search and zoom. With --base, red is what grew.
    Flamegraph {
        /// The profile.
        file: PathBuf,
        #[command(flatten)]
        chosen: Chosen,
        /// The drawing.
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// List the functions that changed most from one profile to another.
    Diff {
        /// The earlier profile.
        before: PathBuf,
        /// The later one.
        after: PathBuf,
        /// Which of their values, such as `inuse_space`.
        #[arg(long, value_name = "NAME")]
        sample: Option<String>,
        /// So many functions.
        #[arg(short, value_name = "N", default_value_t = 20)]
        n: usize,
    },
    /// Keep the names of a program's functions in a small file, so that the program can be stripped and profiles of it have names all the same.
    Symbols {
        /// The program, not stripped.
        binary: PathBuf,
        /// The file; without it, PROGRAM.symbols. The program finds it beside itself, or as `BUILD_ID.symbols` in the folder `FREESTONE_SYMBOLS`.
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
        /// Put them into the stripped program itself instead, at its end, where nothing is loaded from.
        #[arg(long, value_name = "STRIPPED", conflicts_with = "output")]
        into: Option<PathBuf>,
    },
}

/// What gets names, and from where.
#[derive(Debug, Args)]
pub(crate) struct Name {
    /// The profile, such as heap.pb.gz.
    pub(crate) file: PathBuf,
    /// The program, or a library that it has loaded, if it is not where it was when the profile was taken.
    #[arg(long, value_name = "FILE", action = ArgAction::Append)]
    pub(crate) binary: Vec<PathBuf>,
    /// A folder with debug files, besides /usr/lib/debug.
    #[arg(long, value_name = "FOLDER", action = ArgAction::Append)]
    pub(crate) debug_dir: Vec<PathBuf>,
    /// Write to this file; without it, heap.named.pb.gz beside heap.pb.gz.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Use a program that is another build than the one in the profile.
    #[arg(long)]
    pub(crate) force: bool,
}

/// What of a profile is shown.
#[derive(Debug, Args)]
pub(crate) struct Chosen {
    /// Take away what was in this earlier profile.
    #[arg(long, value_name = "FILE")]
    pub(crate) base: Option<PathBuf>,
    /// Which of its values, such as `inuse_space`; without it, the one that the profile says.
    #[arg(long, value_name = "NAME")]
    pub(crate) sample: Option<String>,
}

/// Who takes part by `LD_PRELOAD`, and how the session goes.
#[derive(Debug, Args)]
pub(crate) struct Preloads {
    /// One more subject, besides system and freestone: a malloc library, by its path or by the name that the dynamic linker knows it by, such as
    /// jemalloc=libjemalloc.so.2. As freestone it stands in for the one that is built from here.
    #[arg(long, value_name = "NAME=FILE", action = ArgAction::Append, value_parser = library)]
    pub(crate) subject: Vec<(String, String)>,

    /// Only these of the subjects, in this order.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', action = ArgAction::Append)]
    pub(crate) only: Vec<String>,

    #[command(flatten)]
    pub(crate) course: Course,
}

/// How a session on whole programs goes.
#[derive(Debug, Args)]
pub(crate) struct Course {
    /// Runs of each subject, of a command 10, of a pattern 6; fewer than six say nothing at 95 %.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(crate) repetitions: Option<u64>,

    /// Decides the order of the runs; a session prints its own.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) seed: Option<u64>,

    /// Give up on a run after this time.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub(crate) timeout: u64,

    /// Keep the records in this file, at its end, rather than in the target folder.
    #[arg(long, value_name = "PATH")]
    pub(crate) json: Option<PathBuf>,
}

/// A command on several malloc libraries.
#[derive(Debug, Args)]
pub(crate) struct Program {
    #[command(flatten)]
    pub(crate) preloads: Preloads,

    /// Let the command write to this file, at its end, rather than nowhere.
    #[arg(long, value_name = "PATH")]
    pub(crate) output: Option<PathBuf>,

    /// The command and its arguments. It reads nothing, and has the environment that you have.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// The patterns on several malloc libraries.
#[derive(Debug, Args)]
pub(crate) struct Patterns {
    /// These patterns: names, beginnings of names, or patterns with *. Without any, all of them.
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,

    #[command(flatten)]
    pub(crate) preloads: Preloads,

    /// So many threads in patterns that have several.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=256))]
    pub(crate) threads: Option<u64>,

    /// Do so much of the operations only, for a quick look.
    #[arg(long, value_name = "PERCENT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) percent: u64,

    /// Set a variable for the patterns, which otherwise run with none.
    #[arg(long, value_name = "NAME=VALUE", action = ArgAction::Append, value_parser = variable)]
    pub(crate) env: Vec<(String, String)>,

    /// List the patterns, and measure nothing.
    #[arg(long)]
    pub(crate) list: bool,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned())).ok_or_else(|| "it is not of the form NAME=VALUE".to_owned())
}

fn library(text: &str) -> Result<(String, String), String> {
    let is_name = |name: &str| !name.is_empty() && !name.contains([' ', ',']);
    let pair = text.split_once('=').filter(|(name, file)| is_name(name) && !file.is_empty());
    pair.map(|(name, file)| (name.to_owned(), file.to_owned())).ok_or_else(|| "it is not of the form NAME=FILE".to_owned())
}

/// What clap has to complain about, without its title, tips and usage, in one line.
pub(crate) fn sentence(error: &clap::Error) -> String {
    let text = error.to_string();
    let paragraph = text.trim_start_matches("error: ").split("\n\n").next().unwrap_or_default();
    let words: Vec<&str> = paragraph.split_whitespace().collect();
    format!("{}; --help shows what there is", words.join(" "))
}

/// The names that somebody wants of all that there are: those that match what was typed, or else those that begin so.
pub(crate) fn found<'a>(wanted: &str, all: &[&'a str]) -> Vec<&'a str> {
    let matching = |pattern: &str| all.iter().copied().filter(|name| matches(pattern, name)).collect::<Vec<_>>();
    let exact = matching(wanted);
    if exact.is_empty() && !wanted.is_empty() { matching(&format!("{wanted}*")) } else { exact }
}

/// Does a name match a pattern: the whole of it, or with `*` for anything?
pub(crate) fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut rest) = name.strip_prefix(head) else { return false };
    let (middle, last) = tail.rsplit_once('*').unwrap_or(("", tail));
    // Where a part is found first, most is left for the others; so nothing has to be tried twice.
    for part in middle.split('*') {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::{Arguments, matches};
    use clap::CommandFactory;

    #[test]
    fn the_command_line_makes_sense_to_clap() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn stars_stand_for_anything() {
        assert!(matches("random-*", "random-1k"));
        assert!(matches("*-read", "random-1k-read"));
        assert!(matches("r*1*read", "random-1k-read"));
        assert!(matches("*", "hot-64"));
        assert!(matches("*", ""));
        assert!(!matches("a*a", "a"));
        assert!(!matches(&("*".repeat(100_000) + "x"), "random-1k-read"));
        assert!(!matches("hot", "hot-64"));
        assert!(!matches("*-read", "random-1k"));
    }
}
