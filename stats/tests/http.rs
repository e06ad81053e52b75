//! Everything over HTTP, on a program that runs on Freestone: this one. Each route in each of its forms, what is refused and how, and where
//! a server can be had.

mod client;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;

use axum::Router;
use axum::routing::get as route;
use client::{ask, get};
use freestone::Freestone;
use freestone_stats::http::{self, Builder, ServeError, Server};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

fn server() -> Server {
    http::serve("127.0.0.1:0").expect("the loopback can be had")
}

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";

#[test]
fn every_route_says_what_it_is_for() {
    let server = server();
    let at = server.address();
    let browser = "accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";
    for (path, accept, content_type, word) in [
        ("/", "accept: */*", TEXT, "  /debug/freestone/ledger  "),
        ("/", browser, HTML, "<a href=\"/debug/freestone/ui\">"),
        ("/debug/freestone", "accept: */*", TEXT, "/debug/freestone/ui"),
        ("/debug/freestone/", browser, HTML, "/debug/freestone/ui"),
        ("/debug/freestone/ui", "accept: */*", HTML, "<script nonce="),
        ("/debug/freestone/stats", "accept: */*", TEXT, "= committed"),
        ("/debug/freestone/ledger", "accept: */*", TEXT, "thread caches"),
        ("/debug/freestone/classes", "accept: */*", TEXT, "live blocks"),
        ("/debug/freestone/threads", "accept: */*", TEXT, "cached"),
        ("/debug/freestone/verdict", "accept: */*", TEXT, " confidence: "),
        ("/debug/freestone/config", "accept: */*", TEXT, "\nmemory_limit"),
        ("/debug/freestone/stats.json", "accept: */*", "application/json", "\"heap\":{"),
        ("/debug/freestone/stats?format=json", "accept: */*", "application/json", "\"heap\":{"),
    ] {
        let answer = get(at, path, &[accept]);
        assert_eq!(answer.status, 200, "{path}: {answer:?}");
        assert_eq!(answer.header("content-type"), content_type, "{path}");
        assert!(answer.body.contains(word), "no {word} at {path}: {}", answer.body);
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{path}");
        assert_eq!(answer.header("cache-control"), "no-store", "{path}");
        assert!(answer.header("content-security-policy").starts_with("default-src 'none'"), "{path}");
        assert_eq!(answer.header("access-control-allow-origin"), "", "no other site may read {path}");
    }
}

#[test]
fn forms_in_json_hold_their_part() {
    let server = server();
    let named = vec![7_u8; 200_000];
    for (name, is_whole) in [
        (
            "ledger",
            (|part| part.as_array().is_some_and(|lines| lines.iter().any(|line| line["key"] == "live")))
                as fn(&serde_json::Value) -> bool,
        ),
        ("classes", |part| part.as_array().is_some_and(|classes| classes.len() == freestone::CLASSES)),
        ("threads", serde_json::Value::is_array),
        ("verdict", serde_json::Value::is_object),
        ("config", |part| part["memory_limit"] == "none"),
    ] {
        let answer = get(server.address(), &format!("/debug/freestone/{name}?format=json"), &[]);
        assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{name}");
        let document = answer.json();
        assert_eq!(document["version"], freestone_stats::json::VERSION, "{name}");
        assert!(document["taken_unix_ms"].as_u64().is_some_and(|taken| taken > 1_700_000_000_000), "{name}");
        assert!(is_whole(&document[name]), "{name}: {document}");
    }
    let document = get(server.address(), "/debug/freestone/stats.json", &[]).json();
    assert!(document["heap"]["bytes"]["live"].as_u64().is_some_and(|live| live >= named.len() as u64), "{document}");
}

