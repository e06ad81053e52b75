//! Five real programs, each a process of its own on Freestone: after its start, at its peak, and after it has freed what it had, the ledger closes,
//! and leaves no more than 3 % of what is resident, and 2 MiB, unexplained.
//!
//! They differ in who holds the memory: a C library on the C library's malloc, a service with worker threads, trees of small blocks, threads with
//! deep stacks beside mapped files and shared memory, and a compiler's front end. `--nocapture` shows their ledgers.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt::Write as _;
use std::hint::black_box;
use std::net::SocketAddr;
use std::os::fd::FromRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, Instant};
use std::{env, fs, io, mem, panic, ptr, thread};

use axum::Router;
use axum::extract::{Path as InPath, State};
use axum::routing::get;
use freestone::Freestone;
use freestone_stats::{Ledger, Part};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// Tells a child which program it is.
const PROGRAM: &str = "FREESTONE_TEST_PROGRAM";
const MIB: u64 = 1 << 20;

#[test]
fn sqlite_on_the_c_librarys_malloc() {
    run("sqlite");
}

#[test]
fn a_service_with_worker_threads() {
    run("service");
}

#[test]
fn json_documents() {
    run("documents");
}

#[test]
fn deep_stacks_beside_files_and_shared_memory() {
    run("buffers");
}

#[test]
fn a_compilers_front_end() {
    run("front_end");
}

#[test]
fn threads_by_the_hundred_and_a_fork() {
    run("moments");
}

/// Starts this binary again as one of the programs, and shows what it said.
fn run(program: &str) {
    let this = env::current_exe().expect("this binary has a path");
    let output = Command::new(this)
        .args(["--exact", "program", "--ignored", "--nocapture", "--test-threads=1"])
        .env(PROGRAM, program)
        .output()
        .expect("this binary can be started");
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}");
    assert!(output.status.success(), "{program}: {}\n{said}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("1 passed"), "{program} was not run:\n{said}");
}

#[test]
#[ignore = "is what the others start"]
fn program() {
    // Unwinding would wait for threads that wait for this one.
    panic::set_hook(Box::new(|what| {
        eprintln!("{what}");
        // SAFETY: always allowed.
        unsafe { libc::_exit(101) }
    }));
    match env::var(PROGRAM).as_deref() {
        Ok("sqlite") => sqlite(),
        Ok("service") => service(),
        Ok("documents") => documents(),
        Ok("buffers") => buffers(),
        Ok("front_end") => front_end(),
        Ok("moments") => moments(),
        other => panic!("no such program: {other:?}"),
    }
}

/// Takes a ledger, shows it, and checks that it closes.
fn look(moment: &str) -> Ledger {
    let ledger = freestone_stats::ledger();
    println!("-- {moment}\n{ledger}");
    check(&ledger);
    ledger
}

/// The same, and another reading of the kernel's says the same of the whole. Not always at the first attempt: memory goes back meanwhile.
fn look_twice(moment: &str) -> Ledger {
    let ledger = look(moment);
    let mut off = Vec::new();
    let agrees = (0..10).any(|_| {
        let resident = freestone_stats::ledger().process.resident.expect("checked above");
        let rollup = fs::read_to_string("/proc/self/smaps_rollup").expect("this kernel has one");
        let line = rollup.lines().find(|line| line.starts_with("Rss:")).expect("it says what is resident");
        let kibibytes: u64 = line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("a number");
        off.push(resident.abs_diff(kibibytes << 10));
        off.last() <= Some(&(256 << 10))
    });
    assert!(agrees, "{off:?} bytes off");
    ledger
}

