//! The process that serves: starts a service and its client, and makes what the client says into the outcome of the workload.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

use super::{CLIENT, IDLE, LOOP, PATIENCE, RATE, REQUESTS, WORKERS};
use crate::distribution::Distribution;
use crate::subject::{Cost, Memory, fail, note, note_latency};
use crate::workload::parameters::Values;
use crate::workload::{Context, Outcome};

/// What the client is asked to do.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// The service.
    pub(super) workload: &'static str,
    /// So many requests take two to three seconds in a closed loop.
    pub(super) closed_requests: u64,
    /// In which nothing is served although all is well.
    pub(super) silence_ms: u64,
}

/// The line that the client prints at its end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Report {
    /// Sent, or meant to be.
    pub(super) requests: u64,
    /// Of these, not answered as they should have been.
    pub(super) errors: u64,
    /// What was wrong with the first of them.
    pub(super) complaint: Option<String>,
    /// From the first request to the last answer, without silence.
    pub(super) elapsed_ns: u64,
    /// Processor time of the client meanwhile.
    pub(super) cpu_ns: u64,
    /// Over all right answers, in any order.
    pub(super) checksum: u64,
    /// Of all right answers.
    pub(super) latency: Distribution,
}

/// What the client says when it is connected.
pub(super) const READY: &str = "ready";
/// What it then waits for.
pub(super) const GO: &str = "go";

/// Runs a service for as long as its client needs. `serve` gets what to listen to, and where to count what it has served.
pub(super) fn run<S>(context: &Context, load: &Load, serve: impl FnOnce(TcpListener, Arc<AtomicU64>) -> S) -> Outcome
where
    S: Future<Output = io::Result<()>> + Send + 'static,
{
    match try_run(context, load, serve) {
        Ok(outcome) => outcome,
        Err(sentence) => fail(&sentence),
    }
}

fn try_run<S>(context: &Context, load: &Load, serve: impl FnOnce(TcpListener, Arc<AtomicU64>) -> S) -> Result<Outcome, String>
where
    S: Future<Output = io::Result<()>> + Send + 'static,
{
    let chosen = &context.parameters;
    let patience = Duration::from_secs(chosen.number(&PATIENCE)) + Duration::from_millis(load.silence_ms);
    let runtime = runtime(chosen.number(&WORKERS))?;
    // The kernel chooses a port that nobody has.
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
    let listener = listener.map_err(|error| format!("the service cannot listen on loopback: {error}"))?;
    let address = listener.local_addr().map_err(|error| format!("the service cannot say where it listens: {error}"))?;
    let served = Arc::new(AtomicU64::new(0));
    let server = runtime.spawn(serve(listener, Arc::clone(&served)));

    let mut client = Client::start(load.workload, &address.to_string(), &arguments(context, load))?;
    // Relaxed: only whether it moves is of interest.
    let progress = || served.load(Ordering::Relaxed);
    let ready = client.line(patience, progress)?;
    if ready != READY {
        return Err(format!("the client said '{}' instead of '{READY}'", beginning(&ready)));
    }
    let heap = HeapInUse::watch(context.controls.heap_in_use)?;
    let allocations = context.controls.allocations.map(|count| (count, count()));
    let cost = Cost::now();
    client.say(GO)?;
    let line = client.line(patience, progress)?;
    // Before anything is torn down: the client holds its connections until it is let go.
    let cost = Cost::now().cpu_nanos - cost.cpu_nanos;
    let allocations = allocations.map(|(count, before)| count().saturating_sub(before));
    let heap = heap.end();
    let resident = Memory::now().anonymous;
    client.end(patience)?;
    if server.is_finished() {
        return Err("the service ended before its client".to_owned());
    }
    runtime.shutdown_timeout(Duration::from_secs(1));

    let report: Report =
        serde_json::from_str(&line).map_err(|_| format!("the client said '{}', which is no report", beginning(&line)))?;
    if report.requests == 0 || report.errors >= report.requests {
        let complaint = report.complaint.unwrap_or_else(|| "it says nothing of the reason".to_owned());
        return Err(format!("the client got no right answer: {complaint}"));
    }
    if let Some(complaint) = &report.complaint {
        eprintln!("{} of {} requests failed; the first: {complaint}", report.errors, report.requests);
    }
    let requests = report.requests;
    note("qps", per(u128::from(requests - report.errors) * 1_000_000_000, report.elapsed_ns));
    note("errors", report.errors);
    note("error_ppm", per(u128::from(report.errors) * 1_000_000, requests));
    note("server_cpu_ns", per(u128::from(cost), requests));
    note("client_cpu_ns", per(u128::from(report.cpu_ns), requests));
    if let Some(allocations) = allocations {
        note("allocations_per_request", per(u128::from(allocations), requests));
    }
    if let Some(held) = heap {
        note("heap_in_use_peak_bytes", held.peak_bytes);
        note("heap_in_use_end_bytes", held.end_bytes);
    }
    note("load_end_rss", resident);
    note_latency("request", report.latency);
    Ok(Outcome { operations: requests, elapsed: Duration::from_nanos(report.elapsed_ns), checksum: report.checksum })
}

