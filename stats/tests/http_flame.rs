//! The flame graph of the live page in a browser: what is drawn is what the document says, it can be searched, zoomed, compared and walked through by
//! key, and it can be read on a phone and in the dark. First with documents that are made here, then with what this program does.

mod browser;

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path;

use browser::{Browser, Network};
use freestone::{Freestone, control};
use freestone_stats::http;
use serde_json::{Value, json};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

#[test]
fn call_sites_can_be_looked_at() {
    let Some(mut browser) = Browser::start() else { return };
    let browser = &mut browser;
    let server = http::serve("127.0.0.1:0").expect("the loopback can be had");
    browser.look(1440, 500, "light");
    let script = browser.call("Page.addScriptToEvaluateOnNewDocument", json!({ "source": answers_made_here() }));
    browser.open(&format!("http://{}/debug/freestone/ui", server.address()));
    browser.wait_for("document.body.dataset.state === 'live'");
    // Nobody has come here yet, so nobody was asked.
    browser.wait_for("state.history.length >= 3");
    assert_eq!(browser.evaluate("window.asked.length"), 0);
    browser.look(1440, 900, "light");
    browser.evaluate("document.getElementById('flame-card').scrollIntoView()");
    browser.wait_for("!!document.getElementById('flame-card').dataset.taken");

    boxes_are_as_wide_as_what_they_stand_for(browser);
    it_can_be_zoomed_by_mouse_and_by_key(browser);
    functions_can_be_found(browser);
    everything_has_a_name(browser);
    it_fits_everywhere(browser, "plain");
    moments_can_be_compared(browser);
    it_fits_everywhere(browser, "compared");
    other_columns_can_be_chosen(browser);
    assert_eq!(browser.complaints(Network::Heard), Vec::<String>::new());

    browser.call("Page.removeScriptToEvaluateOnNewDocument", script);
    what_this_program_does_is_seen(browser, server.address());
    assert_eq!(browser.complaints(Network::Heard), Vec::<String>::new());
}

/// Blocks of a site that nobody else has. Freestone is called by its name, so the site is this function whatever the optimiser does.
#[inline(never)]
fn planted_site(blocks: usize) {
    let layout = Layout::from_size_align(4096, 8).expect("a size");
    for _ in 0..blocks {
        // SAFETY: the layout is of more than nothing.
        let block = unsafe { GLOBAL.alloc(layout) };
        assert!(!black_box(block).is_null());
    }
}

fn what_this_program_does_is_seen(browser: &mut Browser, address: SocketAddr) {
    control::set_sample_interval(64 << 10);
    planted_site(5000);
    browser.open("about:blank");
    browser.open(&format!("http://{address}/debug/freestone/ui"));
    browser.wait_for("document.body.dataset.state === 'live'");
    browser.evaluate("document.getElementById('flame-card').scrollIntoView()");
    browser.wait_for("!!document.getElementById('flame-card').dataset.taken");
    let site = "flame.boxes.filter(node => node.name.endsWith('::planted_site'))";
    let seen = browser.evaluate(&format!("{site}.map(node => [node.now, Math.sqrt(node.variance)])"));
    let seen = seen.as_array().expect("boxes");
    let (bytes, variance) = seen.iter().fold((0.0, 0.0), |(bytes, variance), node| {
        let [value, error] = [0, 1].map(|at| node[at].as_f64().expect("a number"));
        (bytes + value, variance + error * error)
    });
    let planted = f64::from(5000 * 4096);
    assert!((bytes - planted).abs() < 6.0 * f64::sqrt(variance), "{bytes} ± {} of {planted}", f64::sqrt(variance));
    browser.evaluate("document.getElementById('flame-mark').click()");
    browser.wait_for("!flame.asking && flame.marks.size === 1");
    planted_site(5000);
    browser.evaluate("document.getElementById('flame-again').click()");
    browser.wait_for(&format!("!flame.asking && {site}.length > 0 && flame.docs.get('heap') !== flame.marks.get('heap')"));
    let grown = browser.evaluate(&format!("{site}.reduce((sum, node) => sum + node.now - node.then, 0)"));
    assert!(grown.as_f64() > Some(planted / 2.0), "{grown} more");
    for kind in ["peak/inuse_space", "lifetimes/ended_objects", "fragmentation/pinned_space", "contention/delay"] {
        browser.evaluate(&format!(
            "{{ const list = document.getElementById('flame-look'); list.value = '{kind}'; list.dispatchEvent(new Event('change')) }}"
        ));
        browser.wait_for(&format!("!flame.asking && flame.docs.has('{}')", kind.split('/').next().unwrap_or_default()));
    }
    it_is_photographed(browser, "real");
}

