//! The client: sends a fixed number of requests, compares every answer with the one that it expects, and measures how long each took.
//!
//! It is made to cost little, because it shares the machine with what is measured: one thread, requests encoded beforehand, answers compared and
//! never decoded. What it expects it has computed with the server's own code, before the clock starts.
//!
//! In a **closed** loop each stream sends its next request when the last is answered, and time counts from sending. Such a client is polite: while
//! the server stalls it sends nothing, and what would have waited is not in the figures. In an **open** loop request `n` is due at `n / rate`
//! seconds after the start, whatever became of the others, and its time counts from the moment it was due, also when no stream was free to
//! send it (wrk2's rule against coordinated omission).

mod cache;
mod grpc;
mod http_json;

use std::cell::{Cell, RefCell};
use std::env;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::mem;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd};
use std::process::ExitCode;
use std::ptr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Builder;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, LocalSet};

use super::host::{GO, READY, Report};
use super::{CACHE, GRPC, HTTP_JSON, LOOP, PATIENCE, RATE, REQUESTS};
use crate::distribution::Distribution;
use crate::subject::Cost;
use crate::workload::parameters::Parameters;

/// The main function of the client. Arguments: the service, its address, then what was chosen, `NAME=VALUE`.
#[must_use]
pub fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let (workload, address) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let Ok(address) = address.parse::<SocketAddr>() else {
        eprintln!("usage: client SERVICE ADDRESS NAME=VALUE…; a subject's process starts it");
        return ExitCode::from(2);
    };
    let chosen = arguments.filter_map(|word| word.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())));
    let asked = Asked { workload, address, chosen: Parameters::new(chosen.collect()) };
    match asked.run() {
        // Nobody is left to read it: the server is gone, and the kernel about to end this process.
        Ok(report) => say(&serde_json::to_string(&report).unwrap_or_default()).map_or(ExitCode::from(3), |()| ExitCode::SUCCESS),
        Err(sentence) => {
            eprintln!("{sentence}");
            ExitCode::from(3)
        }
    }
}

fn say(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}

/// Says that everything is connected, and waits for the server to begin.
fn wait_for_go() -> Result<(), String> {
    say(READY).map_err(|error| format!("the server does not listen: {error}"))?;
    let mut word = String::new();
    io::stdin().lock().read_line(&mut word).map_err(|error| format!("the server says nothing: {error}"))?;
    if word.trim() == GO { Ok(()) } else { Err(format!("the server said '{}' instead of '{GO}'", word.trim())) }
}

/// What is asked of the client.
#[derive(Debug)]
struct Asked {
    workload: String,
    address: SocketAddr,
    chosen: Parameters,
}

impl Asked {
    fn run(&self) -> Result<Report, String> {
        let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| format!("cannot start: {error}"))?;
        let local = LocalSet::new();
        match self.workload.as_str() {
            GRPC => local.block_on(&runtime, grpc::run(self)),
            HTTP_JSON => local.block_on(&runtime, http_json::run(self)),
            CACHE => local.block_on(&runtime, cache::run(self)),
            other => Err(format!("there is no service '{other}'")),
        }
    }

    fn requests(&self) -> u64 {
        self.chosen.number(&REQUESTS).max(1)
    }

    /// The course of a service that has one.
    fn course(&self) -> Course {
        let rate = (self.chosen.word(&LOOP) == "open").then(|| self.chosen.number(&RATE).max(1));
        Course::new(self.requests(), rate)
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> String {
        format!("the service at {} cannot be reached: {error}", self.address)
    }

    /// Waits for the streams to end, while answers come.
    async fn finish(&self, course: &Rc<Course>, streams: Vec<JoinHandle<()>>) -> Result<(), String> {
        let patience = Duration::from_secs(self.chosen.number(&PATIENCE).max(1));
        let all = async {
            for stream in streams {
                stream.await.map_err(|error| format!("a stream broke: {error}"))?;
            }
            Ok(())
        };
        let stalled = async {
            let mut seen = None;
            loop {
                let now = course.answers();
                if seen == Some(now) {
                    return Err(format!("no answer for {} s, after {now} of {} requests", patience.as_secs(), course.requests));
                }
                seen = Some(now);
                tokio::time::sleep(patience).await;
            }
        };
        tokio::select! {
            ended = all => ended,
            stalled = stalled => stalled,
        }
    }
}

