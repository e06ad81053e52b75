//! Floor 2. What the kernel says of the world around the heap: memory there is, memory that is resident, programs that wait for memory.
//!
//! Files that are absent are simply absent: a kernel without pressure information, a process in no control group, a sandbox without `/proc`.
//! Parsing is pure; reading goes into a buffer on the stack.

use core::ffi::CStr;

use crate::options::parse_number;
use crate::os;

/// Paths of control groups longer than this are taken for absent.
const PATH_BYTES: usize = 512;

/// Memory that this process may have, in bytes: the machine's, or what the control group or one above it allows (version 2), whichever is
/// less. `None`: nobody can say.
pub(crate) fn memory_bytes() -> Option<usize> {
    let mut least = match os::memory_bytes() {
        0 => usize::MAX,
        bytes => bytes,
    };
    let mut text = [0; PATH_BYTES];
    let group = os::read_file(c"/proc/self/cgroup", &mut text).and_then(group_of).unwrap_or(b"/");
    each_group(group, |group| {
        let mut path = Path::new();
        let mut text = [0; 32];
        if let Some(limit) = path.join(group, b"/memory.max").and_then(|path| os::read_file(path, &mut text)).and_then(number) {
            least = least.min(usize::try_from(limit).unwrap_or(usize::MAX));
        }
    });
    (least != usize::MAX).then_some(least)
}

/// What is resident of the process, and how much of that is backed by files or shared, in bytes: by the kernel's quick count, which may be off
/// by some pages per thread.
pub(crate) fn resident() -> Option<[usize; 2]> {
    let mut text = [0; 128];
    let mut numbers = os::read_file(c"/proc/self/statm", &mut text)?.split(|&byte| byte == b' ');
    let (resident, of_files) = (numbers.nth(1).and_then(number)?, numbers.next().and_then(number)?);
    Some([resident as usize * os::page_bytes(), of_files as usize * os::page_bytes()])
}

/// What is resident of the process and backed by no file, in bytes.
pub(crate) fn resident_bytes() -> Option<usize> {
    let [total, of_files] = resident()?;
    Some(total.saturating_sub(of_files))
}

/// For how many percent of the last ten seconds some program of the control group, or where there is none of the machine, waited for memory.
pub(crate) fn pressure_percent() -> Option<u32> {
    let mut text = [0; PATH_BYTES];
    let group = os::read_file(c"/proc/self/cgroup", &mut text).and_then(group_of).unwrap_or(b"/");
    let mut path = Path::new();
    let mut pressure = [0; 256];
    if let Some(percent) =
        path.join(group, b"/memory.pressure").and_then(|path| os::read_file(path, &mut pressure)).and_then(some_avg10)
    {
        return Some(percent);
    }
    some_avg10(os::read_file(c"/proc/pressure/memory", &mut pressure)?)
}

/// A path that ends with a zero byte, put together on the stack.
struct Path([u8; PATH_BYTES + 64]);

impl Path {
    const fn new() -> Self {
        Self([0; PATH_BYTES + 64])
    }

    fn join(&mut self, group: &[u8], file: &[u8]) -> Option<&CStr> {
        let group = if group == b"/" { b"" } else { group };
        let mut length = 0;
        for part in [b"/sys/fs/cgroup", group, file] {
            self.0.get_mut(length..length + part.len())?.copy_from_slice(part);
            length += part.len();
        }
        CStr::from_bytes_until_nul(&self.0).ok()
    }
}

/// The path of the process's group of version 2, out of `/proc/self/cgroup`.
fn group_of(text: &[u8]) -> Option<&[u8]> {
    let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))?;
    // A path that fills the buffer was cut off.
    (line.first() == Some(&b'/') && text.len() < PATH_BYTES).then_some(line)
}

/// The group, and every one above it.
fn each_group<'a>(group: &'a [u8], mut each: impl FnMut(&'a [u8])) {
    let mut group = group;
    loop {
        each(group);
        let Some(slash) = group.iter().rposition(|&byte| byte == b'/').filter(|_| group != b"/") else { return };
        group = if slash == 0 { b"/" } else { &group[..slash] };
    }
}

/// The digits that a text begins with. `max`, as a group without a limit says, is none.
fn number(text: &[u8]) -> Option<u64> {
    let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    parse_number(&text[..digits])
}

