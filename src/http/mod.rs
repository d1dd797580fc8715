//! The HTTP door: one file a resource, one place each for problems, admission and headers.
//!
//! Handlers parse, ask the engine's handle, and write documents; they decide nothing about
//! orders and know no actor. Every response passes the front (`front.rs`).

mod accept;
mod auth;
mod batch;
mod body;
mod call;
mod cancel;
mod confirmations;
mod cors;
mod events;
mod front;
#[cfg(fuzzing)]
pub mod fuzzing;
mod headers;
mod health;
mod metrics;
mod moves;
mod ops;
mod orders;
mod pace;
mod pages;
mod problem;
mod query;
mod shown;
mod state;
mod status;
mod unread;
mod warehouses;
mod webhooks;

use std::any::Any;
use std::io;
use std::net::TcpListener;
use std::num::NonZeroU32;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_web::dev::{Extensions, Server};
use actix_web::middleware::{Condition, from_fn};
#[cfg(target_os = "linux")]
use actix_web::rt::net::TcpStream;
use actix_web::web::{self, ServiceConfig};
use actix_web::{App, HttpResponse, HttpServer, Resource, Route, guard};
use tokio_util::sync::CancellationToken;
use tracing_actix_web::TracingLogger;
use wavegate_engine::engine::Handle;

pub use auth::{KeyConfig, LOCAL_CLIENT, Role};

use auth::Keys;
use problem::Problem;
use state::State;

/// A head must arrive within this from the connection on. A busy client opens many connections
/// before it comes to write on each, and one that is too late is cut off.
const HEAD_MAX: Duration = Duration::from_secs(15);
/// Clients that send in bursts keep their connections; longer than most proxies hold theirs.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// How long a client may leave unread what was sent to it, in milliseconds.
#[cfg(target_os = "linux")]
const UNREAD_MAX_MS: u32 = 20_000;
/// What the door must know.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// The keys; with none, every caller on this machine is operator and client `local`.
    pub keys: Vec<KeyConfig>,
    /// Bytes of a body.
    pub body_max: usize,
    /// Bytes of a batch's body.
    pub batch_body_max: usize,
    /// Accepted commands a second of one client; the burst is the same.
    pub client_rate: Option<NonZeroU32>,
    /// How long an ended transaction can be read.
    pub retention: Duration,
    /// Cancelled when no new work is taken: waits end, `/readyz` says so.
    pub drain: CancellationToken,
    /// Refuse to listen on anything but loopback; must be set when there are no keys.
    pub loopback_only: bool,
    /// Streams of events that may be open at once.
    pub streams_max: usize,
    /// Pages of these origins may call, exactly as a browser writes them.
    pub cors_origins: Vec<String>,
    /// Requests that are being answered get this long to end once the server is to stop.
    pub grace: Duration,
}

/// Starts to serve on a bound socket. The server is a future that must be polled; it handles no
/// signals.
///
/// # Errors
/// When the socket is not loopback and must be, when a key names an unknown client, or when the
/// system refuses the socket.
pub fn start(engine: Handle, options: HttpOptions, listener: TcpListener) -> io::Result<Server> {
    let address = listener.local_addr()?;
    let unguarded = options.loopback_only || options.keys.is_empty();
    if unguarded && !address.ip().is_loopback() {
        let refused = format!("without keys the server listens on loopback only, not on {address}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, refused));
    }
    let keys = Keys::new(&options.keys, &engine).map_err(|client| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("a key names the unknown client {client:?}"))
    })?;
    let grace = options.grace;
    let state = web::Data::new(State::new(engine, keys, &options));
    let spans = front::spans_are_shown();
    let app = move || {
        App::new()
            .app_data(state.clone())
            .configure(routes)
            .default_service(web::to(not_found))
            .wrap(Condition::new(spans, from_fn(front::admit)))
            .wrap(Condition::new(spans, TracingLogger::<front::RequestSpan>::new()))
            .wrap(from_fn(move |request, next| front::front(spans, request, next)))
    };
    // Whole seconds only, and never none: who starts the server bounds the whole stop.
    let grace_s = grace.as_secs().max(1);
    let server = HttpServer::new(app)
        .workers(available_parallelism().map_or(1, usize::from))
        .client_request_timeout(HEAD_MAX)
        .keep_alive(KEEP_ALIVE)
        .tcp_nodelay(true)
        .h1_allow_half_closed(false)
        .on_connect(bound_silence)
        .shutdown_timeout(grace_s)
        .disable_signals()
        .listen(listener)?;
    Ok(server.run())
}

