//! A browser to look at pages with: headless Chromium, spoken to by the `DevTools` protocol over pipes.

#![allow(dead_code, reason = "each test takes its part of this file")]

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// So often is asked for what is waited for, ten times a second: longer than any machine needs.
const PATIENCE: u32 = 900;

/// Chromium with one page.
pub(crate) struct Browser {
    child: Child,
    to: ChildStdin,
    from: BufReader<ChildStdout>,
    profile: PathBuf,
    session: String,
    calls: u64,
    /// What the page did since it was last looked at, oldest first.
    pub(crate) events: Vec<Value>,
}

impl Browser {
    /// `None`, and a loud line, where there is no Chromium.
    pub(crate) fn start() -> Option<Self> {
        let is_there = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
        let Some(program) = ["chromium", "chromium-browser", "google-chrome"].into_iter().find(is_there) else {
            println!("SKIPPED: no Chromium here (Debian package chromium), so nobody looked at the live page");
            return None;
        };
        let profile = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("browser-{}", std::process::id()));
        // It reads commands from descriptor 3 and writes to 4.
        let script = "exec 3<&0 4>&1 0</dev/null 1>/dev/null 2>/dev/null; exec \"$@\"";
        let mut child = Command::new("sh")
            .args(["-c", script, "sh", program, "--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"])
            .args(["--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars", "--disable-background-networking"])
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell");
        let to = child.stdin.take().expect("a pipe");
        let from = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut browser = Self { child, to, from, profile, session: String::new(), calls: 0, events: Vec::new() };
        let page = browser.call("Target.createTarget", json!({ "url": "about:blank" }));
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": page["targetId"], "flatten": true }));
        attached["sessionId"].as_str().expect("a session").clone_into(&mut browser.session);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Calls a method and waits for its result.
    #[allow(clippy::needless_pass_by_value, reason = "it is made for the call")]
    pub(crate) fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.calls += 1;
        let mut message = json!({ "id": self.calls, "method": method, "params": parameters });
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        write!(self.to, "{message}\0").expect("a browser that listens");
        self.to.flush().expect("a browser that listens");
        loop {
            let mut said = Vec::new();
            self.from.read_until(0, &mut said).expect("a browser that speaks");
            assert_eq!(said.pop(), Some(0), "the browser has ended during {method}");
            let mut said: Value = serde_json::from_slice(&said).expect("JSON");
            if said["id"] == self.calls {
                assert!(said["error"].is_null(), "{method}: {}", said["error"]);
                return said["result"].take();
            }
            self.events.push(said);
        }
    }

    pub(crate) fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({ "url": url }));
    }

    /// What an expression comes to in the page.
    pub(crate) fn evaluate(&mut self, expression: &str) -> Value {
        let mut result = self.call(
            "Runtime.evaluate",
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true, "userGesture": true }),
        );
        assert!(result["exceptionDetails"].is_null(), "{expression}: {}", result["exceptionDetails"]);
        result["result"]["value"].take()
    }

    /// Waits until an expression is true in the page.
    pub(crate) fn wait_for(&mut self, expression: &str) {
        // A page that is not there yet has nothing to be asked for.
        let careful = format!("(() => {{ try {{ return {expression} }} catch {{ return false }} }})()");
        for _ in 0..PATIENCE {
            if self.evaluate(&careful) == true {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let status = self.evaluate("document.body.dataset.state + ': ' + document.getElementById('status').textContent");
        panic!("never came true: {expression}; the page says {status}; {:?}", self.complaints(Network::Heard));
    }

    /// Presses a key where the focus is.
    pub(crate) fn press(&mut self, key: &str, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            let code = if key == "Enter" { 13 } else { 0 };
            self.call("Input.dispatchKeyEvent", json!({ "type": kind, "key": key, "text": text, "windowsVirtualKeyCode": code }));
        }
    }

    /// The window is so large, and the reader prefers these colours.
    pub(crate) fn look(&mut self, width: u32, height: u32, scheme: &str) {
        let mobile = width < 600;
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile }),
        );
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// The page as it is seen: a PNG, whole or what fits into the window.
    pub(crate) fn picture(&mut self, whole: bool) -> Vec<u8> {
        let picture = self.call("Page.captureScreenshot", json!({ "format": "png", "captureBeyondViewport": whole }));
        from_base64(picture["data"].as_str().expect("a picture"))
    }

    /// What the page complained about since this was last asked, but for what the network did when `network` is passed over.
    pub(crate) fn complaints(&mut self, network: Network) -> Vec<String> {
        self.evaluate("0");
        let is_complaint = |event: &Value| {
            let parameters = &event["params"];
            match event["method"].as_str() {
                Some("Runtime.exceptionThrown") => true,
                Some("Runtime.consoleAPICalled") => ["error", "warning", "assert"].iter().any(|kind| parameters["type"] == *kind),
                Some("Log.entryAdded") => network == Network::Heard || parameters["entry"]["source"] != "network",
                _ => false,
            }
        };
        let complaints = self.events.iter().filter(|event| is_complaint(event)).map(Value::to_string).collect();
        self.events.clear();
        complaints
    }
}

/// The contrast of every text with what is behind it, as WCAG counts it.
pub(crate) const CONTRASTS: &str = "(() => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgb = colour => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); return [...canvas.getImageData(0, 0, 1, 1).data]; };
    const light = ([r, g, b]) => [r, g, b].map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
    const behind = node => { for (; node; node = node.parentElement) { const colour = rgb(getComputedStyle(node).backgroundColor); if (colour[3] > 200) return colour; } return rgb('white'); };
    const texts = [...document.querySelectorAll('body *')].filter(node => node.checkVisibility() && !['SCRIPT', 'STYLE'].includes(node.tagName) && [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim()));
    return texts.map(node => {
        const style = getComputedStyle(node), front = light(rgb(node instanceof SVGElement ? style.fill : style.color)), back = light(behind(node instanceof SVGElement ? node.ownerSVGElement.parentElement : node));
        return { text: node.textContent.slice(0, 30), ratio: (Math.max(front, back) + .05) / (Math.min(front, back) + .05) };
    });
})()";

/// Are failures of the network complaints?
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Heard,
    PassedOver,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends with its pipe; whatever state it is in, it ends with this.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

fn from_base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for letter in text.bytes() {
        let Some(value) = LETTERS.iter().position(|&known| known == letter) else { continue };
        (bits, count) = (bits << 6 | value as u32, count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}
