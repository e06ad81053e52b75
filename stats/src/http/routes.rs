//! The routes: who answers what, in which form, and what holds for all answers.

use axum::extract::{NestedPath, Request, State};
use axum::http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{MethodRouter, any, get, post};
use axum::{Extension, Router};
use tokio::sync::Semaphore;

use super::index::Profiles;
use super::{content, flame, guard, index, negotiate, pprof};
use crate::openmetrics;

/// All routes, for a service that has neither `/` nor `/metrics`, or to be nested: `.nest("/internal", router())`. Two routes with one path
/// stop an `axum` program when it starts; [`debug_router`] has nothing outside of `/debug/freestone`, and [`pprof_router`] nothing outside of
/// `/debug/pprof`.
///
/// Answers that take long are made on threads of the runtime for such work, one at a time.
///
/// ```
/// let service: axum::Router = axum::Router::new().nest("/internal", freestone_stats::http::router());
/// ```
pub fn router() -> Router {
    whole(Place::Runtime)
}

/// The routes below `/debug/freestone`, with the index and the metrics there too: for a service with a `/` and `/metrics` of its own.
///
/// ```
/// use axum::routing::get;
///
/// let service: axum::Router =
///     axum::Router::new().route("/", get(|| async { "hello" })).merge(freestone_stats::http::debug_router());
/// ```
pub fn debug_router() -> Router {
    routes(Place::Runtime, Profiles::Elsewhere, Router::new())
}

/// The routes below `/debug/pprof`: profiles, where `go tool pprof` looks for them. They are in [`router`], too.
///
/// ```
/// use freestone_stats::http;
///
/// let service: axum::Router = axum::Router::new().merge(http::debug_router()).merge(http::pprof_router());
/// ```
pub fn pprof_router() -> Router {
    pprof::routes(Place::Runtime)
}

/// All routes, for the server that has a thread of its own; and an answer for every other address.
pub(super) fn of_own_server() -> Router {
    // Layered by itself: layers cover what was there before them.
    let unknown =
        any(|| async { Refusal(StatusCode::NOT_FOUND, "there is nothing at this address: / tells what there is".to_owned()) });
    whole(Place::OwnThread).fallback_service(finished(Router::new().fallback_service(unknown)))
}

fn whole(place: Place) -> Router {
    let root = Router::new().route("/", index(Profiles::Here)).route("/metrics", read(metrics));
    routes(place, Profiles::Here, root).merge(pprof::routes(place))
}

fn routes(place: Place, profiles: Profiles, more: Router<Place>) -> Router {
    let routes = more
        .route("/debug/freestone", index(profiles))
        .route("/debug/freestone/", index(profiles))
        .route("/debug/freestone/metrics", read(metrics))
        .route("/debug/freestone/ui", read(page))
        .route("/debug/freestone/stats", read(stats))
        .route("/debug/freestone/stats.json", read(stats_json))
        .route("/debug/freestone/ledger", read(ledger))
        .route("/debug/freestone/classes", read(classes))
        .route("/debug/freestone/threads", read(threads))
        .route("/debug/freestone/verdict", read(verdict))
        .route("/debug/freestone/tags", read(tags))
        .route("/debug/freestone/leaks", read(leaks))
        .route("/debug/freestone/advice", read(advice))
        .route("/debug/freestone/config", read(config))
        .route("/debug/freestone/flame", read(flame))
        .route("/debug/freestone/release", only("POST, OPTIONS", post(release)));
    finished(routes.with_state(place))
}

/// What holds for every answer, refusals included.
fn finished(routes: Router) -> Router {
    routes.layer(middleware::from_fn(without_body)).layer(middleware::from_fn(fence))
}

/// A route that is read: GET, HEAD (which `axum` makes of it), OPTIONS.
pub(super) fn read<H: axum::handler::Handler<T, Place>, T: 'static>(handler: H) -> MethodRouter<Place> {
    only("GET, HEAD, OPTIONS", get(handler))
}

