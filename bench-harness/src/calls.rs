//! Counts the calls into the system that are about memory or waiting: which, and how often, in all threads of a subject's process.
//!
//! A process in between, the *tracer*, is this program under a hidden verb, as the launcher is ([`child`](crate::child)):
//!
//! ```text
//!   harness ── starts ──→ tracer ── forks, seizes, executes ──→ subject, with a filter (seccomp)
//!      ↑                   │  ↑                                   │
//!      └── last line:      │  └── stops only at the calls ────────┘
//!          Counted ────────┘      that the filter knows
//! ```
//!
//! The filter is why this is no `strace`: the kernel stops the subject at the few calls that we count and at no other, and hands over which of them
//! it was as a number of our own, so nobody reads registers and nothing here depends on the machine but the name of its architecture. A stop takes
//! some microseconds; times of such a run mean nothing, and where threads wait for each other they wait at other places than they would.
//!
//! The filter is inherited, and a filtered call without a tracer fails. So the processes that a subject starts are traced as well, but not counted:
//! a service's client is none of the allocator's business.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CString, OsString};
use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};
use std::ptr;
use std::time::Duration;

use libc::{c_long, c_uint, pid_t, sock_filter};
use serde::{Deserialize, Serialize};

use crate::child::{Failure, THIS_PROGRAM, ended, output};
use crate::plan::Row;
use crate::record::Measurement;
use crate::rounds::Launch;
use crate::subjects::Built;

/// What is counted: memory first, then waiting, then threads.
const CALLS: [(&str, c_long); 18] = [
    ("brk", libc::SYS_brk),
    ("mmap", libc::SYS_mmap),
    ("munmap", libc::SYS_munmap),
    ("mremap", libc::SYS_mremap),
    ("mprotect", libc::SYS_mprotect),
    ("madvise", libc::SYS_madvise),
    ("process_madvise", libc::SYS_process_madvise),
    ("mincore", libc::SYS_mincore),
    ("mlock", libc::SYS_mlock),
    ("munlock", libc::SYS_munlock),
    ("mbind", libc::SYS_mbind),
    ("membarrier", libc::SYS_membarrier),
    ("futex", libc::SYS_futex),
    ("sched_yield", libc::SYS_sched_yield),
    ("nanosleep", libc::SYS_nanosleep),
    ("clock_nanosleep", libc::SYS_clock_nanosleep),
    ("clone", libc::SYS_clone),
    ("clone3", libc::SYS_clone3),
];

/// What the kernel calls the architecture whose numbers are in [`CALLS`]. `None` where nobody has tried.
const ARCHITECTURE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xC000_003E)
} else if cfg!(target_arch = "aarch64") {
    Some(0xC000_00B7)
} else {
    None
};

/// The last line that the tracer prints.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    /// How the command ended, as `wait4` encodes it, and its calls.
    Counted { status: i32, calls: BTreeMap<String, u64> },
    /// It could not be traced, or not be started; why.
    NotTraced(String),
}

/// Can calls be counted here? If not, ends the sentence "calls into the system are not counted: ".
pub(crate) fn possible() -> Result<(), String> {
    let trial =
        traced(Command::new(THIS_PROGRAM).args(["count-calls", "--", THIS_PROGRAM, "--version"]), Duration::from_secs(30));
    let (_, calls) = trial.map_err(|failure| failure.reason)?;
    if calls.is_empty() { Err("the kernel stops nobody at a filter here".to_owned()) } else { Ok(()) }
}

/// Runs a subject once on a row. The measurement is what it says of itself, with its calls.
pub(crate) fn count(launch: &Launch<'_>, built: &Built, row: &Row) -> Result<Measurement, Failure> {
    let mut command = Command::new(THIS_PROGRAM);
    command.args(["count-calls", "--"]).arg(&built.program).args(launch.words(row));
    command.env_clear().envs(built.subject.environment(launch.environment));
    let (said, os_calls) = traced(&mut command, launch.timeout)?;
    Ok(Measurement { os_calls, ..Launch::understood(&said)? })
}

/// What a command under the tracer printed, and its calls.
fn traced(command: &mut Command, timeout: Duration) -> Result<(String, BTreeMap<String, u64>), Failure> {
    let said = output(command, timeout)?;
    let (text, word) = said.stdout.trim_end().rsplit_once('\n').unwrap_or(("", said.stdout.trim_end()));
    match serde_json::from_str(word) {
        Ok(Word::Counted { status: 0, calls }) => Ok((text.to_owned(), calls)),
        Ok(Word::Counted { status, .. }) => Err(Failure::once(ended(ExitStatus::from_raw(status), &said.stderr))),
        Ok(Word::NotTraced(reason)) => Err(Failure::once(reason)),
        Err(error) => Err(Failure::once(format!("was traced by somebody who says something unexpected: {error}"))),
    }
}

