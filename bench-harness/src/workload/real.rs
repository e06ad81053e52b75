//! Real work on real input: the metadata of this workspace as JSON, and the sources of the workspace and of what it depends on. The harness
//! prepares both; see `inputs.rs`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde_json::Value;

use super::{Context, Outcome, Rng, Workload, timed};

/// Real work, in the order of the table.
pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "real-json",
        about: "parse the workspace's metadata (some hundred KB of JSON) and write it again; an operation is one document",
        telling: true,
        run: json,
    },
    Workload {
        name: "real-index",
        about: "an inverted index over the sources of all dependencies; an operation is one word",
        telling: true,
        run: index,
    },
    Workload {
        name: "real-btree",
        about: "a BTreeMap<String, Vec<u32>> under insertion and removal, fed with these words; an operation is one word",
        telling: false,
        run: btree,
    },
    Workload {
        name: "real-documents",
        about: "four threads parse documents, each hands them to the next, which writes and drops them; an operation is one document",
        telling: true,
        run: documents,
    },
];

/// The file of the metadata.
pub const METADATA: &str = "metadata.json";
/// The file of the sources, all in one.
pub const SOURCES: &str = "sources.txt";

fn read(folder: &Path, name: &str) -> String {
    let path = folder.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => crate::subject::fail(&format!("cannot read the input {}: {error}", path.display())),
    }
}

fn hash(sum: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(sum, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn parse(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value) => value,
        Err(error) => crate::subject::fail(&format!("the input {METADATA} is not JSON: {error}")),
    }
}

fn json(context: &Context) -> Outcome {
    let text = read(&context.inputs, METADATA);
    let operations = context.scaled(24_000_000 / text.len().max(1) as u64);
    timed(|| {
        let mut sum = 0_u64;
        for _ in 0..operations {
            let value = black_box(parse(&text));
            let written = black_box(value.to_string());
            sum = hash(sum, &written.as_bytes()[..written.len().min(4096)]).wrapping_add(written.len() as u64);
        }
        (operations, sum)
    })
}

/// The words of the sources: letters and underscores.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !(letter.is_ascii_alphabetic() || letter == '_')).filter(|word| !word.is_empty())
}

/// The first `bytes` of a text, to the end of the line.
fn beginning(text: &str, bytes: u64) -> &str {
    let end = text.as_bytes().iter().skip(bytes as usize).position(|byte| *byte == b'\n');
    end.map_or(text, |end| &text[..bytes as usize + end])
}

fn index(context: &Context) -> Outcome {
    let text = read(&context.inputs, SOURCES);
    let text = beginning(&text, context.scaled(10_000_000));
    timed(|| {
        let mut places: HashMap<String, Vec<(u32, u32)>> = HashMap::new();
        let mut operations = 0;
        for (number, line) in text.lines().enumerate() {
            for (column, word) in words(line).enumerate() {
                let word = word.to_lowercase();
                places.entry(word).or_default().push((number as u32, column as u32));
                operations += 1;
            }
        }
        let mut most: Vec<(&String, usize)> = places.iter().map(|(word, places)| (word, places.len())).collect();
        most.sort_unstable_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
        let sum = most.iter().take(100).fold(0, |sum, (word, count)| hash(sum, word.as_bytes()).wrapping_add(*count as u64));
        (operations, sum.wrapping_add(places.len() as u64))
    })
}

fn btree(context: &Context) -> Outcome {
    let text = read(&context.inputs, SOURCES);
    let text = beginning(&text, context.scaled(5_000_000));
    timed(|| {
        let mut map: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        let mut rng = Rng::new(13);
        let mut operations = 0;
        let mut sum = 0_u64;
        for word in words(text) {
            map.entry(word.to_owned()).or_default().push(operations as u32);
            if rng.below(8) == 0 {
                // The next word from a random place on goes, with all its list.
                let from = [b'a' + rng.below(26) as u8, b'a' + rng.below(26) as u8];
                let from = std::str::from_utf8(&from).unwrap_or("a").to_owned();
                if let Some(key) = map.range(from..).next().map(|(key, _)| key.clone()) {
                    let list = map.remove(&key).unwrap_or_default();
                    sum = sum.wrapping_mul(31).wrapping_add(list.len() as u64);
                }
            }
            operations += 1;
        }
        (operations, sum.wrapping_add(map.len() as u64))
    })
}

/// Every document is dropped by another thread than the one that parsed it. Every thread does both, so that no side waits for the other
/// and what is measured is not how the scheduler spreads unequal threads.
fn documents(context: &Context) -> Outcome {
    const THREADS: usize = 4;
    const BATCH: usize = 16;
    let text = read(&context.inputs, METADATA);
    let whole = parse(&text);
    let packages: Vec<String> = whole["packages"].as_array().into_iter().flatten().map(Value::to_string).collect();
    drop(whole);
    let bytes: usize = packages.iter().map(String::len).sum();
    let batches = (context.scaled(40_000_000) as usize * packages.len() / (bytes.max(1) * BATCH * THREADS)).max(1);
    timed(|| {
        let inboxes: [Mutex<Vec<Value>>; THREADS] = Default::default();
        let left = AtomicUsize::new(batches * BATCH * THREADS);
        let total = Mutex::new(0_u64);
        thread::scope(|scope| {
            for me in 0..THREADS {
                let (inboxes, left, total, packages) = (&inboxes, &left, &total, &packages);
                scope.spawn(move || {
                    let mut sum = 0_u64;
                    let mut batch = 0;
                    while left.load(Ordering::Relaxed) > 0 {
                        if batch < batches {
                            let first = (batch * THREADS + me) * BATCH;
                            let parsed: Vec<Value> =
                                (first..first + BATCH).map(|nth| black_box(parse(&packages[nth % packages.len()]))).collect();
                            inboxes[(me + 1) % THREADS].lock().expect("no thread panics").extend(parsed);
                            batch += 1;
                        }
                        let received = std::mem::take(&mut *inboxes[me].lock().expect("no thread panics"));
                        if received.is_empty() && batch == batches {
                            thread::yield_now();
                        }
                        left.fetch_sub(received.len(), Ordering::Relaxed);
                        for document in received {
                            let written = black_box(document.to_string());
                            sum = sum.wrapping_add(hash(0, &written.as_bytes()[..written.len().min(256)]));
                        }
                    }
                    let mut total = total.lock().expect("no thread panics");
                    *total = total.wrapping_add(sum);
                });
            }
        });
        let total = total.lock().expect("no thread panics");
        ((batches * BATCH * THREADS) as u64, *total)
    })
}
