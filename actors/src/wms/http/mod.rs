//! A WMS at the other end of HTTP: somebody else's program, slow, sometimes down, sometimes wrong.
//!
//! Each call is made once and answered by what it decided, or by a [`WmsError`] that decides
//! nothing; who calls again, and when, is the WmsLink's. Nothing is kept between calls, and where
//! the goods go stands in the body of a wave and nowhere else: not in a log, not in an error.

mod answers;
mod messages;

use std::error::Error;
use std::fmt::{self, Write};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, Method, RequestBuilder, Response, Url, redirect};
use serde::Serialize;

use crate::domain::ids::{CorrelationId, LineNo, Malformed, ReleaseId, TraceContext, TransactionId};
use crate::ports::BoxFuture;
use crate::ports::wms::{CancelReply, ManifestOut, ReleaseKnown, Wave, WaveAnswer, Wms, WmsError};
use crate::wire::wms::CancellationMessage;

use answers::Verdict;

/// A connection that is not there by then is not coming.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A whole call, answer included: what the WmsLink waits.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);
/// An answer about a thousand releases, the largest wave, has about a hundred bytes each.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// An idle connection is closed before servers close it under our hands: many do after 5 s, and a
/// call that meets it counts as failed.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// Where a WMS is: an absolute `http` or `https` address without user, query and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(Url);

impl BaseUrl {
    fn at(&self, segments: &[&str]) -> Url {
        let mut url = self.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }
}

impl FromStr for BaseUrl {
    type Err = Malformed;
    fn from_str(s: &str) -> Result<Self, Malformed> {
        const WRONG: Malformed =
            Malformed("an absolute http or https address without user, query and fragment");
        let url = Url::parse(s).map_err(|_| WRONG)?;
        let plain = url.query().is_none()
            && url.fragment().is_none()
            && url.username().is_empty()
            && url.password().is_none();
        let scheme = matches!(url.scheme(), "http" | "https");
        if plain && scheme && url.has_host() { Ok(BaseUrl(url)) } else { Err(WRONG) }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The key that a WMS knows us by: 16 to 128 visible ASCII characters. It is never shown.
#[derive(Clone)]
pub struct ApiKey(HeaderValue);

impl FromStr for ApiKey {
    type Err = Malformed;
    fn from_str(s: &str) -> Result<Self, Malformed> {
        const WRONG: Malformed = Malformed("a key is 16 to 128 visible ASCII characters");
        if !(16..=128).contains(&s.len()) || !s.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(WRONG);
        }
        let mut value = HeaderValue::from_str(&format!("Bearer {s}")).map_err(|_| WRONG)?;
        value.set_sensitive(true);
        Ok(ApiKey(value))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiKey(hidden)")
    }
}

/// How to reach the WMS of a warehouse.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The warehouse, as waves name it.
    pub warehouse: String,
    /// Where it is.
    pub url: BaseUrl,
    /// What it knows us by.
    pub key: ApiKey,
}

/// From which call a transaction came; it goes along with every call about the transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The call's id.
    pub correlation: CorrelationId,
    /// The call's trace.
    pub trace: TraceContext,
}

impl Origin {
    /// The origin of what no call asked for: a wave, or what cannot be read. It is a function of
    /// the id, so that a repeated call is the same call to whoever follows the trace.
    fn of(id: TransactionId) -> Origin {
        let (_, low) = id.0.as_u64_pair();
        let correlation = id.to_string().parse().expect("a UUID is within the pattern of correlation ids");
        let trace = TraceContext { trace_id: id.0.as_u128(), parent_id: low, flags: 0, state: None };
        Origin { correlation, trace }
    }
}

/// Knows from which call a transaction came.
pub trait Origins: Send + Sync + 'static {
    /// The transaction's origin; `None` when it is not to be found.
    fn origin(&self, id: TransactionId) -> BoxFuture<Option<Origin>>;
}

/// The client cannot be built: no TLS provider, or no roots of trust.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for the WMS of {warehouse} cannot be built")]
pub struct BuildError {
    warehouse: String,
    source: reqwest::Error,
}

