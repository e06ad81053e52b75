//! A process whose `/proc` tests make up, or take away.

use std::fs;
use std::path::PathBuf;

use super::*;

/// A folder in place of `/`, removed at the end.
struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("freestone-process-{}-{name}", std::process::id()));
        fs::create_dir_all(root.join("proc/self")).expect("a folder for files");
        Self(root)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.0.join("proc/self").join(name), text).expect("a file");
    }

    fn read(&self) -> Process {
        Process::read_from(&self.0)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const ROLLUP: &str = "55b9a82b5000-7fff88176000 ---p 00000000 00:00 0    [rollup]\nRss:                8000 kB\n";

/// The lines close, whatever was read.
fn check(process: &Process) {
    let sum: i64 = process.lines().iter().map(|line| line.bytes).sum();
    assert_eq!(sum, process.resident.unwrap_or(0).cast_signed(), "{process:#?}");
}

#[test]
fn mappings_have_owners_and_the_rest_is_unexplained() {
    let root = Root::new("whole");
    root.write("smaps", include_str!("recorded_smaps.txt"));
    let process = root.read();
    check(&process);
    assert_eq!(process.resident, Some(6336 << 10));
    assert_eq!(process.other_allocators, Some(2048 << 10));
    assert_eq!(process.file_backed, Some(36 << 10));
    assert_eq!(process.shared, Some(4096 << 10));
    // The main one, and one of the length that threads have, above a guard.
    assert_eq!(process.thread_stacks, Some((132 + 24) << 10));
    assert_eq!(process.unexplained(), Some(0));
    assert_eq!((process.huge_pages, process.huge_tlb, process.swapped), (Some(2 << 20), Some(4 << 20), Some(12 << 10)));
    assert_eq!(process.mappings, Some(8));
    assert_eq!(process.unread, Vec::<String>::new());
}

#[test]
fn what_nobody_is_known_to_own_is_unexplained() {
    let root = Root::new("stray");
    let strays = "7fe400000000-7fe400100000 rw-p 00000000 00:00 0 \nRss: 100 kB\n7fe410000000-7fe410100000 rw-p 00000000 00:00 0 \nRss: 200 kB\n";
    root.write("smaps", strays.to_owned() + include_str!("recorded_smaps.txt"));
    let process = root.read();
    check(&process);
    assert_eq!(process.unexplained(), Some(300 << 10));
    let largest = [(0x7fe4_1000_0000..0x7fe4_1010_0000, 200 << 10), (0x7fe4_0000_0000..0x7fe4_0010_0000, 100 << 10)];
    assert_eq!(process.largest_unexplained, largest);
}

#[test]
fn without_mappings_all_is_unexplained() {
    let root = Root::new("sum-only");
    root.write("smaps_rollup", ROLLUP);
    let process = root.read();
    check(&process);
    assert_eq!((process.resident, process.heap, process.unexplained()), (Some(8000 << 10), None, Some(8000 << 10)));
    assert!(process.unread[0].contains("owners are unknown"), "{:?}", process.unread);
    let keys: Vec<_> = process.lines().iter().map(|line| line.key).collect();
    assert_eq!(keys, ["unexplained"]);
}

#[test]
fn an_unreadable_proc_is_said_and_survived() {
    let root = Root(std::env::temp_dir().join("freestone-no-such-folder"));
    let process = root.read();
    check(&process);
    assert_eq!(process.unread.len(), 1, "{:?}", process.unread);
    assert_eq!((process.heap, process.cgroup_bytes), (None, None));
}

#[test]
fn strange_files_are_survived() {
    let root = Root::new("strange");
    let recorded = include_str!("recorded_smaps.txt");
    let cut = [100, 700, 1000, 1333, recorded.len() - 1].map(|length| recorded.as_bytes()[..length].to_vec());
    let hostile = [
        Vec::new(),
        vec![0; 100_000],
        vec![b'\n'; 100_000],
        vec![b'7'; 100_000],
        vec![0xff; 3000],
        format!("{recorded}{recorded}").into_bytes(),
        format!("1000-2000 rw-p 0 0:0 0 \nRss: {} kB\nSwap: {0} kB\n", u64::MAX / 2048).into_bytes(),
    ];
    for text in cut.into_iter().chain(hostile) {
        root.write("smaps", &text);
        check(&root.read());
        let _ = fs::remove_file(root.0.join("proc/self/smaps"));
        for rollup in [ROLLUP.as_bytes(), b"", &text] {
            root.write("smaps_rollup", rollup);
            check(&root.read());
        }
    }
}

#[test]
fn this_process_is_explained() {
    let process = Process::read();
    check(&process);
    assert!(process.resident > Some(1 << 20), "{process:#?}");
    assert!(process.file_backed > Some(100 << 10), "{process:#?}");
    assert!(process.thread_stacks > Some(4096), "{process:#?}");
    assert_eq!(process.unread, Vec::<String>::new());
}
