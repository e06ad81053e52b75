//! The gRPC service: one unary call, which prices an order. It is what `tonic-build` would write for
//!
//! ```text
//!   service Shop { rpc Price(Order) returns (Confirmation); }
//! ```
//!
//! but for the codec, which decides who owns the memory of messages. There are three ([`Variant`]); the bytes on the wire are the same.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BufMut;
use prost::Message;
use tokio::net::TcpListener;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::{BoxFuture, Context as Task, Poll, Service, http};
use tonic::server::{Grpc, NamedService};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::host::{self, Load};
use super::orders::{Confirmation, Order, Quote, Refusal};
use super::pool::{Pooled, Shelf};
use super::recent::Recent;
use super::{CONNECTIONS, GRPC, KEPT, STREAMS, VARIANT, direct};
use crate::workload::{Context, Outcome};

/// The path of the call.
pub(super) const PATH: &str = "/freestone.Shop/Price";
/// What the server lets a client send ahead: more than all streams together have to say, so that nobody waits for a window.
pub(super) const STREAM_WINDOW_BYTES: u32 = 1 << 20;
pub(super) const CONNECTION_WINDOW_BYTES: u32 = 64 << 20;

/// Serves, and lets the client loose.
pub(super) fn run(context: &Context) -> Outcome {
    let chosen = &context.parameters;
    let kept = chosen.number(&KEPT) as usize;
    let streams = chosen.number(&STREAMS).div_ceil(chosen.number(&CONNECTIONS)) as u32;
    let load = Load { workload: GRPC, closed_requests: 80_000, silence_ms: 0 };
    match chosen.word(&VARIANT) {
        "pooled" => {
            host::run(context, &load, |listener, served| serve(listener, streams, Shop::new(PooledMessages::new(kept), served)))
        }
        "direct" => {
            host::run(context, &load, |listener, served| serve(listener, streams, Shop::new(DirectAnswers::new(kept), served)))
        }
        _ => host::run(context, &load, |listener, served| serve(listener, streams, Shop::new(OwnedMessages::new(kept), served))),
    }
}

async fn serve<V: Variant>(listener: TcpListener, streams: u32, shop: Shop<V>) -> io::Result<()> {
    let server = Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(streams)
        .add_service(shop);
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    server.serve_with_incoming(incoming).await.map_err(io::Error::other)
}

/// Who owns the memory of messages.
trait Variant: Send + Sync + 'static {
    type Codec: Codec<Decode = Self::Order, Encode = Self::Answer> + Send;
    type Order: Send + 'static;
    type Answer: Send + 'static;

    fn codec(&self) -> Self::Codec;

    /// Prices the order, keeps it, and answers.
    fn answer(&self, order: Self::Order) -> Result<Self::Answer, Refusal>;
}

/// The service, and how many requests it has served.
struct Shop<V> {
    variant: Arc<V>,
    served: Arc<AtomicU64>,
}

impl<V> Shop<V> {
    fn new(variant: V, served: Arc<AtomicU64>) -> Self {
        Self { variant: Arc::new(variant), served }
    }
}

// Not derived: the variant itself need not be `Clone`.
impl<V> Clone for Shop<V> {
    fn clone(&self) -> Self {
        Self { variant: Arc::clone(&self.variant), served: Arc::clone(&self.served) }
    }
}

impl<V: Variant> NamedService for Shop<V> {
    const NAME: &'static str = "freestone.Shop";
}

/// A request of HTTP.
impl<V: Variant> Service<http::Request<tonic::body::Body>> for Shop<V> {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _task: &mut Task<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<tonic::body::Body>) -> Self::Future {
        if request.uri().path() != PATH {
            return Box::pin(async { Ok(Status::unimplemented("there is one call only").into_http()) });
        }
        let shop = self.clone();
        Box::pin(async move { Ok(Grpc::new(shop.variant.codec()).unary(Price(shop), request).await) })
    }
}

/// The call.
struct Price<V>(Shop<V>);

impl<V: Variant> Service<Request<V::Order>> for Price<V> {
    type Response = Response<V::Answer>;
    type Error = Status;
    type Future = BoxFuture<Self::Response, Status>;

    fn poll_ready(&mut self, _task: &mut Task<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<V::Order>) -> Self::Future {
        let Shop { variant, served } = self.0.clone();
        Box::pin(async move {
            let answer = variant.answer(request.into_inner()).map_err(Status::invalid_argument)?;
            // Relaxed: a count that tells whether anything happens at all.
            served.fetch_add(1, Ordering::Relaxed);
            Ok(Response::new(answer))
        })
    }
}

