//! Runs a process: to hear what it prints, or to measure from outside what it costs.
//!
//! Measuring needs a small process in between, the *launcher*, which is this program under a hidden verb:
//!
//! ```text
//!   harness ── starts ──→ launcher ── forks, executes ──→ command
//!      ↑                     │ ↑                              │
//!      └── one line: Ran ────┘ └── wait4: status, rusage ─────┘
//! ```
//!
//! The kernel keeps a process' peak (`ru_maxrss`) across `execve`, so the peak of a command contains that of whoever executed it, before. With
//! `vfork` or `posix_spawn` that is all of the parent, whose memory the child borrows until then; with `fork` it is what the child has copied of
//! it, the anonymous pages. The harness grows with what it has measured; the launcher is always the same, and forks. A program without a C
//! library, which itself takes a few KiB, then has a peak of 0.6 MiB, `true` one of 1.1 MiB; were the launcher to spawn, both would have one of
//! 3.3 MiB, and if the harness forked while it holds 200 MiB, one of 210 (2026-11-21). A dozen faults of each command are the fork's.
//!
//! What `wait4` says includes the processes that the command has started and waited for: processor time and faults of all of them together, but
//! the peak of the largest one.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::interrupt;
use crate::sampler::Sampler;

/// Resolved by the process that executes it, which is this program or started by it: so it is this program even when another lies at its path.
pub(crate) const THIS_PROGRAM: &str = "/proc/self/exe";

/// Why a run counts for nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Failure {
    /// In a few words.
    pub(crate) reason: String,
    /// Would another run take as long for nothing?
    pub(crate) hopeless: bool,
}

impl Failure {
    /// Another run may go better.
    pub(crate) fn once(reason: String) -> Self {
        Self { reason, hopeless: false }
    }
}

/// What a process printed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Said {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// What a process printed, if it ended well and in time. Waits without looking at a clock again and again, which would cost the process time
/// on a machine with few cores.
pub(crate) fn output(command: &mut Command, timeout: Duration) -> Result<Said, Failure> {
    output_and(command, timeout, None)
}

/// The same, and `sampler` looks at the process meanwhile.
pub(crate) fn output_sampled(command: &mut Command, timeout: Duration, sampler: &mut Sampler) -> Result<Said, Failure> {
    output_and(command, timeout, Some(sampler))
}

fn output_and(command: &mut Command, timeout: Duration, mut sampler: Option<&mut Sampler>) -> Result<Said, Failure> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| Failure::once(format!("cannot be started: {error}")))?;
    let deadline = Instant::now() + timeout;
    if let Some(sampler) = &mut sampler {
        sampler.begin(child.id());
    }
    let process = child.id();
    interrupt::running(process);
    let (sender, receiver) = channel();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::spawn(move || {
        // Both at once: who complains at length is not to wait for a reader.
        let complaint = thread::spawn(move || all(stderr));
        let texts = (all(stdout), complaint.join().unwrap_or_default());
        // Who closes its pipes has not ended yet.
        until_it_ends(process);
        // The other end is gone when it took too long.
        let _ = sender.send(texts);
    });
    let texts = receive(&receiver, deadline, sampler);
    interrupt::over(process);
    let status = end(&mut child, texts.is_err()).map_err(|error| Failure::once(format!("cannot be waited for: {error}")))?;
    match texts {
        Ok((stdout, stderr)) if status.success() => Ok(Said { stdout, stderr }),
        // Who says that it was asked for something that does not exist would say so again.
        Ok((_, stderr)) => Err(Failure { reason: ended(status, &stderr), hopeless: status.code() == Some(2) }),
        Err(RecvTimeoutError::Timeout) => {
            Err(Failure { reason: format!("took more than {} s", timeout.as_secs()), hopeless: true })
        }
        Err(RecvTimeoutError::Disconnected) => Err(Failure::once("cannot be listened to".to_owned())),
    }
}

/// Waits until somebody says something, and lets the sampler look whenever it is to.
fn receive<T>(receiver: &Receiver<T>, deadline: Instant, mut sampler: Option<&mut Sampler>) -> Result<T, RecvTimeoutError> {
    loop {
        let next = sampler.as_ref().map_or(deadline, |sampler| sampler.next().min(deadline));
        match receiver.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {
                if let Some(sampler) = &mut sampler {
                    sampler.look();
                }
            }
            answer => return answer,
        }
    }
}

