//! An in-memory cache over TCP: whoever was not asked for longest goes first when there is no more room. Load comes in bursts; in the silence
//! behind each of them three quarters of the entries expire, and the question is who gets their memory.
//!
//! ```text
//!   GET key\n         → VALUE length\n and the value, or MISS\n
//!   SET key length\n and the value → STORED\n
//!   DEL key\n         → DELETED\n or MISS\n
//!   REST\n            → OK\n      the burst is over: looks at memory, then lets expire
//!   WAKE\n            → OK\n      the next one begins: looks at memory
//!                     → ERROR why\n to anything else, and the connection ends
//! ```

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::str;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{TcpListener, TcpStream};

use super::host::{self, Load};
use super::orders::hash;
use super::{CACHE, CAPACITY, IDLE, LARGEST, SMALLEST, VALUE_BYTES_MAX};
use crate::subject::{Memory, fail, note};
use crate::workload::{Context, Outcome};

/// Serves, and lets the client loose.
pub(super) fn run(context: &Context) -> Outcome {
    let chosen = &context.parameters;
    let (smallest, largest) = (chosen.number(&SMALLEST), chosen.number(&LARGEST));
    if smallest > largest {
        fail(&format!("the smallest value has {smallest} bytes and the largest {largest}: there is none in between"));
    }
    let load = Load { workload: CACHE, closed_requests: 60_000, silence_ms: chosen.number(&IDLE) };
    let store = Arc::new(Store::new((chosen.number(&CAPACITY) as usize) << 20));
    let outcome = host::run(context, &load, {
        let store = Arc::clone(&store);
        |listener, served| serve(listener, store, served)
    });
    let seen = store.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let mean = |of: &dyn Fn(&Moment) -> u64, moments: &[Moment]| {
        let sum: u64 = moments.iter().map(of).sum();
        sum.checked_div(moments.len() as u64).unwrap_or(0)
    };
    note("burst_end_rss", mean(&|moment| moment.resident, &seen.burst_ends));
    note("burst_end_live_bytes", mean(&|moment| moment.live, &seen.burst_ends));
    note("silence_end_rss", mean(&|moment| moment.resident, &seen.silence_ends));
    note("silence_end_live_bytes", mean(&|moment| moment.live, &seen.silence_ends));
    note("misses", store.misses.load(Ordering::Relaxed));
    note("evictions", store.evictions.load(Ordering::Relaxed));
    outcome
}

/// Memory when load ended, or silence.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// Without files.
    resident: u64,
    /// Keys and values.
    live: u64,
}

#[derive(Debug, Default)]
struct Seen {
    burst_ends: Vec<Moment>,
    silence_ends: Vec<Moment>,
}

/// Enough that connections seldom wait for each other.
const SHARDS: usize = 16;

#[derive(Debug)]
struct Store {
    shards: [Mutex<Shard>; SHARDS],
    shard_bytes_max: usize,
    seen: Mutex<Seen>,
    // Counts, in any order.
    misses: AtomicU64,
    evictions: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Arc<[u8]>, Entry>,
    /// Keys by when they were asked for last.
    order: BTreeMap<u64, Arc<[u8]>>,
    /// How often anybody asked.
    clock: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    value: Bytes,
    asked: u64,
}

impl Shard {
    fn get(&mut self, key: &[u8]) -> Option<Bytes> {
        let entry = self.entries.get_mut(key)?;
        self.clock += 1;
        if let Some(key) = self.order.remove(&entry.asked) {
            self.order.insert(self.clock, key);
        }
        entry.asked = self.clock;
        Some(entry.value.clone())
    }

    fn set(&mut self, key: &[u8], value: Bytes) {
        self.delete(key);
        self.clock += 1;
        self.bytes += key.len() + value.len();
        let key: Arc<[u8]> = key.into();
        self.order.insert(self.clock, Arc::clone(&key));
        self.entries.insert(key, Entry { value, asked: self.clock });
    }

