//! `/debug/pprof/`: profiles where tools of Go look for them, with the parameters, headers and words of Go's `net/http/pprof`.
//!
//! ```text
//!   go tool pprof http://127.0.0.1:6060/debug/pprof/heap
//!     GET  /debug/pprof/heap        the profile, of bare addresses
//!     POST /debug/pprof/symbol      0x55d0c0+0x55d0c8+…, and names come back
//! ```
//!
//! A difference (`seconds=30`) waits between two profiles without holding anybody up; so many wait at the same time, and a client that hangs up
//! waits no more.

mod forms;
mod index;
mod query;
mod symbol;
mod text;

use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::middleware;
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, any, get};
use axum::{Extension, Router};
use tokio::sync::Semaphore;

use self::forms::Written;
use self::query::{Form, Query};
use super::routes::{Answer, Place, Refusal, fence, form, only, policy, read, without_body};
use super::server::Patience;
use super::{content, guard, naming, negotiate};
use crate::profile::{self, Kind};

/// So many differences may be waited for at the same time: each keeps a profile meanwhile.
const DIFFERENCES_MAX: usize = 8;

/// Over so long is the difference of `/debug/pprof/delta`, unless the query says.
const DELTA_SECONDS: u64 = 10;

/// Marks an error as one of these addresses, so that `go tool pprof` shows its sentence.
const GO_PPROF: HeaderName = HeaderName::from_static("x-go-pprof");

pub(super) fn routes(place: Place) -> Router {
    // Names are asked for with a body, everything else without.
    let with_body = Router::new().route("/debug/pprof/symbol", only("GET, HEAD, POST, OPTIONS", get(symbol).post(symbol)));
    let mut routes = Router::new()
        .route("/debug/pprof", read(to_index))
        .route("/debug/pprof/", read(index))
        .route("/debug/pprof/cmdline", read(cmdline))
        .route("/debug/pprof/delta", one_profile(Kind::Heap, Some(DELTA_SECONDS)))
        .route("/debug/pprof/{*other}", any(unknown));
    for kind in Kind::ALL {
        routes = routes.route(&format!("/debug/pprof/{}", kind.name()), one_profile(kind, None));
    }
    routes
        .layer(middleware::from_fn(without_body))
        .merge(with_body)
        .layer(middleware::map_response(mark_errors))
        .layer(middleware::from_fn(fence))
        .with_state(place)
}

fn one_profile(kind: Kind, seconds: Option<u64>) -> MethodRouter<Place> {
    read(move |State(place): State<Place>, patience: Option<Extension<Patience>>, uri: Uri, headers: HeaderMap| async move {
        answer(place, kind, seconds, patience.map(|patience| patience.0), &uri, &headers).await
    })
}

async fn answer(
    place: Place,
    kind: Kind,
    seconds: Option<u64>,
    patience: Option<Patience>,
    uri: &Uri,
    headers: &HeaderMap,
) -> Answer {
    let bad = |why| Refusal(StatusCode::BAD_REQUEST, why);
    let mut query = Query::parse(uri.query(), kind).map_err(bad)?;
    query.seconds = query.seconds.or(seconds);
    if query.seconds.is_some() && query.form == Form::Text {
        return Err(bad("seconds and debug params are incompatible".to_owned()));
    }
    // Both outlast the answer: memory goes back, a place to wait is taken.
    if (query.releases || query.seconds.is_some()) && guard::cross_site(headers) {
        return Err(Refusal(
            StatusCode::FORBIDDEN,
            "a page of another site sent this: it may neither wait nor change anything here".to_owned(),
        ));
    }
    if query.releases {
        place.work(freestone::control::release_to_os).await?;
    }
    let written = match query.seconds {
        None => place.work(move || forms::write(&profile::take(kind), &query)).await?,
        Some(seconds) => {
            static WAITING: Semaphore = Semaphore::const_new(DIFFERENCES_MAX);
            let many = |_| {
                Refusal(StatusCode::SERVICE_UNAVAILABLE, "too many wait for a difference already: try again later".to_owned())
            };
            let _waiting = WAITING.try_acquire().map_err(many)?;
            let earlier = place.work(move || profile::take(kind)).await?;
            wait(Duration::from_secs(seconds), patience).await?;
            place.work(move || forms::write(&profile::take(kind).since(&earlier), &query)).await?
        }
    };
    let written = written.map_err(|why| bad(why.to_owned()))?;
    let name = if query.seconds.is_some() { format!("{}-delta", kind.name()) } else { kind.name().to_owned() };
    Ok(respond(written, &name))
}

