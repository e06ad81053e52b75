//! The index: which addresses there are, and what each says.

use std::fmt::Write as _;

/// Where the profiles are, if they are mounted.
const PROFILES: &str = "/debug/pprof/";

/// Path, and what it is.
const ROUTES: [(&str, &str); 15] = [
    (
        "/debug/freestone/ui",
        "the live page: the heap over time, call sites as a flame graph, the verdict, every class and thread",
    ),
    ("/debug/freestone/stats", "the report: where every byte is, what was asked for, what took its time"),
    ("/debug/freestone/ledger", "every byte of the process in one line; takes about 10 ms for every 4 GiB"),
    ("/debug/freestone/classes", "every size class in use"),
    ("/debug/freestone/threads", "what each thread has cached, and what it allocated"),
    ("/debug/freestone/verdict", "what is going on, in words, and what to do about it"),
    ("/debug/freestone/tags", "what is on account of each tag"),
    (
        "/debug/freestone/leaks",
        "call sites that took memory in the last ten minutes that does not come back, and others that grew",
    ),
    ("/debug/freestone/advice", "call sites that allocate more than they need to, and what would save it"),
    ("/debug/freestone/config", "the options in force"),
    ("/debug/freestone/flame", "call sites as a tree of functions, in JSON; ?profile=peak, lifetimes, fragmentation, contention"),
    ("/debug/freestone/stats.json", "everything, in JSON; the others know ?format=json"),
    ("/debug/freestone/metrics", "for Prometheus: OpenMetrics, or its older text format, as it asks"),
    (PROFILES, "profiles: which call sites have the memory; for go tool pprof, and as text"),
    ("/debug/freestone/release", "POST: gives free memory back to the system, and says how much"),
];

/// What a router may have mounted besides.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Profiles {
    Here,
    Elsewhere,
}

fn routes(profiles: Profiles) -> impl Iterator<Item = (&'static str, &'static str)> + Clone {
    ROUTES.into_iter().filter(move |(path, _)| profiles == Profiles::Here || *path != PROFILES)
}

/// For `curl`.
pub(super) fn text(prefix: &str, profiles: Profiles) -> String {
    let mut text = "Freestone: what the memory of this process is doing.\n\n".to_owned();
    let width = routes(profiles).map(|(path, _)| path.len()).max().unwrap_or_default();
    for (path, meaning) in routes(profiles) {
        let _ = writeln!(text, "  {prefix}{path:<width$}  {meaning}");
    }
    let _ = writeln!(text, "\nTo give memory back: curl -X POST http://…{prefix}/debug/freestone/release");
    text
}

/// For browsers. The prefix comes from the program that mounts the router, not from the request.
pub(super) fn html(prefix: &str, profiles: Profiles, nonce: &str) -> String {
    let heap = crate::snapshot().heap;
    let mut rows = String::new();
    for (path, meaning) in routes(profiles) {
        let link = if path.ends_with("/release") {
            format!("<code>{prefix}{path}</code>")
        } else {
            format!("<a href=\"{prefix}{path}\">{prefix}{path}</a>")
        };
        let _ = writeln!(rows, "<dt>{link}</dt><dd>{meaning}</dd>");
    }
    let live = bytesize::ByteSize(heap.bytes.live as u64);
    let held = bytesize::ByteSize(heap.bytes.committed() as u64);
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>Freestone</title>\n<link rel=\"icon\" href=\"data:,\">\n\
         <style nonce=\"{nonce}\">{STYLE}</style></head>\n<body><main>\n<h1>Freestone</h1>\n\
         <p>What the memory of this process is doing. It has {live} in {blocks} blocks, for which the heap holds {held}.</p>\n\
         <dl>\n{rows}</dl>\n</main></body></html>\n",
        blocks = heap.live_blocks(),
    )
}

pub(super) const STYLE: &str = "
:root { color-scheme: light dark; }
body { margin: 0; font: 16px/1.5 system-ui, sans-serif; background: light-dark(#f6f5f2, #16181c); color: light-dark(#22252a, #e4e4e0); }
main { max-width: 44rem; margin: 0 auto; padding: 2.5rem 1.25rem; }
h1 { font-size: 1.5rem; font-weight: 650; margin: 0 0 .25rem; }
dl { margin: 2rem 0 0; }
dt { font-family: ui-monospace, monospace; font-size: .9rem; overflow-wrap: anywhere; }
dd { margin: 0 0 1rem; color: light-dark(#5b6069, #a3a8b0); }
a { color: light-dark(#1f5fae, #86b6f2); text-underline-offset: .2em; text-decoration-thickness: 1px; }
a:focus-visible { outline: 2px solid; outline-offset: 2px; border-radius: 2px; }
";
