//! A file with code, and whatever there is that has names for it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use cpp_demangle::{DemangleOptions, ParseOptions, Symbol};

use super::elf::{Bytes, Elf, Function};
use super::kept::{self, Kept};
use super::{image, open_regular};

/// Functions of which so many may be sorted at a time, in all files together: 16 MiB. Names in files with more are found by reading through them.
pub(super) const SORTED_MAX: usize = 2 << 20;

/// Where debug files are, unless somebody says otherwise.
const DEBUG_FOLDER: &str = "/usr/lib/debug";

/// A file with code: a program or a library, and the names of its functions.
///
/// Names come from the first of these that there is:
///
/// 1. its own table of symbols, which `strip --strip-debug` and `strip = "debuginfo"` leave in it;
/// 2. what `freestone-bench profile symbols` kept of it: at the file's own end, as `BUILD_ID.symbols` in the folder that the environment variable
///    `FREESTONE_SYMBOLS` names, or beside the file as `app.symbols`;
/// 3. a debug file: `.build-id/12/3456….debug` in a debug folder, or the one that the file names, in its own folder, in `.debug` there, or in
///    a debug folder;
/// 4. the names that it exports, which of a program are few.
///
/// A file of another build is never used. What has no name is called after the file and the beginning of the function, `app!0x4a10`, where the tables for
/// exceptions say where that is; those are never stripped.
///
/// All is read through maps, of the pages that are needed.
#[derive(Debug)]
pub struct Binary {
    path: PathBuf,
    bytes: Bytes,
    elf: Elf,
    more: Option<More>,
    room: usize,
}

/// What has the names that a stripped file has not.
#[derive(Debug)]
enum More {
    /// Kept, in a file of its own; without bytes: at the end of the file itself.
    Kept(Option<Bytes>, Kept),
    Debug(Bytes, Elf),
}

/// Why a file cannot be read: a sentence that names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BinaryError(String);

impl fmt::Display for BinaryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BinaryError {}

impl Binary {
    /// Opens a file, and finds names for it. Debug files are looked for in these folders, and in `/usr/lib/debug`.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is no ELF file.
    pub fn open(path: &Path, debug_folders: &[PathBuf]) -> Result<Self, BinaryError> {
        Self::open_called(path, path, debug_folders)
    }

    /// The same of a file that has, or had, another name as well.
    pub(super) fn open_called(file: &Path, path: &Path, debug_folders: &[PathBuf]) -> Result<Self, BinaryError> {
        let (bytes, elf) = open_elf(file)?;
        let mut binary = Self { path: path.to_owned(), bytes, elf, more: None, room: SORTED_MAX };
        if binary.elf.symbols.is_none() {
            binary.more = binary.kept().or_else(|| binary.debug(debug_folders).map(|(_, bytes, elf)| More::Debug(bytes, elf)));
        }
        Ok(binary)
    }

    /// Of a file that is in memory.
    pub(super) fn of_memory(bytes: &'static [u8], path: &Path) -> Option<Self> {
        let elf = Elf::parse(bytes).ok()?;
        Some(Self { path: path.to_owned(), bytes: Bytes::Memory(bytes), elf, more: None, room: SORTED_MAX })
    }

    /// Of a file that is no longer there: what was kept of it, by its build id.
    pub(super) fn of_debug_file(build_id: &str, path: &Path) -> Option<Self> {
        by_build_id(build_id, &[]).into_iter().find_map(|file| {
            let (bytes, elf) = open_elf(&file).ok().filter(|(_, elf)| elf.build_id.as_deref() == Some(build_id))?;
            Some(Self { path: path.to_owned(), bytes, elf, more: None, room: SORTED_MAX })
        })
    }

    /// The GNU build id, in hexadecimal.
    #[must_use]
    pub fn build_id(&self) -> Option<&str> {
        self.elf.build_id.as_deref()
    }

    /// The debug file that belongs to it, in these folders, in `/usr/lib/debug`, or beside it.
    #[must_use]
    pub fn find_debug_file(&self, folders: &[PathBuf]) -> Option<PathBuf> {
        self.debug(folders).map(|(path, ..)| path)
    }

    /// The address that the file itself gives to what lies at a place in it, if that is loaded.
    #[must_use]
    pub fn address_of(&self, file_offset: u64) -> Option<u64> {
        self.elf.address_of(file_offset)
    }

    /// The function at an address that the file itself gives, demangled if it was written in Rust or C++, or else what it is called after.
    pub fn function(&mut self, address: u64) -> Option<String> {
        let mut room = self.room;
        let function = self.find(address, &mut room);
        self.room = room;
        function
    }

