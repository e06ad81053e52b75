//! The live page in a browser, on a program that runs on Freestone: this one. What it shows is what the document says, it complains about nothing,
//! it survives the server, and it can be read: on a phone, in the dark, by keyboard, by ear.

mod browser;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use browser::{Browser, Network};
use freestone::{Freestone, Limit, control};
use freestone_stats::http::{self, Server};
use serde_json::{Value, json};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// Near enough to what [`work`] holds that it is drawn.
const LIMIT_BYTES: usize = 120 << 20;

/// One after the other, in one browser: starting one takes longer than all of this.
#[test]
fn the_page_can_be_looked_at() {
    let Some(mut browser) = Browser::start() else { return };
    let browser = &mut browser;
    std::thread::Builder::new().name("orders".to_owned()).spawn(work).expect("a thread");
    control::set_memory_limit(Limit::Bytes(LIMIT_BYTES));
    let server = http::serve("127.0.0.1:0").expect("the loopback can be had");
    browser.look(1440, 900, "light");
    browser.open(&format!("http://{}/debug/freestone/ui", server.address()));
    browser.wait_for("document.body.dataset.state === 'live' && state.history.length >= 5");

    it_shows_what_the_document_says(browser);
    tables_sort_by_mouse_and_by_key(browser);
    moments_can_be_read_by_key(browser);
    everything_has_a_name(browser);
    it_fits_and_can_be_read_everywhere(browser);
    assert_eq!(browser.complaints(Network::Heard), Vec::<String>::new());

    it_rests_while_nobody_looks(browser);
    memory_can_be_given_back(browser);
    assert_eq!(browser.complaints(Network::Heard), Vec::<String>::new());
    it_outlives_the_server(browser, server);
    assert_eq!(browser.complaints(Network::PassedOver), Vec::<String>::new());
}