    fn delete(&mut self, key: &[u8]) -> bool {
        let Some((key, entry)) = self.entries.remove_entry(key) else { return false };
        self.order.remove(&entry.asked);
        self.bytes -= key.len() + entry.value.len();
        true
    }

    /// Returns how many had to go.
    fn shrink(&mut self, bytes_max: usize) -> u64 {
        let mut gone = 0;
        while self.bytes > bytes_max {
            let Some((_, key)) = self.order.pop_first() else { break };
            self.delete(&key);
            gone += 1;
        }
        gone
    }
}

impl Store {
    fn new(bytes_max: usize) -> Self {
        Self {
            shards: Default::default(),
            shard_bytes_max: bytes_max / SHARDS,
            seen: Mutex::default(),
            misses: AtomicU64::new(0),
            evictions: AtomicU64::new(0),
        }
    }

    /// Does something with the shard of a key.
    fn with<R>(&self, key: &[u8], work: impl FnOnce(&mut Shard) -> R) -> R {
        let shard = &self.shards[(hash(0, key) % SHARDS as u64) as usize];
        work(&mut shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn get(&self, key: &[u8]) -> Option<Bytes> {
        let value = self.with(key, |shard| shard.get(key));
        self.misses.fetch_add(u64::from(value.is_none()), Ordering::Relaxed);
        value
    }

    fn set(&self, key: &[u8], value: Bytes) {
        let gone = self.with(key, |shard| {
            shard.set(key, value);
            shard.shrink(self.shard_bytes_max)
        });
        self.evictions.fetch_add(gone, Ordering::Relaxed);
    }

    fn delete(&self, key: &[u8]) -> bool {
        self.with(key, |shard| shard.delete(key))
    }

    fn moment(&self) -> Moment {
        let live = self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).bytes as u64).sum();
        Moment { resident: Memory::now().anonymous, live }
    }

    /// Looks at memory, then lets three quarters of what there is expire, those first that were not asked for longest.
    fn rest(&self) {
        let moment = self.moment();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).burst_ends.push(moment);
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes_max = shard.bytes / 4;
            shard.shrink(bytes_max);
        }
    }

    fn wake(&self) {
        let moment = self.moment();
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).silence_ends.push(moment);
    }
}

async fn serve(listener: TcpListener, store: Arc<Store>, served: Arc<AtomicU64>) -> io::Result<()> {
    loop {
        let (connection, _) = listener.accept().await?;
        let (store, served) = (Arc::clone(&store), Arc::clone(&served));
        // A client that goes away ends its connection, and nothing else.
        tokio::spawn(async move { attend(connection, &store, &served).await });
    }
}

/// The longest line: a word, a key of some length, and a number.
const LINE_BYTES_MAX: u64 = 512;

