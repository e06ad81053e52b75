//! Floor 13. How the heap is doing, in the words of glibc: `mallinfo`, `malloc_info`, `malloc_stats`, and the knobs that go with them. What they say
//! is read from a [`Snapshot`], so it is exact where that is.

use core::ffi::{CStr, c_int, c_void};
use core::fmt::{self, Write};
use core::mem::transmute;

use crate::heap;
use crate::os;
use crate::snapshot::Snapshot;
use crate::system_heap;

use super::blocks::OPTIONS;

/// What `mallinfo2` says. The fields that say how glibc's fast bins are doing are 0.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct MallInfo<Number> {
    /// Bytes that are mapped for blocks, those beyond the classes aside.
    arena: Number,
    /// Free blocks in caches and depots.
    ordblks: Number,
    smblks: Number,
    /// Blocks beyond the classes that the program has …
    hblks: Number,
    /// … and their bytes.
    hblkhd: Number,
    usmblks: Number,
    fsmblks: Number,
    /// Bytes that the program has, those beyond the classes included.
    uordblks: Number,
    /// Bytes that are free and hold memory: in caches, in depots, between live blocks, in free pages.
    fordblks: Number,
    /// Bytes that `malloc_trim` could give back at least.
    keepcost: Number,
}

fn mall_info() -> MallInfo<usize> {
    let now = heap::take_snapshot();
    let huge = now.large.allocated_bytes.saturating_sub(now.large.freed_bytes) as usize;
    let bytes = &now.bytes;
    MallInfo {
        arena: bytes.reserved().saturating_sub(huge + bytes.metadata),
        ordblks: now.classes.iter().map(|class| class.thread_cached + class.depot).sum::<u64>() as usize,
        hblks: now.large.allocations.saturating_sub(now.large.frees) as usize,
        hblkhd: huge,
        uordblks: bytes.live,
        fordblks: bytes.thread_cached + bytes.depot + bytes.holes + bytes.dirty,
        keepcost: bytes.dirty,
        ..MallInfo::default()
    }
}

/// The heap's accounts.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo2() -> MallInfo<usize> {
    if heap::is_bypassed(&OPTIONS)
        && let Some(theirs) = of_system(c"mallinfo2")
    {
        // SAFETY: glibc's function of this name has this type.
        return unsafe { transmute::<*mut c_void, extern "C" fn() -> MallInfo<usize>>(theirs) }();
    }
    mall_info()
}

/// As [`mallinfo2`], in numbers that are too small: what does not fit is the largest that does.
#[unsafe(no_mangle)]
pub extern "C" fn mallinfo() -> MallInfo<c_int> {
    let all = mallinfo2();
    let small = |number: usize| c_int::try_from(number).unwrap_or(c_int::MAX);
    MallInfo {
        arena: small(all.arena),
        ordblks: small(all.ordblks),
        smblks: small(all.smblks),
        hblks: small(all.hblks),
        hblkhd: small(all.hblkhd),
        usmblks: small(all.usmblks),
        fsmblks: small(all.fsmblks),
        uordblks: small(all.uordblks),
        fordblks: small(all.fordblks),
        keepcost: small(all.keepcost),
    }
}

/// glibc's function, where it serves the program.
fn of_system(name: &CStr) -> Option<*mut c_void> {
    let function = system_heap::function(name);
    (!function.is_null()).then_some(function)
}

/// Gives all memory back that nobody has; 1 if there was any. How much is to be kept, `_pad`, is the allocator's business.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_trim(pad: usize) -> c_int {
    if heap::is_bypassed(&OPTIONS)
        && let Some(theirs) = of_system(c"malloc_trim")
    {
        // SAFETY: glibc's function of this name has this type.
        return unsafe { transmute::<*mut c_void, extern "C" fn(usize) -> c_int>(theirs) }(pad);
    }
    c_int::from(heap::release_all() > 0)
}

/// Accepts glibc's parameters, which turn what is not here: memory goes back by itself, there are no arenas, and the size from which blocks are
/// mapped is fixed. 1, as a program that sets them expects; 0 for a parameter that glibc does not have, and for `M_PERTURB`, which
/// would have to fill blocks and does not.
#[unsafe(no_mangle)]
pub extern "C" fn mallopt(parameter: c_int, value: c_int) -> c_int {
    const M_MXFAST: c_int = 1;
    const M_ARENA_MAX: c_int = -8;
    const M_PERTURB: c_int = -6;
    if heap::is_bypassed(&OPTIONS)
        && let Some(theirs) = of_system(c"mallopt")
    {
        // SAFETY: glibc's function of this name has this type.
        return unsafe { transmute::<*mut c_void, extern "C" fn(c_int, c_int) -> c_int>(theirs) }(parameter, value);
    }
    c_int::from(parameter == M_MXFAST || ((M_ARENA_MAX..0).contains(&parameter) && parameter != M_PERTURB))
}

/// Text on its way into a C stream, in pieces: nothing is allocated for it, except by the stream.
struct Stream {
    stream: *mut libc::FILE,
    piece: [u8; 256],
    length: usize,
}

