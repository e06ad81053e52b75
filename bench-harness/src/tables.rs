//! The verb `tables`: writes the tables in README and docs from the records that they name, or says where they differ; and keeps a session as a
//! record.
//!
//! A table stands between two comments, each a line of its own:
//!
//! ```text
//! <!-- table: record=bench-harness/record/…/full.jsonl what=comparison rows=real-*,hot-64 -->
//! (the table, and where it comes from)
//! <!-- end of table -->
//! ```
//!
//! `record=pending:full` waits for a record of that name: what stands there is left alone until one is kept. What is in a fenced block of code
//! is no comment. The words of a table are those of [`excerpt`](crate::report::excerpt).

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::arguments::Tables;
use crate::plain::tamed;
use crate::record::{Keeper, Kept, Kind, Measurement, Outcome, Record, Session, thinned};
use crate::report::{Format, Wanted, excerpt, source};
use crate::{Ending, Misuse};

/// Where records lie, seen from the root of the sources.
const RECORDS: &str = "bench-harness/record";

const BEGIN: &str = "<!-- table:";
const END: &str = "<!-- end of table -->";
const PENDING: &str = "pending:";

/// Keeps a session if asked for, then writes the tables, or only says whether they are right.
pub(crate) fn obey(asked: &Tables) -> Result<Ending> {
    let root = match &asked.folder {
        Some(folder) => folder.clone(),
        None => root()?,
    };
    let mut texts = Texts::read(&root)?;
    if let Some(file) = &asked.keep {
        let record = keep(&root, file, asked.name.as_deref())?;
        println!("kept as {record}");
        texts.name(&record);
    }
    if asked.check { texts.check(&root) } else { texts.write(&root) }
}

/// The folder above this one in which records lie.
fn root() -> Result<PathBuf> {
    let here = env::current_dir().context("cannot tell where this is")?;
    let found = here.ancestors().find(|folder| folder.join(RECORDS).is_dir());
    found
        .map(Path::to_owned)
        .ok_or_else(|| Misuse(format!("there is no {RECORDS} here or above; --folder says where the sources are")).into())
}

/// A comment that asks for a table, and where the table is.
#[derive(Debug)]
struct Block {
    /// Of the comment, from 1.
    line: usize,
    /// Of the end.
    end: usize,
    record: String,
    wanted: Wanted,
}

/// A file of Markdown.
#[derive(Debug)]
struct Text {
    /// Seen from the root.
    path: PathBuf,
    before: String,
    now: String,
}

/// All files in which there may be tables.
struct Texts(Vec<Text>);

impl Texts {
    /// Those beside the root's README, and all below `docs`.
    fn read(root: &Path) -> Result<Self> {
        let mut paths = Vec::new();
        list(root, Path::new(""), false, &mut paths)?;
        list(root, Path::new("docs"), true, &mut paths)?;
        paths.sort();
        let read = |path: PathBuf| {
            let text = fs::read_to_string(root.join(&path)).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(Text { path, before: text.clone(), now: text })
        };
        Ok(Self(paths.into_iter().map(read).collect::<Result<_>>()?))
    }

    /// Has tables that wait for this record, or come from an older one of its name and machine, come from it; links beside them too.
    fn name(&mut self, record: &str) {
        let Some((machine, name)) = parts(record) else { return };
        for text in &mut self.0 {
            let pending = format!("record={PENDING}{} ", name.trim_end_matches(".jsonl"));
            text.now = text.now.replace(&pending, &format!("record={record} "));
            let older: Vec<String> =
                mentions(&text.now).map(|(_, its)| its.to_owned()).filter(|its| parts(its) == Some((machine, name))).collect();
            for its in older {
                text.now = text.now.replace(&its, record);
            }
        }
    }

    /// Every table anew.
    fn renew(&mut self, root: &Path) -> Result<()> {
        let mut records: BTreeMap<String, Kept> = BTreeMap::new();
        for text in &mut self.0 {
            let (path, file) = (text.path.clone(), text.path.display().to_string());
            let mut blocks = blocks(&file, &text.now)?;
            // From the end, so that the lines of those before stay where they are.
            while let Some(block) = blocks.pop() {
                if let Some(name) = block.record.strip_prefix(PENDING) {
                    eprintln!("{file}:{}: no record is kept as '{name}' yet, so nothing proves this table", block.line);
                    continue;
                }
                if !records.contains_key(&block.record) {
                    let kept = Kept::read(&root.join(&block.record)).with_context(|| format!("{file}:{}", block.line))?;
                    records.insert(block.record.clone(), tamed(&kept, Format::Markdown));
                }
                let kept = &records[&block.record];
                let table = excerpt(kept, &block.wanted).map_err(|reason| Misuse(format!("{file}:{}: {reason}", block.line)))?;
                let up = "../".repeat(path.components().count().saturating_sub(1));
                let source = source(kept, &format!("{up}{}", block.record));
                let mut lines: Vec<&str> = text.now.lines().collect();
                let table = format!("{table}\n{source}");
                lines.splice(block.line..block.end - 1, [&*table]);
                text.now = lines.join("\n") + "\n";
            }
        }
        Ok(())
    }

