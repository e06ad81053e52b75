//! Floor 12. What the functions of C do with blocks. A free says nothing but an address; so the class comes from one byte of a side table
//! ([`heap::inline_class_at`]), and everything else from the slow path. Blocks are aligned to 16; classes that are no multiple of that stay unused.

use core::ffi::{c_char, c_int};
use core::ptr::{self, NonNull};

use crate::config::CHECKED;
use crate::fatal::{Misuse, misuse};
use crate::frames::{self, Caller};
use crate::heap;
use crate::large::Growing;
use crate::options::{Foreign, Options};
use crate::os;
use crate::page_heap::ALIGN_MAX;
use crate::sampling::Request;
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
    match pop(size) {
        Ok(block) => block,
        Err(Dry::Empty) => allocate_more(size),
        Err(Dry::Unarmed) => allocate_unarmed(size),
    }
}

/// A small block that is at hand.
#[inline(always)]
fn pop(size: usize) -> Result<*mut u8, Dry> {
    let (Some(class), Some(slots)) = (SizeClass::small_for_c(size), word::slots()) else { return Err(Dry::Empty) };
    // SAFETY: the slots are the calling thread's (I-owner).
    let block = unsafe { slots.stack(class).pop_entry() }?;
    // Nobody remembers of small blocks that they are zero, so the entry is the block. SAFETY: none is at address zero.
    let block = unsafe { NonNull::new_unchecked(block) };
    if CHECKED {
        heap::mark_live(block, class);
    }
    Ok(block.as_ptr())
}

// What the functions of C end in, each with a jump: so who called them is who called `malloc`, and profiles know where that was.

frames::entry! {
    /// As [`allocate_more`]: see [`StackSlot::pop_entry`](crate::slot::StackSlot::pop_entry).
    #[cold]
    fn allocate_unarmed(size: usize) -> *mut u8 => allocate_unarmed_from
}

frames::entry! {
    /// As [`allocate`], for what is larger or not at hand.
    fn allocate_more(size: usize) -> *mut u8 => allocate_more_from
}

frames::entry! {
    /// As [`allocate`], for any alignment that is a power of two. Of no bytes, a block of one.
    pub(crate) fn allocate_aligned(size: usize, align: usize) -> *mut u8 => allocate_aligned_from
}

frames::entry! {
    /// As [`allocate_zeroed`], for what is larger or not at hand.
    fn allocate_zeroed_more(size: usize) -> *mut u8 => allocate_zeroed_more_from
}

frames::entry! {
    /// As [`release`], for what found no room.
    ///
    /// # Safety
    ///
    /// - As for [`heap::free_of_class`].
    unsafe fn release_of_class(block: NonNull<u8>, class: SizeClass) => release_of_class_from
}

frames::entry! {
    /// As [`release`], for blocks that are spans of their own, sampled, or beyond the classes, and for what is none.
    fn release_more(block: *mut u8) => release_more_from
}

frames::entry! {
    /// `realloc`, of a block that is not null to a size that is not 0.
    pub(crate) fn reallocate(block: *mut u8, size: usize) -> *mut u8 => reallocate_from
}

fn allocate_unarmed_from(size: usize, caller: Caller) -> *mut u8 {
    allocate_aligned_from(size, C_ALIGN, caller)
}

fn allocate_more_from(size: usize, caller: Caller) -> *mut u8 {
    if size == 0 {
        return allocate_nothing(caller);
    }
    allocate_aligned_from(size, C_ALIGN, caller)
}

fn allocate_aligned_from(size: usize, align: usize, caller: Caller) -> *mut u8 {
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
    let block = heap::alloc_slow_of(&Request { size, align, grown: false, caller: &caller }, &OPTIONS);
    if block.is_null() { no_memory() } else { block }
}

/// `malloc(0)`.
#[cold]
fn allocate_nothing(caller: Caller) -> *mut u8 {
    if heap::is_bypassed(&OPTIONS) {
        return system_heap::allocate(0, 1);
    }
    match heap::with_zero_blocks(&OPTIONS, ZeroBlocks::take) {
        Some(Some(address)) => os::pointer(address),
        _ => allocate_aligned_from(1, C_ALIGN, caller),
    }
}

