//! The server for programs without a runtime: one thread that sleeps while nobody asks, and that a crowd cannot make large.
//!
//! ```text
//!   accept ──▶ a place free? ── yes ──▶ connection: head ≤ 10 s, ≤ 16 KiB; life ≤ 60 s + 5 s ──▶ routes
//!                    └──────── no ───▶ a short 503, closed
//! ```
//!
//! Everything runs on the one thread, the answers too: the process pays for at most one answer at a time, and one that takes long (a ledger of
//! a large heap, a release) makes others wait, in the kernel's queue.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::{guard, routes};

/// Connections that are served at the same time. A scraper needs one, a browser at most six.
const CONNECTIONS_MAX: usize = 64;
/// Connections that wait in the kernel to be accepted, before it has clients try again: many, since nobody waits there for long.
const QUEUE_MAX: u32 = 1024;
/// A request's first line and headers are no larger; browsers stay below 4 KiB.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// So many headers: browsers send 20.
const HEADERS_MAX: usize = 64;
/// What a connection buffers in either direction.
const BUFFER_BYTES_MAX: usize = 32 << 10;
/// A head that takes longer to come is not waited for, and a connection without requests is closed. Longer than the second between two
/// requests of the live page; scrapers come back with a new connection.
const HEAD_WAIT: Duration = Duration::from_secs(10);
/// After so long a connection is closed behind the answer that is under way. Whoever wants more connects again.
const CONNECTION_LIFE: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_mins(1) };
/// A client that does not take its answer for so long after that, or after what it asked to wait for, will not get it.
const FAREWELL: Duration = if cfg!(test) { Duration::from_secs(1) } else { Duration::from_secs(5) };
/// When no connection can be accepted (no file descriptors, no memory) the next try is so much later.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What those hear for whom there is no place.
const BUSY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 53\r\n\
    retry-after: 10\r\nconnection: close\r\n\r\ntoo many connections: try again in about ten seconds\n";

/// Serves everything that [`router`](super::router) does at this address, on a thread of its own, until the [`Server`] is dropped. The address
/// must be of the loopback: [`Builder::allow_remote`] is for others. Port 0 lets the system choose one; [`Server::address`] tells it.
///
/// ```
/// let server = freestone_stats::http::serve("127.0.0.1:0")?;
/// println!("look at http://{}/debug/freestone/ui", server.address());
/// # Ok::<(), freestone_stats::http::ServeError>(())
/// ```
///
/// # Errors
///
/// One sentence about the address that cannot be had: see [`ServeError`].
pub fn serve(address: impl ToSocketAddrs) -> Result<Server, ServeError> {
    Builder::new().serve(address)
}

/// Serves at what `FREESTONE_HTTP` says, until the process ends; nothing if it says nothing, or the process has somebody else's rights. What goes
/// wrong is one line on standard error.
pub(crate) fn start_from_environment() {
    let Some(address) = crate::init::environment("FREESTONE_HTTP") else { return };
    let address = address.to_string_lossy();
    match serve(&*address) {
        Ok(server) => server.detach(),
        // That nobody listens is no reason to panic.
        Err(error) => drop(writeln!(io::stderr(), "freestone: FREESTONE_HTTP={}: {error}", address.escape_debug())),
    }
}

/// A server that is more than the default one: reachable from elsewhere, or by a name.
///
/// ```
/// use freestone_stats::http::Builder;
///
/// # fn main() -> Result<(), freestone_stats::http::ServeError> {
/// let server = Builder::new().allow_remote().host("orders.internal").serve("0.0.0.0:0")?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq, Debug, Default)]
#[must_use = "nothing is served before `serve`"]
pub struct Builder {
    allows_remote: bool,
    hosts: Vec<String>,
}

impl Builder {
    /// The default: loopback only, asked for as `localhost` or by address.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves on addresses that other machines can reach, too. There is no password and no encryption: whoever reaches the port reads all there
    /// is, addresses and names of threads included, and may have memory released. A firewall or a network policy must say who that is.
    pub fn allow_remote(self) -> Self {
        Self { allows_remote: true, ..self }
    }

    /// Answers requests for this name, without a port, as well. A server answers to `localhost` and to addresses in numbers; a browser that asks
    /// for another name may have been led here by a page of somebody else's (DNS rebinding).
    pub fn host(mut self, name: impl Into<String>) -> Self {
        self.hosts.push(name.into());
        self
    }

