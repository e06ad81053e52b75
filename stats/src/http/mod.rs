//! Everything over HTTP: for the browser, for `curl`, for Prometheus. A router to mount in an `axum` service, and a server of one line for programs
//! without a runtime.
//!
//! ```no_run
//! # fn main() -> Result<(), freestone_stats::http::ServeError> {
//! let server = freestone_stats::http::serve("127.0.0.1:6060")?;
//! // … and as long as it is not dropped: http://127.0.0.1:6060
//! # drop(server);
//! # Ok(())
//! # }
//! ```
//!
//! In programs that call [`freestone_stats::init()`](crate::init()), `FREESTONE_HTTP=127.0.0.1:6060` does the same without a rebuild. In a service that
//! has `axum` already:
//!
//! ```
//! use axum::Router;
//! use axum::routing::get;
//!
//! let service: Router = Router::new().route("/orders", get(|| async { "none" })).merge(freestone_stats::http::router());
//! ```
//!
//! # What there is
//!
//! | address | is |
//! |---|---|
//! | `/` | an index of the others, for browsers and for `curl` |
//! | `/metrics` | for Prometheus: `OpenMetrics`, or its own text format, as it asks |
//! | `/debug/freestone/ui` | a live page: the heap over time, rates, the verdict, every class and thread |
//! | `/debug/freestone/stats` | the report, in text |
//! | `/debug/freestone/stats.json` | everything, in [JSON](crate::json) |
//! | `/debug/freestone/ledger` | every byte of the process in one line |
//! | `/debug/freestone/classes` | every size class in use |
//! | `/debug/freestone/threads` | what each thread has cached |
//! | `/debug/freestone/verdict` | what is going on, in words |
//! | `/debug/freestone/config` | the options in force |
//! | `/debug/freestone/flame` | a heap profile as a tree of functions, in JSON: what the page draws |
//! | `POST /debug/freestone/release` | gives free memory back to the system, and says how much |
//! | `/debug/pprof/` | an index of [profiles](crate::profile): which call sites have the memory |
//! | `/debug/pprof/heap`, `allocs`, `peak`, `lifetimes`, `fragmentation`, `contention`, `delta` | for `go tool pprof`, and as text, JSON, flame graph |
//! | `/debug/pprof/cmdline`, `/debug/pprof/symbol` | what `go tool pprof` asks besides |
//!
//! Above the profiles, all but the page and the metrics know `?format=json`. `docs/http.md` has examples, and says what protects them.
//!
//! # Who may ask
//!
//! Whoever reaches the port, and reads names of functions and the command line, too. There is no password: the server listens on the loopback only, unless [`Builder::allow_remote`] says otherwise, and
//! refuses requests for names that nobody gave it, so that a web page cannot read it through the browser of somebody at this machine. A router that
//! is mounted in a service is as open as that service: it belongs on the port for operators. `POST` is refused where a browser says that a page of
//! another site sent it.
//!
//! # What it costs
//!
//! The thread sleeps while nobody asks. It serves 64 connections at a time; those beyond are told so and closed. A request is at most 16 KiB and has
//! ten seconds to arrive, a connection lasts a minute at most (longer only for a profile with `seconds=`, of which eight may be waited for), and one answer is made at a time, so that ten thousand connections take no more memory
//! than 64 do.

mod content;
mod flame;
mod guard;
mod index;
mod naming;
mod negotiate;
mod pprof;
mod routes;
mod server;

pub use routes::{debug_router, pprof_router, router};
pub(crate) use server::start_from_environment;
pub use server::{Builder, ServeError, Server, serve};
