//! A client of the server under test: orders, receipts, statuses. Each helper waits for a
//! condition with a bound, never for a time.

use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The longest that anything in a test may take to become true.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Warehouses whose WMS works fast, as one `--set`; `silent` names those that never answer.
pub(crate) fn fast_warehouses(silent: &[&str]) -> String {
    let warehouse = |(code, partition): (&str, u16)| {
        let silent = if silent.contains(&code) { "1.0" } else { "0.0" };
        format!(
            "{{code=\"{code}\",partition={partition},backlog_max=1000,wms={{kind=\"simulated\",pick=\"20ms\",\
             pack=\"10ms\",depart=\"50ms\",silent_rate={silent},credits=200}}}}"
        )
    };
    let all: Vec<String> = [("ATL1", 1), ("DFW2", 2), ("RNO3", 3)].map(warehouse).into();
    format!("warehouses=[{}]", all.join(","))
}

/// An order of one line.
pub(crate) fn order(reference: &str, warehouse: &str, sku: &str, quantity: u32) -> Value {
    json!({
        "reference": reference,
        "warehouse": warehouse,
        "service_level": "ground",
        "ship_to": {"name": "Ada", "lines": ["1 Main St"], "city": "Atlanta", "country": "US"},
        "lines": [{"line": 1, "sku": sku, "quantity": quantity}],
    })
}

/// A receipt.
pub(crate) fn receipt(reference: &str, warehouse: &str, sku: &str, quantity: u32) -> Value {
    json!({"reference": reference, "warehouse": warehouse, "type": "receipt", "sku": sku, "quantity": quantity})
}

/// Posts JSON; the status and the body.
pub(crate) async fn post(client: &reqwest::Client, url: String, body: &Value) -> (u16, Value) {
    let response = client.post(url).json(body).send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or(Value::Null))
}

/// Gets JSON; the status and the body.
pub(crate) async fn get(client: &reqwest::Client, url: String) -> (u16, Value) {
    let response = client.get(url).send().await.expect("an answer");
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or(Value::Null))
}

/// The id in a 202.
pub(crate) fn id_of(accepted: &Value) -> String {
    accepted["transaction_id"].as_str().unwrap_or_else(|| panic!("no id in {accepted}")).to_owned()
}

/// Waits until a transaction's document is as wanted, and answers it.
pub(crate) async fn status_when(
    client: &reqwest::Client,
    server: &str,
    id: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    let until = Instant::now() + PATIENCE;
    let (mut status, mut document) = get(client, format!("{server}/v1/status/{id}")).await;
    while status != 200 || !wanted(&document) {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {status} {document}");
        let version = document["version"].as_u64().unwrap_or(0);
        let url = format!("{server}/v1/status/{id}?wait=5&after_version={version}");
        (status, document) = get(client, url).await;
    }
    document
}