/// Has the kernel end a connection whose client takes nothing any more: a stream that is not read is
/// not asked for its next event, so it could not end itself. What was sent in time is not lost by that;
/// a stream goes on by its cursor.
fn bound_silence(connection: &dyn Any, _: &mut Extensions) {
    #[cfg(target_os = "linux")]
    if let Some(tcp) = connection.downcast_ref::<TcpStream>() {
        // A kernel that refuses ends it later, by its own time-out.
        rustix::net::sockopt::set_tcp_user_timeout(tcp, UNREAD_MAX_MS).ok();
    }
}

/// Every path that exists. A wrong method is answered by the path itself, with `Allow`.
fn routes(config: &mut ServiceConfig) {
    let get = |path, handler: Route| path_for(path, "GET, HEAD").route(handler);
    let post = |path, handler: Route| path_for(path, "POST").route(handler);
    config
        .service(
            path_for("/v1/orders", "GET, HEAD, POST")
                .route(web::post().to(orders::create))
                .route(read().to(orders::list)),
        )
        .service(path_for("/v1/status/query", "POST").route(web::post().to(status::query)))
        .service(get("/v1/status/{id}", read().to(status::get)))
        .service(get("/v1/status/{id}/events", read().to(events::transaction)))
        .service(get("/v1/events", read().to(events::feed)))
        .service(post("/v1/events/tickets", web::post().to(events::tickets::create)))
        .service(path_for("/v1/orders/batch", "POST").route(web::post().to(batch::create)))
        .service(path_for("/v1/orders/{id}/cancel", "POST").route(web::post().to(cancel::create)))
        .service(path_for("/v1/inventory/moves", "POST").route(web::post().to(moves::create)))
        .service(get("/track/{id}", read().to(pages::track)))
        .service(get("/assets/track.js", read().to(pages::track_script)))
        .service(get("/assets/track.css", read().to(pages::track_style)))
        .service(get("/healthz", read().to(health::alive)))
        .service(get("/readyz", read().to(health::ready)))
        .service(get("/metrics", read().to(metrics::get)))
        .service(get("/v1/ops/actors", read().to(ops::actors::list)))
        .service(get("/v1/warehouses", read().to(warehouses::list)))
        .service(get("/v1/warehouses/{code}", read().to(warehouses::get)))
        .service(
            path_for("/v1/warehouses/{code}/confirmations", "POST")
                .route(web::post().to(confirmations::create)),
        )
        .service(get("/v1/warehouses/{code}/inventory", read().to(warehouses::inventory)))
        .service(get("/v1/warehouses/{code}/inventory/{sku}", read().to(warehouses::inventory_of)))
        .service(
            path_for("/v1/webhooks/endpoints", "GET, HEAD, POST")
                .route(web::post().to(webhooks::create))
                .route(read().to(webhooks::list)),
        )
        .service(
            path_for("/v1/webhooks/endpoints/{id}", "GET, HEAD, PATCH, DELETE")
                .route(read().to(webhooks::get))
                .route(web::patch().to(webhooks::patch))
                .route(web::delete().to(webhooks::delete)),
        )
        .service(post("/v1/webhooks/endpoints/{id}/rotate", web::post().to(webhooks::rotate)))
        .service(post("/v1/webhooks/endpoints/{id}/ping", web::post().to(webhooks::ping)))
        .service(post("/v1/webhooks/endpoints/{id}/replay", web::post().to(webhooks::replay)))
        .service(post("/v1/webhooks/endpoints/{id}/enable", web::post().to(webhooks::enable)))
        .service(get("/v1/webhooks/endpoints/{id}/attempts", read().to(webhooks::attempts)))
        .service(get("/v1/ops/dead-letters", read().to(ops::dead_letters::list)))
        .service(post("/v1/ops/dead-letters/{id}/redrive", web::post().to(ops::dead_letters::redrive)))
        .service(post("/v1/ops/dead-letters/{id}/give-up", web::post().to(ops::dead_letters::give_up)))
        .service(post("/v1/ops/warehouses/{code}/pause", web::post().to(ops::pause::pause)))
        .service(post("/v1/ops/warehouses/{code}/resume", web::post().to(ops::pause::resume)));
}

/// A route that answers to GET, and to HEAD as RFC 9110 §9.1 asks of every server; the framework
/// leaves the body of that answer out.
fn read() -> Route {
    web::route().guard(guard::Any(guard::Get()).or(guard::Head()))
}

fn path_for(path: &str, allowed: &'static str) -> Resource {
    let refused = move || std::future::ready(Err::<HttpResponse, _>(Problem::MethodNotAllowed(allowed)));
    web::resource(path).default_service(web::to(refused))
}

async fn not_found() -> Result<HttpResponse, Problem> {
    Err(Problem::NotFound)
}
