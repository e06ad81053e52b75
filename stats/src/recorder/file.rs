//! The file: made, or refused; ours alone, as long as it needs to be, and with what was there before out of the way.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use super::format::{HEADER_BYTES, Header, MAGIC};
use super::writer::header_page;
use super::{Refusal, StartError};

/// So many earlier recordings are kept beside the newest: a program that is killed, started again, and killed while it starts must not push out
/// the recording that tells why.
const KEPT: usize = 3;
/// Somebody who looks whether a recording is still written locks it for a moment: so often we try, and wait in between.
const LOCK_TRIES: usize = 10;
const LOCK_WAIT: Duration = Duration::from_millis(10);

/// A file that is locked, and so long that no store into it has to find room.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) file: File,
    pub(super) identity: Identity,
}

/// Which file it is, whatever its name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    pub(super) fn of(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Makes the file at a path: header first, then the room for all the rest.
///
/// An earlier recording there is renamed to `PATH.1`, and so on up to `.3`. Nothing else that is there is touched.
pub(super) fn make(path: &Path, bytes: usize, header: &mut Header) -> Result<Made, StartError> {
    let mut aside = false;
    // Between any two steps somebody else may do the same. Whoever holds the lock of the file that has the name goes on.
    for _ in 0..8 {
        let file = open(path)?;
        let metadata = file.metadata().map_err(io_error("look at", path))?;
        refuse(path, &metadata)?;
        lock(&file, path)?;
        let identity = Identity::of(&metadata);
        if fs::symlink_metadata(path).map(|now| Identity::of(&now)).ok() != Some(identity) {
            continue;
        }
        if file.metadata().map_err(io_error("look at", path))?.len() > 0 {
            if !is_recording(&file) {
                return Err(StartError::NotARecording(path.to_owned()));
            }
            put_aside(path)?;
            aside = true;
            continue;
        }
        return match fill(&file, bytes, header) {
            Ok(()) => Ok(Made { file, identity }),
            Err(error) => {
                // Half a recording is no use to anybody, least of all on a full disk.
                let _ = fs::remove_file(path);
                if aside {
                    let _ = fs::rename(kept(path, 1), path);
                }
                Err(StartError::Io("make room for", path.to_owned(), error))
            }
        };
    }
    Err(StartError::InUse(path.to_owned(), None))
}

fn open(path: &Path) -> Result<File, StartError> {
    // Never through a symlink, and never waiting for somebody at the other end of a pipe. That no child keeps it is the standard library's way.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags).open(path);
    opened.map_err(|error| match error.raw_os_error() {
        Some(libc::ELOOP) => StartError::Refused(path.to_owned(), Refusal::Symlink),
        Some(libc::EISDIR | libc::ENXIO | libc::ENODEV) => StartError::Refused(path.to_owned(), Refusal::NotAFile),
        _ => StartError::Io("open", path.to_owned(), error),
    })
}

fn refuse(path: &Path, metadata: &fs::Metadata) -> Result<(), StartError> {
    // SAFETY: always succeeds.
    let user = unsafe { libc::geteuid() };
    let refusal = if !metadata.is_file() {
        Refusal::NotAFile
    } else if metadata.uid() != user {
        Refusal::NotOurs
    } else if metadata.nlink() > 1 {
        Refusal::OtherLinks
    } else {
        return Ok(());
    };
    Err(StartError::Refused(path.to_owned(), refusal))
}

fn lock(file: &File, path: &Path) -> Result<(), StartError> {
    for attempt in 1.. {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if attempt == LOCK_TRIES => {
                return Err(StartError::InUse(path.to_owned(), super::read::pid_of(file)));
            }
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_WAIT),
            Err(TryLockError::Error(error)) => return Err(StartError::Io("lock", path.to_owned(), error)),
        }
    }
    Ok(())
}

fn is_recording(file: &File) -> bool {
    let mut start = [0; MAGIC.len()];
    file.read_exact_at(&mut start, 0).is_ok() && start == MAGIC
}

/// Renames the recording at a path to `PATH.1`, what was there to `PATH.2`, and so on.
fn put_aside(path: &Path) -> Result<(), StartError> {
    let is_free = |path: &Path| matches!(fs::symlink_metadata(path), Err(error) if error.kind() == io::ErrorKind::NotFound);
    let last = (1..=KEPT).find(|&number| is_free(&kept(path, number))).unwrap_or(KEPT);
    for number in 1..=last {
        let name = kept(path, number);
        if !is_free(&name) && !is_own_recording(&name) {
            return Err(StartError::NotARecording(name));
        }
    }
    for number in (1..last).rev() {
        fs::rename(kept(path, number), kept(path, number + 1)).map_err(io_error("rename", &kept(path, number)))?;
    }
    fs::rename(path, kept(path, 1)).map_err(io_error("rename", path))
}

/// The name of an earlier recording.
fn kept(path: &Path, number: usize) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(format!(".{number}"));
    name.into()
}

fn is_own_recording(path: &Path) -> bool {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let Ok(mut file) = opened else { return false };
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    let mut start = [0; MAGIC.len()];
    is_file && file.read_exact(&mut start).is_ok() && start == MAGIC
}

/// Writes the header, and makes room for the rest: a disk that is full says so here, and not by a signal later.
fn fill(file: &File, bytes: usize, header: &mut Header) -> io::Result<()> {
    // Whatever the umask left of it.
    file.set_permissions(Permissions::from_mode(0o600))?;
    // Beyond this the kernel would send a signal rather than an error.
    if file_size_limit().is_some_and(|limit| (bytes as u64) > limit) {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    // The header first: a file that has anything in it can be told for a recording.
    file.write_all_at(&header_page(header), 0)?;
    match allocate(file, bytes) {
        0 => Ok(()),
        libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL => write_zeros(file, bytes),
        error => Err(io::Error::from_raw_os_error(error)),
    }
}

fn file_size_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the place to write to is valid.
    let got = unsafe { libc::getrlimit(libc::RLIMIT_FSIZE, &raw mut limit) };
    (got == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

fn allocate(file: &File, bytes: usize) -> i32 {
    loop {
        // SAFETY: the descriptor is open; the call touches no memory of ours.
        let error = unsafe { libc::posix_fallocate(file.as_raw_fd(), 0, bytes as libc::off_t) };
        if error != libc::EINTR {
            return error;
        }
    }
}

fn write_zeros(file: &File, bytes: usize) -> io::Result<()> {
    let zeros = [0; HEADER_BYTES];
    let mut at = HEADER_BYTES;
    while at < bytes {
        let some = zeros.len().min(bytes - at);
        file.write_all_at(&zeros[..some], at as u64)?;
        at += some;
    }
    Ok(())
}

fn io_error(what: &'static str, path: &Path) -> impl Fn(io::Error) -> StartError {
    let path = path.to_owned();
    move |error| StartError::Io(what, path.clone(), error)
}
