//! What the server is measured against, each a process of its own: a bare HTTP server that does
//! the least that accepting needs, one that answers the same bytes to everybody, and a store
//! filled with claims.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::thread::available_parallelism;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use actix_web::web::{self, Bytes, ServiceConfig};
use actix_web::{App, HttpResponse, HttpServer};
use serde::{Deserialize, Serialize};
use wavegate_engine::domain::command::{Command, Kind};
use wavegate_engine::domain::fact::{Accepted, Fact, Recorded};
use wavegate_engine::domain::ids::{
    ClientNo, CorrelationId, PartitionId, Reference, TraceContext, TransactionId,
};
use wavegate_engine::domain::state::State as Standing;
use wavegate_engine::domain::time::Timestamp;
use wavegate_engine::ports::clock::{Clock, SystemClock};
use wavegate_engine::ports::entropy::{Entropy, SystemEntropy};
use wavegate_engine::ports::fate::ProcessFate;
use wavegate_engine::ports::store::{Durability, NewCommand, Registration, Store, Verdict};
use wavegate_engine::store::{EmbeddedStore, digest};
use wavegate_engine::wire::accepted::AcceptedDocument;
use wavegate_engine::wire::json;
use wavegate_engine::wire::reader::Faults;
use wavegate_engine::wire::requests::{self, Catalogue, OrderRequest};
use wavegate_engine::wire::status::Links;
use wavegate_engine::wire::time::WireTime;

use super::accept::FILLED_FROM;
use super::order::{Orders, References, code};
use super::{Error, ceiling_redis};

/// As `limits.backlog_max` of the server under test.
const BACKLOG_MAX: u64 = super::server::BACKLOG_MAX;
/// The store's map: address space.
const SIZE_MAX: u64 = 1 << 40;
/// Commands in one write while a store is filled.
const FILL_BATCH: usize = 1_024;
/// As the server's own: idle connections are not what is measured.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// As the server's own.
const CLIENT: &str = "local";
const STATUS: &str = "/v1/status/{id}";

/// What a request is held against, and what it becomes.
pub(super) struct Door {
    client: ClientNo,
    catalogue: Catalogue,
    warehouses: Vec<(String, PartitionId)>,
    correlation: CorrelationId,
    durability: Durability,
}

impl Door {
    /// Of a store, which gets the names of warehouses and client.
    ///
    /// # Errors
    /// When it cannot keep them.
    pub(super) async fn of(store: &impl Store, warehouses: u32) -> Result<Door, Error> {
        let warehouses: Vec<_> = super::server::warehouses(warehouses)
            .map(|(n, partition)| (code(n), PartitionId(partition)))
            .collect();
        let names = Registration { warehouses: warehouses.clone(), clients: vec![CLIENT.into()] };
        let registered = store.register(names).await.map_err(|e| Error::Store(Box::new(e)))?;
        let client = registered.clients.iter().find(|(name, _)| name == CLIENT);
        let client = client.map_or(ClientNo(0), |(_, no)| *no);
        let offers = warehouses.iter().map(|(code, _)| (code.clone(), vec!["ground".to_owned()]));
        let catalogue = Catalogue::new(offers.collect());
        let correlation = "bench".parse().map_err(|e| Error::Store(Box::new(e)))?;
        Ok(Door { client, catalogue, warehouses, correlation, durability: store.durability() })
    }

    /// Parses and validates as the server does.
    pub(super) fn parse(&self, body: &[u8]) -> Option<OrderRequest> {
        requests::order(json::parse(body).ok()?, &self.catalogue, Faults::MAX).ok()
    }

    /// A command of its own for an order.
    pub(super) fn stamp(&self, order: OrderRequest) -> NewCommand {
        let named = self.warehouses.iter().find(|(code, _)| Some(code) == order.command.warehouse.as_ref());
        let home = named.map_or(PartitionId(0), |(_, partition)| *partition);
        let at = SystemClock.now();
        let (command, ship_to) = (Command::Order(order.command), Some(order.ship_to));
        let trace = TraceContext { trace_id: 1, parent_id: 1, flags: 0, state: None };
        let fact = Fact::Accepted(Accepted { correlation: self.correlation.clone(), trace });
        NewCommand {
            id: TransactionId::new(at, home, SystemEntropy.next()),
            client: self.client,
            key: None,
            digest: digest(&command, ship_to.as_ref()),
            command,
            ship_to,
            accepted: Recorded { at, fact },
            backlog_max: BACKLOG_MAX,
        }
    }

    /// The answer to who sent it.
    pub(super) fn accepted(&self, id: TransactionId, at: Timestamp, reference: &Reference) -> HttpResponse {
        let code = self.warehouses.iter().find(|(_, partition)| *partition == id.home());
        HttpResponse::Accepted().json(AcceptedDocument {
            transaction_id: id,
            kind: Kind::Order.as_str(),
            reference: reference.as_str(),
            warehouse: code.map_or("", |(code, _)| code),
            state: Some(Standing::Accepted.as_str()),
            done: false,
            durability: self.durability.as_str(),
            correlation_id: self.correlation.as_str(),
            accepted_at: WireTime(at),
            estimate: None,
            links: Links::of(id, Kind::Order),
        })
    }
}

/// Parse, validate, store, answer: nothing else.
struct Least {
    store: EmbeddedStore,
    door: Door,
}

