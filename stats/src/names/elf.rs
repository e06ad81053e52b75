//! An ELF file as names need it: where it is loaded, where its tables are, and what they say of an address. It stays where it is, behind a map;
//! of what lies there nothing is believed that was not looked at.
//!
//! Only files of 64 bits whose lowest byte comes first are read: those of all machines that Freestone runs on.

use std::fmt;
use std::fs::File;
use std::ops::{Deref, Range};

use memmap2::Mmap;
use object::elf::{
    FileHeader64, PF_X, PT_GNU_EH_FRAME, PT_LOAD, PT_NOTE, SHN_UNDEF, SHT_DYNSYM, SHT_NOTE, SHT_SYMTAB, STB_LOCAL, STB_WEAK,
    STT_FUNC, STT_GNU_IFUNC, Sym64,
};
use object::pod::slice_from_bytes;
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _, Sym as _};
use object::{LittleEndian, SectionIndex};

use super::note::build_id;

const LITTLE: LittleEndian = LittleEndian;

/// Symbols that are looked at, from the nearest one downwards, for one that reaches as far as an address: some lie within others.
const NESTED_MAX: usize = 16;

/// The bytes of a file.
pub(super) enum Bytes {
    Map(Mmap),
    /// The vdso.
    Memory(&'static [u8]),
}

impl Bytes {
    pub(super) fn map(file: &File) -> std::io::Result<Self> {
        // SAFETY: bytes of a file may change under us; all reads of them are made to stand whatever they say. Who cuts a file off that is in use gets
        // SIGBUS here, as the program itself would that runs from it; linkers and package managers replace files as a whole.
        unsafe { Mmap::map(file) }.map(Self::Map)
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Map(map) => map,
            Self::Memory(bytes) => bytes,
        }
    }
}

impl fmt::Debug for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

/// A part of a file that is loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Segment {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) address: u64,
    pub(super) has_code: bool,
}

/// Where a table of symbols is, and its strings.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct SymbolTable {
    symbols: Range<usize>,
    strings: Range<usize>,
    /// Functions by their addresses; `None`: not made yet, or there is no room.
    index: Option<Index>,
}

/// The table of an ELF file that says where functions begin, for whom an exception comes through.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Unwinding {
    file: Range<usize>,
    address: u64,
}

/// What an ELF file has. Addresses are those that the file gives itself.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Elf {
    pub(super) build_id: Option<String>,
    pub(super) segments: Vec<Segment>,
    pub(super) symbols: Option<SymbolTable>,
    pub(super) dynamic_symbols: Option<SymbolTable>,
    pub(super) unwinding: Option<Unwinding>,
    /// The name of a file with what was taken out of this one, and its checksum.
    pub(super) debug_link: Option<(Vec<u8>, u32)>,
}

/// A function, as a table has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Function<'a> {
    pub(super) begin: u64,
    pub(super) name: &'a [u8],
}