fn it_is_photographed(browser: &mut Browser, name: &str) {
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for folds in [true, false] {
        browser.evaluate(&format!(
            "{{ const list = document.getElementById('flame-look'); list.value = 'heap/inuse_space'; list.dispatchEvent(new Event('change')); const fold = document.getElementById('flame-fold'); if (fold.checked !== {folds}) fold.click() }}"
        ));
        browser.evaluate("document.getElementById('flame-card').scrollIntoView()");
        std::fs::write(pictures.join(format!("flame-{name}-{folds}.png")), browser.picture(false)).expect("a place for pictures");
    }
}

/// A heap of a service, in bytes; later it has other requests, a larger cache, and no index.
const STACKS: [(&str, u64, u64); 12] = [
    (
        "main;orders::main;orders::serve::{{closure}};orders::cache::Cache::insert;<hashbrown::raw::RawTable<T,A>>::reserve_rehash",
        900,
        1500,
    ),
    (
        "main;orders::main;orders::serve::{{closure}};orders::cache::Cache::insert;alloc::vec::Vec<T>::push;alloc::raw_vec::RawVecInner<A>::grow_amortized",
        2400,
        3600,
    ),
    (
        "main;orders::main;orders::serve::{{closure}};orders::parse::<impl orders::parse::Parse for alloc::vec::Vec<orders::Order>>::parse",
        1200,
        700,
    ),
    (
        "main;orders::main;orders::serve::{{closure}};tower::util::oneshot::Oneshot<S,Req>::poll;hyper::proto::h1::dispatch::Dispatcher<D,Bs,I,T>::poll_read_head",
        600,
        610,
    ),
    (
        "main;orders::main;orders::serve::{{closure}};tower::util::oneshot::Oneshot<S,Req>::poll;hyper::proto::h1::encode::Encoder::encode",
        300,
        300,
    ),
    ("main;orders::main;orders::index::build;orders::index::Index::add", 1100, 0),
    ("main;orders::main;orders::index::build;alloc::string::String::push_str", 200, 0),
    (
        "start_thread;std::sys::thread::unix::Thread::new::thread_start;std::sys::backtrace::__rust_begin_short_backtrace;tokio::runtime::blocking::pool::Inner::run;orders::store::flush;zstd::stream::write::Encoder<W>::new",
        800,
        820,
    ),
    (
        "start_thread;std::sys::thread::unix::Thread::new::thread_start;std::sys::backtrace::__rust_begin_short_backtrace;tokio::runtime::blocking::pool::Inner::run;orders::store::flush;orders::store::walk;orders::store::walk;orders::store::walk",
        250,
        250,
    ),
    (
        "start_thread;std::sys::thread::unix::Thread::new::thread_start;std::sys::backtrace::__rust_begin_short_backtrace;rayon_core::registry::ThreadBuilder::run;orders::report::render",
        150,
        170,
    ),
    ("start_thread;libc.so.6+0x91f52;orders::legacy+0x10c4", 40, 45),
    ("_start;__libc_start_main;main;std::rt::lang_start_internal;freestone::global_alloc::realloc", 60, 60),
];

const UNIT: u64 = 10_240;