/// Serves a connection to its end.
async fn attend(mut connection: TcpStream, store: &Store, served: &AtomicU64) -> io::Result<()> {
    connection.set_nodelay(true)?;
    let (reader, writer) = connection.split();
    let (mut reader, mut writer) = (BufReader::new(reader), BufWriter::new(writer));
    let mut line = Vec::new();
    loop {
        line.clear();
        if (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        match Command::read(&line) {
            Ok(Command::Get(key)) => match store.get(key) {
                Some(value) => {
                    writer.write_all(format!("VALUE {}\n", value.len()).as_bytes()).await?;
                    writer.write_all(&value).await?;
                }
                None => writer.write_all(b"MISS\n").await?,
            },
            Ok(Command::Set(key, length)) => {
                let mut value = vec![0; length];
                reader.read_exact(&mut value).await?;
                store.set(key, Bytes::from(value));
                writer.write_all(b"STORED\n").await?;
            }
            Ok(Command::Delete(key)) => {
                let answer: &[u8] = if store.delete(key) { b"DELETED\n" } else { b"MISS\n" };
                writer.write_all(answer).await?;
            }
            Ok(Command::Rest) => {
                store.rest();
                writer.write_all(b"OK\n").await?;
            }
            Ok(Command::Wake) => {
                store.wake();
                writer.write_all(b"OK\n").await?;
            }
            Err(why) => {
                writer.write_all(format!("ERROR {why}\n").as_bytes()).await?;
                return writer.flush().await;
            }
        }
        writer.flush().await?;
        // Relaxed: a count that tells whether anything happens at all.
        served.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a line asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Command<'a> {
    Get(&'a [u8]),
    Set(&'a [u8], usize),
    Delete(&'a [u8]),
    Rest,
    Wake,
}

impl<'a> Command<'a> {
    fn read(line: &'a [u8]) -> Result<Self, &'static str> {
        let line = line.strip_suffix(b"\n").ok_or("the line is too long, or cut short")?;
        let mut words = line.split(|byte| *byte == b' ');
        let command = match (words.next().unwrap_or_default(), words.next(), words.next()) {
            (b"GET", Some(key), None) => Self::Get(key),
            (b"DEL", Some(key), None) => Self::Delete(key),
            (b"SET", Some(key), Some(length)) => {
                let length = str::from_utf8(length).ok().and_then(|length| length.parse::<u64>().ok());
                let length = length.filter(|length| *length <= VALUE_BYTES_MAX).ok_or("that is no length of a value")?;
                Self::Set(key, length as usize)
            }
            (b"REST", None, None) => Self::Rest,
            (b"WAKE", None, None) => Self::Wake,
            _ => return Err("there is no such command"),
        };
        if words.next().is_some() { Err("there is more on the line than a command") } else { Ok(command) }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{Command, SHARDS, Shard, Store, VALUE_BYTES_MAX};

    #[test]
    fn who_was_not_asked_for_longest_goes_first() {
        let mut shard = Shard::default();
        for key in [b"a", b"b", b"c"] {
            shard.set(key, Bytes::from(vec![0; 9]));
        }
        assert_eq!(shard.bytes, 30);
        assert!(shard.get(b"a").is_some());
        assert_eq!(shard.shrink(20), 1);
        assert!(shard.get(b"b").is_none());
        shard.set(b"c", Bytes::from(vec![0; 4]));
        assert_eq!(shard.bytes, 15);
        assert!(shard.delete(b"a"));
        assert!(!shard.delete(b"a"));
        assert_eq!((shard.bytes, shard.entries.len(), shard.order.len()), (5, 1, 1));
        assert_eq!(shard.shrink(0), 1);
        assert_eq!((shard.bytes, shard.entries.len(), shard.order.len()), (0, 0, 0));
    }

    #[test]
    fn a_store_never_holds_more_than_its_bound_and_three_quarters_expire() {
        let store = Store::new(SHARDS << 10);
        for key in 0..1_000_u32 {
            store.set(&key.to_le_bytes(), Bytes::from(vec![0; 100]));
            assert!(store.moment().live <= (SHARDS << 10) as u64);
        }
        let before = store.moment().live;
        assert!(before > (SHARDS << 10) as u64 * 3 / 4);
        store.rest();
        let after = store.moment().live;
        assert!(after <= before / 4 && after > before / 8, "{before} → {after}");
    }

    #[test]
    fn lines_are_commands_or_nothing() {
        assert_eq!(Command::read(b"GET some\n"), Ok(Command::Get(b"some")));
        assert_eq!(Command::read(b"SET some 17\n"), Ok(Command::Set(b"some", 17)));
        assert_eq!(Command::read(b"DEL some\n"), Ok(Command::Delete(b"some")));
        assert_eq!(Command::read(b"REST\n"), Ok(Command::Rest));
        let too_long = format!("SET some {}\n", VALUE_BYTES_MAX + 1);
        let lines: [&[u8]; 9] = [
            b"",
            b"\n",
            b"GET some",
            b"GET\n",
            b"get some\n",
            b"GET some thing\n",
            b"SET some -1\n",
            b"SET some 1 1\n",
            too_long.as_bytes(),
        ];
        for line in lines {
            assert!(Command::read(line).is_err(), "{line:?}");
        }
    }
}
