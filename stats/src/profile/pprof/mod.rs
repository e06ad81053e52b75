//! The format of pprof: `profile.proto`, in gzip. `go tool pprof`, Pyroscope, Parca and speedscope read it.
//!
//! Sample types, their order, the label `bytes` and what is shown by default are those of Go, whose heap profiles all of these know. Values are estimates of
//! what the program did, not of what was sampled; `period` is the mean number of bytes between two samples. Beyond Go's, a label `tag` names the tag that a
//! block was allocated under, comments tell exact totals beside the estimates, and what is missing.
//!
//! A location is the address of a call, its return address less one, as in Go's files: names and lines are then those of the call, not of what comes after it.
//!
//! The standard error of a stack is no label: samples that differ in a label are different samples, so that differences between two files
//! (`pprof -base`) would cancel nowhere. It follows from what is there, and a comment says how.
//!
//! [`decode()`] reads such files, also those of others, and believes nothing they say.

use std::fmt;

mod decode;
mod encode;
pub mod proto;

pub use decode::decode;
pub use encode::encode;

/// What is wrong with a file that should be a profile, in a sentence.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}
