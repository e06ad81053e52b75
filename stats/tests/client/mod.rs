//! A client that says exactly what it is told to, and reads what comes back.
#![allow(dead_code, unreachable_pub, missing_debug_implementations, reason = "each test takes its part of this file")]

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// Long: it only ends tests that would hang.
const PATIENCE: Duration = Duration::from_mins(1);

/// What a server said.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error} in {}", self.body))
    }
}

pub fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a server that listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// `GET path`, with these further lines, on a connection of its own.
pub fn get(address: SocketAddr, path: &str, lines: &[&str]) -> Answer {
    ask(address, "GET", path, lines)
}

pub fn ask(address: SocketAddr, method: &str, path: &str, lines: &[&str]) -> Answer {
    let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    if !lines.iter().any(|line| line.to_ascii_lowercase().starts_with("host:")) {
        let _ = write!(request, "host: {address}\r\n");
    }
    for line in lines {
        let _ = write!(request, "{line}\r\n");
    }
    let said = say(address, format!("{request}\r\n").as_bytes());
    parse(&said).unwrap_or_else(|| panic!("{method} {path} was answered with {:?}", String::from_utf8_lossy(&said)))
}

/// As [`ask`], for bodies that are no text: the text of the answer is its head only.
pub fn ask_bytes(address: SocketAddr, method: &str, path: &str, lines: &[&str], body: &[u8]) -> (Answer, Vec<u8>) {
    let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\nhost: {address}\r\n");
    for line in lines {
        let _ = write!(request, "{line}\r\n");
    }
    if !body.is_empty() {
        let _ = write!(request, "content-length: {}\r\n", body.len());
    }
    let said = say(address, &[format!("{request}\r\n").as_bytes(), body].concat());
    let end = said.windows(4).position(|four| four == b"\r\n\r\n").map_or(said.len(), |at| at + 4);
    let head =
        parse(&said[..end]).unwrap_or_else(|| panic!("{method} {path} was answered with {:?}", String::from_utf8_lossy(&said)));
    (head, said[end..].to_vec())
}

/// Says this and hears what comes until the end.
pub fn say(address: SocketAddr, request: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    // A server may hang up before it has heard all.
    let _ = stream.write_all(request);
    hear(&mut stream)
}

/// Everything until the end, or until the connection is reset.
pub fn hear(stream: &mut TcpStream) -> Vec<u8> {
    let (mut said, mut part) = (Vec::new(), [0; 4096]);
    while let Ok(count @ 1..) = stream.read(&mut part) {
        said.extend_from_slice(&part[..count]);
    }
    said
}

/// Asks on a connection that stays open; `None` if it is closed instead.
pub fn ask_again(stream: &mut TcpStream, path: &str) -> Option<Answer> {
    let address = stream.peer_addr().ok()?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes()).ok()?;
    let (mut said, mut part) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(answer) = parse(&said)
            && answer.header("content-length").parse() == Ok(answer.body.len())
        {
            return Some(answer);
        }
        match stream.read(&mut part) {
            Ok(count @ 1..) => said.extend_from_slice(&part[..count]),
            _ => return None,
        }
    }
}

pub fn parse(said: &[u8]) -> Option<Answer> {
    let said = std::str::from_utf8(said).ok()?;
    let (head, body) = said.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.strip_prefix("HTTP/1.")?.split(' ').nth(1)?.parse().ok()?;
    let header = |line: &str| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    Some(Answer { status, headers: lines.filter_map(header).collect(), body: body.to_owned() })
}

/// How many bytes this process has in memory.
pub fn resident() -> u64 {
    let [total, _] = freestone::resident().expect("/proc can be read");
    total as u64
}