/// A script that answers for the server.
fn answers_made_here() -> String {
    let [earlier, later] = [document(1_700_000_000_000, |stack| stack.1), document(1_700_000_060_000, |stack| stack.2)];
    format!(
        "{{ window.asked = []; const earlier = {earlier}, later = {later}, fetchReally = window.fetch;
         window.fetch = (address, ...more) => {{
             if (!String(address).startsWith('flame?')) return fetchReally(address, ...more);
             window.asked.push(address);
             const profile = address.slice(14), doc = structuredClone(window.asked.length > 2 ? later : earlier);
             if (profile !== 'heap') {{
                 const columns = {{ peak: ['inuse_objects', 'inuse_space'], lifetimes: ['ended_objects', 'ended_space', 'temporary_objects', 'lifetime'],
                     fragmentation: ['pinned_space', 'inuse_space'], contention: ['contentions', 'delay'] }}[profile];
                 doc.profile = profile;
                 doc.columns = columns.map(name => ({{ name, unit: /space/.test(name) ? 'bytes' : /lifetime|delay/.test(name) ? 'nanoseconds' : 'count', exact: null }}));
             }}
             return Promise.resolve(new Response(JSON.stringify(doc)));
         }}; }}"
    )
}

/// As the server would write it: every node with all that is below it.
fn document(taken: u64, bytes: fn(&(&str, u64, u64)) -> u64) -> Value {
    let (mut paths, mut sums) = (vec![String::new()], vec![0_u64]);
    for stack in &STACKS {
        let ends = stack.0.match_indices(';').map(|(at, _)| at).chain([stack.0.len()]);
        for end in [0].into_iter().chain(ends) {
            let path = &stack.0[..end];
            let at = paths.iter().position(|known| known == path).unwrap_or_else(|| {
                paths.push(path.to_owned());
                sums.push(0);
                paths.len() - 1
            });
            sums[at] += bytes(stack) * UNIT;
        }
    }
    let place = |path: &str| paths.iter().position(|known| known == path).expect("a parent");
    let parents: Vec<usize> = paths.iter().map(|path| path.rsplit_once(';').map_or(0, |(parent, _)| place(parent))).collect();
    let names: Vec<&str> =
        paths.iter().map(|path| if path.is_empty() { "all" } else { path.rsplit(';').next().unwrap_or_default() }).collect();
    let column = |of: fn(u64) -> u64| sums.iter().map(|&sum| of(sum)).collect::<Vec<u64>>();
    let values = [column(|sum| sum / 100), column(|sum| sum * 3), column(|sum| sum / 512), column(|sum| sum)];
    let errors = values.each_ref().map(|column| column.iter().map(|value| value / 20).collect::<Vec<u64>>());
    json!({
        "version": 1, "taken_unix_ms": taken, "profile": "heap", "default_column": 3, "interval_bytes": 524_288, "samples": 815, "stacks": STACKS.len(),
        "columns": [
            { "name": "alloc_objects", "unit": "count", "exact": 1_234_567 }, { "name": "alloc_space", "unit": "bytes", "exact": 234_567_890 },
            { "name": "inuse_objects", "unit": "count", "exact": 160_123 }, { "name": "inuse_space", "unit": "bytes", "exact": sums[0] + 54_321 },
        ],
        "names": names, "parents": parents, "name": (0..names.len()).collect::<Vec<_>>(), "values": values, "errors": errors, "nodes_left_out": 0,
    })
}

fn total(bytes: fn(&(&str, u64, u64)) -> u64) -> u64 {
    STACKS.iter().map(bytes).sum::<u64>() * UNIT
}

/// What is drawn: names, widths in per cent of everything, and depths.
const DRAWN: &str = "(() => { const room = document.querySelector('#flame .boxes').getBoundingClientRect();
    return flame.boxes.map(node => { const box = node.item.getBoundingClientRect();
        return { name: node.name, text: node.item.textContent, depth: node.depth, value: node.now, width: 100 * (box.width + 1) / room.width, left: box.left - room.left, top: box.top - room.top,
                 parent: node.parent && node.parent.item && { left: node.parent.item.getBoundingClientRect().left - room.left, right: node.parent.item.getBoundingClientRect().right - room.left } } }); })()";

