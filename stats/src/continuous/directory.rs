//! The directory: profiles that appear in it as a whole, under names that nobody had, and the oldest that go.
//!
//! Everything is asked of a descriptor of the directory, by names without a slash, so that nobody can lead us elsewhere by renaming what lies above
//! it. Temporary files are locked (`flock`) for as long as somebody writes them: one that can be locked is of a process that was killed, and goes.
//! The kernel ends locks with their process, also in other containers that share the directory, where its number would mean nothing.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process;
use std::time::SystemTime;

use super::{DirectoryOptions, Rotate, StartError, when};
use crate::profile::Kind;

/// What names of profiles end with.
const SUFFIX: &str = ".pb.gz";
/// What temporary names begin and end with. They are hidden, and no profiles for anybody who looks for `*.pb.gz`.
const TEMPORARY: (&str, &str) = (".freestone-", ".tmp");
/// So many names are tried, a millisecond apart, where others have them.
const NAMES_TRIED: u64 = 1000;
/// Somebody else may have deleted files: after so many of ours we look again what there is.
const LOOK_AGAIN_AFTER: u32 = 100;

/// A directory for profiles.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    files_max: usize,
    bytes_max: u64,
    rotate: Rotate,
    /// `None`: it is to be opened.
    descriptor: Option<OwnedFd>,
    /// The profiles in it that count, the oldest first. `None`: nobody has looked.
    files: Option<Vec<Listed>>,
    written_since_look: u32,
    /// The names of ours, the oldest first: a clock that was set back does not make the newest file the oldest.
    ours: Vec<CString>,
    /// What the clock said when the last one was named, and the time in its name, in milliseconds.
    last_ms: (u64, u64),
    pid: u32,
}

/// A profile in the directory.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Listed {
    name: CString,
    bytes: u64,
}

impl Directory {
    /// Opens it.
    pub(super) fn open(path: &Path, options: &DirectoryOptions) -> Result<Self, StartError> {
        check(options)?;
        let mut directory = Self::not_yet_open(path, options);
        directory.descriptor = Some(open(path)?);
        Ok(directory)
    }

    /// One that may come later: it is opened for the first profile.
    pub(super) fn not_yet_open(path: &Path, options: &DirectoryOptions) -> Self {
        Self {
            path: path.to_owned(),
            files_max: options.files_max,
            bytes_max: options.bytes_max,
            rotate: options.rotate,
            descriptor: None,
            files: None,
            written_since_look: 0,
            ours: Vec::new(),
            last_ms: (u64::MAX, 0),
            pid: process::id(),
        }
    }

    /// Writes a profile, under the name of this time or of the next millisecond that is free. Says how many others were deleted for it.
    ///
    /// After an error the directory is opened anew the next time: it may have been another one since.
    pub(super) fn write(&mut self, kind: Kind, profile: &[u8], time: SystemTime) -> Result<u64, String> {
        let result = self.try_write(kind, profile, time);
        if result.is_err() {
            self.descriptor = None;
            self.files = None;
        }
        result
    }

    fn try_write(&mut self, kind: Kind, profile: &[u8], time: SystemTime) -> Result<u64, String> {
        let bytes = profile.len() as u64;
        if bytes > self.bytes_max {
            return Err(format!("a profile of {bytes} bytes is larger than all files together may be, {}", self.bytes_max));
        }
        if self.descriptor.is_none() {
            self.descriptor = Some(open(&self.path).map_err(|error| error.to_string())?);
            self.files = None;
        }
        if self.files.is_none() || self.written_since_look >= LOOK_AGAIN_AFTER {
            self.look()?;
        }
        let deleted = self.make_room(bytes)?;
        let temporary = Temporary::new(self.descriptor(), self.pid).map_err(|error| self.error("make a file in", &error))?;
        temporary.write(profile).map_err(|error| self.error("write to", &error))?;
        let (name, last_ms) = self.rename(temporary, kind, time).map_err(|error| self.error("name a file in", &error))?;
        self.last_ms = last_ms;
        self.ours.push(name.clone());
        self.files.get_or_insert_default().push(Listed { name, bytes });
        self.written_since_look += 1;
        Ok(deleted)
    }

