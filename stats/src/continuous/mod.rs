//! Profiles every so often, for as long as the process lives: into a directory, or to a server that keeps them (Pyroscope, Parca).
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use freestone_stats::continuous::{self, DirectoryOptions, PushOptions};
//!
//! // heap-20261121T190532.123Z-4711.pb.gz, and so on: at most 240 of them, at most 64 MiB.
//! continuous::to_directory("/var/lib/orders/profiles", DirectoryOptions::new().every(Duration::from_secs(60)))?.forever();
//! // To Pyroscope; `parca+http://…` is for Parca.
//! continuous::push("http://pyroscope:4040", PushOptions::new().service("orders").label("region", "eu-1"))?.forever();
//! # Ok::<(), continuous::StartError>(())
//! ```
//!
//! Programs that call [`init`](crate::init()) need no line of their own: `FREESTONE_PROFILE_DIR=/var/lib/orders/profiles` and
//! `FREESTONE_PROFILE_PUSH=http://pyroscope:4040` start the same, `FREESTONE_PROFILE_EVERY=15s` says how often. Servers that come and fetch need
//! nothing of this: they are pointed at `/debug/pprof/allocs` of the module `http`.
//!
//! # What it does to the process
//!
//! Each of the two is a thread, `freestone-prof`, with all signals blocked, that sleeps in between. What it allocates is in no profile. Whatever goes
//! wrong is one line on standard error, at most one in ten minutes, and counts in [`Handle::stats`]; the program goes on, and the thread tries
//! again, less and less often, up to every ten minutes. In the child of a fork there is neither.
//!
//! # The directory
//!
//! It is opened once, and again only after a failure; if the last part of the path is a symlink, it is refused. Each profile is written under a
//! temporary name that did not exist before, with mode 0600, and gets its own only when it is complete: who sees a `.pb.gz` sees all of it, also
//! when the process is killed in the middle. Nothing that has a name already is written to. When there are too many or they are too large together, the oldest
//! go: regular files with this process's number in names of this form, and no others ([`Rotate`]).
//!
//! # The server
//!
//! Each request has [a limit to its time](PushOptions::timeout), from the look-up of the name to the last byte of the answer. Redirects are not followed: an
//! address that moved is better corrected than given the credentials. Where the server does not answer, or answers 408, 429 or 5xx, profiles
//! wait ([`PushOptions::waiting`]), and the oldest are dropped, and counted, when there is no more room. In between is a time that doubles, with chance in it so
//! that a fleet does not come back all at once, and never less than the server's `Retry-After`. What it refuses for good is not sent again.
//! `HTTP_PROXY` and `HTTPS_PROXY` are honoured, as in other programs.

mod directory;
mod make;
mod server;
mod when;
mod worker;

use std::error::Error;
use std::fmt;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

pub use worker::Handle;

use crate::profile::Kind;

/// How often there is a profile, if nobody says otherwise: what the servers' own scrapers do.
const EVERY: Duration = Duration::from_secs(15);
/// From so often to so rarely.
const EVERY_MIN: Duration = Duration::from_millis(100);
const EVERY_MAX: Duration = Duration::from_hours(24);
/// An hour of them, four times a minute.
const FILES_MAX: usize = 240;
/// A profile is some 10 to 100 KiB.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Eight minutes of them: as long as a server takes to be replaced.
const WAITING_MAX: usize = 32;
const WAITING_BYTES_MAX: usize = 8 << 20;
/// What a request may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Writes profiles into a directory from now on.
///
/// # Errors
///
/// When the directory is not there, is a symlink or no directory, an option makes no sense, or there is no thread to be had. What goes wrong later
/// is retried.
pub fn to_directory(path: impl AsRef<Path>, options: DirectoryOptions) -> Result<Handle, StartError> {
    let directory = directory::Directory::open(path.as_ref(), &options)?;
    worker::write(directory, options)
}

/// Sends profiles to a server from now on.
///
/// The address says what it is:
///
/// | address | is | what is sent |
/// |---|---|---|
/// | `http://pyroscope:4040` | Pyroscope 1.0 and later, Grafana Cloud, Alloy's `pyroscope.receive_http` | `POST …/push.v1.PusherService/Push` |
/// | `http://pyroscope:4040/ingest` | the same, and older ones | `POST …/ingest?format=pprof&…` |
/// | `parca+http://parca:7070` | Parca | gRPC-Web, `POST …/api/parca.profilestore.v1alpha1.ProfileStoreService/WriteRaw` |
///
/// A path before these is kept (`http://proxy/pyroscope`), and so is a user with password. `https` needs the feature `continuous-tls`.
///
/// # Errors
///
/// When the address or an option makes no sense, or there is no thread to be had. Nothing is asked of the server yet.
pub fn push(address: &str, options: PushOptions) -> Result<Handle, StartError> {
    let server = server::Server::new(address, &options)?;
    worker::send(server, options)
}

