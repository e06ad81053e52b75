//! Profiles as pprof's messages, one by one right into gzip: a profile of 100,000 stacks would take a hundred megabytes as one message.
//!
//! A message of protobuf is the concatenation of its parts, in any order. So every part is encoded as a `Profile` that has only this part: samples first, then
//! what they refer to, and last the strings that all have used.

use std::collections::HashMap;
use std::io::{self, Write};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;
use prost::Message as _;

use super::proto;
use crate::profile::labels::call_of;
use crate::profile::{Context, Frame, Kind, Profile, Row};

/// Encoded bytes that are compressed at once.
const BUFFER_BYTES: usize = 32 << 10;

/// Where to read about it.
const DOC_URL: &str = "https://docs.rs/freestone-stats/latest/freestone_stats/profile/";

impl Profile {
    /// The profile as pprof's `.pb.gz`. With a namer in `context` it has names; without, whoever reads it looks them up.
    #[must_use]
    pub fn pprof(&self, context: &mut Context<'_>) -> Vec<u8> {
        freestone::profile::without_samples(|| {
            let mut bytes = Vec::new();
            // A vector takes everything.
            let _ = self.write_pprof(&mut bytes, context);
            bytes
        })
    }

    /// The same, into a file or a connection, as it comes.
    ///
    /// # Errors
    ///
    /// Those of `to`.
    pub fn write_pprof(&self, to: impl Write, context: &mut Context<'_>) -> io::Result<()> {
        freestone::profile::without_samples(|| Encoder::new(self, context, to).write())
    }
}

/// Writes a profile that was read, as gzip: names may have been added to it meanwhile.
#[must_use]
pub fn encode(profile: &proto::Profile) -> Vec<u8> {
    let mut to = GzEncoder::new(Vec::new(), Compression::fast());
    // A vector takes everything.
    let _ = to.write_all(&profile.encode_to_vec());
    to.finish().unwrap_or_default()
}

/// Strings, each once; the first is empty.
struct Strings {
    all: Vec<Rc<str>>,
    indices: HashMap<Rc<str>, i64>,
}

impl Strings {
    fn new() -> Self {
        let mut strings = Self { all: Vec::new(), indices: HashMap::new() };
        strings.index("");
        strings
    }

    fn index(&mut self, string: &str) -> i64 {
        if let Some(&index) = self.indices.get(string) {
            return index;
        }
        let (index, string) = (self.all.len() as i64, Rc::<str>::from(string));
        self.all.push(Rc::clone(&string));
        self.indices.insert(string, index);
        index
    }

    fn value_type(&mut self, name: &str, unit: &str) -> proto::ValueType {
        proto::ValueType { r#type: self.index(name), unit: self.index(unit) }
    }
}

/// What is known of a mapping while locations are written.
#[derive(Clone, Copy, Default)]
struct Named {
    locations: usize,
    functions: usize,
    files: usize,
    lines: usize,
    inlined: usize,
}

struct Encoder<'a, 'b, W: Write> {
    profile: &'a Profile,
    context: &'a mut Context<'b>,
    to: GzEncoder<W>,
    buffer: Vec<u8>,
    strings: Strings,
    /// Function ids, by name and file.
    functions: HashMap<(i64, i64), u64>,
    /// Tags, as strings.
    tags: HashMap<u32, i64>,
    /// Addresses that samples refer to.
    used: Vec<bool>,
}

impl<'a, 'b, W: Write> Encoder<'a, 'b, W> {
    fn new(profile: &'a Profile, context: &'a mut Context<'b>, to: W) -> Self {
        Self {
            profile,
            context,
            // More would take longer than all the rest, for a file that is smaller by a tenth.
            to: GzEncoder::new(to, Compression::fast()),
            buffer: Vec::with_capacity(2 * BUFFER_BYTES),
            strings: Strings::new(),
            functions: HashMap::new(),
            tags: HashMap::new(),
            used: vec![false; profile.addresses().len()],
        }
    }

    fn write(mut self) -> io::Result<()> {
        self.header()?;
        self.samples()?;
        let named = self.locations()?;
        self.mappings(&named)?;
        self.string_table()?;
        self.to.write_all(&self.buffer)?;
        self.to.finish()?.flush()
    }