#[test]
fn metrics_come_in_the_form_that_is_asked_for() {
    let server = server();
    let scrape = |path: &str, accept: &str| get(server.address(), path, &[&format!("accept: {accept}")]);
    // What Prometheus 3 sends, and what Prometheus 2.45 does.
    for accept in [
        "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=0.0.1;q=0.5,\
         text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,\
         */*;q=0.1",
    ] {
        for path in ["/metrics", "/debug/freestone/metrics"] {
            let answer = scrape(path, accept);
            assert_eq!(answer.header("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8");
            assert!(answer.body.ends_with("\n# EOF\n"), "{}", answer.body);
            assert!(answer.body.contains("\n# TYPE freestone_allocations counter\n"), "{}", answer.body);
        }
    }
    for accept in ["*/*", "text/plain;version=0.0.4", "application/openmetrics-text;q=0, */*"] {
        let answer = scrape("/metrics", accept);
        assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8", "{accept}");
        assert!(!answer.body.contains("# EOF"), "{}", answer.body);
        assert!(answer.body.contains("\n# TYPE freestone_allocations_total counter\n"), "{}", answer.body);
    }
    assert!(scrape("/metrics?format=openmetrics", "*/*").body.ends_with("# EOF\n"));
    assert_eq!(scrape("/metrics?format=xml", "*/*").status, 400);
}

#[test]
fn methods_are_told_apart() {
    let server = server();
    let at = server.address();
    for path in ["/", "/metrics", "/debug/freestone/ledger", "/debug/freestone/ui"] {
        let [got, head] = ["GET", "HEAD"].map(|method| ask(at, method, path, &[]));
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{path}");
        assert_eq!(head.header("content-type"), got.header("content-type"), "{path}");
        let options = ask(at, "OPTIONS", path, &[]);
        assert_eq!((options.status, options.header("allow")), (204, "GET, HEAD, OPTIONS"), "{path}");
        for method in ["POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"] {
            let refused = ask(at, method, path, &[]);
            assert_eq!((refused.status, refused.header("allow")), (405, "GET, HEAD, OPTIONS"), "{method} {path}");
            assert!(refused.body.contains("GET"), "{}", refused.body);
        }
    }
    for method in ["GET", "HEAD", "PUT", "DELETE"] {
        let refused = ask(at, method, "/debug/freestone/release", &[]);
        assert_eq!((refused.status, refused.header("allow")), (405, "POST, OPTIONS"), "{method}");
    }
    for (path, status) in
        [("/favicon.ico", 404), ("/debug", 404), ("/debug/freestone/stats/", 404), ("/../etc/passwd", 404), ("/%2e%2e", 404)]
    {
        let refused = get(at, path, &[]);
        assert_eq!(refused.status, status, "{path}");
        assert!(!refused.body.contains("passwd"), "nothing is repeated: {}", refused.body);
    }
    let with_body = ask(at, "POST", "/debug/freestone/release", &["content-length: 3", "", "abc"]);
    assert_eq!(with_body.status, 413, "{with_body:?}");
    let endless = ask(at, "POST", "/debug/freestone/release", &["transfer-encoding: chunked", "", "5", "hello"]);
    assert_eq!(endless.status, 413, "{endless:?}");
}

#[test]
fn release_gives_back_and_no_other_site_can_ask_for_it() {
    let server = server();
    let at = server.address();
    let path = "/debug/freestone/release?format=json";
    let released = || {
        // Below what is given back at once by whoever frees it.
        let blocks: Vec<Vec<u8>> = (0..1000).map(|_| vec![7; 20_000]).collect();
        drop(blocks);
        let answer = ask(at, "POST", path, &["content-length: 0"]);
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["released_bytes"].as_u64().expect("a number")
    };
    // Others free and release meanwhile: of a few tries, one finds what it left.
    assert!((0..20).any(|_| released() >= 1 << 20), "nothing was given back");
    let text = ask(at, "POST", "/debug/freestone/release", &[]);
    assert!(text.body.contains("went back to the system"), "{}", text.body);

    let own = format!("origin: http://{at}");
    assert_eq!(ask(at, "POST", path, &[&own, "sec-fetch-site: same-origin"]).status, 200);
    assert_eq!(ask(at, "POST", path, &[&own]).status, 200);
    for other in ["sec-fetch-site: cross-site", "sec-fetch-site: same-site", "origin: https://evil.example", "origin: null"] {
        let refused = ask(at, "POST", path, &[other]);
        assert_eq!(refused.status, 403, "{other}");
        assert!(refused.body.contains("another site"), "{}", refused.body);
    }
}

#[test]
fn a_name_that_nobody_gave_it_is_refused() {
    let server = server();
    let at = server.address();
    for (host, status) in [
        ("localhost", 200),
        ("localhost:1", 200),
        ("127.0.0.1", 200),
        ("[::1]:6060", 200),
        ("10.1.2.3", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
        ("a b", 421),
    ] {
        for path in ["/", "/debug/freestone/stats.json", "/nothing"] {
            let wanted = if status == 200 && path == "/nothing" { 404 } else { status };
            assert_eq!(get(at, path, &[&format!("host: {host}")]).status, wanted, "{host} {path}");
        }
    }
    assert_eq!(get(at, "http://evil.example/", &["host: localhost"]).status, 421);
    assert_eq!(ask(at, "POST", "/debug/freestone/release", &["host: evil.example", "origin: http://evil.example"]).status, 421);

    let named = Builder::new().host("orders.internal").serve("127.0.0.1:0").expect("the loopback can be had");
    assert_eq!(get(named.address(), "/", &["host: Orders.Internal:80"]).status, 200);
    assert_eq!(get(named.address(), "/", &["host: evil.example"]).status, 421);
}

#[test]
fn an_address_that_cannot_be_had_is_told_in_a_sentence() {
    let server = server();
    let taken = server.address();
    let says = |address: &str| http::serve(address).expect_err(address).to_string();
    assert_eq!(
        says(&taken.to_string()),
        format!("{taken} is taken: another program, or another server of this one, listens there")
    );
    assert!(matches!(http::serve(taken), Err(ServeError::Bind { address, .. }) if address == taken));
    for remote in ["0.0.0.0:0", "[::]:0", "192.0.2.1:6060"] {
        assert!(says(remote).contains("can be reached from other machines"), "{}", says(remote));
        assert!(matches!(http::serve(remote), Err(ServeError::NotLoopback(_))), "{remote}");
    }
    for rubbish in ["", "6060", "127.0.0.1", "127.0.0.1:65536", "127.0.0.1:-1", "a b:1", "::1", "\0:1"] {
        assert!(says(rubbish).starts_with("this is no address to serve at"), "{rubbish}: {}", says(rubbish));
    }
    let elsewhere = Builder::new().allow_remote().serve("192.0.2.1:0").expect_err("not of this machine").to_string();
    assert!(elsewhere.starts_with("cannot listen at 192.0.2.1:0: "), "{elsewhere}");

    let everywhere = Builder::new().allow_remote().serve("0.0.0.0:0").expect("asked for");
    assert_eq!(get(SocketAddr::from(([127, 0, 0, 1], everywhere.address().port())), "/", &[]).status, 200);
    let by_name = http::serve("localhost:0").expect("a name of the loopback");
    assert_eq!(get(by_name.address(), "/", &[]).status, 200);
}

#[test]
fn a_server_ends_with_its_handle() {
    let server = server();
    let at = server.address();
    assert_eq!(get(at, "/", &[]).status, 200);
    drop(server);
    assert!(TcpStream::connect(at).is_err(), "it listens on");
    let again = http::serve(at).expect("the address is free again");
    assert_eq!(again.address(), at);
    again.detach();
    assert_eq!(get(at, "/", &[]).status, 200, "it runs on");
}

#[test]
fn its_thread_has_a_name_and_hears_no_signals() {
    let server = server();
    assert_eq!(get(server.address(), "/", &[]).status, 200);
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc can be read").flatten();
    let statuses = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok());
    let ours: Vec<String> = statuses.filter(|status| status.contains("Name:\tfreestone-http\n")).collect();
    assert!(!ours.is_empty());
    for status in ours {
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:\t")).expect("a mask");
        let blocked = u64::from_str_radix(blocked, 16).expect("a number");
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGCHLD, libc::SIGALRM] {
            assert!(blocked & 1 << (signal - 1) != 0, "signal {signal} in {blocked:x}");
        }
    }
}

