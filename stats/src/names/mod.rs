//! What addresses are called: which file each comes from, and which function it lies in.
//!
//! A profile holds addresses. [`mappings`] says which files they come from, with the build ids that tell one build of a file from another; that costs little,
//! and is written into every profile. Names cost more, and are made when somebody reads: with the feature `names`, `Symbols` has those of functions in
//! the running process. Files, lines and what was inlined take hundreds of megabytes where programs are large, so that is for another process, at
//! leisure: `freestone-bench profile name heap.pb.gz --binary app`.
//!
//! # Programs that are stripped
//!
//! | what was done to the program | what names come from |
//! |---|---|
//! | nothing, or `strip = "debuginfo"`, `strip --strip-debug` | its own table of symbols |
//! | `strip = "symbols"`, `strip`, with a debug file | that: `/usr/lib/debug/.build-id/…`, or the one that the program names |
//! | the same, names kept | what was kept: `app.symbols` beside it, `BUILD_ID.symbols` in the folder `FREESTONE_SYMBOLS`, or its own end |
//! | the same, and nothing else is there | nothing has names but what is exported: `app!0x4a10`, the file and the beginning of the function |
//!
//! Symbols are what links names to addresses; once they are gone, nobody can say them again. What is left even then says where functions begin, so that a
//! profile has the right shape, and gets names later from a copy of the program that was not stripped. To have names in a container without a copy,
//! keep them before they go, which takes a seventh of the stripped program's size:
//!
//! ```text
//! freestone-bench profile symbols target/release/app -o app.symbols && strip target/release/app    # then ship both, side by side
//! ```
//!
//! or in one file, `freestone-bench profile symbols APP --into STRIPPED`.

#[cfg(feature = "names")]
mod binary;
#[cfg(feature = "names")]
mod elf;
mod image;
#[cfg(feature = "names")]
mod kept;
mod mapping;
mod note;
#[cfg(feature = "names")]
mod symbols;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

#[cfg(feature = "names")]
pub use binary::{Binary, BinaryError, demangle};
pub use mapping::{Mapping, mappings};
#[cfg(feature = "names")]
pub use symbols::Symbols;

/// Opens a file to read it, if it is one: somebody may have put a pipe into its place, and nobody would ever write to that.
fn open_regular(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a file")) }
}