/// As [`allocate`], all zeros.
#[inline]
pub(crate) fn allocate_zeroed(size: usize) -> *mut u8 {
    let Ok(block) = pop(size) else { return allocate_zeroed_more(size) };
    // SAFETY: a block of at least this size, not the caller's yet.
    unsafe { block.write_bytes(0, size) };
    block
}

fn allocate_zeroed_more_from(size: usize, caller: Caller) -> *mut u8 {
    if SizeClass::small_for_c(size).is_some() {
        let block = allocate_aligned_from(size, C_ALIGN, caller);
        if !block.is_null() {
            // SAFETY: a block of at least this size, not the caller's yet.
            unsafe { block.write_bytes(0, size) };
        }
        return block;
    }
    if size == 0 {
        return allocate_nothing(caller);
    }
    if size > isize::MAX as usize - C_ALIGN {
        return no_memory();
    }
    if heap::is_bypassed(&OPTIONS) {
        return system_heap::allocate_zeroed(size);
    }
    let block = heap::alloc_zeroed_of(&Request { size, align: C_ALIGN, grown: false, caller: &caller }, &OPTIONS);
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
        return unsafe { release_of_class(block, class) };
    }
    release_more(block);
}

/// # Safety
///
/// - As for [`heap::free_of_class`].
unsafe fn release_of_class_from(block: NonNull<u8>, class: SizeClass, caller: Caller) {
    // SAFETY: handed on to the caller.
    unsafe { heap::free_of_class(block, class, &OPTIONS, &caller) };
}

fn release_more_from(block: *mut u8, caller: Caller) {
    let Some(block) = NonNull::new(block) else { return };
    let address = block.addr().get();
    let freed = match heap::class_at(address) {
        Ok(Some(class)) => {
            if CHECKED {
                heap::check_free_of_class(block, class);
            }
            // SAFETY: the caller gives the block up.
            unsafe { heap::free_of_class(block, class, &OPTIONS, &caller) };
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
        Ok(None) => heap::free_large(address, &OPTIONS, &caller),
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
    /// One that has no more than was asked for.
    Guarded {
        class: SizeClass,
        bytes: usize,
    },
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
            Self::Large { bytes } | Self::Guarded { bytes, .. } => bytes,
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
        if let Some(seen) = heap::guarded_at(address) {
            return seen.map_or_else(
                |kind| {
                    wrong(kind, address, None);
                    Self::Foreign
                },
                |(bytes, class)| Self::Guarded { class, bytes },
            );
        }
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
        Block::Class(class) | Block::Guarded { class, .. } => claimed.is_some_and(|claimed| fits(class, claimed, size)),
        // No bytes: a signal handler that interrupted a slow path may not ask.
        Block::Large { bytes: 0 } | Block::Foreign => true,
        Block::Large { bytes } => claimed.is_none() && size <= bytes,
        Block::Zero => false,
    };
    if !is_so {
        misuse(Misuse::SizeMismatch, address, claimed.map(SizeClass::index), size);
    }
}

fn reallocate_from(block: *mut u8, size: usize, caller: Caller) -> *mut u8 {
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
            if let Some(resized) = unsafe { heap::resize_large(old, bytes, size, C_ALIGN, &OPTIONS, &caller) } {
                return resized.as_ptr();
            }
        }
        (Block::Foreign, _) => return no_memory(),
        _ => {}
    }
    let bytes = from.bytes();
    // What outgrows the classes will probably grow again: it gets room for that.
    let request = Request { size, align: C_ALIGN, grown: true, caller: &caller };
    let new = if to.is_none() && size > bytes {
        heap::alloc_any(&request, Growing::Yes, &OPTIONS).map_or_else(no_memory, |new| new.address.as_ptr())
    } else {
        pop(size).unwrap_or_else(|_| {
            let block = heap::alloc_slow_of(&request, &OPTIONS);
            if block.is_null() { no_memory() } else { block }
        })
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
