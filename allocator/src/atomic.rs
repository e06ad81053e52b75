//! Floor 0. Atomics: those of `core`, or loom's when a model is being explored.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, compiler_fence, fence};
#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicI64, AtomicU8, AtomicU16, AtomicU64};

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicPtr, AtomicU16, AtomicU32, AtomicUsize, Ordering, fence};

/// Makes a constructor `const`, except under loom, whose atomics are registered at run time.
macro_rules! const_unless_loom {
    ($($(#[$doc:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) -> $result:ty $body:block)+) => {$(
        $(#[$doc])*
        #[cfg(not(loom))]
        $visibility const fn $name($($argument: $type),*) -> $result $body
        $(#[$doc])*
        #[cfg(loom)]
        $visibility fn $name($($argument: $type),*) -> $result $body
    )+};
}
pub(crate) use const_unless_loom;
