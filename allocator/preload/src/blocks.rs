//! Floor 12. What the functions of C do with blocks. A free says nothing but an address; so the class comes from one byte of a side table
//! ([`heap::inline_class_at`]), and everything else from the slow path. Blocks are aligned to 16; classes that are no multiple of that stay unused.

use core::ffi::{c_char, c_int};
use core::ptr::{self, NonNull};

use crate::config::CHECKED;
use crate::fatal::{Misuse, misuse};
use crate::heap;
use crate::large::Growing;
use crate::options::{Foreign, Options};
use crate::os;
use crate::page_heap::ALIGN_MAX;
use crate::size_class::{C_ALIGN, Shape, SizeClass};
use crate::slot::Dry;
use crate::system_heap;
use crate::word;
use crate::zero::ZeroBlocks;

/// What holds until the environment says otherwise.
pub(crate) static OPTIONS: Options = Options::DEFAULT;

/// Without the standard library somebody has to say what a panic is: one of our own assertions failed.
#[cfg(all(freestone_initial_exec, panic = "abort"))]
#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    crate::fatal::broken("an assertion failed")
}

/// Run by the loader before the constructors of all other libraries (`-z initfirst`); in a program that is linked with the archive, among its own.
/// Handlers around `fork` run inside those that were registered before them, and the program's
/// may allocate: ours must be the innermost, which it would not be if the program registers before it allocates.
#[used]
// SAFETY: a function of the type that the loader expects.
#[unsafe(link_section = ".init_array")]
static WHEN_LOADED: extern "C" fn(c_int, *const *const c_char, *mut *const c_char) = when_loaded;

extern "C" fn when_loaded(_count: c_int, _arguments: *const *const c_char, environment: *mut *const c_char) {
    os::hand_environment(environment);
    heap::is_bypassed(&OPTIONS);
}

/// Why there is no block.
#[cold]
pub(crate) fn no_memory() -> *mut u8 {
    os::set_errno(libc::ENOMEM);
    ptr::null_mut()
}

/// `size` bytes, aligned to 16, or null and `ENOMEM`.
#[inline(always)]
pub(crate) fn allocate(size: usize) -> *mut u8 {
    let (Some(class), Some(slots)) = (SizeClass::small_for_c(size), word::slots()) else { return allocate_more(size) };
    // SAFETY: the slots are the calling thread's (I-owner).
    match unsafe { slots.stack(class).pop_entry() } {
        // Nobody remembers of small blocks that they are zero, so the entry is the block.
        Ok(block) => {
            // SAFETY: no block is at address zero.
            let block = unsafe { NonNull::new_unchecked(block) };
            if CHECKED {
                heap::mark_live(block, class);
            }
            block.as_ptr()
        }
        Err(Dry::Empty) => allocate_more(size),
        Err(Dry::Unarmed) => allocate_unarmed(size),
    }
}

/// As [`allocate_more`]: see [`StackSlot::pop_entry`](crate::slot::StackSlot::pop_entry).
#[cold]
#[inline(never)]
extern "C" fn allocate_unarmed(size: usize) -> *mut u8 {
    allocate_aligned(size, C_ALIGN)
}

/// As [`allocate`], for what is larger or not at hand.
#[inline(never)]
extern "C" fn allocate_more(size: usize) -> *mut u8 {
    if size == 0 {
        return allocate_nothing();
    }
    allocate_aligned(size, C_ALIGN)
}

/// As [`allocate`], for any alignment that is a power of two. Of no bytes, a block of one.
#[inline]
pub(crate) fn allocate_aligned(size: usize, align: usize) -> *mut u8 {
    // The one place where sizes are added to. What is larger than a pointer can count is nobody's.
    if align > ALIGN_MAX || size > isize::MAX as usize - align {
        return no_memory();
    }
    let (size, align) = (size.max(1), align.max(C_ALIGN));
    if let Some(class) = SizeClass::stacked(size, align) {
        // SAFETY: the slots are the calling thread's (I-owner).
        if let Some(taken) = word::slots().and_then(|slots| unsafe { slots.stack(class).pop() }) {
            if CHECKED {
                heap::mark_live(taken.block, class);
            }
            return taken.block.as_ptr();
        }
    }
    let block = heap::alloc_slow(size, align, &OPTIONS);
    if block.is_null() { no_memory() } else { block }
}