/// Rounded.
fn per(sum: u128, of: u64) -> u64 {
    let of = u128::from(of.max(1));
    ((sum + of / 2) / of) as u64
}

/// Enough of a text to see what it is.
fn beginning(text: &str) -> String {
    text.chars().take(60).collect()
}

fn runtime(workers: u64) -> Result<Runtime, String> {
    let runtime = Builder::new_multi_thread().worker_threads(workers as usize).enable_all().build();
    runtime.map_err(|error| format!("the service's threads cannot be started: {error}"))
}

/// Everything that can be chosen about the workload, for the client, with the number of requests that it comes to. A little of everything has
/// a little silence, too.
fn arguments(context: &Context, load: &Load) -> Vec<String> {
    let chosen = &context.parameters;
    let full = match chosen.number(&REQUESTS) {
        0 if chosen.word(&LOOP) == "open" => chosen.number(&RATE) * 5 / 2,
        0 => load.closed_requests,
        requests => requests,
    };
    let arguments = super::parameters(load.workload).iter().map(|parameter| match parameter.values {
        _ if *parameter == REQUESTS => format!("{}={}", parameter.name, context.scaled(full)),
        _ if *parameter == IDLE => format!("{}={}", parameter.name, chosen.number(parameter) * context.percent.min(100) / 100),
        Values::Number { .. } => format!("{}={}", parameter.name, chosen.number(parameter)),
        Values::Word(_) => format!("{}={}", parameter.name, chosen.word(parameter)),
    });
    arguments.collect()
}

/// The client's process, which never lives longer than this one.
#[derive(Debug)]
struct Client {
    process: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    complaints: Receiver<String>,
}

impl Client {
    fn start(workload: &str, address: &str, arguments: &[String]) -> Result<Self, String> {
        let program = program()?;
        let mut command = Command::new(&program);
        command.arg(workload).arg(address).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let parent = std::process::id() as libc::pid_t;
        // SAFETY: `end_with` makes two system calls and allocates nothing, which is what may be done between `fork` and `execve`.
        unsafe { command.pre_exec(move || end_with(parent)) };
        let mut process =
            command.spawn().map_err(|error| format!("the client {} cannot be started: {error}", program.display()))?;
        let (sender, lines) = channel();
        if let Some(stdout) = process.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        let (sender, complaints) = channel();
        if let Some(mut stderr) = process.stderr.take() {
            thread::spawn(move || {
                let mut bytes = Vec::new();
                // What came before an error is all there is.
                let _ = stderr.read_to_end(&mut bytes);
                // The other end is gone when nobody wants to know.
                let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
            });
        }
        Ok(Self { stdin: process.stdin.take(), process, lines, complaints })
    }

    fn say(&mut self, word: &str) -> Result<(), String> {
        let said = self.stdin.as_mut().map(|stdin| writeln!(stdin, "{word}"));
        said.unwrap_or(Ok(())).map_err(|error| format!("the client does not listen: {error}"))
    }

