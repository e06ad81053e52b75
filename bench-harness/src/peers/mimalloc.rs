//! mimalloc: how it shows that it is in use, and in which version. Its crate builds one of two, which differ much.

#[path = "../user_crate/patch/serves/mimalloc.rs"]
mod serves;

// The bindings come from the crate; only the C library behind them is asked.
use mimalloc as _;

use std::ffi::{c_int, c_long};

unsafe extern "C" {
    fn mi_option_get(option: c_int) -> c_long;
}

/// It is version 3, and serves boxes.
#[allow(dead_code, reason = "one of the two binaries that share this file asks")]
pub(crate) fn proof_of_v3() -> Result<String, String> {
    serves_boxes(3)
}

/// It is version 2, and serves boxes.
#[allow(dead_code, reason = "one of the two binaries that share this file asks")]
pub(crate) fn proof_of_v2() -> Result<String, String> {
    serves_boxes(2)
}

/// It is of this version, serves boxes, and does what it was asked to.
fn serves_boxes(major: c_int) -> Result<String, String> {
    serves::boxes()?;
    let [of, minor, patch] = serves::version();
    if of != major {
        return Err(format!("this is version {of}.{minor}.{patch}"));
    }
    delay_is_in_force()?;
    Ok(format!("{of}.{minor}.{patch} (v{of})"))
}

/// mimalloc passes over what it cannot read in its environment. Of the knobs there, the one that a subject of ours turns is compared.
fn delay_is_in_force() -> Result<(), String> {
    /// Its place in the list of options, which is the same in versions 2 and 3.
    const PURGE_DELAY: c_int = 15;
    let Ok(asked) = std::env::var("MIMALLOC_PURGE_DELAY") else {
        return Ok(());
    };
    // SAFETY: takes a number.
    let delay = unsafe { mi_option_get(PURGE_DELAY) };
    if asked == delay.to_string() { Ok(()) } else { Err(format!("purge_delay is {delay} there, not {asked} as was asked")) }
}
