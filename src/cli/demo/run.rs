//! One run of the demonstration, as any client would do it: over HTTP only.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::StreamExt;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::progress::Progress;
use super::sample::Sample;
use crate::cli::Failure;
use crate::cli::api::Api;

/// Requests under way at once.
const REQUESTS_MAX: usize = 64;
/// Ids in one status query, as the contract bounds it.
const PAGE: usize = 500;
/// Between two looks at the open orders.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Without any change for this long the rest is said to wait.
const STILL_MAX: Duration = Duration::from_secs(60);

const JSON: &str = "application/json";

/// What became of the orders.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Answered with 202.
    pub(super) accepted: usize,
    /// Not accepted, each with its problem.
    pub(super) refused: Vec<String>,
    /// Everything that was ordered, or what could be, has left.
    pub(super) shipped: usize,
    /// Done in another way.
    pub(super) otherwise: usize,
    /// Not done, and visible.
    pub(super) waiting: usize,
    /// Accepted and not to be found.
    pub(super) lost: usize,
    /// From the request to the 202.
    pub(super) accept: Vec<Duration>,
    /// From `accepted_at` to the fact that shipped the last of it.
    pub(super) door_to_door: Vec<Duration>,
    /// From the first order to the end of the last.
    pub(super) took: Duration,
    /// One that shipped, to look at.
    pub(super) example: Option<String>,
}

/// Books the opening stock; returns when every receipt is applied.
pub(super) async fn stock(api: &Api, sample: &Sample) -> Result<(), Failure> {
    let send = |receipt: &Value| {
        let body = receipt.to_string();
        async move { api.post_until_decided("/v1/inventory/moves", JSON, body).await }
    };
    let mut replies =
        futures_util::stream::iter(sample.receipts.iter().map(send)).buffer_unordered(REQUESTS_MAX);
    let mut ids = Vec::new();
    while let Some(reply) = replies.next().await {
        let reply = reply?;
        match reply.body["transaction_id"].as_str() {
            Some(id) if reply.status == 202 => ids.push(id.to_owned()),
            _ => return Err(Failure::failed(format!("the opening stock was refused: {}", reply.problem()))),
        }
    }
    let mut open = ids;
    let until = Instant::now() + STILL_MAX;
    while !open.is_empty() && Instant::now() < until {
        let documents = query(api, &open).await?;
        open = documents.iter().filter(|d| d["done"] != true).filter_map(id_of).collect();
        if !open.is_empty() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
    if open.is_empty() { Ok(()) } else { Err(Failure::failed("the opening stock was not booked in time")) }
}

/// Sends the orders and follows them to their ends. `halfway` is called once, when half of them
/// are accepted.
pub(super) async fn orders(
    api: &Api,
    sample: &Sample,
    progress: &Progress,
    halfway: impl Fn(),
) -> Result<Outcome, Failure> {
    let begun = Instant::now();
    let sent = Mutex::new(Sent { all: false, ids: Vec::new() });
    let outcome = Mutex::new(Outcome::default());
    let (sending, following) =
        tokio::join!(send(api, sample, &sent, &outcome, halfway), follow(api, &sent, &outcome, progress));
    sending?;
    following?;
    let mut outcome = outcome.into_inner();
    outcome.took = begun.elapsed();
    Ok(outcome)
}

struct Sent {
    all: bool,
    /// Accepted and not yet taken over by the follower.
    ids: Vec<String>,
}

async fn send(
    api: &Api,
    sample: &Sample,
    sent: &Mutex<Sent>,
    outcome: &Mutex<Outcome>,
    halfway: impl Fn(),
) -> Result<(), Failure> {
    let post = |order: &Value| {
        let body = order.to_string();
        async move {
            let begun = Instant::now();
            let reply = api.post_until_decided("/v1/orders", JSON, body).await;
            (reply, begun.elapsed())
        }
    };
    let mut replies =
        futures_util::stream::iter(sample.orders.iter().map(post)).buffer_unordered(REQUESTS_MAX);
    let mut failed = None;
    while let Some((reply, took)) = replies.next().await {
        let reply = match reply {
            Ok(reply) => reply,
            Err(failure) => {
                failed = Some(failure);
                break;
            }
        };
        let mut outcome = outcome.lock();
        match reply.body["transaction_id"].as_str() {
            Some(id) if reply.status == 202 => {
                outcome.accepted += 1;
                outcome.accept.push(took);
                sent.lock().ids.push(id.to_owned());
                if outcome.accepted == sample.orders.len().div_ceil(2) {
                    halfway();
                }
            }
            _ => outcome.refused.push(reply.problem()),
        }
    }
    // In either case, or the follower would wait for more.
    sent.lock().all = true;
    failed.map_or(Ok(()), Err)
}

async fn follow(
    api: &Api,
    sent: &Mutex<Sent>,
    outcome: &Mutex<Outcome>,
    progress: &Progress,
) -> Result<(), Failure> {
    let mut open: Vec<String> = Vec::new();
    let mut changed = Instant::now();
    let mut before = BTreeMap::new();
    loop {
        let all = {
            let mut sent = sent.lock();
            open.append(&mut sent.ids);
            sent.all
        };
        let documents = query(api, &open).await?;
        open.clear();
        let mut states: BTreeMap<String, usize> = BTreeMap::new();
        let accepted = {
            let mut outcome = outcome.lock();
            for document in &documents {
                if !outcome.ended(document) {
                    let state = document["state"].as_str().unwrap_or("?").to_owned();
                    *states.entry(state).or_default() += 1;
                    open.extend(id_of(document));
                }
            }
            states.insert("shipped".into(), outcome.shipped);
            outcome.accepted
        };
        progress.show(accepted, &states);
        if states != before {
            (before, changed) = (states, Instant::now());
        }
        if (all && open.is_empty() && sent.lock().ids.is_empty()) || changed.elapsed() > STILL_MAX {
            outcome.lock().waiting = open.len();
            return Ok(());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

impl Outcome {
    /// Books a document; false when its order is still open.
    fn ended(&mut self, document: &Value) -> bool {
        if document["problem"].is_object() {
            self.lost += 1;
            return true;
        }
        if document["done"] != true {
            return false;
        }
        if document["state"] == "shipped" {
            self.shipped += 1;
            self.example = id_of(document);
            self.door_to_door.extend(door_to_door(document));
        } else {
            self.otherwise += 1;
        }
        true
    }
}

fn id_of(document: &Value) -> Option<String> {
    document["transaction_id"].as_str().map(str::to_owned)
}

fn door_to_door(document: &Value) -> Option<Duration> {
    let shipped = document["history"].as_array()?.iter().rev().find(|h| h["state"] == "shipped")?;
    let time = |v: &Value| v.as_str()?.parse::<DateTime<Utc>>().ok();
    (time(&shipped["at"])? - time(&document["accepted_at"])?).to_std().ok()
}

/// The documents of `ids`, page by page, in their order.
async fn query(api: &Api, ids: &[String]) -> Result<Vec<Value>, Failure> {
    let mut documents = Vec::with_capacity(ids.len());
    for page in ids.chunks(PAGE) {
        let body = json!({"ids": page}).to_string();
        let reply = api.post_until_decided("/v1/status/query", JSON, body).await?;
        match reply.body["items"].as_array() {
            Some(items) => documents.extend(items.iter().cloned()),
            None => return Err(Failure::failed(format!("no status: {}", reply.problem()))),
        }
    }
    Ok(documents)
}