/// Waits for the end of a child, and leaves it to be waited for: until then its number is nobody else's.
fn until_it_ends(child: u32) {
    // SAFETY: all zeros is a valid `siginfo_t`.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    // SAFETY: `info` is a valid place to write to.
    while unsafe { libc::waitid(libc::P_PID, child, &raw mut info, libc::WEXITED | libc::WNOWAIT) } == -1
        && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
    {}
}

fn all(pipe: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        // What came before an error is all there is.
        let _ = pipe.read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How a process ended, and the last line of its complaint.
pub(crate) fn ended(status: ExitStatus, stderr: &str) -> String {
    let said = stderr.lines().rfind(|line| !line.trim().is_empty()).map_or_else(String::new, |line| format!(": {line}"));
    format!("{status}{said}")
}

fn end(child: &mut Child, by_force: bool) -> io::Result<ExitStatus> {
    // A launcher leads a group, to which its command and that one's children belong: what they leave behind is not to disturb the next. Others
    // lead none, and nothing happens.
    // SAFETY: no memory is involved; the number belongs to a child that nobody has waited for.
    unsafe { libc::kill(-(child.id() as libc::pid_t), libc::SIGKILL) };
    if by_force {
        child.kill()?;
    }
    child.wait()
}

/// What the kernel says of a process that has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Ran {
    /// As `wait4` encodes it.
    status: i32,
    /// From before the `fork` to the end, so with what the dynamic linker does.
    pub(crate) wall_nanos: u64,
    /// Processor time, the kernel's part included.
    pub(crate) cpu_nanos: u64,
    /// The most that was ever resident.
    pub(crate) peak_rss_bytes: u64,
    /// Page faults served from memory.
    pub(crate) minor_faults: u64,
    /// Page faults that waited for a disk.
    pub(crate) major_faults: u64,
}

impl Ran {
    /// How it ended.
    pub(crate) fn status(&self) -> ExitStatus {
        ExitStatus::from_raw(self.status)
    }
}

/// The line that the launcher prints.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Ran(Ran),
    /// The command could not be executed; why.
    NotStarted(String),
}

/// How commands are launched, whoever serves their memory.
#[derive(Debug)]
pub(crate) struct Launcher {
    /// This program.
    pub(crate) program: PathBuf,
    /// All the environment there is; `None` is the harness' own.
    pub(crate) environment: Option<Vec<(String, String)>>,
    /// Where commands write to, at its end; `None` when the harness listens.
    pub(crate) output: Option<PathBuf>,
    /// When to give up on a command.
    pub(crate) timeout: Duration,
}

impl Launcher {
    /// Commands that the harness listens to, in an environment with nothing but what was asked for.
    pub(crate) fn new(timeout: Duration) -> Self {
        Self { program: THIS_PROGRAM.into(), environment: Some(Vec::new()), output: None, timeout }
    }

    /// Runs a command with `library` in front of the C library, and returns what it cost and what it printed.
    pub(crate) fn run<A: AsRef<OsStr>>(&self, library: Option<&Path>, command: &[A]) -> Result<(Ran, String), Failure> {
        let mut launcher = Command::new(&self.program);
        launcher.arg("launch");
        if let Some(library) = library {
            launcher.arg("--library").arg(library);
        }
        if let Some(output) = &self.output {
            launcher.arg("--output").arg(output);
        }
        launcher.arg("--").args(command);
        if let Some(environment) = &self.environment {
            launcher.env_clear().envs(environment.iter().map(|(name, value)| (name, value)));
        }
        let said = output(&mut launcher, self.timeout)?;
        match serde_json::from_str(&said.stdout) {
            Ok(Word::Ran(ran)) => Ok((ran, said.stderr)),
            Ok(Word::NotStarted(reason)) => Err(Failure::once(format!("cannot be started: {reason}"))),
            Err(error) => Err(Failure::once(format!("was launched by somebody who says something unexpected: {error}"))),
        }
    }

    /// What a command of our own printed, which has to end well.
    pub(crate) fn listen<A: AsRef<OsStr>>(&self, library: Option<&Path>, command: &[A]) -> Result<(Ran, String), Failure> {
        let (ran, text) = self.run(library, command)?;
        if ran.status().success() { Ok((ran, text)) } else { Err(Failure::once(ended(ran.status(), &text))) }
    }
}