/// The whole percents behind `some avg10=`.
fn some_avg10(text: &[u8]) -> Option<u32> {
    let line = text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"some avg10="))?;
    u32::try_from(number(line)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::sim::{Plan, World};

    #[test]
    fn the_least_of_all_limits_counts() {
        let world = World::new();
        let _here = world.enter();
        assert_eq!(memory_bytes(), Some(1 << 34), "the machine's");
        world.write_file(c"/proc/self/cgroup", "1:name=systemd:/old\n0::/a/b\n");
        assert_eq!(memory_bytes(), Some(1 << 34), "no files, no limits");
        world.write_file(c"/sys/fs/cgroup/a/b/memory.max", "max\n");
        world.write_file(c"/sys/fs/cgroup/a/memory.max", "1073741824\n");
        world.write_file(c"/sys/fs/cgroup/memory.max", "2147483648\n");
        assert_eq!(memory_bytes(), Some(1 << 30));
        world.write_file(c"/sys/fs/cgroup/a/b/memory.max", "4096\n");
        assert_eq!(memory_bytes(), Some(4096));
        world.write_file(c"/sys/fs/cgroup/a/b/memory.max", "99999999999999999999999\n");
        assert_eq!(memory_bytes(), Some(1 << 30), "a number that is none");
    }

    #[test]
    fn absent_and_strange_files_are_absent() {
        let world = World::new();
        let _here = world.enter();
        assert_eq!((resident_bytes(), pressure_percent()), (None, None));
        for text in ["", "\n", "0::", "0::relative", "no colon", "0::/\u{0}/x", &"0::/".repeat(400)] {
            world.write_file(c"/proc/self/cgroup", text);
            assert_eq!((memory_bytes(), pressure_percent()), (Some(1 << 34), None), "{text:?}");
        }
        for text in ["", "1", "1 x 3", "1 2", "-1 -2 -3"] {
            world.write_file(c"/proc/self/statm", text);
            assert_eq!(resident_bytes(), None, "{text:?}");
        }
        for text in ["", "some avg10=", "some avg10=x", "full avg10=3.00\n", "some avg60=1.00"] {
            world.write_file(c"/proc/pressure/memory", text);
            assert_eq!(pressure_percent(), None, "{text:?}");
        }
    }

    #[test]
    fn the_group_is_asked_before_the_machine() {
        let world = World::new();
        let _here = world.enter();
        world.write_file(c"/proc/pressure/memory", "some avg10=12.34 avg60=0.00 avg300=0.00 total=1\nfull avg10=99.00\n");
        assert_eq!(pressure_percent(), Some(12));
        world.write_file(c"/proc/self/cgroup", "0::/a\n");
        assert_eq!(pressure_percent(), Some(12));
        world.write_file(c"/sys/fs/cgroup/a/memory.pressure", "some avg10=3.99 avg60=0.00\n");
        assert_eq!(pressure_percent(), Some(3));
        world.write_file(c"/proc/self/statm", "100 30 10 1 0 1 0\n");
        assert_eq!(resident_bytes(), Some(20 * os::page_bytes()));
    }

    #[test]
    fn reads_that_fail_are_absent_files() {
        let world = World::new();
        let _here = world.enter();
        world.write_file(c"/proc/self/cgroup", "0::/a\n");
        world.write_file(c"/sys/fs/cgroup/a/memory.max", "4096\n");
        world.write_file(c"/sys/fs/cgroup/memory.max", "8192\n");
        world.write_file(c"/proc/self/statm", "100 30 10 1 0 1 0\n");
        for failing in 0..4 {
            world.plan(Plan::Once(world.calls() + failing));
            // First the group's name is read, then its limit, then that of the root.
            let expected = if failing < 2 { 8192 } else { 4096 };
            assert_eq!(memory_bytes(), Some(expected), "call {failing}");
            world.plan(Plan::Nothing);
        }
        world.plan(Plan::From(0));
        assert_eq!((memory_bytes(), resident_bytes(), pressure_percent()), (Some(1 << 34), None, None));
    }

    #[test]
    fn this_machine_can_be_asked() {
        let mut text = [0; 64];
        assert!(os::read_file(c"/proc/self/statm", &mut text).is_none(), "outside a world there are no files");
        assert!(memory_bytes().is_some());
    }
}