    /// Starts the server. Where an address has several forms, as `localhost` has, the first that can be had is taken.
    ///
    /// # Errors
    ///
    /// One sentence about the address that cannot be had: see [`ServeError`].
    pub fn serve(self, address: impl ToSocketAddrs) -> Result<Server, ServeError> {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().map_err(ServeError::Start)?;
        let listener = {
            let _inside = runtime.enter();
            self.listen(address)?
        };
        let address = listener.local_addr().map_err(ServeError::Start)?;
        let (stop, stopped) = oneshot::channel();
        let routes = routes::of_own_server().layer(middleware::from_fn_with_state(Arc::from(self.hosts), check_host));
        let thread = crate::own_thread::without_signals(|| {
            let named = std::thread::Builder::new().name("freestone-http".to_owned()).stack_size(STACK_BYTES);
            named.spawn(move || run(&runtime, listener, routes, stopped))
        });
        let thread = thread.map_err(ServeError::Start)?;
        Ok(Server { address, running: Some(Running { stop, thread, process: std::process::id() }) })
    }

    fn listen(&self, address: impl ToSocketAddrs) -> Result<TcpListener, ServeError> {
        let mut failure = None;
        for address in address.to_socket_addrs().map_err(ServeError::Address)? {
            if !self.allows_remote && !address.ip().is_loopback() {
                return Err(ServeError::NotLoopback(address));
            }
            match bind(address) {
                Ok(listener) => return Ok(listener),
                Err(source) => failure = failure.or(Some(ServeError::Bind { address, source })),
            }
        }
        Err(failure.unwrap_or_else(|| ServeError::Address(io::Error::other("the name leads nowhere"))))
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // An address can be had again right after a server that was there has ended.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(QUEUE_MAX)
}

/// Of the address space; some pages of it are touched.
const STACK_BYTES: usize = 512 << 10;

/// A server that runs. Dropping it ends it; [`detach`](Self::detach) lets it run for as long as the process does.
#[must_use = "the server ends when this is dropped; `detach` lets it run"]
pub struct Server {
    address: SocketAddr,
    running: Option<Running>,
}

struct Running {
    stop: oneshot::Sender<()>,
    thread: JoinHandle<()>,
    process: u32,
}

impl Server {
    /// Where it listens: with the port that the system chose, if that was left to it.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets it run until the process ends.
    pub fn detach(mut self) {
        if let Some(running) = self.running.take() {
            // A sender that is neither used nor dropped never stops anybody.
            std::mem::forget(running.stop);
        }
    }
}

impl Drop for Server {
    /// Ends the server, and waits until its thread has: for an answer that is under way, at most.
    fn drop(&mut self) {
        let Some(Running { stop, thread, process }) = self.running.take() else { return };
        if process != std::process::id() {
            // The child of a fork: the thread stayed in the parent, and no standard promises that waiting for it ends.
            std::mem::forget(stop);
            return;
        }
        drop(stop);
        // A panic of that thread was told when it happened.
        let _ = thread.join();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

/// Why there is no server.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// The text is no address, or a name that leads nowhere.
    Address(io::Error),
    /// Other machines could reach this address, and nobody said that they may: [`Builder::allow_remote`].
    NotLoopback(SocketAddr),
    /// The system refuses the address: somebody else listens there, or it is not of this machine.
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// There is no thread or no file descriptor left.
    Start(io::Error),
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(error) => write!(f, "this is no address to serve at (127.0.0.1:6060 is one): {error}"),
            Self::NotLoopback(address) => write!(
                f,
                "{address} can be reached from other machines, and everything served there could be read by them: \
                 if that is meant, say http::Builder::allow_remote"
            ),
            Self::Bind { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "{address} is taken: another program, or another server of this one, listens there")
            }
            Self::Bind { address, source } => write!(f, "cannot listen at {address}: {source}"),
            Self::Start(error) => write!(f, "the server cannot start: {error}"),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Address(error) | Self::Bind { source: error, .. } | Self::Start(error) => Some(error),
            Self::NotLoopback(_) => None,
        }
    }
}

