//! What the kernel says of every mapping: `/proc/self/smaps`, read line by line through a buffer on the stack. Pure: it reads from whatever it is
//! given, believes no number that has lost its end, and passes over lines that it does not know.

use std::io::{self, ErrorKind, Read};
use std::ops::Range;

/// Longer lines are cut. The longest that matter are headers, whose beginning says everything but a long path's end.
const LINE_BYTES_MAX: usize = 8 << 10;

/// One mapping: a stretch of address space with one owner, as far as the kernel knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Mapping {
    pub(super) range: Range<usize>,
    pub(super) label: Label,
    pub(super) access: Access,
    pub(super) pages: Pages,
    /// Bytes in memory.
    pub(super) resident: u64,
    /// Of these, in huge pages that the kernel made by itself.
    pub(super) huge: u64,
    /// Bytes in pages that somebody set aside as huge ones. The kernel does not count them as resident.
    pub(super) huge_tlb: u64,
    /// Bytes in swap.
    pub(super) swapped: u64,
}

/// Whether a mapping can hold memory of the process at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Access {
    Some,
    /// Neither to be read nor written nor run: a guard, or room that is not in use.
    None,
}

/// Whether small pages were asked for. Recent kernels (6.7) ask for them wherever a mapping was made to be a stack, and keep such a mapping
/// apart from its neighbours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pages {
    Any,
    Small,
}

/// What a mapping is, by its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Label {
    /// Private, and without a name: anybody's.
    Anonymous,
    /// The C library's heap, or named as one of its mappings.
    OtherAllocator,
    /// The main stack, or named as a stack.
    Stack,
    /// A file, or the kernel's own pages (`[vdso]`).
    File,
    /// Memory that other processes can map too, without being a file on a disk.
    Shared,
    /// Named by somebody who is not known here: `[anon:…]`.
    Named,
}

/// Calls `each` for every mapping, in the order of their addresses.
pub(super) fn each_mapping(source: &mut dyn Read, each: &mut dyn FnMut(Mapping)) -> io::Result<()> {
    let mut current: Option<Mapping> = None;
    each_line(source, &mut |line| {
        if let Some(next) = header(line) {
            if let Some(done) = current.replace(next) {
                each(done);
            }
        } else if let Some(mapping) = &mut current {
            field(line, mapping);
        }
    })?;
    if let Some(last) = current {
        each(last);
    }
    Ok(())
}

/// The whole process in one: `/proc/self/smaps_rollup`, or the one mapping of a text that has no other.
pub(super) fn total(source: &mut dyn Read) -> io::Result<Option<Mapping>> {
    let mut only = None;
    each_mapping(source, &mut |mapping| only = Some(mapping))?;
    Ok(only)
}