/// Whose turn it is, and how it went: the same for all services.
#[derive(Debug)]
struct Course {
    requests: u64,
    next: Cell<u64>,
    start: Cell<Instant>,
    /// Processor time until then.
    cpu_nanos: Cell<u64>,
    open: Option<Open>,
    tally: RefCell<Tally>,
}

/// An open loop: so many requests may be sent as are due and were not.
#[derive(Debug)]
struct Open {
    rate: u64,
    due: Semaphore,
}

/// A request that is to be sent.
#[derive(Clone, Copy, Debug)]
struct Turn {
    /// From 0.
    nth: u64,
    due: Instant,
}

impl Course {
    fn new(requests: u64, rate: Option<u64>) -> Self {
        let open = rate.map(|rate| Open { rate, due: Semaphore::new(0) });
        Self {
            requests,
            next: Cell::new(0),
            start: Cell::new(Instant::now()),
            cpu_nanos: Cell::new(Cost::now().cpu_nanos),
            open,
            tally: RefCell::new(Tally::new()),
        }
    }

    /// The clock starts. In an open loop, the returned task lets requests go; the others need none.
    fn start(self: &Rc<Self>, streams: u64) -> Result<Option<JoinHandle<()>>, String> {
        self.start.set(Instant::now());
        self.cpu_nanos.set(Cost::now().cpu_nanos);
        if self.open.is_none() {
            return Ok(None);
        }
        let alarm = Alarm::new().map_err(|error| format!("there is no timer: {error}"))?;
        let course = Rc::clone(self);
        Ok(Some(tokio::task::spawn_local(async move { course.let_go(&alarm, streams as usize).await })))
    }

    async fn let_go(&self, alarm: &Alarm, streams: usize) {
        let Some(open) = &self.open else { return };
        let mut gone = 0;
        while gone < self.requests {
            let due = (self.start.get().elapsed().as_nanos() * u128::from(open.rate) / 1_000_000_000) as u64 + 1;
            let due = due.min(self.requests);
            if due > gone {
                open.due.add_permits((due - gone) as usize);
                gone = due;
            }
            alarm.wait_until(self.due(open, gone)).await;
        }
        // Streams that wait for their turn learn that there is none.
        open.due.add_permits(streams);
    }

    fn due(&self, open: &Open, nth: u64) -> Instant {
        self.start.get() + Duration::from_nanos((u128::from(nth) * 1_000_000_000 / u128::from(open.rate)) as u64)
    }

    /// The next request of a stream that has nothing to do; none when all were sent.
    async fn turn(&self) -> Option<Turn> {
        if let Some(open) = &self.open {
            open.due.acquire().await.ok()?.forget();
        }
        let nth = self.next.get();
        if nth == self.requests {
            return None;
        }
        self.next.set(nth + 1);
        let due = self.open.as_ref().map_or_else(Instant::now, |open| self.due(open, nth));
        Some(Turn { nth, due })
    }

    /// Books what became of a request: a sum over the answer, or what is wrong with it.
    fn book(&self, turn: Turn, answer: Result<u64, String>) {
        self.tally.borrow_mut().book(turn.due.elapsed(), answer);
    }

    fn answers(&self) -> u64 {
        self.tally.borrow().answers
    }

    fn report(&self, elapsed: Duration) -> Report {
        self.tally.borrow().report(elapsed, Cost::now().cpu_nanos - self.cpu_nanos.get())
    }
}

/// What came of the requests.
#[derive(Debug)]
struct Tally {
    answers: u64,
    errors: u64,
    complaint: Option<String>,
    checksum: u64,
    times: Histogram<u64>,
}

impl Tally {
    fn new() -> Self {
        // To three digits, up to an hour.
        let times =
            Histogram::new_with_bounds(1, 3_600_000_000_000, 3).expect("the bounds are in order, and three digits are possible");
        Self { answers: 0, errors: 0, complaint: None, checksum: 0, times }
    }

    fn book(&mut self, time: Duration, answer: Result<u64, String>) {
        self.answers += 1;
        match answer {
            Ok(sum) => {
                self.checksum = self.checksum.wrapping_add(sum);
                self.times.saturating_record(time.as_nanos() as u64);
            }
            Err(complaint) => {
                self.errors += 1;
                self.complaint.get_or_insert(complaint);
            }
        }
    }

    fn report(&self, elapsed: Duration, cpu_ns: u64) -> Report {
        Report {
            requests: self.answers,
            errors: self.errors,
            complaint: self.complaint.clone(),
            elapsed_ns: elapsed.as_nanos() as u64,
            cpu_ns,
            checksum: self.checksum,
            latency: Distribution::of(&self.times),
        }
    }
}

