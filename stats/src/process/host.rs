//! What the process can find out about itself: its own memory, the programs it has loaded, its threads, and what the C library's malloc says.

use std::ffi::{c_int, c_void};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::{io, mem, ptr};

use super::owners::{Memory, Place, StackMark};
use super::smaps::hex;

/// How many pages are asked for at once.
const PAGES_AT_ONCE: usize = 4096;

/// This process's memory. Reading goes through `/proc/self/mem`: what another thread unmaps meanwhile is an error then, not a fault.
pub(super) struct OwnMemory {
    file: io::Result<File>,
    page_bytes: usize,
}

impl OwnMemory {
    pub(super) fn open() -> Self {
        // SAFETY: a question without arguments of ours to get wrong.
        let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        Self { file: File::open("/proc/self/mem"), page_bytes: usize::try_from(page_bytes).unwrap_or(4096) }
    }

    /// Why it cannot be read.
    pub(super) fn refusal(&self) -> Option<&io::Error> {
        self.file.as_ref().err()
    }
}

impl Memory for OwnMemory {
    fn resident(&self, range: &Range<usize>) -> Option<u64> {
        let mut pages = [0_u8; PAGES_AT_ONCE];
        let mut resident = 0;
        for start in range.clone().step_by(PAGES_AT_ONCE * self.page_bytes) {
            let bytes = (range.end - start).min(PAGES_AT_ONCE * self.page_bytes);
            // SAFETY: it writes one byte per page into `pages`, which has room for as many; the memory itself is not touched.
            let status = unsafe { libc::mincore(ptr::without_provenance_mut(start), bytes, pages.as_mut_ptr().cast()) };
            if status != 0 {
                return None;
            }
            let asked = &pages[..bytes.div_ceil(self.page_bytes)];
            resident += (asked.iter().filter(|&&page| page & 1 != 0).count() * self.page_bytes) as u64;
        }
        Some(resident)
    }

    fn read(&self, address: usize, into: &mut [u8]) -> Option<()> {
        self.file.as_ref().ok()?.read_exact_at(into, address as u64).ok()
    }
}

/// The segments of the program and its libraries, as the loader made them: also the part beyond the file, which has no name in the kernel's
/// books.
pub(super) fn segments() -> Vec<Range<usize>> {
    unsafe extern "C" fn visit(object: *mut libc::dl_phdr_info, _size: usize, segments: *mut c_void) -> c_int {
        // SAFETY: `segments` below is what it was called with.
        let segments = unsafe { &mut *segments.cast::<Vec<Range<usize>>>() };
        // SAFETY: the loader hands a valid object to its callback.
        let object = unsafe { &*object };
        for nth in 0..usize::from(object.dlpi_phnum) {
            // SAFETY: there are `dlpi_phnum` of them.
            let header = unsafe { object.dlpi_phdr.add(nth) };
            // SAFETY: as above.
            let header = unsafe { &*header };
            if header.p_type == libc::PT_LOAD {
                let start = (object.dlpi_addr as usize).wrapping_add(header.p_vaddr as usize);
                let end = start.saturating_add(header.p_memsz as usize);
                segments.push(start & !4095..end.saturating_add(4095) & !4095);
            }
        }
        0
    }
    let mut segments = Vec::new();
    // SAFETY: the callback takes what is handed to it here, and does not outlive the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut segments).cast()) };
    segments
}

/// Where the heap is. Asked twice, so that nothing is allocated while it answers.
pub(super) fn heap_ranges() -> Vec<Range<usize>> {
    let mut count = 0;
    freestone::each_mapping(&mut |_| count += 1);
    // Some room for what comes meanwhile. What comes beyond it is in the heap's books at the next reading.
    let mut ranges: Vec<Range<usize>> = Vec::with_capacity(count + 64);
    freestone::each_mapping(&mut |range| {
        if ranges.len() < ranges.capacity() {
            ranges.push(range);
        }
    });
    ranges
}

/// An address in every stack but the main one, as far as there is one to be found.
///
/// Threads that have allocated have a thread-local word, and the heap knows where. Of the others the kernel says where their stack pointer is, if they
/// are waiting for something.
pub(super) fn stack_marks() -> Vec<StackMark> {
    let main = std::process::id();
    // SAFETY: asks for a number, and cannot fail.
    let current = unsafe { libc::gettid() } as u32;
    let known = crate::threads::records();
    let mut marks: Vec<StackMark> = known
        .iter()
        // The main thread's word lies in a mapping of the loader.
        .filter(|thread| thread.id != 0 && thread.id != main && thread.tls != 0)
        .map(|thread| StackMark { address: thread.tls, place: Place::NearTop })
        .collect();
    if current != main {
        marks.push(StackMark { address: (&raw const main).addr(), place: Place::Anywhere });
    }
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    for id in tasks.filter_map(|task| task.file_name().to_str()?.parse::<u32>().ok()) {
        if id != main && id != current && !known.iter().any(|thread| thread.id == id && thread.tls != 0) {
            marks.extend(stack_pointer(id).map(|address| StackMark { address, place: Place::Anywhere }));
        }
    }
    marks.sort_unstable();
    marks
}

/// Out of `35 0x… … 0x7ffd… 0x7fe7…`: the last but one. A thread that runs is only said to be `running`.
fn stack_pointer(task: u32) -> Option<usize> {
    let text = std::fs::read_to_string(format!("/proc/self/task/{task}/syscall")).ok()?;
    hex(text.trim_ascii().split(' ').nth_back(1)?.strip_prefix("0x")?.as_bytes())
}

