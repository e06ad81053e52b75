//! The flight recorder: the last minutes of the heap in a file that outlives the process, whatever ends it.
//!
//! ```no_run
//! // Until the process ends:
//! freestone_stats::recorder::start("/var/lib/mine/heap.rec")?.forever();
//! # Ok::<(), freestone_stats::recorder::StartError>(())
//! ```
//!
//! Programs that call [`init`](crate::init()) need no line of their own: `FREESTONE_RECORDER=/var/lib/mine/heap.rec` starts it, and `%p` in the
//! path is the process's number. Afterwards `freestone-bench recorder show heap.rec` tells what happened in the last minute, and
//! `freestone-bench recorder follow heap.rec` watches a process that lives. Programs read with [`read()`].
//!
//! A thread of its own, `freestone-rec`, takes a snapshot every second and writes it into a file of 4 MiB that is mapped into memory: a ring
//! with room for a quarter of an hour. Beside it are rings for the longest pauses of each second, and for events: what limits did,
//! anomalies, the end. The thread allocates nothing. Where a limit is set when recording starts, it does not wait for the second to pass once 90 % of
//! it are reached: for that it registers with [`pressure`](crate::pressure), which starts the heap's background thread.
//!
//! # What survives what
//!
//! | what happens | what is in the file |
//! |---|---|
//! | the process exits, or panics | everything, and that it ended in an orderly way |
//! | SIGKILL, the OOM killer, a crash, `abort` | everything up to the last second; a record that was being written shows as torn |
//! | the kernel crashes, the power fails | what the kernel had written to the disk: by default, 30 s ago. Torn records show as such |
//! | somebody deletes or renames the file | nothing more in its old place; the process goes on, and says so in one line |
//! | somebody cuts the file short, the disk fails | what was there before; the process goes on, recording ends, and says so in one line |
//! | a second process with the same path | it gets an error; the first goes on |
//! | `fork` | the parent's recording. The child cannot touch it, and has none unless it starts one, at another path |
//!
//! # Flushing
//!
//! There is none. A store into a mapped file is in the kernel's page cache at once, and the page cache does not belong to the process: it stays
//! when the process is killed between two instructions. To survive the machine one would have to wait for the disk (`msync` with `MS_SYNC`),
//! just when memory is short and the disk busy; `MS_ASYNC` does nothing on Linux, which writes such pages after 30 s anyway.
//!
//! # Cost
//!
//! Once a second 10 to 20 µs for the snapshot, more with hundreds of threads, and 4 to 7 µs to make a record of it and store that, without a system
//! call. The thread makes some beside it, each time: it sleeps, reads what the process has in memory, and looks whether the file is still there. 4 MiB on
//! the disk, of which the pages that were written lately count as file-backed memory of the process; limits of Freestone do not count them.
//! `freestone-bench recorder compare` measures it where you are.
//!
//! The process changes in three ways: a thread that has all signals blocked; a function that is called at exit; and a handler for SIGBUS, which
//! passes on all that is not about the recording. No descriptor stays open.
//!
//! # Who may read it
//!
//! The user of the process (mode 0600). There are sizes and counts in it, the path of the program, and no data of the program. The last part of
//! the path must not be a symlink, and a file that is there must be an earlier recording or empty, belong to the user, and have no other name. An
//! earlier recording is kept as `PATH.1`, up to `PATH.3`.

mod bus;
mod file;
mod format;
mod read;
mod recording;
mod surroundings;
#[cfg(test)]
mod tests;
mod writer;

use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use read::{Event, Life, Origin, ReadError, RecordedPause, Recording, What, read};
pub use recording::Recorder;

/// How often there is a snapshot, if nobody says otherwise.
const INTERVAL: Duration = Duration::from_secs(1);
/// From so often to so rarely. More often, and the snapshots would be the load that they show.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
const INTERVAL_MAX: Duration = Duration::from_hours(1);
/// The size of a recording: 895 snapshots, 14 minutes at one per second.
const BYTES: usize = 4 << 20;
/// From 55 snapshots to 14,000.
const BYTES_MIN: usize = 256 << 10;
const BYTES_MAX: usize = 64 << 20;

/// Starts recording to a file, once a second. The same as `Builder::new().start(path)`.
///
/// # Errors
///
/// When the file cannot be made or must not be touched, or this process or another is recording already. The process is as it was.
pub fn start(path: impl AsRef<Path>) -> Result<Recorder, StartError> {
    Builder::new().start(path)
}

/// How to record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Builder {
    interval: Duration,
    bytes: usize,
}

impl Default for Builder {
    fn default() -> Self {
        Self::new()
    }
}

