//! Viewers in a browser load what we write, and show the figures that we show: speedscope pprof's format and folded text, Valgrind's `dh_view.html` that of
//! DHAT, which is what the Firefox profiler loads.

mod browser;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use browser::Browser;
use freestone::Freestone;
use freestone_stats::profile::{self, Builder, Context, Frame, Kind, Profile, Row};
use serde_json::{Value, json};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

#[test]
fn viewers_show_what_we_show() {
    let Some(mut browser) = Browser::start() else { return };
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("viewers-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder for the test");
    speedscope(&mut browser, &folder);
    dh_view(&mut browser, &folder);
    let _ = fs::remove_dir_all(&folder);
}

/// 3 MiB in one function and 1 MiB in another, both called by a third.
fn towers() -> Profile {
    let mut builder = Builder::new(Kind::Heap);
    let row = |id, bytes: f64| Row::new(id, 3, [2.0, 2.0 * bytes, 1.0, bytes], [0.0; 4]);
    builder.push(row(1, f64::from(3 << 20)), &[0x3001, 0x1001]);
    builder.push(row(2, f64::from(1 << 20)), &[0x4001, 0x1001]);
    builder.finish()
}

fn names(address: usize) -> Vec<Frame> {
    let function = match address {
        0x1000 => "tower::build",
        0x3000 => "tower::raise",
        0x4000 => "<[u8; 4] as tower::Stone>::cut",
        _ => return Vec::new(),
    };
    vec![Frame { function: function.to_owned(), ..Frame::default() }]
}

/// Where npm has put speedscope: `SPEEDSCOPE` says so, or it is among the global packages.
fn release_of_speedscope() -> Option<PathBuf> {
    let global = || {
        let root = Command::new("npm").args(["root", "-g"]).output().ok()?.stdout;
        Some(PathBuf::from(String::from_utf8(root).ok()?.trim()).join("speedscope"))
    };
    let package = std::env::var_os("SPEEDSCOPE").map(PathBuf::from).or_else(global)?;
    let release = package.join("dist/release");
    release.join("index.html").is_file().then_some(release)
}

fn speedscope(browser: &mut Browser, folder: &Path) {
    let Some(release) = release_of_speedscope() else {
        println!(
            "SKIPPED: no speedscope here (npm install -g speedscope, or SPEEDSCOPE=its folder), so it did not load a profile"
        );
        return;
    };
    let (profile, mut namer) = (towers(), names);
    let mut context = Context { namer: Some(&mut namer), ..Context::default() };
    let files = [("heap.pb.gz", profile.pprof(&mut context)), ("heap.folded", profile.folded(3, &mut context).into_bytes())];
    for (name, bytes) in files {
        // As its own program for the command line has it load a file.
        let script = folder.join(format!("{name}.js"));
        let call = format!("speedscope.loadFileFromBase64({}, {})", json!(name), json!(base64(&bytes)));
        fs::write(&script, call).expect("a file for the test");
        browser.open("about:blank");
        browser.open(&format!("file://{}/index.html#localProfilePath={}", release.display(), script.display()));
        browser.wait_for(&format!("document.title.includes({})", json!(name)));
        // The table of functions is text; all else is drawn.
        browser.evaluate("window.dispatchEvent(new KeyboardEvent('keypress', {key: '3'}))");
        browser.wait_for("document.querySelectorAll('table tr').length > 2");
        let rows = browser.evaluate("[...document.querySelectorAll('table tr')].map(row => row.innerText)");
        let rows: Vec<&str> = rows.as_array().expect("rows").iter().filter_map(Value::as_str).collect();
        let row =
            |function: &str| *rows.iter().find(|row| row.contains(function)).unwrap_or_else(|| panic!("{function}: {rows:?}"));
        let is_folded = name.ends_with("folded");
        let cut = if is_folded { "<[u8: 4] as tower::Stone>::cut" } else { "<[u8; 4] as tower::Stone>::cut" };
        let (raise, one) = if is_folded { ("3,145,728", "1,048,576") } else { ("3.00 MB", "1.00 MB") };
        assert!(row("tower::raise").matches(raise).count() == 2 && row("tower::raise").contains("75"), "{rows:?}");
        assert!(row(cut).contains(one) && row(cut).contains("25"), "{rows:?}");
        assert!(row("tower::build").contains("100"), "{rows:?}");
        println!("speedscope shows {name}: {rows:?}");
    }
}

fn dh_view(browser: &mut Browser, folder: &Path) {
    let places = ["/usr/libexec/valgrind/dh_view.html", "/usr/lib/valgrind/dh_view.html"];
    let Some(page) = places.into_iter().find(|page| Path::new(page).is_file()) else {
        println!("SKIPPED: no dh_view.html here (Debian package valgrind), so nobody loaded a file of DHAT");
        return;
    };
    freestone::control::set_sample_interval(1);
    let kept: Vec<Vec<u8>> = (0..100).map(|_| vec![7; 5000]).collect();
    drop((0..50).map(|_| vec![7_u8; 3000]).collect::<Vec<_>>());
    freestone::control::set_sample_interval(0);
    let text = profile::dhat(&mut Context::default());
    drop(kept);
    let document: Value = serde_json::from_str(&text).expect("JSON");
    let sum =
        |key: &str| -> u64 { document["pps"].as_array().expect("points").iter().filter_map(|point| point[key].as_u64()).sum() };
    assert!(sum("eb") >= 100 * 5000 && sum("tbk") >= 150 && sum("gb") >= 100 * 5000, "{text}");

    fs::write(folder.join("dhat.json"), &text).expect("a file for the test");
    browser.open(&format!("file://{page}"));
    browser.wait_for("typeof gInput !== 'undefined'");
    let begin = format!(
        "(() => {{ const files = new DataTransfer(); files.items.add(new File([{}], 'dhat.json')); gInput.files = files.files; loadFile(); }})()",
        json!(text)
    );
    browser.evaluate(&begin);
    browser.wait_for("document.body.innerText.includes('At t-gmax')");
    let shown = browser.evaluate("document.body.innerText");
    let shown = shown.as_str().expect("text");
    assert!(!shown.contains("rror"), "{shown}");
    let grouped = thousands(sum("tb"));
    assert!(shown.contains(&format!("{grouped} bytes")), "{grouped} is not in {shown}");
    assert!(shown.contains(&format!("{} bytes", thousands(sum("eb")))), "{shown}");
}

/// 1234567 as `1,234,567`.
fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits.as_bytes().rchunks(3).rev().map(|group| std::str::from_utf8(group).expect("digits")).collect();
    groups.join(",")
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let number = (0..3).fold(0_usize, |number, at| number << 8 | usize::from(group.get(at).copied().unwrap_or_default()));
        for at in 0..4 {
            text.push(if at <= group.len() { char::from(DIGITS[number >> (18 - 6 * at) & 63]) } else { '=' });
        }
    }
    text
}
