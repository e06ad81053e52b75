//! TCMalloc: how it shows that it is in use, whether its caches are per CPU, and what it says of itself.

use std::ffi::{c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use freestone_bench::controls::Controls;
use freestone_bench::subject::locked;
use tcmalloc_better::TCMalloc;

// What is behind TCMalloc's C++ class `MallocExtension`; the crate has no names for it.
unsafe extern "C" {
    fn MallocExtension_Internal_GetMaxPerCpuCacheSize() -> i32;
    fn MallocExtension_Internal_GetNumericProperty(name: *const c_char, length: usize, value: *mut usize) -> bool;
    fn MallocExtension_Internal_GetOwnership(pointer: *const c_void) -> c_int;
    fn MallocExtension_Internal_GetPerCpuCachesActive() -> bool;
    fn MallocExtension_Internal_SetMaxPerCpuCacheSize(bytes: i32);
}

/// TCMalloc says which blocks are its own.
pub(crate) fn proof() -> Result<String, String> {
    const OWNED: c_int = 1;
    let block = std::hint::black_box(Box::new([0_u8; 100]));
    // SAFETY: the pointer is only looked up in a table.
    if unsafe { MallocExtension_Internal_GetOwnership(ptr::from_ref(&*block).cast()) } != OWNED {
        return Err("it does not own a boxed block".to_owned());
    }
    turn_knobs(&std::env::var("SUBJECT_TCMALLOC").unwrap_or_default())?;
    // SAFETY: takes no argument.
    let caches = if unsafe { MallocExtension_Internal_GetPerCpuCachesActive() } { "per-CPU" } else { "per-thread" };
    let actions = if has_background_actions() { "background actions" } else { "no background actions" };
    // TCMalloc has no versions.
    const VERSION: Option<&str> = locked("tcmalloc-better");
    Ok(format!("tcmalloc-better {}, {caches} caches, {actions}", VERSION.unwrap_or("of unknown version")))
}

/// Does what its readme begins with: a thread for what is to be done in the background, if there is such a thing.
fn has_background_actions() -> bool {
    static THREAD: OnceLock<bool> = OnceLock::new();
    *THREAD.get_or_init(|| TCMalloc::process_background_actions_thread().is_some())
}

/// TCMalloc's knobs are functions, and no variable of the environment. The one that advice on it begins with has a variable here.
fn turn_knobs(asked: &str) -> Result<(), String> {
    if asked.is_empty() {
        return Ok(());
    }
    let bytes = asked.strip_prefix("max_per_cpu_cache_size:").and_then(|bytes| bytes.parse::<i32>().ok());
    let bytes = bytes.ok_or_else(|| format!("SUBJECT_TCMALLOC is max_per_cpu_cache_size:BYTES, not {asked}"))?;
    // SAFETY: takes a number.
    unsafe { MallocExtension_Internal_SetMaxPerCpuCacheSize(bytes) };
    // SAFETY: takes no argument.
    match unsafe { MallocExtension_Internal_GetMaxPerCpuCacheSize() } {
        its if its == bytes => Ok(()),
        its => Err(format!("max_per_cpu_cache_size is {its} there, not {bytes} as was asked")),
    }
}

/// What it says of itself.
#[allow(dead_code, reason = "a binary that registers nothing has no use for it")]
pub(crate) const CONTROLS: Controls = Controls { heap_in_use: Some(heap_in_use), ..Controls::NONE };

fn heap_in_use() -> Option<u64> {
    const NAME: &str = "generic.current_allocated_bytes";
    let mut bytes = 0;
    // SAFETY: reads a text of the length given, and writes a number.
    let is_known = unsafe { MallocExtension_Internal_GetNumericProperty(NAME.as_ptr().cast(), NAME.len(), &raw mut bytes) };
    is_known.then_some(bytes as u64)
}