/// The WMS of one warehouse.
pub struct HttpWms(Arc<Line>);

struct Line {
    settings: Settings,
    origins: Arc<dyn Origins>,
    client: Client,
}

impl HttpWms {
    /// Prepares the calls; the first one connects. The process must have installed a TLS provider.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(settings: Settings, origins: Arc<dyn Origins>) -> Result<HttpWms, BuildError> {
        let built = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN)
            .pool_idle_timeout(IDLE_MAX)
            .tcp_nodelay(true)
            .user_agent(concat!("wavegate/", env!("CARGO_PKG_VERSION")))
            .build();
        match built {
            Ok(client) => Ok(HttpWms(Arc::new(Line { settings, origins, client }))),
            Err(source) => Err(BuildError { warehouse: settings.warehouse, source }),
        }
    }
}

impl Line {
    fn request(&self, method: Method, path: &[&str], origin: &Origin) -> RequestBuilder {
        let url = self.settings.url.at(path);
        let key = &self.settings.key.0;
        self.client.request(method, url).header(AUTHORIZATION, key).headers(headers(origin))
    }

    async fn post(
        &self,
        resource: &'static str,
        body: &impl Serialize,
        origin: &Origin,
    ) -> Result<(Verdict, Response), WmsError> {
        let body = serde_json::to_vec(body).map_err(|e| WmsError::Unavailable(e.to_string()))?;
        let request = self.request(Method::POST, &[resource], origin);
        let request = request.header(CONTENT_TYPE, "application/json").body(body);
        let response = request.send().await.map_err(failed)?;
        let verdict = Verdict::of(response.status().as_u16());
        if let Verdict::Misconfigured(status) = verdict {
            let warehouse = &self.settings.warehouse;
            tracing::error!(%warehouse, status, resource, "the WMS does not know our key or has no such address: check its wms.url and wms.key");
        }
        Ok((verdict, response))
    }

    /// The origin of a transaction; what cannot be read is no reason not to call.
    async fn origin(&self, id: TransactionId) -> Origin {
        self.origins.origin(id).await.unwrap_or_else(|| Origin::of(id))
    }

    async fn wave(&self, wave: Wave) -> Result<WaveAnswer, WmsError> {
        let origin = origin_of_wave(&wave);
        let releases: Vec<ReleaseId> = wave.orders.iter().map(|o| o.release).collect();
        let id = wave.id;
        let message = messages::wave(&self.settings.warehouse, wave);
        let (verdict, response) = self.post("waves", &message, &origin).await?;
        drop(message);
        tracing::debug!(warehouse = %self.settings.warehouse, wave = %id, correlation_id = %origin.correlation, trace_id = origin.trace.trace_id_hex(), releases = releases.len(), status = response.status().as_u16(), "wave answered");
        match verdict {
            Verdict::Good => answers::wave(&read(response).await?, &releases),
            Verdict::Refused(_) => Ok(WaveAnswer::Refused),
            Verdict::Misconfigured(status) | Verdict::Undecided(status) => Err(undecided(status)),
        }
    }

    async fn cancel(&self, release: ReleaseId, lines: Option<Vec<LineNo>>) -> Result<CancelReply, WmsError> {
        let origin = self.origin(release.order).await;
        let message = CancellationMessage { release_id: release.to_string(), lines };
        let (verdict, response) = self.post("cancellations", &message, &origin).await?;
        tracing::debug!(warehouse = %self.settings.warehouse, %release, correlation_id = %origin.correlation, trace_id = origin.trace.trace_id_hex(), status = response.status().as_u16(), "cancellation answered");
        match verdict {
            Verdict::Good => answers::cancellation(&read(response).await?),
            // A WMS may well say "too late" with a 409: what it says counts, when it says it.
            Verdict::Refused(status) => {
                answers::cancellation(&read(response).await?).map_err(|_| undecided(status))
            }
            Verdict::Misconfigured(status) | Verdict::Undecided(status) => Err(undecided(status)),
        }
    }