fn check(ledger: &Ledger) {
    let lines = ledger.lines();
    let sum = |part| lines.iter().filter(|line| line.part == part).map(|line| line.bytes).sum::<i64>();
    let bytes = &ledger.snapshot.heap.bytes;
    assert_eq!(sum(Part::Heap), bytes.committed() as i64);
    assert_eq!(sum(Part::Heap) + sum(Part::GivenBack), bytes.reserved() as i64);
    let resident = ledger.process.resident.expect("the kernel says what is resident");
    assert_eq!(sum(Part::Resident), resident as i64);
    assert_eq!(ledger.process.unread, Vec::<String>::new());
    let unexplained = ledger.process.unexplained().expect("mappings can be read").unsigned_abs();
    assert!(unexplained <= resident * 3 / 100 + 2 * MIB, "{unexplained} bytes of {resident} are unexplained:\n{ledger}");
    let text = ledger.to_string();
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

// 1. SQLite, in Debian's build: a C library, and its memory comes from the C library's malloc.

type Open = unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> c_int;
type Execute = unsafe extern "C" fn(*mut c_void, *const c_char, *const c_void, *const c_void, *mut *mut c_char) -> c_int;
type Close = unsafe extern "C" fn(*mut c_void) -> c_int;

/// A connection, by the three functions of `sqlite3.h` that it takes.
struct Database {
    connection: *mut c_void,
    execute: Execute,
    close: Close,
}

// SAFETY: Debian's build lets any thread use a connection, one at a time.
unsafe impl Send for Database {}

impl Database {
    /// A database in memory. `None`: the library is not there.
    fn open() -> Option<Self> {
        // SAFETY: a library without surprises in its constructors.
        let library = unsafe { libc::dlopen(c"libsqlite3.so.0".as_ptr(), libc::RTLD_NOW) };
        if library.is_null() {
            return None;
        }
        let function = |name: &CStr| {
            // SAFETY: the name ends with a zero byte.
            let found = unsafe { libc::dlsym(library, name.as_ptr()) };
            assert!(!found.is_null(), "{name:?}");
            found
        };
        // SAFETY: the types are those of `sqlite3.h`, here and below.
        let open = unsafe { mem::transmute::<*mut c_void, Open>(function(c"sqlite3_open")) };
        // SAFETY: as above.
        let execute = unsafe { mem::transmute::<*mut c_void, Execute>(function(c"sqlite3_exec")) };
        // SAFETY: as above.
        let close = unsafe { mem::transmute::<*mut c_void, Close>(function(c"sqlite3_close")) };
        let mut connection = ptr::null_mut();
        // SAFETY: a name, and a place for the connection.
        let status = unsafe { open(c":memory:".as_ptr(), &raw mut connection) };
        assert_eq!(status, 0, "a database in memory can be opened");
        Some(Self { connection, execute, close })
    }

    fn execute(&self, statement: &str) {
        let text = CString::new(statement).expect("no zero byte within");
        // SAFETY: an open connection and a text; nobody wants rows or messages.
        let status = unsafe { (self.execute)(self.connection, text.as_ptr(), ptr::null(), ptr::null(), ptr::null_mut()) };
        assert_eq!(status, 0, "{statement}");
    }

    fn fill(&self, rows: usize) {
        self.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, payload BLOB, name TEXT)");
        self.execute(&format!(
            "WITH RECURSIVE n(id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM n WHERE id < {rows}) \
             INSERT INTO events SELECT id, randomblob(200), 'event ' || id FROM n"
        ));
        self.execute("CREATE INDEX by_name ON events (name)");
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // SAFETY: open, and not used any more.
        assert_eq!(unsafe { (self.close)(self.connection) }, 0);
    }
}

