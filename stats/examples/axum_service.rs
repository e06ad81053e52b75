//! A service that has routes of its own, and those of Freestone beside them.
//!
//! ```text
//! $ cargo run -p freestone-stats --features http --example axum_service -- 127.0.0.1:8080
//! look at http://127.0.0.1:8080/debug/freestone/ui
//!
//! $ curl http://127.0.0.1:8080/orders/7
//! order 7, of 1
//! $ curl http://127.0.0.1:8080/metrics
//! ```

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use freestone::Freestone;

#[global_allocator]
static GLOBAL: Freestone = Freestone::new();

type Orders = Arc<Mutex<BTreeMap<u32, String>>>;

#[tokio::main]
async fn main() -> std::io::Result<()> {
    // Whatever the environment asks for, besides.
    freestone_stats::init();
    let service = Router::new()
        .route("/orders/{number}", get(order))
        .with_state(Orders::default())
        // `/`, `/metrics` and everything below `/debug/freestone`. A service that has the first two itself takes `debug_router()`.
        .merge(freestone_stats::http::router());

    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    println!("look at http://{}/debug/freestone/ui", listener.local_addr()?);
    axum::serve(listener, service).with_graceful_shutdown(interrupted()).await
}

/// Until Ctrl-C. Answers that are under way are finished.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        // Nobody can interrupt this service; it runs on.
        std::future::pending::<()>().await;
    }
}

async fn order(State(orders): State<Orders>, Path(number): Path<u32>) -> String {
    let mut orders = orders.lock().unwrap_or_else(PoisonError::into_inner);
    orders.entry(number).or_insert_with(|| format!("order {number}"));
    format!("{}, of {}\n", orders[&number], orders.len())
}
