//! `wavegate listen --forward-to URL --url URL`: brings webhooks to a program on this machine without a
//! public address. It rides the feed and signs like the real thing.

use std::time::{Duration, Instant};

use clap::Args;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, redirect};
use serde_json::Value;
use wavegate_engine::domain::endpoint::Secret;
use wavegate_engine::ports::clock::{Clock, SystemClock};
use wavegate_engine::wire::signature;

use super::api::Api;
use super::follow::{Follow, Heard};
use super::{Failure, print, tell, with_causes};

/// Between the attempts of one event. Shorter and fewer than the real schedule: somebody is looking on.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5)];
/// As for a real delivery.
const CONNECT_MAX: Duration = Duration::from_secs(5);
const ATTEMPT_MAX: Duration = Duration::from_secs(15);

/// Its arguments.
#[derive(Debug, Args)]
pub(super) struct Listen {
    /// Where the webhooks go, say http://127.0.0.1:3000/hooks
    #[arg(long, value_name = "URL")]
    forward_to: String,
    /// The server, say http://127.0.0.1:8080
    #[arg(long)]
    url: String,
    /// The key to call it with
    #[arg(long)]
    key: Option<String>,
    /// Whose feed, where the key does not say it
    #[arg(long)]
    client: Option<String>,
    /// Only these types, each exact or ending in .*
    #[arg(long, value_delimiter = ',')]
    types: Vec<String>,
    /// Sign with this secret (whsec_…) instead of a fresh one
    #[arg(long, value_name = "S")]
    secret: Option<String>,
}

/// Forwards until it is stopped.
pub(super) fn run(command: &Listen) -> Result<(), Failure> {
    let forward = reqwest::Url::parse(&command.forward_to).ok();
    let forward = forward.filter(|u| matches!(u.scheme(), "http" | "https")).ok_or_else(|| {
        Failure::usage(format!("--forward-to {:?}: expected http://HOST:PORT/PATH", command.forward_to))
    })?;
    let secret = match &command.secret {
        Some(text) => signature::secret(text).map_err(|e| Failure::usage(format!("--secret: {e}")))?,
        None => Secret::new(rand::random::<[u8; Secret::BYTES]>().to_vec()),
    };
    let path = super::watch::path(None, command.client.as_deref(), &command.types)?;
    let mut follow = Follow::new(Api::new(&command.url, command.key.as_deref())?, path, None);
    let courier = Courier { http: client()?, forward, secret };
    print(&format!("signing with {}\n", signature::secret_text(&courier.secret)))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        loop {
            match follow.next().await? {
                Some(Heard::Event(kind, data)) => courier.deliver(&kind, data).await?,
                Some(Heard::Gap(said)) => tell(&super::watch::gap(&said)),
                Some(Heard::End(_)) | None => return Ok(()),
            }
        }
    })
}

fn client() -> Result<Client, Failure> {
    let client = Client::builder()
        .no_proxy()
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT_MAX)
        .timeout(ATTEMPT_MAX)
        .user_agent(concat!("wavegate/", env!("CARGO_PKG_VERSION")));
    client.build().map_err(|e| Failure::failed(with_causes(&e)))
}

struct Courier {
    http: Client,
    forward: reqwest::Url,
    secret: Secret,
}

impl Courier {
    /// Delivers one event, at most a few times, and says what came of each.
    async fn deliver(&self, kind: &str, body: String) -> Result<(), Failure> {
        let event: Value = serde_json::from_str(&body).unwrap_or(Value::Null);
        let id = event["id"].as_str().unwrap_or_default();
        for pause in PAUSES.into_iter().map(Some).chain([None]) {
            let begun = Instant::now();
            let (done, outcome) = match self.attempt(id, &event, body.clone()).await {
                Ok(status) => ((200..300).contains(&status), status.to_string()),
                Err(e) => (false, with_causes(&e)),
            };
            print(&format!("{kind}  {id}  {outcome}  {} ms\n", begun.elapsed().as_millis()))?;
            match pause {
                _ if done => return Ok(()),
                Some(pause) => tokio::time::sleep(pause).await,
                None => tell(&format!("{id} is given up here; a real endpoint is tried for days\n")),
            }
        }
        Ok(())
    }

    async fn attempt(&self, id: &str, event: &Value, body: String) -> Result<u16, reqwest::Error> {
        let seconds = SystemClock.now().0.div_euclid(1_000);
        let signed = signature::sign(&self.secret, id, seconds, body.as_bytes());
        let mut request = self
            .http
            .post(self.forward.clone())
            .header(CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds.to_string())
            .header("webhook-signature", signed);
        for (header, attribute) in [("traceparent", "traceparent"), ("x-correlation-id", "correlationid")] {
            if let Some(value) = event[attribute].as_str() {
                request = request.header(header, value);
            }
        }
        Ok(request.body(body).send().await?.status().as_u16())
    }
}