/// `malloc(0)`.
#[cold]
fn allocate_nothing() -> *mut u8 {
    if heap::is_bypassed(&OPTIONS) {
        return system_heap::allocate(0, 1);
    }
    match heap::with_zero_blocks(&OPTIONS, ZeroBlocks::take) {
        Some(Some(address)) => os::pointer(address),
        _ => allocate_aligned(1, C_ALIGN),
    }
}

/// As [`allocate`], all zeros.
#[inline]
pub(crate) fn allocate_zeroed(size: usize) -> *mut u8 {
    if SizeClass::small_for_c(size).is_some() {
        let block = allocate(size);
        if !block.is_null() {
            // SAFETY: a block of at least this size, not the caller's yet.
            unsafe { block.write_bytes(0, size) };
        }
        return block;
    }
    if size == 0 {
        return allocate_nothing();
    }
    if size > isize::MAX as usize - C_ALIGN {
        return no_memory();
    }
    if heap::is_bypassed(&OPTIONS) {
        return system_heap::allocate_zeroed(size);
    }
    let block = heap::alloc_zeroed(size, C_ALIGN, &OPTIONS);
    if block.is_null() { no_memory() } else { block }
}

/// Takes a block back; null is fine.
#[inline(always)]
pub(crate) fn release(block: *mut u8) {
    let address = block.addr();
    if let Some(class) = heap::inline_class_at(address) {
        // SAFETY: in a page of ours.
        let block = unsafe { NonNull::new_unchecked(block) };
        if CHECKED {
            heap::check_free_of_class(block, class);
        }
        // SAFETY: the slots are the calling thread's, and the caller gives up a block of this class.
        if word::slots().is_some_and(|slots| unsafe { slots.stack(class).push(block) }) {
            return;
        }
        // SAFETY: the caller gives the block up, and no slot took it.
        return unsafe { heap::free_of_class(block, class, &OPTIONS) };
    }
    release_more(block);
}

/// As [`release`], for blocks that are spans of their own, sampled, or beyond the classes, and for what is none.
#[inline(never)]
extern "C" fn release_more(block: *mut u8) {
    let Some(block) = NonNull::new(block) else { return };
    let address = block.addr().get();
    let freed = match heap::class_at(address) {
        Ok(Some(class)) => {
            if CHECKED {
                heap::check_free_of_class(block, class);
            }
            // SAFETY: the caller gives the block up.
            unsafe { heap::free_of_class(block, class, &OPTIONS) };
            Ok(())
        }
        Ok(None) if heap::is_bypassed(&OPTIONS) => {
            // SAFETY: the caller gives the block up, and all are the system's.
            unsafe { system_heap::free(block.as_ptr()) };
            Ok(())
        }
        Ok(None) if heap::is_zero_block(address) => {
            heap::with_zero_blocks(&OPTIONS, |zero, _| zero.give(address, false)).unwrap_or(Ok(()))
        }
        Ok(None) => heap::free_large(address, &OPTIONS),
        Err(kind) => Err(kind),
    };
    if let Err(kind) = freed {
        wrong(kind, address, None);
    }
}

/// What the program has, at an address that is not null.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Block {
    Class(SizeClass),
    Large {
        bytes: usize,
    },
    Zero,
    /// Not ours, and nobody is to complain.
    Foreign,
}

impl Block {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Class(class) => class.bytes(),
            Self::Large { bytes } => bytes,
            Self::Zero | Self::Foreign => 0,
        }
    }

    /// The block at an address. Dies if there is none, as far as that is found out: always that the address is ours and could be a block's, and
    /// with `check:exchange` that no block of this thread or of central is free there.
    #[inline]
    pub(crate) fn at(address: usize) -> Self {
        match heap::inline_class_at(address) {
            Some(class) if !CHECKED && !heap::checks_every_exchange() => Self::Class(class),
            _ => Self::look_at(address),
        }
    }

    #[inline(never)]
    fn look_at(address: usize) -> Self {
        let seen = match heap::class_at(address) {
            Ok(Some(class)) => {
                let closely = CHECKED || heap::checks_every_exchange() || class.shape() == Shape::Whole;
                if closely && let Err(kind) = heap::inspect(address, class, &OPTIONS) {
                    wrong(kind, address, Some(class));
                }
                return Self::Class(class);
            }
            Ok(None) if heap::is_zero_block(address) => {
                heap::with_zero_blocks(&OPTIONS, |zero, _| zero.give(address, true)).unwrap_or(Ok(())).map(|()| Self::Zero)
            }
            Ok(None) => heap::large_bytes(address, &OPTIONS).map(|bytes| Self::Large { bytes }),
            Err(kind) => Err(kind),
        };
        seen.unwrap_or_else(|kind| {
            wrong(kind, address, None);
            Self::Foreign
        })
    }
}

