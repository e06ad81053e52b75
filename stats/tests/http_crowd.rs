//! A crowd at the server of a program that runs on Freestone: this one. Ten thousand connections are held open, some silent, some in the middle of
//! a request, some that never take their answer; and the process runs out of file descriptors. Memory stays bounded, whoever has a place is
//! served, and the program's own work goes on.

mod client;

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use freestone::Freestone;
use freestone_stats::http;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

/// The crowd.
const CROWD: usize = 10_000;
/// What `docs/http.md` promises: so much more than before is resident while they are there.
const GROWTH_BYTES_MAX: u64 = 6 << 20;
/// File descriptors for everything else.
const SPARE: usize = 300;

/// One after the other: each looks at the whole process.
#[test]
fn a_crowd_is_turned_away() {
    let work = Work::start();
    ten_thousand_hold_on(&work);
    no_file_descriptor_is_left(&work);
    a_request_that_never_ends_is_hung_up_on();
    work.end();
}

/// What the service does for a living: it must neither stop nor go wrong.
struct Work {
    rounds: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Work {
    fn start() -> Self {
        let (rounds, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, ended) = (Arc::clone(&rounds), Arc::clone(&over));
        // Relaxed, here and below: numbers of a test, which looks at nothing else by them.
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let words: Vec<String> = (0..500).map(|number: usize| number.to_string().repeat(1 + number % 50)).collect();
                assert_eq!(words.iter().map(String::len).sum::<usize>(), 35_645, "the service computes something else");
                counted.fetch_add(1, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        Self { rounds, over, thread }
    }

    /// Waits until something more was done.
    fn goes_on(&self) {
        let before = self.rounds.load(Ordering::Relaxed);
        while self.rounds.load(Ordering::Relaxed) == before {
            assert!(!self.thread.is_finished(), "the service has stopped");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().expect("the service ends well");
    }
}

fn ten_thousand_hold_on(work: &Work) {
    let count = CROWD.min(descriptors(usize::MAX).saturating_sub(SPARE));
    if count < CROWD {
        println!("SKIPPED: only {count} of {CROWD} connections, because the process may not have more file descriptors");
    }
    let server = http::serve("127.0.0.1:0").expect("the loopback can be had");
    let at = server.address();
    let mut crowd = Vec::with_capacity(count);
    // One has a place before they come, and keeps it by using it.
    let mut placed = client::connect(at);
    let mut ask = |path| client::ask_again(&mut placed, path);
    for path in ["/debug/freestone/stats.json", "/debug/freestone/ledger", "/metrics", "/debug/freestone/ui", "/"] {
        assert_eq!(ask(path).expect("an answer").status, 200);
    }
    let before = client::resident();
    let mut most = before;
    for number in 0..count {
        let mut stream = client::connect(at);
        match number % 4 {
            0 => {}
            1 => drop(stream.write_all(b"GET /debug/freestone/stats.json HTTP/1.1\r\nhost: localhost\r\nx-slow: ")),
            2 => drop(stream.write_all(b"GET /debug/freestone/stats.json HTTP/1.1\r\nhost: localhost\r\n\r\n")),
            // Many requests, whose answers nobody takes.
            _ => drop(stream.write_all(&b"GET /debug/freestone/ui HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(200))),
        }
        crowd.push(stream);
        if number % 500 == 0 {
            most = most.max(client::resident());
            work.goes_on();
            // A place lasts a minute at most; a machine may be slower than that.
            match ask("/debug/freestone/stats.json") {
                Some(answer) => assert_eq!(answer.status, 200, "after {number}"),
                None => println!("the place was over after {number}"),
            }
        }
    }
    most = most.max(client::resident());
    // Who came last is told that there is no place.
    let mut turned_away = 0;
    for stream in crowd.iter_mut().rev().take(200) {
        let mut said = [0; 4096];
        turned_away +=
            usize::from(matches!(stream.read(&mut said), Ok(count @ 12..) if said[..count].starts_with(b"HTTP/1.1 503")));
    }
    assert!(turned_away >= 100, "{turned_away} of 200 were told");
    println!("{count} connections: {} KiB more than before", (most - before) / 1024);
    assert!(most < before + GROWTH_BYTES_MAX, "{before} bytes before, {most} at most");
    work.goes_on();
    drop(crowd);
    // Places are free once the server has seen that their holders are gone.
    answers_again(at);
}

/// Asks until there is a place.
fn answers_again(at: SocketAddr) {
    for _ in 0..600 {
        let mut stream = client::connect(at);
        if client::ask_again(&mut stream, "/debug/freestone/stats.json").is_some_and(|answer| answer.status == 200) {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("there is no place for anybody any more");
}

fn no_file_descriptor_is_left(work: &Work) {
    let server = http::serve("127.0.0.1:0").expect("the loopback can be had");
    let at = server.address();
    assert_eq!(client::get(at, "/", &[]).status, 200);
    let clients: Vec<OwnedFd> = (0..8).map(|_| socket()).collect();
    // Opened now: later nobody can.
    let mut stat = File::open(server_thread().join("stat")).expect("a thread that lives");
    // Every number up to the next free one is taken: nobody gets one from here on.
    let next = socket().as_raw_fd();
    let limit = descriptors(next as usize);
    for client in &clients {
        connect(client, at);
    }
    let before = processor_ticks(&mut stat);
    std::thread::sleep(Duration::from_secs(1));
    let spent = processor_ticks(&mut stat) - before;
    work.goes_on();
    descriptors(limit);
    assert!(spent <= 20, "{spent} hundredths of a second of waiting were spent at work");
    for client in clients {
        let mut stream = TcpStream::from(client);
        assert_eq!(client::ask_again(&mut stream, "/").expect("an answer, now that it can be accepted").status, 200);
    }
}

fn a_request_that_never_ends_is_hung_up_on() {
    let server = http::serve("127.0.0.1:0").expect("the loopback can be had");
    let mut silent = client::connect(server.address());
    let mut slow = client::connect(server.address());
    slow.write_all(b"GET / HTTP/1.1\r\nhost: loc").expect("the server listens");
    for stream in [&mut silent, &mut slow] {
        let said = client::hear(stream);
        let status = client::parse(&said).map(|answer| answer.status);
        assert!(said.is_empty() || status == Some(408), "{:?}", String::from_utf8_lossy(&said));
        assert!(matches!(stream.read(&mut [0]), Ok(0) | Err(_)), "it is open still");
    }
}

/// Sets how many file descriptors the process may have, as far as that is allowed, and says how many it may have had (or has now, if more
/// than all were asked for).
fn descriptors(wanted: usize) -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: fills the limit that it is given.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    let had = limit.rlim_cur;
    limit.rlim_cur = limit.rlim_max.min(wanted as u64);
    // SAFETY: reads the limit that it is given.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
    if wanted == usize::MAX { limit.rlim_cur as usize } else { had as usize }
}

fn socket() -> OwnedFd {
    // SAFETY: a plain system call.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "no socket");
    // SAFETY: the call above made it, and nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn connect(client: &OwnedFd, at: SocketAddr) {
    let SocketAddr::V4(at) = at else { panic!("an address of IPv4") };
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: at.port().to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from(*at.ip()).to_be() },
        sin_zero: [0; 8],
    };
    let size = size_of::<libc::sockaddr_in>() as libc::socklen_t;
    // SAFETY: the socket is open, and the address is one of its family and of that size.
    assert_eq!(unsafe { libc::connect(client.as_raw_fd(), (&raw const address).cast(), size) }, 0);
}

/// The folder of the newest server's thread in `/proc`.
fn server_thread() -> std::path::PathBuf {
    let tasks = std::fs::read_dir("/proc/self/task").expect("/proc can be read").flatten().map(|task| task.path());
    let is_ours =
        |task: &std::path::PathBuf| std::fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "freestone-http\n");
    tasks.filter(is_ours).max().expect("a server's thread")
}

/// How long it has been at work, in the kernel's hundredths of a second.
fn processor_ticks(stat: &mut File) -> u64 {
    let mut text = String::new();
    stat.rewind().and_then(|()| stat.read_to_string(&mut text)).expect("a thread that lives");
    let (_, fields) = text.rsplit_once(") ").expect("a name in brackets");
    let fields: Vec<&str> = fields.split(' ').collect();
    let [user, system] = [fields[11], fields[12]].map(|ticks| ticks.parse::<u64>().expect("a number"));
    user + system
}