/// What the columns count that only grow: [`Kind::Heap`]'s `alloc_objects` and `alloc_space`, and all of [`Kind::Lifetimes`] and [`Kind::Contention`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Counting {
    /// From the start of the process. Two files are subtracted with `go tool pprof -base`.
    #[default]
    SinceStart,
    /// From the profile before. Adding up all files gives the whole; what is in use is as it is, in any case.
    SinceLast,
}

/// Which files may be deleted to make room.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rotate {
    /// Those of this process: with its number in their names. Those of earlier processes stay.
    #[default]
    Own,
    /// All profiles that have names of this form, whoever wrote them: for a directory that one program has for itself.
    All,
}

/// What stands for a function in a profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Names {
    /// Its name, as the symbol tables of the program and its libraries have it: for servers and readers that do not have these files.
    #[default]
    Functions,
    /// Its address, with the build id of the file it is in: for who names them himself, from files with more to say. Costs less.
    Addresses,
}

/// How to write profiles into a directory.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use = "nothing is written before `to_directory`"]
pub struct DirectoryOptions {
    every: Duration,
    kinds: Vec<Kind>,
    files_max: usize,
    bytes_max: u64,
    counting: Counting,
    rotate: Rotate,
    names: Names,
}

impl Default for DirectoryOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl DirectoryOptions {
    /// A heap profile every 15 seconds, 240 files, 64 MiB.
    pub fn new() -> Self {
        Self {
            every: EVERY,
            kinds: vec![Kind::Heap],
            files_max: FILES_MAX,
            bytes_max: FILE_BYTES_MAX,
            counting: Counting::SinceStart,
            rotate: Rotate::Own,
            names: Names::Functions,
        }
    }

    /// A profile of each kind so often: between a tenth of a second and a day.
    pub fn every(self, every: Duration) -> Self {
        Self { every: every.clamp(EVERY_MIN, EVERY_MAX), ..self }
    }

    /// Profiles of these kinds.
    pub fn kinds(self, kinds: &[Kind]) -> Self {
        Self { kinds: kinds.to_vec(), ..self }
    }

    /// So many files are kept.
    pub fn max_files(self, files: usize) -> Self {
        Self { files_max: files, ..self }
    }

    /// Files of so many bytes together are kept. A profile that is larger by itself is not written.
    pub fn max_bytes(self, bytes: u64) -> Self {
        Self { bytes_max: bytes, ..self }
    }

    /// What columns that only grow count.
    pub fn counting(self, counting: Counting) -> Self {
        Self { counting, ..self }
    }

    /// Which files count, and are deleted.
    pub fn rotate(self, rotate: Rotate) -> Self {
        Self { rotate, ..self }
    }

    /// What stands for functions.
    pub fn names(self, names: Names) -> Self {
        Self { names, ..self }
    }
}

/// How to send profiles to a server.
#[derive(Clone, PartialEq, Eq)]
#[must_use = "nothing is sent before `push`"]
pub struct PushOptions {
    every: Duration,
    kinds: Vec<Kind>,
    labels: Vec<(String, String)>,
    credentials: Option<Credentials>,
    tenant: Option<String>,
    waiting_max: usize,
    waiting_bytes_max: usize,
    timeout: Duration,
    names: Names,
}

/// What goes into `Authorization`.
#[derive(Clone, PartialEq, Eq)]
enum Credentials {
    Basic(String, String),
    Bearer(String),
}

impl Default for PushOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl PushOptions {
    /// A heap profile every 15 seconds, under the name of the program's file.
    pub fn new() -> Self {
        Self {
            every: EVERY,
            kinds: vec![Kind::Heap],
            labels: Vec::new(),
            credentials: None,
            tenant: None,
            waiting_max: WAITING_MAX,
            waiting_bytes_max: WAITING_BYTES_MAX,
            timeout: TIMEOUT,
            names: Names::Functions,
        }
    }

    /// A profile of each kind so often: between a tenth of a second and a day.
    pub fn every(self, every: Duration) -> Self {
        Self { every: every.clamp(EVERY_MIN, EVERY_MAX), ..self }
    }

    /// Profiles of these kinds.
    pub fn kinds(self, kinds: &[Kind]) -> Self {
        Self { kinds: kinds.to_vec(), ..self }
    }

    /// What the program is called there: the label `service_name`. The name of its file, unless this is set.
    pub fn service(self, name: &str) -> Self {
        self.label("service_name", name)
    }

    /// A label that all profiles get. One of that name that was set before is replaced.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.retain(|(known, _)| known != name);
        self.labels.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Who asks, for servers behind a password. Grafana Cloud takes the number of the instance and a token.
    pub fn basic_auth(self, user: &str, password: &str) -> Self {
        Self { credentials: Some(Credentials::Basic(user.to_owned(), password.to_owned())), ..self }
    }

    /// Who asks, for servers that want a token.
    pub fn bearer(self, token: &str) -> Self {
        Self { credentials: Some(Credentials::Bearer(token.to_owned())), ..self }
    }

    /// Whose profiles these are, for servers with several tenants: the header `X-Scope-OrgID`.
    pub fn tenant(self, tenant: &str) -> Self {
        Self { tenant: Some(tenant.to_owned()), ..self }
    }

