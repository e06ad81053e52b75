//! Floor 0. Probes: places where a tracer can attach to a running program, one for each thing that the slow paths do.
//!
//! A probe is a `nop`, and a note in a section of the binary that is not loaded: provider `freestone`, a name, the address of the `nop`, and in which
//! registers its arguments are at that moment (the notes of `SystemTap`, which bpftrace, perf and gdb read as well). Arguments are numbers that are at
//! hand, and there is no probe on the fast path, nor in a turn of a thread's two arrays. As long as nobody attaches, one costs about ten instructions.
//!
//! Each is a function of its own that is not inlined: one place, one note. Where it was inlined, the linker left out functions that nobody called in the end,
//! but not their notes, which tracers complain of; it saved three instructions. See `docs/decisions/0020-probes.md`.
//!
//! **Each fires where its counter is booked, and as often**: a count of a probe and the counter of a snapshot are two measures of one thing, and a test
//! holds them against each other. `docs/probes/README.md` lists them for those who attach.

use probe::probe;

/// A thread got `blocks` blocks of a class from central; 0: there was no memory.
#[inline(never)]
pub(crate) fn refill(class_bytes: usize, blocks: usize) {
    probe!(freestone, refill, class_bytes, blocks);
}

/// `blocks` blocks of a class go from a thread to central; 0: its cache was there, but empty.
#[inline(never)]
pub(crate) fn flush(class_bytes: usize, blocks: usize) {
    probe!(freestone, flush, class_bytes, blocks);
}

/// The span at `address` began to hold blocks.
#[inline(never)]
pub(crate) fn span_birth(class_bytes: usize, span_bytes: usize, address: usize) {
    probe!(freestone, span_birth, class_bytes, span_bytes, address);
}

/// It ended; its pages go to the page heap.
#[inline(never)]
pub(crate) fn span_death(class_bytes: usize, span_bytes: usize, address: usize) {
    probe!(freestone, span_death, class_bytes, span_bytes, address);
}

/// A block was looked at closely: of so many bytes, of which so many were asked for.
#[inline(never)]
pub(crate) fn sample(bytes: usize, requested: usize) {
    probe!(freestone, sample, bytes, requested);
}

/// Such a block ended, after so long.
#[inline(never)]
pub(crate) fn sample_end(bytes: usize, lived_ns: u64) {
    probe!(freestone, sample_end, bytes, lived_ns);
}

/// The system is asked for address space; at 0: wherever it likes.
#[inline(never)]
pub(crate) fn map(address: usize, bytes: usize) {
    probe!(freestone, map, address, bytes);
}

/// Address space goes back to the system.
#[inline(never)]
pub(crate) fn unmap(address: usize, bytes: usize) {
    probe!(freestone, unmap, address, bytes);
}

/// Memory goes back to the system, the address stays.
#[inline(never)]
pub(crate) fn purge(address: usize, bytes: usize) {
    probe!(freestone, purge, address, bytes);
}

/// Memory was given back: so many bytes, in so many nanoseconds. `kind` is the number of a `PauseKind`: 4 at leisure, 5 as an assist, 6 all of it.
#[inline(never)]
pub(crate) fn release(bytes: usize, took_ns: u64, kind: usize) {
    probe!(freestone, release, bytes, took_ns, kind);
}

/// Something else took longer than 100 µs. `kind` as above: 0 a depot, 1 central, 2 the page heap, 3 a call to the system.
#[inline(never)]
pub(crate) fn slow(bytes: usize, took_ns: u64, kind: usize) {
    probe!(freestone, slow, bytes, took_ns, kind);
}

/// What happened at a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
pub(crate) enum AtLimit {
    /// Above the soft limit a thread gave back.
    Assist = 1,
    /// It should have, and did not, or less than it should.
    Exceeded = 2,
    /// The fuse of the hard limit tripped.
    Fuse = 3,
    /// The hard limit refused.
    Refusal = 4,
}

/// The heap holds `held` bytes, which is too near to `limit`, or would be with `bytes` more.
#[inline(never)]
pub(crate) fn limit(held: usize, limit: usize, which: AtLimit, bytes: usize) {
    probe!(freestone, limit, held, limit, which, bytes);
}

/// Kinds of [`fatal`] among the numbers of `Misuse`, which go on from 9: an invariant of ours does not hold.
pub(crate) const BROKEN_INVARIANT: usize = 7;
/// C++ wants memory that there is not, in a program without the library that would throw.
#[cfg(freestone_c)]
pub(crate) const NO_MEMORY_IN_CPP: usize = 8;

/// The process is about to end, because of this pointer or, at 0, for another reason. `kind` is the number of a `Misuse`, or one of the above.
#[inline(never)]
pub(crate) fn fatal(kind: usize, address: usize) {
    probe!(freestone, fatal, kind, address);
}