    fn put(&mut self, part: &proto::Profile) -> io::Result<()> {
        // Buffers grow: only running out of memory could fail here.
        let _ = part.encode(&mut self.buffer);
        if self.buffer.len() >= BUFFER_BYTES {
            self.to.write_all(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }

    fn header(&mut self) -> io::Result<()> {
        let (profile, strings) = (self.profile, &mut self.strings);
        let kind = profile.kind;
        let types = kind.value_types();
        let (period_type, period) = match kind {
            Kind::Contention => (strings.value_type("contentions", "count"), 1),
            _ => (strings.value_type("space", "bytes"), profile.summary.interval as i64),
        };
        let header = proto::Profile {
            sample_type: types.iter().map(|of| strings.value_type(of.name, of.unit)).collect(),
            default_sample_type: strings.index(types[kind.default_value()].name),
            period_type: Some(period_type),
            period,
            time_nanos: unix_nanos(profile.taken),
            duration_nanos: nanos(profile.duration.unwrap_or_default()),
            comment: profile.notes().iter().map(|note| strings.index(note)).collect(),
            doc_url: strings.index(DOC_URL),
            ..proto::Profile::default()
        };
        self.put(&header)
    }

    fn samples(&mut self) -> io::Result<()> {
        let profile = self.profile;
        let values = profile.kind.value_types().len();
        let keys = ["bytes", "tag", "kind", "longest", "nanoseconds"].map(|key| self.strings.index(key));
        // One message that is filled again and again: nothing is allocated per row.
        let mut part = proto::Profile { sample: vec![proto::Sample::default()], ..proto::Profile::default() };
        for row in &profile.rows {
            let sample = &mut part.sample[0];
            sample.value.clear();
            sample.value.extend(row.values[..values].iter().map(|value| value.round() as i64));
            if sample.value.iter().all(|&value| value == 0) {
                continue;
            }
            sample.location_id.clear();
            for index in profile.frame_indices(row) {
                self.used[index] = true;
                sample.location_id.push(index as u64 + 1);
            }
            sample.label.clear();
            self.labels(row, keys, &mut sample.label);
            self.put(&part)?;
        }
        Ok(())
    }

    fn labels(&mut self, row: &Row, [bytes, tag, kind, longest, nanoseconds]: [i64; 5], labels: &mut Vec<proto::Label>) {
        if row.block_bytes > 0 {
            labels.push(proto::Label { key: bytes, num: row.block_bytes as i64, num_unit: bytes, str: 0 });
        }
        if row.tag > 0 {
            let (context, strings) = (&self.context, &mut self.strings);
            let str = *self.tags.entry(row.tag).or_insert_with(|| strings.index(&context.tag(row.tag)));
            labels.push(proto::Label { key: tag, str, ..proto::Label::default() });
        }
        if let Some(stall) = self.profile.stall(row) {
            let str = self.strings.index(stall.name());
            labels.push(proto::Label { key: kind, str, ..proto::Label::default() });
            labels.push(proto::Label { key: longest, num: nanos(stall.longest), num_unit: nanoseconds, str: 0 });
        }
    }

    /// Locations that samples refer to, and their functions. Says of each mapping what is known.
    fn locations(&mut self) -> io::Result<Vec<Named>> {
        let profile = self.profile;
        let mut named = vec![Named::default(); self.context.mappings.len()];
        let order = order(self.context);
        let mut part = proto::Profile { location: vec![proto::Location::default()], ..proto::Profile::default() };
        for (index, &return_address) in profile.addresses().iter().enumerate() {
            if !self.used[index] {
                continue;
            }
            let address = call_of(return_address);
            let mapping = self.context.mapping_index(address).and_then(|index| order.iter().position(|&at| at == index));
            let frames = self.context.known(address);
            if let Some(mapping) = mapping {
                named[mapping].count(&frames);
            }
            let location = &mut part.location[0];
            location.id = index as u64 + 1;
            location.address = address as u64;
            location.mapping_id = mapping.map_or(0, |mapping| mapping as u64 + 1);
            location.line.clear();
            for frame in &frames {
                let function_id = self.function(frame)?;
                location.line.push(proto::Line { function_id, line: frame.line.map_or(0, i64::from), column: 0 });
            }
            self.put(&part)?;
        }
        Ok(named)
    }

    /// The id of a function, which is written when it comes up first.
    fn function(&mut self, frame: &Frame) -> io::Result<u64> {
        let name = self.strings.index(&frame.function);
        let filename = self.strings.index(frame.file.as_deref().unwrap_or_default());
        let next = self.functions.len() as u64 + 1;
        let id = *self.functions.entry((name, filename)).or_insert(next);
        if id == next {
            // What it is called by the system stays empty: where both are the same, pprof takes the name for one of C++, and leaves out what is in angle
            // brackets, which in Rust is the type.
            let function = proto::Function { id, name, system_name: 0, filename, start_line: 0 };
            self.put(&proto::Profile { function: vec![function], ..proto::Profile::default() })?;
        }
        Ok(id)
    }

    /// All mappings, the program itself first.
    fn mappings(&mut self, named: &[Named]) -> io::Result<()> {
        let order = order(self.context);
        let mut part = proto::Profile::default();
        for (place, (&index, named)) in order.iter().zip(named).enumerate() {
            let mapping = &self.context.mappings[index];
            let all = |count: usize| named.locations > 0 && count == named.locations;
            part.mapping.push(proto::Mapping {
                id: place as u64 + 1,
                memory_start: mapping.start,
                memory_limit: mapping.end,
                file_offset: mapping.file_offset,
                filename: self.strings.index(&mapping.path.to_string_lossy()),
                build_id: self.strings.index(mapping.build_id.as_deref().unwrap_or_default()),
                has_functions: all(named.functions),
                has_filenames: all(named.files),
                has_line_numbers: all(named.lines),
                has_inline_frames: all(named.functions) && named.inlined > 0,
            });
        }
        self.put(&part)
    }

    fn string_table(&mut self) -> io::Result<()> {
        let mut part = proto::Profile { string_table: vec![String::new()], ..proto::Profile::default() };
        for string in std::mem::take(&mut self.strings.all) {
            part.string_table[0].clear();
            part.string_table[0].push_str(&string);
            self.put(&part)?;
        }
        Ok(())
    }
}

impl Named {
    fn count(&mut self, frames: &[Frame]) {
        self.locations += 1;
        self.functions += usize::from(!frames.is_empty());
        self.files += usize::from(frames.first().is_some_and(|frame| frame.file.is_some()));
        self.lines += usize::from(frames.first().is_some_and(|frame| frame.line.is_some()));
        self.inlined += usize::from(frames.len() > 1);
    }
}

/// Indices of mappings, the program itself first: pprof takes the first one for it.
fn order(context: &Context<'_>) -> Vec<usize> {
    let mut order: Vec<usize> = (0..context.mappings.len()).collect();
    order.sort_by_key(|&index| !context.mappings[index].is_main);
    order
}

fn unix_nanos(moment: SystemTime) -> i64 {
    nanos(moment.duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
