//! Requests of gRPC, on the frames of HTTP/2 and without a stub: a message is encoded once, and only its id is ever new.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Instant;

use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, StatusCode};
use tokio::net::TcpStream;

use super::super::grpc::{CONNECTION_WINDOW_BYTES, FRAME_HEAD_BYTES, PATH, STREAM_WINDOW_BYTES, frame};
use super::super::host::Report;
use super::super::orders::{Confirmation, FIRST_ID, Order, STOCK, hash};
use super::super::{CONNECTIONS, STREAMS};
use super::{Asked, Course, Turn, wait_for_go};

/// Both in encoded orders and in encoded confirmations, the id lies behind the key of the first field.
const ID_AT: usize = FRAME_HEAD_BYTES + 1;
const ID_BYTES: usize = 8;

/// An order and its confirmation, framed.
struct Pair {
    order: Vec<u8>,
    confirmation: Vec<u8>,
}

/// What the client sends, and what it expects.
struct Stock {
    request: Request<()>,
    pairs: Vec<Pair>,
}

pub(super) async fn run(asked: &Asked) -> Result<Report, String> {
    let stock = Rc::new(Stock::new(asked)?);
    let streams = asked.chosen.number(&STREAMS).max(1);
    let connections = asked.chosen.number(&CONNECTIONS).clamp(1, streams);
    let mut senders = Vec::new();
    for _ in 0..connections {
        senders.push(connect(asked, streams.div_ceil(connections)).await.map_err(|error| asked.unreachable(&error))?);
    }
    wait_for_go()?;

    let course = Rc::new(asked.course());
    let start = Instant::now();
    let go = course.start(streams)?;
    let tasks = (0..streams).map(|stream| {
        let sender = senders[(stream % connections) as usize].clone();
        let (course, stock) = (Rc::clone(&course), Rc::clone(&stock));
        tokio::task::spawn_local(async move { attend(&course, &stock, sender).await })
    });
    let tasks = tasks.chain(go).collect();
    asked.finish(&course, tasks).await?;
    Ok(course.report(start.elapsed()))
}

async fn connect(asked: &Asked, streams: u64) -> Result<SendRequest<Bytes>, Box<dyn std::error::Error>> {
    let connection = TcpStream::connect(asked.address).await?;
    connection.set_nodelay(true)?;
    let (sender, connection) = h2::client::Builder::new()
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .initial_max_send_streams(streams as usize)
        .enable_push(false)
        .handshake(connection)
        .await?;
    // When it breaks, its streams hear of it.
    tokio::task::spawn_local(async move { drop(connection.await) });
    Ok(sender.ready().await?)
}

impl Stock {
    fn new(asked: &Asked) -> Result<Self, String> {
        let request = Request::builder()
            .method(Method::POST)
            .uri(format!("http://{}{PATH}", asked.address))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(())
            .map_err(|error| format!("there is no such request: {error}"))?;
        let pair = |place| {
            let order = Order::of_stock(place);
            Ok(Pair { order: frame(&order), confirmation: frame(&Confirmation::of(&order)?) })
        };
        Ok(Self { request, pairs: (0..STOCK).map(pair).collect::<Result<_, String>>()? })
    }
}

async fn attend(course: &Course, stock: &Stock, mut sender: SendRequest<Bytes>) {
    while let Some(turn) = course.turn().await {
        let answer = ask(stock, &mut sender, turn).await;
        course.book(turn, answer);
    }
}

async fn ask(stock: &Stock, sender: &mut SendRequest<Bytes>, turn: Turn) -> Result<u64, String> {
    let Pair { order, confirmation } = &stock.pairs[(turn.nth % STOCK) as usize];
    let id = (FIRST_ID + turn.nth).to_le_bytes();
    let mut message = BytesMut::with_capacity(order.len());
    message.put_slice(&order[..ID_AT]);
    message.put_slice(&id);
    message.put_slice(&order[ID_AT + ID_BYTES..]);

    let broken = |error: h2::Error| format!("the stream broke: {error}");
    poll_fn(|task| sender.poll_ready(task)).await.map_err(broken)?;
    let (response, mut body) = sender.send_request(stock.request.clone(), false).map_err(broken)?;
    body.send_data(message.freeze(), true).map_err(broken)?;
    let response = response.await.map_err(broken)?;
    if response.status() != StatusCode::OK {
        return Err(format!("the status of HTTP is {}", response.status()));
    }
    // A call that fails at once says so in front of the body, which is then empty.
    check_status(response.headers(), Missing::Fine)?;
    let mut body = response.into_body();
    let answer = read(&mut body).await.map_err(broken)?;
    let trailers = body.trailers().await.map_err(broken)?.unwrap_or_default();
    check_status(&trailers, Missing::Wrong)?;

    let is_right = answer.len() == confirmation.len()
        && answer[..ID_AT] == confirmation[..ID_AT]
        && answer[ID_AT..ID_AT + ID_BYTES] == id
        && answer[ID_AT + ID_BYTES..] == confirmation[ID_AT + ID_BYTES..];
    if is_right {
        Ok(hash(0, &answer))
    } else {
        Err(format!("request {} has a wrong answer of {} bytes", turn.nth, answer.len()))
    }
}

/// The whole body. Nearly always it is one frame, which need not be copied.
async fn read(body: &mut RecvStream) -> Result<Bytes, h2::Error> {
    let mut first = Bytes::new();
    let mut more = BytesMut::new();
    while let Some(data) = body.data().await {
        let data = data?;
        body.flow_control().release_capacity(data.len())?;
        if first.is_empty() {
            first = data;
        } else {
            if more.is_empty() {
                more.extend_from_slice(&first);
            }
            more.extend_from_slice(&data);
        }
    }
    Ok(if more.is_empty() { first } else { more.freeze() })
}

/// What it means that there is no status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Missing {
    Fine,
    Wrong,
}

fn check_status(headers: &HeaderMap, missing: Missing) -> Result<(), String> {
    match headers.get("grpc-status").map(http::HeaderValue::as_bytes) {
        Some(b"0") => Ok(()),
        None if missing == Missing::Fine => Ok(()),
        None => Err("the answer has no status".to_owned()),
        Some(code) => {
            let message =
                headers.get("grpc-message").map(|message| String::from_utf8_lossy(message.as_bytes())).unwrap_or_default();
            Err(format!("the status of the call is {} {message}", String::from_utf8_lossy(code)))
        }
    }
}
