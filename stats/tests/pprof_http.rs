//! `/debug/pprof/` on a program that runs on Freestone: this one. Each address in each of its forms, with the headers and the words of Go's; what is
//! refused; differences, which wait and hold nobody up; names for addresses.

mod client;

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use axum::Router;
use client::{ask, ask_bytes, get};
use freestone::{Freestone, control};
use freestone_stats::http::{self, Server};
use freestone_stats::profile::pprof;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// Long: it only ends tests that would hang.
const PATIENCE: Duration = Duration::from_mins(1);

fn server() -> Server {
    http::serve("127.0.0.1:0").expect("the loopback can be had")
}

/// Differences are waited for by eight at most: tests with some take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Blocks of a site that nobody else has. Freestone is called by its name, so the site is this function whatever the optimiser does.
#[inline(never)]
fn planted_site(blocks: usize, block_bytes: usize) {
    static KEPT: AtomicUsize = AtomicUsize::new(0);
    let layout = Layout::from_size_align(block_bytes, 8).expect("a size");
    for _ in 0..blocks {
        // SAFETY: the layout is of more than nothing.
        let block = unsafe { GLOBAL.alloc(layout) };
        assert!(!block.is_null());
        // Relaxed: nobody reads what it says.
        KEPT.store(black_box(block).addr(), Ordering::Relaxed);
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const KINDS: [&str; 6] = ["heap", "allocs", "peak", "lifetimes", "fragmentation", "contention"];

#[test]
fn every_profile_comes_in_every_form() {
    control::set_sample_interval(4096);
    planted_site(200, 4096);
    let server = server();
    let at = server.address();
    for kind in KINDS {
        let (head, body) = ask_bytes(at, "GET", &format!("/debug/pprof/{kind}"), &[], b"");
        assert_eq!((head.status, head.header("content-type")), (200, "application/octet-stream"), "{kind}");
        assert_eq!(head.header("content-disposition"), format!("attachment; filename=\"{kind}\""));
        assert_eq!((head.header("x-content-type-options"), head.header("cache-control")), ("nosniff", "no-store"), "{kind}");
        assert_eq!(head.header("x-go-pprof"), "", "{kind} is no error");
        let profile = pprof::decode(&body).unwrap_or_else(|error| panic!("{kind}: {error}"));
        assert!(profile.function.is_empty(), "names are asked for later");
        assert!(kind == "contention" || kind == "fragmentation" || !profile.sample.is_empty(), "{kind} is empty");

        for (query, content_type, word) in [
            ("debug=1", TEXT, "# "),
            ("debug=2", TEXT, " estimated"),
            ("format=folded", TEXT, ""),
            ("format=top", TEXT, kind),
            ("format=json", "application/json", "\"freestone-profile/1\""),
            ("format=svg", "image/svg+xml", "<svg"),
        ] {
            let answer = get(at, &format!("/debug/pprof/{kind}?{query}"), &[]);
            assert_eq!((answer.status, answer.header("content-type")), (200, content_type), "{kind} {query}");
            assert!(answer.body.contains(word), "no {word} in {kind} {query}: {}", answer.body);
            assert_eq!(answer.header("content-disposition"), "", "{query} is read in the browser");
        }
    }
    let (_, named) = ask_bytes(at, "GET", "/debug/pprof/heap?names=1", &[], b"");
    let named = pprof::decode(&named).expect("a profile");
    assert!(named.string_table.iter().any(|text| text.contains("planted_site")), "{:?}", named.string_table);
    // A picture may run its own script, away from everything else.
    let picture = get(at, "/debug/pprof/heap?format=svg", &[]);
    assert!(picture.header("content-security-policy").starts_with("sandbox allow-scripts; default-src 'none'"), "{picture:?}");
    for (column, other) in [("alloc_space", "inuse_space"), ("inuse_objects", "alloc_space")] {
        let top = get(at, &format!("/debug/pprof/heap?format=top&sample_index={column}"), &[]).body;
        assert!(top.contains(column) && !top.contains(other), "{top}");
    }
}

#[test]
fn text_has_exact_totals_beside_estimates() {
    control::set_sample_interval(4096);
    planted_site(200, 4096);
    let server = server();
    let text = get(server.address(), "/debug/pprof/heap?debug=1", &[]).body;
    assert!(text.starts_with("heap profile: "), "{text}");
    assert!(text.lines().next().is_some_and(|line| line.ends_with(" @ heapprofile")), "{text}");
    for column in ["alloc_objects", "alloc_space", "inuse_objects", "inuse_space"] {
        let line = text.lines().find(|line| line.starts_with(&format!("# {column}: "))).expect("a line");
        let numbers: Vec<f64> = line.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [estimate, error, exact] = numbers[..] else { panic!("{line}") };
        assert!(estimate > 0.0 && exact > 0.0 && error > 0.0, "{line}");
    }
    let is_planted = |site: &&str| site.contains("planted_site") && site.contains("blocks of 4096 bytes") && site.contains(" ± ");
    assert!(text.split("\n\n").any(|site| is_planted(&site)), "the site is not there: {text}");
}

#[test]
fn the_index_tells_what_there_is() {
    control::set_sample_interval(4096);
    planted_site(20, 4096);
    let server = server();
    let at = server.address();
    let moved = get(at, "/debug/pprof", &[]);
    assert_eq!((moved.status, moved.header("location")), (301, "pprof/"));
    let text = get(at, "/debug/pprof/", &[]);
    assert_eq!((text.status, text.header("content-type")), (200, TEXT));
    let html = get(at, "/debug/pprof/", &["accept: text/html"]);
    assert_eq!((html.status, html.header("content-type")), (200, "text/html; charset=utf-8"));
    for kind in KINDS {
        let line = text.body.lines().find(|line| line.split_whitespace().nth(1) == Some(kind));
        let line = line.unwrap_or_else(|| panic!("no {kind}: {}", text.body));
        let count: Option<u64> = line.split_whitespace().next().and_then(|count| count.parse().ok());
        assert!(count.is_some_and(|count| count > 0 || kind == "contention"), "{line}");
        assert!(html.body.contains(&format!("<a href=\"{kind}?debug=1\">{kind}</a>")), "{}", html.body);
    }
    // Whatever is linked is there.
    for link in
        html.body.split("href=\"").skip(1).filter_map(|rest| rest.split('"').next()).filter(|link| !link.starts_with("data:"))
    {
        if !link.starts_with("delta") {
            let (head, _) = ask_bytes(at, "GET", &format!("/debug/pprof/{link}"), &[], b"");
            assert_eq!(head.status, 200, "{link}");
        }
    }
    assert!(get(at, "/", &[]).body.contains("/debug/pprof/"));
    assert_eq!(get(at, "/debug/pprof/?a=b", &[]).status, 400);
}

#[test]
fn what_is_not_understood_is_refused_in_the_way_of_go() {
    let server = server();
    let at = server.address();
    for (path, status, word) in [
        ("heap?seconds=0", 400, "invalid value for \"seconds\" - must be a positive integer"),
        ("heap?seconds=-5", 400, "invalid value for \"seconds\" - must be a positive integer"),
        ("heap?seconds=x", 400, "invalid value for \"seconds\" - must be a positive integer"),
        ("heap?seconds=3601", 400, "at most 3600"),
        ("heap?seconds=1&debug=1", 400, "seconds and debug params are incompatible"),
        ("delta?debug=1", 400, "seconds and debug params are incompatible"),
        ("peak?seconds=1", 400, "\"seconds\" parameter is not supported for this profile type"),
        ("heap?format=xml", 400, "must be one of pprof, folded, svg, json, top"),
        ("heap?debug=%3Cscript%3E", 400, "must be an integer"),
        ("heap?a=%00%ff", 400, "is not understood"),
        ("contention?format=top&sample_index=inuse_space", 400, "must be one of contentions, delay"),
        ("cmdline?debug=1", 400, "takes no parameters"),
        ("profile?seconds=5", 404, "no profile of processor time"),
        ("trace", 404, "no traces"),
        ("goroutine?debug=2", 404, "no profiles of threads"),
        ("threadcreate", 404, "no profiles of threads"),
        ("mutex", 404, "no profiles of the program's locks"),
        ("block", 404, "no profiles of the program's locks"),
        ("nothing", 404, "Unknown profile"),
        ("heap/", 404, "Unknown profile"),
        ("../../etc/passwd", 404, "Unknown profile"),
    ] {
        let refused = get(at, &format!("/debug/pprof/{path}"), &[]);
        assert_eq!(refused.status, status, "{path}: {refused:?}");
        assert_eq!((refused.header("x-go-pprof"), refused.header("content-type")), ("1", TEXT), "{path}");
        assert_eq!(refused.header("x-content-type-options"), "nosniff", "{path}");
        assert!(refused.body.contains(word), "{path}: {}", refused.body);
        assert_eq!(refused.body.lines().count(), 1, "{path}: one sentence");
        assert!(!refused.body.contains("script"), "nothing is repeated: {}", refused.body);
    }
    for path in ["heap", "cmdline", ""] {
        let refused = ask(at, "POST", &format!("/debug/pprof/{path}"), &["content-length: 0"]);
        assert_eq!((refused.status, refused.header("allow")), (405, "GET, HEAD, OPTIONS"), "{path}");
        let (with_body, _) = ask_bytes(at, "GET", &format!("/debug/pprof/{path}"), &[], b"abc");
        assert_eq!(with_body.status, 413, "{path}");
    }
    let (head, body) = ask_bytes(at, "HEAD", "/debug/pprof/heap", &[], b"");
    assert_eq!((head.status, head.header("content-type"), body.len()), (200, "application/octet-stream", 0));
}

#[test]
fn memory_goes_back_first_if_that_is_asked_for() {
    let server = server();
    let at = server.address();
    let releases = || get(at, "/debug/freestone/stats.json", &[]).json()["heap"]["bytes"]["dirty"].as_u64().expect("a number");
    // Others free and release meanwhile: of a few tries, one finds what it left.
    let found = (0..20).any(|_| {
        let blocks: Vec<Vec<u8>> = (0..1000).map(|_| vec![7; 20_000]).collect();
        drop(blocks);
        let before = releases();
        let (head, _) = ask_bytes(at, "GET", "/debug/pprof/heap?gc=1", &[], b"");
        assert_eq!(head.status, 200);
        before > 4 << 20 && releases() < before / 2
    });
    assert!(found, "nothing was given back");
    for other in ["sec-fetch-site: cross-site", "sec-fetch-site: same-site", "origin: https://evil.example"] {
        for query in ["gc=1", "gc=1&debug=1", "seconds=3600"] {
            let refused = get(at, &format!("/debug/pprof/heap?{query}"), &[other]);
            assert_eq!((refused.status, refused.header("x-go-pprof")), (403, "1"), "{query} {other}");
            assert!(refused.body.contains("another site"), "{}", refused.body);
        }
        assert_eq!(ask_bytes(at, "POST", "/debug/pprof/symbol", &[other], b"0x10").0.status, 403, "{other}");
    }
    // What changes nothing may be linked to.
    assert_eq!(ask_bytes(at, "GET", "/debug/pprof/heap?gc=0", &["sec-fetch-site: cross-site"], b"").0.status, 200);
}

#[test]
fn a_difference_has_what_happened_meanwhile_and_holds_nobody_up() {
    let _turn = turn();
    control::set_sample_interval(4096);
    planted_site(500, 2048);
    let server = server();
    let at = server.address();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let (head, body) = std::thread::scope(|scope| {
        let asking = scope.spawn(|| ask_bytes(at, "GET", "/debug/pprof/allocs?seconds=2", &[], b""));
        // Relaxed: whoever sees it a little later plants a little more.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                planted_site(1, 1024);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        // The one thread of the server answers others while one waits.
        let mut answers = 0;
        while !asking.is_finished() {
            assert_eq!(get(at, "/debug/pprof/symbol", &[]).body, "num_symbols: 1\n");
            answers += 1;
        }
        stop.store(true, Ordering::Relaxed);
        assert!(answers > 3, "others waited");
        asking.join().expect("an answer")
    });
    assert_eq!((head.status, head.header("content-disposition")), (200, "attachment; filename=\"allocs-delta\""));
    let profile = pprof::decode(&body).expect("a profile");
    assert!(profile.duration_nanos >= 2_000_000_000, "{}", profile.duration_nanos);
    let bytes_of = |size: i64| {
        let is_bytes = |label: &pprof::proto::Label| profile.string_table[label.key as usize] == "bytes" && label.num == size;
        let samples = profile.sample.iter().filter(|sample| sample.label.iter().any(is_bytes));
        samples.map(|sample| sample.value[1]).sum::<i64>()
    };
    assert!(bytes_of(1024) > 100 * 1024, "{} bytes of what was planted meanwhile", bytes_of(1024));
    assert!(bytes_of(2048) < 100 * 2048, "{} bytes of what was planted before", bytes_of(2048));
    let heap = ask_bytes(at, "GET", "/debug/pprof/delta?seconds=1", &[], b"");
    assert_eq!((heap.0.status, heap.0.header("content-disposition")), (200, "attachment; filename=\"heap-delta\""));
    assert!(get(at, "/debug/pprof/heap?seconds=1&format=top", &[]).body.contains("heap"), "other forms have differences, too");
}

#[test]
fn whoever_hangs_up_waits_no_more() {
    let _turn = turn();
    let server = server();
    let at = server.address();
    let wait = || {
        let mut stream = client::connect(at);
        write!(stream, "GET /debug/pprof/heap?seconds=3600 HTTP/1.1\r\nhost: {at}\r\n\r\n").expect("a server that listens");
        stream
    };
    let began = Instant::now();
    let is_full = || ask_bytes(at, "GET", "/debug/pprof/heap?seconds=1", &[], b"").0.status == 503;
    for _ in 0..2 {
        let waiting: Vec<_> = (0..8).map(|_| wait()).collect();
        while !is_full() {
            assert!(began.elapsed() < PATIENCE, "a ninth may wait");
        }
        let refused = get(at, "/debug/pprof/heap?seconds=1", &[]);
        assert_eq!((refused.status, refused.header("x-go-pprof")), (503, "1"));
        assert!(refused.body.contains("too many wait"), "{}", refused.body);
        assert_eq!(ask_bytes(at, "GET", "/debug/pprof/heap", &[], b"").0.status, 200, "others are answered");
        drop(waiting);
        while is_full() {
            assert!(began.elapsed() < PATIENCE, "places are lost");
        }
    }
}

#[test]
fn addresses_get_names() {
    let server = server();
    let at = server.address();
    let here = planted_site as fn(usize, usize) as usize;
    let lines = |body: &str| body.lines().map(str::to_owned).collect::<Vec<_>>();
    for answer in [
        get(at, &format!("/debug/pprof/symbol?{here:#x}+0x1+{:#x}+rubbish+", here + 1), &[]),
        ask_bytes_as_text(at, format!("{here:#x}+0x1+{:#x}+rubbish+", here + 1).as_bytes()),
    ] {
        assert_eq!((answer.status, answer.header("content-type")), (200, TEXT));
        let said = lines(&answer.body);
        assert_eq!(said.len(), 3, "{said:?}");
        assert_eq!(said[0], "num_symbols: 1");
        for (line, address) in said[1..].iter().zip([here, here + 1]) {
            assert!(line.starts_with(&format!("{address:#x} ")) && line.ends_with("pprof_http::planted_site"), "{line}");
        }
    }
    for nothing in ["/debug/pprof/symbol", "/debug/pprof/symbol?", "/debug/pprof/symbol?0x1+0xffffffffffffffffff+%00"] {
        assert_eq!(get(at, nothing, &[]).body, "num_symbols: 1\n", "{nothing}");
    }
    // The largest request, and one that is larger.
    let mut many = format!("{here:#x}+").repeat((1 << 20) / 20).into_bytes();
    many.resize(1 << 20, b'+');
    let answer = ask_bytes_as_text(at, &many);
    assert_eq!(answer.status, 200);
    assert!(answer.body.lines().count() > 50_000, "{} lines", answer.body.lines().count());
    many.push(b'+');
    assert_eq!(ask_bytes(at, "POST", "/debug/pprof/symbol", &[], &many).0.status, 413);
    let endless = ask(at, "POST", "/debug/pprof/symbol", &["transfer-encoding: chunked", "", "5", "hello", "zz"]);
    assert_eq!(endless.status, 413, "{endless:?}");
    for method in ["PUT", "DELETE"] {
        let refused = ask(at, method, "/debug/pprof/symbol", &[]);
        assert_eq!((refused.status, refused.header("allow")), (405, "GET, HEAD, POST, OPTIONS"), "{method}");
    }
}

fn ask_bytes_as_text(at: SocketAddr, body: &[u8]) -> client::Answer {
    let (head, said) = ask_bytes(at, "POST", "/debug/pprof/symbol", &["content-type: application/octet-stream"], body);
    client::Answer { body: String::from_utf8(said).expect("text"), ..head }
}

#[test]
fn the_command_line_is_as_go_tells_it() {
    let server = server();
    let answer = get(server.address(), "/debug/pprof/cmdline", &[]);
    assert_eq!((answer.status, answer.header("content-type")), (200, TEXT));
    let parts: Vec<String> = std::env::args().collect();
    assert_eq!(answer.body, parts.join("\0"));
}

#[test]
fn profiles_can_be_mounted_apart() {
    let alone = service(Router::new().merge(http::debug_router()));
    assert_eq!(get(alone.1, "/debug/pprof/", &[]).status, 404);
    assert!(!get(alone.1, "/debug/freestone", &[]).body.contains("/debug/pprof"), "what is not there is not told");
    let both = service(Router::new().merge(http::debug_router()).merge(http::pprof_router()));
    assert_eq!(ask_bytes(both.1, "GET", "/debug/pprof/heap", &[], b"").0.status, 200);
    assert_eq!(ask_bytes_as_text(both.1, b"0x10").body, "num_symbols: 1\n");
    assert_eq!(get(both.1, "/debug/pprof/nothing", &[]).header("x-go-pprof"), "1");
    let nested = service(Router::new().nest("/internal", http::router()));
    let (head, body) = ask_bytes(nested.1, "GET", "/internal/debug/pprof/heap?seconds=1", &[], b"");
    assert_eq!(head.status, 200);
    assert!(pprof::decode(&body).is_ok());
    assert!(get(nested.1, "/internal", &[]).body.contains("/internal/debug/pprof/"));
}

#[test]
fn a_runtime_without_a_timer_is_told_in_a_sentence() {
    let _turn = turn();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_io().build().expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("the loopback can be had");
    let at = listener.local_addr().expect("an address");
    runtime.spawn(async { axum::serve(listener, http::router()).await });
    let refused = get(at, "/debug/pprof/heap?seconds=1", &[]);
    assert_eq!(refused.status, 500);
    assert!(refused.body.contains("has no timer"), "{}", refused.body);
    assert_eq!(ask_bytes(at, "GET", "/debug/pprof/heap", &[], b"").0.status, 200);
}

/// A runtime with this service, and where it listens.
fn service(service: Router) -> (tokio::runtime::Runtime, SocketAddr) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("the loopback can be had");
    let address = listener.local_addr().expect("an address");
    runtime.spawn(async { axum::serve(listener, service).await });
    (runtime, address)
}