impl Least {
    async fn open(dir: &Path, warehouses: u32) -> Result<Least, Error> {
        let store = EmbeddedStore::open(dir, SIZE_MAX, Arc::new(ProcessFate))
            .map_err(|e| Error::Store(Box::new(e)))?;
        let door = Door::of(&store, warehouses).await?;
        Ok(Least { store, door })
    }

    async fn accept(&self, commands: Vec<NewCommand>) -> Result<(), &'static str> {
        let verdicts = self.store.accept(commands).await.wait().await.map_err(|_| "not durable")?;
        if verdicts.iter().all(|v| *v == Verdict::New) { Ok(()) } else { Err("not new") }
    }
}

async fn accept(least: web::Data<Least>, body: Bytes) -> HttpResponse {
    let Some(order) = least.door.parse(&body) else { return HttpResponse::BadRequest().finish() };
    let command = least.door.stamp(order);
    let (id, at, reference) = (command.id, command.accepted.at, command.command.reference().clone());
    if least.accept(vec![command]).await.is_err() {
        return HttpResponse::ServiceUnavailable().finish();
    }
    least.door.accepted(id, at, &reference)
}

/// Serves `POST /v1/orders` with the least that it needs, on the store in `dir`. Does not return
/// before the process is told to end.
///
/// # Errors
/// When the store or the socket cannot be had.
pub(crate) fn least(dir: &Path, warehouses: u32, listening: impl Fn(SocketAddr)) -> Result<(), Error> {
    actix_rt::System::new().block_on(async {
        let least = web::Data::new(Least::open(dir, warehouses).await?);
        let routes = move |config: &mut ServiceConfig| {
            config.app_data(least.clone()).route("/v1/orders", web::post().to(accept));
        };
        serve(routes, listening).await
    })
}

/// An answer that was recorded.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Recording {
    /// Its status.
    pub(super) status: u16,
    /// Its headers, but those that every server sets for itself.
    pub(super) headers: Vec<(String, String)>,
    /// Its body.
    pub(super) body: String,
}

/// Answers every request with the bytes recorded in `file`, with a store in Redis after one read of what
/// was asked for. Does not return before the process is told to end.
///
/// # Errors
/// When the file cannot be read or the socket cannot be had.
pub(crate) fn bare(file: &Path, redis: Option<&str>, listening: impl Fn(SocketAddr)) -> Result<(), Error> {
    let text = std::fs::read(file).map_err(|e| Error::io("read the recording", e))?;
    let recording: Recording = serde_json::from_slice(&text).map_err(|e| Error::Store(Box::new(e)))?;
    let Recording { status, headers, body } = recording;
    let status = StatusCode::from_u16(status).map_err(|e| Error::Store(Box::new(e)))?;
    let mut prepared = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::try_from(name).map_err(|e| Error::Store(Box::new(e)))?;
        prepared.append(name, HeaderValue::try_from(value).map_err(|e| Error::Store(Box::new(e)))?);
    }
    let prepared = web::Data::new((status, prepared, Bytes::from(body)));
    let store = redis.map(ceiling_redis::open).transpose()?.map(Arc::new);
    actix_rt::System::new().block_on(async {
        let routes = move |config: &mut ServiceConfig| {
            config.app_data(prepared.clone());
            match &store {
                None => config.route(STATUS, web::get().to(recorded)),
                Some(store) => config
                    .app_data(web::Data::new(store.bare()))
                    .route(STATUS, web::get().to(ceiling_redis::recorded)),
            };
        };
        serve(routes, listening).await
    })
}

/// What was recorded, ready to be sent.
pub(super) type Prepared = (StatusCode, HeaderMap, Bytes);

async fn recorded(prepared: web::Data<Prepared>) -> HttpResponse {
    answer(&prepared)
}

/// The recorded answer.
pub(super) fn answer(prepared: &Prepared) -> HttpResponse {
    let (status, headers, body) = prepared;
    let mut response = HttpResponse::with_body(*status, body.clone());
    response.headers_mut().clone_from(headers);
    response.map_into_boxed_body()
}

/// Serves with as many workers as the server under test has.
pub(super) async fn serve(
    routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
    listening: impl Fn(SocketAddr),
) -> Result<(), Error> {
    let failed = |e| Error::io("listen", e);
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed)?;
    listening(listener.local_addr().map_err(failed)?);
    let server = HttpServer::new(move || App::new().configure(routes.clone()))
        .workers(available_parallelism().map_or(1, usize::from))
        .keep_alive(KEEP_ALIVE)
        .tcp_nodelay(true)
        .listen(listener)
        .map_err(failed)?;
    server.run().await.map_err(failed)
}

/// Fills the store in `dir` with `claims` accepted orders.
///
/// # Errors
/// When the store does not take them.
pub(crate) fn fill(dir: &Path, warehouses: u32, claims: u64) -> Result<(), Error> {
    actix_rt::System::new().block_on(async {
        let least = Least::open(dir, warehouses).await?;
        let numbers = FILLED_FROM..FILLED_FROM.saturating_add(claims);
        let orders = Orders::new(warehouses, References::Random, numbers);
        let mut buffer = Vec::new();
        let mut batch = Vec::with_capacity(FILL_BATCH);
        while let Some(request) = orders.write(&mut buffer) {
            let body = request.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |n| n + 4);
            let order = least.door.parse(&request[body..]).ok_or_else(|| Error::failed("no order"))?;
            batch.push(least.door.stamp(order));
            if batch.len() == FILL_BATCH {
                least.accept(std::mem::take(&mut batch)).await.map_err(Error::failed)?;
            }
        }
        least.accept(batch).await.map_err(Error::failed)
    })
}