    fn error(&self, what: &str, error: &io::Error) -> String {
        format!("cannot {what} {}: {error}", self.path.display())
    }

    fn descriptor(&self) -> &OwnedFd {
        self.descriptor.as_ref().expect("opened above")
    }

    /// Looks which profiles there are, and takes away temporary files that nobody writes any more.
    fn look(&mut self) -> Result<(), String> {
        let names = names(self.descriptor()).map_err(|error| self.error("read", &error))?;
        let mut files = Vec::new();
        for name in names {
            let Ok(text) = name.to_str() else { continue };
            if is_temporary(text) {
                remove_if_nobody_writes(self.descriptor(), &name);
            } else if pid_of(text).is_some_and(|pid| self.rotate == Rotate::All || pid == self.pid) {
                // What is no regular file is not of our making.
                if let Ok(Some(bytes)) = regular_bytes(self.descriptor(), &name) {
                    files.push(Listed { name, bytes });
                }
            }
        }
        // The time comes after the kind, and for files of the same time any order will do.
        files.sort_by(|a, b| time_of(&a.name).cmp(time_of(&b.name)));
        self.ours.retain(|name| files.iter().any(|file| file.name == *name));
        files.sort_by_key(|file| self.ours.iter().position(|name| *name == file.name).map_or(0, |place| place + 1));
        self.files = Some(files);
        self.written_since_look = 0;
        Ok(())
    }

    /// Deletes the oldest until there is room for one more file of so many bytes.
    fn make_room(&mut self, bytes: u64) -> Result<u64, String> {
        let files = self.files.as_deref().unwrap_or_default();
        let mut sum: u64 = files.iter().map(|file| file.bytes).sum();
        let mut count = files.len();
        let mut going = 0;
        while going < files.len() && (count + 1 > self.files_max || sum + bytes > self.bytes_max) {
            sum -= files[going].bytes;
            count -= 1;
            going += 1;
        }
        for file in &files[..going] {
            unlink(self.descriptor(), &file.name).map_err(|error| self.error("delete from", &error))?;
        }
        if let Some(files) = &mut self.files {
            for gone in files.drain(..going) {
                self.ours.retain(|name| *name != gone.name);
            }
        }
        Ok(going as u64)
    }