    /// The call is optional, so a WMS that has no such address is not at fault, and what it says
    /// about a missing one may still be "unknown".
    async fn release(&self, release: ReleaseId) -> Result<Option<ReleaseKnown>, WmsError> {
        let origin = self.origin(release.order).await;
        let request = self.request(Method::GET, &["releases", &release.to_string()], &origin);
        let response = request.send().await.map_err(failed)?;
        let status = response.status().as_u16();
        tracing::debug!(warehouse = %self.settings.warehouse, %release, correlation_id = %origin.correlation, trace_id = origin.trace.trace_id_hex(), status, "silent release asked for");
        match status {
            200..=299 | 404 | 405 | 410 | 501 => Ok(answers::release(&read(response).await?, release)),
            _ => Err(undecided(status)),
        }
    }

    async fn manifest(&self, manifest: ManifestOut) -> Result<(), WmsError> {
        let id = manifest.id;
        let origin = self.origin(id).await;
        let (verdict, response) = self.post("manifests", &messages::manifest(&manifest), &origin).await?;
        tracing::debug!(warehouse = %self.settings.warehouse, manifest = %id, correlation_id = %origin.correlation, trace_id = origin.trace.trace_id_hex(), status = response.status().as_u16(), "manifest answered");
        match verdict {
            Verdict::Good => answers::manifest(&read(response).await?),
            Verdict::Refused(status) | Verdict::Misconfigured(status) | Verdict::Undecided(status) => {
                Err(undecided(status))
            }
        }
    }
}

/// A wave of one trace belongs to it; one of several has its own, and each order's in its body.
fn origin_of_wave(wave: &Wave) -> Origin {
    let own = Origin::of(wave.id);
    let mut traces = wave.orders.iter().map(|o| &o.trace);
    let first = traces.next();
    match first {
        Some(trace) if traces.all(|other| other.trace_id == trace.trace_id) => {
            Origin { trace: trace.clone(), ..own }
        }
        Some(_) | None => own,
    }
}

fn headers(origin: &Origin) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut insert = |name: &'static str, value: &str| {
        // What a header cannot hold is left out: a call is worth more than its trace.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    insert("x-correlation-id", origin.correlation.as_str());
    insert("traceparent", &origin.trace.traceparent());
    if let Some(state) = &origin.trace.state {
        insert("tracestate", state);
    }
    headers
}

fn undecided(status: u16) -> WmsError {
    WmsError::Unavailable(format!("it answered with status {status}"))
}

/// Reads an answer whole, up to a bound.
async fn read(mut response: Response) -> Result<Vec<u8>, WmsError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            let why = format!("its answer is larger than {ANSWER_BYTES_MAX} bytes");
            return Err(WmsError::Unavailable(why));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A call without an answer, with all its causes: the first alone says nothing.
fn failed(error: reqwest::Error) -> WmsError {
    if error.is_timeout() {
        return WmsError::Silent;
    }
    let error = error.without_url();
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let _infallible = write!(why, ": {inner}");
        cause = inner.source();
    }
    WmsError::Unavailable(why)
}

impl Wms for HttpWms {
    fn wave(&self, wave: Wave) -> BoxFuture<Result<WaveAnswer, WmsError>> {
        let line = self.0.clone();
        Box::pin(async move { line.wave(wave).await })
    }

    fn cancel(
        &self,
        release: ReleaseId,
        lines: Option<Vec<LineNo>>,
    ) -> BoxFuture<Result<CancelReply, WmsError>> {
        let line = self.0.clone();
        Box::pin(async move { line.cancel(release, lines).await })
    }

    fn manifest(&self, manifest: ManifestOut) -> BoxFuture<Result<(), WmsError>> {
        let line = self.0.clone();
        Box::pin(async move { line.manifest(manifest).await })
    }

    fn release(&self, release: ReleaseId) -> BoxFuture<Result<Option<ReleaseKnown>, WmsError>> {
        let line = self.0.clone();
        Box::pin(async move { line.release(release).await })
    }
}

#[cfg(test)]
mod tests;
