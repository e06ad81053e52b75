//! Floor 2. The last line: a program broke the contract, or we did.
//!
//! The line is put together on the stack and written with one system call: no allocation, no lock, no unwinding, and it dies
//! even when standard error is closed. It always has the same shape, so that machines can read it too:
//!
//! ```text
//! freestone: fatal: double free: ptr=0x200000012340 class=7 (64 B): this block was free already; …
//! ```

use core::ops::{Deref, DerefMut};

use crate::line;
use crate::options::Complaint;
use crate::os;
use crate::probes;

/// What a program can do wrong with a pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Misuse {
    /// The block was free when it was freed.
    DoubleFree,
    /// The block belongs to another size class than its `Layout` says.
    SizeMismatch,
    /// The address does not belong to this allocator.
    Foreign,
    /// It belongs to another copy of this allocator in the same process.
    Sibling,
    /// The address lies inside a block, not at its start.
    Interior,
    /// The address cannot be the start of any block.
    Misaligned,
    /// The address is ours, but nothing was ever allocated there.
    NeverAllocated,
    /// Behind the end of a guarded block something was written.
    Overflow = 9,
    /// Before the start of a guarded block something was written.
    Underflow = 10,
}

// Tracers know them by their numbers.
const _: () = assert!(Misuse::NeverAllocated as usize + 1 == probes::BROKEN_INVARIANT);

impl Misuse {
    const fn name(self) -> &'static str {
        match self {
            Self::DoubleFree => "double free",
            Self::SizeMismatch => "size mismatch",
            Self::Foreign | Self::Sibling => "foreign pointer",
            Self::Interior => "interior pointer",
            Self::Misaligned => "misaligned pointer",
            Self::NeverAllocated => "invalid free",
            Self::Overflow => "overflow",
            Self::Underflow => "underflow",
        }
    }

    const fn hint(self) -> &'static str {
        match self {
            Self::DoubleFree => {
                "this block was free already; a second owner, a copied raw pointer or a drop that ran twice is likely"
            }
            Self::SizeMismatch => {
                "freed with a Layout of another size class than it was allocated with; look for a transmuted Box or a wrong capacity"
            }
            Self::Foreign => {
                "this allocator never handed out that address; it may come from the stack, from C's malloc or from another heap"
            }
            Self::Sibling => {
                "another copy of Freestone in this process handed out that address; each copy must get back its own, so look for memory that crosses from C to Rust"
            }
            Self::Interior => "the address lies inside a block; free what alloc returned",
            Self::Misaligned => "no block starts at such an address",
            Self::NeverAllocated => "the address is ours, but no block was allocated there",
            Self::Overflow => "something was written behind the end of this block before it was freed",
            Self::Underflow => "something was written before the start of this block before it was freed",
        }
    }
}

/// Says what was done to which pointer, and ends the process. `block_bytes` is what the call claimed the block to be.
#[cold]
#[inline(never)]
pub(crate) fn misuse(kind: Misuse, address: usize, class: Option<usize>, block_bytes: usize) -> ! {
    misuse_with(kind, address, class, block_bytes, || {})
}

/// As [`misuse`]; `more` says what else is known before the process ends.
#[cold]
pub(crate) fn misuse_with(kind: Misuse, address: usize, class: Option<usize>, block_bytes: usize, more: impl FnOnce()) -> ! {
    probes::fatal(kind as usize, address);
    let mut line = Line::fatal();
    line.text(kind.name());
    line.text(": ptr=");
    line.hexadecimal(address);
    match class {
        Some(class) => {
            line.text(" class=");
            line.decimal(class);
        }
        None => line.text(" class=none"),
    }
    line.text(" (");
    line.decimal(block_bytes);
    line.text(" B): ");
    line.text(kind.hint());
    line.say();
    more();
    os::abort()
}

/// The hard limit is near. One line with the accounts, in KiB.
#[cold]
#[inline(never)]
#[cfg(not(loom))]
pub(crate) fn say_fuse(trips: u64, accounts: &[(&str, usize)], held: usize, limit: usize, exits: bool) {
    let mut line = Line::new("freestone: memory: ");
    line.decimal(held >> 10);
    line.text(" KiB of the hard limit of ");
    line.decimal(limit >> 10);
    line.text(" KiB are held (");
    for (index, (name, bytes)) in accounts.iter().enumerate() {
        line.text(if index > 0 { ", " } else { "" });
        line.text(name);
        line.text(" ");
        line.decimal(bytes >> 10);
    }
    line.text("); fuse trip ");
    line.decimal(trips as usize);
    line.text(if exits { "; exiting with code 137" } else { "" });
    line.say();
}

/// The process cannot go on, for this reason.
#[cold]
#[cfg(freestone_c)]
pub(crate) fn last_words(parts: &[&str]) -> ! {
    probes::fatal(probes::NO_MEMORY_IN_CPP, 0);
    let mut line = Line::fatal();
    for part in parts {
        line.text(part);
    }
    line.die()
}

/// A part of an environment variable has no effect: one line each.
#[cold]
pub(crate) fn complain(variable: &str, complaint: Complaint<'_>) {
    let mut line = Line::new("freestone: ");
    line.text(variable);
    match complaint {
        Complaint::UnknownKey(key) => {
            line.text(": unknown option '");
            line.bytes(key);
            line.text("' ignored");
        }
        Complaint::BadValue(key, value) => {
            line.text(": option '");
            line.bytes(key);
            line.text("' has no value '");
            line.bytes(value);
            line.text("'; ignored");
        }
    }
    line.say();
}

/// Dropped only by unwinding, which must not get past here; says what did. To be forgotten when it did not come to that.
pub(crate) struct NoWayOut(pub(crate) &'static str);

impl Drop for NoWayOut {
    fn drop(&mut self) {
        broken(self.0);
    }
}

/// One of our own invariants does not hold: `what` is a constant sentence.
#[cold]
#[inline(never)]
#[cfg_attr(loom, allow(dead_code))]
pub(crate) fn broken(what: &'static str) -> ! {
    probes::fatal(probes::BROKEN_INVARIANT, 0);
    let mut line = Line::fatal();
    line.text("broken invariant: ");
    line.text(what);
    line.text("; this is a bug in freestone, please report it");
    line.die()
}

/// A line on its way to standard error.
struct Line(line::Line<400>);

impl Line {
    /// The beginning of a line after which nothing more is said.
    fn fatal() -> Self {
        Self::new("freestone: fatal: ")
    }

    fn new(beginning: &str) -> Self {
        let mut line = line::Line::new();
        line.text(beginning);
        Self(line)
    }

    #[cfg_attr(loom, allow(dead_code))]
    fn say(mut self) {
        os::write_error(self.finish());
    }

    fn die(mut self) -> ! {
        os::write_error(self.finish());
        os::abort()
    }
}

impl Deref for Line {
    type Target = line::Line<400>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for Line {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}