fn boxes_are_as_wide_as_what_they_stand_for(browser: &mut Browser) {
    let whole = total(|stack| stack.1);
    for folds in [false, true] {
        if browser.evaluate("document.getElementById('flame-fold').checked") != folds {
            browser.evaluate("document.getElementById('flame-fold').click()");
        }
        let drawn = browser.evaluate(DRAWN);
        let drawn = drawn.as_array().expect("boxes");
        for node in drawn {
            let [width, value] = [&node["width"], &node["value"]].map(|number| number.as_f64().expect("a number"));
            let expected = 100.0 * value / whole as f64;
            assert!((width - expected).abs() < 0.2, "{node}: {expected} % expected");
            assert_eq!(node["top"].as_f64().map(f64::round), node["depth"].as_f64().map(|depth| depth * 20.0), "{node}");
            if let Some(parent) = node["parent"].as_object() {
                let left = node["left"].as_f64().expect("a number");
                assert!(left >= parent["left"].as_f64().expect("a number") - 0.5, "{node}");
                assert!(left < parent["right"].as_f64().expect("a number") + 0.5, "{node}");
            }
        }
        let of = |name: &str| drawn.iter().find(|node| node["name"] == name);
        assert_eq!(of("all").map(|node| &node["value"]), Some(&json!(whole)));
        let insert = of("orders::cache::Cache::insert").expect("a box");
        assert_eq!((&insert["value"], &insert["text"]), (&json!((900 + 2400) * UNIT), &json!("Cache::insert")));
        // What the standard library allocates is its caller's where it is folded.
        assert_eq!(of("alloc::string::String::push_str").is_none(), folds);
        assert_eq!(of("main").is_none(), folds);
        assert_eq!(of("orders::index::build").map(|node| &node["value"]), Some(&json!(1300 * UNIT)));
    }
    let note = browser.evaluate("document.getElementById('flame-note').textContent");
    assert!(
        note.as_str().is_some_and(|note| note.starts_with("78.1 MiB ± 3.9 MiB from 815 samples · exactly 78.2 MiB")),
        "{note}"
    );
    let row =
        "[...document.querySelectorAll('#functions tbody tr')].find(row => row.firstChild.textContent === 'orders::store::walk')";
    let walk = browser.evaluate(&format!("[...{row}.children].map(cell => cell.textContent)"));
    assert_eq!(walk, json!(["orders::store::walk", "2.4 MiB", "2.4 MiB", "3 %", "–"]), "one that calls itself counts once");
}

fn it_can_be_zoomed_by_mouse_and_by_key(browser: &mut Browser) {
    browser.evaluate("flame.boxes.find(node => node.name === 'orders::cache::Cache::insert').item.click()");
    assert_eq!(browser.evaluate("flame.focus.name"), "orders::cache::Cache::insert");
    let drawn = browser.evaluate(DRAWN);
    for node in drawn.as_array().expect("boxes") {
        if node["depth"].as_u64() <= browser.evaluate("flame.focus.depth").as_u64() {
            assert!(node["width"].as_f64() > Some(99.0), "callers are whole lines: {node}");
        }
    }
    browser.evaluate("document.getElementById('flame-whole').click()");
    assert_eq!(browser.evaluate("flame.focus === flame.root && document.getElementById('flame-whole').disabled"), true);

    browser.evaluate("document.getElementById('flame').focus()");
    let active = "document.getElementById(document.getElementById('flame').getAttribute('aria-activedescendant')).getAttribute('aria-label')";
    for (key, name) in [
        ("ArrowDown", "orders::main"),
        ("ArrowRight", "tokio::runtime::blocking::pool::Inner::run"),
        ("ArrowLeft", "orders::main"),
        ("ArrowDown", "orders::serve::{{closure}}"),
        ("ArrowRight", "orders::index::build"),
        ("ArrowUp", "orders::main"),
        ("Home", "all"),
    ] {
        browser.press(key, "");
        let label = browser.evaluate(active);
        assert!(label.as_str().is_some_and(|label| label.starts_with(&format!("{name}, "))), "{key}: {label}");
    }
    browser.press("ArrowDown", "");
    browser.press("ArrowDown", "");
    browser.press("Enter", "\r");
    assert_eq!(browser.evaluate("flame.focus.name"), "orders::serve::{{closure}}");
    browser.press("Escape", "");
    assert_eq!(browser.evaluate("flame.focus.name"), "orders::main");
    browser.press("Escape", "");
    assert_eq!(browser.evaluate("flame.focus === flame.root"), true);
    assert_eq!(browser.evaluate("document.querySelectorAll('#flame [aria-selected=true]').length"), 1);
}