    pub(super) fn find(&mut self, address: u64, room: &mut usize) -> Option<String> {
        if let Some(function) = self.named(address, room) {
            return Some(demangled(function.name));
        }
        let begin = self.elf.beginning(&self.bytes, address)?;
        let label = self.path.file_name().unwrap_or(self.path.as_os_str()).to_string_lossy();
        Some(format!("{label}!{begin:#x}"))
    }

    fn named(&mut self, address: u64, room: &mut usize) -> Option<Function<'_>> {
        let Self { bytes, elf, more, .. } = self;
        let Elf { symbols, dynamic_symbols, .. } = elf;
        let of_more = match more {
            Some(More::Kept(other, kept)) => kept.find(other.as_ref().unwrap_or(bytes), address),
            Some(More::Debug(bytes, Elf { symbols: Some(symbols), .. })) => {
                symbols.sort(bytes, room);
                symbols.find(bytes, address)
            }
            _ => None,
        };
        let mut of_table = |table: &mut Option<_>| {
            let table: &mut super::elf::SymbolTable = table.as_mut()?;
            table.sort(bytes, room);
            table.find(bytes, address)
        };
        of_more.or_else(|| of_table(symbols)).or_else(|| of_table(dynamic_symbols))
    }

    /// What `freestone-bench profile symbols` writes: the names of all functions, to be kept where the file is stripped.
    ///
    /// # Errors
    ///
    /// It has none.
    pub fn symbols_to_keep(&self) -> Result<Vec<u8>, BinaryError> {
        kept::keep(&self.bytes, &self.elf).map_err(|why| BinaryError(format!("{} {why}", self.path.display())))
    }

    fn kept(&self) -> Option<More> {
        let is_ours = |kept: &Kept| kept.build_id == self.elf.build_id;
        if let Some(kept) = Kept::parse(&self.bytes).filter(is_ours) {
            return Some(More::Kept(None, kept));
        }
        let folder = symbols_folder().zip(self.build_id()).map(|(folder, id)| folder.join(format!("{id}.symbols")));
        folder.into_iter().chain([with_suffix(&self.path, ".symbols")]).find_map(|path| {
            let bytes = Bytes::map(&open_regular(&path).ok()?).ok()?;
            let kept = Kept::parse(&bytes).filter(is_ours)?;
            Some(More::Kept(Some(bytes), kept))
        })
    }

    fn debug(&self, folders: &[PathBuf]) -> Option<(PathBuf, Bytes, Elf)> {
        let id = self.build_id();
        let of_this_build = |path: PathBuf| {
            let (bytes, elf) = open_elf(&path).ok()?;
            let is_ours = elf.symbols.is_some() && id.is_some() && elf.build_id.as_deref() == id;
            is_ours.then_some((path, bytes, elf))
        };
        if let Some(found) = id.into_iter().flat_map(|id| by_build_id(id, folders)).find_map(of_this_build) {
            return Some(found);
        }
        let (name, sum) = self.elf.debug_link.as_ref()?;
        let name = Path::new(OsStr::from_bytes(name));
        let own = self.path.parent()?;
        let below = own.strip_prefix("/").unwrap_or(own);
        let beside = [own.join(name), own.join(".debug").join(name)].into_iter();
        beside.chain(all(folders).map(|folder| folder.join(below).join(name))).find_map(|path| {
            let (bytes, elf) = open_elf(&path).ok().filter(|(_, elf)| elf.symbols.is_some())?;
            // Without build ids the checksum has to say.
            let is_ours = elf.build_id.as_deref() == id && (id.is_some() || crc32fast::hash(&bytes) == *sum);
            is_ours.then_some((path, bytes, elf))
        })
    }
}

fn open_elf(path: &Path) -> Result<(Bytes, Elf), BinaryError> {
    let read = |error: io::Error| BinaryError(format!("cannot read {}: {error}", path.display()));
    let file = open_regular(path).map_err(read)?;
    let bytes = Bytes::map(&file).map_err(read)?;
    let elf = Elf::parse(&bytes).map_err(|why| BinaryError(format!("{} {why}", path.display())))?;
    Ok((bytes, elf))
}

/// Where a debug file would be.
fn by_build_id(id: &str, folders: &[PathBuf]) -> Vec<PathBuf> {
    let Some((head, tail)) = id.split_at_checked(2).filter(|(_, tail)| !tail.is_empty()) else { return Vec::new() };
    all(folders).map(|folder| folder.join(".build-id").join(head).join(format!("{tail}.debug"))).collect()
}

fn all(folders: &[PathBuf]) -> impl Iterator<Item = &Path> {
    folders.iter().map(PathBuf::as_path).chain([Path::new(DEBUG_FOLDER)])
}

