//! Floor 13. The face for C: every function by which a C or C++ program gets memory, over the same heap as the Rust face.
//!
//! `blocks.rs` does the work. `malloc.rs` has what programs call all the time, `cpp.rs` the operators of C++, `report.rs` what asks how the heap is
//! doing, `control.rs` what `freestone.h` declares.
#![allow(unreachable_pub, reason = "what C calls is reached through its symbol")]

mod blocks;
mod control;
mod cpp;
mod malloc;
mod report;
