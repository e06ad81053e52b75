//! What nobody should send to a server is answered or hung up on, and leaves no memory behind: in a process of its own, because it looks at all of
//! the process's.

mod client;
#[path = "../src/random.rs"]
mod random;

use client::{get, say};
use freestone::Freestone;
use freestone_stats::http::{self, Server};
use random::Random;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

fn server() -> Server {
    http::serve("127.0.0.1:0").expect("the loopback can be had")
}

fn bytes(random: &mut Random, count: usize) -> Vec<u8> {
    (0..count).map(|_| random.next() as u8).collect()
}

#[test]
fn whatever_is_said_is_answered_or_hung_up_on() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| u64::from(std::process::id()));
    println!("SEED={seed}");
    let mut random = Random(seed);
    let server = server();
    let at = server.address();
    let whole = b"GET /debug/freestone/stats?format=json HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let before = client::resident();
    for round in 0..400 {
        let request = hostile(&mut random, whole);
        // Nobody waits for a head that will not come.
        let mut stream = client::connect(at);
        let _ = std::io::Write::write_all(&mut stream, &request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let said = client::hear(&mut stream);
        if let Some(answer) = client::parse(&said) {
            let is_right = answer.status < 500 || answer.status == 505;
            assert!(is_right, "round {round}: {answer:?} to {:?}", String::from_utf8_lossy(&request));
        }
    }
    for path in [
        "/debug/freestone/stats?format=",
        "/debug/freestone/ledger?format=json&format=<script>",
        "/metrics?%00=%ff",
        "/?x",
        "/debug/freestone/ui?a=b",
        "/debug/freestone/flame?profile=allocs",
        "/debug/freestone/flame?profile=heap%00",
        "/debug/pprof/heap?format=%3Cscript%3E",
    ] {
        let refused = get(at, path, &[]);
        assert_eq!(refused.status, 400, "{path}: {refused:?}");
        assert!(!refused.body.contains("script"), "nothing is repeated: {}", refused.body);
    }
    let long = format!("GET /debug/freestone/stats?{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(1 << 20));
    let headers: Vec<String> = (0..10_000).map(|number| format!("x-{number}: {number}\r\n")).collect();
    let headers = headers.concat();
    let many = format!("GET / HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n");
    for large in [long, many] {
        let answer = client::parse(&say(at, large.as_bytes()));
        assert!(answer.is_none_or(|answer| matches!(answer.status, 400 | 414 | 431)), "too large and taken");
    }
    assert!(client::resident() < before + (8 << 20), "{} bytes before, {} after", before, client::resident());
    assert_eq!(get(at, "/debug/freestone/stats.json", &[]).status, 200);
}

/// A request that nobody should send.
fn hostile(random: &mut Random, whole: &[u8]) -> Vec<u8> {
    match random.below(7) {
        // Noise.
        0 => {
            let count = random.below(3000);
            bytes(random, count)
        }
        // A request with some bytes changed.
        1 => {
            let mut request = whole.to_vec();
            for _ in 0..=random.below(6) {
                let at = random.below(request.len());
                request[at] = random.next() as u8;
            }
            request
        }
        // The beginning of one.
        2 => whole[..random.below(whole.len())].to_vec(),
        // A query of noise that is legal to send.
        3 => {
            let letters = b"abc%&=?;+/\\'\"<>{}[]0123456789.format=json";
            let query: Vec<u8> = (0..random.below(2000)).map(|_| letters[random.below(letters.len())]).collect();
            [b"GET /debug/freestone/classes?", &query[..], b" HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"].concat()
        }
        // The same for profiles, which know more words.
        4 => {
            let kind = ["heap", "delta", "peak", "contention", "symbol", "nothing"][random.below(6)];
            let words = [
                "debug=",
                "seconds=0",
                "gc=",
                "format=",
                "sample_index=",
                "names=",
                "top",
                "svg",
                "&",
                "=",
                "-1",
                "%",
                "0x",
                "+",
                "99999999999999999999",
            ];
            let query: String = (0..random.below(12)).map(|_| words[random.below(words.len())]).collect();
            format!("GET /debug/pprof/{kind}?{query} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").into_bytes()
        }
        // Names for noise.
        5 => {
            let count = random.below(3000);
            let head = format!(
                "POST /debug/pprof/symbol HTTP/1.1\r\nhost: localhost\r\ncontent-length: {count}\r\nconnection: close\r\n\r\n"
            );
            [head.as_bytes(), &bytes(random, count)].concat()
        }
        // Several in one, the last one cut off.
        _ => {
            let several = [whole, whole].concat();
            several[..several.len() - 1 - random.below(whole.len() - 1)].to_vec()
        }
    }
}