/// Something to look at, for as long as the test lasts.
fn work() {
    let mut kept = Vec::new();
    for turn in 0_usize.. {
        kept.extend((0..300).map(|number| vec![7_u8; 1 + (turn * 37 + number * 101) % 5000]));
        if kept.len() > 20_000 {
            kept.retain(|block| block.len() % 7 == 0);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn it_shows_what_the_document_says(browser: &mut Browser) {
    // Everything unfolded, and no further document.
    browser.evaluate("document.getElementById('pause').click()");
    browser.wait_for("document.body.dataset.state === 'paused' && !state.asking");
    browser.evaluate("document.querySelectorAll('.more:not([hidden])').forEach(button => button.click())");
    let shown = browser.evaluate(
        "({ taken: document.body.dataset.taken, title: document.title, rows: document.querySelectorAll('#classes tbody tr').length,
            values: [...document.querySelectorAll('[data-key]')].map(node => [node.dataset.key, node.dataset.value, node.textContent]) })",
    );
    let document = document_taken_at(browser, shown["taken"].as_str().expect("a document"));

    let mut texts = HashMap::new();
    for value in shown["values"].as_array().expect("values") {
        let [key, value, text] = [0, 1, 2].map(|at| value[at].as_str().expect("text"));
        let said = document.pointer(key).unwrap_or_else(|| panic!("{key} is shown, and is not in the document"));
        let is_same = match said {
            Value::Null => value.is_empty(),
            Value::String(said) => said == value,
            Value::Number(said) => said.as_f64() == value.parse().ok(),
            Value::Bool(said) => value.parse() == Ok(*said),
            _ => false,
        };
        assert!(is_same, "{key} is shown as {value}, and is {said}");
        assert_ne!(text, "", "{key}");
        texts.insert(key.to_owned(), text.to_owned());
    }
    let number = |key: &str| document.pointer(key).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {key}"));
    for key in [
        "/heap/bytes/live",
        "/heap/bytes/committed",
        "/resident/total_bytes",
        "/heap/limits/held_bytes",
        "/heap/limits/memory_limit_bytes",
    ] {
        assert_eq!(texts[key], human(number(key)), "{key}");
    }
    for (index, line) in document["ledger"].as_array().expect("lines").iter().enumerate() {
        if line["part"] == "heap" {
            assert!(texts.contains_key(&format!("/ledger/{index}/bytes")), "{line} is not shown");
        }
    }
    let classes = document["classes"].as_array().expect("classes");
    let used: Vec<usize> = (0..classes.len()).filter(|&at| classes[at]["allocations"].as_u64() > Some(0)).collect();
    for at in &used {
        assert_eq!(texts[&format!("/classes/{at}/live_bytes")], human(number(&format!("/classes/{at}/live_bytes"))));
        assert!(texts.contains_key(&format!("/classes/{at}/spans")), "class {at} is not shown");
    }
    let larger = usize::from(number("/heap/large/allocations") > 0);
    assert_eq!(shown["rows"], used.len() + larger);
    assert_eq!(shown["title"], format!("{} · Freestone", human(number("/heap/bytes/live"))));
    for (index, thread) in document["threads"].as_array().expect("threads").iter().enumerate() {
        assert!(texts.contains_key(&format!("/threads/{index}/cached_bytes")), "{thread} is not shown");
    }
    assert_eq!(document["verdict"]["verdict"], browser.evaluate("document.getElementById('verdict').dataset.verdict"));
    assert_eq!(document["verdict"]["sentence"], browser.evaluate("document.getElementById('verdict-says').textContent"));
    println!("{} values are shown, and are right", texts.len());
    browser.evaluate("document.getElementById('pause').click()");
    browser.wait_for("document.body.dataset.state === 'live'");
}

/// The document that the page was given at that moment: what came over the wire.
fn document_taken_at(browser: &mut Browser, taken: &str) -> Value {
    let answers: Vec<Value> =
        browser.events.iter().filter(|event| event["method"] == "Network.responseReceived").cloned().collect();
    for answer in answers.iter().rev() {
        if answer["params"]["response"]["url"].as_str().is_some_and(|url| url.ends_with("/stats.json")) {
            let body = browser.call("Network.getResponseBody", json!({ "requestId": answer["params"]["requestId"] }));
            let document: Value = serde_json::from_str(body["body"].as_str().expect("a body")).expect("JSON");
            if document["taken_unix_ms"].as_u64() == taken.parse().ok() {
                return document;
            }
        }
    }
    panic!("no document of {taken} was given");
}

/// Bytes for people, in the page's words.
fn human(bytes: u64) -> String {
    let (mut value, mut unit) = (bytes as f64, "B");
    for larger in ["KiB", "MiB", "GiB"] {
        if value >= 1024.0 {
            (value, unit) = (value / 1024.0, larger);
        }
    }
    if unit == "B" { format!("{bytes} B") } else { format!("{:.1} {unit}", (value * 10.0 + 0.5).floor() / 10.0) }
}

fn tables_sort_by_mouse_and_by_key(browser: &mut Browser) {
    let sizes =
        "[...document.querySelectorAll('#classes tbody tr')].map(row => Number(row.firstChild.dataset.value ?? Infinity))";
    let is_sorted = |way: &str| format!("{{ const sizes = {sizes}; sizes.every((size, i) => !i || sizes[i - 1] {way} size) }}");
    let head = "document.querySelector('#classes th')";
    browser.evaluate(&format!("{head}.firstChild.click()"));
    assert_eq!(browser.evaluate(&format!("{head}.getAttribute('aria-sort')")), "descending");
    assert_eq!(browser.evaluate(&is_sorted(">=")), true);
    browser.evaluate(&format!("{head}.firstChild.focus()"));
    browser.press("Enter", "\r");
    assert_eq!(browser.evaluate(&format!("{head}.getAttribute('aria-sort')")), "ascending");
    assert_eq!(browser.evaluate(&is_sorted("<=")), true);
    // The next document changes numbers, and neither the order nor where the reader is.
    let polls = browser.evaluate("state.history.length");
    browser.wait_for(&format!("state.history.length > {polls}"));
    assert_eq!(browser.evaluate(&is_sorted("<=")), true);
    assert_eq!(browser.evaluate(&format!("document.activeElement === {head}.firstChild")), true);
    assert_eq!(browser.evaluate("document.querySelectorAll('#classes th[aria-sort]').length"), 1);
}

fn moments_can_be_read_by_key(browser: &mut Browser) {
    browser.evaluate("document.getElementById('heap-plot').focus()");
    browser.press("Home", "");
    let said = browser.evaluate("document.getElementById('heap-said').textContent");
    assert!(said.as_str().is_some_and(|said| said.contains(": live ") && said.contains("MiB")), "{said}");
    assert_eq!(browser.evaluate("document.querySelector('#heap-plot .tip').hidden"), false);
    browser.press("ArrowRight", "");
    assert_eq!(browser.evaluate("state.history.findIndex(point => point.t === state.cursor)"), 1);
    browser.press("Escape", "");
    assert_eq!(browser.evaluate("document.querySelector('#heap-plot .tip').hidden"), true);
    assert_eq!(browser.evaluate("document.querySelector('#heap-plot text.limit-name').textContent"), "memory limit 120.0 MiB");
    let [meter, used] = ["clientHeight", "firstChild.clientWidth"]
        .map(|size| browser.evaluate(&format!("document.querySelector('.meter').{size}")));
    assert_eq!(meter, 6, "the meter of the limit");
    assert!(used.as_u64() >= Some(10), "{used} pixels of it are used");
    // As many areas as lines of the ledger that were ever more than nothing, each with a finite outline.
    let areas = browser.evaluate(
        "({ drawn: document.querySelectorAll('#heap-plot path.layer').length,
            wanted: heapLines().filter(line => state.history.some(point => point.heap[line.key] > 0)).length,
            broken: [...document.querySelectorAll('svg path')].filter(path => /NaN|undefined|Infinity/.test(path.getAttribute('d'))).length })",
    );
    assert_eq!(areas["drawn"], areas["wanted"]);
    assert!(areas["drawn"].as_u64() >= Some(3), "{areas}");
    assert_eq!(areas["broken"], 0);
}

