//! Profiles as JSON documents, `freestone-profile/1`: `docs/json.md` tells every key.
//!
//! ```
//! use freestone_stats::profile::{self, Context, Kind, json::Document};
//!
//! let text = profile::take(Kind::Heap).json(&mut Context::default());
//! let document = Document::parse(&text).expect("what was written can be read");
//! assert_eq!(document.kind, "heap");
//! ```
//!
//! A reader of this version accepts documents with keys that it does not know, and takes keys that are missing for zero or nothing.

use std::fmt;
use std::time::UNIX_EPOCH;

use serde::{Deserialize, Serialize};

use super::labels::call_of;
use super::{Context, Kind, Profile};

/// What documents of this format say of themselves. The number goes up when a key changes its meaning or goes away, not when one is added.
pub const FORMAT: &str = "freestone-profile/1";

/// The whole document.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Document {
    /// [`FORMAT`].
    pub format: String,
    /// What it is about: [`Kind::name`].
    pub kind: String,
    /// When it was taken, in milliseconds since 1970.
    pub taken_unix_ms: u64,
    /// Of a difference between two profiles: how long it was between them.
    pub duration_seconds: Option<f64>,
    /// The columns, in the order of [`Row::values`].
    pub columns: Vec<Column>,
    /// The column that is shown unless somebody chooses: an index of `columns`.
    pub default_column: u64,
    /// All samples together.
    pub samples: Samples,
    /// Files with code.
    pub mappings: Vec<Mapping>,
    /// Places in the code.
    pub frames: Vec<Frame>,
    /// Stacks and their values.
    pub rows: Vec<Row>,
    /// What it stands on and what is missing, for people.
    pub notes: Vec<String>,
}

/// A column.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Column {
    /// `inuse_space`.
    pub name: String,
    /// `bytes`, `count` or `nanoseconds`.
    pub unit: String,
    /// It only grows; others are of a moment.
    pub is_cumulative: bool,
    /// The sum of all rows: an estimate.
    pub total: f64,
    /// Its standard error.
    pub total_error: f64,
    /// What was counted exactly. `None`: nobody counts that.
    pub exact: Option<i64>,
}

/// All samples together, at the moment that the profile was taken: see [`freestone::profile::ProfileSummary`].
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Samples {
    /// Bytes between two samples, on average; 0: sampling is off, 1: every allocation is a sample.
    pub interval_bytes: u64,
    /// Samples so far.
    pub samples: u64,
    /// Ends of samples that were seen.
    pub ends: u64,
    /// Samples whose end nobody will see.
    pub untracked: u64,
    /// Samples that were not recorded.
    pub lost: u64,
    /// Call sites that are known.
    pub sites: u64,
    /// Call sites that were forgotten.
    pub forgotten_sites: u64,
    /// Stacks that were cut off.
    pub cut_stacks: u64,
    /// Stacks of which only the innermost frame could be had.
    pub failed_stacks: u64,
    /// What samples and sites take.
    pub memory_bytes: u64,
    /// What the heap held for blocks when live bytes were highest.
    pub peak_held_bytes: u64,
}

/// A file with code.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Mapping {
    /// Its first address: `0x55d0c0de1000`.
    pub start: String,
    /// The address behind its last.
    pub end: String,
    /// Where in the file it begins, in bytes.
    pub offset_bytes: u64,
    /// The file.
    pub path: String,
    /// Its GNU build id.
    pub build_id: Option<String>,
}

/// A place in the code.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Frame {
    /// The address of the call: the return address less one.
    pub address: String,
    /// The file it lies in: an index of `mappings`.
    pub mapping: Option<u64>,
    /// Functions, the innermost first; more than one where calls were inlined, none where nothing is known.
    pub functions: Vec<Function>,
}

/// A function at a place.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Function {
    /// What it is called.
    pub name: String,
    /// The file it was written in.
    pub file: Option<String>,
    /// The line of that file.
    pub line: Option<u32>,
}

/// A stack and its values.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Row {
    /// Tells it from all others of the process.
    pub id: u64,
    /// The tag it was allocated under.
    pub tag: Option<String>,
    /// Bytes of each of its blocks. `None`: they differ, or it is not about blocks.
    pub block_bytes: Option<u64>,
    /// Samples that the values stand on.
    pub samples: u64,
    /// Estimates.
    pub values: Vec<f64>,
    /// Their standard errors.
    pub errors: Vec<f64>,
    /// The stack, innermost first: indices of `frames`.
    pub frames: Vec<u32>,
    /// The end of the stack is missing.
    pub is_cut: bool,
    /// Samples that ended, by how long they had lived: up to 1 µs, and four times as long each. Only of lifetimes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lifetimes: Option<Vec<u32>>,
    /// Why threads waited. Only of contention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stall: Option<Stall>,
}

/// Why threads waited.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
#[non_exhaustive]
pub struct Stall {
    /// `lock` or `slow_path`.
    pub kind: String,
    /// The longest time.
    pub longest_ns: u64,
}

