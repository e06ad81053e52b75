//! The same orders as JSON over HTTP/1.1: parsed into structures that own their parts, answered in the same way. What most services do.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::serve::ListenerExt;
use axum::{Json, Router};
use tokio::net::TcpListener;

use super::host::{self, Load};
use super::orders::{Confirmation, Order, Refusal};
use super::recent::Recent;
use super::{HTTP_JSON, KEPT};
use crate::workload::{Context, Outcome};

/// Where orders go.
pub(super) const PATH: &str = "/price";

/// Serves, and lets the client loose.
pub(super) fn run(context: &Context) -> Outcome {
    let kept = context.parameters.number(&KEPT) as usize;
    let load = Load { workload: HTTP_JSON, closed_requests: 80_000, silence_ms: 0 };
    host::run(context, &load, |listener, served| serve(listener, Shop { recent: Recent::new(kept), served }))
}

struct Shop {
    recent: Recent<Order>,
    served: Arc<AtomicU64>,
}

async fn serve(listener: TcpListener, shop: Shop) -> io::Result<()> {
    let router = Router::new().route(PATH, post(price)).with_state(Arc::new(shop));
    // A connection that cannot be told waits for more to send, and is slower.
    let listener = listener.tap_io(|connection| drop(connection.set_nodelay(true)));
    axum::serve(listener, router).await
}

async fn price(State(shop): State<Arc<Shop>>, Json(order): Json<Order>) -> Result<Json<Confirmation>, (StatusCode, Refusal)> {
    let confirmation = Confirmation::of(&order).map_err(|refusal| (StatusCode::UNPROCESSABLE_ENTITY, refusal))?;
    shop.recent.keep(order.id, order);
    // Relaxed: a count that tells whether anything happens at all.
    shop.served.fetch_add(1, Ordering::Relaxed);
    Ok(Json(confirmation))
}