/// Other methods hear which there are.
pub(super) fn only(allowed: &'static str, route: MethodRouter<Place>) -> MethodRouter<Place> {
    route.fallback(move |method: Method| async move {
        if method == Method::OPTIONS {
            (StatusCode::NO_CONTENT, [(ALLOW, allowed)]).into_response()
        } else {
            let refusal = Refusal(StatusCode::METHOD_NOT_ALLOWED, format!("this address answers {allowed}, and nothing else"));
            ([(ALLOW, allowed)], refusal).into_response()
        }
    })
}

/// Where answers are made that take long.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// Here: the thread has nothing else to do.
    OwnThread,
    /// On a thread of the runtime for such work: others wait for this one.
    Runtime,
}

impl Place {
    /// Does what takes long, once at a time in the whole process: reading the ledger holds a lock of the kernel that `mmap` waits for.
    pub(super) async fn work<T: Send + 'static>(self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
        static TURN: Semaphore = Semaphore::const_new(1);
        static QUEUE: Semaphore = Semaphore::const_new(QUEUE_MAX);
        match self {
            Self::OwnThread => Ok(work()),
            Self::Runtime => {
                let busy = || {
                    Refusal(StatusCode::SERVICE_UNAVAILABLE, "too many ask at the same time: try again in a second".to_owned())
                };
                let _place = QUEUE.try_acquire().map_err(|_| busy())?;
                let turn = TURN.acquire().await.map_err(|_| busy())?;
                // The turn goes along: it is not over when the client goes away.
                let task = tokio::task::spawn_blocking(move || {
                    let _turn = turn;
                    work()
                });
                task.await.map_err(|_| Refusal(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made".to_owned()))
            }
        }
    }
}

/// So many may wait for an answer that takes long.
const QUEUE_MAX: usize = 32;

/// No, and why: one sentence.
pub(super) struct Refusal(pub StatusCode, pub String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.0, format!("{}\n", self.1)).into_response();
        if self.0 == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert("retry-after", HeaderValue::from_static("1"));
        }
        response
    }
}

pub(super) type Answer = Result<Response, Refusal>;

/// The forms of most answers; the first is the one of an address without a query.
const FORMS: &[&str] = &["text", "json"];

/// In which form? A query that is not understood is refused.
pub(super) fn form(uri: &Uri, known: &'static [&'static str]) -> Result<&'static str, Refusal> {
    negotiate::format(uri, known).map_err(|why| Refusal(StatusCode::BAD_REQUEST, why))
}

fn json(text: String) -> Response {
    ([(CONTENT_TYPE, "application/json")], text).into_response()
}

/// An answer that takes long in either form.
async fn one_of(place: Place, uri: &Uri, text: fn() -> String, json_text: fn() -> String) -> Answer {
    match form(uri, FORMS)? {
        "json" => place.work(json_text).await.map(json),
        _ => place.work(text).await.map(IntoResponse::into_response),
    }
}

async fn stats(State(place): State<Place>, uri: Uri) -> Answer {
    one_of(place, &uri, content::stats, content::stats_json).await
}

async fn stats_json(State(place): State<Place>, uri: Uri) -> Answer {
    form(&uri, &["json"])?;
    place.work(content::stats_json).await.map(json)
}

async fn ledger(State(place): State<Place>, uri: Uri) -> Answer {
    one_of(place, &uri, content::ledger, content::ledger_json).await
}

async fn classes(State(place): State<Place>, uri: Uri) -> Answer {
    one_of(place, &uri, content::classes, content::classes_json).await
}

async fn threads(State(place): State<Place>, uri: Uri) -> Answer {
    one_of(place, &uri, content::threads, content::threads_json).await
}

async fn verdict(State(place): State<Place>, uri: Uri) -> Answer {
    one_of(place, &uri, content::verdict, content::verdict_json).await
}

async fn tags(State(place): State<Place>, uri: Uri) -> Answer {
    one_of(place, &uri, content::tags, content::tags_json).await
}