fn run(runtime: &Runtime, listener: TcpListener, routes: Router, stopped: oneshot::Receiver<()>) {
    runtime.block_on(async {
        let mut accepting = pin!(accept(listener, routes));
        let mut stopped = pin!(stopped);
        poll_fn(|context| match (stopped.as_mut().poll(context), accepting.as_mut().poll(context)) {
            (Poll::Pending, Poll::Pending) => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
    });
    // Connections end with the runtime.
}

/// Gives places to those who come, for as long as it is asked to.
async fn accept(listener: TcpListener, routes: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                Ok(place) => drop(tokio::spawn(serve_one(stream, routes.clone(), place))),
                Err(_) => turn_away(stream),
            },
            Err(error) if is_of_one_connection(&error) => {}
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// The connection went away before it was accepted; the next may be all right.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

async fn serve_one(stream: TcpStream, routes: Router, place: OwnedSemaphorePermit) {
    let mut protocol = http1::Builder::new();
    protocol
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_WAIT)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(BUFFER_BYTES_MAX);
    let patience = Patience::new();
    let routes = routes.layer(Extension(patience.clone()));
    let mut connection = pin!(protocol.serve_connection(TokioIo::new(stream), TowerToHyperService::new(routes)));
    // Errors are the client's: it went away, or spoke something else.
    if timeout(CONNECTION_LIFE, connection.as_mut()).await.is_err() {
        connection.as_mut().graceful_shutdown();
        let _ = timeout_at(patience.until().max(Instant::now()) + FAREWELL, connection).await;
    }
    drop(place);
}

/// Until when a connection is to be kept for an answer that is waited for on purpose. A request finds it among its extensions.
#[derive(Clone, Debug)]
pub(super) struct Patience {
    began: Instant,
    extra_ms: Arc<AtomicU64>,
}

impl Patience {
    fn new() -> Self {
        Self { began: Instant::now(), extra_ms: Arc::default() }
    }

    /// The answer that is under way takes so long from now on.
    pub(super) fn extend(&self, wait: Duration) {
        let end = self.began.elapsed() + wait;
        // Relaxed, here and below: whoever writes and whoever reads are one task of one thread.
        self.extra_ms.fetch_max(u64::try_from(end.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn until(&self) -> Instant {
        self.began + Duration::from_millis(self.extra_ms.load(Ordering::Relaxed))
    }
}

/// Says why and closes, without waiting for anything: the few bytes fit into the kernel's buffer.
fn turn_away(stream: TcpStream) {
    // Out of the runtime, which does not know yet that the socket can be written to. It stays one that never waits.
    let Ok(mut stream) = stream.into_std() else { return };
    let _ = stream.write(BUSY);
    let _ = stream.shutdown(Shutdown::Write);
    // What was sent already is read: closing over it would be a reset, which may overtake the answer.
    let _ = stream.read(&mut [0; 4096]);
}

/// Before everything: does the name in the request lead here by right?
async fn check_host(State(named): State<Arc<[String]>>, request: Request, next: Next) -> Response {
    match guard::check_host(request.uri(), request.headers(), &named) {
        Ok(()) => next.run(request).await,
        Err(why) => (StatusCode::MISDIRECTED_REQUEST, format!("{why}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_crowd_is_well_formed() {
        let answer = std::str::from_utf8(BUSY).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{} bytes of body", body.len());
    }

    #[test]
    fn a_connection_outlives_its_time_for_what_is_waited_for_on_purpose() {
        let server = serve("127.0.0.1:0").expect("the loopback can be had");
        let waited = CONNECTION_LIFE + FAREWELL + Duration::from_secs(2);
        let said = ["/debug/pprof/heap?seconds=", "/debug/freestone/stats?ignored="].map(|path| {
            let mut stream = std::net::TcpStream::connect(server.address()).expect("a server that listens");
            let seconds = waited.as_secs();
            write!(stream, "GET {path}{seconds} HTTP/1.1\r\nhost: localhost\r\n\r\n").expect("a server that listens");
            // The connection is kept open, and closed behind the answer.
            let mut said = Vec::new();
            stream.read_to_end(&mut said).expect("an answer");
            String::from_utf8_lossy(&said).into_owned()
        });
        assert!(said[0].starts_with("HTTP/1.1 200 OK\r\n"), "{}", said[0]);
        assert!(said[0].contains("filename=\"heap-delta\""), "{}", said[0]);
        assert!(said[1].starts_with("HTTP/1.1 400 "), "{}", said[1]);
    }
}