/// Waits, and has the server's connection wait as well. If the client goes away meanwhile, this is dropped.
async fn wait(duration: Duration, patience: Option<Patience>) -> Result<(), Refusal> {
    if let Some(patience) = patience {
        patience.extend(duration);
    }
    // A service may have built its runtime without a timer; that is told by a panic only.
    let sleep = std::panic::catch_unwind(|| tokio::time::sleep(duration));
    let no_timer =
        |_| Refusal(StatusCode::INTERNAL_SERVER_ERROR, "the runtime of this service has no timer, so nobody can wait".to_owned());
    sleep.map_err(no_timer)?.await;
    Ok(())
}

fn respond(written: Written, name: &str) -> Response {
    let Written { body, content_type, is_saved } = written;
    let mut response = ([(CONTENT_TYPE, content_type)], body).into_response();
    if is_saved && let Ok(value) = HeaderValue::from_str(&format!("attachment; filename=\"{name}\"")) {
        response.headers_mut().insert(CONTENT_DISPOSITION, value);
    }
    if content_type == forms::SVG {
        let value = HeaderValue::from_static(forms::SVG_POLICY);
        response.headers_mut().insert("content-security-policy", value);
    }
    response
}

async fn symbol(State(place): State<Place>, request: Request) -> Answer {
    let asked = if request.method() == axum::http::Method::POST {
        // It changes nothing, but may take its time.
        if guard::cross_site(request.headers()) {
            return Err(Refusal(StatusCode::FORBIDDEN, "a page of another site sent this: it gets no names".to_owned()));
        }
        body_of(request).await?
    } else {
        request.uri().query().unwrap_or_default().as_bytes().to_vec()
    };
    let text = place.work(move || naming::with(|names| symbol::answer(&asked, |address| naming::known(names, address)))).await?;
    Ok(text.into_response())
}

/// The body, if it is no longer than a profile can be.
async fn body_of(request: Request<Body>) -> Result<Vec<u8>, Refusal> {
    let body = to_bytes(request.into_body(), symbol::REQUEST_BYTES_MAX).await;
    let refusal = |_| {
        let why = format!("a request for names comes as a whole, and is at most {} bytes", symbol::REQUEST_BYTES_MAX);
        Refusal(StatusCode::PAYLOAD_TOO_LARGE, why)
    };
    Ok(body.map_err(refusal)?.into())
}

/// As Go writes it: what the program was called with, a NUL between two.
async fn cmdline(uri: Uri) -> Answer {
    use std::os::unix::ffi::OsStringExt;
    form(&uri, &[""])?;
    let parts: Vec<Vec<u8>> = std::env::args_os().map(OsStringExt::into_vec).collect();
    Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], parts.join(&0)).into_response())
}

/// Links of the index are relative to this.
async fn to_index() -> impl IntoResponse {
    (StatusCode::MOVED_PERMANENTLY, [(LOCATION, "pprof/")])
}

async fn index(State(place): State<Place>, uri: Uri, headers: HeaderMap) -> Answer {
    form(&uri, &[""])?;
    if negotiate::names(&headers, "text/html") {
        let nonce = content::nonce();
        let policy = policy(&nonce);
        return Ok((policy, Html(place.work(move || index::html(&nonce)).await?)).into_response());
    }
    Ok(place.work(index::text).await?.into_response())
}

/// What Go has and an allocator has not.
async fn unknown(uri: Uri) -> Refusal {
    let name = uri.path().rsplit('/').next().unwrap_or_default();
    let why = match name {
        "profile" => "there is no profile of processor time here: perf record makes one",
        "trace" => "there are no traces of execution here: /debug/freestone/ui shows the heap over time",
        "goroutine" | "threadcreate" => "there are no profiles of threads here: /debug/freestone/threads has what each allocated",
        "block" | "mutex" => "there are no profiles of the program's locks here: contention has the allocator's",
        _ => "Unknown profile: /debug/pprof/ tells which there are",
    };
    Refusal(StatusCode::NOT_FOUND, why.to_owned())
}

async fn mark_errors(mut response: Response) -> Response {
    if response.status().is_client_error() || response.status().is_server_error() {
        response.headers_mut().insert(GO_PPROF, HeaderValue::from_static("1"));
    }
    response
}