    fn write(mut self, root: &Path) -> Result<Ending> {
        self.renew(root)?;
        for text in self.0.iter().filter(|text| text.now != text.before) {
            let put = |unfinished: &Path| Ok(fs::write(unfinished, &text.now)?);
            replaced(&root.join(&text.path), put).with_context(|| format!("cannot write {}", text.path.display()))?;
            println!("wrote {}", text.path.display());
        }
        Ok(Ending::Well)
    }

    fn check(mut self, root: &Path) -> Result<Ending> {
        let mut ending = Ending::Well;
        for text in &self.0 {
            for (line, record) in mentions(&text.before) {
                if !root.join(record).is_file() {
                    eprintln!("{}:{line}: there is no {record}", text.path.display());
                    ending = Ending::No;
                }
            }
        }
        if ending == Ending::No {
            return Ok(ending);
        }
        self.renew(root)?;
        for text in &self.0 {
            let mut lines = text.before.lines().zip(text.now.lines()).enumerate();
            let first = lines.find(|(_, (before, now))| before != now).map(|(index, _)| index + 1);
            if text.before != text.now {
                let line = first.unwrap_or_else(|| text.before.lines().count().min(text.now.lines().count()) + 1);
                eprintln!(
                    "{}:{line}: this is not what the record says; `freestone-bench tables` writes it anew",
                    text.path.display()
                );
                ending = Ending::No;
            }
        }
        Ok(ending)
    }
}

fn list(root: &Path, folder: &Path, deep: bool, paths: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match fs::read_dir(root.join(folder)) {
        // Sources without docs have no tables there.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && deep => return Ok(()),
        entries => entries.with_context(|| format!("cannot read {}", root.join(folder).display()))?,
    };
    for entry in entries {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            if deep {
                list(root, &path, deep, paths)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            paths.push(path);
        }
    }
    Ok(())
}

/// Lines outside of code, with their numbers from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut in_code = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        (!in_code && !is_fence).then_some((index + 1, line))
    })
}

/// Every record that is named somewhere, with the line.
fn mentions(text: &str) -> impl Iterator<Item = (usize, &str)> {
    prose(text).flat_map(|(number, line)| {
        line.match_indices(RECORDS).filter_map(move |(at, _)| {
            let rest = &line[at..];
            let end = rest.find(".jsonl")? + ".jsonl".len();
            let path = &rest[..end];
            let is_plain = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/.-_".contains(&byte));
            // What else lies there, such as the baseline of a gate, is no reference run.
            (is_plain && parts(path).is_some()).then_some((number, path))
        })
    })
}

/// The machine and the name of a record, of `bench-harness/record/<machine>/<date>/<name>`.
fn parts(record: &str) -> Option<(&str, &str)> {
    let mut rest = record.strip_prefix(RECORDS)?.strip_prefix('/')?.split('/');
    let (machine, _, name) = (rest.next()?, rest.next()?, rest.next()?);
    rest.next().is_none().then_some((machine, name))
}

fn blocks(file: &str, text: &str) -> Result<Vec<Block>> {
    let mut blocks: Vec<Block> = Vec::new();
    for (line, words) in prose(text) {
        let is_open = blocks.last().is_some_and(|block| block.end == 0);
        if words.starts_with(BEGIN) {
            ensure!(!is_open, Misuse(format!("{file}:{line}: a table begins within another")));
            let (record, wanted) = comment(words).map_err(|reason| Misuse(format!("{file}:{line}: {reason}")))?;
            blocks.push(Block { line, end: 0, record, wanted });
        } else if words.trim_end() == END {
            match blocks.last_mut() {
                Some(block) if is_open => block.end = line,
                _ => bail!(Misuse(format!("{file}:{line}: a table ends that did not begin"))),
            }
        }
    }
    if let Some(block) = blocks.last().filter(|block| block.end == 0) {
        bail!(Misuse(format!("{file}:{}: this table does not end; the line '{END}' is missing", block.line)));
    }
    Ok(blocks)
}