impl Builder {
    /// A snapshot per second, 4 MiB.
    #[must_use]
    pub const fn new() -> Self {
        Self { interval: INTERVAL, bytes: BYTES }
    }

    /// A snapshot so often: between ten milliseconds and an hour.
    #[must_use]
    pub fn interval(self, interval: Duration) -> Self {
        Self { interval: interval.clamp(INTERVAL_MIN, INTERVAL_MAX), ..self }
    }

    /// A file of so many bytes, rounded up to 64 KiB: between 256 KiB and 64 MiB. Of every 4 KiB, seven eighths are a snapshot.
    #[must_use]
    pub fn bytes(self, bytes: usize) -> Self {
        Self { bytes: bytes.clamp(BYTES_MIN, BYTES_MAX).next_multiple_of(64 << 10), ..self }
    }

    /// Starts.
    ///
    /// # Errors
    ///
    /// See [`start`](fn@start).
    pub fn start(self, path: impl AsRef<Path>) -> Result<Recorder, StartError> {
        Recorder::start(path.as_ref(), self.interval, self.bytes)
    }
}

/// Why recording does not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// This process records already, to this file.
    Recording(PathBuf),
    /// Another process records to this file; its number, if the file says so.
    InUse(PathBuf, Option<u32>),
    /// What is at the path must not be written to.
    Refused(PathBuf, Refusal),
    /// There is a file, and it is no recording: it would be lost.
    NotARecording(PathBuf),
    /// The system says no: to what, to which file, and why.
    Io(&'static str, PathBuf, io::Error),
    /// There is no thread to be had.
    Thread(io::Error),
}

/// What is wrong with a file that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Refusal {
    /// It is a symlink.
    Symlink,
    /// It is a folder, a device or a pipe.
    NotAFile,
    /// It belongs to another user.
    NotOurs,
    /// It has another name elsewhere.
    OtherLinks,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Recording(path) => write!(f, "this process records already, to {}", path.display()),
            Self::InUse(path, Some(pid)) => write!(f, "process {pid} records to {}", path.display()),
            Self::InUse(path, None) => write!(f, "another process records to {}", path.display()),
            Self::Refused(path, refusal) => {
                let what = match refusal {
                    Refusal::Symlink => "is a symlink, which are not followed",
                    Refusal::NotAFile => "is no regular file",
                    Refusal::NotOurs => "belongs to another user",
                    Refusal::OtherLinks => "has another name elsewhere",
                };
                write!(f, "{} {what}", path.display())
            }
            Self::NotARecording(path) => {
                write!(f, "{} is there and is no recording: choose another path, or remove it", path.display())
            }
            Self::Io(what, path, error) => write!(f, "cannot {what} {}: {error}", path.display()),
            Self::Thread(error) => write!(f, "there is no thread to be had: {error}"),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Io(_, _, error) | Self::Thread(error) => Some(error),
            _ => None,
        }
    }
}

/// What a limit did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[repr(u8)]
pub enum LimitKind {
    /// Threads that took memory above the soft limit gave some back first.
    Assist = 0,
    /// They did not, because there was nothing to give back, or time was up: the heap grew over the soft limit.
    Exceeded = 1,
    /// The fuse tripped: 95 % of the hard limit were reached.
    Fuse = 2,
    /// Held memory came up to 90 % of the soft limit.
    NearMemoryLimit = 3,
    /// Held memory came up to 90 % of the hard limit.
    NearHardLimit = 4,
    /// The hard limit refused memory.
    Refused = 5,
}

impl LimitKind {
    const ALL: [Self; 6] = [Self::Assist, Self::Exceeded, Self::Fuse, Self::NearMemoryLimit, Self::NearHardLimit, Self::Refused];
}

/// How recording ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
#[repr(u8)]
pub enum Ending {
    /// The [`Recorder`] was dropped.
    Stopped = 0,
    /// The process exited: `main` returned, or somebody called `exit`.
    Exited = 1,
}

impl Ending {
    const ALL: [Self; 2] = [Self::Stopped, Self::Exited];
}

/// Records to where `FREESTONE_RECORDER` says, until the process ends; nothing if it says nothing, or the process has somebody else's rights. What
/// goes wrong is one line on standard error.
pub(crate) fn start_from_environment() {
    let Some(path) = crate::init::environment("FREESTONE_RECORDER") else { return };
    match start(recording::with_pid(&path)) {
        Ok(recorder) => recorder.forever(),
        // That nobody listens is no reason to panic.
        Err(error) => drop(writeln!(io::stderr(), "freestone: no flight recorder: {error}")),
    }
}

/// What the harness measures: the recorder's own way of writing, and the same bytes for another way.
#[doc(hidden)]
pub mod costs {
    pub use super::recording::Costs;
}