impl Stream {
    fn new(stream: *mut libc::FILE) -> Self {
        Self { stream, piece: [0; 256], length: 0 }
    }
}

impl Write for Stream {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for &byte in text.as_bytes() {
            if self.length == self.piece.len() {
                self.flush();
            }
            self.piece[self.length] = byte;
            self.length += 1;
        }
        Ok(())
    }
}

impl Stream {
    fn flush(&mut self) {
        // SAFETY: the caller of `malloc_info` hands in an open stream; so many bytes were written.
        unsafe { libc::fwrite(self.piece.as_ptr().cast(), 1, self.length, self.stream) };
        self.length = 0;
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Writes the accounts as XML; 0. `EINVAL` for options that there are not, as in glibc, which has none.
///
/// ```xml
/// <malloc version="freestone 0.1.0">
/// <sizes>
/// <size bytes="64" live="1000" cached="24" depot="0" spans="8" allocations="5000" frees="4000"/>
/// </sizes>
/// <total type="live" size="64000"/>
/// </malloc>
/// ```
///
/// # Safety
///
/// - `stream` is open.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn malloc_info(options: c_int, stream: *mut libc::FILE) -> c_int {
    if heap::is_bypassed(&OPTIONS)
        && let Some(theirs) = of_system(c"malloc_info")
    {
        // SAFETY: glibc's function of this name has this type.
        let theirs = unsafe { transmute::<*mut c_void, extern "C" fn(c_int, *mut libc::FILE) -> c_int>(theirs) };
        return theirs(options, stream);
    }
    if options != 0 {
        return libc::EINVAL;
    }
    let now = heap::take_snapshot();
    // Writing to a `Stream` does not fail.
    let _ = write_xml(&now, &mut Stream::new(stream));
    0
}

fn write_xml(now: &Snapshot, out: &mut Stream) -> fmt::Result {
    writeln!(out, "<malloc version=\"freestone {}\">", env!("CARGO_PKG_VERSION"))?;
    writeln!(out, "<sizes>")?;
    for class in now.classes.iter().filter(|class| class.allocations > 0 || class.spans > 0) {
        writeln!(
            out,
            "<size bytes=\"{}\" live=\"{}\" cached=\"{}\" depot=\"{}\" spans=\"{}\" allocations=\"{}\" frees=\"{}\"/>",
            class.block_bytes,
            class.live(),
            class.thread_cached,
            class.depot,
            class.spans,
            class.allocations,
            class.frees
        )?;
    }
    writeln!(out, "</sizes>")?;
    let large = &now.large;
    writeln!(
        out,
        "<large live=\"{}\" bytes=\"{}\" allocations=\"{}\" frees=\"{}\"/>",
        large.allocations.saturating_sub(large.frees),
        large.allocated_bytes.saturating_sub(large.freed_bytes),
        large.allocations,
        large.frees
    )?;
    for (name, bytes) in accounts(now) {
        writeln!(out, "<total type=\"{name}\" size=\"{bytes}\"/>")?;
    }
    writeln!(out, "<threads count=\"{}\"/>", now.thread_records - now.thread_records_pooled)?;
    writeln!(out, "</malloc>")
}

/// The lines of the ledger.
fn accounts(now: &Snapshot) -> [(&'static str, usize); 9] {
    let bytes = &now.bytes;
    [
        ("live", bytes.live),
        ("thread-cached", bytes.thread_cached),
        ("depot", bytes.depot),
        ("holes", bytes.holes),
        ("dirty", bytes.dirty),
        ("metadata", bytes.metadata),
        ("lost-at-fork", bytes.lost_at_fork),
        ("released", bytes.released),
        ("reserved", bytes.reserved()),
    ]
}

/// Writes the accounts to standard error, for people.
#[unsafe(no_mangle)]
pub extern "C" fn malloc_stats() {
    if heap::is_bypassed(&OPTIONS)
        && let Some(theirs) = of_system(c"malloc_stats")
    {
        // SAFETY: glibc's function of this name has this type.
        return unsafe { transmute::<*mut c_void, extern "C" fn()>(theirs) }();
    }
    let now = heap::take_snapshot();
    let errno = os::KeepErrno::new();
    for (name, bytes) in accounts(&now) {
        say(format_args!("freestone: {name:<13} {:>12} KiB", bytes.div_ceil(1024)));
    }
    let (live, allocations) = (now.live_blocks(), now.allocations);
    say(format_args!("freestone: {live} blocks live of {allocations} allocated, {} calls to the system", now.events.os_calls()));
    drop(errno);
}

/// One line on standard error, in one piece.
fn say(line: fmt::Arguments<'_>) {
    struct Line {
        text: [u8; 160],
        length: usize,
    }
    impl Write for Line {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            for &byte in text.as_bytes().iter().take(self.text.len() - 1 - self.length) {
                self.text[self.length] = byte;
                self.length += 1;
            }
            Ok(())
        }
    }
    let mut said = Line { text: [0; 160], length: 0 };
    let _ = said.write_fmt(line);
    said.text[said.length] = b'\n';
    os::write_error(&said.text[..=said.length]);
}
