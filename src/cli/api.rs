//! A client of the HTTP API for the sub-commands that call a server: it waits where the server
//! asks for it, and gives up after a bound.

use std::time::{Duration, Instant};

use rand::Rng;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use serde_json::Value;

use super::{Failure, tell, with_causes};

/// The longest that one request is tried again. Past it the server is down, not busy.
const PATIENCE: Duration = Duration::from_secs(300);
/// The longest pause between two tries, whatever the server asks for.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// The first pause after a failed connection; it doubles from there.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// A request that is tried again for longer than this says so, and as often.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// One try: longer than the server's own longest wait (30 s).
const TRY_MAX: Duration = Duration::from_secs(60);

/// A stream that says nothing for this long is broken: a server sends a comment every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(40);

/// A server and the key for it.
#[derive(Clone)]
pub(super) struct Api {
    base: String,
    http: reqwest::Client,
    /// For answers that never end.
    streams: reqwest::Client,
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    /// The status.
    pub(super) status: u16,
    /// `Retry-After`, in seconds.
    pub(super) retry_after: Option<Duration>,
    /// `Idempotent-Replayed: true`.
    pub(super) replayed: bool,
    /// JSON, or null when it was none.
    pub(super) body: Value,
}

impl Reply {
    /// True when trying again later may succeed.
    pub(super) fn is_busy(&self) -> bool {
        is_busy(self.status)
    }

    /// The problem in one line: what it is and what was said about it.
    pub(super) fn problem(&self) -> String {
        problem(&self.body).unwrap_or_else(|| format!("the server answered {}", self.status))
    }
}

/// Statuses that say "later": over a limit, overloaded, or a proxy without a server behind it.
pub(super) fn is_busy(status: u16) -> bool {
    matches!(status, 429 | 502 | 503 | 504)
}

/// A problem document in one line, its pointers included.
pub(super) fn problem(body: &Value) -> Option<String> {
    let code = body["code"].as_str()?;
    let mut text = match body["detail"].as_str().or(body["title"].as_str()) {
        Some(detail) => format!("{code}: {detail}"),
        None => code.to_owned(),
    };
    for error in body["errors"].as_array().into_iter().flatten() {
        let part = |name: &str| error[name].as_str().unwrap_or("");
        text = format!("{text}\n    {}: {}: {}", part("pointer"), part("code"), part("detail"));
    }
    Some(text)
}

