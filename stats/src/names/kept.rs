//! Names of functions that were kept when a file was stripped: a small file of our own, beside the stripped one or at its very end.
//!
//! ```text
//!   count × { u32 beginning, counted from the base; u32 bytes; u32 where its name begins }, in the order of beginnings
//!   names, each with a zero behind it
//!   build id of the file, as bytes
//!   footer of 32 bytes: u64 base, u32 count, u32 bytes of the build id, u64 bytes of the names, 8 bytes that say what this is
//! ```
//!
//! It is read from its end, so that it may have anything in front of it, such as the program itself. All numbers have their lowest byte first.

use std::ops::Range;

use object::LittleEndian;
use object::read::elf::Sym as _;

use super::elf::{Elf, Function, rank};
use super::note::hexadecimal;

/// The last bytes.
const MAGIC: [u8; 8] = *b"freesym1";
const FOOTER_BYTES: usize = 32;
const ENTRY_BYTES: usize = 12;

/// Where the parts are.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Kept {
    pub(super) build_id: Option<String>,
    base: u64,
    entries: Range<usize>,
    names: Range<usize>,
}

impl Kept {
    /// Finds it at the end of these bytes.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let footer = bytes.last_chunk::<FOOTER_BYTES>()?;
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|byte| footer[at + byte]));
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| footer[at + byte]));
        if footer[24..] != MAGIC {
            return None;
        }
        let id_end = bytes.len() - FOOTER_BYTES;
        let names_end = id_end.checked_sub(word(12) as usize)?;
        let entries_end = names_end.checked_sub(usize::try_from(long(16)).ok()?)?;
        let begin = entries_end.checked_sub((word(8) as usize).checked_mul(ENTRY_BYTES)?)?;
        let id = &bytes[names_end..id_end];
        Some(Self {
            build_id: (!id.is_empty()).then(|| hexadecimal(id)),
            base: long(0),
            entries: begin..entries_end,
            names: entries_end..names_end,
        })
    }

    /// The function in which an address lies.
    pub(super) fn find<'a>(&self, bytes: &'a [u8], address: u64) -> Option<Function<'a>> {
        let (entries, _) = bytes[self.entries.clone()].as_chunks::<ENTRY_BYTES>();
        let word = |entry: &[u8; ENTRY_BYTES], at: usize| u32::from_le_bytes(std::array::from_fn(|byte| entry[at * 4 + byte]));
        let into = address.checked_sub(self.base)?;
        let next = entries.partition_point(|entry| u64::from(word(entry, 0)) <= into);
        let entry = entries.get(next.checked_sub(1)?)?;
        let begin = u64::from(word(entry, 0));
        let names = &bytes[self.names.clone()];
        let rest = names.get(word(entry, 2) as usize..)?;
        let name = &rest[..rest.iter().position(|&byte| byte == 0)?];
        // In a file that is damaged they may not be in order.
        let is_in = into.checked_sub(begin).is_some_and(|into| into < u64::from(word(entry, 1)));
        is_in.then_some(Function { begin: self.base.saturating_add(begin), name })
    }
}

/// Makes such a file of all that a file with symbols has. The error is what follows the name of that file in a sentence.
pub(super) fn keep(bytes: &[u8], elf: &Elf) -> Result<Vec<u8>, &'static str> {
    const LITTLE: LittleEndian = LittleEndian;
    let table = elf.symbols.as_ref().ok_or("has no table of symbols, or no more: keep them before it is stripped")?;
    let mut functions: Vec<_> = table.functions(bytes).map(|(_, symbol)| symbol).collect();
    // Of several names of one function, the best comes first.
    functions.sort_by_key(|its| (its.st_value(LITTLE), std::cmp::Reverse(rank(its))));
    functions.dedup_by_key(|its| its.st_value(LITTLE));
    let base = functions.first().ok_or("has no symbols of functions")?.st_value(LITTLE);

    let too_large = "is too large: its code or its names take more than 4 GiB";
    let (mut entries, mut names) = (Vec::new(), Vec::new());
    for symbol in functions {
        let Some(name) = table.name(bytes, symbol) else { continue };
        let begin = u32::try_from(symbol.st_value(LITTLE) - base).map_err(|_| too_large)?;
        let length = u32::try_from(symbol.st_size(LITTLE).max(1)).map_err(|_| too_large)?;
        for word in [begin, length, u32::try_from(names.len()).map_err(|_| too_large)?] {
            entries.extend_from_slice(&word.to_le_bytes());
        }
        names.extend_from_slice(name);
        names.push(0);
    }
    let build_id = elf.build_id.as_deref().unwrap_or_default();
    let id: Vec<u8> =
        (0..build_id.len() / 2).filter_map(|at| u8::from_str_radix(&build_id[at * 2..at * 2 + 2], 16).ok()).collect();

    let count = (entries.len() / ENTRY_BYTES) as u32;
    let names_bytes = names.len() as u64;
    let mut kept = entries;
    kept.extend_from_slice(&names);
    kept.extend_from_slice(&id);
    kept.extend_from_slice(&base.to_le_bytes());
    kept.extend_from_slice(&count.to_le_bytes());
    kept.extend_from_slice(&(id.len() as u32).to_le_bytes());
    kept.extend_from_slice(&names_bytes.to_le_bytes());
    kept.extend_from_slice(&MAGIC);
    Ok(kept)
}