/// A pointer that no block belongs to. Dies, unless it is foreign and that is to be ignored.
#[cold]
fn wrong(kind: Misuse, address: usize, class: Option<SizeClass>) {
    let is_foreign = matches!(kind, Misuse::Foreign | Misuse::Sibling);
    if is_foreign && heap::configuration().foreign == Foreign::Ignore {
        return;
    }
    misuse(kind, address, class.map(SizeClass::index), class.map_or(0, SizeClass::bytes));
}

/// Dies if a block is of another class than one of this size would be.
#[cold]
pub(crate) fn check_size(block: *mut u8, size: usize, align: usize) {
    let address = block.addr();
    if block.is_null() || size == 0 || heap::is_bypassed(&OPTIONS) {
        return;
    }
    let claimed = if align > ALIGN_MAX { None } else { SizeClass::of(size, align.max(C_ALIGN)) };
    let is_so = match Block::at(address) {
        // `realloc` leaves a block where it is that shrinks a little.
        Block::Class(class) => claimed.is_some_and(|claimed| fits(class, claimed, size)),
        // No bytes: a signal handler that interrupted a slow path may not ask.
        Block::Large { bytes: 0 } | Block::Foreign => true,
        Block::Large { bytes } => claimed.is_none() && size <= bytes,
        Block::Zero => false,
    };
    if !is_so {
        misuse(Misuse::SizeMismatch, address, claimed.map(SizeClass::index), size);
    }
}

/// `realloc`, of a block that is not null to a size that is not 0.
pub(crate) fn reallocate(block: *mut u8, size: usize) -> *mut u8 {
    if size > isize::MAX as usize - C_ALIGN {
        return no_memory();
    }
    // SAFETY: the caller says so.
    let old = unsafe { NonNull::new_unchecked(block) };
    let class_of_old = heap::inline_class_at(block.addr());
    if class_of_old.is_none() && heap::is_bypassed(&OPTIONS) {
        // SAFETY: all blocks are the system's, and the caller gives this one up.
        return unsafe { system_heap::reallocate(block, size) };
    }
    let from = Block::at(block.addr());
    let to = SizeClass::of(size, C_ALIGN);
    match (from, to) {
        (Block::Class(class), Some(to)) if fits(class, to, size) => return block,
        (Block::Large { bytes }, None) => {
            // SAFETY: the caller's live block, which is aligned to 16 at least, as the result is.
            if let Some(resized) = unsafe { heap::resize_large(old, bytes, size, C_ALIGN, &OPTIONS) } {
                return resized.as_ptr();
            }
        }
        (Block::Foreign, _) => return no_memory(),
        _ => {}
    }
    let bytes = from.bytes();
    // What outgrows the classes will probably grow again: it gets room for that.
    let new = if to.is_none() && size > bytes {
        heap::alloc_any(size, C_ALIGN, Growing::Yes, &OPTIONS).map_or_else(no_memory, |new| new.address.as_ptr())
    } else {
        allocate(size)
    };
    if !new.is_null() {
        // SAFETY: two live blocks, apart, each at least this long.
        unsafe { ptr::copy_nonoverlapping(block, new, bytes.min(size)) };
        release(block);
    }
    new
}

/// May a block of this class stay where it is for `size` bytes, for which `to` is the class? One that shrinks a little need not be copied.
#[inline]
fn fits(class: SizeClass, to: SizeClass, size: usize) -> bool {
    class == to || (to.index() < class.index() && size >= class.bytes() / 4 * 3)
}
