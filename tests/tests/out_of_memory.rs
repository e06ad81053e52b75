//! Memory runs out, in every kind of block: the answer is null, never an abort; most of what the system grants was really usable; what was
//! given back is there again; and code that is not ours finds room under the limit, because the allocator reserves none.

use std::os::unix::process::CommandExt;
use std::process::Command;

use freestone_tests::run;

const LIMIT_BYTES: u64 = 64 << 20;

fn survives(who: &str, limited_at_start: bool) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_out_of_memory"));
    child.arg(who);
    if limited_at_start {
        let limit = || {
            let limit = libc::rlimit { rlim_cur: LIMIT_BYTES, rlim_max: LIMIT_BYTES };
            // SAFETY: the limit is readable.
            match unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: a system call, which may be made between fork and exec.
        unsafe { child.pre_exec(limit) };
    }
    let ending = run(&mut child);
    print!("{who}:\n{}", ending.out);
    assert_eq!(ending.code, Some(0), "{ending:#?}");
    assert_eq!(ending.err, "");
    assert!(ending.out.ends_with("alive\n"));
}

#[test]
fn under_a_limit_from_the_start() {
    survives("outside", true);
}

#[test]
fn under_a_limit_that_comes_later() {
    survives("itself", false);
}