    /// The next line that the client prints. It may take its time while `progress` moves.
    fn line(&mut self, patience: Duration, progress: impl Fn() -> u64) -> Result<String, String> {
        let (mut since, mut last) = (Instant::now(), progress());
        loop {
            match self.lines.recv_timeout(patience.min(Duration::from_secs(1))) {
                Ok(line) => return Ok(line),
                Err(RecvTimeoutError::Disconnected) => return Err(self.obituary(patience)),
                Err(RecvTimeoutError::Timeout) => {
                    let now = progress();
                    if now != last {
                        (since, last) = (Instant::now(), now);
                    } else if since.elapsed() >= patience {
                        self.kill();
                        return Err(format!(
                            "nothing was served for {} s, and the client does not end",
                            since.elapsed().as_secs()
                        ));
                    }
                }
            }
        }
    }

    /// How the client ended, which has stopped talking, and the last line of its complaint.
    fn obituary(&mut self, patience: Duration) -> String {
        let status = match self.wait(patience) {
            Some(status) => status.to_string(),
            None => "silent, and had to be killed".to_owned(),
        };
        // A process of the client's own could hold the other end open.
        let complaints = self.complaints.recv_timeout(Duration::from_secs(1)).unwrap_or_default();
        let last = complaints.lines().rfind(|line| !line.trim().is_empty());
        format!("the client ended too early ({status}){}", last.map(|line| format!(": {line}")).unwrap_or_default())
    }

    /// Lets it go.
    fn end(mut self, patience: Duration) -> Result<(), String> {
        self.stdin = None;
        match self.wait(patience) {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(format!("the client ended badly ({status})")),
            None => Err("the client had to be killed, it did not end".to_owned()),
        }
    }

    /// Waits for the end of a process that is about to end, or brings it about.
    fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let since = Instant::now();
        while since.elapsed() < patience {
            match self.process.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) => thread::sleep(Duration::from_millis(1)),
                Err(_) => break,
            }
        }
        self.kill();
        None
    }

    fn kill(&mut self) {
        // It has ended already, which is what is wanted.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Client {
    /// However the run ends; one that has been waited for is left alone.
    fn drop(&mut self) {
        self.kill();
    }
}

/// Beside this one.
fn program() -> Result<PathBuf, String> {
    let own = std::env::current_exe()
        .map_err(|error| format!("the subject cannot tell where it lies, nor where its client does: {error}"))?;
    Ok(own.with_file_name(CLIENT))
}

/// Has the kernel kill this process when its parent ends, however that comes about.
fn end_with(parent: libc::pid_t) -> io::Result<()> {
    // SAFETY: sets a property of this process; no memory is involved.
    if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // It may have ended before it was asked for.
    // SAFETY: takes no argument.
    if unsafe { libc::getppid() } == parent { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
}

/// What a program held.
#[derive(Clone, Copy, Debug)]
struct Held {
    peak_bytes: u64,
    end_bytes: u64,
}

/// Asks the allocator from time to time how much the program holds.
#[derive(Debug)]
struct HeapInUse {
    watcher: Option<(Sender<()>, JoinHandle<Option<Held>>)>,
}

impl HeapInUse {
    /// Every 20 ms: often enough for a load of seconds, too seldom to be seen in its time.
    const PERIOD: Duration = Duration::from_millis(20);

    fn watch(ask: Option<fn() -> Option<u64>>) -> Result<Self, String> {
        let Some(ask) = ask else { return Ok(Self { watcher: None }) };
        let (stop, stopped) = channel();
        let watch = move || {
            let mut peak = ask()?;
            while stopped.recv_timeout(Self::PERIOD) == Err(RecvTimeoutError::Timeout) {
                peak = peak.max(ask()?);
            }
            let end = ask()?;
            Some(Held { peak_bytes: peak.max(end), end_bytes: end })
        };
        let thread = thread::Builder::new().name("heap in use".to_owned()).spawn(watch);
        let thread = thread.map_err(|error| format!("no thread can be started: {error}"))?;
        Ok(Self { watcher: Some((stop, thread)) })
    }

    /// At its peak, and now.
    fn end(self) -> Option<Held> {
        let (stop, thread) = self.watcher?;
        drop(stop);
        thread.join().ok().flatten()
    }
}