impl Elf {
    /// Reads the headers. The error is what follows the name of the file in a sentence.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        if !bytes.starts_with(b"\x7fELF") {
            return Err("is not an ELF file");
        }
        let header =
            FileHeader64::<LittleEndian>::parse(bytes).map_err(|_| "is an ELF file of another kind of machine, or cut off")?;
        let endian = header.endian().map_err(|_| "is an ELF file of a machine with another order of bytes")?;
        let headers = header.program_headers(endian, bytes).map_err(|_| "is an ELF file that is damaged or cut off")?;
        let mut elf = Self::default();
        for header in headers {
            let (offset, size) = header.file_range(LITTLE);
            match header.p_type(LITTLE) {
                PT_LOAD => elf.segments.push(Segment {
                    offset,
                    bytes: size,
                    address: header.p_vaddr(LITTLE),
                    has_code: header.p_flags(LITTLE).contains(PF_X),
                }),
                PT_NOTE if elf.build_id.is_none() => {
                    let notes = range(bytes, offset, size).map(|its| &bytes[its]);
                    elf.build_id = notes.and_then(|notes| build_id(notes, header.p_align(LITTLE)));
                }
                PT_GNU_EH_FRAME => {
                    elf.unwinding = range(bytes, offset, size).map(|file| Unwinding { file, address: header.p_vaddr(LITTLE) });
                }
                _ => {}
            }
        }
        // A file without sections has no more to say, and one whose sections are damaged neither.
        let Ok(sections) = header.sections(endian, bytes) else { return Ok(elf) };
        for section in sections.iter() {
            let table = || {
                let (offset, size) = section.file_range(LITTLE)?;
                let strings = sections.section(SectionIndex(section.sh_link(LITTLE) as usize)).ok()?;
                let (strings_offset, strings_size) = strings.file_range(LITTLE)?;
                let symbols = range(bytes, offset, size)?;
                let has_any = symbols.len() >= size_of::<Sym64<LittleEndian>>();
                has_any.then_some(SymbolTable { symbols, strings: range(bytes, strings_offset, strings_size)?, index: None })
            };
            match section.sh_type(LITTLE) {
                SHT_SYMTAB if elf.symbols.is_none() => elf.symbols = table(),
                SHT_DYNSYM if elf.dynamic_symbols.is_none() => elf.dynamic_symbols = table(),
                // Files with nothing but what was taken out of others may have no program headers for their notes.
                SHT_NOTE if elf.build_id.is_none() => {
                    elf.build_id =
                        section.data(LITTLE, bytes).ok().and_then(|notes| build_id(notes, section.sh_addralign(LITTLE)));
                }
                _ if elf.debug_link.is_none() && sections.section_name(LITTLE, section).ok() == Some(b".gnu_debuglink") => {
                    elf.debug_link = section.data(LITTLE, bytes).ok().and_then(debug_link);
                }
                _ => {}
            }
        }
        Ok(elf)
    }

    /// The address of what lies at a place in the file, if it is loaded.
    pub(super) fn address_of(&self, offset: u64) -> Option<u64> {
        // Whole pages are mapped, so a byte of one may lie in the mapping of another segment: code counts first.
        let mut by_code = [true, false].into_iter().flat_map(|code| self.segments.iter().filter(move |its| its.has_code == code));
        let segment = by_code.find(|its| offset.checked_sub(its.offset).is_some_and(|into| into < its.bytes))?;
        segment.address.checked_add(offset - segment.offset)
    }

    /// Where in the file lies what is loaded to an address?
    fn offset_of(&self, address: u64) -> Option<usize> {
        let segment = self.segments.iter().find(|its| address.checked_sub(its.address).is_some_and(|into| into < its.bytes))?;
        usize::try_from(segment.offset.checked_add(address - segment.address)?).ok()
    }

    /// Where the function begins in which an address lies, as far as the table for exceptions knows.
    ///
    /// ```text
    ///   u8 version, u8 how the next is written, u8 how the count is, u8 how the table is,
    ///   i32 to .eh_frame, u32 count, count × { i32 beginning of a function, i32 its record in .eh_frame }, from here
    /// ```
    ///
    /// All linkers write it so; a table that is written otherwise is not read.
    pub(super) fn beginning(&self, bytes: &[u8], address: u64) -> Option<u64> {
        let unwinding = self.unwinding.as_ref()?;
        let table = bytes.get(unwinding.file.clone())?;
        let (head, rest) = table.split_first_chunk::<12>()?;
        if head[..4] != [1, 0x1b, 0x03, 0x3b] {
            return None;
        }
        let (entries, _) = rest.as_chunks::<8>();
        let count = u32::from_le_bytes([head[8], head[9], head[10], head[11]]) as usize;
        let entries = &entries[..count.min(entries.len())];
        let at = |word: &[u8]| {
            let word = i32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            unwinding.address.wrapping_add_signed(i64::from(word))
        };
        let next = entries.partition_point(|entry| at(&entry[..4]) <= address);
        let entry = entries.get(next.checked_sub(1)?)?;
        let begin = at(&entry[..4]);
        let is_code = self.segments.iter().any(|its| its.has_code && address.wrapping_sub(its.address) < its.bytes);
        // Its record: u32 bytes, i32 to what it has in common with others, i32 beginning from here, u32 length of the function.
        let record = self.offset_of(at(&entry[4..])).and_then(|offset| bytes.get(offset..offset.checked_add(16)?));
        let length = record.filter(|record| {
            let here = at(&entry[4..]).wrapping_add(8);
            here.wrapping_add_signed(i64::from(i32::from_le_bytes([record[8], record[9], record[10], record[11]]))) == begin
        });
        let length = length.map(|record| u64::from(u32::from_le_bytes([record[12], record[13], record[14], record[15]])));
        (is_code && length.is_none_or(|length| address - begin < length)).then_some(begin)
    }
}