fn search(browser: &mut Browser, text: &str) {
    let text = json!(text);
    browser.evaluate(&format!(
        "{{ const input = document.getElementById('flame-search'); input.value = {text}; input.dispatchEvent(new Event('input')) }}"
    ));
}

fn functions_can_be_found(browser: &mut Browser) {
    search(browser, "CACHE");
    let found = browser.evaluate("document.getElementById('flame-found').textContent");
    assert_eq!(found, "32.2 MiB, 41 % of all, below cache");
    assert_eq!(
        browser.evaluate("[...document.querySelectorAll('#flame .match')].map(box => box.textContent)"),
        json!(["Cache::insert"])
    );
    // Boxes within boxes count once.
    search(browser, "orders::");
    assert_eq!(browser.evaluate("document.getElementById('flame-found').textContent"), "77.5 MiB, 99 % of all, below orders::");
    search(browser, "<script>");
    assert_eq!(browser.evaluate("document.getElementById('flame-found').textContent"), "no function is called that");
    search(browser, "index");
    browser.evaluate("document.getElementById('flame-search').focus()");
    browser.press("Enter", "\r");
    assert_eq!(browser.evaluate("flame.focus.name"), "orders::index::build");
    search(browser, "");
    browser.evaluate("document.getElementById('flame-whole').click()");
    assert_eq!(browser.evaluate("document.querySelectorAll('#flame .match, #flame .dim').length"), 0);
}

fn everything_has_a_name(browser: &mut Browser) {
    let tree = browser.call("Accessibility.getFullAXTree", json!({}));
    let mut named: Vec<(String, String)> = Vec::new();
    for node in tree["nodes"].as_array().expect("nodes").iter().filter(|node| node["ignored"] == false) {
        let [role, name] = [&node["role"]["value"], &node["name"]["value"]].map(|value| value.as_str().unwrap_or_default());
        if ["button", "combobox", "searchbox", "checkbox", "tree", "treeitem", "columnheader"].contains(&role) {
            assert_ne!(name, "", "a {role} without a name");
            named.push((role.to_owned(), name.to_owned()));
        }
    }
    for (role, name) in [
        ("combobox", "What is shown"),
        ("searchbox", "Find a function"),
        ("checkbox", "fold the standard library"),
        ("button", "Mark this moment"),
        ("tree", "Call sites, bytes in use"),
        ("treeitem", "orders::cache::Cache::insert, 32.2 MiB ± 1.6 MiB · 41 % of all"),
    ] {
        assert!(named.iter().any(|known| *known == (role.to_owned(), name.to_owned())), "no {role} {name}: {named:?}");
    }
}

fn moments_can_be_compared(browser: &mut Browser) {
    assert_eq!(browser.evaluate("document.getElementById('flame-compare').checkVisibility()"), false);
    browser.evaluate("document.getElementById('flame-mark').click()");
    browser.wait_for("!flame.asking && flame.marks.size === 1");
    // Nothing changed so far.
    assert_eq!(browser.evaluate("document.querySelectorAll('#flame .grown, #flame .shrunk').length"), 0);
    browser.evaluate("document.getElementById('flame-again').click()");
    browser.wait_for("document.getElementById('flame-card').dataset.taken === '1700000060000'");
    let of = |browser: &mut Browser, name: &str| {
        let name = json!(name);
        browser.evaluate(&format!(
            "(() => {{ const node = flame.boxes.find(node => node.name === {name}); return node && [node.item.className, node.now - node.then, node.item.textContent] }})()"
        ))
    };
    assert_eq!(of(browser, "orders::cache::Cache::insert"), json!(["box grown", 1800 * UNIT, "Cache::insert  +17.6 MiB"]));
    let gone = of(browser, "orders::index::build");
    assert_eq!((&gone[0], &gone[1]), (&json!("box shrunk"), &json!(-1300 * UNIT as i64)), "what is gone is still seen");
    assert_eq!(of(browser, "hyper::proto::h1::encode::Encoder::encode")[0], "box same");
    let colour = |browser: &mut Browser, class: &str| {
        browser.evaluate(&format!(
            "(() => {{ const canvas = document.createElement('canvas').getContext('2d'); canvas.fillStyle = getComputedStyle(document.querySelector('#flame .{class}')).backgroundColor; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data] }})()"
        ))
    };
    let channel = |colour: &Value, at: usize| colour[at].as_u64().expect("a colour");
    let [more, less] = ["grown", "shrunk"].map(|class| colour(browser, class));
    assert!(channel(&more, 0) > channel(&more, 2), "red: {more}");
    assert!(channel(&less, 2) > channel(&less, 0), "blue: {less}");
    let drawn = browser.evaluate(DRAWN);
    for node in drawn.as_array().expect("boxes") {
        assert_eq!(node["top"].as_f64().map(f64::round), node["depth"].as_f64().map(|depth| depth * 20.0), "{node}");
    }
    let row = "[...document.querySelectorAll('#functions tbody tr')].find(row => row.firstChild.textContent === 'orders::index::build').lastChild.textContent";
    assert_eq!(browser.evaluate(row), "−12.7 MiB");
    browser.evaluate("document.getElementById('flame-compare').click()");
    assert_eq!(browser.evaluate("document.querySelectorAll('#flame .grown, #flame .shrunk').length"), 0);
    browser.evaluate("document.getElementById('flame-compare').click()");
}