    /// Gives a complete file its name. Says what that is, and what becomes of `last_ms`.
    fn rename(&self, temporary: Temporary<'_>, kind: Kind, time: SystemTime) -> io::Result<(CString, (u64, u64))> {
        let unix_ms = when::unix_ms(time);
        // A clock that stands still, before 1970 say, gives all files one time: no need to try again what is taken.
        let (asked, given) = self.last_ms;
        let first = if unix_ms == asked { given + 1 } else { unix_ms };
        for named_ms in first..first + NAMES_TRIED {
            let name = format!("{}-{}-{}{SUFFIX}", kind.name(), when::utc(named_ms), self.pid);
            let name = CString::new(name).expect("no zero byte");
            match temporary.rename(&name) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(()) => {
                    temporary.has_a_name();
                    return Ok((name, (unix_ms, named_ms)));
                }
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

fn check(options: &DirectoryOptions) -> Result<(), StartError> {
    let wrong = if options.kinds.is_empty() {
        "no kind of profile was chosen"
    } else if options.files_max == 0 {
        "no file may be kept: max_files is 0"
    } else if options.bytes_max == 0 {
        "no byte may be kept: max_bytes is 0"
    } else {
        return Ok(());
    };
    Err(StartError::Options(wrong.to_owned()))
}

fn open(path: &Path) -> Result<OwnedFd, StartError> {
    let in_c = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| StartError::Directory(path.to_owned(), io::ErrorKind::InvalidInput.into()))?;
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_CLOEXEC;
    // SAFETY: a string that ends with a zero, and flags that need no third argument.
    let descriptor = unsafe { libc::open(in_c.as_ptr(), flags) };
    if descriptor >= 0 {
        // SAFETY: just opened, and nobody else knows of it.
        return Ok(unsafe { OwnedFd::from_raw_fd(descriptor) });
    }
    let error = io::Error::last_os_error();
    // With O_DIRECTORY the kernel calls a symlink no directory.
    if path.symlink_metadata().is_ok_and(|metadata| metadata.is_symlink()) {
        return Err(StartError::Symlink(path.to_owned()));
    }
    Err(StartError::Directory(path.to_owned(), error))
}

/// The process in the name of a profile, if it is one.
fn pid_of(name: &str) -> Option<u32> {
    let (kind, rest) = name.strip_suffix(SUFFIX)?.split_once('-')?;
    let (time, pid) = rest.split_once('-')?;
    let is_number = !pid.is_empty() && !pid.starts_with('0') && pid.bytes().all(|byte| byte.is_ascii_digit());
    let is_kind = ["heap", "allocs", "peak", "lifetimes", "fragmentation", "contention"].contains(&kind);
    if is_kind && when::is_utc(time) && is_number { pid.parse().ok() } else { None }
}

/// The time in the name of a profile.
fn time_of(name: &CStr) -> &[u8] {
    name.to_bytes().split(|&byte| byte == b'-').nth(1).unwrap_or_default()
}

fn is_temporary(name: &str) -> bool {
    name.strip_prefix(TEMPORARY.0)
        .and_then(|rest| rest.strip_suffix(TEMPORARY.1))
        .is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-'))
}

/// A file under a temporary name, which goes with this, unless it got another.
struct Temporary<'a> {
    directory: &'a OwnedFd,
    file: File,
    name: CString,
}

impl<'a> Temporary<'a> {
    fn new(directory: &'a OwnedFd, pid: u32) -> io::Result<Self> {
        let name = format!("{}{pid}-{:016x}{}", TEMPORARY.0, when::chance(), TEMPORARY.1);
        let name = CString::new(name).expect("no zero byte");
        // Never something that is there, be it a symlink, a pipe or a file.
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NOCTTY;
        // SAFETY: a descriptor that is open, a string that ends with a zero, and the mode that O_CREAT wants.
        let descriptor = unsafe { libc::openat(directory.as_raw_fd(), name.as_ptr(), flags, 0o600 as libc::mode_t) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nobody else knows of it.
        let file = unsafe { File::from_raw_fd(descriptor) };
        let temporary = Self { directory, file, name };
        // Whatever the umask left of the mode: the owner reads and writes, nobody else does.
        // SAFETY: a descriptor that is open.
        if unsafe { libc::fchmod(descriptor, 0o600) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // A lock that is not to be had is no reason not to write: then somebody takes it for an orphan, and the next try is ours.
        let _ = temporary.file.try_lock();
        Ok(temporary)
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        (&self.file).write_all(bytes)
    }

    /// Gives it a name that nobody has.
    fn rename(&self, name: &CStr) -> io::Result<()> {
        let directory = self.directory.as_raw_fd();
        // SAFETY: a descriptor that is open, twice, and strings that end with a zero.
        let result = unsafe { libc::renameat2(directory, self.name.as_ptr(), directory, name.as_ptr(), libc::RENAME_NOREPLACE) };
        if result == 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        if !matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS)) {
            return Err(error);
        }
        // A file system that cannot do it in one step. Between these two somebody may take the name, and loses the file: there is no better.
        if regular_bytes(self.directory, name).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        // SAFETY: as above.
        match unsafe { libc::renameat(directory, self.name.as_ptr(), directory, name.as_ptr()) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// There is nothing under its temporary name any more.
    fn has_a_name(mut self) {
        self.name = CString::default();
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.name.is_empty() {
            let _ = unlink(self.directory, &self.name);
        }
    }
}

/// Takes away what a process that was killed left behind.
fn remove_if_nobody_writes(directory: &OwnedFd, name: &CStr) {
    if !matches!(regular_bytes(directory, name), Ok(Some(_))) {
        return;
    }
    let flags = libc::O_WRONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC | libc::O_NOCTTY;
    // SAFETY: a descriptor that is open, a string that ends with a zero, and flags that need no mode.
    let descriptor = unsafe { libc::openat(directory.as_raw_fd(), name.as_ptr(), flags) };
    if descriptor < 0 {
        return;
    }
    // SAFETY: just opened, and nobody else knows of it.
    let file = unsafe { File::from_raw_fd(descriptor) };
    if file.try_lock().is_ok() {
        let _ = unlink(directory, name);
    }
}

/// The size of a regular file; `None` for whatever else has the name.
fn regular_bytes(directory: &OwnedFd, name: &CStr) -> io::Result<Option<u64>> {
    let mut status = MaybeUninit::<libc::stat>::uninit();
    let (descriptor, no_follow) = (directory.as_raw_fd(), libc::AT_SYMLINK_NOFOLLOW);
    // SAFETY: a descriptor that is open, a string that ends with a zero, and a place to write to.
    if unsafe { libc::fstatat(descriptor, name.as_ptr(), status.as_mut_ptr(), no_follow) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it wrote all of it.
    let status = unsafe { status.assume_init() };
    Ok((status.st_mode & libc::S_IFMT == libc::S_IFREG).then_some(status.st_size.max(0) as u64))
}

fn unlink(directory: &OwnedFd, name: &CStr) -> io::Result<()> {
    // SAFETY: a descriptor that is open, and a string that ends with a zero.
    match unsafe { libc::unlinkat(directory.as_raw_fd(), name.as_ptr(), 0) } {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            // Somebody was faster.
            error if error.kind() == io::ErrorKind::NotFound => Ok(()),
            error => Err(error),
        },
    }
}

/// An open stream of names.
struct Stream(*mut libc::DIR);

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: opened by `names`, and closed here only.
        unsafe { libc::closedir(self.0) };
    }
}

/// All names in a directory.
fn names(directory: &OwnedFd) -> io::Result<Vec<CString>> {
    let flags = libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC;
    // A descriptor of its own: the stream takes it, and moves its place.
    // SAFETY: a descriptor that is open, a string that ends with a zero, and flags that need no mode.
    let descriptor = unsafe { libc::openat(directory.as_raw_fd(), c".".as_ptr(), flags) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just opened, and nobody else knows of it.
    let owned = unsafe { OwnedFd::from_raw_fd(descriptor) };
    // SAFETY: a descriptor of a directory that is open.
    let stream = unsafe { libc::fdopendir(owned.as_raw_fd()) };
    if stream.is_null() {
        return Err(io::Error::last_os_error());
    }
    let stream = Stream(stream);
    // The stream closes it.
    let _ = owned.into_raw_fd();
    let mut names = Vec::new();
    loop {
        // SAFETY: takes nothing, and gives a place that is this thread's.
        let errno = unsafe { libc::__errno_location() };
        // The end and an error look alike but for this.
        // SAFETY: the place that the line above gave.
        unsafe { errno.write(0) };
        // SAFETY: a stream that is open, and used by this thread only.
        let entry = unsafe { libc::readdir64(stream.0) };
        if entry.is_null() {
            let error = io::Error::last_os_error();
            return if error.raw_os_error() == Some(0) { Ok(names) } else { Err(error) };
        }
        // SAFETY: the entry is valid until the next call.
        let name = unsafe { &raw const (*entry).d_name };
        // SAFETY: as above, and it ends with a zero.
        let name = unsafe { CStr::from_ptr(name.cast()) };
        names.push(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_profiles_are_told_from_others() {
        assert_eq!(pid_of("heap-20261121T190532.123Z-4711.pb.gz"), Some(4711));
        assert_eq!(pid_of("fragmentation-19700101T000000.000Z-1.pb.gz"), Some(1));
        for other in [
            "heap-20261121T190532.123Z-4711.pb",
            "heap-20261121T190532.123Z-.pb.gz",
            "heap-20261121T190532.123Z-04711.pb.gz",
            "heap-20261121T190532.123Z-+4711.pb.gz",
            "heap-20261121T190532.123Z-4711-2.pb.gz",
            "heap-20261121T190532.123Z-99999999999.pb.gz",
            "heap-20261121T190532Z-4711.pb.gz",
            "cpu-20261121T190532.123Z-4711.pb.gz",
            "heap--4711.pb.gz",
            ".pb.gz",
            "",
        ] {
            assert_eq!(pid_of(other), None, "{other}");
        }
        assert!(is_temporary(".freestone-4711-00ff00ff00ff00ff.tmp"));
        assert!(!is_temporary(".freestone-.tmp"));
        assert!(!is_temporary(".freestone-../x.tmp"));
    }
}
