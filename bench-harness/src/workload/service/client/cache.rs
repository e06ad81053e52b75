//! Load and silence for the cache. A request looks a key up and, when it is not there, stores its value, as a program does with what it has just
//! fetched from its database; so it ends with the same value whether or not there was one, and sums do not depend on who was evicted when.
//! A few requests store anyway, and a few delete.

use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::super::host::Report;
use super::super::orders::hash;
use super::super::{BURSTS, IDLE, LARGEST, SERIAL_CONNECTIONS, SMALLEST, VALUE_BYTES_MAX};
use super::{Asked, Course, Turn, wait_for_go};
use crate::workload::Rng;

/// Values of the default sizes have 10 KB on average: together, three times what the cache may hold.
const KEYS: usize = 20_000;

/// The values of all keys: a piece of one tape of noise each, so that none has to be kept.
struct Values {
    tape: Vec<u8>,
    smallest: u64,
    largest: u64,
}

impl Values {
    fn new(asked: &Asked) -> Self {
        let (smallest, largest) = (asked.chosen.number(&SMALLEST), asked.chosen.number(&LARGEST));
        let mut rng = Rng::new(1);
        let words = (0..2 * VALUE_BYTES_MAX / 8).map(|_| rng.number());
        Self { tape: words.flat_map(u64::to_le_bytes).collect(), smallest, largest: largest.max(smallest) }
    }

    /// As many values between 1 and 2 KiB as between 32 and 64.
    fn of(&self, key: u64) -> &[u8] {
        let mut rng = Rng::new(key);
        let doublings = (self.largest as f64 / self.smallest as f64).log2();
        let share = rng.below(1 << 20) as f64 / f64::from(1 << 20);
        let length = (self.smallest as f64 * (doublings * share).exp2()) as usize;
        let begin = rng.below(self.tape.len() - length);
        &self.tape[begin..begin + length]
    }
}

pub(super) async fn run(asked: &Asked) -> Result<Report, String> {
    let values = Rc::new(Values::new(asked));
    let (bursts, requests) = (asked.chosen.number(&BURSTS).max(1), asked.requests());
    let silence = Duration::from_millis(asked.chosen.number(&IDLE));
    let mut control = Socket::connect(asked).await.map_err(|error| asked.unreachable(&error))?;
    wait_for_go()?;

    let course = Rc::new(Course::new(requests, None));
    let mut loaded = Duration::ZERO;
    for burst in 1..=bursts {
        // The whole of the course in as many parts as there are bursts.
        let last = requests * burst / bursts;
        let start = Instant::now();
        let mut streams: Vec<JoinHandle<()>> = Vec::new();
        for _ in 0..asked.chosen.number(&SERIAL_CONNECTIONS).max(1) {
            let socket = Socket::connect(asked).await.map_err(|error| asked.unreachable(&error))?;
            let (course, values) = (Rc::clone(&course), Rc::clone(&values));
            streams.push(tokio::task::spawn_local(async move { attend(&course, &values, socket, last).await }));
        }
        asked.finish(&course, streams).await?;
        loaded += start.elapsed();
        control.tell("REST").await?;
        tokio::time::sleep(silence).await;
        control.tell("WAKE").await?;
    }
    Ok(course.report(loaded))
}

async fn attend(course: &Course, values: &Values, mut socket: Socket, last: u64) {
    while course.next.get() < last {
        let Some(turn) = course.turn().await else { return };
        let answer = socket.ask(values, turn).await;
        course.book(turn, answer);
    }
}

/// A connection, and the line that was read last.
struct Socket {
    connection: BufReader<TcpStream>,
    line: Vec<u8>,
    value: Vec<u8>,
}

impl Socket {
    async fn connect(asked: &Asked) -> io::Result<Self> {
        let connection = TcpStream::connect(asked.address).await?;
        connection.set_nodelay(true)?;
        Ok(Self { connection: BufReader::new(connection), line: Vec::new(), value: Vec::new() })
    }

    async fn send(&mut self, request: &[u8]) -> Result<&[u8], String> {
        let exchange = async {
            self.connection.write_all(request).await?;
            self.line.clear();
            self.connection.read_until(b'\n', &mut self.line).await
        };
        exchange.await.map_err(|error: io::Error| format!("the connection broke: {error}"))?;
        self.line.strip_suffix(b"\n").ok_or_else(|| "the connection ended within an answer".to_owned())
    }

    async fn tell(&mut self, command: &str) -> Result<(), String> {
        match self.send(format!("{command}\n").as_bytes()).await? {
            b"OK" => Ok(()),
            other => Err(format!("the cache answered {command} with '{}'", String::from_utf8_lossy(other))),
        }
    }

    async fn ask(&mut self, values: &Values, turn: Turn) -> Result<u64, String> {
        let mut rng = Rng::new(turn.nth);
        // Some keys are asked for far more often than others: half of all requests go to the first sixth.
        let (first, second) = rng.two_below(KEYS, KEYS);
        let key = (first * second / KEYS) as u64;
        let value = values.of(key);
        match rng.below(100) {
            0..3 => self.delete(key).await?,
            3..10 => self.set(key, value).await?,
            _ => self.look_up(key, value).await?,
        }
        Ok(hash(turn.nth, value))
    }

    async fn delete(&mut self, key: u64) -> Result<(), String> {
        match self.send(format!("DEL key-{key}\n").as_bytes()).await? {
            b"DELETED" | b"MISS" => Ok(()),
            other => Err(unexpected("DEL", other)),
        }
    }

    async fn set(&mut self, key: u64, value: &[u8]) -> Result<(), String> {
        let mut request = format!("SET key-{key} {}\n", value.len()).into_bytes();
        request.extend_from_slice(value);
        match self.send(&request).await? {
            b"STORED" => Ok(()),
            other => Err(unexpected("SET", other)),
        }
    }

    async fn look_up(&mut self, key: u64, value: &[u8]) -> Result<(), String> {
        let answer = self.send(format!("GET key-{key}\n").as_bytes()).await?;
        if answer == b"MISS" {
            return self.set(key, value).await;
        }
        if answer != format!("VALUE {}", value.len()).as_bytes() {
            return Err(unexpected("GET", answer));
        }
        self.value.resize(value.len(), 0);
        let read = self.connection.read_exact(&mut self.value).await;
        read.map_err(|error| format!("the connection broke: {error}"))?;
        if self.value == value { Ok(()) } else { Err(format!("key {key} has the value of another")) }
    }
}

fn unexpected(command: &str, answer: &[u8]) -> String {
    format!("the cache answered {command} with '{}'", String::from_utf8_lossy(&answer[..answer.len().min(60)]))
}
