//! The server: what it is asked, in its own words, and what its answers mean for us.
//!
//! | server | request | labels | what says that it went well |
//! |---|---|---|---|
//! | Pyroscope, `Push` | Connect: a protobuf message as the body | in the message | 200 |
//! | Pyroscope, `/ingest` | the profile as the body | in the address, `name=app{…}` | 200 |
//! | Parca | gRPC-Web: a protobuf message in a frame | in the message | 200, and `grpc-status: 0` in a header or the last frame |
//!
//! Parca has an address for JSON too, but over HTTP/1 its pages, and so its proxies, speak gRPC-Web, which all its versions understand.
//!
//! Pyroscope adds up columns that only grow, so it gets what is new since the last profile. Parca keeps what it is given, as if it had scraped it, and so gets
//! what was counted since the start. For both a profile of pprof is one series per column.

use std::fmt::Write as _;
use std::io::Read;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use prost::Message;
use ureq::Agent;
use ureq::http::{Response, StatusCode, Uri, header};

use super::{Counting, Credentials, PushOptions, StartError, when};
use crate::profile::{Kind, Profile};

const PUSH: &str = "/push.v1.PusherService/Push";
const INGEST: &str = "/ingest";
const PARCA: &str = "/api/parca.profilestore.v1alpha1.ProfileStoreService/WriteRaw";
/// Of an answer, so much is read: enough for a message.
const ANSWER_BYTES_MAX: u64 = 4096;
/// Of a message, so much is said.
const MESSAGE_CHARS_MAX: usize = 200;
/// Connections of ours carry little.
const BUFFER_BYTES: usize = 16 << 10;
/// As long as servers take labels to be.
const LABEL_BYTES_MAX: usize = 1024;

/// Where profiles go, and how they are wrapped. Has no `Debug`: there are secrets in it.
pub(super) struct Server {
    agent: Agent,
    protocol: Protocol,
    address: String,
    authorization: Option<String>,
    tenant: Option<String>,
    labels: Vec<(String, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Protocol {
    Push,
    Ingest,
    Parca,
}

/// A profile as it is sent, each time the same: a server that took it without our noticing can tell.
#[derive(Debug)]
pub(super) struct Parcel {
    body: Vec<u8>,
    /// What comes after the address.
    query: String,
}

/// What became of a request.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Answer {
    /// The server has it.
    Taken,
    /// It does not want it, and will not want it later.
    Never(String),
    /// Perhaps later, and if it said so, not before this time has passed.
    Later(String, Option<Duration>),
}

impl Parcel {
    pub(super) fn bytes(&self) -> usize {
        self.body.len() + self.query.len()
    }