/// Wakes a task to the microsecond. The runtime's own timers have a tick of a millisecond, in which a dozen requests are due.
#[derive(Debug)]
struct Alarm {
    timer: AsyncFd<File>,
}

impl Alarm {
    fn new() -> io::Result<Self> {
        // SAFETY: takes no memory.
        let file = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_NONBLOCK | libc::TFD_CLOEXEC) };
        if file < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: a new descriptor, which nobody else closes.
        let file = unsafe { File::from_raw_fd(file) };
        // SAFETY: a `File` has one descriptor for as long as it lives, and nobody else gets this one.
        let timer = unsafe { AsyncFd::register(file) }?;
        Ok(Self { timer })
    }

    /// Returns at once when that moment is past.
    async fn wait_until(&self, moment: Instant) {
        let left = moment.saturating_duration_since(Instant::now());
        if left.is_zero() {
            // Others may be ready, too.
            return tokio::task::yield_now().await;
        }
        // SAFETY: all zeros is a valid `itimerspec`.
        let mut time: libc::itimerspec = unsafe { mem::zeroed() };
        time.it_value =
            libc::timespec { tv_sec: left.as_secs() as libc::time_t, tv_nsec: libc::c_long::from(left.subsec_nanos() as i32) };
        // SAFETY: `time` is readable, and nothing is written to null.
        unsafe { libc::timerfd_settime(self.timer.get_ref().as_raw_fd(), 0, &raw const time, ptr::null_mut()) };
        // A timer that cannot be waited for lets go too early; requests are then sent ahead of time, which the caller's clock prevents.
        if let Ok(mut ready) = self.timer.readable().await {
            let _ = ready.try_io(|timer| timer.get_ref().read(&mut [0; 8]));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::{Duration, Instant};

    use tokio::task::LocalSet;

    use super::{Course, Tally};

    fn block_on<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("there is a thread");
        LocalSet::new().block_on(&runtime, future)
    }

    #[test]
    fn every_request_has_one_turn_in_a_closed_loop_and_in_an_open_one() {
        for rate in [None, Some(1_000_000)] {
            let course = Rc::new(Course::new(1_000, rate));
            block_on(async {
                let go = course.start(7).expect("there is a timer");
                let streams: Vec<_> = (0..7)
                    .map(|_| {
                        let course = Rc::clone(&course);
                        tokio::task::spawn_local(async move {
                            while let Some(turn) = course.turn().await {
                                course.book(turn, Ok(1 << (turn.nth % 32)));
                                tokio::task::yield_now().await;
                            }
                        })
                    })
                    .collect();
                for task in streams.into_iter().chain(go) {
                    task.await.expect("it does not panic");
                }
            });
            let report = course.report(Duration::from_secs(1));
            assert_eq!((report.requests, report.errors, report.latency.count), (1_000, 0, 1_000));
            assert_eq!(report.checksum, (0..1_000).map(|nth| 1_u64 << (nth % 32)).sum::<u64>());
        }
    }

    #[test]
    fn in_an_open_loop_time_counts_from_when_a_request_was_due() {
        // All 50 are due within a millisecond, and the only stream takes 2 ms for each: the last has waited for the others.
        let course = Rc::new(Course::new(50, Some(50_000)));
        block_on(async {
            let go = course.start(1).expect("there is a timer");
            let began = Instant::now();
            while let Some(turn) = course.turn().await {
                tokio::time::sleep(Duration::from_millis(2)).await;
                course.book(turn, Ok(0));
            }
            assert!(began.elapsed() >= Duration::from_millis(100));
            drop(go);
        });
        let report = course.report(Duration::from_secs(1));
        assert!(report.latency.max_ns >= 95_000_000, "{:?}", report.latency);
        assert!(report.latency.mean_ns >= 45_000_000, "{:?}", report.latency);
    }

    #[test]
    fn errors_are_counted_and_have_neither_time_nor_sum() {
        let mut tally = Tally::new();
        tally.book(Duration::from_millis(1), Ok(5));
        tally.book(Duration::from_secs(1), Err("first".to_owned()));
        tally.book(Duration::from_secs(1), Err("second".to_owned()));
        let report = tally.report(Duration::from_secs(2), 0);
        assert_eq!((report.requests, report.errors, report.checksum, report.latency.count), (3, 2, 5, 1));
        assert_eq!(report.complaint.as_deref(), Some("first"));
    }
}