fn sqlite() {
    let Some(main) = Database::open() else {
        println!("SKIPPED: no libsqlite3.so.0 (Debian package libsqlite3-0), so no C library's memory was accounted for");
        return;
    };
    look("sqlite, started");
    main.fill(150_000);
    // Other threads' memory comes from other arenas of the C library.
    let others: Vec<Database> = thread::scope(|scope| {
        let open = || {
            let database = Database::open().expect("it was there before");
            database.fill(50_000);
            database
        };
        let workers: Vec<_> = (0..3).map(|_| scope.spawn(open)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a worker")).collect()
    });
    // And large blocks have mappings of their own.
    // SAFETY: not freed before the end, and written within its bounds.
    let large: Vec<*mut u8> = (1..20).map(|nth| unsafe { libc::malloc(nth << 20) }.cast()).collect();
    for (nth, &block) in (1..20).zip(&large) {
        assert!(!block.is_null());
        // SAFETY: as above: half of what was allocated.
        unsafe { block.write_bytes(1, nth << 19) };
    }
    let full = look_twice("sqlite, 300,000 rows in four databases, and blocks of 1 to 19 MiB half full");
    assert!(full.process.other_allocators > Some(150 * MIB), "{full}");
    // SAFETY: allocated above.
    large.into_iter().for_each(|block| unsafe { libc::free(block.cast()) });
    drop(others);
    main.execute("DELETE FROM events WHERE id % 3 > 0");
    let after = look("sqlite, a third of one is left");
    assert!(after.process.other_allocators < full.process.other_allocators, "{after}");
}

// 2. A service: axum on tokio, clients over loopback.

type Store = Arc<Mutex<BTreeMap<u32, String>>>;

async fn put(State(store): State<Store>, InPath(key): InPath<u32>, body: String) -> String {
    let length = body.len();
    store.lock().expect("nobody panics with it").insert(key, body.to_uppercase());
    format!("{length} bytes\n")
}

async fn find(State(store): State<Store>, InPath(key): InPath<u32>) -> String {
    store.lock().expect("nobody panics with it").get(&key).cloned().unwrap_or_default()
}

async fn client(address: SocketAddr, first: u32, requests: u32) -> io::Result<usize> {
    let mut connection = tokio::net::TcpStream::connect(address).await?;
    let mut answer = vec![0; 64 << 10];
    let mut received = 0;
    for key in first..first + requests {
        let body = "a value ".repeat(key as usize % 2000);
        let put = format!("POST /{key} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        connection.write_all(put.as_bytes()).await?;
        received += connection.read(&mut answer).await?;
    }
    let last = format!("GET /{first} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    connection.write_all(last.as_bytes()).await?;
    Ok(received + connection.read_to_end(&mut answer).await?)
}

fn service() {
    const CLIENTS: u32 = 64;
    const REQUESTS: u32 = 100;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(8).enable_all().build().expect("a runtime");
    let store = Store::default();
    let router = Router::new().route("/{key}", get(find).post(put)).with_state(Arc::clone(&store));
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
    let address = listener.local_addr().expect("it is bound");
    runtime.spawn(async { axum::serve(listener, router).await });
    look("service, started");
    let clients: Vec<_> = (0..CLIENTS).map(|nth| runtime.spawn(client(address, nth * REQUESTS, REQUESTS))).collect();
    look("service, under load");
    let received: usize = clients.into_iter().map(|client| runtime.block_on(client).expect("a client").expect("an answer")).sum();
    assert!(received > (CLIENTS * REQUESTS) as usize * 50, "{received} bytes");
    assert_eq!(store.lock().expect("nobody panics with it").len(), (CLIENTS * REQUESTS) as usize);
    look("service, all requests answered");
    store.lock().expect("nobody panics with it").clear();
    freestone::control::release_to_os();
    look("service, store cleared");
    let named =
        freestone_stats::threads().into_iter().filter(|thread| thread.name.as_deref().is_some_and(|name| name.contains("tokio")));
    assert!(named.count() >= 8);
}

// 3. Documents: trees of small blocks, parsed and dropped.

fn documents() {
    look("documents, started");
    let mut text = String::from("[");
    for nth in 0..60_000 {
        let comma = if nth == 0 { "" } else { "," };
        write!(
            text,
            r#"{comma}{{"id":{nth},"name":"document {nth}","tags":["a","b{}"],"size":{}.5,"open":true}}"#,
            nth % 97,
            nth * 3
        )
        .expect("text can be appended to");
    }
    text.push(']');
    let trees: Vec<serde_json::Value> = (0..3).map(|_| serde_json::from_str(&text).expect("what was written above")).collect();
    let full = look_twice("documents, three times 60,000 parsed");
    assert!(full.process.heap > Some(50 * MIB), "{full}");
    let count: usize = trees.iter().filter_map(|tree| tree.as_array()).map(Vec::len).sum();
    assert_eq!(count, 180_000);
    drop(trees);
    look("documents, dropped");
    freestone::control::release_to_os();
    let after = look("documents, given back");
    assert!(after.process.heap < Some(30 * MIB), "{after}");
}

// 4. Threads with deep stacks, large buffers, a mapped file, shared memory.

/// Touches a page of stack per level.
fn dig(levels: usize) -> usize {
    let frame = black_box([levels as u8; 4000]);
    let below = if levels == 0 { 0 } else { dig(levels - 1) };
    below + usize::from(black_box(&frame)[levels % 4000] == levels as u8)
}

fn buffers() {
    const THREADS: usize = 64;
    look("buffers, started");
    let path = env::temp_dir().join(format!("freestone-buffers-{}", std::process::id()));
    fs::write(&path, vec![7; 32 * MIB as usize]).expect("a file of 32 MiB");
    let file = fs::File::open(&path).expect("the file");
    // SAFETY: nobody writes to it.
    let mapped = unsafe { memmap2::Mmap::map(&file) }.expect("a mapping");
    let _ = fs::remove_file(&path);
    // SAFETY: a name, and no flags.
    let descriptor = unsafe { libc::memfd_create(c"ring".as_ptr(), 0) };
    assert!(descriptor >= 0);
    // SAFETY: just opened, and nobody else's.
    let shared_file = unsafe { fs::File::from_raw_fd(descriptor) };
    shared_file.set_len(24 * MIB).expect("24 MiB of shared memory");
    // SAFETY: nobody else maps it.
    let mut shared = unsafe { memmap2::MmapMut::map_mut(&shared_file) }.expect("a mapping");
    shared.fill(3);
    let read: u64 = mapped.iter().step_by(512).map(|&byte| u64::from(byte)).sum();
    assert_eq!(read, 7 * 32 * MIB / 512);

    let (deep, seen) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    let full = thread::scope(|scope| {
        for nth in 0..THREADS {
            let (deep, seen) = (&deep, &seen);
            let work = move || {
                assert_eq!(dig(100), 101);
                let buffer = vec![nth as u8; 2 * MIB as usize];
                deep.wait();
                seen.wait();
                black_box(buffer);
            };
            thread::Builder::new().name(format!("digger {nth}")).stack_size(1 << 20).spawn_scoped(scope, work).expect("a thread");
        }
        deep.wait();
        let full = look_twice("buffers, 64 threads with buffers of 2 MiB, a file, shared memory");
        let diggers = freestone_stats::threads();
        let names = diggers.iter().filter_map(|thread| thread.name.as_deref());
        assert_eq!(names.filter(|name| name.starts_with("digger ")).count(), THREADS);
        seen.wait();
        full
    });
    assert!(full.process.heap > Some(128 * MIB), "{full}");
    assert!(full.process.thread_stacks > Some(THREADS as u64 * (400 << 10)), "{full}");
    assert!(full.process.file_backed > Some(32 * MIB), "{full}");
    assert!(full.process.shared >= Some(24 * MIB), "{full}");
    drop((mapped, shared));
    let after = look("buffers, dropped");
    assert!(after.process.shared < Some(MIB), "{after}");
    assert!(after.process.thread_stacks < full.process.thread_stacks, "{after}");
}

// 5. A compiler's front end: files are mapped, parsed into trees and walked.

/// Counts what is defined and used.
#[derive(Default)]
struct Index(BTreeMap<String, usize>);

impl<'ast> syn::visit::Visit<'ast> for Index {
    fn visit_path_segment(&mut self, segment: &'ast syn::PathSegment) {
        *self.0.entry(segment.ident.to_string()).or_default() += 1;
        syn::visit::visit_path_segment(self, segment);
    }
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn front_end() {
    look("front end, started");
    let mut paths = Vec::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for folder in ["allocator/src", "stats/src", "tests/src", "tests/tests"] {
        sources(&root.join(folder), &mut paths);
    }
    assert!(paths.len() > 50, "{paths:?}");
    let mut mapped = Vec::new();
    for path in &paths {
        let file = fs::File::open(path).expect("a source file");
        // SAFETY: should somebody change a source file meanwhile, this test is not what suffers.
        mapped.push(unsafe { memmap2::Mmap::map(&file) }.expect("a mapping"));
    }
    let mut trees = Vec::new();
    let mut index = Index::default();
    for _ in 0..4 {
        for text in &mapped {
            let tree = syn::parse_file(std::str::from_utf8(text).expect("a text")).expect("our own sources");
            syn::visit::Visit::visit_file(&mut index, &tree);
            trees.push(tree);
        }
    }
    assert!(index.0["Self"] > 100);
    let full = look_twice("front end, our own sources parsed four times");
    assert!(full.process.heap > Some(20 * MIB), "{full}");
    drop(trees);
    drop(mapped);
    look("front end, dropped");
}

// And moments that are not a program's: many threads, some of them born without ever allocating, some dead; a child of a fork.

extern "C" fn wait_at(barrier: *mut c_void) -> *mut c_void {
    // SAFETY: `moments` hands its barrier over, and keeps it until all have ended.
    let barrier = unsafe { &*barrier.cast::<[libc::pthread_barrier_t; 2]>() };
    for barrier in barrier {
        // SAFETY: initialised before this thread was made.
        unsafe { libc::pthread_barrier_wait(ptr::from_ref(barrier).cast_mut()) };
    }
    ptr::null_mut()
}

fn moments() {
    const THREADS: usize = 200;
    const OF_C: usize = 30;
    look("moments, started");
    // Threads that never allocate: nobody but the kernel knows of them.
    // SAFETY: to be initialised at once.
    let mut barriers: [libc::pthread_barrier_t; 2] = unsafe { mem::zeroed() };
    for barrier in &mut barriers {
        // SAFETY: a place for a barrier, and how many will wait.
        assert_eq!(unsafe { libc::pthread_barrier_init(barrier, ptr::null(), OF_C as u32 + 1) }, 0);
    }
    let shared: *mut c_void = (&raw mut barriers).cast();
    let of_c: Vec<libc::pthread_t> = (0..OF_C)
        .map(|_| {
            let mut thread = 0;
            // SAFETY: it gets what it expects.
            assert_eq!(unsafe { libc::pthread_create(&raw mut thread, ptr::null(), wait_at, shared) }, 0);
            thread
        })
        .collect();
    // SAFETY: initialised above.
    unsafe { libc::pthread_barrier_wait(shared.cast()) };
    let (ready, seen) = (Barrier::new(THREADS + 1), Barrier::new(THREADS + 1));
    thread::scope(|scope| {
        for nth in 0..THREADS {
            let (ready, seen) = (&ready, &seen);
            scope.spawn(move || {
                let blocks: Vec<String> = (0..100).map(|number| (number * nth).to_string()).collect();
                assert_eq!(dig(30), 31);
                ready.wait();
                seen.wait();
                black_box(blocks);
            });
        }
        ready.wait();
        let many = look_twice("moments, 230 threads");
        // Each has dug 30 pages deep.
        assert!(many.process.thread_stacks > Some(THREADS as u64 * (120 << 10)), "{many}");
        in_a_child(|| {
            let ledger = freestone_stats::ledger();
            check(&ledger);
            ledger.to_string()
        });
        seen.wait();
    });
    let second = shared.cast::<libc::pthread_barrier_t>().wrapping_add(1);
    // SAFETY: initialised above.
    unsafe { libc::pthread_barrier_wait(second) };
    for thread in of_c {
        // SAFETY: made above, and not waited for yet.
        assert_eq!(unsafe { libc::pthread_join(thread, ptr::null_mut()) }, 0);
    }
    wait_for_their_end();
    let ended = look("moments, all threads have ended");
    // What remains is what glibc keeps of them.
    assert!(ended.process.thread_stacks < Some(2 * MIB), "{ended}");
    assert!(freestone_stats::threads().iter().any(|thread| thread.id.is_none() && thread.name.is_none()));
}

/// Threads that were joined may take a moment more, until their stacks are given back.
fn wait_for_their_end() {
    let begun = Instant::now();
    while fs::read_dir("/proc/self/task").expect("threads can be counted").count() > 3 {
        assert!(begun.elapsed() < Duration::from_secs(20), "threads that were joined do not end");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Forks, and shows what the child has to say.
fn in_a_child(what: impl FnOnce() -> String) {
    // SAFETY: that the child of a process with threads may use the allocator is what Freestone promises.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // Not `println!`: another thread may have held the lock of standard output.
        let text = format!("-- moments, in the child of a fork\n{}\n", what());
        // SAFETY: a text that is there.
        unsafe { libc::write(1, text.as_ptr().cast(), text.len()) };
        // SAFETY: always allowed; destructors of the parent's threads must not run here.
        unsafe { libc::_exit(0) }
    }
    assert!(child > 0);
    let mut status = 0;
    // SAFETY: our child.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "the child's ledger");
}