fn undecodable(error: &prost::DecodeError) -> Status {
    Status::internal(error.to_string())
}

fn unencodable(error: &prost::EncodeError) -> Status {
    Status::internal(error.to_string())
}

/// Every message is made for its request and owns its parts: what anyone gets who follows the documentation.
struct OwnedMessages {
    recent: Recent<Order>,
}

impl OwnedMessages {
    fn new(kept: usize) -> Self {
        Self { recent: Recent::new(kept) }
    }
}

impl Variant for OwnedMessages {
    type Codec = OwnedCodec;
    type Order = Order;
    type Answer = Confirmation;

    fn codec(&self) -> OwnedCodec {
        OwnedCodec
    }

    fn answer(&self, order: Order) -> Result<Confirmation, Refusal> {
        let confirmation = Confirmation::of(&order)?;
        self.recent.keep(order.id, order);
        Ok(confirmation)
    }
}

/// As `tonic-prost` has it.
#[derive(Clone, Copy)]
struct OwnedCodec;

impl Codec for OwnedCodec {
    type Encode = Confirmation;
    type Decode = Order;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for OwnedCodec {
    type Item = Confirmation;
    type Error = Status;

    fn encode(&mut self, confirmation: Confirmation, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        confirmation.encode(buffer).map_err(|error| unencodable(&error))
    }
}

impl Decoder for OwnedCodec {
    type Item = Order;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Order>, Status> {
        Order::decode(buffer).map(Some).map_err(|error| undecodable(&error))
    }
}

/// Messages are used again, with all their strings and vectors: orders when their place is taken, confirmations when they are encoded.
struct PooledMessages {
    recent: Recent<Pooled<Order>>,
    codec: PooledCodec,
}

impl PooledMessages {
    fn new(kept: usize) -> Self {
        Self { recent: Recent::new(kept), codec: PooledCodec { orders: Shelf::new(), confirmations: Shelf::new() } }
    }
}

impl Variant for PooledMessages {
    type Codec = PooledCodec;
    type Order = Pooled<Order>;
    type Answer = Pooled<Confirmation>;

    fn codec(&self) -> PooledCodec {
        self.codec.clone()
    }

    fn answer(&self, order: Pooled<Order>) -> Result<Pooled<Confirmation>, Refusal> {
        let mut confirmation = self.codec.confirmations.take();
        let kit = &mut *confirmation;
        kit.message.fill(&Quote::of(&order.message)?, &mut kit.spares);
        self.recent.keep(order.message.id, order);
        Ok(confirmation)
    }
}

#[derive(Clone)]
struct PooledCodec {
    orders: Arc<Shelf<Order>>,
    confirmations: Arc<Shelf<Confirmation>>,
}

impl Codec for PooledCodec {
    type Encode = Pooled<Confirmation>;
    type Decode = Pooled<Order>;
    type Encoder = PooledEncoder;
    type Decoder = PooledDecoder;

    fn encoder(&mut self) -> PooledEncoder {
        PooledEncoder
    }

    fn decoder(&mut self) -> PooledDecoder {
        PooledDecoder(Arc::clone(&self.orders))
    }
}

struct PooledEncoder;

impl Encoder for PooledEncoder {
    type Item = Pooled<Confirmation>;
    type Error = Status;

    fn encode(&mut self, confirmation: Pooled<Confirmation>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        confirmation.message.encode(buffer).map_err(|error| unencodable(&error))
    }
}

struct PooledDecoder(Arc<Shelf<Order>>);

impl Decoder for PooledDecoder {
    type Item = Pooled<Order>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Pooled<Order>>, Status> {
        let mut order = self.0.take();
        order.merge(buffer).map_err(|error| undecodable(&error))?;
        Ok(Some(order))
    }
}

/// No answer is ever a message: it is written from the order, which is both kept and borrowed.
struct DirectAnswers {
    recent: Recent<Arc<Order>>,
}

impl DirectAnswers {
    fn new(kept: usize) -> Self {
        Self { recent: Recent::new(kept) }
    }
}

impl Variant for DirectAnswers {
    type Codec = DirectCodec;
    type Order = Order;
    type Answer = Arc<Order>;

    fn codec(&self) -> DirectCodec {
        DirectCodec
    }

    fn answer(&self, order: Order) -> Result<Arc<Order>, Refusal> {
        // Refused here, as by the others; the encoder asks again.
        Quote::of(&order)?;
        let order = Arc::new(order);
        self.recent.keep(order.id, Arc::clone(&order));
        Ok(order)
    }
}

#[derive(Clone, Copy)]
struct DirectCodec;

impl Codec for DirectCodec {
    type Encode = Arc<Order>;
    type Decode = Order;
    type Encoder = Self;
    type Decoder = OwnedCodec;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> OwnedCodec {
        OwnedCodec
    }
}

impl Encoder for DirectCodec {
    type Item = Arc<Order>;
    type Error = Status;

