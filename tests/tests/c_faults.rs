//! The system refuses what the allocator asks of it: once, for a while, or from then on. A program in C gets null and `ENOMEM` for what cannot be had, and
//! notices nothing else; what it had is as it was, and when the system gives again, so does the allocator.

use std::os::unix::process::CommandExt;

use freestone_tests::c::{Joined, Library, Program, has, runs};
use freestone_tests::run;

/// How long a fault lasts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Lasts {
    Once,
    ForAWhile,
    ForGood,
}

/// How many calls of this name there are in a trace before the program begins, and while it works for the first time.
fn calls(trace: &str, name: &str) -> (usize, usize) {
    let (before, rest) = trace.split_once("write(1, \"during \"").expect("the program begins");
    let (during, _) = rest.split_once("write(1, ").expect("the program says how it went");
    let count = |part: &str| part.lines().filter(|line| line.starts_with(&format!("{name}("))).count();
    (count(before), count(during))
}

/// What the program says of its two turns.
struct Said {
    /// How many steps it took …
    steps: usize,
    /// … had what they asked for while the fault lasted …
    during: usize,
    /// … and afterwards.
    after: usize,
    /// What was resident at the end, when it had nothing any more.
    left_kib: usize,
}

impl Said {
    fn read(out: &str) -> Self {
        let numbers: Vec<usize> = out.split([' ', ',', '\n']).filter_map(|word| word.parse().ok()).collect();
        let [during, steps, _, after, _, left_kib] = numbers[..] else { panic!("two lines of three numbers: {out}") };
        Self { steps, during, after, left_kib }
    }
}

/// Has each of these calls fail in turn, with its errors.
fn survives(program: &Program, chosen: &str, refusals: &[(&str, &[&str])]) {
    let chosen = format!("--env=FREESTONE={chosen}");
    let trace = program.path().with_extension("trace");
    let out = format!("--output={}", trace.display());
    let all = "--trace=mmap,munmap,mremap,madvise,mprotect,write".to_owned();
    let undisturbed = runs(&mut program.traced(&[out, all, chosen.clone()]));
    let undisturbed = Said::read(&undisturbed.out);
    assert_eq!(undisturbed.during, undisturbed.steps, "undisturbed, everything can be had");
    let lines = std::fs::read_to_string(&trace).expect("there is a trace");
    std::fs::remove_file(&trace).expect("it was there");

    for &(name, errors) in refusals {
        let (before, during) = calls(&lines, name);
        println!("{during} calls of {name}");
        assert_ne!(during, 0, "{name}");
        let apart = during.div_ceil(6).max(1);
        for nth in (before + 1..=before + during).step_by(apart) {
            for lasts in [Lasts::Once, Lasts::ForAWhile, Lasts::ForGood] {
                let when = match lasts {
                    Lasts::Once => format!("{nth}"),
                    Lasts::ForAWhile => format!("{nth}..{}", nth + 9),
                    Lasts::ForGood => format!("{nth}+"),
                };
                let error = errors[nth % errors.len()];
                let inject = format!("--inject={name}:error={error}:when={when}");
                // Only calls of this name stop the program, which is then nearly as fast as alone.
                let only = format!("--trace={name}");
                let options =
                    ["--follow-forks", "--seccomp-bpf", "--output=/dev/null", &only, &inject, &chosen].map(str::to_owned);
                let ending = runs(&mut program.traced(&options));
                assert!(ending.out.ends_with("kept\n"), "{ending:?}");
                let Said { steps, during, after, left_kib } = Said::read(&ending.out);
                if during < steps || after < steps {
                    println!("{name} fails {lasts:?} at {nth}: {during} and {after} of {steps}");
                }
                // Only without new memory is there anything that cannot be had.
                if name != "mmap" || lasts == Lasts::Once {
                    assert!(during * 100 >= steps * 99, "{name} fails {lasts:?} at {nth}: {during} of {steps}");
                }
                if name != "mmap" || lasts != Lasts::ForGood {
                    assert!(after * 10 >= steps * 9, "{name} failed {lasts:?} at {nth}, and afterwards {after} of {steps}");
                }
                // What could not be given back is given back later.
                if lasts != Lasts::ForGood {
                    let most = undisturbed.left_kib + 512;
                    assert!(left_kib <= most, "{name} failed {lasts:?} at {nth}, and {left_kib} KiB are left, not {most}");
                }
            }
        }
    }
}

#[test]
fn every_call_of_the_family_survives_every_refusal() {
    if !has("strace", "calls to the system that fail") {
        return;
    }
    let program = Program::new("faults.c", Joined::Preloaded, Library::Usual);
    // Whether a block is guarded is a matter of chance: in the first run none is, in the second many are.
    let usual = [("mmap", &["ENOMEM"][..]), ("munmap", &["ENOMEM"]), ("mremap", &["ENOMEM"]), ("madvise", &["ENOMEM", "EINVAL"])];
    survives(&program, "guard_interval:0", &usual);
    survives(&program, "sample_interval:4KiB,guard_interval:64KiB", &[("mprotect", &["ENOMEM"])]);
}

#[test]
fn a_program_lives_with_little_address_space() {
    const LIMIT_BYTES: u64 = 48 << 20;
    for (joined, library) in [
        (Joined::Preloaded, Library::Usual),
        (Joined::Archived, Library::Usual),
        (Joined::AllArchived, Library::Usual),
        (Joined::Preloaded, Library::Dlopen),
    ] {
        let mut command = Program::new("faults.c", joined, library).command();
        let limit = || {
            let limit = libc::rlimit { rlim_cur: LIMIT_BYTES, rlim_max: LIMIT_BYTES };
            // SAFETY: the limit is readable.
            match unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: a system call, which may be made between fork and exec.
        unsafe { command.pre_exec(limit) };
        let ending = run(command.arg("little_room"));
        assert_eq!((ending.code, ending.out.as_str(), ending.err.as_str()), (Some(0), "kept\n", ""), "{joined:?}, {library:?}");
    }
}

/// What has been moved once does not join with what is mapped behind it, and the kernel refuses to move several mappings (`EFAULT`): all of the
/// block would be copied instead, and take memory.
#[test]
fn a_block_that_was_moved_once_is_moved_again() {
    if !has("strace", "blocks that move") {
        return;
    }
    let program = Program::new("faults.c", Joined::Preloaded, Library::Usual);
    let trace = program.path().with_extension("moves");
    let options = [format!("--output={}", trace.display()), "--trace=mremap".to_owned()];
    assert_eq!(runs(program.traced(&options).arg("grow")).out, "kept\n");
    let calls = std::fs::read_to_string(&trace).expect("there is a trace");
    std::fs::remove_file(&trace).expect("it was there");
    assert!(calls.lines().filter(|line| line.starts_with("mremap(")).count() >= 2, "{calls}");
    assert!(!calls.contains("= -1"), "{calls}");
}