/// The tracer's main function. The command writes to where the tracer does; the tracer has the last word.
pub(crate) fn trace(command: &[OsString]) -> io::Result<()> {
    // A group of its own, so that whoever gives up on the tracer ends all of them.
    // SAFETY: no memory is involved.
    unsafe { libc::setpgid(0, 0) };
    crate::child::die_with_parent()?;
    let word = match traced_to_its_end(command) {
        Ok((status, calls)) => Word::Counted { status, calls },
        Err(reason) => Word::NotTraced(reason),
    };
    // The command may have died in the middle of a line.
    writeln!(io::stdout(), "\n{}", serde_json::to_string(&word)?)
}

/// Starts the command, follows it, and listens to what kept it from being executed.
fn traced_to_its_end(words: &[OsString]) -> Result<(i32, BTreeMap<String, u64>), String> {
    let (child, mut trouble) = started(words)?;
    // Not before: a signal that stops the child while we listen would leave both waiting.
    let ended = followed(child)?;
    let mut complaint = String::new();
    match trouble.read_to_string(&mut complaint) {
        Ok(0) => Ok(ended),
        Ok(_) => Err(complaint),
        Err(error) => Err(format!("the command cannot be listened to: {error}")),
    }
}

/// A program that lets the kernel stop it at the calls that are counted, and hands over their places in [`CALLS`].
fn filter(architecture: u32) -> Vec<sock_filter> {
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    // Of the kernel's `seccomp_data`: the number of the call, and whose numbers these are.
    const NUMBER: u32 = 0;
    const ARCHITECTURE: u32 = 4;
    // An instruction, its operand, and how many instructions to skip if it says yes, if no.
    let line = |code: u32, k: u32, jt: u8, jf: u8| sock_filter { code: code as u16, jt, jf, k };
    let mut program = vec![
        line(LOAD, ARCHITECTURE, 0, 0),
        line(IF_EQUAL, architecture, 1, 0),
        line(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0),
        line(LOAD, NUMBER, 0, 0),
    ];
    for (place, (_, number)) in CALLS.iter().enumerate() {
        program.push(line(IF_EQUAL, *number as u32, 0, 1));
        program.push(line(RETURN, libc::SECCOMP_RET_TRACE | place as u32, 0, 0));
    }
    program.push(line(RETURN, libc::SECCOMP_RET_ALLOW, 0, 0));
    program
}

/// Starts the command, seized and filtered. Returns its process, and where it complains if it cannot be executed.
fn started(words: &[OsString]) -> Result<(pid_t, PipeReader), String> {
    let architecture = ARCHITECTURE.ok_or_else(|| format!("nobody has tried it on {}", std::env::consts::ARCH))?;
    let texts: Vec<CString> = words.iter().filter_map(|word| CString::new(word.as_bytes()).ok()).collect();
    let mut arguments: Vec<*const libc::c_char> = texts.iter().map(|text| text.as_ptr()).collect();
    arguments.push(ptr::null());
    let filter = filter(architecture);
    // Through the one we say "go", through the other the child says what it could not do; executing closes it.
    let (wait, mut go) = io::pipe().map_err(|error| format!("there is no pipe: {error}"))?;
    let (trouble, complain) = io::pipe().map_err(|error| format!("there is no pipe: {error}"))?;

    // SAFETY: the child does nothing but make system calls until it executes: this process may have other threads.
    let child = unsafe { libc::fork() };
    if child < 0 {
        return Err(format!("cannot fork: {}", io::Error::last_os_error()));
    }
    if child == 0 {
        // With its own copies it would wait for a word from itself when we are gone.
        for own in [go.as_raw_fd(), trouble.as_raw_fd()] {
            // SAFETY: nothing in this copy of the process uses either again.
            unsafe { libc::close(own) };
        }
        become_the_command(&wait, &complain, &filter, &arguments);
    }
    drop((wait, complain));
    // New threads and processes are seized at their birth; all of them die with us.
    let options = libc::PTRACE_O_TRACESECCOMP
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_EXITKILL;
    if let Err(error) = ptrace(libc::PTRACE_SEIZE, child, options as usize) {
        // SAFETY: no memory is involved; a child that nobody has waited for.
        unsafe { libc::kill(child, libc::SIGKILL) };
        // SAFETY: nobody wants to know how.
        unsafe { libc::waitpid(child, ptr::null_mut(), 0) };
        return Err(format!("the system lets nobody trace here ({error})"));
    }
    go.write_all(b"!").map_err(|error| format!("the command does not listen: {error}"))?;
    Ok((child, trouble))
}

