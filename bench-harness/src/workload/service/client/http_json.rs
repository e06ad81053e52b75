//! Requests of HTTP/1.1, written and read without a library: both sides are known, and an answer is compared and not parsed.

use std::io;
use std::rc::Rc;
use std::time::Instant;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::super::SERIAL_CONNECTIONS;
use super::super::host::Report;
use super::super::http_json::PATH;
use super::super::orders::{Confirmation, FIRST_ID, Order, STOCK, hash};
use super::{Asked, Course, Turn, wait_for_go};

/// Ids have ten digits in JSON.
const ID_BYTES: usize = 10;

/// An order with everything in front of it, its confirmation, and where their ids begin.
struct Pair {
    order: Vec<u8>,
    order_id_at: usize,
    confirmation: Vec<u8>,
    confirmation_id_at: usize,
}

pub(super) async fn run(asked: &Asked) -> Result<Report, String> {
    let stock: Rc<[Pair]> = (0..STOCK).map(|place| Pair::new(asked, place)).collect::<Result<_, _>>()?;
    let connections = asked.chosen.number(&SERIAL_CONNECTIONS).max(1);
    let mut sockets = Vec::new();
    for _ in 0..connections {
        sockets.push(Socket::connect(asked).await.map_err(|error| asked.unreachable(&error))?);
    }
    wait_for_go()?;

    let course = Rc::new(asked.course());
    let start = Instant::now();
    let go = course.start(connections)?;
    let tasks = sockets.into_iter().map(|socket| {
        let (course, stock) = (Rc::clone(&course), Rc::clone(&stock));
        tokio::task::spawn_local(async move { attend(&course, &stock, socket).await })
    });
    let tasks = tasks.chain(go).collect();
    asked.finish(&course, tasks).await?;
    Ok(course.report(start.elapsed()))
}

impl Pair {
    fn new(asked: &Asked, place: u64) -> Result<Self, String> {
        let order = Order::of_stock(place);
        let confirmation = serde_json::to_vec(&Confirmation::of(&order)?).map_err(|error| error.to_string())?;
        let body = serde_json::to_vec(&order).map_err(|error| error.to_string())?;
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            asked.address,
            body.len()
        );
        let order_id_at = head.len() + id_at(&body)?;
        Ok(Self {
            order: [head.as_bytes(), &body].concat(),
            order_id_at,
            confirmation_id_at: id_at(&confirmation)?,
            confirmation,
        })
    }
}

fn id_at(body: &[u8]) -> Result<usize, String> {
    let id = FIRST_ID.to_string();
    body.windows(ID_BYTES).position(|digits| digits == id.as_bytes()).ok_or_else(|| "a message has no id".to_owned())
}

/// A connection, and what was read of it.
struct Socket {
    connection: TcpStream,
    request: Vec<u8>,
    read: Vec<u8>,
}

impl Socket {
    async fn connect(asked: &Asked) -> io::Result<Self> {
        let connection = TcpStream::connect(asked.address).await?;
        connection.set_nodelay(true)?;
        Ok(Self { connection, request: Vec::new(), read: Vec::new() })
    }

    /// Sends what was written to `request`, and reads the answer: the length of its head, which is followed by the body.
    async fn exchange(&mut self) -> io::Result<usize> {
        self.connection.write_all(&self.request).await?;
        self.read.clear();
        loop {
            if self.connection.read_buf(&mut self.read).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some(end) = self.read.windows(4).position(|letters| letters == b"\r\n\r\n") else { continue };
            let head = end + 4;
            let length = content_length(&self.read[..head]).ok_or(io::ErrorKind::InvalidData)?;
            if self.read.len() >= head + length {
                return Ok(head);
            }
            // The rest is read in one go.
            let rest = head + length - self.read.len();
            let begin = self.read.len();
            self.read.resize(begin + rest, 0);
            self.connection.read_exact(&mut self.read[begin..]).await?;
            return Ok(head);
        }
    }
}

/// What a head says of its body.
fn content_length(head: &[u8]) -> Option<usize> {
    let head = std::str::from_utf8(head).ok()?;
    let lines = head.lines().filter_map(|line| line.split_once(':'));
    let mut lengths =
        lines.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, value)| value.trim().parse());
    lengths.next()?.ok()
}

async fn attend(course: &Course, stock: &[Pair], mut socket: Socket) {
    while let Some(turn) = course.turn().await {
        let answer = ask(stock, &mut socket, turn).await;
        course.book(turn, answer);
    }
}

async fn ask(stock: &[Pair], socket: &mut Socket, turn: Turn) -> Result<u64, String> {
    let Pair { order, order_id_at, confirmation, confirmation_id_at } = &stock[(turn.nth % STOCK) as usize];
    let id = (FIRST_ID + turn.nth).to_string();
    socket.request.clear();
    socket.request.extend_from_slice(order);
    socket.request[*order_id_at..][..ID_BYTES].copy_from_slice(id.as_bytes());
    let head = socket.exchange().await.map_err(|error| format!("the connection broke: {error}"))?;

    let (head, body) = socket.read.split_at(head);
    if !head.starts_with(b"HTTP/1.1 200 ") {
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        return Err(format!("the answer is {}", String::from_utf8_lossy(line)));
    }
    let id_at = *confirmation_id_at;
    let is_right = body.len() == confirmation.len()
        && body[..id_at] == confirmation[..id_at]
        && body[id_at..id_at + ID_BYTES] == *id.as_bytes()
        && body[id_at + ID_BYTES..] == confirmation[id_at + ID_BYTES..];
    if is_right { Ok(hash(0, body)) } else { Err(format!("request {} has a wrong answer of {} bytes", turn.nth, body.len())) }
}

#[cfg(test)]
mod tests {
    use super::content_length;

    #[test]
    fn a_head_says_how_long_its_body_is() {
        assert_eq!(content_length(b"HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n"), Some(17));
        assert_eq!(content_length(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"), None);
        assert_eq!(content_length(b"HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n"), None);
    }
}
