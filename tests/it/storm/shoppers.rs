//! The load: clients that post orders, receipts, adjustments and cancellations at any node, and what is
//! not answered word for word again at another one, until it is: a client's only way to find out.

use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

use reqwest::Method;
use wavegate_engine::ports::entropy::{Entropy as _, SeededEntropy};

use super::{CLIENTS, CODES, SETTLED_WITHIN, Storm, some_time};
use crate::shop::{id_of, order, receipt};

/// Between two pieces of work of one shopper.
const THINKS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(400));
/// Before a call is made again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);
/// SKUs of which there is plenty, and how much.
const PLENTY: u64 = 4;
const STOCK: u32 = 1_000_000;
/// Never enough of it until the storm is over.
const SCARCE: &str = "SCARCE";
/// Nobody ever has it.
const UNHEARD: &str = "UNHEARD-OF";

/// A promise: what was answered 202.
#[derive(Clone, Debug)]
pub(super) struct Acknowledged {
    pub(super) id: String,
    /// Index into [`CLIENTS`].
    pub(super) client: usize,
    pub(super) reference: String,
    pub(super) ends: Ends,
    /// Units asked for, of an order.
    pub(super) units: u64,
    pub(super) body: Value,
}

/// How it must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ends {
    /// An order of which everything is shipped.
    Shipped,
    /// An order that is shipped or was cancelled in time.
    ShippedOrCancelled,
    /// An order that had to be whole at once.
    ShippedOrRejected,
    /// An order that waits for what never comes.
    Waits,
    Applied,
    AppliedOrRejected,
}

/// Somebody who posts.
struct Shopper {
    storm: Arc<Storm>,
    dice: SeededEntropy,
    client: usize,
    n: u64,
    made: u64,
}

/// What there is before the storm: plenty of most, and a little of what is scarce.
pub(super) async fn open_stock(storm: &Arc<Storm>) {
    for client in 0..CLIENTS.len() {
        let shopper = Shopper::new(storm, 500 + client as u64, client);
        for code in CODES {
            for n in 0..PLENTY {
                let body = receipt(&format!("open-{code}-{n}"), code, &sku(n), STOCK);
                shopper.post("/v1/inventory/moves", body, Ends::Applied, 0).await;
            }
        }
    }
}

/// What ends the waiting of all who wait for scarce goods.
pub(super) async fn close_stock(storm: &Arc<Storm>) {
    for client in 0..CLIENTS.len() {
        let shopper = Shopper::new(storm, 600 + client as u64, client);
        for code in CODES {
            let body = receipt(&format!("close-{code}"), code, SCARCE, STOCK);
            shopper.post("/v1/inventory/moves", body, Ends::Applied, 0).await;
        }
    }
}

/// Posts until the storm is over, and then until all of its own is answered.
pub(super) async fn shop(storm: Arc<Storm>, n: u64) {
    let client = (n % CLIENTS.len() as u64) as usize;
    let mut shopper = Shopper::new(&storm, n, client);
    while !storm.is_over() {
        shopper.act().await;
        tokio::time::sleep(some_time(&shopper.dice, THINKS.0, THINKS.1)).await;
    }
}

fn sku(n: u64) -> String {
    format!("SKU-{}", n % PLENTY)
}

fn units_of(body: &Value) -> u64 {
    body["lines"].as_array().into_iter().flatten().filter_map(|line| line["quantity"].as_u64()).sum()
}

impl Shopper {
    fn new(storm: &Arc<Storm>, n: u64, client: usize) -> Shopper {
        Shopper { storm: storm.clone(), dice: storm.dice(n), client, n, made: 0 }
    }