#[test]
fn the_child_of_a_fork_drops_a_server_without_waiting_for_it() {
    let server = server();
    // SAFETY: the child only drops the server, which frees a few blocks, and leaves; Freestone can be used there.
    match unsafe { libc::fork() } {
        -1 => panic!("no fork: {}", std::io::Error::last_os_error()),
        0 => {
            // SAFETY: both are plain system calls. The first ends a child that waits for a thread that it does not have.
            unsafe { libc::alarm(20) };
            drop(server);
            // SAFETY: as above; nothing of the test harness runs in the child.
            unsafe { libc::_exit(0) };
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for the child above, into a place for its status.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0, "the child was ended by a signal");
            assert_eq!(get(server.address(), "/", &[]).status, 200, "the parent's server runs on");
        }
    }
}

/// A runtime with this service, and where it listens.
fn service(service: Router) -> (tokio::runtime::Runtime, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("the loopback can be had");
    let address = listener.local_addr().expect("an address");
    runtime.spawn(async { axum::serve(listener, service).await });
    (runtime, address)
}

#[test]
fn the_router_fits_into_a_service() {
    let (_runtime, at) = service(Router::new().route("/orders", route(|| async { "none" })).merge(http::router()));
    assert_eq!(get(at, "/orders", &[]).body, "none");
    assert!(get(at, "/debug/freestone/stats.json", &[]).json()["heap"]["allocations"].as_u64() > Some(0));
    assert_eq!(get(at, "/metrics", &[]).status, 200);
    assert_eq!(get(at, "/nothing", &[]).status, 404);
    assert_eq!(ask(at, "POST", "/debug/freestone/release", &["sec-fetch-site: cross-site"]).status, 403);
    assert_eq!(get(at, "/", &["host: orders.example"]).status, 200, "names are the service's affair");

    let own = Router::new().route("/", route(|| async { "own" })).route("/metrics", route(|| async { "own" }));
    let (_runtime, at) = service(own.merge(http::debug_router()));
    assert_eq!(get(at, "/", &[]).body, "own");
    assert_eq!(get(at, "/metrics", &[]).body, "own");
    assert!(get(at, "/debug/freestone", &[]).body.contains("/debug/freestone/ui"));
    assert!(get(at, "/debug/freestone/metrics", &[]).body.contains("freestone_allocations_total"));

    let (_runtime, at) = service(Router::new().nest("/internal", http::router()));
    let index = get(at, "/internal", &["accept: text/html"]);
    assert!(index.body.contains("href=\"/internal/debug/freestone/ui\""), "{}", index.body);
    assert_eq!(get(at, "/internal/debug/freestone/ui", &[]).status, 200);
    assert_eq!(get(at, "/internal/metrics", &[]).status, 200);
}