/// A name, zeros up to a multiple of four bytes, and a checksum.
fn debug_link(contents: &[u8]) -> Option<(Vec<u8>, u32)> {
    let (rest, sum) = contents.split_last_chunk::<4>()?;
    let name = &rest[..rest.iter().position(|&byte| byte == 0)?];
    // It is a name, and not a way out of the folder.
    let is_name = !name.is_empty() && !name.contains(&b'/');
    is_name.then(|| (name.to_vec(), u32::from_le_bytes(*sum)))
}

/// A part of the file, if there is such a one.
fn range(bytes: &[u8], offset: u64, size: u64) -> Option<Range<usize>> {
    let begin = usize::try_from(offset).ok()?;
    let end = begin.checked_add(usize::try_from(size).ok()?)?;
    (end <= bytes.len()).then_some(begin..end)
}

impl SymbolTable {
    fn all<'a>(&self, bytes: &'a [u8]) -> &'a [Sym64<LittleEndian>] {
        let bytes = &bytes[self.symbols.clone()];
        slice_from_bytes(bytes, bytes.len() / size_of::<Sym64<LittleEndian>>()).map_or(&[], |(symbols, _)| symbols)
    }

    /// The symbols of functions, with their numbers.
    pub(super) fn functions<'a>(&self, bytes: &'a [u8]) -> impl Iterator<Item = (u32, &'a Sym64<LittleEndian>)> + use<'a> {
        let is_function = |symbol: &Sym64<LittleEndian>| {
            matches!(symbol.st_type(), STT_FUNC | STT_GNU_IFUNC)
                && symbol.st_shndx(LITTLE) != SHN_UNDEF
                && symbol.st_value(LITTLE) != 0
        };
        (0..).zip(self.all(bytes)).filter(move |(_, symbol)| is_function(symbol))
    }

    pub(super) fn name<'a>(&self, bytes: &'a [u8], symbol: &Sym64<LittleEndian>) -> Option<&'a [u8]> {
        let strings = &bytes[self.strings.clone()];
        let rest = strings.get(symbol.st_name(LITTLE) as usize..)?;
        let name = &rest[..rest.iter().position(|&byte| byte == 0)?];
        (!name.is_empty()).then_some(name)
    }

    /// Sorts the functions, once, if so many of them are within `room`, which then has less.
    pub(super) fn sort(&mut self, bytes: &[u8], room: &mut usize) {
        if self.index.is_some() {
            return;
        }
        let addresses = || self.functions(bytes).map(|(number, symbol)| (number, symbol.st_value(LITTLE)));
        let (count, base) = addresses().fold((0, u64::MAX), |(count, base), (_, address)| (count + 1, base.min(address)));
        let Some(rest) = room.checked_sub(count) else { return };
        *room = rest;
        let mut entries = Vec::with_capacity(count);
        entries.extend(
            addresses()
                .filter_map(|(number, address)| Some((u32::try_from(address.checked_sub(base)?).ok()?, number)))
                .take(count),
        );
        entries.sort_unstable();
        self.index = Some(Index { base, entries });
    }

    /// The function in which an address lies. Of several, the one that begins last; of several names, the one that others can see.
    pub(super) fn find<'a>(&self, bytes: &'a [u8], address: u64) -> Option<Function<'a>> {
        let reaches = |symbol: &&Sym64<LittleEndian>| reaches(symbol, address);
        let best = match &self.index {
            Some(index) => {
                let all = self.all(bytes);
                index
                    .up_to(address)
                    .iter()
                    .filter_map(|&(_, number)| all.get(number as usize))
                    .filter(reaches)
                    .max_by_key(|its| rank(its))
            }
            None => self.functions(bytes).map(|(_, its)| its).filter(reaches).max_by_key(|its| rank(its)),
        }?;
        Some(Function { begin: best.st_value(LITTLE), name: self.name(bytes, best)? })
    }
}

/// Functions in the order of their addresses. The addresses are kept, so that the file may change as it likes; then names are wrong, and nothing else.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Index {
    base: u64,
    /// How far behind `base`, and the number of the symbol.
    entries: Vec<(u32, u32)>,
}

impl Index {
    /// The nearest that begin at an address or before.
    fn up_to(&self, address: u64) -> &[(u32, u32)] {
        let next =
            address.checked_sub(self.base).map_or(0, |into| self.entries.partition_point(|&(begin, _)| u64::from(begin) <= into));
        &self.entries[next.saturating_sub(NESTED_MAX)..next]
    }
}

