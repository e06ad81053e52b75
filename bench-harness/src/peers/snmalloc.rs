//! snmalloc: how it shows that it is in use.

#[path = "../user_crate/patch/serves/snmalloc.rs"]
mod serves;

use freestone_bench::subject::locked;

/// It serves boxes. It has no version that a program can ask for.
pub(crate) fn proof() -> Result<String, String> {
    const VERSION: Option<&str> = locked("snmalloc-rs");
    serves::boxes()?;
    Ok(format!("snmalloc-rs {}", VERSION.unwrap_or("of unknown version")))
}