/// What is wrong with a document, in a sentence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl Profile {
    /// Everything as one document: see [`json`](self).
    #[must_use]
    pub fn json(&self, context: &mut Context<'_>) -> String {
        freestone::profile::without_samples(|| Document::of(self, context).to_json())
    }
}

impl Document {
    /// A profile in the document's words.
    #[must_use]
    pub fn of(profile: &Profile, context: &mut Context<'_>) -> Self {
        let mut writing = Writing { profile, number_of: vec![None; profile.addresses().len()], frames: Vec::new() };
        let rows = profile.rows.iter().map(|row| writing.row(row, context)).collect();
        Self {
            format: FORMAT.to_owned(),
            kind: profile.kind.name().to_owned(),
            taken_unix_ms: profile.taken.duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_millis() as u64),
            duration_seconds: profile.duration.map(|duration| duration.as_secs_f64()),
            columns: columns(profile),
            default_column: profile.kind.default_value() as u64,
            samples: Samples::of(profile),
            mappings: context.mappings.iter().map(Mapping::of).collect(),
            frames: writing.frames,
            rows,
            notes: profile.notes(),
        }
    }

    /// The kind of profile it is of, if this version knows it.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        Kind::of_name(&self.kind)
    }

    /// As text, in one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Keys are strings and numbers are finite, so this cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads a document.
    ///
    /// # Errors
    ///
    /// If it is none, of another version, or refers to what it does not have.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let document: Self = serde_json::from_str(text).map_err(|error| Error(format!("this is no profile: {error}")))?;
        match document.format.as_str() {
            FORMAT => {}
            "" => return Err(Error("this is no profile: it does not say its format".to_owned())),
            other => return Err(Error(format!("this profile is of the format {other}; {FORMAT} can be read"))),
        }
        document.check()?;
        Ok(document)
    }

    fn check(&self) -> Result<(), Error> {
        let columns = self.columns.len();
        let broken = |what: String| Err(Error(format!("this profile is damaged: {what}")));
        for row in &self.rows {
            if row.values.len() != columns || row.errors.len() != columns {
                return broken(format!("a row has {} values where there are {columns} columns", row.values.len()));
            }
            if let Some(frame) = row.frames.iter().find(|&&frame| frame as usize >= self.frames.len()) {
                return broken(format!("it has no frame {frame}"));
            }
        }
        let mut mappings = self.frames.iter().filter_map(|frame| frame.mapping);
        if let Some(mapping) = mappings.find(|&mapping| mapping >= self.mappings.len() as u64) {
            return broken(format!("it has no mapping {mapping}"));
        }
        Ok(())
    }
}

fn columns(profile: &Profile) -> Vec<Column> {
    let types = profile.kind.value_types().iter().enumerate();
    types
        .map(|(value, of)| Column {
            name: of.name.to_owned(),
            unit: of.unit.to_owned(),
            is_cumulative: profile.kind.is_cumulative(value),
            total: finite(profile.total(value)),
            total_error: finite(profile.total_error(value)),
            exact: profile.exact.totals[value],
        })
        .collect()
}

impl Samples {
    fn of(profile: &Profile) -> Self {
        let summary = &profile.summary;
        Self {
            interval_bytes: summary.interval as u64,
            samples: summary.samples,
            ends: summary.ends,
            untracked: summary.untracked,
            lost: summary.lost,
            sites: summary.sites as u64,
            forgotten_sites: summary.forgotten_sites,
            cut_stacks: summary.cut_stacks,
            failed_stacks: summary.failed_stacks,
            memory_bytes: summary.memory_bytes as u64,
            peak_held_bytes: summary.peak_held_bytes as u64,
        }
    }
}

impl Mapping {
    fn of(mapping: &crate::names::Mapping) -> Self {
        Self {
            start: format!("{:#x}", mapping.start),
            end: format!("{:#x}", mapping.end),
            offset_bytes: mapping.file_offset,
            path: mapping.path.to_string_lossy().into_owned(),
            build_id: mapping.build_id.clone(),
        }
    }
}

/// Frames get their numbers while rows are written: those that no row has are not in the document.
struct Writing<'a> {
    profile: &'a Profile,
    number_of: Vec<Option<u32>>,
    frames: Vec<Frame>,
}

impl Writing<'_> {
    fn row(&mut self, row: &super::Row, context: &mut Context<'_>) -> Row {
        let (profile, columns) = (self.profile, self.profile.kind.value_types().len());
        let finite = |numbers: &[f64]| numbers[..columns].iter().copied().map(finite).collect();
        Row {
            id: row.id,
            tag: (row.tag > 0).then(|| context.tag(row.tag)),
            block_bytes: (row.block_bytes > 0).then_some(row.block_bytes as u64),
            samples: row.samples,
            values: finite(&row.values),
            errors: finite(&row.errors),
            frames: profile.frame_indices(row).map(|index| self.frame(index, context)).collect(),
            is_cut: profile.is_cut(row),
            lifetimes: profile.lifetimes(row).map(|histogram| histogram.to_vec()),
            stall: profile
                .stall(row)
                .map(|stall| Stall { kind: stall.name().to_owned(), longest_ns: stall.longest.as_nanos() as u64 }),
        }
    }

    /// The number of an address in the document.
    fn frame(&mut self, index: usize, context: &mut Context<'_>) -> u32 {
        if let Some(number) = self.number_of[index] {
            return number;
        }
        let address = call_of(self.profile.addresses()[index]);
        let functions = context.known(address).into_iter();
        self.frames.push(Frame {
            address: format!("{address:#x}"),
            mapping: context.mapping_index(address).map(|index| index as u64),
            functions: functions.map(|frame| Function { name: frame.function, file: frame.file, line: frame.line }).collect(),
        });
        let number = (self.frames.len() - 1) as u32;
        self.number_of[index] = Some(number);
        number
    }
}