async fn leaks(State(place): State<Place>, uri: Uri) -> Answer {
    one_of(place, &uri, content::leaks, content::leaks_json).await
}

async fn advice(State(place): State<Place>, uri: Uri) -> Answer {
    one_of(place, &uri, content::advice, content::advice_json).await
}

async fn config(State(place): State<Place>, uri: Uri) -> Answer {
    one_of(place, &uri, content::config, content::config_json).await
}

/// What the live page draws as a flame graph.
async fn flame(State(place): State<Place>, uri: Uri) -> Answer {
    let kind = negotiate::choice(&uri, "profile", flame::PROFILES).map_err(|why| Refusal(StatusCode::BAD_REQUEST, why))?;
    place.work(move || flame::json(kind)).await.map(json)
}

/// `OpenMetrics` to those who name it; to everybody else the older text format of Prometheus, which browsers show and all scrapers read.
async fn metrics(State(place): State<Place>, uri: Uri, headers: HeaderMap) -> Answer {
    let is_named = negotiate::names(&headers, "application/openmetrics-text");
    let (content_type, text): (_, fn() -> String) = match form(&uri, &["", "text", "openmetrics"])? {
        "openmetrics" => (openmetrics::CONTENT_TYPE, openmetrics::text),
        "" if is_named => (openmetrics::CONTENT_TYPE, openmetrics::text),
        _ => (openmetrics::PROMETHEUS_CONTENT_TYPE, openmetrics::prometheus_text),
    };
    Ok(([(CONTENT_TYPE, content_type)], place.work(text).await?).into_response())
}

/// Gives memory back. Guarded: a web page can have a browser send a POST without anybody's doing.
async fn release(State(place): State<Place>, uri: Uri, headers: HeaderMap) -> Answer {
    let form = form(&uri, FORMS)?;
    if guard::cross_site(&headers) {
        return Err(Refusal(StatusCode::FORBIDDEN, "a page of another site sent this: that changes nothing here".to_owned()));
    }
    let released = place.work(freestone::control::release_to_os).await?;
    Ok(match form {
        "json" => json(content::released_json(released)),
        _ => content::released(released).into_response(),
    })
}

/// An index, with or without the profiles.
fn index(profiles: Profiles) -> MethodRouter<Place> {
    read(move |nested: Option<Extension<NestedPath>>, uri: Uri, headers: HeaderMap| async move {
        form(&uri, &[""])?;
        let prefix = nested.as_ref().map_or("", |nested| nested.as_str().trim_end_matches('/'));
        if negotiate::names(&headers, "text/html") {
            let nonce = content::nonce();
            return Ok((policy(&nonce), Html(index::html(prefix, profiles, &nonce))).into_response());
        }
        Answer::Ok(index::text(prefix, profiles).into_response())
    })
}

async fn page(uri: Uri) -> Answer {
    form(&uri, &[""])?;
    let nonce = content::nonce();
    Ok((policy(&nonce), Html(content::page(&nonce))).into_response())
}

/// What the browser may do with a page of ours: run what came with it, ask where it came from, and nothing else.
pub(super) fn policy(nonce: &str) -> [(HeaderName, String); 1] {
    let name = HeaderName::from_static("content-security-policy");
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    [(name, policy)]
}

/// Headers that keep answers out of caches, out of pages of other sites, and out of a browser's guesses.
pub(super) async fn fence(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for (name, value) in [
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-resource-policy", "same-origin"),
        ("cross-origin-opener-policy", "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if !headers.contains_key("content-security-policy") {
        headers.insert("content-security-policy", HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    }
    response
}

/// These routes read no body, so nobody need send one.
pub(super) async fn without_body(request: Request, next: Next) -> Response {
    use axum::body::HttpBody;
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let refusal = Refusal(StatusCode::PAYLOAD_TOO_LARGE, "nothing here reads a body: send none".to_owned());
    // Unread, it would be taken for the next request.
    ([("connection", "close")], refusal).into_response()
}