/// The launcher's main function. The command writes to the file, or to what is the launcher's stderr.
pub(crate) fn launch(library: Option<&Path>, output: Option<&Path>, command: &[OsString]) -> io::Result<()> {
    // SAFETY: no memory is involved.
    unsafe { libc::setpgid(0, 0) };
    die_with_parent()?;
    let word = match started_and_waited_for(library, output, command) {
        Ok(ran) => Word::Ran(ran),
        Err(error) => Word::NotStarted(error.to_string()),
    };
    println!("{}", serde_json::to_string(&word)?);
    Ok(())
}

fn started_and_waited_for(library: Option<&Path>, output: Option<&Path>, words: &[OsString]) -> io::Result<Ran> {
    let (program, arguments) = words.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let out = match output {
        Some(path) => std::fs::OpenOptions::new().append(true).create(true).open(path)?.into(),
        None => io::stderr().as_fd().try_clone_to_owned()?,
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
    if let Some(library) = library {
        command.env("LD_PRELOAD", library);
    }
    // That there is something to do after the fork also is what makes std fork rather than spawn.
    // SAFETY: one system call, which a child of a fork may make.
    unsafe { command.pre_exec(die_with_parent) };
    let start = Instant::now();
    let child = command.spawn()?;
    let (status, usage) = wait4(child.id())?;
    let wall = start.elapsed();
    let nanos = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1_000;
    Ok(Ran {
        status,
        wall_nanos: u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX),
        cpu_nanos: nanos(usage.ru_utime) + nanos(usage.ru_stime),
        peak_rss_bytes: usage.ru_maxrss as u64 * 1024,
        minor_faults: usage.ru_minflt as u64,
        major_faults: usage.ru_majflt as u64,
    })
}

/// Lets the kernel kill this process when its parent dies, so that nothing goes on when somebody interrupts the harness.
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: no memory is involved.
    let result = unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Waits for a child, and asks what it cost.
fn wait4(child: u32) -> io::Result<(i32, libc::rusage)> {
    let mut status = 0;
    // SAFETY: all zeros is a valid `rusage`.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: `status` and `usage` are valid places to write to.
        let waited = unsafe { libc::wait4(child as libc::pid_t, &raw mut status, 0, &raw mut usage) };
        let error = io::Error::last_os_error();
        match waited {
            -1 if error.kind() == io::ErrorKind::Interrupted => {}
            -1 => return Err(error),
            _ => return Ok((status, usage)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Failure, output};
    use std::process::Command;
    use std::time::Duration;

    fn shell(script: &str, timeout: Duration) -> Result<String, Failure> {
        output(Command::new("sh").args(["-c", script]), timeout).map(|said| said.stdout)
    }

    #[test]
    fn a_process_that_ends_well_is_heard() {
        assert_eq!(shell("echo well", Duration::from_mins(1)), Ok("well\n".to_owned()));
    }

    #[test]
    fn a_crash_names_the_signal_and_a_failure_says_its_last_line() {
        let crash = shell("kill -SEGV $$", Duration::from_mins(1)).expect_err("it crashes");
        assert!(crash.reason.contains("SIGSEGV"), "{}", crash.reason);
        let failure = shell("echo so; echo no >&2; exit 3", Duration::from_mins(1)).expect_err("it fails");
        assert_eq!(failure.reason, "exit status: 3: no");
    }

    #[test]
    fn a_process_that_is_asked_for_what_does_not_exist_is_not_asked_again() {
        assert!(shell("exit 2", Duration::from_mins(1)).expect_err("it fails").hopeless);
        assert!(!shell("exit 3", Duration::from_mins(1)).expect_err("it fails").hopeless);
    }

    #[test]
    fn a_process_that_never_ends_is_given_up() {
        for script in ["exec sleep 20", "exec >&- 2>&-; exec sleep 20"] {
            let failure = shell(script, Duration::from_millis(50)).expect_err("it takes too long");
            assert!(failure.hopeless, "{script}");
        }
    }

    #[test]
    fn a_process_may_complain_at_length() {
        let failure = shell("head -c 200000 /dev/zero >&2; echo; echo so >&2; exit 1", Duration::from_mins(1));
        let failure = failure.expect_err("it fails");
        assert!(!failure.hopeless && failure.reason.ends_with("so"), "{}", failure.reason.len());
    }
}
