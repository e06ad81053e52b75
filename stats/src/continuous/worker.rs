//! The threads: one that writes into a directory, one that sends to a server. They sleep until it is time, and nobody waits for them.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant, SystemTime};

use freestone::profile::without_samples;

use super::directory::Directory;
use super::make::Maker;
use super::server::{Answer, Parcel, Server};
use super::when::{Backoff, chance, jittered};
use super::{DirectoryOptions, PushOptions, StartError, Stats, say};
use crate::own_thread::without_signals;

/// The threads' name, as `top` shows it.
const THREAD_NAME: &str = "freestone-prof";
/// Address space for a stack: names, compression and encryption are deep where nothing is optimised. What is not touched costs nothing.
const STACK_BYTES: usize = 2 << 20;
/// One line on standard error in so long a time.
const LINES_APART: Duration = Duration::from_mins(10);
/// Who drops a handle waits this long for the thread. A disk or a server that hangs holds the thread, not the program.
const FAREWELL: Duration = Duration::from_secs(2);

/// Continuous profiles that are under way. Dropping it ends them.
#[must_use = "dropping a handle ends the profiles"]
pub struct Handle {
    /// `None` once it is to go on forever.
    shared: Option<Arc<Shared>>,
}

/// What a thread and its owner share.
struct Shared {
    /// The process that started it. A child of `fork` has its memory, but not the thread.
    pid: u32,
    stop: AtomicBool,
    /// A profile is wanted now.
    now: AtomicBool,
    thread: Mutex<Option<Thread>>,
    has_ended: Mutex<bool>,
    ended: Condvar,
    /// Under a lock, so that a profile that is sent no longer waits.
    stats: Mutex<Stats>,
}