    /// Profiles that may wait while the server does not take them, and bytes of them.
    pub fn waiting(self, profiles: usize, bytes: usize) -> Self {
        Self { waiting_max: profiles, waiting_bytes_max: bytes, ..self }
    }

    /// What one request may take, from the look-up of the name to the last byte of the answer. Between ten milliseconds and ten minutes.
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout: timeout.clamp(Duration::from_millis(10), Duration::from_mins(10)), ..self }
    }

    /// What stands for functions.
    pub fn names(self, names: Names) -> Self {
        Self { names, ..self }
    }
}

/// Without the credentials.
impl fmt::Debug for PushOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PushOptions")
            .field("every", &self.every)
            .field("kinds", &self.kinds)
            .field("labels", &self.labels)
            .field("has_credentials", &self.credentials.is_some())
            .field("tenant", &self.tenant)
            .field("waiting_max", &self.waiting_max)
            .field("waiting_bytes_max", &self.waiting_bytes_max)
            .field("timeout", &self.timeout)
            .field("names", &self.names)
            .finish()
    }
}

/// Why there are no profiles from now on.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The path is not that of a directory that may be used.
    Directory(PathBuf, io::Error),
    /// The path, or its last part, is a symlink.
    Symlink(PathBuf),
    /// The address is none, and why. The address is not repeated: there may be a password in it.
    Address(String),
    /// An option makes no sense, and why.
    Options(String),
    /// There is no thread to be had.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path, error) => write!(f, "cannot use the directory {}: {error}", path.display()),
            Self::Symlink(path) => write!(f, "{} is a symlink, which are not followed", path.display()),
            Self::Address(why) => write!(f, "the address {why}"),
            Self::Options(why) => f.write_str(why),
            Self::Thread(error) => write!(f, "there is no thread to be had: {error}"),
        }
    }
}

impl Error for StartError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Directory(_, error) | Self::Thread(error) => Some(error),
            _ => None,
        }
    }
}

/// What became of the profiles so far. Counts only grow, but for those that wait.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Profiles that were taken.
    pub taken: u64,
    /// Profiles that are in the directory, or were, or that the server has.
    pub written: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Profiles that nobody has: there was no room for them to wait, the server refused them for good, or the directory could not be written to.
    pub dropped: u64,
    /// Files that were deleted to make room for newer ones.
    pub deleted: u64,
    /// Profiles that wait for the server, at the moment.
    pub waiting: u64,
    /// Their bytes.
    pub waiting_bytes: u64,
    /// When the last one was written.
    pub last_written: Option<SystemTime>,
    /// Why the last attempt that failed did so.
    pub last_error: Option<String>,
}

/// Starts what `FREESTONE_PROFILE_DIR` and `FREESTONE_PROFILE_PUSH` ask for, until the process ends. What goes wrong is one line on standard error; a
/// directory that is not there yet may still come.
pub(crate) fn start_from_environment() {
    let directory = crate::init::environment("FREESTONE_PROFILE_DIR");
    let address = crate::init::environment("FREESTONE_PROFILE_PUSH");
    if directory.is_none() && address.is_none() {
        return;
    }
    let text = |name| crate::init::environment(name).map(|value| value.to_string_lossy().into_owned());
    let every = text("FREESTONE_PROFILE_EVERY").and_then(|value| {
        let every = when::duration(&value);
        if every.is_none() {
            say(format_args!(
                "FREESTONE_PROFILE_EVERY={} is no time such as 500ms, 15s, 1m or 1h: profiles come every 15s",
                value.escape_debug()
            ));
        }
        every
    });
    let every = every.unwrap_or(EVERY);
    if let Some(path) = directory {
        let options = DirectoryOptions::new().every(every);
        let directory = directory::Directory::not_yet_open(path.as_ref(), &options);
        match worker::write(directory, options) {
            Ok(handle) => handle.forever(),
            Err(error) => say(format_args!("FREESTONE_PROFILE_DIR={}: {error}", path.to_string_lossy().escape_debug())),
        }
    }
    if let Some(address) = address {
        let mut options = PushOptions::new().every(every);
        for pair in text("FREESTONE_PROFILE_LABELS").unwrap_or_default().split(',').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=') {
                Some((name, value)) => options = options.label(name.trim(), value.trim()),
                None => say(format_args!(
                    "FREESTONE_PROFILE_LABELS has {}, which is no name=value: it is left out",
                    pair.escape_debug()
                )),
            }
        }
        if let Some(token) = text("FREESTONE_PROFILE_TOKEN") {
            options = options.bearer(&token);
        }
        if let Some(tenant) = text("FREESTONE_PROFILE_TENANT") {
            options = options.tenant(&tenant);
        }
        match push(&address.to_string_lossy(), options) {
            Ok(handle) => handle.forever(),
            Err(error) => say(format_args!("FREESTONE_PROFILE_PUSH: {error}")),
        }
    }
}

/// One line on standard error.
fn say(what: fmt::Arguments<'_>) {
    // One write, so that lines of several threads do not mix. That nobody listens is no reason to panic.
    let _ = io::stderr().write_all(format!("freestone: {what}\n").as_bytes());
}