    fn encode(&mut self, order: Arc<Order>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        let quote = Quote::of(&order).map_err(Status::invalid_argument)?;
        buffer.reserve(direct::encoded_len(&quote));
        direct::encode(&quote, buffer);
        Ok(())
    }

    /// The buffer that tonic makes is what a confirmation needs, not the usual 8 KiB.
    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(2 << 10, 32 << 10)
    }
}

/// What goes in front of a message: that it is not compressed, and its length.
pub(super) fn frame(message: &impl Message) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_HEAD_BYTES + message.encoded_len());
    frame.put_u8(0);
    frame.put_u32(message.encoded_len() as u32);
    message.encode_raw(&mut frame);
    frame
}

/// How long that is.
pub(super) const FRAME_HEAD_BYTES: usize = 5;

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::super::orders::{Confirmation, Order, Quote, STOCK};
    use super::super::pool::Shelf;
    use super::direct;

    #[test]
    fn messages_are_about_one_kibibyte() {
        let (mut orders, mut confirmations) = (0, 0);
        for place in 0..STOCK {
            let order = Order::of_stock(place);
            assert!((8..=12).contains(&order.items.len()));
            let confirmation = Confirmation::of(&order).expect("orders of the stock can be confirmed");
            for length in [order.encoded_len(), confirmation.encoded_len()] {
                assert!((600..=1_600).contains(&length), "{place}: {length}");
            }
            orders += order.encoded_len();
            confirmations += confirmation.encoded_len();
        }
        let means = [orders, confirmations].map(|sum| sum / STOCK as usize);
        assert!(means.iter().all(|mean| (900..=1_150).contains(mean)), "{means:?}");
    }

    #[test]
    fn all_variants_answer_with_the_same_bytes() {
        let (orders, confirmations) = (Shelf::<Order>::new(), Shelf::<Confirmation>::new());
        // Twice, so that the second time everything is used again; each from a message that was another before.
        for place in (0..STOCK).chain((0..STOCK).rev()) {
            let order = Order::of_stock(place);
            let owned = Confirmation::of(&order).expect("orders of the stock can be confirmed").encode_to_vec();
            let quote = Quote::of(&order).expect("as before");

            let mut direct = Vec::new();
            direct::encode(&quote, &mut direct);
            assert_eq!(direct.len(), direct::encoded_len(&quote));
            assert_eq!(direct, owned);

            let mut pooled = orders.take();
            pooled.merge(&mut order.encode_to_vec().as_slice()).expect("it was encoded");
            assert_eq!(pooled.message, order);
            let mut answer = confirmations.take();
            let kit = &mut *answer;
            kit.message.fill(&Quote::of(&pooled.message).expect("as before"), &mut kit.spares);
            assert_eq!(kit.message.encode_to_vec(), owned);
        }
    }

    #[test]
    fn what_cannot_be_confirmed_is_refused_by_all() {
        let shelf = Shelf::<Order>::new();
        for change in [|order: &mut Order| order.customer = None, |order: &mut Order| order.items.clear()] {
            // A whole one first, whose parts must not be found again.
            let mut order = Order::of_stock(7);
            shelf.take().merge(&mut order.encode_to_vec().as_slice()).expect("it was encoded");
            change(&mut order);
            let mut pooled = shelf.take();
            pooled.merge(&mut order.encode_to_vec().as_slice()).expect("it was encoded");
            let refusals = [Confirmation::of(&order).err(), Quote::of(&pooled.message).err(), Quote::of(&order).err()];
            assert!(refusals[0].is_some());
            assert!(refusals.iter().all(|refusal| *refusal == refusals[0]), "{refusals:?}");
        }
    }

    #[test]
    fn what_is_no_order_is_an_error_and_leaves_nothing_behind() {
        let shelf = Shelf::<Order>::new();
        let bytes = Order::of_stock(3).encode_to_vec();
        for length in 0..bytes.len() {
            // Cut between two fields it is a shorter order.
            let _ = shelf.take().merge(&mut &bytes[..length]);
            let mut pooled = shelf.take();
            assert_eq!(pooled.message.items.len() + pooled.message.attributes.len(), 0);
            assert!(pooled.merge(&mut [0xff; 20].as_slice()).is_err());
        }
    }
}