/// The folder that the environment names; nobody else's, in a program that has rights which its user has not.
fn symbols_folder() -> Option<PathBuf> {
    let folder = std::env::var_os("FREESTONE_SYMBOLS").filter(|folder| !folder.is_empty());
    folder.filter(|_| !image::is_privileged()).map(PathBuf::from)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().as_bytes().to_vec();
    name.extend_from_slice(suffix.as_bytes());
    PathBuf::from(OsString::from_vec(name))
}

/// The name of a function as people write it, if it comes from Rust or C++: `tower::Tower::raise`, in C++ without what it takes and returns. A name of
/// another language stays as it is.
#[must_use]
pub fn demangle(name: &str) -> String {
    match rustc_demangle::try_demangle(name) {
        Ok(demangled) => format!("{demangled:#}"),
        Err(_) => demangle_cpp(name).unwrap_or_else(|| name.to_owned()),
    }
}

/// `None`: no such name, or one that is meant to take all memory: each part of a name may stand for all before it, twice.
fn demangle_cpp(name: &str) -> Option<String> {
    struct Bounded(String);
    impl fmt::Write for Bounded {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            const LONGEST_WRITTEN: usize = 16 << 10;
            if self.0.len() + part.len() > LONGEST_WRITTEN {
                return Err(fmt::Error);
            }
            self.0.push_str(part);
            Ok(())
        }
    }
    // No longer than people's are; and what is behind `cv` is parsed twice, again and again within itself, and a parameter's number is added to.
    const LONGEST: usize = 4 << 10;
    let numbers_are_small = || name.split('T').all(|rest| rest.bytes().take_while(u8::is_ascii_digit).count() < 10);
    if !name.starts_with("_Z") || name.len() > LONGEST || !numbers_are_small() {
        return None;
    }
    let depth = if name.contains("cv") { 48 } else { 96 };
    let symbol = Symbol::new_with_options(name, &ParseOptions::default().recursion_limit(depth)).ok()?;
    let mut written = Bounded(String::new());
    symbol.structured_demangle(&mut written, &DemangleOptions::new().no_params().no_return_type()).ok()?;
    Some(written.0)
}

/// The same of what a file says, which may be anything: it is one line.
fn demangled(name: &[u8]) -> String {
    let name = demangle(&String::from_utf8_lossy(name));
    if name.contains(char::is_control) { name.replace(char::is_control, "?") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_people_write_them() {
        for (name, written) in [
            ("_RNvMs_NtCs1234_5tower5towerNtB4_5Tower5raise", "<tower::tower::Tower>::raise"),
            ("_ZN5tower5Tower5raise17h0123456789abcdefE", "tower::Tower::raise"),
            ("_ZN5tower5Tower5raiseEi", "tower::Tower::raise"),
            ("_ZNSt6vectorIiSaIiEE9push_backERKi", "std::vector<int, std::allocator<int> >::push_back"),
            ("_Znwm", "operator new"),
            ("_ZNK5tower5TowereqERKS0_", "tower::Tower::operator=="),
            ("malloc", "malloc"),
            ("_ZN", "_ZN"),
            ("", ""),
        ] {
            assert_eq!(demangle(name), written);
        }
    }

    /// `f<a, p<a, a>, p<p<a, a>, p<a, a>>, …>`: each argument is a pair of the one before, so thirty of them are 2³⁰ letters.
    #[test]
    fn a_name_that_would_take_all_memory_stays_as_it_is() {
        let again = |number: u32| char::from_digit(number, 36).expect("a digit").to_ascii_uppercase();
        let pairs = |count: u32| {
            let further = (1..count).map(|pair| format!("S1_IS{0}_S{0}_E", again(pair + 1)));
            format!("_Z1fI1a1pIS0_S0_E{}Evv", further.collect::<String>())
        };
        assert_eq!(demangle(&pairs(2)), "f<a, p<a, a>, p<p<a, a>, p<a, a> > >");
        assert_eq!(demangle(&pairs(30)), pairs(30));
    }

    /// The first takes for ever, the others all of the stack, or are too large for a number.
    #[test]
    fn a_name_that_would_never_end_stays_as_it_is() {
        for name in [
            format!("_ZN1Acv{}c{}Ev", "T_I".repeat(20), "EIcE".repeat(20)),
            format!("_ZN{}Ev", "pl".repeat(100_000)),
            format!("_ZN1a{}Ev", "IcE".repeat(100_000)),
            "_Z1fIiEvT9223372036854775807_".to_owned(),
        ] {
            assert_eq!(demangle(&name), name);
        }
    }
}
