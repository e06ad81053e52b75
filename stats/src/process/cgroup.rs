//! The control group's account of memory, version 2 or 1: what it is charged with, and what it may have. Page cache and other processes of the
//! group are in it.

use std::path::{Path, PathBuf};

use super::smaps::decimal;

/// From here on a limit is none: version 1 writes the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 62;

/// What a group says. `None`: not there, or no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Group {
    pub(super) bytes: Option<u64>,
    pub(super) limit: Option<u64>,
}

/// Reads the account of the group that this process is in. `root` is where files are: the root of the file system, or a test's.
pub(super) fn read(root: &Path) -> Group {
    let text = |path: &str| std::fs::read(root.join(path)).unwrap_or_default();
    let (groups, mounts) = (text("proc/self/cgroup"), text("proc/self/mountinfo"));
    let found = [Version::Two, Version::One].into_iter().filter_map(|version| {
        let group = group_of(&groups, version)?;
        let (mounted, mount) = mount_of(&mounts, version)?;
        // In a container the names of groups may be those outside, which are not there inside: then what is mounted is ours.
        let below = group.strip_prefix(mounted.as_str()).filter(|below| below.starts_with('/')).unwrap_or("/").trim_matches('/');
        let top = root.join(mount.trim_start_matches('/'));
        Some(version.account(&top, &top.join(below)))
    });
    // Where both are mounted, only one has an account of memory.
    found.into_iter().find(|group| group.bytes.is_some()).unwrap_or_default()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Two,
    One,
}

impl Version {
    fn account(self, top: &Path, group: &Path) -> Group {
        match self {
            Self::Two => {
                // The least of all limits on the way up counts.
                let limits = group
                    .ancestors()
                    .take_while(|above| above.starts_with(top))
                    .filter_map(|above| number(above.join("memory.max")));
                Group { bytes: number(group.join("memory.current")), limit: limits.min() }
            }
            Self::One => {
                let stat = std::fs::read(group.join("memory.stat")).unwrap_or_default();
                let of_all = stat.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"hierarchical_memory_limit "));
                let limit = of_all.and_then(decimal).or_else(|| number(group.join("memory.limit_in_bytes")));
                Group { bytes: number(group.join("memory.usage_in_bytes")), limit: limit.filter(|&limit| limit < NO_LIMIT) }
            }
        }
    }
}

/// The number in a file. `max` is none.
fn number(file: PathBuf) -> Option<u64> {
    decimal(std::fs::read(file).ok()?.trim_ascii())
}

/// Out of `/proc/self/cgroup`: `0::/a/b` for version 2, `4:memory:/a/b` for version 1.
fn group_of(text: &[u8], version: Version) -> Option<String> {
    text.split(|&byte| byte == b'\n').find_map(|line| {
        let mut fields = line.splitn(3, |&byte| byte == b':');
        let (number, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let ours = match version {
            Version::Two => number == b"0" && controllers.is_empty(),
            Version::One => controllers.split(|&byte| byte == b',').any(|controller| controller == b"memory"),
        };
        ours.then(|| String::from_utf8_lossy(path).into_owned())
    })
}

/// Out of `/proc/self/mountinfo`: which group is mounted, and where.
fn mount_of(text: &[u8], version: Version) -> Option<(String, String)> {
    text.split(|&byte| byte == b'\n').find_map(|line| {
        let line = String::from_utf8_lossy(line);
        // `35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory`: before the dash there may be any number of fields.
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let (kind, options) = (after.next()?, after.nth(1)?);
        let ours = match version {
            Version::Two => kind == "cgroup2",
            Version::One => kind == "cgroup" && options.split(',').any(|option| option == "memory"),
        };
        let mut before = before.split(' ');
        let (mounted, mount) = (before.nth(3)?, before.next()?);
        ours.then(|| (mounted.trim_end_matches('/').to_owned(), mount.to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file system of its own, removed at the end.
    struct Files(PathBuf);

    impl Files {
        fn new(name: &str) -> Self {
            let root = std::env::temp_dir().join(format!("freestone-cgroup-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&root).expect("a folder for files");
            Self(root)
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            std::fs::create_dir_all(path.parent().expect("a folder above")).expect("a folder for a file");
            std::fs::write(path, text).expect("a file");
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn version_2_counts_the_least_limit_above() {
        let files = Files::new("two");
        assert_eq!(read(&files.0), Group::default(), "no files");
        files.write("proc/self/cgroup", "0::/a/b\n");
        files.write("proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n");
        assert_eq!(read(&files.0), Group::default(), "no account");
        files.write("sys/fs/cgroup/a/b/memory.current", "1234567\n");
        files.write("sys/fs/cgroup/a/b/memory.max", "max\n");
        assert_eq!(read(&files.0), Group { bytes: Some(1_234_567), limit: None });
        files.write("sys/fs/cgroup/a/memory.max", "4096000\n");
        files.write("sys/fs/cgroup/memory.max", "8192000\n");
        assert_eq!(read(&files.0), Group { bytes: Some(1_234_567), limit: Some(4_096_000) });
    }

    #[test]
    fn version_1_is_asked_where_version_2_has_no_account() {
        let files = Files::new("one");
        files.write("proc/self/cgroup", "4:cpu,memory:/docker/77\n1:name=systemd:/x\n0::/\n");
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
                      33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      35 31 0:32 /docker/77 /sys/fs/cgroup/memory rw master:3 - cgroup cgroup rw,memory\n\
                      41 31 0:39 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        files.write("proc/self/mountinfo", mounts);
        files.write("sys/fs/cgroup/memory/memory.usage_in_bytes", "777\n");
        files.write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(read(&files.0), Group { bytes: Some(777), limit: None });
        files.write("sys/fs/cgroup/memory/memory.stat", "cache 1\nhierarchical_memory_limit 99999744\ntotal_cache 3\n");
        assert_eq!(read(&files.0), Group { bytes: Some(777), limit: Some(99_999_744) });
    }

    #[test]
    fn strange_texts_are_no_groups() {
        let files = Files::new("strange");
        files.write("sys/fs/cgroup/memory.current", "5\n");
        for groups in ["", "0::", "0", "::", "\u{0}", "0:x:/"] {
            files.write("proc/self/cgroup", groups);
            for mounts in ["", " - ", "1 2 3 4 5 - cgroup2", "- cgroup2 a b", "1 2 - cgroup2 a b", "\u{0}\n\n"] {
                files.write("proc/self/mountinfo", mounts);
                assert_eq!(read(&files.0), Group::default(), "{groups:?} {mounts:?}");
            }
        }
        files.write("proc/self/cgroup", "0::/\n");
        files.write("proc/self/mountinfo", "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
        assert_eq!(read(&files.0).bytes, Some(5));
        for text in ["", "-5", "5x", "99999999999999999999999", "0x5"] {
            files.write("sys/fs/cgroup/memory.current", text);
            assert_eq!(read(&files.0).bytes, None, "{text:?}");
        }
    }
}
