//! The index of profiles: what there is, how much of it, and what each says. As Go's, so that people and tools find what they look for.

use std::fmt::Write as _;

use freestone::profile;

/// Name, how it is asked for from the index, what it is; and what is counted.
const PROFILES: [(&str, &str, &str, Counted); 9] = [
    ("allocs", "allocs?debug=1", "Everything that was ever allocated, by where; freed blocks too.", Counted::Sites),
    ("cmdline", "cmdline", "The command line of this program, its parts separated by NUL.", Counted::Nothing),
    ("contention", "contention?debug=1", "Where threads were held up by the allocator.", Counted::Stalls),
    ("delta", "delta?seconds=10", "What changes in the heap within so many seconds. It answers after those.", Counted::Nothing),
    (
        "fragmentation",
        "fragmentation?debug=1",
        "Free memory that cannot go back to the system because of blocks beside it, by where those were allocated.",
        Counted::Sites,
    ),
    (
        "heap",
        "heap?debug=1",
        "What the program has, by where it was allocated. With gc=1, free memory goes back first.",
        Counted::Sites,
    ),
    ("lifetimes", "lifetimes?debug=1", "How long blocks lived, and which hardly did.", Counted::Sites),
    ("peak", "peak?debug=1", "What the program had when it had most.", Counted::Sites),
    (
        "symbol",
        "symbol",
        "Names for addresses: 0x55d0c0+0x55d0c8 in a query or in the body of a POST. For tools.",
        Counted::Nothing,
    ),
];

/// What the number beside a profile is of.
#[derive(Clone, Copy)]
enum Counted {
    Sites,
    Stalls,
    Nothing,
}

impl Counted {
    fn now(self) -> usize {
        match self {
            Self::Sites => profile::summary().sites,
            Self::Stalls => stalls(),
            Self::Nothing => 0,
        }
    }
}

fn stalls() -> usize {
    let mut sum = 0;
    profile::each_stall(|_| sum += 1);
    sum
}

/// For `curl`.
pub(super) fn text() -> String {
    let mut text = "/debug/pprof/\n\nTypes of profiles available:\n\n".to_owned();
    for (name, link, meaning, counted) in PROFILES {
        let _ = writeln!(text, "  {:>7}  {name:<14}  {meaning}\n{:27}{link}", counted.now(), "");
    }
    text.push_str(
        "\nParameters: debug=1 is text, seconds=30 the difference over so long, gc=1 gives free memory back first;\n\
         format=folded, svg, json, top; sample_index=alloc_space chooses the column of folded, svg and top.\n\
         go tool pprof http://…/debug/pprof/heap reads them, and shows names of functions.\n",
    );
    text
}

/// For browsers.
pub(super) fn html(nonce: &str) -> String {
    let mut rows = String::new();
    for (name, link, meaning, counted) in PROFILES {
        let forms = match counted {
            Counted::Nothing => String::new(),
            _ => format!(
                " <small><a href=\"{name}\">pprof</a> · <a href=\"{name}?format=top\">top</a> · \
                 <a href=\"{name}?format=folded\">folded</a> · <a href=\"{name}?format=json\">JSON</a></small>"
            ),
        };
        let count = match counted {
            Counted::Nothing => String::new(),
            _ => counted.now().to_string(),
        };
        let _ = writeln!(
            rows,
            "<tr><td>{count}</td><th scope=\"row\"><a href=\"{link}\">{name}</a></th><td>{meaning}{forms}</td></tr>"
        );
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>/debug/pprof/</title>\n<link rel=\"icon\" href=\"data:,\">\n\
         <style nonce=\"{nonce}\">{style}{STYLE}</style></head>\n<body><main>\n<h1>/debug/pprof/</h1>\n\
         <p>Types of profiles available. <code>go tool pprof</code> reads them by their address, and shows names of functions.</p>\n\
         <table><thead><tr><th scope=\"col\">Count</th><th scope=\"col\">Profile</th><th scope=\"col\">Is</th></tr></thead>\n\
         <tbody>\n{rows}</tbody></table>\n\
         <p>With <code>debug=1</code> they are text, with <code>seconds=30</code> the difference over so long, and <code>gc=1</code> gives free \
         memory back first.</p>\n</main></body></html>\n",
        style = crate::http::index::STYLE,
    )
}

const STYLE: &str = "
table { border-collapse: collapse; margin: 1.5rem 0; }
th, td { text-align: left; vertical-align: baseline; padding: .35rem .9rem .35rem 0; font-weight: 400; }
th[scope=row], code { font-family: ui-monospace, monospace; font-size: .9rem; }
td:first-child { text-align: right; font-variant-numeric: tabular-nums; }
thead th { font-size: .85rem; color: light-dark(#5b6069, #a3a8b0); }
small { display: block; }
";