/// Calls `each` for every line, without its end.
pub(crate) fn each_line(source: &mut dyn Read, each: &mut dyn FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = [0; LINE_BYTES_MAX];
    let mut filled = 0;
    // The rest of a line that was cut.
    let mut skipping = false;
    loop {
        let got = match source.read(&mut buffer[filled..]) {
            Ok(got) => got,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        if got == 0 {
            if filled > 0 && !skipping {
                each(&buffer[..filled]);
            }
            return Ok(());
        }
        filled += got;
        let mut begin = 0;
        while let Some(length) = buffer[begin..filled].iter().position(|&byte| byte == b'\n') {
            if !skipping {
                each(&buffer[begin..begin + length]);
            }
            skipping = false;
            begin += length + 1;
        }
        buffer.copy_within(begin..filled, 0);
        filled -= begin;
        if filled == buffer.len() {
            if !skipping {
                each(&buffer);
            }
            skipping = true;
            filled = 0;
        }
    }
}

/// `7fe5…000-7fe5…000 rw-p 00000000 00:00 0   [heap]`
fn header(line: &[u8]) -> Option<Mapping> {
    let mut fields = line.splitn(6, |&byte| byte == b' ');
    let mut ends = fields.next()?.split(|&byte| byte == b'-');
    let range = hex(ends.next()?)?..hex(ends.next()?)?;
    let rights = fields.next()?;
    let inode = fields.nth(2)?;
    let name = fields.next().unwrap_or_default().trim_ascii();
    if range.is_empty() || ends.next().is_some() || rights.len() != 4 || !inode.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(Mapping {
        range,
        label: label(name, inode, rights[3] == b's'),
        access: if rights.starts_with(b"---") { Access::None } else { Access::Some },
        pages: Pages::Any,
        resident: 0,
        huge: 0,
        huge_tlb: 0,
        swapped: 0,
    })
}

fn label(name: &[u8], inode: &[u8], shared: bool) -> Label {
    let any = |beginnings: &[&[u8]]| beginnings.iter().any(|beginning| name.starts_with(beginning));
    match name {
        b"" if inode != b"0" => Label::File,
        b"" if shared => Label::Shared,
        b"" => Label::Anonymous,
        b"[heap]" => Label::OtherAllocator,
        _ if any(&[b"[anon_shmem:"]) => Label::Shared,
        // These names are there from glibc 2.39 on, with the tunable `glibc.mem.decorate_maps`.
        _ if any(&[b"[anon: glibc: malloc", b"[anon: glibc: loader malloc"]) => Label::OtherAllocator,
        _ if any(&[b"[stack", b"[anon: glibc: pthread"]) => Label::Stack,
        _ if any(&[b"[anon:"]) => Label::Named,
        _ if any(&[b"["]) => Label::File,
        // A private mapping of it is how one asked for anonymous memory once.
        _ if any(&[b"/dev/zero"]) && !shared => Label::Anonymous,
        _ if any(&[b"/memfd:", b"/SYSV", b"/dev/zero", b"/dev/shm/", b"/anon_hugepage"]) => Label::Shared,
        _ if any(&[b"/"]) => Label::File,
        // Rings that the kernel shares with the process: `anon_inode:[io_uring]`.
        _ => Label::Shared,
    }
}

/// `Rss:                1772 kB`, or `VmFlags: rd wr mr mw me ac sd`
fn field(line: &[u8], mapping: &mut Mapping) {
    let Some(colon) = line.iter().position(|&byte| byte == b':') else { return };
    let (key, value) = (&line[..colon], line[colon + 1..].trim_ascii());
    if key == b"VmFlags" {
        if value.split(|&byte| byte == b' ').any(|flag| flag == b"nh") {
            mapping.pages = Pages::Small;
        }
        return;
    }
    // Without its unit a number was cut off.
    let Some(bytes) = value.strip_suffix(b" kB").and_then(decimal).map(|kibibytes| kibibytes.saturating_mul(1024)) else {
        return;
    };
    // No more than there is room for, so that sums stay sums.
    let bytes = bytes.min(mapping.range.len() as u64);
    match key {
        b"Rss" => mapping.resident = bytes,
        b"AnonHugePages" => mapping.huge = bytes,
        b"Swap" => mapping.swapped = bytes,
        b"Shared_Hugetlb" | b"Private_Hugetlb" => mapping.huge_tlb = mapping.huge_tlb.saturating_add(bytes),
        _ => {}
    }
}

pub(super) fn decimal(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()))?.parse().ok()
}

