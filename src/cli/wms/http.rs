//! The door of `wavegate wms`: the protocol's four calls, each with one line on the screen.
//!
//! It parses, asks the desk and writes what was answered; it decides nothing.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Server;
use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap};
use actix_web::web::{self, Bytes, Data};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use serde::de::DeserializeOwned;
use serde_json::json;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use wavegate_engine::wire::wms::{
    CancellationAnswer, CancellationMessage, ManifestMessage, WaveMessage, WaveResults,
};

use super::books::Trail;
use super::desk::{Desk, Refusal};

/// The most bytes of a body: a thousand orders of five hundred lines each.
const BODY_MAX: usize = 64 << 20;
/// A call that is not heard holds its connection no longer than this; every caller is gone by then.
const DEAF_MAX: Duration = Duration::from_secs(120);
/// Threads that serve; the work is on the floor, not here.
const WORKERS: usize = 2;

/// What a handler needs.
struct Door {
    desk: Arc<Desk>,
    /// Digest of the key that a caller must have.
    key: Option<[u8; 32]>,
}

/// Serves on a bound socket. The server is a future that must be polled; it handles no signals.
pub(super) fn start(desk: Arc<Desk>, key: Option<&str>, listener: TcpListener) -> io::Result<Server> {
    let door = Data::new(Door { desk, key: key.map(|key| Sha256::digest(key).into()) });
    let app = move || {
        App::new()
            .app_data(door.clone())
            .app_data(web::PayloadConfig::new(BODY_MAX))
            .route("/waves", web::post().to(wave))
            .route("/cancellations", web::post().to(cancellation))
            .route("/manifests", web::post().to(manifest))
            .route("/releases/{release_id}", web::get().to(release))
    };
    let server =
        HttpServer::new(app).workers(WORKERS).shutdown_timeout(1).disable_signals().listen(listener)?;
    Ok(server.run())
}

/// A call that is not served, and why.
struct Refused(StatusCode, String);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Wrong(why) => Refused(StatusCode::BAD_REQUEST, why),
            // Blames the address, not the orders.
            Refusal::Misdirected(why) => Refused(StatusCode::MISDIRECTED_REQUEST, why),
        }
    }
}

impl Refused {
    fn respond(self, call: &str, trail: &Trail) -> HttpResponse {
        let Refused(status, why) = self;
        let Trail { correlation_id, traceparent } = trail;
        tracing::warn!(call, status = status.as_u16(), why, correlation_id, traceparent, "refused");
        HttpResponse::build(status).json(json!({ "error": why }))
    }
}

impl Door {
    fn admit(&self, request: &HttpRequest) -> Result<(), Refused> {
        let Some(key) = &self.key else { return Ok(()) };
        let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
        let given = given.and_then(|v| v.split_once(' ')).filter(|(s, _)| s.eq_ignore_ascii_case("bearer"));
        let digest: [u8; 32] = Sha256::digest(given.map_or("", |(_, key)| key.trim())).into();
        match bool::from(digest.ct_eq(key)) {
            true => Ok(()),
            false => Err(Refused(StatusCode::UNAUTHORIZED, "the key is missing or another".to_owned())),
        }
    }

    /// Admits a call, reads it, and hears it or not.
    async fn hear<T: DeserializeOwned>(
        &self,
        request: &HttpRequest,
        body: &Bytes,
        about: impl Fn(&T) -> &str,
    ) -> Result<(T, Duration), Refused> {
        self.admit(request)?;
        let message: T = serde_json::from_slice(body)
            .map_err(|e| Refused(StatusCode::BAD_REQUEST, format!("is not of the protocol: {e}")))?;
        match tokio::time::timeout(DEAF_MAX, self.desk.hear(about(&message))).await {
            Ok(late) => Ok((message, late?)),
            Err(_) => Err(Refused(StatusCode::GATEWAY_TIMEOUT, "the call was not heard".to_owned())),
        }
    }
}

fn trail(headers: &HeaderMap) -> Trail {
    let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    Trail { correlation_id: text("x-correlation-id"), traceparent: text("traceparent") }
}

async fn wave(request: HttpRequest, body: Bytes, door: Data<Door>) -> HttpResponse {
    let trail = trail(request.headers());
    let work = async {
        let (wave, late) = door.hear(&request, &body, |w: &WaveMessage| &w.wave_id).await?;
        let (results, counts) = door.desk.wave(&wave).await?;
        tracing::info!(
            wave_id = wave.wave_id,
            orders = wave.orders.len(),
            taken = counts.taken,
            rejected = counts.rejected,
            forgotten = counts.forgotten,
            known = counts.known,
            late_s = late.as_secs(),
            correlation_id = trail.correlation_id,
            traceparent = trail.traceparent,
            "wave"
        );
        for (order, result) in wave.orders.iter().zip(&results) {
            tracing::debug!(
                wave_id = wave.wave_id,
                release_id = order.release_id,
                result = ?result.result,
                correlation_id = order.correlation_id,
                traceparent = order.traceparent,
                "release"
            );
        }
        tokio::time::sleep(late).await;
        Ok(HttpResponse::Ok().json(WaveResults { results }))
    };
    work.await.unwrap_or_else(|refused: Refused| refused.respond("waves", &trail))
}

async fn cancellation(request: HttpRequest, body: Bytes, door: Data<Door>) -> HttpResponse {
    let came = trail(request.headers());
    let work = async {
        let (question, late) = door.hear(&request, &body, |c: &CancellationMessage| &c.release_id).await?;
        let (result, known) = door.desk.cancel(&question).await?;
        let of_release = door.desk.records.read(|books| books.trail_of(&question.release_id));
        tracing::info!(
            release_id = question.release_id,
            lines = question.lines.as_ref().map(|lines| format!("{lines:?}")),
            result = ?result,
            known,
            late_s = late.as_secs(),
            correlation_id = came.correlation_id.as_ref().or(of_release.correlation_id.as_ref()),
            traceparent = came.traceparent.as_ref().or(of_release.traceparent.as_ref()),
            "cancellation"
        );
        tokio::time::sleep(late).await;
        Ok(HttpResponse::Ok().json(CancellationAnswer { result }))
    };
    work.await.unwrap_or_else(|refused: Refused| refused.respond("cancellations", &came))
}

async fn manifest(request: HttpRequest, body: Bytes, door: Data<Door>) -> HttpResponse {
    let trail = trail(request.headers());
    let work = async {
        let (manifest, late) = door.hear(&request, &body, |m: &ManifestMessage| &m.manifest_id).await?;
        let known = door.desk.manifest(&manifest, &trail).await?;
        tracing::info!(
            manifest_id = manifest.manifest_id,
            carrier = manifest.carrier,
            service_level = manifest.service_level,
            cartons = manifest.cartons.len(),
            known,
            late_s = late.as_secs(),
            correlation_id = trail.correlation_id,
            traceparent = trail.traceparent,
            "manifest"
        );
        tokio::time::sleep(late).await;
        Ok(HttpResponse::NoContent().finish())
    };
    work.await.unwrap_or_else(|refused: Refused| refused.respond("manifests", &trail))
}

async fn release(request: HttpRequest, id: web::Path<String>, door: Data<Door>) -> HttpResponse {
    let trail = trail(request.headers());
    if let Err(refused) = door.admit(&request) {
        return refused.respond("releases", &trail);
    }
    let state = door.desk.release(&id).await;
    tracing::info!(
        release_id = *id,
        state = state.state,
        correlation_id = trail.correlation_id,
        traceparent = trail.traceparent,
        "asked about a release"
    );
    HttpResponse::Ok().json(state)
}
