//! What the server on Redis is measured against: a bare HTTP server that sends the same scripts to a
//! Redis of the same durability, and one that reads once what it is asked for. Each worker has a
//! connection of its own, so that nothing goes from thread to thread.

use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::HttpResponse;
use actix_web::web::{self, Bytes, ServiceConfig};
use wavegate_engine::domain::ids::TransactionId;
use wavegate_engine::store::RedisStore;
use wavegate_engine::store::redis::{Bare, RedisOptions};

use super::Error;
use super::ceiling::{Door, Prepared, answer, serve};

/// Opens the store in a Redis, without receipts: they are none of what it takes at the least.
///
/// # Errors
/// When it cannot be used.
pub(super) fn open(url: &str) -> Result<RedisStore, Error> {
    RedisStore::open(&RedisOptions::at(url.to_owned())).map_err(|e| Error::Store(Box::new(e)))
}

/// Serves `POST /v1/orders` with the least that it needs: parse, validate, claim, append, answer. Does
/// not return before the process is told to end.
///
/// # Errors
/// When Redis or the socket cannot be had.
pub(crate) fn least(url: &str, warehouses: u32, listening: impl Fn(SocketAddr)) -> Result<(), Error> {
    let store = Arc::new(open(url)?);
    actix_rt::System::new().block_on(async {
        let door = web::Data::new(Door::of(&*store, warehouses).await?);
        let routes = move |config: &mut ServiceConfig| {
            config
                .app_data(door.clone())
                .app_data(web::Data::new(store.bare()))
                .route("/v1/orders", web::post().to(accept));
        };
        serve(routes, listening).await
    })
}

async fn accept(door: web::Data<Door>, bare: web::Data<Bare>, body: Bytes) -> HttpResponse {
    let Some(order) = door.parse(&body) else { return HttpResponse::BadRequest().finish() };
    let command = door.stamp(order);
    match bare.accept(&command).await {
        Ok(true) => door.accepted(command.id, command.accepted.at, command.command.reference()),
        Ok(false) | Err(_) => HttpResponse::ServiceUnavailable().finish(),
    }
}

/// The recorded answer, after one read of the transaction in the path.
pub(super) async fn recorded(
    prepared: web::Data<Prepared>,
    bare: web::Data<Bare>,
    id: web::Path<TransactionId>,
) -> HttpResponse {
    match bare.read(*id).await {
        Ok(fields) if fields > 0 => answer(&prepared),
        Ok(_) => HttpResponse::NotFound().finish(),
        Err(_) => HttpResponse::ServiceUnavailable().finish(),
    }
}