impl Api {
    /// A client of the server at `url`.
    pub(super) fn new(url: &str, key: Option<&str>) -> Result<Self, Failure> {
        let parsed = reqwest::Url::parse(url).ok().filter(|u| matches!(u.scheme(), "http" | "https"));
        if parsed.is_none() {
            return Err(Failure::usage(format!("--url {url:?}: expected http://HOST:PORT")));
        }
        let mut headers = HeaderMap::new();
        if let Some(key) = key {
            let mut value = HeaderValue::from_str(&format!("Bearer {key}"))
                .map_err(|_| Failure::usage("--key: expected 16 to 128 visible ASCII characters"))?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        let builder = || {
            reqwest::Client::builder()
                .default_headers(headers.clone())
                .connect_timeout(Duration::from_secs(5))
                .user_agent(concat!("wavegate/", env!("CARGO_PKG_VERSION")))
        };
        let http = builder().timeout(TRY_MAX).build().map_err(|e| Failure::failed(with_causes(&e)))?;
        let streams =
            builder().read_timeout(SILENCE_MAX).build().map_err(|e| Failure::failed(with_causes(&e)))?;
        Ok(Api { base: url.trim_end_matches('/').to_owned(), http, streams })
    }

    /// Opens a stream of events, after the cursor if there is one.
    pub(super) async fn open_stream(
        &self,
        path: &str,
        cursor: Option<&str>,
    ) -> Result<reqwest::Response, reqwest::Error> {
        let mut request =
            self.streams.get(format!("{}{path}", self.base)).header(ACCEPT, "text/event-stream");
        if let Some(cursor) = cursor {
            request = request.header("last-event-id", cursor);
        }
        request.send().await
    }

    /// One POST.
    pub(super) async fn post(
        &self,
        path: &str,
        media: &'static str,
        body: String,
    ) -> Result<Reply, reqwest::Error> {
        let request = self.http.post(format!("{}{path}", self.base)).header(CONTENT_TYPE, media);
        read(request.body(body).send().await?).await
    }

    /// One POST of JSON with further headers; a value that no header can hold is left out.
    pub(super) async fn post_with(
        &self,
        path: &str,
        body: String,
        headers: &[(&'static str, Option<String>)],
    ) -> Result<Reply, reqwest::Error> {
        let mut request =
            self.http.post(format!("{}{path}", self.base)).header(CONTENT_TYPE, "application/json");
        for (name, value) in headers {
            if let Some(value) = value.as_deref().and_then(|v| HeaderValue::from_str(v).ok()) {
                request = request.header(*name, value);
            }
        }
        read(request.body(body).send().await?).await
    }

    /// POSTs until the server takes or refuses it. Only for what may be repeated: commands are
    /// recognised by their reference.
    ///
    /// # Errors
    /// When the server could not be reached, or was busy, for [`PATIENCE`].
    pub(super) async fn post_until_decided(
        &self,
        path: &str,
        media: &'static str,
        body: String,
    ) -> Result<Reply, Failure> {
        let mut patience = Patience::new();
        loop {
            let (why, asked) = match self.post(path, media, body.clone()).await {
                Ok(reply) if !reply.is_busy() || reply.body["results"].is_array() => return Ok(reply),
                Ok(reply) => (reply.problem(), reply.retry_after),
                Err(e) => (with_causes(&e), None),
            };
            patience.pause(asked, &why).await?;
        }
    }
}

/// How long is still waited, and the next pause.
pub(super) struct Patience {
    until: Instant,
    tell_at: Instant,
    pause: Duration,
}

impl Patience {
    /// Starts the bound.
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Patience { until: now + PATIENCE, tell_at: now + TELL_EVERY, pause: PAUSE_FIRST }
    }

    /// Waits as long as was asked for, else longer than the last time; always with jitter, so that
    /// many clients do not come back together.
    ///
    /// # Errors
    /// At the bound, with the last reason.
    pub(super) async fn pause(&mut self, asked: Option<Duration>, why: &str) -> Result<(), Failure> {
        let pause = asked.unwrap_or(self.pause).min(PAUSE_MAX);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        // Never shorter than what the server asked for; a fifth more spreads the callers.
        let jitter = rand::rng().random_range(1.0..1.2);
        let pause = pause.mul_f64(jitter);
        if Instant::now() + pause > self.until {
            return Err(Failure::failed(format!("gave up after {} s: {why}", PATIENCE.as_secs())));
        }
        if Instant::now() > self.tell_at {
            self.tell_at = Instant::now() + TELL_EVERY;
            tell(&format!("still trying: {why}\n"));
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

async fn read(response: reqwest::Response) -> Result<Reply, reqwest::Error> {
    let status = response.status().as_u16();
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
    let retry_after = header(RETRY_AFTER.as_str()).and_then(|v| v.parse().ok()).map(Duration::from_secs);
    let replayed = header("idempotent-replayed").is_some_and(|v| v.contains("true"));
    let body = serde_json::from_slice(&response.bytes().await?).unwrap_or(Value::Null);
    Ok(Reply { status, retry_after, replayed, body })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_problem_is_told_with_every_pointer() {
        let body = json!({"code": "validation_failed", "detail": "2 fields", "errors": [
            {"pointer": "/ship_to/country", "code": "unknown_country", "detail": "XX"},
            {"pointer": "/lines/0", "code": "required", "detail": "sku"}]});
        let text = problem(&body).unwrap();
        assert!(text.starts_with("validation_failed: 2 fields"));
        assert!(text.contains("/ship_to/country: unknown_country: XX") && text.contains("/lines/0"));
        assert_eq!(problem(&Value::Null), None);
    }
}