/// How long stacks of threads are, if nobody says otherwise.
pub(super) fn stack_bytes() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: it writes the limit where it is told to.
    unsafe { libc::getrlimit(libc::RLIMIT_STACK, &raw mut limit) };
    match limit.rlim_cur {
        0 | libc::RLIM_INFINITY => 8 << 20,
        bytes => bytes as usize,
    }
}

/// What the C library's malloc says of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Malloc {
    /// Bytes in arenas.
    pub(super) arena_bytes: usize,
    /// Bytes in mappings for one block each.
    pub(super) block_mapping_bytes: usize,
    /// Bytes that are allocated.
    pub(super) live_bytes: usize,
}

/// glibc's `struct mallinfo2`.
#[repr(C)]
struct Mallinfo2 {
    arena: usize,
    ordblks: usize,
    smblks: usize,
    hblks: usize,
    hblkhd: usize,
    usmblks: usize,
    fsmblks: usize,
    uordblks: usize,
    fordblks: usize,
    keepcost: usize,
}

/// Asks it. Waits for the locks of its arenas, one after the other, and walks over their free chunks. `None`: it does not say (glibc before
/// 2.33, musl).
pub(super) fn malloc() -> Option<Malloc> {
    // SAFETY: the name ends with a zero byte.
    let function = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"mallinfo2".as_ptr()) };
    if function.is_null() {
        return None;
    }
    // SAFETY: where there is a function of this name, this is what it looks like.
    let function = unsafe { mem::transmute::<*mut c_void, unsafe extern "C" fn() -> Mallinfo2>(function) };
    // SAFETY: it may be called from any thread.
    let said = unsafe { function() };
    Some(Malloc {
        arena_bytes: said.arena,
        block_mapping_bytes: said.hblkhd,
        live_bytes: said.uordblks.saturating_add(said.hblkhd),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU8, Ordering};

    use super::*;

    const PAGE_BYTES: usize = 4096;

    /// In no file, so the kernel has no name for it.
    static ZEROED: [AtomicU8; 1 << 20] = [const { AtomicU8::new(0) }; 1 << 20];

    #[test]
    fn segments_are_what_the_loader_made() {
        let segments = super::super::owners::in_order(segments());
        let is_static = |address: usize| segments.iter().any(|segment| segment.contains(&address));
        // Relaxed: one thread.
        ZEROED.iter().step_by(PAGE_BYTES).for_each(|byte| byte.store(1, Ordering::Relaxed));
        assert!(is_static(ZEROED.as_ptr().addr()));
        assert!(is_static(ZEROED.as_ptr().addr() + ZEROED.len() - 1));
        assert!(is_static((segments_are_what_the_loader_made as fn()) as usize), "code");
        assert!(is_static(libc::malloc as *const () as usize), "code of a library");
        let on_the_stack = 0;
        assert!(!is_static((&raw const on_the_stack).addr()));
        assert!(!is_static((&raw const *Box::new(7)).addr()));
        let process = crate::Process::read();
        let file_backed = process.file_backed.expect("mappings can be read");
        assert!(file_backed > ZEROED.len() as u64, "{process:#?}");
    }

    #[test]
    fn every_stack_is_marked() {
        let (there, seen) = (Barrier::new(4), Barrier::new(4));
        let stacks = std::sync::Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let here = 0;
                    stacks.lock().expect("nobody panics with it").push((&raw const here).addr());
                    there.wait();
                    seen.wait();
                });
            }
            there.wait();
            let stacks = stacks.lock().expect("nobody panics with it").clone();
            // From the barrier, threads may not all have gone to sleep; then the kernel does not say where they are.
            let marked = (0..1000).any(|_| {
                std::thread::sleep(std::time::Duration::from_millis(1));
                let marks = stack_marks();
                let here = (&raw const marks).addr();
                assert!(marks.is_sorted());
                let near = |&stack: &usize| marks.iter().any(|mark| mark.address.abs_diff(stack) < 64 << 10);
                stacks.iter().all(near) && near(&here)
            });
            seen.wait();
            assert!(marked, "{stacks:x?} {:x?}", stack_marks());
        });
    }

    #[test]
    fn own_memory_can_be_read_and_foreign_addresses_cannot() {
        let memory = OwnMemory::open();
        let words = vec![0x1234_5678_9abc_def0_u64; 1024];
        let mut word = [0; 8];
        assert_eq!(memory.read(words.as_ptr().addr(), &mut word), Some(()));
        assert_eq!(u64::from_ne_bytes(word), words[0]);
        for address in [0, 8, usize::MAX - 7, 1 << 62] {
            assert_eq!(memory.read(address, &mut word), None, "{address:x}");
        }
        let page = words.as_ptr().addr().next_multiple_of(PAGE_BYTES);
        assert_eq!(memory.resident(&(page..page + PAGE_BYTES)), Some(PAGE_BYTES as u64));
        assert_eq!(memory.resident(&(0..PAGE_BYTES)), None);
    }

    #[test]
    fn malloc_says_what_it_holds() {
        // More than can be free in any arena that other tests left behind, so it gets a mapping of its own.
        const BYTES: usize = 1 << 30;
        if malloc().is_none() {
            println!("SKIPPED: this C library has no mallinfo2");
            return;
        }
        // SAFETY: freed below, and not touched.
        let block = std::hint::black_box(unsafe { libc::malloc(BYTES) });
        assert!(!block.is_null());
        let with = malloc().expect("it was there before");
        // SAFETY: allocated above.
        unsafe { libc::free(block) };
        assert!(with.block_mapping_bytes >= BYTES, "{with:?}");
        assert!(with.live_bytes >= with.block_mapping_bytes, "{with:?}");
    }
}