    #[cfg(test)]
    pub(super) fn of_bytes(body: Vec<u8>) -> Self {
        Self { body, query: String::new() }
    }
}

// ---- messages: https://github.com/grafana/pyroscope/tree/main/api/push/v1, and parca/profilestore/v1alpha1 in https://github.com/parca-dev/parca

#[derive(Clone, PartialEq, Message)]
pub(super) struct PyroscopeRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) series: Vec<PyroscopeSeries>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PyroscopeSeries {
    #[prost(message, repeated, tag = "1")]
    pub(super) labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    pub(super) samples: Vec<RawSample>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ParcaRequest {
    // Tag 1 was the tenant, which is a header now.
    #[prost(message, repeated, tag = "2")]
    pub(super) series: Vec<ParcaSeries>,
    #[prost(bool, tag = "3")]
    pub(super) normalized: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct ParcaSeries {
    #[prost(message, optional, tag = "1")]
    pub(super) labels: Option<LabelSet>,
    #[prost(message, repeated, tag = "2")]
    pub(super) samples: Vec<RawSample>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct LabelSet {
    #[prost(message, repeated, tag = "1")]
    pub(super) labels: Vec<Label>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct Label {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) value: String,
}

/// The same for both, but for the id, which Parca does not know and so passes over.
#[derive(Clone, PartialEq, Message)]
pub(super) struct RawSample {
    #[prost(bytes = "vec", tag = "1")]
    pub(super) raw_profile: Vec<u8>,
    #[prost(string, tag = "2")]
    pub(super) id: String,
}

// ---- the address

/// An address in its parts.
struct Address {
    protocol: Protocol,
    /// Without user, query and slash at the end.
    url: String,
    user: Option<Credentials>,
}

impl Address {
    fn parse(address: &str) -> Result<Self, StartError> {
        let wrong = |why: &str| StartError::Address(why.to_owned());
        let (is_parca, url) = match address.trim().strip_prefix("parca+") {
            Some(url) => (true, url),
            None => (false, address.trim()),
        };
        let uri: Uri = url.parse().map_err(|_| wrong("is not of the form http://host:port/path"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") if cfg!(feature = "continuous-tls") => {}
            Some("https") => return Err(wrong("begins with https, which needs the feature continuous-tls of freestone-stats")),
            Some(_) | None => return Err(wrong("does not begin with http://, https://, parca+http:// or parca+https://")),
        }
        if uri.query().is_some() {
            return Err(wrong("has a query, which is not passed on: labels and tenants are options"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("has no host"))?.as_str();
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => {
                (Some(credentials(user).ok_or_else(|| wrong("has a user or password that cannot be read"))?), host)
            }
            None => (None, authority),
        };
        if host.is_empty() || host.starts_with(':') {
            return Err(wrong("has no host"));
        }
        if host.rsplit(']').next().is_some_and(|end| end.contains(':')) && uri.port_u16().is_none() {
            return Err(wrong("has a port that is none"));
        }
        let path = uri.path().trim_end_matches('/');
        let (protocol, end) = if is_parca {
            (Protocol::Parca, PARCA)
        } else if path.ends_with(INGEST) {
            (Protocol::Ingest, INGEST)
        } else {
            (Protocol::Push, PUSH)
        };
        let path = path.strip_suffix(end).unwrap_or(path);
        let scheme = uri.scheme_str().unwrap_or_default();
        Ok(Self { protocol, url: format!("{scheme}://{host}{path}{end}"), user })
    }
}

/// A user and password as they stand in addresses.
fn credentials(user: &str) -> Option<Credentials> {
    let (user, password) = user.split_once(':').unwrap_or((user, ""));
    Some(Credentials::Basic(unescaped(user)?, unescaped(password)?))
}

/// `%40` is `@`.
fn unescaped(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let mut digit = || char::from(rest.next()?).to_digit(16);
            bytes.push((digit()? * 16 + digit()?) as u8);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// What must be escaped in a query is.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing into a string does not fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

// ---- labels

fn labels(options: &PushOptions, protocol: Protocol) -> Result<Vec<(String, String)>, StartError> {
    let wrong = |why: String| Err(StartError::Options(why));
    let mut labels = options.labels.clone();
    if !labels.iter().any(|(name, _)| name == "service_name") {
        labels.insert(0, ("service_name".to_owned(), program()));
    }
    for (name, value) in &labels {
        let shown = name.escape_debug();
        let starts_well = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_');
        if !starts_well || !name.chars().all(|letter| letter.is_ascii_alphanumeric() || "_.".contains(letter)) {
            return wrong(format!("the label \"{shown}\" has no name that servers take: letters, digits, dots and underscores"));
        }
        if name.starts_with("__") {
            return wrong(format!("labels with two underscores in front are the server's own: {shown}"));
        }
        if name.len() > LABEL_BYTES_MAX || value.len() > LABEL_BYTES_MAX {
            return wrong(format!("the label {shown} is longer than {LABEL_BYTES_MAX} bytes"));
        }
        if value.is_empty() || value.chars().any(char::is_control) {
            return wrong(format!("the label {shown} is empty, or has control characters in it"));
        }
        // In `name=app{a=b,c=d}` nothing can be escaped.
        if protocol == Protocol::Ingest && value.contains(['{', '}', ',', '=', '"']) {
            return wrong(format!(
                "the label {shown} has a value that /ingest cannot express; without /ingest in the address it can be sent"
            ));
        }
    }
    Ok(labels)
}

/// The name of the program's file.
fn program() -> String {
    let path = std::env::current_exe().ok();
    let name = path.as_deref().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
    let name = name.unwrap_or_default().replace(|letter: char| letter.is_control() || "{},=\"".contains(letter), "_");
    if name.is_empty() { "unknown".to_owned() } else { name }
}

/// What profiles of a kind are called there. Names that Go's profiles have are taken where the columns are the same, so that pages show them unasked; the
/// columns of the others are not to be mixed with these.
const fn metric(kind: Kind) -> &'static str {
    match kind {
        Kind::Heap | Kind::Allocs => "memory",
        Kind::Peak => "memory_peak",
        Kind::Lifetimes => "memory_lifetimes",
        Kind::Fragmentation => "memory_fragmentation",
        Kind::Contention => "mutex",
    }
}

/// A random UUID, as text.
fn uuid() -> String {
    let (high, low) = (when::chance(), when::chance());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        high >> 16 & 0xffff,
        high & 0xfff,
        low >> 48 & 0x3fff | 0x8000,
        low & 0xffff_ffff_ffff
    )
}

impl Server {
    pub(super) fn new(address: &str, options: &PushOptions) -> Result<Self, StartError> {
        let wrong = |why: &str| Err(StartError::Options(why.to_owned()));
        let Address { protocol, url, user } = Address::parse(address)?;
        if options.kinds.is_empty() {
            return wrong("no kind of profile was chosen");
        }
        if options.waiting_max == 0 || options.waiting_bytes_max == 0 {
            return wrong("no profile may wait, so none could be sent");
        }
        // There the server makes a name of the columns, and those of a peak are called as those of the heap.
        if protocol == Protocol::Ingest
            && !options.kinds.iter().all(|kind| matches!(kind, Kind::Heap | Kind::Allocs | Kind::Contention))
        {
            return wrong(
                "/ingest can only tell heap, allocs and contention apart; without /ingest in the address all kinds can be sent",
            );
        }
        let authorization = options.credentials.clone().or(user).map(|credentials| match credentials {
            Credentials::Basic(user, password) => format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))),
            Credentials::Bearer(token) => format!("Bearer {token}"),
        });
        let is_header = |text: &str| header::HeaderValue::from_str(text).is_ok();
        if !authorization.as_deref().is_none_or(is_header) {
            return wrong("the token has characters that no header may have");
        }
        if !options.tenant.as_deref().is_none_or(|tenant| is_header(tenant) && !tenant.is_empty()) {
            return wrong("the tenant is empty, or has characters that no header may have");
        }
        Ok(Self {
            agent: agent(options.timeout),
            protocol,
            address: url,
            authorization,
            tenant: options.tenant.clone(),
            labels: labels(options, protocol)?,
        })
    }

    /// What this server wants of columns that only grow.
    pub(super) fn counting(&self) -> Counting {
        match self.protocol {
            Protocol::Push | Protocol::Ingest => Counting::SinceLast,
            Protocol::Parca => Counting::SinceStart,
        }
    }

    /// Wraps a profile.
    pub(super) fn parcel(&self, profile: &Profile, bytes: Vec<u8>) -> Parcel {
        let label = |name: &str, value: &str| Label { name: name.to_owned(), value: value.to_owned() };
        let own = self.labels.iter().map(|(name, value)| label(name, value));
        let sample = |raw_profile| RawSample { raw_profile, id: uuid() };
        match self.protocol {
            Protocol::Push => {
                // `__delta__`: the server is not to subtract, that is done.
                let mut labels = vec![label("__name__", metric(profile.kind)), label("__delta__", "false")];
                labels.extend(own);
                let series = vec![PyroscopeSeries { labels, samples: vec![sample(bytes)] }];
                Parcel { body: PyroscopeRequest { series }.encode_to_vec(), query: String::new() }
            }
            Protocol::Parca => {
                let mut labels = vec![label("__name__", metric(profile.kind))];
                labels.extend(own);
                let samples = vec![RawSample { raw_profile: bytes, id: String::new() }];
                let series = vec![ParcaSeries { labels: Some(LabelSet { labels }), samples }];
                let message = ParcaRequest { series, normalized: false }.encode_to_vec();
                let mut body = vec![0];
                body.extend_from_slice(&(message.len() as u32).to_be_bytes());
                body.extend_from_slice(&message);
                Parcel { body, query: String::new() }
            }
            Protocol::Ingest => Parcel { body: bytes, query: self.query(profile) },
        }
    }

    /// What `/ingest` is told: who, and of which time.
    fn query(&self, profile: &Profile) -> String {
        let service = self.labels.iter().find(|(name, _)| name == "service_name").map_or("", |(_, value)| value);
        let others: Vec<_> = self.labels.iter().filter(|(name, _)| name != "service_name").collect();
        let others: Vec<_> = others.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let until = when::unix_ms(profile.taken) / 1000;
        let from = until.saturating_sub(profile.duration.unwrap_or_default().as_secs());
        format!(
            "?name={}&from={from}&until={until}&format=pprof&spyName=freestone",
            escaped(&format!("{service}{{{}}}", others.join(",")))
        )
    }

    /// Sends it, and waits for the answer, both for a bounded time.
    pub(super) fn send(&self, parcel: &Parcel) -> Answer {
        let mut request = self.agent.post(format!("{}{}", self.address, parcel.query));
        request = match self.protocol {
            Protocol::Push => request.header(header::CONTENT_TYPE, "application/proto").header("Connect-Protocol-Version", "1"),
            Protocol::Ingest => request.header(header::CONTENT_TYPE, "application/octet-stream"),
            Protocol::Parca => request
                .header(header::CONTENT_TYPE, "application/grpc-web+proto")
                .header(header::ACCEPT, "application/grpc-web+proto")
                .header("X-Grpc-Web", "1"),
        };
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        if let Some(tenant) = &self.tenant {
            request = request.header("X-Scope-OrgID", tenant);
        }
        let mut response = match request.send(&parcel.body[..]) {
            Ok(response) => response,
            Err(error) => return Answer::Later(format!("{}: {}", self.address, in_words(&error)), None),
        };
        let mut body = Vec::new();
        // An answer that breaks off says as much as has come; what it is about stands at its beginning.
        let read = response.body_mut().as_reader().take(ANSWER_BYTES_MAX).read_to_end(&mut body);
        self.judge(&response, &body, read.is_ok())
    }

    fn judge<B>(&self, response: &Response<B>, body: &[u8], is_whole: bool) -> Answer {
        let status = response.status();
        let why = |rest: &str| format!("{} answered {}{rest}", self.address, status.as_u16());
        if status.is_success() {
            return if self.protocol == Protocol::Parca { self.judge_grpc(response, body, is_whole) } else { Answer::Taken };
        }
        if status.is_redirection() {
            let to = response.headers().get(header::LOCATION).map(header::HeaderValue::as_bytes).unwrap_or_default();
            return Answer::Never(why(&format!(" and points to{}; redirects are not followed", quoted(to))));
        }
        let why = why(&quoted(body));
        let is_passing =
            status.is_server_error() || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
        if !is_passing {
            return Answer::Never(why);
        }
        let after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Answer::Later(why, after.and_then(|after| when::retry_after(after, SystemTime::now())))
    }

    /// What a server of gRPC says with a 200: the status stands in a header when there is nothing else, or in the last frame.
    fn judge_grpc<B>(&self, response: &Response<B>, body: &[u8], is_whole: bool) -> Answer {
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (status, message) = match header("grpc-status") {
            Some(status) => (Some(status), header("grpc-message")),
            None => trailers(body),
        };
        let Some(status) = status.and_then(|status| status.trim().parse::<u32>().ok()) else {
            let how = if is_whole { "" } else { " in time" };
            return Answer::Later(format!("{} answered nothing{how} that Parca would: is this one?", self.address), None);
        };
        let why = || format!("{} answered status {status}{}", self.address, quoted(message.unwrap_or_default().as_bytes()));
        match status {
            0 => Answer::Taken,
            // Deadline exceeded, resource exhausted, aborted, unavailable.
            4 | 8 | 10 | 14 => Answer::Later(why(), None),
            _ => Answer::Never(why()),
        }
    }
}

/// Status and message in the last frame of gRPC-Web: frames of a byte of flags, four of length, and what they are of; the one with the highest flag
/// set has lines as headers do.
fn trailers(mut body: &[u8]) -> (Option<String>, Option<String>) {
    while let Some((&[flags, a, b, c, d], rest)) = body.split_first_chunk::<5>() {
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let Some(frame) = rest.get(..length) else { break };
        body = &rest[length..];
        if flags & 0x80 == 0 {
            continue;
        }
        let text = String::from_utf8_lossy(frame);
        let find = |wanted: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim().to_owned())
        };
        return (find("grpc-status"), find("grpc-message"));
    }
    (None, None)
}

