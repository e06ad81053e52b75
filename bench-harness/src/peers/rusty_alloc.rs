//! rusty_alloc: how it shows that it is in use, and when it gives memory back.

use std::hint::black_box;

use rusty_alloc::{options, segment_map};

/// It knows which addresses lie in its segments.
pub(crate) fn proof() -> Result<String, String> {
    let block = black_box(Box::new([0_u8; 100]));
    if !segment_map::contains(std::ptr::from_ref(&*block).cast()) {
        return Err("a boxed block is in none of its segments".to_owned());
    }
    // Its readme still says that it gives nothing back unless it is told to; so that figures can be read, the version says what is so.
    Ok(format!("{} (purge_delay {} ms)", rusty_alloc_api::VERSION, options::get(PURGE_DELAY)))
}

/// The place in its list of options.
const PURGE_DELAY: usize = 15;
