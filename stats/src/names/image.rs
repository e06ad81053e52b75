//! What the dynamic linker has loaded, as it lies in memory. What a file on the disk says may be about another build of it; memory cannot be wrong.

use std::ffi::{CStr, OsString};
use std::fs::File;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::FileExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::{ptr, slice};

use super::note::build_id;

#[cfg(target_pointer_width = "32")]
use libc::{Elf32_Ehdr as FileHeader, Elf32_Phdr as ProgramHeader};
#[cfg(target_pointer_width = "64")]
use libc::{Elf64_Ehdr as FileHeader, Elf64_Phdr as ProgramHeader};

/// Notes of more bytes are not looked at.
const NOTE_BYTES_MAX: u64 = 64 << 10;

/// A program or library in memory.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Image {
    /// As the dynamic linker calls it: empty for the program itself.
    pub(super) path: PathBuf,
    pub(super) build_id: Option<String>,
    /// What its addresses are more than its file says.
    pub(super) bias: u64,
    /// From its first to its last byte.
    pub(super) extent: Range<u64>,
    /// Its code, in whole pages.
    pub(super) code: Vec<Code>,
}

/// A loaded segment with code in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Code {
    pub(super) range: Range<u64>,
    pub(super) file_offset: u64,
}

/// How often libraries came and went so far. Equal: the same ones are loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Changes {
    came: u64,
    went: u64,
}