    fn key(&self) -> &'static str {
        CLIENTS[self.client].1
    }

    fn reference(&mut self) -> String {
        self.made += 1;
        format!("s{}-{}", self.n, self.made)
    }

    async fn act(&mut self) {
        let code = CODES[self.dice.below(3) as usize];
        let reference = self.reference();
        match self.dice.below(100) {
            0..60 => self.order_plenty(&reference, code).await,
            60..68 => self.order_scarce(&reference, code, "ship_complete", Ends::Shipped).await,
            68..74 => self.order_scarce(&reference, code, "ship_partial", Ends::Shipped).await,
            74..79 => self.order_scarce(&reference, code, "fill_or_kill", Ends::ShippedOrRejected).await,
            79..81 => {
                let body = order(&reference, code, UNHEARD, 1);
                self.post("/v1/orders", body, Ends::Waits, 1).await;
            }
            81..86 => self.batch(&reference, code).await,
            86..95 => {
                let body = receipt(&reference, code, SCARCE, 1 + self.dice.below(6) as u32);
                self.post("/v1/inventory/moves", body, Ends::Applied, 0).await;
            }
            _ => {
                let sku = sku(self.dice.next());
                let body = json!({"reference": reference, "warehouse": code, "type": "adjustment", "sku": sku,
                    "delta": -1 - self.dice.below(3) as i64, "reason": "lost"});
                self.post("/v1/inventory/moves", body, Ends::Applied, 0).await;
            }
        }
    }

    async fn order_plenty(&mut self, reference: &str, code: &str) {
        let mut body = order(reference, code, &sku(self.dice.next()), 1 + self.dice.below(3) as u32);
        if self.dice.below(3) == 0 {
            let line = json!({"line": 2, "sku": sku(self.dice.next()), "quantity": 1 + self.dice.below(2)});
            body["lines"].as_array_mut().unwrap().push(line);
            body["allocation"] = json!("ship_partial");
        }
        if self.dice.below(10) == 0 {
            // The server chooses, and says the same again to a repeat.
            body.as_object_mut().unwrap().remove("warehouse");
        }
        let cancels = self.dice.below(8) == 0;
        let ends = if cancels { Ends::ShippedOrCancelled } else { Ends::Shipped };
        let units = units_of(&body);
        let id = match self.dice.below(12) {
            0 => self.post_twice(body.clone(), ends, units).await,
            1 => self.post_waiting(body.clone(), ends, units).await,
            _ => self.post("/v1/orders", body.clone(), ends, units).await,
        };
        if self.dice.below(6) == 0 {
            let again = self.insist("/v1/orders", &body, &[]).await;
            self.must_be(&id, &again, reference);
        }
        if self.dice.below(20) == 0 {
            self.contradict(reference, body).await;
        }
        if cancels {
            tokio::time::sleep(some_time(&self.dice, Duration::ZERO, Duration::from_millis(150))).await;
            let path = format!("/v1/orders/{id}/cancel");
            let asked = self.insist(&path, &json!({}), &[]).await;
            let name = format!("{}/cancellation/{reference}", CLIENTS[self.client].0);
            self.note(
                name,
                &asked,
                &format!("cancel:{id}"),
                Ends::AppliedOrRejected,
                0,
                &json!({"order": id}),
            );
        }
    }

    async fn order_scarce(&mut self, reference: &str, code: &str, allocation: &str, ends: Ends) {
        let mut body = order(reference, code, SCARCE, 1 + self.dice.below(2) as u32);
        body["allocation"] = json!(allocation);
        let line = json!({"line": 2, "sku": sku(self.dice.next()), "quantity": 1});
        body["lines"].as_array_mut().unwrap().push(line);
        let units = units_of(&body);
        self.post("/v1/orders", body, ends, units).await;
    }

    /// The same at two nodes at once: one order.
    async fn post_twice(&self, body: Value, ends: Ends, units: u64) -> String {
        let (one, other) =
            tokio::join!(self.insist("/v1/orders", &body, &[]), self.insist("/v1/orders", &body, &[]));
        self.must_be(&one, &other, body["reference"].as_str().unwrap());
        self.note_posted("order", &one, &body, ends, units);
        one
    }

    async fn post_waiting(&self, body: Value, ends: Ends, units: u64) -> String {
        let id = self.insist("/v1/orders", &body, &[("prefer", "wait=2")]).await;
        self.note_posted("order", &id, &body, ends, units);
        id
    }

    async fn post(&self, path: &str, body: Value, ends: Ends, units: u64) -> String {
        let id = self.insist(path, &body, &[]).await;
        let kind = if path == "/v1/orders" { "order" } else { "move" };
        self.note_posted(kind, &id, &body, ends, units);
        id
    }

    /// Other content under a known reference.
    async fn contradict(&self, reference: &str, mut body: Value) {
        body["priority"] = json!(9);
        let until = Instant::now() + SETTLED_WITHIN;
        loop {
            match self.try_once("/v1/orders", &body, &[]).await {
                Some((409, _)) => return,
                Some((429 | 503, _)) | None => {}
                Some((status, said)) => {
                    let what = format!("INV-1: {reference} with other content is answered {status} {said}");
                    return self.storm.violation(what);
                }
            }
            if Instant::now() > until {
                return self.storm.violation(format!("INV-1: {reference} with other content has no answer"));
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    /// Five orders in one call; what of it was refused is sent again, with all the rest.
    async fn batch(&mut self, reference: &str, code: &str) {
        let one = |n: u64| order(&format!("{reference}.{n}"), code, &sku(n), 1 + n as u32 % 2);
        let bodies: Vec<Value> = (0..5).map(one).collect();
        let all = json!(bodies);
        let begun = Instant::now();
        loop {
            if let Some((202, answer)) = self.try_once("/v1/orders/batch", &all, &[]).await {
                let results = answer["results"].as_array().cloned().unwrap_or_default();
                // What one call acknowledged is acknowledged, whatever became of the others.
                for (body, result) in bodies.iter().zip(&results).filter(|(_, r)| r["status"] == 202) {
                    self.note_posted("order", &id_of(result), body, Ends::Shipped, units_of(body));
                }
                if results.len() == 5 && results.iter().all(|r| r["status"] == 202) {
                    return;
                }
            }
            if begun.elapsed() > SETTLED_WITHIN * 2 {
                return self.storm.violation(format!("INV-1: no answer to the batch {reference}"));
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn try_once(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> Option<(u16, Value)> {
        let url = self.storm.some_node(&self.dice) + path;
        self.storm.call(Method::POST, url, self.key(), Some(body), headers).await
    }

    /// Posts until it is answered 202, or 200 by a call that waits; the id.
    async fn insist(&self, path: &str, body: &Value, headers: &[(&str, &str)]) -> String {
        let begun = Instant::now();
        loop {
            match self.try_once(path, body, headers).await {
                Some((200 | 202, answer)) => return id_of(&answer),
                Some((429 | 503, _)) | None => {}
                Some((status, said)) => {
                    self.storm.violation(format!("{path} {}: {status} {said}", body["reference"]));
                }
            }
            assert!(begun.elapsed() < SETTLED_WITHIN * 2, "INV-1: no answer to {path} {body}");
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    fn must_be(&self, one: &str, other: &str, reference: &str) {
        if one != other {
            self.storm.violation(format!("INV-1: {reference} is {one} and {other}"));
        }
    }

    fn note_posted(&self, kind: &str, id: &str, body: &Value, ends: Ends, units: u64) {
        let reference = body["reference"].as_str().unwrap();
        let name = format!("{}/{kind}/{reference}", CLIENTS[self.client].0);
        self.note(name, id, reference, ends, units, body);
    }

    fn note(&self, name: String, id: &str, reference: &str, ends: Ends, units: u64, body: &Value) {
        let new = Acknowledged {
            id: id.to_owned(),
            client: self.client,
            reference: reference.to_owned(),
            ends,
            units,
            body: body.clone(),
        };
        let before = self.storm.acknowledged.lock().unwrap().insert(name, new);
        if let Some(before) = before {
            self.must_be(&before.id, id, reference);
        }
    }
}
