//! The executable mappings of the process.
//!
//! Two know of them. The kernel (`/proc/self/maps`) knows every mapping and the name of its file, but not which file's contents lie there when a program has
//! put its code into huge pages, and cannot be asked in a chroot without `/proc`. The dynamic linker knows the segments of all that it loaded, and where in
//! memory their build ids are, but no better names than it was given. So segments come from the dynamic linker, names from the kernel, and what only the
//! kernel knows of is added.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::ops::Range;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::image::{self, Changes, Image};
use super::open_regular;
use crate::process::smaps::each_line;

/// A stretch of addresses with code in it, and where that comes from.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Mapping {
    /// Where it begins.
    pub start: u64,
    /// Where it ends: the first address behind it.
    pub end: u64,
    /// What of the file lies at `start`, in bytes from its beginning.
    pub file_offset: u64,
    /// The file, as it was called when it was mapped. Of what is no file, such as `[vdso]`, the name that the kernel has for it.
    pub path: PathBuf,
    /// The GNU build id, in hexadecimal.
    pub build_id: Option<String>,
    /// It is the program itself; all others are libraries.
    pub is_main: bool,
    /// The file was deleted or replaced since: what `path` leads to is not it.
    pub is_deleted: bool,
    /// What has to be taken from an address for the one that the file gives itself; `None`: only the file knows.
    pub(crate) bias: Option<u64>,
}

impl Mapping {
    /// Does an address lie in it?
    #[must_use]
    pub fn contains(&self, address: u64) -> bool {
        (self.start..self.end).contains(&address)
    }
}

/// For so long it is believed that mappings are the same, unless libraries came or went.
const FRESH_FOR: Duration = Duration::from_secs(1);

struct Known {
    since: Instant,
    changes: Changes,
    mappings: Vec<Mapping>,
}

static KNOWN: Mutex<Option<Known>> = Mutex::new(None);

/// All mappings with code, the program's own first, the others by address. What is not known is left out; without `/proc` that are names of libraries
/// other than those they were loaded by.
///
/// Nothing of this is read from the files themselves, so that it is right for files which were replaced since; but for files that are no libraries
/// of the process, and mapped with code all the same.
#[must_use]
pub fn mappings() -> Vec<Mapping> {
    freestone::profile::without_samples(|| {
        let changes = image::changes();
        // In the child of a fork nobody may ever unlock it again, so nobody waits for it.
        if let Ok(known) = KNOWN.try_lock()
            && let Some(known) = known.as_ref().filter(|its| its.changes == changes && its.since.elapsed() < FRESH_FOR)
        {
            return known.mappings.clone();
        }
        let mappings = read();
        if let Ok(mut known) = KNOWN.try_lock() {
            *known = Some(Known { since: Instant::now(), changes, mappings: mappings.clone() });
        }
        mappings
    })
}

fn read() -> Vec<Mapping> {
    let mut regions = Vec::new();
    // Without /proc there are none.
    if let Ok(mut file) = File::open("/proc/self/maps") {
        regions = read_regions(&mut file);
    }
    let mut images = image::images();
    let vdso = image::vdso();
    if let Some(vdso) = &vdso {
        // Some dynamic linkers list it, under a name of their own.
        images.retain(|image| image.extent.is_empty() || !overlap(&image.extent, &vdso.extent));
    }
    images.extend(vdso);
    merge(regions, images)
}

/// A line of `/proc/self/maps`, or several that continue each other.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Region {
    range: Range<u64>,
    offset: u64,
    inode: u64,
    has_code: bool,
    name: Vec<u8>,
}

impl Region {
    /// Is there a file behind it?
    fn is_named(&self) -> bool {
        self.inode != 0 && !self.name.is_empty()
    }

    /// The file, and whether it has gone.
    ///
    /// The kernel writes ` (deleted)` behind names of files that have, and a line end in a name as `\012`, but leaves names alone that look so without
    /// any of that. So what is the name of the very file is taken as it is.
    fn path(&self) -> (PathBuf, bool) {
        let is_it = |path: &PathBuf| fs::metadata(path).is_ok_and(|its| its.ino() == self.inode);
        let as_it_is = [to_path(&self.name), to_path(&unescaped(&self.name))];
        if let Some(path) = as_it_is.into_iter().find(is_it) {
            return (path, false);
        }
        let rest = self.name.strip_suffix(b" (deleted)");
        (to_path(&unescaped(rest.unwrap_or(&self.name))), rest.is_some())
    }
}

