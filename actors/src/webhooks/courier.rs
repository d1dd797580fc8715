//! The courier over HTTP: no redirects, no proxy of the environment, names resolved by our own
//! lookup so that the connection goes to exactly the address that was checked.

use std::error::Error;
use std::fmt::Write;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use reqwest::{Client, Response, Url, redirect};
use tokio::time::{Instant, timeout, timeout_at};

use super::guard::Guard;
use super::retry_after;
use crate::ports::BoxFuture;
use crate::ports::clock::Clock;
use crate::ports::webhook::{AddressForbidden, Answer, Courier, Parcel, PostError};

/// A connection that is not there by then is not coming.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// A whole attempt, the answer's body included.
const ATTEMPT_WITHIN: Duration = Duration::from_secs(15);
/// What is read of an answer's body, so that its connection can be used again; the rest is not ours.
const ANSWER_BYTES_MAX: usize = 16 << 10;
/// An idle connection is closed before servers close it under our hands.
const IDLE_MAX: Duration = Duration::from_secs(4);
/// Connections to one host that may be idle: what one endpoint uses at a time.
const IDLE_CONNECTIONS_MAX: usize = 10;

/// Finds the addresses of a name.
pub trait Lookup: Send + Sync + 'static {
    /// All of them.
    fn addresses(&self, name: String) -> BoxFuture<io::Result<Vec<IpAddr>>>;
}

/// The machine's own resolver.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn addresses(&self, name: String) -> BoxFuture<io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// The client cannot be built: no TLS provider, or no roots of trust.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client for webhooks cannot be built")]
pub struct BuildError(#[source] reqwest::Error);

/// The courier.
pub struct HttpCourier {
    client: Client,
    checked: Arc<Checked>,
    clock: Arc<dyn Clock>,
}

/// A lookup that hands out only what the guard permits.
struct Checked {
    guard: Guard,
    lookup: Arc<dyn Lookup>,
}

impl Checked {
    /// The addresses of a name. One that may not be called makes all of them suspect: a name that
    /// answers inside and outside is made to be called inside.
    async fn addresses(&self, name: String) -> io::Result<Result<Vec<IpAddr>, AddressForbidden>> {
        if is_this_machine(&name) {
            let own = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
            let open: Vec<IpAddr> = own.into_iter().filter(|address| self.guard.permits(*address)).collect();
            return Ok(if open.is_empty() { Err(AddressForbidden) } else { Ok(open) });
        }
        let found = self.lookup.addresses(name).await?;
        let permitted = found.iter().all(|address| self.guard.permits(*address));
        Ok(if permitted { Ok(found) } else { Err(AddressForbidden) })
    }

    /// An address that is written out is connected to without a lookup. The URL's parser has read
    /// it as a browser does: decimal, octal and hexadecimal numbers are dotted by now.
    fn literal(&self, url: &Url) -> Result<(), AddressForbidden> {
        let host = url.host_str().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        match host.parse::<IpAddr>() {
            Ok(address) if !self.guard.permits(address) => Err(AddressForbidden),
            Ok(_) | Err(_) => Ok(()),
        }
    }
}

/// `localhost` and names below it mean this machine (RFC 6761 §6.3), whatever a resolver says.
fn is_this_machine(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

struct Resolver(Arc<Checked>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let checked = self.0.clone();
        Box::pin(async move {
            let addresses = checked.addresses(name.as_str().to_owned()).await??;
            let sockets = addresses.into_iter().map(|ip| SocketAddr::new(ip, 0));
            let sockets: Addrs = Box::new(sockets.collect::<Vec<_>>().into_iter());
            Ok(sockets)
        })
    }
}

impl HttpCourier {
    /// Prepares the calls; the first one connects. The process must have installed a TLS provider.
    ///
    /// # Errors
    /// When there is none.
    pub fn new(
        guard: Guard,
        lookup: Arc<dyn Lookup>,
        clock: Arc<dyn Clock>,
    ) -> Result<HttpCourier, BuildError> {
        let checked = Arc::new(Checked { guard, lookup });
        let built = Client::builder()
            .no_proxy()
            .redirect(redirect::Policy::none())
            .dns_resolver(Resolver(checked.clone()))
            .connect_timeout(CONNECT_WITHIN)
            .pool_idle_timeout(IDLE_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .referer(false)
            .tcp_nodelay(true)
            .user_agent(concat!("wavegate/", env!("CARGO_PKG_VERSION")))
            .build();
        Ok(HttpCourier { client: built.map_err(BuildError)?, checked, clock })
    }
}

impl Courier for HttpCourier {
    fn post(&self, parcel: Parcel) -> BoxFuture<Result<Answer, PostError>> {
        let (client, checked, clock) = (self.client.clone(), self.checked.clone(), self.clock.clone());
        Box::pin(async move {
            let until = Instant::now() + ATTEMPT_WITHIN;
            let url = Url::parse(&parcel.url).map_err(|e| PostError::Unreachable(e.to_string()))?;
            checked.literal(&url).map_err(|AddressForbidden| PostError::Forbidden)?;
            let request = client
                .post(url)
                .headers(headers(&parcel.headers))
                .header(CONTENT_TYPE, parcel.content_type)
                .body(parcel.body);
            let sent = timeout_at(until, request.send()).await.map_err(|_| PostError::Silent)?;
            let response = sent.map_err(failed)?;
            let answer = read(&response, &*clock);
            // The status has decided; the body only frees the connection.
            let _late = timeout_at(until, drain(response)).await;
            Ok(answer)
        })
    }

    fn judge(&self, url: String) -> BoxFuture<Result<(), AddressForbidden>> {
        let checked = self.checked.clone();
        Box::pin(async move {
            let Ok(url) = Url::parse(&url) else { return Ok(()) };
            checked.literal(&url)?;
            let name = url.host_str().unwrap_or_default().to_owned();
            match timeout(CONNECT_WITHIN, checked.addresses(name)).await {
                Ok(Ok(Err(forbidden))) => Err(forbidden),
                // What does not resolve now is asked again at each attempt.
                Ok(Ok(Ok(_)) | Err(_)) | Err(_) => Ok(()),
            }
        })
    }
}

fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    headers
}

fn read(response: &Response, clock: &dyn Clock) -> Answer {
    let text = |name: &HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
    let disable = text(&HeaderName::from_static("webhook-delivery"));
    Answer {
        status: response.status().as_u16(),
        retry_after: text(&RETRY_AFTER).and_then(|value| retry_after::parse(value, clock.now())),
        disable: disable.is_some_and(|value| value.trim().eq_ignore_ascii_case("disable")),
    }
}

async fn drain(mut response: Response) {
    let mut left = ANSWER_BYTES_MAX;
    while let Ok(Some(chunk)) = response.chunk().await {
        match left.checked_sub(chunk.len()) {
            Some(rest) => left = rest,
            // Dropped in the middle, its connection is closed.
            None => return,
        }
    }
}

/// A call without an answer, with all its causes but the address: the first alone says nothing.
fn failed(error: reqwest::Error) -> PostError {
    if error.is_timeout() {
        return PostError::Silent;
    }
    let error = error.without_url();
    let mut why = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        if inner.is::<AddressForbidden>() {
            return PostError::Forbidden;
        }
        let _infallible = write!(why, ": {inner}");
        cause = inner.source();
    }
    PostError::Unreachable(why)
}

#[cfg(test)]
mod tests;