/// The child's part. Never returns.
fn become_the_command(wait: &PipeReader, complain: &PipeWriter, filter: &[sock_filter], arguments: &[*const libc::c_char]) -> ! {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    let mut word = 0_u8;
    // SAFETY: `word` is writable, and one byte long.
    let heard = unsafe { libc::read(wait.as_raw_fd(), (&raw mut word).cast(), 1) };
    let complaint = if heard != 1 {
        "the tracer has gone"
    } else if !is_filtered(&program) {
        "the system lets nobody filter calls here (seccomp)"
    } else {
        // As std has it for its children; it is inherited ignored.
        // SAFETY: no memory is involved.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        // SAFETY: texts that end with a zero byte, in a list that ends with a null.
        unsafe { libc::execvp(arguments[0], arguments.as_ptr()) };
        "the command cannot be executed"
    };
    // SAFETY: readable for its length.
    unsafe { libc::write(complain.as_raw_fd(), complaint.as_ptr().cast(), complaint.len()) };
    // SAFETY: ends the process.
    unsafe { libc::_exit(127) }
}

/// Filters this process from now on. Without new privileges, which is what the kernel asks of those who have none.
fn is_filtered(program: &libc::sock_fprog) -> bool {
    // SAFETY: no memory is involved.
    let dies = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } == 0;
    // SAFETY: as above.
    let stays = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } == 0;
    // SAFETY: the program is as long as it says.
    dies && stays && unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, ptr::from_ref(program)) } == 0
}

/// Follows all threads and processes until the first one has ended: how, and what its threads called.
fn followed(first: pid_t) -> Result<(i32, BTreeMap<String, u64>), String> {
    let mut counts = [0_u64; CALLS.len()];
    let mut groups = HashMap::from([(first, first)]);
    let ended = loop {
        let mut status = 0;
        // SAFETY: `status` is a valid place to write to.
        let who = unsafe { libc::waitpid(-1, &raw mut status, libc::__WALL) };
        if who < 0 {
            match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => continue,
                error => return Err(format!("the command cannot be waited for: {error}")),
            }
        }
        if !libc::WIFSTOPPED(status) {
            groups.remove(&who);
            if who == first {
                break status;
            }
            continue;
        }
        let signal = libc::WSTOPSIG(status);
        let (request, hand_over) = match status >> 16 {
            libc::PTRACE_EVENT_SECCOMP => {
                let place = message(who);
                if group(&mut groups, who) == first
                    && let Some(count) = place.and_then(|place| counts.get_mut(place))
                {
                    *count += 1;
                }
                (libc::PTRACE_CONT, 0)
            }
            // Somebody stops the whole group: it is to stay stopped until somebody else lets it go on.
            libc::PTRACE_EVENT_STOP if [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal) => {
                (libc::PTRACE_LISTEN, 0)
            }
            // A signal on its way, which is to arrive.
            0 => (libc::PTRACE_CONT, signal),
            // Births.
            _ => (libc::PTRACE_CONT, 0),
        };
        match ptrace(request, who, hand_over as usize) {
            // It was killed while it stood still; its end is yet to be heard of.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => return Err(format!("the command cannot go on: {error}")),
            Ok(()) => {}
        }
    };
    let called = CALLS.iter().zip(counts).filter(|(_, count)| *count > 0);
    Ok((ended, called.map(|((name, _), count)| ((*name).to_owned(), count)).collect()))
}

/// The process that a thread belongs to. Whoever cannot be asked any more is on its own.
fn group(groups: &mut HashMap<pid_t, pid_t>, thread: pid_t) -> pid_t {
    *groups.entry(thread).or_insert_with(|| {
        let status = fs::read_to_string(format!("/proc/{thread}/status")).unwrap_or_default();
        let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
        group.and_then(|group| group.trim().parse().ok()).unwrap_or(thread)
    })
}

/// What the filter handed over with the call at which a thread stands.
fn message(thread: pid_t) -> Option<usize> {
    let mut message: libc::c_ulong = 0;
    ptrace(libc::PTRACE_GETEVENTMSG, thread, (&raw mut message).expose_provenance()).ok()?;
    usize::try_from(message).ok()
}

/// A request without an address, as all of ours are.
fn ptrace(request: c_uint, thread: pid_t, data: usize) -> io::Result<()> {
    // SAFETY: of our requests, only `GETEVENTMSG` writes, to a word that its caller has exposed.
    let result = unsafe { libc::ptrace(request, thread, ptr::null_mut::<()>(), data) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
