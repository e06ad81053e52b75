//! Files of pprof are read: of our own and of others, and of whoever means harm.
//!
//! Three bounds keep the memory that a file can cost within a gigabyte, whatever it says: on what gzip may unfold to; on what its messages take once they are
//! read, which is counted before they are, because two bytes of a file can be a message that takes a hundred; and each number that refers to something is
//! looked up once, so that nobody who uses the result runs into one that refers to nothing.

use std::collections::HashSet;
use std::io::Read as _;
use std::mem::size_of;

use flate2::read::MultiGzDecoder;
use prost::Message as _;

use super::{Error, proto};

/// What a file may unfold to. A profile of 100,000 stacks has ten megabytes.
const PLAIN_BYTES_MAX: usize = 256 << 20;
/// What its messages may take in memory: vectors may have grown to twice that.
const MEMORY_BYTES_MAX: usize = 512 << 20;

/// Reads a profile, in gzip or plain.
///
/// # Errors
///
/// If it is no profile, is broken or cut off, or is too large: in a sentence. What is read refers only to what is there.
pub fn decode(bytes: &[u8]) -> Result<proto::Profile, Error> {
    let unfolded;
    let plain = if bytes.starts_with(&[0x1f, 0x8b]) {
        unfolded = unfold(bytes)?;
        &unfolded
    } else {
        bytes
    };
    if plain.is_empty() {
        return Err(Error("this is no profile: it is empty".to_owned()));
    }
    if plain.len() > PLAIN_BYTES_MAX {
        return Err(too_large());
    }
    let memory =
        memory(plain, Shape::Profile).ok_or_else(|| Error("this is no profile of pprof, or it is damaged".to_owned()))?;
    if memory > MEMORY_BYTES_MAX {
        return Err(Error(format!("this profile would take {} MiB of memory, which is more than any needs", memory >> 20)));
    }
    let profile = proto::Profile::decode(plain)
        .map_err(|error| Error(format!("this is no profile of pprof, or it is damaged: {error}")))?;
    check(&profile)?;
    Ok(profile)
}

fn too_large() -> Error {
    Error(format!("this profile has more than {} MiB, which is more than any needs", PLAIN_BYTES_MAX >> 20))
}

fn unfold(bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut plain = Vec::new();
    let mut reader = MultiGzDecoder::new(bytes).take(PLAIN_BYTES_MAX as u64 + 1);
    reader.read_to_end(&mut plain).map_err(|error| Error(format!("the gzip data of this profile is damaged: {error}")))?;
    if plain.len() > PLAIN_BYTES_MAX { Err(too_large()) } else { Ok(plain) }
}

/// What a message consists of, as far as it costs memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Profile,
    Sample,
    Location,
    /// Numbers and nothing else.
    Flat,
}

/// What a field with a length is.
enum Field {
    Message(Shape, usize),
    Text,
    /// Numbers, one after the other.
    Numbers,
    Unknown,
}

impl Shape {
    const fn field(self, number: u64) -> Field {
        match (self, number) {
            (Self::Profile, 1 | 11) => Field::Message(Self::Flat, size_of::<proto::ValueType>()),
            (Self::Profile, 2) => Field::Message(Self::Sample, size_of::<proto::Sample>()),
            (Self::Profile, 3) => Field::Message(Self::Flat, size_of::<proto::Mapping>()),
            (Self::Profile, 4) => Field::Message(Self::Location, size_of::<proto::Location>()),
            (Self::Profile, 5) => Field::Message(Self::Flat, size_of::<proto::Function>()),
            (Self::Profile, 6) => Field::Text,
            (Self::Profile, 13) | (Self::Sample, 1 | 2) => Field::Numbers,
            (Self::Sample, 3) => Field::Message(Self::Flat, size_of::<proto::Label>()),
            (Self::Location, 4) => Field::Message(Self::Flat, size_of::<proto::Line>()),
            _ => Field::Unknown,
        }
    }
}