#[test]
fn many_who_ask_a_mounted_router_take_turns() {
    let (_runtime, at) = service(http::router());
    let clients: Vec<_> = (0..24).map(|_| std::thread::spawn(move || get(at, "/debug/freestone/ledger", &[]).status)).collect();
    for client in clients {
        assert_eq!(client.join().expect("a status"), 200);
    }
}

#[test]
fn the_environment_starts_a_server() {
    let run = |address: &str| {
        let mut child = Command::new(std::env::current_exe().expect("a path"));
        child.args(["--exact", "child_that_calls_init", "--ignored", "--nocapture", "--test-threads=1"]);
        let output = child.env("FREESTONE_HTTP", address).output().expect("a child");
        assert!(output.status.success(), "{output:?}");
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("text"))
    };
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("the loopback can be had");
    let [said, complaints] = run(&free.to_string());
    assert!(said.contains(&format!("{free} says 200")), "{said}");
    assert_eq!(complaints, "");
    for (address, complaint) in [
        ("0.0.0.0:6060", "0.0.0.0:6060 can be reached from other machines"),
        ("6060", "this is no address to serve at"),
        ("a\nb:1", "this is no address to serve at"),
    ] {
        let [said, complaints] = run(address);
        assert!(said.contains("says nothing"), "{said}");
        assert!(complaints.starts_with("freestone: FREESTONE_HTTP="), "{complaints}");
        assert!(complaints.contains(complaint), "{complaints}");
        assert_eq!(complaints.lines().count(), 1, "{complaints}");
    }
    let [said, complaints] = run("");
    assert!(said.contains("says nothing"), "{said}");
    assert_eq!(complaints, "");
}

#[test]
#[ignore = "runs as a child of the test before"]
fn child_that_calls_init() {
    freestone_stats::init();
    freestone_stats::init();
    match std::env::var("FREESTONE_HTTP").ok().and_then(|address| address.parse().ok()) {
        Some(address) if TcpStream::connect(address).is_ok() => println!("{address} says {}", get(address, "/", &[]).status),
        _ => println!("says nothing"),
    }
}
