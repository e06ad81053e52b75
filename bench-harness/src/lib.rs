//! The harness of Freestone.
pub mod subject;
pub mod workload;
