//! Floor 8. The one word that every thread has: where its hot slots are. What else there is to know about the thread is told by *which* slots
//! they are, so that the fast path never asks.
//!
//! In a program the word is a `thread_local!`, which the compiler reaches in one instruction, and it begins as [`UNBORN`]. In a library that is
//! loaded before the program (`freestone_initial_exec`) the compiler would call a function of the dynamic linker for it, on every operation. There the
//! word is a symbol of our own in the part of thread-local memory that is laid out at the program's start (*initial exec*), reached in
//! two instructions. It begins as null, because the linker itself allocates, and runs the program's `ifunc` resolvers, before it fills that memory in.

use core::ptr;

use crate::atomic::{AtomicPtr, Ordering};
use crate::thread_cache::record::{EmptyHeap, HotSlots};

/// Heaps without a record. See the head of [`heap`](crate::heap).
static EMPTY: [EmptyHeap; 5] = [const { EmptyHeap::NEW }; 5];
pub(crate) const UNBORN: *const HotSlots = if INITIAL_EXEC { ptr::null() } else { EMPTY[0].as_slots() };
pub(crate) const GONE: *const HotSlots = EMPTY[1].as_slots();
pub(crate) const BUSY: *const HotSlots = EMPTY[2].as_slots();
pub(crate) const FORKING: *const HotSlots = EMPTY[3].as_slots();
pub(crate) const AWAY: *const HotSlots = EMPTY[4].as_slots();

/// Is the word a symbol of our own? Not in plugins that are loaded into a running program: the room laid out at its start may be used up.
const INITIAL_EXEC: bool = cfg!(freestone_initial_exec);

/// Is this word the address of a record's slots? Else it is one of the empty heaps.
#[inline]
pub(crate) fn is_record(slots: *const HotSlots) -> bool {
    (!INITIAL_EXEC || !slots.is_null()) && !EmptyHeap::any_is(&EMPTY, slots)
}

/// The slots of the calling thread. `None` only where the word begins as null, of a thread that was not born: the compiler need not
/// look elsewhere.
///
/// The reference is good for one operation: a slow path may put others in their place.
#[inline(always)]
pub(crate) fn slots() -> Option<&'static HotSlots> {
    let slots = load();
    if INITIAL_EXEC && slots.is_null() {
        return None;
    }
    // SAFETY: else the word is always one of the empty heaps, of which only zeros are loaded (I-empty), or a record, and both are there for
    // good (I-forever).
    Some(unsafe { &*slots })
}

// Relaxed wherever the word is touched: it is the thread's own, and who changes it while the thread sleeps has another way to make sure that it
// is seen (see `recall`).
cfg_select! {
    freestone_initial_exec => {
        use core::arch::{asm, global_asm};

        global_asm!(
            ".pushsection .tbss.freestone_word, \"awT\", @nobits",
            ".balign 8",
            ".globl freestone_word",
            ".hidden freestone_word",
            ".type freestone_word, @object",
            ".size freestone_word, 8",
            "freestone_word:",
            ".zero 8",
            ".popsection",
        );

        /// The word of the calling thread.
        #[inline(always)]
        pub(crate) fn load() -> *const HotSlots {
            let word: *const HotSlots;
            // SAFETY: reads eight bytes of the calling thread's own memory, at a distance from its thread pointer that the linker put into the
            // table that is read first.
            unsafe {
                asm!(
                    "mov {word}, qword ptr [rip + freestone_word@GOTTPOFF]",
                    "mov {word}, qword ptr fs:[{word}]",
                    word = out(reg) word,
                    options(pure, readonly, nostack, preserves_flags),
                );
            }
            word
        }

        /// The word itself.
        pub(crate) fn place() -> &'static AtomicPtr<HotSlots> {
            let place: *const AtomicPtr<HotSlots>;
            // SAFETY: as above; the thread pointer's own address stands where it points.
            unsafe {
                asm!(
                    "mov {place}, qword ptr fs:[0]",
                    "add {place}, qword ptr [rip + freestone_word@GOTTPOFF]",
                    place = out(reg) place,
                    options(pure, readonly, nostack),
                );
            }
            // SAFETY: the calling thread's word, which is there as long as the thread is; nobody keeps the reference.
            unsafe { &*place }
        }
    }
    _ => {
        std::thread_local! {
            static WORD: AtomicPtr<HotSlots> = const { AtomicPtr::new(UNBORN.cast_mut()) };
        }

        /// The word of the calling thread.
        #[inline(always)]
        pub(crate) fn load() -> *const HotSlots {
            WORD.with(|word| word.load(Ordering::Relaxed)).cast_const()
        }

        /// The word itself.
        pub(crate) fn place() -> &'static AtomicPtr<HotSlots> {
            // SAFETY: the calling thread's word, which is there as long as the thread is; nobody keeps the reference.
            WORD.with(|word| unsafe { &*ptr::from_ref(word) })
        }
    }
}

/// Puts another value into the word of the calling thread.
#[inline]
pub(crate) fn store(slots: *const HotSlots) {
    place().store(slots.cast_mut(), Ordering::Relaxed);
}