/// What a comment asks for; or the end of a sentence.
fn comment(words: &str) -> Result<(String, Wanted), String> {
    let inside = words
        .strip_prefix(BEGIN)
        .and_then(|rest| rest.trim_end().strip_suffix("-->"))
        .ok_or("the comment has to end in the same line")?;
    let (mut record, mut wanted) = (None, Wanted::default());
    for word in inside.split_whitespace() {
        let (key, value) = word.split_once('=').ok_or_else(|| format!("'{word}' is not of the form key=value"))?;
        match key {
            "record" => record = Some(value.to_owned()),
            "what" => value.clone_into(&mut wanted.what),
            "rows" => wanted.rows = value.split(',').map(str::to_owned).collect(),
            "figure" => wanted.figure = Some(value.to_owned()),
            "second" => wanted.second = Some(value.parse().map_err(|_| format!("second={value} is no number"))?),
            _ => return Err(format!("there is no '{key}'; there are record, what, rows, figure, second")),
        }
    }
    let record = record.ok_or("record= is missing")?;
    if !record.starts_with(PENDING) && (parts(&record).is_none() || record.contains("..")) {
        return Err(format!("record={record} is not of the form {RECORDS}/MACHINE/DATE/NAME.jsonl"));
    }
    if wanted.what.is_empty() { Err("what= is missing".to_owned()) } else { Ok((record, wanted)) }
}

/// Keeps the last session of a file as a record, and returns its path from the root.
fn keep(root: &Path, file: &Path, name: Option<&str>) -> Result<String> {
    let mut kept = Kept::read(file)?;
    let session = &kept.session;
    let kind = match session.kind {
        Kind::Workloads => "workloads",
        Kind::Program => "program",
        Kind::Patterns => "patterns",
    };
    let name = name.or(session.scenario.as_deref()).unwrap_or(kind);
    let is_plain =
        |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    ensure!(
        is_plain(name),
        Misuse(format!("'{name}' is no name for a record: letters, digits, - and _; --name gives it another"))
    );
    let date = session.date.get(..10).filter(|date| is_plain(date));
    let date = date.ok_or_else(|| anyhow!("{} has a session without a date: '{}'", file.display(), session.date))?;
    ensure!(kept.end.is_some(), "{} holds a session that was cut short, which is no reference", file.display());
    let record = format!("{RECORDS}/{}/{date}/{name}.jsonl", slug(&kept));
    compact(&mut kept);
    let Session { arguments, environment, .. } = &mut kept.session;
    for word in arguments.iter_mut().chain(environment) {
        *word = without_folders(word);
    }
    let path = root.join(&record);
    let folder = path.parent().unwrap_or(root);
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let put = |unfinished: &Path| {
        let mut keeper = Keeper::open(unfinished.to_owned())?;
        keeper.keep(&Record::Session(kept.session))?;
        for run in kept.runs {
            keeper.keep(&Record::Run(run))?;
        }
        kept.end.map_or(Ok(()), |end| keeper.keep(&Record::End(end)))
    };
    replaced(&path, put).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(record)
}

/// Puts a file in the place of what is there: all of it, or nothing.
pub(crate) fn replaced(path: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.unfinished", std::process::id()));
    let unfinished = path.with_file_name(name);
    let put = write(&unfinished).and_then(|()| Ok(fs::rename(&unfinished, path)?));
    if put.is_err() {
        // It is not there, or nobody needs it.
        let _ = fs::remove_file(&unfinished);
    }
    put
}

/// The machine as a folder: `amd-epyc-2-cores-virtual`.
fn slug(kept: &Kept) -> String {
    const NOISE: [&str; 4] = ["r", "tm", "cpu", "processor"];
    let machine = &kept.session.machine;
    let words = machine.cpu.to_lowercase();
    let words =
        words.split(|letter: char| !letter.is_ascii_alphanumeric()).filter(|word| !word.is_empty() && !NOISE.contains(word));
    let mut slug = words.collect::<Vec<_>>().join("-");
    if slug.is_empty() {
        "unknown".clone_into(&mut slug);
    }
    let _ = write!(slug, "-{}-core{}", machine.cores, if machine.cores == 1 { "" } else { "s" });
    if machine.is_virtual {
        slug += "-virtual";
    }
    slug
}

/// So many samples of what was resident are kept of a run.
const SAMPLES_MAX: usize = 120;

