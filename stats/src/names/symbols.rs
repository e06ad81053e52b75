//! Names of functions, from the files of the running process.

use std::fmt;
use std::path::{Path, PathBuf};

use freestone::profile::without_samples;

use super::binary::{Binary, SORTED_MAX};
use super::image;
use super::mapping::{Mapping, mappings};
use crate::profile::{Frame, Namer};

/// Finds the names of functions, for as long as it lives: [`Binary`] says where. Make one where names are needed, and drop it.
///
/// It reads only the files that addresses lie in, through maps; on the heap it has 8 bytes for every function of these, and at most 16 MiB. Its
/// allocations are not in profiles.
///
/// ```
/// use freestone_stats::names::Symbols;
///
/// fn here() {}
///
/// let mut symbols = Symbols::new();
/// let name = symbols.function(here as fn() as usize as u64);
/// # assert!(name.is_some_and(|name| name.ends_with("::here") || name.contains("!0x")));
/// ```
pub struct Symbols {
    /// By their addresses, each with the number of its file.
    mappings: Vec<(Mapping, usize)>,
    files: Vec<Source>,
    /// Functions that may still be sorted.
    room: usize,
    /// What was found last.
    name: String,
}

/// A file that addresses may lie in.
enum Source {
    Unopened,
    /// Nothing is known of it.
    Missing,
    Open(Box<Binary>),
}

impl Symbols {
    /// For the mappings of this moment.
    #[must_use]
    pub fn new() -> Self {
        without_samples(|| Self::of(&mappings()))
    }

    fn of(mappings: &[Mapping]) -> Self {
        let mut sorted: Vec<(Mapping, usize)> = Vec::with_capacity(mappings.len());
        let mut files = Vec::new();
        for mapping in mappings {
            let known = sorted.iter().find(|(its, _)| its.path == mapping.path && its.build_id == mapping.build_id);
            let number = known.map_or(files.len(), |(_, number)| *number);
            if number == files.len() {
                files.push(Source::Unopened);
            }
            sorted.push((mapping.clone(), number));
        }
        sorted.sort_by_key(|(mapping, _)| mapping.start);
        Self { mappings: sorted, files, room: SORTED_MAX, name: String::new() }
    }

    /// The function in which an instruction lies, demangled if it was written in Rust or C++. For a return address ask for the byte before it, which is the call's.
    ///
    /// Where functions have no names it is called after its file and the function's beginning in that: `app!0x4a10`.
    pub fn function(&mut self, address: u64) -> Option<&str> {
        without_samples(|| self.find(address).map(|name| self.name = name))?;
        Some(&self.name)
    }

    fn find(&mut self, address: u64) -> Option<String> {
        let next = self.mappings.partition_point(|(mapping, _)| mapping.start <= address);
        let (mapping, number) = self.mappings.get(next.checked_sub(1)?).filter(|(mapping, _)| mapping.contains(address))?;
        let source = &mut self.files[*number];
        if matches!(source, Source::Unopened) {
            *source = open(mapping).map_or(Source::Missing, |binary| Source::Open(Box::new(binary)));
        }
        let Source::Open(binary) = source else { return None };
        let by_bias = mapping.bias.map(|bias| address.wrapping_sub(bias));
        let in_file = by_bias.or_else(|| binary.address_of((address - mapping.start).checked_add(mapping.file_offset)?))?;
        binary.find(in_file, &mut self.room)
    }
}

impl Namer for Symbols {
    /// One frame at most: what was inlined, and lines, are for `freestone-bench profile name`, which has the time and the memory.
    fn name(&mut self, address: usize) -> Vec<Frame> {
        let function = self.function(address as u64).map(str::to_owned);
        function.map(|function| Frame { function, ..Frame::default() }).into_iter().collect()
    }
}

impl Default for Symbols {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Symbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.files.iter().filter(|file| matches!(file, Source::Open(_))).count();
        f.debug_struct("Symbols").field("files", &self.files.len()).field("open", &open).finish_non_exhaustive()
    }
}

/// The file that was mapped, even where its name leads to another one by now.
fn open(mapping: &Mapping) -> Option<Binary> {
    let path = &mapping.path;
    if path == Path::new("[vdso]") {
        return image::vdso_bytes().and_then(|bytes| Binary::of_memory(bytes, path));
    }
    // Where nothing has a build id, names must do.
    let is_it = |binary: &Binary| binary.build_id() == mapping.build_id.as_deref();
    let by_name = (!mapping.is_deleted).then(|| path.clone());
    let of_program = mapping.is_main.then(|| PathBuf::from("/proc/self/exe"));
    // Only those with rights that few services have are let in here.
    let by_kernel = PathBuf::from(format!("/proc/self/map_files/{:x}-{:x}", mapping.start, mapping.end));
    let mut files = by_name.into_iter().chain(of_program).chain([by_kernel]);
    let found = files.find_map(|file| Binary::open_called(&file, path, &[]).ok().filter(is_it));
    found.or_else(|| Binary::of_debug_file(mapping.build_id.as_deref()?, path))
}