pub(super) fn hex(digits: &[u8]) -> Option<usize> {
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))?;
    usize::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "7fe503bc2000-7fe503be4000 rw-p 00000000 00:00 0 ";

    fn parsed(text: &str) -> Vec<Mapping> {
        let mut all = Vec::new();
        each_mapping(&mut text.as_bytes(), &mut |mapping| all.push(mapping)).expect("a slice can be read");
        all
    }

    fn label_of(name: &str) -> Label {
        let all = parsed(&format!("1000-2000 rw-p 00000000 00:01 7 {name}"));
        assert_eq!(all.len(), 1, "{name}");
        all[0].label
    }

    #[test]
    fn a_mapping_is_read() {
        let all = parsed(include_str!("recorded_smaps.txt"));
        assert_eq!(all.len(), 8, "{all:#?}");
        assert_eq!(all.iter().map(|mapping| mapping.label).collect::<Vec<_>>(), {
            use Label::{Anonymous, File, OtherAllocator, Shared, Stack};
            [File, File, OtherAllocator, Anonymous, Anonymous, Shared, Stack, File]
        });
        assert_eq!((all[2].resident, all[2].swapped), (2_097_152, 12_288));
        assert_eq!((all[3].access, all[3].resident), (Access::None, 0));
        assert_eq!((all[4].pages, all[4].range.len(), all[4].huge), (Pages::Small, 2 << 20, 0));
        assert_eq!((all[5].huge, all[5].huge_tlb), (2 << 20, 4 << 20));
        assert!(all.is_sorted_by_key(|mapping| mapping.range.start));
    }

    #[test]
    fn names_say_what_a_mapping_is() {
        for name in ["[vdso]", "[vvar]", "[vsyscall]", "/usr/bin/cat", "/a path/with (deleted)", "/dev/zeroes are not zero/x"] {
            let expected = if name.starts_with("/dev/zero") { Label::Anonymous } else { Label::File };
            assert_eq!(label_of(name), expected, "{name}");
        }
        for name in ["/memfd:ring (deleted)", "/SYSV00000000 (deleted)", "/dev/shm/a", "[anon_shmem:a]", "anon_inode:[io_uring]"]
        {
            assert_eq!(label_of(name), Label::Shared, "{name}");
        }
        assert_eq!(label_of("[anon: glibc: malloc arena]"), Label::OtherAllocator);
        assert_eq!(label_of("[anon: glibc: pthread stack: 4711]"), Label::Stack);
        assert_eq!(label_of("[stack:4711]"), Label::Stack);
        assert_eq!(label_of("[anon:jit]"), Label::Named);
        assert_eq!(label_of(""), Label::File, "something with an inode");
        assert_eq!(parsed("1000-2000 rw-s 00000000 00:01 7 /dev/zero (deleted)")[0].label, Label::Shared);
    }

    #[test]
    fn what_was_cut_off_is_not_believed() {
        let whole = format!("{HEADER}\nRss:                 132 kB\n");
        assert_eq!(parsed(&whole)[0].resident, 132 << 10);
        for length in 0..whole.len() - 1 {
            for mapping in parsed(&whole[..length]) {
                // The last line ends with its unit, one byte before its end.
                assert_eq!(mapping.resident, 0, "{length} bytes");
            }
        }
    }

    #[test]
    fn hostile_texts_are_passed_over() {
        let strange = [
            "",
            "\n\n\n",
            "Rss: 5 kB",
            "2000-1000 rw-p 0 0:0 0",
            "1000-1000 rw-p 0 0:0 0",
            "1000-2000-3000 rw-p 0 0:0 0",
            "1000-2000",
            "1000-2000 rw-p 0 0:0",
            "1000-2000 rw 0 0:0 0",
            "+1000-2000 rw-p 0 0:0 0",
            "1ffffffffffffffff-2ffffffffffffffff rw-p 0 0:0 0",
            "1000-2000 rw-p 0 0:0 x",
            "\u{0}\u{1}\u{2}",
        ];
        for text in strange {
            assert_eq!(parsed(text), [], "{text:?}");
        }
        for field in [
            "Rss: -5 kB",
            "Rss: 5 MB",
            "Rss: 99999999999999999999999 kB",
            "Rss 5 kB",
            "Rss: five kB",
            ":",
            "Rss: kB",
            "rss: 5 kB",
        ] {
            assert_eq!(parsed(&format!("{HEADER}\n{field}\n"))[0].resident, 0, "{field:?}");
        }
        let [huge] = &parsed(&format!("{HEADER}\nRss: {0} kB\nSwap: {0} kB\n", u64::MAX))[..] else { panic!("one mapping") };
        assert_eq!((huge.resident, huge.swapped), (136 << 10, 136 << 10), "no more than its length");
    }

    #[test]
    fn long_lines_are_cut_and_their_rest_is_skipped() {
        let path = "/x".repeat(LINE_BYTES_MAX);
        let text = format!("1000-2000 rw-p 00000000 08:01 7   {path}\nRss: 4 kB\n{HEADER}\nRss: 8 kB\n");
        let all = parsed(&text);
        assert_eq!(all.iter().map(|mapping| mapping.resident).collect::<Vec<_>>(), [4096, 8192]);
        assert_eq!(parsed(&format!("{HEADER}\n{}", "R".repeat(5 * LINE_BYTES_MAX))).len(), 1);
    }

    /// Gives a few bytes at a time, as the kernel may.
    struct Trickle<'a>(&'a [u8], usize);

    impl Read for Trickle<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.1 += 1;
            if self.1.is_multiple_of(5) {
                return Err(ErrorKind::Interrupted.into());
            }
            let length = self.0.len().min(buffer.len()).min(self.1 % 7 + 1);
            buffer[..length].copy_from_slice(&self.0[..length]);
            self.0 = &self.0[length..];
            Ok(length)
        }
    }

    #[test]
    fn it_does_not_matter_where_reads_end() {
        let text = include_str!("recorded_smaps.txt");
        let mut all = Vec::new();
        each_mapping(&mut Trickle(text.as_bytes(), 0), &mut |mapping| all.push(mapping)).expect("interruptions are no errors");
        assert_eq!(all, parsed(text));
    }

    #[test]
    fn the_roll_up_is_one_mapping() {
        let text = "55b9a82b5000-7fff88176000 ---p 00000000 00:00 0                          [rollup]\nRss:                1772 kB\nSwap:    8 kB\n";
        let total = total(&mut text.as_bytes()).expect("a slice can be read").expect("one mapping");
        assert_eq!((total.resident, total.swapped), (1772 << 10, 8 << 10));
    }
}