fn other_columns_can_be_chosen(browser: &mut Browser) {
    let choose = |browser: &mut Browser, column: &str| {
        browser.evaluate(&format!(
            "{{ const list = document.getElementById('flame-look'); list.value = '{column}'; list.dispatchEvent(new Event('change')) }}"
        ));
        browser.wait_for(&format!("!flame.asking && flame.docs.has('{}')", column.split('/').next().unwrap_or_default()));
        browser.evaluate("document.getElementById('flame-note').textContent").as_str().expect("text").to_owned()
    };
    let asked = browser.evaluate("window.asked.length");
    let later = format!("{:.1} MiB ± ", 3.0 * total(|stack| stack.2) as f64 / f64::from(1 << 20));
    let note = choose(browser, "heap/alloc_space");
    assert!(note.starts_with(&later), "three times as much, {later}: {note}");
    assert_eq!(browser.evaluate("window.asked.length"), asked, "one document has all columns of a kind");
    assert!(choose(browser, "contention/delay").contains(" ms ± "), "a time");
    let columns = browser.evaluate("[...document.querySelectorAll('#flame-look option')].map(option => option.value)");
    for column in columns.as_array().expect("columns") {
        let note = choose(browser, column.as_str().expect("text"));
        assert!(note.contains(" from 815 s"), "{column}: {note}");
        assert!(!note.contains("NaN"), "{column}: {note}");
    }
    let all: Vec<String> = browser
        .evaluate("window.asked")
        .as_array()
        .expect("a list")
        .iter()
        .map(|asked| asked.as_str().expect("text").to_owned())
        .collect();
    for kind in ["heap", "peak", "lifetimes", "fragmentation", "contention"] {
        assert!(all.contains(&format!("flame?profile={kind}")), "{all:?}");
    }
}

fn it_fits_everywhere(browser: &mut Browser, name: &str) {
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (width, height) in [(1440, 900), (390, 844), (320, 640)] {
        for scheme in ["light", "dark"] {
            browser.look(width, height, scheme);
            browser.evaluate("document.getElementById('flame-card').scrollIntoView(); new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))");
            let too_wide = browser.evaluate("document.documentElement.scrollWidth - innerWidth");
            assert!(too_wide.as_f64() <= Some(0.0), "{too_wide} pixels too wide at {width}");
            let low = browser.evaluate(&format!("{}.filter(text => text.ratio < 4.5)", browser::CONTRASTS));
            assert_eq!(low, json!([]), "at {width} in {scheme}");
            let boxes = browser.evaluate("flame.boxes.length");
            assert!(boxes.as_u64() >= Some(8), "{boxes} boxes at {width}");
            std::fs::write(pictures.join(format!("flame-{name}-{width}-{scheme}.png")), browser.picture(false))
                .expect("a place for pictures");
        }
    }
    println!("pictures are in {}", pictures.display());
    browser.look(1440, 900, "light");
    browser.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))");
}
