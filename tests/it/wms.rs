//! The WMS's side of the wire, by a WMS that a test tells what to answer: right, wrong, slow, or
//! nonsense. Whatever it does, no order is lost and none is worked twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::web::Bytes;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use futures_util::stream;
use reqwest::Method;
use serde_json::{Value, json};

use crate::door::{self, ACME, Answer, WMS, get, keys, receive, request, send, until};
use crate::server::TestServer;
use crate::shop::{PATIENCE, id_of, order};

const KEY: &str = "the-key-of-the-wms-0123";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A call that the WMS got.
#[derive(Clone, Debug)]
struct Heard {
    path: String,
    headers: BTreeMap<String, String>,
    body: Value,
    bytes: Bytes,
}

/// Answers the n-th call to a path.
type Script = dyn Fn(&Heard, usize) -> HttpResponse + Send + Sync;

/// A WMS that does as it is told.
struct Scripted {
    url: String,
    heard: Arc<Mutex<Vec<Heard>>>,
}

struct Shared {
    heard: Arc<Mutex<Vec<Heard>>>,
    script: Box<Script>,
}

async fn hear(shared: web::Data<Shared>, request: HttpRequest, bytes: Bytes) -> HttpResponse {
    let text = |(name, value): (&HeaderName, &HeaderValue)| {
        (name.to_string(), value.to_str().unwrap_or_default().to_owned())
    };
    let heard = Heard {
        path: request.path().to_owned(),
        headers: request.headers().iter().map(text).collect(),
        body: serde_json::from_slice(&bytes).unwrap_or_default(),
        bytes,
    };
    let n = {
        let mut all = shared.heard.lock().unwrap();
        all.push(heard.clone());
        all.iter().filter(|h| h.path == heard.path).count() - 1
    };
    (shared.script)(&heard, n)
}

impl Scripted {
    fn start(script: impl Fn(&Heard, usize) -> HttpResponse + Send + Sync + 'static) -> Scripted {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let shared = web::Data::new(Shared { heard: heard.clone(), script: Box::new(script) });
        let app = move || {
            let bounds = web::PayloadConfig::new(32 << 20);
            App::new().app_data(shared.clone()).app_data(bounds).default_service(web::to(hear))
        };
        let server = HttpServer::new(app).workers(1).disable_signals().bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/wms", server.addrs()[0]);
        actix_rt::spawn(server.run());
        Scripted { url, heard }
    }

    /// Takes every wave, says nothing else.
    fn obliging() -> Scripted {
        Scripted::start(|heard, _| match heard.path.ends_with("/cancellations") {
            true => HttpResponse::Ok().json(json!({"result": "too_late"})),
            false => HttpResponse::Ok().finish(),
        })
    }

    /// A server whose ATL1 works with this WMS; DFW2 simulates its own.
    fn server(&self, more: &[&str]) -> TestServer {
        let warehouses = format!(
            "warehouses=[{{code=\"ATL1\",partition=1,wms={{kind=\"http\",url=\"{}\",key=\"{KEY}\"}}}},\
             {{code=\"DFW2\",partition=2}}]",
            self.url
        );
        let mut sets = vec![warehouses.as_str(), "manifests.close_every=100ms", "log.level=debug"];
        sets.extend(more);
        TestServer::start_with(&sets)
    }

    /// What came to a path so far.
    fn calls(&self, path: &str) -> Vec<Heard> {
        let all = self.heard.lock().unwrap();
        all.iter().filter(|h| h.path == format!("/wms/{path}")).cloned().collect()
    }