/// Nobody panics while he holds one of ours; and if he did, what is under it is as good as before.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Handle {
    /// Goes on until the process ends.
    pub fn forever(mut self) {
        self.shared = None;
    }

    /// A profile of each kind right away, not only when it is time.
    pub fn now(&self) {
        if let Some(shared) = self.here() {
            // Release: pairs with the Acquire of the thread. Nothing else is handed over.
            shared.now.store(true, Ordering::Release);
            shared.wake();
        }
    }

    /// What became of the profiles so far. In the child of a fork nothing has.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.here().map(|shared| lock(&shared.stats).clone()).unwrap_or_default()
    }

    /// What there is, in the process that started it: in the child of a fork a lock may be held by a thread that is not there.
    fn here(&self) -> Option<&Arc<Shared>> {
        self.shared.as_ref().filter(|shared| shared.pid == process::id())
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let Some(shared) = self.here() else {
            // The locks in there are not to be looked at, so neither are they dropped.
            mem::forget(self.shared.take());
            return;
        };
        // Release: pairs with the Acquire of the thread. Nothing else is handed over.
        shared.stop.store(true, Ordering::Release);
        shared.wake();
        let waiting = shared.ended.wait_timeout_while(lock(&shared.has_ended), FAREWELL, |has_ended| !*has_ended);
        drop(waiting);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Shared {
    fn new() -> Self {
        Self {
            pid: process::id(),
            stop: AtomicBool::new(false),
            now: AtomicBool::new(false),
            thread: Mutex::new(None),
            has_ended: Mutex::new(false),
            ended: Condvar::new(),
            stats: Mutex::new(Stats::default()),
        }
    }

    fn wake(&self) {
        if let Some(thread) = &*lock(&self.thread) {
            thread.unpark();
        }
    }

    /// Is it to end?
    fn is_over(&self) -> bool {
        // Acquire: pairs with the Release of whoever drops the handle.
        self.stop.load(Ordering::Acquire)
    }

    /// Sleeps until then, or until somebody wants a profile now. Says which.
    fn sleep_until(&self, then: Instant) -> Woken {
        loop {
            if self.is_over() {
                return Woken::Over;
            }
            // Acquire: pairs with the Release of `now`.
            if self.now.swap(false, Ordering::Acquire) {
                return Woken::Asked;
            }
            let now = Instant::now();
            if now >= then {
                return Woken::Due;
            }
            thread::park_timeout(then - now);
        }
    }

    fn note(&self, what: impl FnOnce(&mut Stats)) {
        what(&mut lock(&self.stats));
    }

    fn failed(&self, voice: &mut Voice, what: &str) {
        self.note(|stats| {
            stats.failed += 1;
            stats.last_error = Some(what.to_owned());
        });
        voice.say(what);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Woken {
    Due,
    Asked,
    Over,
}

/// Starts the thread that writes into a directory.
pub(super) fn write(directory: Directory, options: DirectoryOptions) -> Result<Handle, StartError> {
    spawn(move |shared| write_until_over(shared, directory, &options))
}

/// Starts the thread that sends to a server.
pub(super) fn send(server: Server, options: PushOptions) -> Result<Handle, StartError> {
    spawn(move |shared| send_until_over(shared, &server, &options))
}

fn spawn(work: impl FnOnce(&Shared) + Send + 'static) -> Result<Handle, StartError> {
    let shared = Arc::new(Shared::new());
    let theirs = Arc::clone(&shared);
    let body = move || {
        let _ = calmly(|| without_samples(|| work(&theirs)));
        *lock(&theirs.has_ended) = true;
        theirs.ended.notify_all();
    };
    let builder = thread::Builder::new().name(THREAD_NAME.to_owned()).stack_size(STACK_BYTES);
    let thread = without_signals(|| builder.spawn(body)).map_err(StartError::Thread)?;
    *lock(&shared.thread) = Some(thread.thread().clone());
    Ok(Handle { shared: Some(shared) })
}

/// Runs something that should not panic. If it does, that is a failure like others, and the thread goes on.
fn calmly<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    panic::catch_unwind(AssertUnwindSafe(work)).map_err(|_| "there was a panic; its message is above".to_owned())
}

fn write_until_over(shared: &Shared, mut directory: Directory, options: &DirectoryOptions) {
    let mut maker = Maker::new(&options.kinds, options.counting, options.names);
    let mut voice = Voice::new("no profile was written");
    let mut backoff = Backoff::new(options.every);
    let mut due = Instant::now() + options.every;
    while shared.sleep_until(due) != Woken::Over {
        let mut has_failed = false;
        let made = calmly(|| {
            maker.make(|profile, bytes| {
                shared.note(|stats| stats.taken += 1);
                match directory.write(profile.kind, &bytes, profile.taken) {
                    Ok(deleted) => shared.note(|stats| {
                        stats.wrote();
                        stats.deleted += deleted;
                    }),
                    Err(error) => {
                        shared.note(|stats| stats.dropped += 1);
                        shared.failed(&mut voice, &error);
                        has_failed = true;
                    }
                }
            });
        });
        if let Err(error) = made {
            shared.failed(&mut voice, &error);
            has_failed = true;
        }
        if has_failed {
            due = Instant::now() + backoff.failed(chance());
        } else {
            backoff.succeeded();
            due = next(due, options.every);
        }
    }
}

/// An interval after the last time; or from now, when that has passed already: who was late does not hurry.
fn next(last: Instant, every: Duration) -> Instant {
    let now = Instant::now();
    let next = last + every;
    if next > now && next <= now + every { next } else { now + every }
}

/// What waits for the server, the oldest first.
#[derive(Debug)]
struct Queue {
    parcels: VecDeque<Parcel>,
    bytes: usize,
    parcels_max: usize,
    bytes_max: usize,
}

impl Queue {
    /// Adds one, and says how many were dropped for it, itself included.
    fn push(&mut self, parcel: Parcel) -> u64 {
        if parcel.bytes() > self.bytes_max || self.parcels_max == 0 {
            return 1;
        }
        let mut dropped = 0;
        while self.parcels.len() >= self.parcels_max || self.bytes + parcel.bytes() > self.bytes_max {
            self.pop();
            dropped += 1;
        }
        self.bytes += parcel.bytes();
        self.parcels.push_back(parcel);
        dropped
    }

    fn pop(&mut self) {
        if let Some(parcel) = self.parcels.pop_front() {
            self.bytes -= parcel.bytes();
        }
    }
}

impl Stats {
    fn wrote(&mut self) {
        self.written += 1;
        self.last_written = Some(SystemTime::now());
    }

    fn waits(&mut self, queue: &Queue) {
        (self.waiting, self.waiting_bytes) = (queue.parcels.len() as u64, queue.bytes as u64);
    }
}

fn send_until_over(shared: &Shared, server: &Server, options: &PushOptions) {
    let mut maker = Maker::new(&options.kinds, server.counting(), options.names);
    let mut voice = Voice::new("profiles do not reach the server");
    // A server that has gone for a moment is asked again after a second, not after a minute.
    let mut backoff = Backoff::new(options.every.min(Duration::from_secs(1)));
    let mut queue =
        Queue { parcels: VecDeque::new(), bytes: 0, parcels_max: options.waiting_max, bytes_max: options.waiting_bytes_max };
    // A fleet that starts together does not come all at once.
    let mut due = Instant::now() + jittered(options.every, chance());
    let mut again = Instant::now();
    loop {
        let then = if queue.parcels.is_empty() { due } else { due.min(again) };
        let woken = shared.sleep_until(then);
        if woken == Woken::Over {
            return;
        }
        if woken == Woken::Asked || Instant::now() >= due {
            let made = calmly(|| {
                maker.make(|profile, bytes| {
                    let dropped = queue.push(server.parcel(profile, bytes));
                    shared.note(|stats| {
                        stats.taken += 1;
                        stats.dropped += dropped;
                        stats.waits(&queue);
                    });
                });
            });
            if let Err(error) = made {
                shared.failed(&mut voice, &error);
            }
            if woken == Woken::Asked {
                again = Instant::now();
            } else {
                due = next(due, options.every);
            }
        }
        while Instant::now() >= again && !shared.is_over() {
            let Some(parcel) = queue.parcels.front() else { break };
            match calmly(|| server.send(parcel)).unwrap_or_else(|why| Answer::Later(why, None)) {
                Answer::Taken => {
                    backoff.succeeded();
                    queue.pop();
                    shared.note(|stats| {
                        stats.wrote();
                        stats.waits(&queue);
                    });
                }
                Answer::Never(why) => {
                    shared.failed(&mut voice, &why);
                    queue.pop();
                    shared.note(|stats| {
                        stats.dropped += 1;
                        stats.waits(&queue);
                    });
                }
                Answer::Later(why, after) => {
                    shared.failed(&mut voice, &why);
                    let pause = backoff.failed(chance());
                    // Not all at the very moment that the server named.
                    let after = after.map_or(Duration::ZERO, |after| after + jittered(Duration::from_secs(1), chance()));
                    again = Instant::now() + pause.max(after);
                }
            }
        }
    }
}

/// Says what goes wrong, once in a while.
struct Voice {
    what: &'static str,
    last: Option<Instant>,
    unsaid: u64,
}

impl Voice {
    fn new(what: &'static str) -> Self {
        Self { what, last: None, unsaid: 0 }
    }

    fn say(&mut self, why: &str) {
        if self.last.is_some_and(|last| last.elapsed() < LINES_APART) {
            self.unsaid += 1;
            return;
        }
        let before = match mem::take(&mut self.unsaid) {
            0 => String::new(),
            times => format!(" ({times} more times since this was last said)"),
        };
        self.last = Some(Instant::now());
        say(format_args!("{}: {why}{before}", self.what));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_the_oldest_goes() {
        let mut queue = Queue { parcels: VecDeque::new(), bytes: 0, parcels_max: 3, bytes_max: 100 };
        let parcel = |bytes: usize| Parcel::of_bytes(vec![bytes as u8; bytes]);
        assert_eq!(queue.push(parcel(101)), 1, "larger than all together may be");
        assert_eq!((queue.parcels.len(), queue.bytes), (0, 0));
        for (bytes, dropped, left) in [(30, 0, 1), (30, 0, 2), (30, 0, 3), (10, 1, 3), (70, 2, 2), (100, 2, 1)] {
            assert_eq!((queue.push(parcel(bytes)), queue.parcels.len()), (dropped, left), "{bytes}");
            assert_eq!(queue.bytes, queue.parcels.iter().map(Parcel::bytes).sum::<usize>());
            assert!(queue.bytes <= 100);
        }
        let mut none = Queue { parcels: VecDeque::new(), bytes: 0, parcels_max: 0, bytes_max: 100 };
        assert_eq!(none.push(parcel(1)), 1);
    }

    #[test]
    fn who_was_late_does_not_hurry() {
        let minute = Duration::from_mins(1);
        let ago = |time| Instant::now().checked_sub(time).expect("the machine runs for longer than that");
        let last = ago(Duration::from_secs(1));
        assert_eq!(next(last, minute), last + minute, "the beat is kept");
        let now = Instant::now();
        assert!(
            next(ago(Duration::from_secs(2)), Duration::from_secs(1)) >= now + Duration::from_secs(1),
            "but for what was missed"
        );
        assert!(next(now + 10 * minute, minute) <= Instant::now() + minute, "after a profile that somebody asked for");
    }
}
