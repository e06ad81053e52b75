//! The half of the harness that every subject's binary shares: the [`workload`]s, the [`controls`] they may use, and the main function of a
//! [`subject`].
//!
//! The other half is the program `freestone-bench` (`main.rs`), which builds the subjects, runs each of them on each workload in a process of
//! its own, and compares. A subject's binary (`bin/`) only names its global allocator, how to prove that it is in use, and
//! its controls.

pub mod controls;
pub mod distribution;
pub mod live;
pub mod subject;
pub mod workload;