/// All images, the program itself first. The kernel's own, the vdso, is among them where the dynamic linker says so.
pub(super) fn images() -> Vec<Image> {
    let mut images = Vec::new();
    each_image(&mut |info| {
        // SAFETY: the dynamic linker's own list of program headers, which it keeps while it calls.
        let headers = unsafe { headers(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        // SAFETY: the dynamic linker mapped what these headers say at this address, and keeps it while it calls.
        let mut image = unsafe { image(word(info.dlpi_addr), headers) };
        if !info.dlpi_name.is_null() {
            // SAFETY: a name of the dynamic linker, which ends with a zero.
            image.path = path(unsafe { CStr::from_ptr(info.dlpi_name) });
        }
        images.push(image);
        Go::On
    });
    images
}

pub(super) fn changes() -> Changes {
    let mut changes = Changes::default();
    each_image(&mut |info| {
        changes = Changes { came: info.dlpi_adds, went: info.dlpi_subs };
        Go::Home
    });
    changes
}

/// What the kernel put into every process, and told it the address of.
pub(super) fn vdso() -> Option<Image> {
    // SAFETY: takes a number, and gives one.
    let begin = unsafe { libc::getauxval(libc::AT_SYSINFO_EHDR) };
    let begin = ptr::with_exposed_provenance::<FileHeader>(usize::try_from(begin).ok().filter(|&begin| begin != 0)?);
    // SAFETY: the kernel says that an ELF file begins here, and never takes it away.
    let header = unsafe { begin.read() };
    if !header.e_ident.starts_with(b"\x7fELF") || usize::from(header.e_phentsize) != size_of::<ProgramHeader>() {
        return None;
    }
    let first = begin.cast::<u8>().wrapping_add(usize::try_from(header.e_phoff).ok()?).cast::<ProgramHeader>();
    // SAFETY: the kernel's own file is whole, headers and all.
    let headers = unsafe { headers(first, usize::from(header.e_phnum)) };
    let loaded = headers.iter().find(|header| header.p_type == libc::PT_LOAD)?;
    let bias = (begin.addr() as u64).wrapping_sub(word(loaded.p_vaddr)).wrapping_add(word(loaded.p_offset));
    // SAFETY: as above.
    let mut image = unsafe { image(bias, headers) };
    image.path = PathBuf::from("[vdso]");
    Some(image)
}

/// The same as a file.
#[cfg(feature = "names")]
pub(super) fn vdso_bytes() -> Option<&'static [u8]> {
    let code = vdso()?.code.into_iter().next()?.range;
    let begin = ptr::with_exposed_provenance(code.start as usize);
    // SAFETY: whole pages that the kernel mapped, to be read and run, for as long as the process lives.
    Some(unsafe { slice::from_raw_parts(begin, (code.end - code.start) as usize) })
}

/// Does the program have rights that whoever started it has not? Then nothing that the environment says is to be believed.
#[cfg(feature = "names")]
pub(super) fn is_privileged() -> bool {
    // SAFETY: takes a number, and gives one.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The program's own file, as its name was when it began. For where `/proc` is not there.
pub(super) fn executable() -> Option<PathBuf> {
    std::env::current_exe().ok().or_else(|| {
        // SAFETY: takes a number, and gives one.
        let name = unsafe { libc::getauxval(libc::AT_EXECFN) };
        let name = ptr::with_exposed_provenance::<libc::c_char>(usize::try_from(name).ok().filter(|&name| name != 0)?);
        // SAFETY: the kernel put the name that the program was started by at the top of the stack, and a zero behind it.
        Some(path(unsafe { CStr::from_ptr(name) }))
    })
}

/// The build id that a file says it has: for one that the dynamic linker knows nothing of.
pub(super) fn build_id_of(file: &File) -> Option<String> {
    let header: FileHeader = read_at(file, 0)?;
    let is_ours = header.e_ident[..4] == *b"\x7fELF"
        && usize::from(header.e_ident[4]) == size_of::<usize>() / 4
        && (header.e_ident[5] == 1) == cfg!(target_endian = "little");
    if !is_ours || usize::from(header.e_phentsize) != size_of::<ProgramHeader>() {
        return None;
    }
    (0..u64::from(header.e_phnum)).find_map(|number| {
        let at = word(header.e_phoff).checked_add(number * size_of::<ProgramHeader>() as u64)?;
        let header: ProgramHeader = read_at(file, at)?;
        if header.p_type != libc::PT_NOTE || word(header.p_filesz) > NOTE_BYTES_MAX {
            return None;
        }
        let mut notes = vec![0; usize::try_from(header.p_filesz).ok()?];
        file.read_exact_at(&mut notes, word(header.p_offset)).ok()?;
        build_id(&notes, word(header.p_align))
    })
}

/// Whether there is more to see.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Go {
    On,
    Home,
}

/// Asks the dynamic linker, which holds its lock meanwhile: nothing that is looked at goes away.
fn each_image(each: &mut dyn FnMut(&libc::dl_phdr_info) -> Go) {
    type Each<'a> = &'a mut dyn FnMut(&libc::dl_phdr_info) -> Go;
    unsafe extern "C" fn call(info: *mut libc::dl_phdr_info, _: libc::size_t, each: *mut libc::c_void) -> libc::c_int {
        // SAFETY: the address of the variable below, which nobody else uses while the dynamic linker calls.
        let each = unsafe { &mut *each.cast::<Each<'_>>() };
        // SAFETY: the dynamic linker's own, for the time of the call.
        let info = unsafe { &*info };
        // Nothing may unwind into C.
        let went = catch_unwind(AssertUnwindSafe(|| each(info))).unwrap_or(Go::Home);
        libc::c_int::from(went == Go::Home)
    }
    let mut each: Each<'_> = each;
    // SAFETY: `call` takes what it is given here.
    unsafe { libc::dl_iterate_phdr(Some(call), (&raw mut each).cast()) };
}

/// # Safety
///
/// - `first` is null, or the first of `count` program headers that outlive `'a`.
unsafe fn headers<'a>(first: *const ProgramHeader, count: usize) -> &'a [ProgramHeader] {
    if first.is_null() || !first.is_aligned() {
        return &[];
    }
    // SAFETY: the caller's word.
    unsafe { slice::from_raw_parts(first, count) }
}

/// What there is to know of an image whose addresses are `bias` more than its headers say. Without a name.
///
/// # Safety
///
/// - What the headers say is loaded is mapped there, for the time of this call.
unsafe fn image(bias: u64, headers: &[ProgramHeader]) -> Image {
    let begin = |header: &ProgramHeader| bias.wrapping_add(word(header.p_vaddr));
    let page = page_bytes();
    let loaded = || headers.iter().filter(|header| header.p_type == libc::PT_LOAD);
    let code = loaded().filter(|header| header.p_flags & libc::PF_X != 0).map(|header| {
        let end = begin(header).saturating_add(word(header.p_memsz));
        let range = begin(header) / page * page..end.next_multiple_of(page);
        Code { range, file_offset: word(header.p_offset) / page * page }
    });
    let first = loaded().map(begin).min().unwrap_or(0);
    let last = loaded().map(|header| begin(header).saturating_add(word(header.p_memsz))).max().unwrap_or(0);
    let notes = headers.iter().filter(|header| header.p_type == libc::PT_NOTE && word(header.p_filesz) <= NOTE_BYTES_MAX);
    let build_id = notes.filter(|note| lies_in_file(note, loaded())).find_map(|header| {
        let notes = ptr::with_exposed_provenance(begin(header) as usize);
        // SAFETY: a part of a readable segment that comes from the file, as was just asked, and the caller says that this is mapped.
        let notes: &[u8] = unsafe { slice::from_raw_parts(notes, header.p_filesz as usize) };
        self::build_id(notes, word(header.p_align))
    });
    Image { path: PathBuf::new(), build_id, bias, extent: first..last.max(first), code: code.collect() }
}

/// Does a part of the file lie in memory, where it can be read?
fn lies_in_file<'a>(part: &ProgramHeader, mut loaded: impl Iterator<Item = &'a ProgramHeader>) -> bool {
    let end = part.p_vaddr.checked_add(part.p_filesz);
    loaded.any(|its| {
        its.p_flags & libc::PF_R != 0
            && part.p_vaddr >= its.p_vaddr
            && end.is_some_and(|end| its.p_vaddr.checked_add(its.p_filesz).is_some_and(|its_end| end <= its_end))
    })
}

/// A number of an ELF file, which has 32 bits on machines that have.
#[allow(clippy::useless_conversion)]
fn word(number: impl Into<u64>) -> u64 {
    number.into()
}

fn page_bytes() -> u64 {
    // SAFETY: takes a number, and gives one.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok().filter(|&bytes| bytes > 0).unwrap_or(4096)
}

fn path(name: &CStr) -> PathBuf {
    PathBuf::from(OsString::from_vec(name.to_bytes().to_vec()))
}

/// A header, which consists of numbers only.
fn read_at<T: Copy>(file: &File, at: u64) -> Option<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: all of its bytes were written.
    let bytes = unsafe { slice::from_raw_parts_mut(value.as_mut_ptr().cast::<u8>(), size_of::<T>()) };
    file.read_exact_at(bytes, at).ok()?;
    // SAFETY: a header of an ELF file is one for whatever bytes.
    Some(unsafe { value.assume_init() })
}