/// What a message takes once it is read; `None`: it is none. Goes no deeper than messages of the format do.
fn memory(mut bytes: &[u8], shape: Shape) -> Option<usize> {
    let mut sum: usize = 0;
    while !bytes.is_empty() {
        let key = varint(&mut bytes)?;
        let cost = match key & 7 {
            0 => {
                varint(&mut bytes)?;
                size_of::<u64>()
            }
            1 => skip(&mut bytes, 8).map(|_| 0)?,
            5 => skip(&mut bytes, 4).map(|_| 0)?,
            2 => {
                let length = usize::try_from(varint(&mut bytes)?).ok()?;
                let inner = skip(&mut bytes, length)?;
                match shape.field(key >> 3) {
                    Field::Message(shape, size) => size + memory(inner, shape)?,
                    Field::Text => size_of::<String>() + length,
                    Field::Numbers => inner.iter().filter(|&&byte| byte < 0x80).count() * size_of::<u64>(),
                    Field::Unknown => 0,
                }
            }
            // Groups: the format has none.
            _ => return None,
        };
        sum = sum.saturating_add(cost);
    }
    Some(sum)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(bytes).ok()
}

fn skip<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(head)
}

/// Everything that is referred to is there.
fn check(profile: &proto::Profile) -> Result<(), Error> {
    let broken = |what: String| Err(Error(format!("this profile is damaged: {what}")));
    if profile.string_table.first().is_none_or(|first| !first.is_empty()) {
        return broken("its first string is not empty".to_owned());
    }
    if profile.sample_type.is_empty() {
        return broken("it does not say what its values are".to_owned());
    }
    if let Some(index) =
        strings(profile).find(|&index| usize::try_from(index).map_or(true, |index| index >= profile.string_table.len()))
    {
        return broken(format!("it has no string {index}"));
    }
    let mappings = ids(profile.mapping.iter().map(|mapping| mapping.id), "mapping")?;
    let functions = ids(profile.function.iter().map(|function| function.id), "function")?;
    let locations = ids(profile.location.iter().map(|location| location.id), "location")?;
    for location in &profile.location {
        if location.mapping_id != 0 && !mappings.contains(&location.mapping_id) {
            return broken(format!("it has no mapping {}", location.mapping_id));
        }
        if let Some(line) = location.line.iter().find(|line| line.function_id != 0 && !functions.contains(&line.function_id)) {
            return broken(format!("it has no function {}", line.function_id));
        }
    }
    for sample in &profile.sample {
        if sample.value.len() != profile.sample_type.len() {
            return broken(format!(
                "a sample has {} values where there are {} types",
                sample.value.len(),
                profile.sample_type.len()
            ));
        }
        if let Some(id) = sample.location_id.iter().find(|id| !locations.contains(id)) {
            return broken(format!("it has no location {id}"));
        }
    }
    Ok(())
}

/// Every index of a string.
fn strings(profile: &proto::Profile) -> impl Iterator<Item = i64> + '_ {
    let value_type = |of: &proto::ValueType| [of.r#type, of.unit];
    let own = [profile.drop_frames, profile.keep_frames, profile.default_sample_type, profile.doc_url];
    let labels = profile.sample.iter().flat_map(|sample| &sample.label);
    own.into_iter()
        .chain(profile.comment.iter().copied())
        .chain(profile.sample_type.iter().chain(&profile.period_type).flat_map(value_type))
        .chain(labels.flat_map(|label| [label.key, label.str, label.num_unit]))
        .chain(profile.mapping.iter().flat_map(|mapping| [mapping.filename, mapping.build_id]))
        .chain(profile.function.iter().flat_map(|function| [function.name, function.system_name, function.filename]))
}

/// Ids of one sort: none is 0, and none comes twice.
fn ids(all: impl Iterator<Item = u64>, what: &str) -> Result<HashSet<u64>, Error> {
    let mut ids = HashSet::new();
    for id in all {
        if id == 0 || !ids.insert(id) {
            return Err(Error(format!("this profile is damaged: {what} {id} is there twice, or has no number")));
        }
    }
    Ok(ids)
}

#[cfg(test)]
mod tests;