fn to_path(name: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(name.to_vec()))
}

fn unescaped(name: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(name.len());
    let mut rest = name;
    while let Some((&first, tail)) = rest.split_first() {
        let line_end = rest.strip_prefix(b"\\012");
        text.push(if line_end.is_some() { b'\n' } else { first });
        rest = line_end.unwrap_or(tail);
    }
    text
}

/// What comes from files, in the order of addresses; neighbours that continue each other are one.
fn read_regions(source: &mut dyn Read) -> Vec<Region> {
    let mut regions: Vec<Region> = Vec::new();
    let read = each_line(source, &mut |line| {
        let Some(region) = region(line).filter(Region::is_named) else { return };
        match regions.last_mut() {
            Some(last) if continues(last, &region) => last.range.end = region.range.end,
            _ => regions.push(region),
        }
    });
    // What came before an error is as good as ever.
    let _ = read;
    regions
}

fn continues(last: &Region, next: &Region) -> bool {
    last.range.end == next.range.start
        && last.has_code == next.has_code
        && last.inode == next.inode
        && last.offset.checked_add(last.range.end - last.range.start) == Some(next.offset)
        && last.name == next.name
}

/// `55d0…000-55d0…000 r-xp 00004000 08:01 1234   /usr/bin/app`
fn region(line: &[u8]) -> Option<Region> {
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let mut ends = fields.next()?.split(|&byte| byte == b'-');
    let range = number(ends.next()?, 16)?..number(ends.next()?, 16)?;
    let rights = fields.next()?;
    let offset = number(fields.next()?, 16)?;
    let inode = number(fields.nth(1)?, 10)?;
    // Spaces up to the column where names begin; a name itself begins with none, since it is a path from the root.
    let name = fields.next().unwrap_or_default().trim_ascii_start().to_vec();
    if range.is_empty() || ends.next().is_some() || rights.len() != 4 {
        return None;
    }
    Some(Region { range, offset, inode, has_code: rights[2] == b'x', name })
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(str::from_utf8(digits).ok()?, radix).ok()
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

/// Puts together what the kernel and the dynamic linker know. The first image is the program.
fn merge(regions: Vec<Region>, images: Vec<Image>) -> Vec<Mapping> {
    let mut mappings = Vec::new();
    for (number, image) in images.into_iter().enumerate() {
        let is_main = number == 0;
        let (path, is_deleted) = named(&regions, &image, is_main);
        for code in image.code {
            mappings.push(Mapping {
                start: code.range.start,
                end: code.range.end,
                file_offset: code.file_offset,
                path: path.clone(),
                build_id: image.build_id.clone(),
                is_main,
                is_deleted,
                bias: Some(image.bias),
            });
        }
    }
    let loaded = mappings.len();
    for region in regions.into_iter().filter(|region| region.has_code) {
        if mappings[..loaded].iter().any(|known| overlap(&(known.start..known.end), &region.range)) {
            continue;
        }
        let (path, is_deleted) = region.path();
        let build_id = if is_deleted { None } else { build_id_of(&path) };
        let Range { start, end } = region.range;
        mappings.push(Mapping { start, end, file_offset: region.offset, path, build_id, is_main: false, is_deleted, bias: None });
    }
    mappings.sort_by_key(|mapping| (!mapping.is_main, mapping.start));
    mappings
}

/// The name of an image's file: of its code, or else of whatever of it comes from a file.
fn named(regions: &[Region], image: &Image, is_main: bool) -> (PathBuf, bool) {
    if image.path.as_os_str().as_bytes().starts_with(b"[") {
        return (image.path.clone(), false);
    }
    let in_code = |region: &&Region| image.code.iter().any(|code| overlap(&code.range, &region.range));
    let in_it = |region: &&Region| overlap(&image.extent, &region.range);
    let files = || regions.iter().filter(|region| region.is_named() && region.name.starts_with(b"/"));
    let found = files().find(in_code).or_else(|| files().find(in_it)).map(Region::path);
    let otherwise = || if is_main { image::executable().unwrap_or_default() } else { image.path.clone() };
    found.unwrap_or_else(|| (otherwise(), false))
}

fn build_id_of(path: &Path) -> Option<String> {
    image::build_id_of(&open_regular(path).ok()?)
}

#[cfg(test)]
mod tests {
    use super::super::image::Code;
    use super::*;

    fn image(path: &str, begin: u64) -> Image {
        let code = Code { range: begin + 0x1000..begin + 0x3000, file_offset: 0x1000 };
        Image { path: path.into(), build_id: Some("ab".into()), bias: begin, extent: begin..begin + 0x5000, code: vec![code] }
    }

    fn regions(text: &str) -> Vec<Region> {
        read_regions(&mut text.as_bytes())
    }

    #[test]
    fn names_come_from_the_kernel_and_segments_from_the_dynamic_linker() {
        let text = "\
            00010000-00011000 r--p 00000000 08:01 7    /srv/my app\n\
            00011000-00012000 r-xp 00001000 08:01 7    /srv/my app\n\
            00012000-00013000 r-xp 00002000 08:01 7    /srv/my app\n\
            00090000-00091000 r--p 00000000 08:01 8    /lib/real.so (deleted)\n\
            00091000-00093000 r-xp 00000000 00:00 0 \n\
            000a0000-000a1000 r-xp 00003000 08:01 9    /srv/other\\012way\n\
            000a1000-000a2000 r-xp 00004000 08:01 9    /srv/other\\012way\n\
            000a2000-000a3000 r-xp 00009000 08:01 9    /srv/other\\012way\n\
            000b0000-000b1000 r-xp 00000000 00:00 0 \n\
            7ff000-800000 nonsense\n\
            ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0  [vsyscall]\n";
        let all = merge(regions(text), vec![image("", 0x10000), image("link.so", 0x90000), image("[vdso]", 0x50000)]);
        let short: Vec<_> = all
            .iter()
            .map(|its| (its.start, its.end, its.file_offset, its.path.to_str().unwrap_or_default(), its.is_main, its.is_deleted))
            .collect();
        assert_eq!(
            short,
            [
                (0x11000, 0x13000, 0x1000, "/srv/my app", true, false),
                (0x51000, 0x53000, 0x1000, "[vdso]", false, false),
                // Its code lies in huge pages, which have no name.
                (0x91000, 0x93000, 0x1000, "/lib/real.so", false, true),
                // Of nobody that the dynamic linker knows.
                (0xa0000, 0xa2000, 0x3000, "/srv/other\nway", false, false),
                (0xa2000, 0xa3000, 0x9000, "/srv/other\nway", false, false),
            ]
        );
        assert_eq!(
            (all[0].build_id.as_deref(), all[3].build_id.as_deref(), all[0].bias, all[3].bias),
            (Some("ab"), None, Some(0x10000), None)
        );
    }

    #[test]
    fn without_proc_there_are_the_names_of_the_dynamic_linker() {
        let all = merge(Vec::new(), image::images());
        let here = without_proc as fn() as usize as u64;
        assert!(all[0].is_main && all[0].contains(here) && all[0].path.is_absolute(), "{all:?}");
        assert!(all.iter().any(|its| its.path.to_string_lossy().contains("libc")), "{all:?}");
    }

    fn without_proc() {}

    #[test]
    fn lines_that_say_nothing_are_passed_over() {
        for text in [
            "",
            "\n\n",
            "1-2",
            "2-1 r-xp 0 08:01 7 /x\n",
            "x-y r-xp 0 08:01 7 /x\n",
            "1-2 r-xp 0 08:01 x /x\n",
            "1-2-3 r-xp 0 08:01 7 /x\n",
        ] {
            assert_eq!(regions(text), [], "{text}");
        }
        assert_eq!(regions("1000-2000 r-xp 0 08:01 7 /x\n")[0].name, b"/x");
    }
}