/// JSON has no others.
fn finite(number: f64) -> f64 {
    if number.is_finite() { number } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{towers, towers_names};
    use super::super::{Builder, Row as ProfileRow, StallKind, take};
    use super::*;

    #[test]
    fn a_document_is_read_back_as_it_was() {
        let mut names = towers_names;
        let document = Document::of(&towers(), &mut Context { namer: Some(&mut names), ..Context::default() });
        let text = document.to_json();
        assert_eq!(Document::parse(&text).expect("what was written can be read"), document);
        assert!(!text.contains('\n'), "{text}");
        assert_eq!(document.kind(), Some(Kind::Heap));
        assert_eq!(document.columns[3].exact, Some(5_242_944));
        assert_eq!(document.rows[2].frames.len(), 3);
        let innermost = &document.frames[document.rows[2].frames[0] as usize];
        assert_eq!(innermost.address, "0x4fff");
        assert_eq!(
            innermost.functions.iter().map(|function| &*function.name).collect::<Vec<_>>(),
            ["<[u8; 4] as tower::Stone>::cut", "tower::floor"]
        );
        assert!(document.rows[3].is_cut);
        assert_eq!(document.rows[1].tag.as_deref(), Some("7"));
        for kind in Kind::ALL {
            let text = take(kind).json(&mut Context::default());
            assert_eq!(Document::parse(&text).expect("what was written can be read").kind(), Some(kind));
        }
    }

    /// The document as others read it: if this changes, its version does, unless something came to it.
    #[test]
    fn the_format_is_what_it_was() {
        let mut builder = Builder::new(Kind::Contention);
        let row = ProfileRow::new(9, 2, [2.0, 3e6, 0.0, 0.0], [0.0; 4]);
        builder.push_stall(row, &[0x10], StallKind::SlowPath, std::time::Duration::from_millis(2));
        let mut profile = builder.finish();
        profile.taken = UNIX_EPOCH + std::time::Duration::from_secs(5);
        let expected =
            r#"{"format":"freestone-profile/1","kind":"contention","taken_unix_ms":5000,"duration_seconds":null,"columns":["#
                .to_owned()
                + r#"{"name":"contentions","unit":"count","is_cumulative":true,"total":2.0,"total_error":0.0,"exact":null},"#
                + r#"{"name":"delay","unit":"nanoseconds","is_cumulative":true,"total":3000000.0,"total_error":0.0,"exact":null}],"#
                + r#""default_column":1,"samples":{"interval_bytes":0,"samples":0,"ends":0,"untracked":0,"lost":0,"sites":0,"#
                + r#""forgotten_sites":0,"cut_stacks":0,"failed_stacks":0,"memory_bytes":0,"peak_held_bytes":0},"mappings":[],"#
                + r#""frames":[{"address":"0xf","mapping":null,"functions":[]}],"rows":[{"id":9,"tag":null,"block_bytes":null,"samples":2,"#
                + r#""values":[2.0,3000000.0],"errors":[0.0,0.0],"frames":[0],"is_cut":false,"stall":{"kind":"slow_path","longest_ns":2000000}}],"#
                + &format!(
                    r#""notes":["freestone {}: contention","contentions: 2 count","delay: 3000000 nanoseconds"]}}"#,
                    env!("CARGO_PKG_VERSION")
                );
        assert_eq!(profile.json(&mut Context::default()), expected);
    }

    #[test]
    fn what_is_no_profile_is_told_in_a_sentence() {
        let says = |text: &str| Document::parse(text).expect_err(text).to_string();
        assert!(says("").starts_with("this is no profile: EOF"), "{}", says(""));
        assert_eq!(says("{}"), "this is no profile: it does not say its format");
        assert_eq!(
            says(r#"{"format":"freestone-profile/2"}"#),
            "this profile is of the format freestone-profile/2; freestone-profile/1 can be read"
        );
        let damaged = |rest: &str| says(&format!(r#"{{"format":"freestone-profile/1",{rest}}}"#));
        assert_eq!(damaged(r#""rows":[{"frames":[3]}]"#), "this profile is damaged: it has no frame 3");
        assert_eq!(damaged(r#""frames":[{"mapping":1}]"#), "this profile is damaged: it has no mapping 1");
        assert_eq!(
            damaged(r#""rows":[{"values":[1]}]"#),
            "this profile is damaged: a row has 1 values where there are 0 columns"
        );
    }
}
