//! What the tests of the front door share: requests as a client sends them, answers as it reads
//! them.

use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};

use crate::server::{TestServer, client};

/// SHA-256 of each key below is in [`KEYS`].
pub(crate) const ACME: &str = "acme-key-0123456789";
pub(crate) const GLOBEX: &str = "globex-key-0123456789";
pub(crate) const WMS: &str = "wms-key-0123456789";
pub(crate) const OPERATOR: &str = "operator-key-0123456789";

/// The setting that makes the keys above known.
pub(crate) fn keys() -> String {
    format!(
        "keys=[{{role=\"client\",client=\"acme\",sha256=\"{}\"}},{{role=\"client\",client=\"globex\",sha256=\"{}\"}},\
         {{role=\"wms\",warehouses=[\"ATL1\"],sha256=\"{}\"}},{{role=\"operator\",sha256=\"{}\"}}]",
        digest_of(ACME),
        digest_of(GLOBEX),
        digest_of(WMS),
        digest_of(OPERATOR)
    )
}

/// A key's digest, as settings have it.
pub(crate) fn digest_of(key: &str) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(key).iter().map(|b| format!("{b:02x}")).collect()
}

/// An answer, read whole.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

impl Answer {
    /// A header as text.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|v| v.to_str().expect("a header is text"))
    }

    /// A member of the body as text.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.body[name].as_str().unwrap_or_else(|| panic!("no text {name} in {}", self.body))
    }

    /// A link of the body.
    pub(crate) fn text_link(&self, name: &str) -> &str {
        self.body["links"][name].as_str().unwrap_or_else(|| panic!("no link {name} in {}", self.body))
    }

    /// The id of the transaction.
    pub(crate) fn id(&self) -> &str {
        self.text("transaction_id")
    }

    /// Checks that the answer is a whole problem document of this kind.
    #[track_caller]
    pub(crate) fn is_problem(&self, status: u16, code: &str) -> &Self {
        assert_eq!((self.status, self.body["code"].as_str()), (status, Some(code)), "{}", self.body);
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        assert_eq!(self.body["type"], format!("urn:wavegate:problem:{code}"));
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["correlation_id"], self.header("x-correlation-id").expect("the header"));
        for member in ["title", "detail", "instance"] {
            assert!(
                self.body[member].as_str().is_some_and(|text| !text.is_empty()),
                "{member}: {}",
                self.body
            );
        }
        self
    }

    /// Checks that the answer is a 422 with exactly this fault.
    #[track_caller]
    pub(crate) fn is_fault(&self, pointer: &str, code: &str) {
        self.is_problem(422, "validation_failed");
        let found: Vec<_> = self.body["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|e| (&e["pointer"], &e["code"]))
            .collect();
        assert_eq!(found, [(&json!(pointer), &json!(code))]);
    }
}

/// Sends a request and reads the answer whole.
pub(crate) async fn send(request: RequestBuilder) -> Answer {
    let response = request.send().await.expect("an answer");
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.bytes().await.expect("the whole answer");
    let body = if bytes.is_empty() { Value::Null } else { serde_json::from_slice(&bytes).expect("JSON") };
    Answer { status, headers, body }
}

/// A request to a path.
pub(crate) fn request(server: &TestServer, method: Method, path: &str) -> RequestBuilder {
    client().request(method, server.at(path))
}

/// A GET.
pub(crate) async fn get(server: &TestServer, path: &str) -> Answer {
    send(request(server, Method::GET, path)).await
}

/// A POST of JSON.
pub(crate) async fn post(server: &TestServer, path: &str, body: &Value) -> Answer {
    send(request(server, Method::POST, path).json(body)).await
}

/// A POST of text that claims to be JSON.
pub(crate) async fn post_text(server: &TestServer, path: &str, body: impl Into<reqwest::Body>) -> Answer {
    send(request(server, Method::POST, path).header("content-type", "application/json").body(body)).await
}

/// A small order.
pub(crate) fn order(reference: &str) -> Value {
    json!({
        "reference": reference, "warehouse": "ATL1", "service_level": "ground",
        "ship_to": {"name": "Ada", "lines": ["1 Main St"], "city": "Atlanta", "country": "US"},
        "lines": [{"line": 1, "sku": "A", "quantity": 1}],
    })
}

/// Brings stock of a SKU and waits until it is there.
pub(crate) async fn receive(server: &TestServer, sku: &str, quantity: u32) {
    let body = json!({"reference": format!("asn-{sku}"), "warehouse": "ATL1", "type": "receipt", "sku": sku, "quantity": quantity});
    let request =
        request(server, Method::POST, "/v1/inventory/moves").header("prefer", "wait=30").json(&body);
    let answer = send(request).await;
    assert_eq!((answer.status, &answer.body["state"]), (200, &json!("applied")), "{}", answer.body);
}

/// Reads a transaction until `enough`, at most a minute.
pub(crate) async fn until(server: &TestServer, id: &str, enough: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..600 {
        let answer = get(server, &format!("/v1/status/{id}")).await;
        assert_eq!(StatusCode::OK, answer.status, "{}", answer.body);
        if enough(&answer.body) {
            return answer.body;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("{id} did not come so far within a minute");
}