/// What makes a record large is what was resident over time, which is only drawn, of one run in each row and subject. The others lose it.
fn compact(kept: &mut Kept) {
    let mut watched: BTreeMap<(String, String), Vec<(u64, u64)>> = BTreeMap::new();
    for run in &kept.runs {
        let Outcome::Measured(Measurement { resident, peak_rss_bytes, .. }) = &run.outcome else { continue };
        if !resident.is_empty() {
            watched.entry((run.workload.clone(), run.subject.clone())).or_default().push((*peak_rss_bytes, run.round));
        }
    }
    for runs in watched.values_mut() {
        runs.sort_unstable();
    }
    for run in &mut kept.runs {
        let Outcome::Measured(measurement) = &mut run.outcome else { continue };
        let middle = watched.get(&(run.workload.clone(), run.subject.clone())).and_then(|runs| runs.get(runs.len() / 2));
        if middle.is_some_and(|(_, round)| *round == run.round) {
            measurement.resident = thinned(&measurement.resident, SAMPLES_MAX);
        } else {
            measurement.resident.clear();
        }
    }
}

/// Where the files of whoever made a record lay is nobody's business: of paths from the root the last part stays, behind a `=` too.
fn without_folders(word: &str) -> String {
    let (name, value) = word.rsplit_once('=').map_or(("", word), |(name, value)| (&word[..=name.len()], value));
    if !value.starts_with('/') {
        return word.to_owned();
    }
    let last =
        |path: &str| Path::new(path).file_name().map_or_else(|| path.to_owned(), |last| last.to_string_lossy().into_owned());
    let paths: Vec<String> = value.split(':').map(last).collect();
    format!("{name}{}", paths.join(":"))
}

#[cfg(test)]
mod tests {
    use super::{blocks, comment, mentions, parts, without_folders};

    #[test]
    fn of_a_path_from_the_root_the_last_part_stays() {
        for (word, shown) in [
            ("/home/me/secret/full.jsonl", "full.jsonl"),
            ("--json=/home/me/full.jsonl", "--json=full.jsonl"),
            ("LD_PRELOAD=/opt/a.so:/home/me/b.so", "LD_PRELOAD=a.so:b.so"),
            ("mimalloc=/opt/lib.so", "mimalloc=lib.so"),
            ("https://some.where/else", "https://some.where/else"),
            ("target/full.jsonl", "target/full.jsonl"),
            ("grpc streams=128", "grpc streams=128"),
            ("--with=", "--with="),
            ("/", "/"),
            ("", ""),
        ] {
            assert_eq!(without_folders(word), shown);
        }
    }

    #[test]
    fn comments_say_what_is_wrong_with_them() {
        let of = |words: &str| comment(words).expect_err("it is wrong");
        assert_eq!(of("<!-- table: what=score -->"), "record= is missing");
        assert_eq!(of("<!-- table: record=pending:full -->"), "what= is missing");
        assert_eq!(of("<!-- table: record=pending:full what=score rows -->"), "'rows' is not of the form key=value");
        assert_eq!(
            of("<!-- table: record=/etc/passwd what=score -->"),
            "record=/etc/passwd is not of the form bench-harness/record/MACHINE/DATE/NAME.jsonl"
        );
        assert_eq!(of("<!-- table: record=pending:full what=score"), "the comment has to end in the same line");
        assert_eq!(
            of("<!-- table: record=pending:full whom=score -->"),
            "there is no 'whom'; there are record, what, rows, figure, second"
        );
    }

    #[test]
    fn code_holds_no_tables_and_tables_end() {
        let comment = "<!-- table: record=pending:full what=score -->\n";
        assert!(blocks("a.md", &format!("```text\n{comment}```\n")).expect("it is code").is_empty());
        let found = blocks("a.md", &format!("x\n{comment}old\n<!-- end of table -->\n")).expect("it is a table");
        assert_eq!((found[0].line, found[0].end), (2, 4));
        for (text, said) in [
            (format!("x\n{comment}"), "a.md:2: this table does not end; the line '<!-- end of table -->' is missing"),
            (format!("{comment}{comment}"), "a.md:2: a table begins within another"),
            ("<!-- end of table -->\n".to_owned(), "a.md:1: a table ends that did not begin"),
        ] {
            assert_eq!(blocks("a.md", &text).expect_err("it is wrong").to_string(), said);
        }
    }

    #[test]
    fn records_are_found_where_they_are_named() {
        let text = "[a](../bench-harness/record/m/2026-01-01/full.jsonl), and\n```\nbench-harness/record/m/x/y.jsonl\n```\nbench-harness/record/…/z.jsonl";
        assert_eq!(mentions(text).collect::<Vec<_>>(), [(1, "bench-harness/record/m/2026-01-01/full.jsonl")]);
        assert_eq!(parts("bench-harness/record/m/2026-01-01/full.jsonl"), Some(("m", "full.jsonl")));
        assert_eq!(parts("bench-harness/record/m/full.jsonl"), None);
    }
}
