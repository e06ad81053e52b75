//! Services over loopback: this process serves, and a client in a process of its own (`bin/client.rs`) sends requests and looks at every answer.
//!
//! ```text
//!   subject: host, server ←── 127.0.0.1 ──→ client       requests and answers
//!                 ↑   └────── stdin ──────→    │          "go"
//!                 └────────── stdout ──────────┘          "ready", then one line: Report
//! ```
//!
//! What is measured is the server's allocator. The client has the system's, sends what it encoded before the clock started, and compares answers
//! instead of decoding them, so that most of the time is the server's.
//!
//! These workloads have more below them than all others together. So they are there only when the feature `service` is; without it they are
//! named, and say so when they are run.

#[cfg(feature = "service")]
mod cache;
#[cfg(feature = "service")]
pub mod client;
#[cfg(feature = "service")]
mod direct;
#[cfg(feature = "service")]
mod grpc;
#[cfg(feature = "service")]
mod host;
#[cfg(feature = "service")]
mod http_json;
#[cfg(feature = "service")]
mod orders;
#[cfg(feature = "service")]
mod pool;
#[cfg(feature = "service")]
mod recent;

use super::Workload;
use super::parameters::{Parameter, Values};

/// The name of the client's binary, beside the subject's.
pub const CLIENT: &str = "client";

/// The services, in the order of the table.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: GRPC,
        about: "a gRPC service (tonic, prost): orders of 1 KiB are priced, confirmed and kept for a while; an operation is one request",
        telling: false,
        run: run::grpc,
    },
    Workload {
        name: HTTP_JSON,
        about: "the same orders as JSON over HTTP/1.1 with connections kept alive (axum, serde_json); an operation is one request",
        telling: false,
        run: run::http_json,
    },
    Workload {
        name: CACHE,
        about: "an in-memory cache over TCP, values of 100 B to 64 KiB, in bursts with silence between, in which three quarters expire; \
                an operation is one request",
        telling: false,
        run: run::cache,
    },
];

const GRPC: &str = "grpc";
const HTTP_JSON: &str = "http-json";
const CACHE: &str = "cache";

/// What runs the workloads.
#[cfg(feature = "service")]
mod run {
    pub(super) use super::cache::run as cache;
    pub(super) use super::grpc::run as grpc;
    pub(super) use super::http_json::run as http_json;
}

/// What says that nothing can.
#[cfg(not(feature = "service"))]
mod run {
    use crate::workload::{Context, Outcome};

    pub(super) fn refuse(_context: &Context) -> Outcome {
        crate::subject::fail("this binary was built without the services (feature `service`)")
    }

    pub(super) use refuse as cache;
    pub(super) use refuse as grpc;
    pub(super) use refuse as http_json;
}

const fn number(name: &'static str, about: &'static str, [least, default, most]: [u64; 3]) -> Parameter {
    Parameter { name, about, values: Values::Number { least, most, default } }
}

const fn word(name: &'static str, about: &'static str, words: &'static [&'static str]) -> Parameter {
    Parameter { name, about, values: Values::Word(words) }
}

const STREAMS: Parameter = number("streams", "requests under way at once, at most", [1, 128, 10_000]);
const VARIANT: Parameter = word(
    "variant",
    "plain: messages are made for each request; pooled: they, their strings and vectors are used again; \
     direct: answers are encoded field by field from borrowed data, without a message",
    &["plain", "pooled", "direct"],
);
const LOOP: Parameter = word(
    "loop",
    "closed: a stream sends its next request when the last is answered; open: requests are due at a fixed rate, and their time counts from then",
    &["closed", "open"],
);
const RATE: Parameter = number("rate", "requests a second in an open loop", [10, 10_000, 1_000_000]);
const REQUESTS: Parameter = number("requests", "requests in all; 0: as many as take two to three seconds", [0, 0, 1_000_000_000]);
const CONNECTIONS: Parameter = number("connections", "connections that the requests are spread over", [1, 4, 1_000]);
const WORKERS: Parameter = number("workers", "threads that serve", [1, 2, 256]);
const KEPT: Parameter =
    number("kept", "orders that the server keeps; each takes the place of one of its predecessors", [0, 10_000, 1_000_000]);
const PATIENCE: Parameter =
    number("patience_s", "seconds without a request served after which the run has failed", [1, 15, 3_600]);
const BURSTS: Parameter = number("bursts", "times that load and silence follow each other", [1, 3, 100]);
const IDLE: Parameter = number("idle_ms", "milliseconds of silence behind each burst", [0, 1_000, 600_000]);
const SMALLEST: Parameter = number("smallest", "bytes of the smallest value", [1, 100, VALUE_BYTES_MAX]);
const LARGEST: Parameter = number("largest", "bytes of the largest value", [1, 64 << 10, VALUE_BYTES_MAX]);
const CAPACITY: Parameter = number("capacity_mib", "MiB that the cache holds at most, keys and values", [1, 64, 64 << 10]);

/// The largest value that the cache takes.
const VALUE_BYTES_MAX: u64 = 1 << 20;

/// Of protocols in which a connection has one request under way, so that there have to be more of them.
const SERIAL_CONNECTIONS: Parameter = Parameter {
    about: "connections, each with one request under way",
    values: Values::Number { least: 1, default: 64, most: 10_000 },
    ..CONNECTIONS
};

/// What can be chosen about the service with this name.
#[must_use]
pub fn parameters(workload: &str) -> &'static [Parameter] {
    match workload {
        GRPC => &[STREAMS, VARIANT, LOOP, RATE, REQUESTS, CONNECTIONS, WORKERS, KEPT, PATIENCE],
        HTTP_JSON => &[SERIAL_CONNECTIONS, LOOP, RATE, REQUESTS, WORKERS, KEPT, PATIENCE],
        CACHE => &[BURSTS, IDLE, SMALLEST, LARGEST, CAPACITY, SERIAL_CONNECTIONS, REQUESTS, WORKERS, PATIENCE],
        _ => &[],
    }
}