    /// Waits for calls to a path.
    async fn calls_when(&self, path: &str, enough: impl Fn(&[Heard]) -> bool) -> Vec<Heard> {
        let until = Instant::now() + PATIENCE;
        loop {
            let calls = self.calls(path);
            if enough(&calls) {
                return calls;
            }
            assert!(Instant::now() < until, "not within {PATIENCE:?}: {calls:#?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a wave has brought an order, and answers its release id.
    async fn release_of(&self, id: &str) -> String {
        let brings = |h: &Heard| release_in(h, id);
        let calls = self.calls_when("waves", |calls| calls.iter().any(|h| brings(h).is_some())).await;
        calls.iter().find_map(brings).unwrap()
    }
}

fn orders(wave: &Heard) -> &Vec<Value> {
    wave.body["orders"].as_array().unwrap()
}

fn release_in(wave: &Heard, id: &str) -> Option<String> {
    let order = orders(wave).iter().find(|o| o["transaction_id"] == id)?;
    Some(order["release_id"].as_str().unwrap().to_owned())
}

/// Orders two units of A, of which there are plenty.
async fn ordered(server: &TestServer, reference: &str) -> String {
    let answer = door::post(server, "/v1/orders", &order(reference, "ATL1", "A", 2)).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    id_of(&answer.body)
}

/// A report about a release.
fn report(kind: &str, release: &str, more: Value) -> Value {
    let mut body = json!({
        "confirmation_id": format!("{kind}-{release}"), "type": kind, "release_id": release,
        "at": "2026-11-24T16:00:00Z",
    });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn two() -> Value {
    json!({"lines": [{"line": 1, "quantity": 2}]})
}

fn in_carton(carton: &str) -> Value {
    let lines = json!([{"line": 1, "quantity": 2}]);
    json!({"cartons": [{"carton_id": carton, "tracking_number": "1Z999", "weight_g": 500, "lines": lines}]})
}

async fn confirm(server: &TestServer, body: &Value) -> Answer {
    door::post(server, "/v1/warehouses/ATL1/confirmations", body).await
}

async fn confirmed(server: &TestServer, body: &Value) {
    let answer = confirm(server, body).await;
    let n = body.as_array().map_or(1, Vec::len);
    assert_eq!((answer.status, &answer.body), (202, &json!({"accepted": n})));
}

/// Brings a fresh order to `picking` by a report. The control lane is worked in its order, so
/// whatever was reported before has then been worked as well.
async fn all_worked(server: &TestServer, wms: &Scripted, reference: &str) {
    let id = ordered(server, reference).await;
    let release = wms.release_of(&id).await;
    confirmed(server, &report("picking", &release, json!({}))).await;
    until(server, &id, |d| d["state"] == "picking").await;
}

async fn version(server: &TestServer, id: &str) -> u64 {
    get(server, &format!("/v1/status/{id}")).await.body["version"].as_u64().unwrap()
}

#[actix_rt::test]
async fn an_order_goes_out_with_all_its_fields_and_comes_back_shipped() {
    let wms = Scripted::obliging();
    let server = wms.server(&[]);
    receive(&server, "A", 10).await;
    let mut body = order("WEB-1", "ATL1", "A", 2);
    body["priority"] = json!(2);
    body["requested_ship_by"] = json!("2099-01-01T00:00:00Z");
    let sent = request(&server, Method::POST, "/v1/orders")
        .header("traceparent", TRACE)
        .header("x-correlation-id", "door-to-door")
        .json(&body);
    let id = send(sent).await.id().to_owned();
    let release = wms.release_of(&id).await;
    assert_eq!(release, format!("{id}.1.1"));

    let wave = wms.calls("waves").remove(0);
    let wave_id = wave.body["wave_id"].as_str().unwrap();
    for (name, value) in [
        ("authorization", format!("Bearer {KEY}").as_str()),
        ("traceparent", TRACE),
        ("x-correlation-id", wave_id),
        ("content-type", "application/json"),
    ] {
        assert_eq!(wave.headers.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert_eq!(wave.body["warehouse"], "ATL1");
    assert!(wave.body["released_at"].as_str().unwrap().ends_with('Z'));
    let expected = json!({
        "release_id": release, "transaction_id": id, "owner": "local", "reference": "WEB-1",
        "correlation_id": "door-to-door", "traceparent": TRACE, "service_level": "ground", "priority": 2,
        "requested_ship_by": "2099-01-01T00:00:00.000Z", "cut_off": null,
        "ship_to": {"name": "Ada", "lines": ["1 Main St"], "city": "Atlanta", "country": "US"},
        "lines": [{"line": 1, "sku": "A", "quantity": 2}],
    });
    assert_eq!(orders(&wave), &[expected]);

    // In the wrong order, twice, alone and in an array.
    let packed = report("packed", &release, in_carton("BOX-1"));
    let picked = report("picked", &release, two());
    let picking = report("picking", &release, json!({}));
    confirmed(&server, &packed).await;
    confirmed(&server, &json!([picked, picking, packed])).await;
    let truck = wms.calls_when("manifests", |calls| !calls.is_empty()).await.remove(0);
    let manifest = truck.body["manifest_id"].as_str().unwrap();
    let sscc = truck.body["cartons"][0].as_str().unwrap();
    assert_eq!(truck.body["contents"], json!([{"sscc": sscc, "carton_id": "BOX-1", "release_id": release}]));
    assert_eq!((&truck.body["carrier"], &truck.body["service_level"]), (&json!("ups"), &json!("ground")));
    assert!(truck.headers.contains_key("traceparent") && truck.headers.contains_key("x-correlation-id"));
    let left = json!({
        "confirmation_id": "gone", "type": "shipped", "manifest_id": manifest, "at": "2026-11-24T17:00:00Z",
    });
    confirmed(&server, &left).await;
    let document = until(&server, &id, |d| d["done"] == true).await;
    assert_eq!((&document["state"], &document["outcome"]), (&json!("shipped"), &json!("complete")));
    let carton = &document["fulfillments"][0]["cartons"][0];
    assert_eq!((&carton["sscc"], &carton["tracking_number"]), (&json!(sscc), &json!("1Z999")));

    // All of it again, after the end.
    confirmed(&server, &json!([left, packed, picked, picking])).await;
    all_worked(&server, &wms, "WEB-2").await;
    assert_eq!(version(&server, &id).await, document["version"].as_u64().unwrap());
    let log = server.log();
    assert!(log.contains("door-to-door") && log.contains(&release), "the log names both");
    for secret in ["Ada", "1 Main St", KEY] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
}

#[actix_rt::test]
async fn a_release_that_is_rejected_fails_alone() {
    let wms = Scripted::start(|heard, _| {
        let result = |order: &Value| match order["reference"] == "bad" {
            true => json!({"release_id": order["release_id"], "result": "rejected", "code": "hazmat"}),
            false => json!({"release_id": "019ac2f0-0000-8000-8000-000000000000.1.1", "result": "rejected"}),
        };
        let results: Vec<Value> = heard.body["orders"].as_array().into_iter().flatten().map(result).collect();
        let again = results.iter().map(|r| json!({"release_id": r["release_id"], "result": "taken"}));
        let all: Vec<Value> = results.iter().cloned().chain(again).collect();
        HttpResponse::Ok().json(json!({"results": all}))
    });
    let server = wms.server(&[]);
    receive(&server, "A", 10).await;
    let bad = ordered(&server, "bad").await;
    let good = ordered(&server, "good").await;
    let document = until(&server, &bad, |d| d["state"] == "failed").await;
    assert_eq!((&document["attention"], &document["done"]), (&json!(true), &json!(false)));
    assert_eq!(document["exceptions"][0]["code"], "wms_rejected");
    let release = wms.release_of(&good).await;
    confirmed(&server, &report("picked", &release, two())).await;
    until(&server, &good, |d| d["state"] == "picking").await;
}

#[actix_rt::test]
async fn a_refused_wave_is_halved_until_the_bad_order_is_alone() {
    let wms = Scripted::start(|heard, _| {
        let bad = heard.body["orders"].as_array().into_iter().flatten().any(|o| o["reference"] == "bad");
        if bad { HttpResponse::BadRequest().body("no") } else { HttpResponse::Accepted().finish() }
    });
    let server = wms.server(&[]);
    receive(&server, "A", 100).await;
    let batch: Vec<Value> =
        ["a", "b", "bad", "c", "d", "e"].map(|r| order(r, "ATL1", "A", 2)).into_iter().collect();
    let answer = door::post(&server, "/v1/orders/batch", &json!(batch)).await;
    let ids: Vec<String> = answer.body["results"].as_array().unwrap().iter().map(id_of).collect();
    let document = until(&server, &ids[2], |d| d["state"] == "failed").await;
    assert_eq!(document["exceptions"][0]["code"], "wms_rejected");
    let waves = wms.calls("waves");
    assert!(waves.iter().any(|w| orders(w).len() > 1 && release_in(w, &ids[2]).is_some()), "{waves:#?}");
    let alone = waves.iter().filter(|w| orders(w).len() == 1 && release_in(w, &ids[2]).is_some());
    assert_eq!(alone.count(), 1);
    for (i, id) in ids.iter().enumerate().filter(|(i, _)| *i != 2) {
        let release = wms.release_of(id).await;
        confirmed(&server, &report("picked", &release, two())).await;
        until(&server, id, |d| d["state"] == "picking").await;
        let n = wms.calls("waves").iter().filter(|w| release_in(w, id).is_some()).count();
        assert!(n <= 4, "order {i} went out {n} times");
    }
}

/// A body of this many bytes, each chunk after a pause.
fn streamed(chunk: usize, chunks: usize, pause: Duration) -> HttpResponse {
    let next = move |left: usize| async move {
        tokio::time::sleep(pause).await;
        (left > 0).then(|| (Ok::<_, actix_web::Error>(Bytes::from(vec![b' '; chunk])), left - 1))
    };
    HttpResponse::Ok().content_type("application/json").streaming(Box::pin(stream::unfold(chunks, next)))
}

#[actix_rt::test]
async fn what_is_no_answer_is_never_taken_for_one_and_the_wave_goes_again_unchanged() {
    let wms = Scripted::start(|heard, n| match (heard.path.as_str(), n) {
        ("/wms/waves", 0) => HttpResponse::Ok().content_type("text/html").body("<html>maintenance</html>"),
        ("/wms/waves", 1) => streamed(1 << 20, 100, Duration::ZERO),
        ("/wms/waves", 2) => HttpResponse::Unauthorized().finish(),
        ("/wms/waves", 3) => {
            HttpResponse::TemporaryRedirect().append_header(("location", "http://127.0.0.1:1/")).finish()
        }
        _ => HttpResponse::Ok().finish(),
    });
    let server = wms.server(&[]);
    receive(&server, "A", 10).await;
    let id = ordered(&server, "WEB-1").await;
    let waves = wms.calls_when("waves", |calls| calls.len() >= 5).await;
    for again in &waves {
        assert_eq!(again.bytes, waves[0].bytes, "re-sent unchanged");
        assert_eq!(again.headers["x-correlation-id"], waves[0].headers["x-correlation-id"]);
    }
    let document = until(&server, &id, |d| d["state"] == "released").await;
    assert_eq!(document["exceptions"], json!([]));
    let release = wms.release_of(&id).await;
    confirmed(&server, &report("packed", &release, in_carton("B"))).await;
    until(&server, &id, |d| d["state"] == "packed" || d["state"] == "manifested").await;
    assert!(server.log().contains("wms.key"), "what an operator must mend is said");
    assert!(!server.log().contains("Ada") && !server.log().contains("maintenance"));
}

#[actix_rt::test]
async fn a_dripping_answer_is_silence_and_other_warehouses_do_not_notice() {
    let wms = Scripted::start(|heard, n| match (heard.path.as_str(), n) {
        ("/wms/waves", 0) => streamed(1, 600, Duration::from_millis(100)),
        _ => HttpResponse::Ok().finish(),
    });
    let server = wms.server(&[]);
    receive(&server, "A", 10).await;
    let id = ordered(&server, "WEB-1").await;
    wms.release_of(&id).await;
    let elsewhere =
        json!({"reference": "m", "warehouse": "DFW2", "type": "receipt", "sku": "A", "quantity": 9});
    door::post(&server, "/v1/inventory/moves", &elsewhere).await;
    let began = Instant::now();
    let other = door::post(&server, "/v1/orders", &order("WEB-2", "DFW2", "A", 2)).await;
    until(&server, other.id(), |d| d["state"] == "shipped").await;
    assert!(began.elapsed() < Duration::from_secs(14), "{:?}", began.elapsed());
    let waves = wms.calls_when("waves", |calls| calls.len() >= 2).await;
    assert_eq!(waves[1].bytes, waves[0].bytes);
    assert_eq!(version(&server, &id).await, 3);
}

#[actix_rt::test]
async fn reports_that_cannot_be_true_are_kept_aside_and_harm_nothing() {
    // It works its waves and never manages to answer one, so every report comes before the answer;
    // and the manifest goes out past a wave that keeps failing.
    let wms = Scripted::start(|heard, _| match heard.path.ends_with("/waves") {
        true => HttpResponse::ServiceUnavailable().finish(),
        false => HttpResponse::Ok().finish(),
    });
    let server = wms.server(&[]);
    receive(&server, "A", 50).await;
    let id = ordered(&server, "WEB-1").await;
    let release = wms.release_of(&id).await;
    let elsewhere = "019ac2f0-0000-8000-8000-000000000000.1.1";
    let line = |line: u32, quantity: u32| json!({"lines": [{"line": line, "quantity": quantity}]});
    confirmed(
        &server,
        &json!([
            report("picked", &release, line(1, 3)),
            report("picked", &release, line(7, 1)),
            report("short_pick", &release, line(1, 1_000_000)),
            report("cancelled", &release, json!({})),
            report("picked", elsewhere, two()),
            report("picked", "not one of yours", two()),
            report("picked", &format!("{id}.1.9"), two()),
            {"confirmation_id": "x", "type": "shipped", "manifest_id": elsewhere, "at": "2026-11-24T16:00:00Z"},
            {"confirmation_id": "y", "type": "shipped", "manifest_id": id, "at": "2026-11-24T16:00:00Z"},
        ]),
    )
    .await;
    confirmed(&server, &report("packed", &release, in_carton("B"))).await;
    let packed = until(&server, &id, |d| d["state"] == "packed" || d["state"] == "manifested").await;
    assert_eq!((&packed["lines"][0]["picked"], &packed["exceptions"]), (&json!(2), &json!([])));
    // Picked after packed says less than is known.
    confirmed(&server, &report("picked", &release, line(1, 1))).await;
    confirmed(&server, &report("rejected", &release, json!({"code": "late"}))).await;
    let truck = wms.calls_when("manifests", |calls| !calls.is_empty()).await.remove(0);
    let left = json!({
        "confirmation_id": "gone", "type": "shipped", "manifest_id": truck.body["manifest_id"],
        "at": "2026-11-24T17:00:00Z",
    });
    confirmed(&server, &left).await;
    let done = until(&server, &id, |d| d["done"] == true).await;
    assert_eq!((&done["state"], &done["lines"][0]["shipped"]), (&json!("shipped"), &json!(2)));
    assert!(server.log().contains("kept aside as a dead letter"));
    let stock = get(&server, "/v1/warehouses/ATL1/inventory/A").await.body;
    assert_eq!(
        (&stock["on_hand"], &stock["reserved"], &stock["suspect"]),
        (&json!(48), &json!(0), &json!(0))
    );
}

#[actix_rt::test]
async fn a_cancellation_that_is_pending_is_decided_by_a_report() {
    let wms = Scripted::start(|heard, _| match heard.path.ends_with("/cancellations") {
        true => HttpResponse::Ok().json(json!({"result": "pending"})),
        false => HttpResponse::Ok().finish(),
    });
    let server = wms.server(&[]);
    receive(&server, "A", 10).await;
    for (reference, decision, state, request_state) in
        [("WEB-1", "cancelled", "cancelled", "applied"), ("WEB-2", "cancel_refused", "released", "rejected")]
    {
        let id = ordered(&server, reference).await;
        let release = wms.release_of(&id).await;
        until(&server, &id, |d| d["state"] == "released").await;
        let cancel = door::post(&server, &format!("/v1/orders/{id}/cancel"), &json!({})).await;
        let brings = |h: &Heard| h.body == json!({"release_id": release});
        let asked = wms.calls_when("cancellations", |calls| calls.iter().any(brings)).await;
        assert!(asked.iter().any(|h| brings(h) && h.headers.contains_key("traceparent")));
        let waiting = get(&server, &format!("/v1/status/{id}")).await.body;
        assert_eq!((&waiting["state"], &waiting["cancel_requested"]), (&json!("released"), &json!(true)));
        assert_eq!(waiting["lines"][0]["reserved"], 2);
        confirmed(&server, &report(decision, &release, json!({}))).await;
        until(&server, cancel.id(), |d| d["state"] == request_state).await;
        let document = until(&server, &id, |d| d["cancel_requested"] == false).await;
        assert_eq!(document["state"], state);
    }
    let stock = get(&server, "/v1/warehouses/ATL1/inventory/A").await.body;
    assert_eq!((&stock["on_hand"], &stock["reserved"]), (&json!(10), &json!(2)));
}

#[actix_rt::test]
async fn another_warehouse_s_release_is_unknown_here() {
    let wms = Scripted::obliging();
    let server = wms.server(&[]);
    receive(&server, "A", 10).await;
    let elsewhere =
        json!({"reference": "m", "warehouse": "DFW2", "type": "receipt", "sku": "A", "quantity": 9});
    door::post(&server, "/v1/inventory/moves", &elsewhere).await;
    let other = door::post(&server, "/v1/orders", &order("WEB-1", "DFW2", "A", 2)).await;
    let document = until(&server, other.id(), |d| d["state"] == "shipped").await;
    let release = format!("{}.1.1", other.id());
    confirmed(&server, &json!([report("picked", &release, two()), report("damaged", &release, two())])).await;
    all_worked(&server, &wms, "WEB-2").await;
    assert_eq!(json!(version(&server, other.id()).await), document["version"]);
    assert_eq!(server.log().matches("unknown release").count(), 2);
}

#[actix_rt::test]
async fn what_is_missing_comes_from_other_stock_in_another_release() {
    let wms = Scripted::obliging();
    let server = wms.server(&[]);
    receive(&server, "A", 10).await;
    let id = ordered(&server, "WEB-1").await;
    let first = wms.release_of(&id).await;
    let one = || json!({"lines": [{"line": 1, "quantity": 1}]});
    confirmed(&server, &json!([report("short_pick", &first, one()), report("picked", &first, one())])).await;
    let second = format!("{id}.1.2");
    let brings = |h: &Heard| orders(h).iter().any(|o| o["release_id"] == second);
    let waves = wms.calls_when("waves", |calls| calls.iter().any(brings)).await;
    let wave = waves.iter().find(|w| brings(w)).unwrap();
    assert_eq!(orders(wave)[0]["lines"], json!([{"line": 1, "sku": "A", "quantity": 1}]));
    // The same once more, now that it is known.
    confirmed(&server, &report("short_pick", &first, one())).await;
    all_worked(&server, &wms, "WEB-2").await;
    let document = get(&server, &format!("/v1/status/{id}")).await.body;
    assert_eq!(document["exceptions"].as_array().unwrap().len(), 1, "{document}");
    assert_eq!(document["exceptions"][0]["code"], "short_pick");
    let stock = get(&server, "/v1/warehouses/ATL1/inventory/A").await.body;
    assert_eq!((&stock["suspect"], &stock["reserved"]), (&json!(1), &json!(4)));
}

#[actix_rt::test]
async fn a_wms_that_forgot_is_told_again_and_one_that_fell_silent_is_asked_again() {
    let wms = Scripted::start(|heard, n| match heard.path.rsplit('/').next() {
        Some("waves" | "manifests") => HttpResponse::Ok().finish(),
        Some("cancellations") if n == 0 => HttpResponse::Ok().json(json!({"result": "pending"})),
        Some("cancellations") => HttpResponse::Conflict().json(json!({"result": "too_late"})),
        Some(release) if n == 0 => {
            HttpResponse::Ok().json(json!({"release_id": release, "state": "unknown"}))
        }
        Some(release) => {
            let lines = json!([{"line": 1, "quantity": 1}]);
            HttpResponse::Ok().json(json!({"release_id": release, "state": "picked", "lines": lines}))
        }
        None => HttpResponse::NotFound().finish(),
    });
    let server = wms.server(&["wms.silent_after=1s"]);
    receive(&server, "A", 10).await;
    let id = ordered(&server, "WEB-1").await;
    let release = wms.release_of(&id).await;
    let cancel = door::post(&server, &format!("/v1/orders/{id}/cancel"), &json!({})).await;
    until(&server, cancel.id(), |d| d["state"] == "rejected").await;
    let waves = wms.calls_when("waves", |calls| calls.len() >= 2).await;
    assert_eq!(release_in(&waves[1], &id), Some(release.clone()), "under its old id");
    assert_ne!(waves[1].body["wave_id"], waves[0].body["wave_id"], "in a new wave");
    assert_eq!(orders(&waves[1]), orders(&waves[0]));
    let document = until(&server, &id, |d| d["state"] == "picking").await;
    assert_eq!(document["lines"][0]["picked"], 1);
    let asked = wms.calls(&format!("releases/{release}"));
    assert!(
        asked[0].headers.contains_key("x-correlation-id") && asked[0].headers.contains_key("traceparent")
    );
}

#[actix_rt::test]
async fn only_the_warehouse_s_own_system_confirms_and_only_what_is_well_formed() {
    let wms = Scripted::obliging();
    let server = wms.server(&[&keys()]);
    let good = report("picking", "019ac2f0-0000-8000-8000-000000000000.1.1", json!({}));
    let call = async |key: &str, path: &str, body: &Value| {
        let sent = request(&server, Method::POST, &format!("/v1/warehouses/{path}/confirmations"));
        send(sent.bearer_auth(key).json(body)).await
    };
    assert_eq!(call(WMS, "ATL1", &good).await.status, 202);
    assert_eq!(call(door::OPERATOR, "DFW2", &good).await.status, 202);
    call(WMS, "DFW2", &good).await.is_problem(403, "forbidden");
    call(ACME, "ATL1", &good).await.is_problem(403, "forbidden");
    call("no-key-of-ours-at-all", "ATL1", &good).await.is_problem(401, "unauthorized");
    call(door::OPERATOR, "NOPE", &good).await.is_problem(404, "not_found");
    let mut bad = good.clone();
    bad["lines"] = json!([{"line": 1, "quantity": 0}]);
    call(WMS, "ATL1", &bad).await.is_fault("/lines/0/quantity", "out_of_range");
    call(WMS, "ATL1", &json!([good, bad])).await.is_fault("/1/lines/0/quantity", "out_of_range");
    let path = "/v1/warehouses/ATL1/confirmations";
    let raw = |media: &'static str, body: Vec<u8>| {
        let sent = request(&server, Method::POST, path).bearer_auth(WMS).header("content-type", media);
        send(sent.body(body))
    };
    raw("application/json", b"{".to_vec()).await.is_problem(400, "malformed_json");
    raw("text/plain", b"{}".to_vec()).await.is_problem(415, "unsupported_media_type");
    raw("application/json", vec![b' '; (10 << 20) + 1]).await.is_problem(413, "body_too_large");
    let sent = request(&server, Method::GET, path).bearer_auth(WMS);
    assert_eq!(send(sent).await.is_problem(405, "method_not_allowed").header("allow"), Some("POST"));
}