/// Does a function reach as far as an address? One that does not say how long it is has one byte only: any name further on would be a guess.
fn reaches(symbol: &Sym64<LittleEndian>, address: u64) -> bool {
    address.checked_sub(symbol.st_value(LITTLE)).is_some_and(|into| into < symbol.st_size(LITTLE).max(1))
}

/// The more, the better a symbol is for an address that it reaches.
pub(super) fn rank(symbol: &Sym64<LittleEndian>) -> (u64, u8) {
    let seen = match symbol.st_bind() {
        STB_LOCAL => 0,
        STB_WEAK => 1,
        _ => 2,
    };
    (symbol.st_value(LITTLE), seen)
}

#[cfg(test)]
mod tests {
    use super::super::{image, kept};
    use super::*;

    /// What happens to every file, whatever is in it.
    fn use_all(bytes: &[u8]) -> usize {
        if let Some(kept) = kept::Kept::parse(bytes) {
            for address in (0..64).map(|step| step * 16) {
                let _ = kept.find(bytes, address);
            }
        }
        let Ok(mut elf) = Elf::parse(bytes) else { return 0 };
        let mut found = 0;
        let mut tables: Vec<_> = [elf.symbols.take(), elf.dynamic_symbols.take()].into_iter().flatten().collect();
        for sorted in [false, true] {
            for address in (0..bytes.len() as u64).step_by(16).chain([u64::MAX]) {
                let mapped = elf.address_of(address);
                found += usize::from(elf.beginning(bytes, mapped.unwrap_or(address)).is_some());
                found += tables.iter().filter(|table| table.find(bytes, mapped.unwrap_or(address)).is_some()).count();
            }
            for table in tables.iter_mut().filter(|_| !sorted) {
                table.sort(bytes, &mut 1_000_000);
            }
        }
        elf.symbols = tables.pop();
        let _ = kept::keep(bytes, &elf);
        found
    }

    #[test]
    fn damaged_files_say_less_and_nothing_else_happens() {
        let whole = image::vdso_bytes().expect("every process has one");
        assert!(use_all(whole) > 100);
        let mut seed: u64 = std::env::var("FREESTONE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(0xe1f);
        println!("seed {seed}; FREESTONE_SEED sets it");
        let mut random = |below: usize| {
            seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (seed >> 33) as usize % below
        };
        let elf = Elf::parse(whole).expect("it is whole");
        let mut with_symbols = elf.clone();
        with_symbols.symbols = elf.dynamic_symbols.clone();
        let kept = kept::keep(whole, &with_symbols).expect("it has symbols");
        for round in 0..2000 {
            let mut bytes = if round % 4 == 0 { kept.clone() } else { whole.to_vec() };
            for _ in 0..=random(12) {
                // Headers at both ends, and tables in the middle.
                let at = match random(3) {
                    0 => random(512.min(bytes.len())),
                    1 => bytes.len() - 1 - random(512.min(bytes.len())),
                    _ => random(bytes.len()),
                };
                bytes[at] = [0, 1, 0x7f, 0x80, 0xff, random(256) as u8][random(6)];
            }
            if random(5) == 0 {
                bytes.truncate(random(bytes.len()));
            }
            let _ = use_all(&bytes);
        }
    }

    #[test]
    fn a_table_too_large_to_be_sorted_is_read_through() {
        let bytes = image::vdso_bytes().expect("every process has one");
        let elf = Elf::parse(bytes).expect("it is whole");
        let slow = elf.dynamic_symbols.expect("it exports its functions");
        let mut fast = slow.clone();
        let mut room = 3;
        fast.sort(bytes, &mut room);
        assert_eq!((room, &fast), (3, &slow), "there is no room");
        let mut room = 1000;
        fast.sort(bytes, &mut room);
        assert!(room < 1000 && fast != slow);
        let found: Vec<_> = (0..bytes.len() as u64).map(|address| slow.find(bytes, address)).collect();
        assert!(found.iter().flatten().count() > 100);
        // Of several names of one function either may do, as long as it begins there.
        let begins = |found: Option<Function<'_>>| found.map(|its| its.begin);
        assert!((0..).zip(found).all(|(address, slow)| begins(fast.find(bytes, address)) == begins(slow)));
    }
}