fn agent(timeout: Duration) -> Agent {
    let mut config = Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        // The answer that says where to is what we want to see: whoever is there is not to have the credentials.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .max_idle_connections(1)
        .max_idle_connections_per_host(1)
        .input_buffer_size(BUFFER_BYTES)
        .output_buffer_size(BUFFER_BYTES)
        .max_response_header_size(BUFFER_BYTES)
        .user_agent(concat!("freestone/", env!("CARGO_PKG_VERSION")));
    if crate::init::has_others_rights() {
        // Whoever starts a program with more rights than his own does not say where its profiles go.
        config = config.proxy(None);
    }
    #[cfg(feature = "continuous-tls")]
    {
        // Servers of one's own have certificates of one's own, which the system knows.
        let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build();
        config = config.tls_config(tls);
    }
    config.build().into()
}

/// What went wrong before there was an answer.
fn in_words(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Timeout(_) => "no answer in time".to_owned(),
        ureq::Error::Io(error) => error.to_string(),
        ureq::Error::HostNotFound => "there is no host of that name".to_owned(),
        ureq::Error::ConnectionFailed => "nobody listens there".to_owned(),
        other => quoted(other.to_string().as_bytes()).trim_start_matches(": ").to_owned(),
    }
}

/// What somebody else said, fit for one line: bounded, and without control characters.
fn quoted(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let text = text.trim();
    if text.is_empty() {
        return String::new();
    }
    let mut said: String = text.chars().take(MESSAGE_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(MESSAGE_CHARS_MAX).is_some() {
        said.push('…');
    }
    format!(": {said}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Builder;

    fn server(address: &str, options: &PushOptions) -> Server {
        Server::new(address, options).unwrap_or_else(|error| panic!("{address}: {error}"))
    }

    #[test]
    fn addresses_say_what_is_there() {
        for (address, protocol, url) in [
            ("http://host", Protocol::Push, "http://host/push.v1.PusherService/Push"),
            ("http://host:4040/", Protocol::Push, "http://host:4040/push.v1.PusherService/Push"),
            ("http://host/a/b/", Protocol::Push, "http://host/a/b/push.v1.PusherService/Push"),
            ("http://host/push.v1.PusherService/Push", Protocol::Push, "http://host/push.v1.PusherService/Push"),
            ("http://host/ingest", Protocol::Ingest, "http://host/ingest"),
            ("http://host/a/ingest/", Protocol::Ingest, "http://host/a/ingest"),
            (
                "parca+http://[::1]:7070",
                Protocol::Parca,
                "http://[::1]:7070/api/parca.profilestore.v1alpha1.ProfileStoreService/WriteRaw",
            ),
            (
                "parca+http://host/under",
                Protocol::Parca,
                "http://host/under/api/parca.profilestore.v1alpha1.ProfileStoreService/WriteRaw",
            ),
        ] {
            let server = server(address, &PushOptions::new());
            assert_eq!((server.protocol, server.address.as_str()), (protocol, url), "{address}");
            assert_eq!(server.authorization, None);
        }
    }

    #[test]
    fn who_asks_stands_in_the_address_or_in_options_and_nowhere_else() {
        let server = server("http://me:p%40ss@host", &PushOptions::new());
        assert_eq!(server.authorization.as_deref(), Some("Basic bWU6cEBzcw=="));
        assert!(!server.address.contains("ss"), "{}", server.address);
        let options = PushOptions::new().bearer("token");
        assert_eq!(self::server("http://me:x@host", &options).authorization.as_deref(), Some("Bearer token"));
        let options = PushOptions::new().basic_auth("a", "b:c");
        assert_eq!(self::server("http://host", &options).authorization.as_deref(), Some("Basic YTpiOmM="));
        assert!(!format!("{options:?}").contains("b:c"));
    }

    #[test]
    fn what_is_no_address_is_said_without_repeating_it() {
        for address in [
            "",
            "host:4040",
            "ftp://secret@host",
            "http://",
            "http://:4040",
            "http://secret@",
            "http://host/?secret=1",
            "http://secret%zz@host",
            "parca+host:7070",
            "http://ho st",
            "http://host:99999",
        ] {
            match Server::new(address, &PushOptions::new()) {
                Err(error @ StartError::Address(_)) => assert!(!error.to_string().contains("secret"), "{error}"),
                other => panic!("{address}: {:?}", other.map(|server| server.address)),
            }
        }
        let https = Server::new("https://host", &PushOptions::new());
        assert_eq!(https.is_ok(), cfg!(feature = "continuous-tls"));
    }

    #[test]
    fn labels_that_servers_would_refuse_are_refused_here() {
        let options = PushOptions::new;
        for wrong in [
            options().label("", "x"),
            options().label("1a", "x"),
            options().label("a-b", "x"),
            options().label("__name__", "x"),
            options().label("a", ""),
            options().label("a", "x\r\ny"),
            options().label("a", &"x".repeat(2000)),
            options().kinds(&[]),
            options().waiting(0, 1),
            options().tenant("a\nb"),
            options().tenant(""),
            options().bearer("a\r\nX: y"),
        ] {
            let error = Server::new("http://host", &wrong).err().map(|error| error.to_string());
            assert!(error.as_deref().is_some_and(|error| !error.contains(['\r', '\n'])), "{wrong:?}: {error:?}");
        }
        assert!(Server::new("http://host", &options().label("a", "x,y=z")).is_ok());
        assert!(Server::new("http://host/ingest", &options().label("a", "x,y=z")).is_err());
        assert!(Server::new("http://host/ingest", &options().kinds(&[Kind::Peak])).is_err());
        let twice = server("http://host", &options().service("one").service("two"));
        assert_eq!(twice.labels, [("service_name".to_owned(), "two".to_owned())]);
        let none = server("http://host", &options());
        assert_eq!(none.labels[0].0, "service_name");
        assert!(!none.labels[0].1.is_empty());
    }

    #[test]
    fn a_profile_is_wrapped_as_each_server_wants_it() {
        let mut profile = Builder::new(Kind::Heap).finish();
        profile.taken = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        profile.duration = Some(Duration::from_secs(15));
        let options = PushOptions::new().service("or ders").label("region", "eu-1");
        let pairs = |labels: &[Label]| labels.iter().map(|l| format!("{}={}", l.name, l.value)).collect::<Vec<_>>().join(" ");

        let parcel = server("http://host", &options).parcel(&profile, vec![1, 2, 3]);
        let request = PyroscopeRequest::decode(&parcel.body[..]).expect("it is one");
        let series = &request.series[0];
        assert_eq!(pairs(&series.labels), "__name__=memory __delta__=false service_name=or ders region=eu-1");
        assert_eq!(series.samples[0].raw_profile, [1, 2, 3]);
        let id = &series.samples[0].id;
        assert_eq!((id.len(), id.matches('-').count(), &id[14..15]), (36, 4, "4"), "{id}");
        assert!("89ab".contains(&id[19..20]), "{id}");

        let parcel = server("parca+http://host", &options).parcel(&profile, vec![1, 2, 3]);
        assert_eq!(parcel.body[..5], [0, 0, 0, 0, (parcel.body.len() - 5) as u8]);
        let request = ParcaRequest::decode(&parcel.body[5..]).expect("it is one");
        let labels = request.series[0].labels.as_ref().expect("it has some");
        assert_eq!(pairs(&labels.labels), "__name__=memory service_name=or ders region=eu-1");
        assert_eq!(request.series[0].samples[0].raw_profile, [1, 2, 3]);

        let parcel = server("http://host/ingest", &options).parcel(&profile, vec![1, 2, 3]);
        assert_eq!(parcel.body, [1, 2, 3]);
        let name = "?name=or%20ders%7Bregion%3Deu-1%7D";
        assert_eq!(parcel.query, format!("{name}&from=985&until=1000&format=pprof&spyName=freestone"));
    }

    fn answer(address: &str, status: u16, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut response = Response::builder().status(status);
        for (name, value) in headers {
            response = response.header(*name, *value);
        }
        server(address, &PushOptions::new()).judge(&response.body(()).expect("it is an answer"), body, true)
    }

    #[test]
    fn answers_are_taken_for_what_they_mean() {
        assert_eq!(answer("http://h", 200, &[], b"{}"), Answer::Taken);
        assert_eq!(answer("http://h", 204, &[], b""), Answer::Taken);
        for status in [408, 429, 500, 502, 503, 504, 599] {
            assert!(matches!(answer("http://h", status, &[], b"wait"), Answer::Later(_, None)), "{status}");
        }
        for status in [301, 304, 307, 400, 401, 403, 404, 413, 415, 422] {
            assert!(matches!(answer("http://h", status, &[], b"no"), Answer::Never(_)), "{status}");
        }
        let later = answer("http://h", 429, &[("retry-after", "7")], b"slow\r\ndown\x1b[31m");
        let Answer::Later(why, Some(after)) = later else { panic!("{later:?}") };
        assert_eq!(after, Duration::from_secs(7));
        assert!(why.ends_with("answered 429: slow\\r\\ndown\\u{1b}[31m"), "{why}");
        let Answer::Never(why) = answer("http://h", 307, &[("location", "http://elsewhere/")], b"") else { panic!() };
        assert!(why.contains("points to: http://elsewhere/; redirects are not followed"), "{why}");
        let Answer::Never(why) = answer("http://h", 400, &[], &[b'x'; 4000]) else { panic!() };
        assert!(why.chars().count() < 300, "{why}");
    }

    #[test]
    fn answers_of_grpc_are_in_their_last_frame() {
        let parca = |headers: &[(&str, &str)], body: &[u8]| answer("parca+http://h", 200, headers, body);
        let frame = |flags: u8, text: &str| [&[flags, 0, 0, 0, text.len() as u8], text.as_bytes()].concat();
        let ok = [frame(0, ""), frame(0x80, "grpc-status: 0\r\ngrpc-message: \r\n")].concat();
        assert_eq!(parca(&[], &ok), Answer::Taken);
        assert_eq!(parca(&[("grpc-status", "0")], b""), Answer::Taken);
        assert!(matches!(parca(&[("grpc-status", "14")], b""), Answer::Later(..)));
        let Answer::Never(why) = parca(&[], &frame(0x80, "Grpc-Status:3\r\nGrpc-Message:bad labels\r\n")) else { panic!() };
        assert!(why.ends_with("answered status 3: bad labels"), "{why}");
        for garbage in [&b""[..], b"<html>", &frame(0x80, "nothing"), &frame(0, "x"), &[0x80, 255, 255, 255, 255, 1], &ok[..12]] {
            assert!(matches!(parca(&[], garbage), Answer::Later(..)), "{garbage:?}");
        }
    }
}