fn everything_has_a_name(browser: &mut Browser) {
    let tree = browser.call("Accessibility.getFullAXTree", json!({}));
    let mut named = HashMap::new();
    for node in tree["nodes"].as_array().expect("nodes").iter().filter(|node| node["ignored"] == false) {
        let [role, name] = [&node["role"]["value"], &node["name"]["value"]].map(|value| value.as_str().unwrap_or_default());
        if ["button", "image", "img", "radio", "link", "table", "heading", "columnheader"].contains(&role) {
            assert_ne!(name, "", "a {role} without a name");
            named.entry(role.to_owned()).or_insert_with(Vec::new).push(name.to_owned());
        }
    }
    assert!(named["button"].iter().any(|name| name.starts_with("Pause")), "{named:?}");
    assert!(named["table"].iter().any(|name| name == "Size classes"), "{named:?}");
    let pictures: Vec<&String> = named.iter().filter(|(role, _)| role.starts_with("im")).flat_map(|(_, names)| names).collect();
    assert!(pictures.iter().any(|name| name.starts_with("The heap over time") && name.contains("in use")), "{pictures:?}");
}

fn it_fits_and_can_be_read_everywhere(browser: &mut Browser) {
    let pictures = Path::new(env!("CARGO_TARGET_TMPDIR"));
    for (width, height) in [(1440, 900), (768, 1024), (390, 844), (320, 640)] {
        for scheme in ["light", "dark"] {
            browser.look(width, height, scheme);
            browser.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))");
            let too_wide = browser.evaluate("document.documentElement.scrollWidth - innerWidth");
            assert!(too_wide.as_f64() <= Some(0.0), "{too_wide} pixels too wide at {width}");
            let contrasts = browser.evaluate(browser::CONTRASTS);
            for contrast in contrasts.as_array().expect("contrasts") {
                assert!(contrast["ratio"].as_f64() >= Some(4.5), "{contrast} in {scheme}");
            }
            assert!(contrasts.as_array().is_some_and(|all| all.len() > 50), "{contrasts}");
            for (whole, name) in [(false, "seen"), (true, "whole")] {
                let picture = browser.picture(whole);
                assert!(picture.starts_with(b"\x89PNG") && picture.len() > 10_000, "no picture");
                let path = pictures.join(format!("page-{width}-{scheme}-{name}.png"));
                std::fs::write(path, picture).expect("a place for pictures");
            }
        }
    }
    println!("pictures are in {}", pictures.display());
    browser.look(1440, 900, "light");
}

fn it_rests_while_nobody_looks(browser: &mut Browser) {
    let hide = |hidden: bool| {
        format!(
            "Object.defineProperty(document, 'hidden', {{ configurable: true, get: () => {hidden} }});
             document.dispatchEvent(new Event('visibilitychange'))"
        )
    };
    browser.evaluate(&hide(true));
    browser.wait_for("!state.asking");
    browser.events.clear();
    std::thread::sleep(Duration::from_secs(3));
    browser.evaluate("0");
    let asked = browser.events.iter().filter(|event| event["method"] == "Network.requestWillBeSent").count();
    assert_eq!(asked, 0, "it asks while nobody looks");
    let polls = browser.evaluate("state.history.at(-1).t");
    browser.evaluate(&hide(false));
    browser.wait_for(&format!("state.history.at(-1).t > {polls}"));
}

fn memory_can_be_given_back(browser: &mut Browser) {
    browser.evaluate("document.getElementById('release').click()");
    browser.wait_for("/went back to the system/.test(document.getElementById('released').textContent)");
}

fn it_outlives_the_server(browser: &mut Browser, server: Server) {
    let address = server.address();
    let points = browser.evaluate("state.history.length").as_u64();
    drop(server);
    browser.wait_for("document.body.dataset.state === 'gone'");
    let said = browser.evaluate("document.getElementById('status').textContent");
    assert!(said.as_str().is_some_and(|said| said.starts_with("no answer since ")), "{said}");
    let _again = http::serve(address).expect("the address is free again");
    browser.wait_for("document.body.dataset.state === 'live'");
    assert!(browser.evaluate("state.history.length").as_u64() > points, "the history is lost");
    // A script that did not come with the page does not run.
    browser.evaluate("{ const script = document.createElement('script'); script.textContent = 'window.broken = 1'; document.body.append(script) }");
    assert_eq!(browser.evaluate("window.broken"), Value::Null);
    browser.events.retain(|event| !event.to_string().contains("Content Security Policy"));
}
