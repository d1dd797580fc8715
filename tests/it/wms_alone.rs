//! `wavegate wms` by itself: its command line, its door, its ledger. The other side is not there.

use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::Output;
use std::time::{Duration, Instant};

use crate::floor::{KEY, TestWms, free_port};
use crate::server::{client, wavegate};
use crate::shop::PATIENCE;

const RELEASE: &str = "019ac2f0-0000-8000-8000-000000000001.1.1";

fn nobody() -> String {
    format!("http://127.0.0.1:{}", free_port())
}

fn wave(release: &str) -> Value {
    json!({
        "wave_id": "019ac2f0-0000-8000-8000-00000000000a", "warehouse": "ATL1",
        "released_at": "2026-11-24T16:00:00.000Z",
        "orders": [{
            "release_id": release, "transaction_id": &release[..36], "owner": "acme", "reference": "WEB-1",
            "correlation_id": "from-the-first-call",
            "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "service_level": "ground", "priority": 5, "requested_ship_by": null, "cut_off": null,
            "ship_to": {"name": "Ada Lovelace", "lines": ["1 Main St"], "city": "Atlanta", "country": "US"},
            "lines": [{"line": 1, "sku": "A", "quantity": 2}, {"line": 2, "sku": "B", "quantity": 1}],
        }],
    })
}

async fn call(wms: &TestWms, path: &str, body: &Value) -> (u16, Value) {
    let request = client().post(wms.at(path)).bearer_auth(KEY).header("x-correlation-id", "this-call");
    let response = request.json(body).send().await.expect("an answer");
    (response.status().as_u16(), response.json().await.unwrap_or(Value::Null))
}

async fn state(wms: &TestWms, release: &str) -> Value {
    let request = client().get(wms.at(&format!("/releases/{release}"))).bearer_auth(KEY);
    request.send().await.expect("an answer").json().await.expect("JSON")
}

fn run(dir: &Path, args: &[&str]) -> Output {
    let more = ["--url", "http://127.0.0.1:1", "--warehouse", "ATL1"];
    wavegate().current_dir(dir).arg("wms").args(args).args(more).output().expect("the binary runs")
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_configuration_in_the_repository_is_one() {
    for entry in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("config")).unwrap() {
        let file = entry.unwrap().path();
        let output = wavegate().args(["config", "check", "--config"]).arg(&file).output().unwrap();
        assert!(output.status.success(), "{}: {}", file.display(), err(&output));
    }
}

#[test]
fn a_start_that_cannot_be_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let local = ["--listen", "127.0.0.1:0"];
    let open = run(dir.path(), &["--listen", "0.0.0.0:0"]);
    assert_eq!(open.status.code(), Some(2), "{}", err(&open));
    let short = run(dir.path(), &[&local[..], &["--key", "short"]].concat());
    assert_eq!(short.status.code(), Some(2), "{}", err(&short));
    for (text, code, part) in [
        (
            "{\"entry\":\"opened\",\"version\":1,\"warehouse\":\"DFW2\",\"at\":\"2026-11-24T16:00:00Z\"}\n",
            2,
            "DFW2",
        ),
        (
            "{\"entry\":\"opened\",\"version\":9,\"warehouse\":\"ATL1\",\"at\":\"2026-11-24T16:00:00Z\"}\n",
            2,
            "version 9",
        ),
        ("{\"entry\":\"sung\"}\n", 3, "line 1"),
        ("hello\n", 3, "line 1"),
        ("somebody's only copy", 3, "no ledger"),
        (
            "{\"entry\":\"forgotten\",\"at\":\"2026-11-24T16:00:00Z\",\"wave_id\":\"\",\"release_id\":\"\"}\n",
            3,
            "no ledger",
        ),
    ] {
        fs::write(dir.path().join("wms-ATL1.ndjson"), text).unwrap();
        let output = run(dir.path(), &local);
        assert_eq!(output.status.code(), Some(code), "{text}: {}", err(&output));
        assert!(err(&output).contains(part), "{}", err(&output));
        let after = fs::read_to_string(dir.path().join("wms-ATL1.ndjson")).unwrap();
        assert_eq!(after, text, "a file that is not ours is left alone");
    }
}

#[tokio::test]
async fn only_one_process_writes_a_ledger() {
    let mut wms = TestWms::new("ATL1", &nobody(), "");
    wms.start();
    let ledger = wms.ledger_path();
    let dir = tempfile::tempdir().unwrap();
    let output = run(dir.path(), &["--listen", "127.0.0.1:0", "--ledger", ledger.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(3), "{}", err(&output));
    assert!(err(&output).contains("held by another process"), "{}", err(&output));
}

#[tokio::test]
async fn what_was_answered_is_answered_again_after_a_kill() {
    let mut wms = TestWms::new("ATL1", &nobody(), "pick=\"1h\",reject_rate=0.0");
    wms.start();
    let taken = json!({"results": [{"release_id": RELEASE, "result": "taken"}]});
    assert_eq!(call(&wms, "/waves", &wave(RELEASE)).await, (200, taken.clone()));
    assert_eq!(state(&wms, RELEASE).await["state"], "taken");
    let some = json!({"release_id": RELEASE, "lines": [2]});
    assert_eq!(call(&wms, "/cancellations", &some).await, (200, json!({"result": "cancelled"})));
    let manifest = json!({"manifest_id": "019ac2f0-0000-8000-8000-00000000000b", "carrier": "ups",
        "service_level": "ground", "cartons": [], "contents": []});
    assert_eq!(call(&wms, "/manifests", &manifest).await.0, 204);
    wms.start();
    assert_eq!(call(&wms, "/waves", &wave(RELEASE)).await, (200, taken));
    assert_eq!(call(&wms, "/cancellations", &some).await, (200, json!({"result": "cancelled"})));
    assert_eq!(call(&wms, "/manifests", &manifest).await.0, 204);
    let all = json!({"release_id": RELEASE});
    assert_eq!(call(&wms, "/cancellations", &all).await, (200, json!({"result": "cancelled"})));
    assert_eq!(state(&wms, RELEASE).await["state"], "cancelled");
    let text = fs::read_to_string(wms.ledger_path()).unwrap();
    for (entry, count) in [("taken", 1), ("cancellation", 2), ("loaded", 1)] {
        assert_eq!(text.matches(&format!("\"entry\":\"{entry}\"")).count(), count, "{entry}: {text}");
    }
    assert!(!text.contains("Ada") && !wms.log().contains("Ada"), "the address stays out of both");
    for part in [RELEASE, "this-call", "from-the-first-call", "0af7651916cd43dd8448eb211c80319c"] {
        assert!(text.contains(part) || wms.log().contains(part), "{part}");
    }
    assert!(!wms.log().contains(KEY), "{}", wms.log());
}

#[tokio::test]
async fn a_line_that_was_cut_off_was_never_promised() {
    let mut wms = TestWms::new("ATL1", &nobody(), "pick=\"1h\"");
    wms.start();
    assert_eq!(call(&wms, "/waves", &wave(RELEASE)).await.0, 200);
    wms.kill();
    let mut file = OpenOptions::new().append(true).open(wms.ledger_path()).unwrap();
    file.write_all(b"{\"entry\":\"taken\",\"at\":\"2026-").unwrap();
    wms.start();
    assert_eq!(state(&wms, RELEASE).await["state"], "taken");
    assert!(fs::read_to_string(wms.ledger_path()).unwrap().ends_with("}\n"));
}

#[tokio::test]
async fn what_is_done_is_kept_while_nobody_takes_the_report() {
    let mut wms = TestWms::new("ATL1", &nobody(), "pick=\"0s\",pack=\"0s\"");
    wms.start();
    assert_eq!(call(&wms, "/waves", &wave(RELEASE)).await.0, 200);
    let until = Instant::now() + PATIENCE;
    while !wms.log().contains("reports were not taken") {
        assert!(Instant::now() < until, "{}", wms.log());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let packed = state(&wms, RELEASE).await;
    assert_eq!(
        (&packed["state"], &packed["cartons"][0]["lines"][0]["quantity"]),
        (&json!("packed"), &json!(2))
    );
    wms.start();
    assert_eq!(state(&wms, RELEASE).await, packed);
    assert!(wms.log().contains("1 releases, 0 open, 2 reports to make"), "{}", wms.log());
}

#[tokio::test]
async fn a_wrong_call_is_refused_and_blames_the_right_one() {
    let mut wms = TestWms::new("ATL1", &nobody(), "");
    wms.start();
    let http = client();
    let no_key = http.post(wms.at("/waves")).json(&wave(RELEASE)).send().await.unwrap();
    assert_eq!(no_key.status(), 401);
    let other = http.get(wms.at("/releases/x")).bearer_auth("another-key-0123456").send().await.unwrap();
    assert_eq!(other.status(), 401);
    let mut elsewhere = wave(RELEASE);
    elsewhere["warehouse"] = json!("DFW2");
    assert_eq!(call(&wms, "/waves", &elsewhere).await.0, 421);
    assert_eq!(call(&wms, "/waves", &wave(&RELEASE.replace(".1.1", ".2.1"))).await.0, 400);
    for body in [json!({}), json!([]), json!("x"), json!({"release_id": "nonsense"})] {
        assert_eq!(call(&wms, "/cancellations", &body).await.0, 400, "{body}");
    }
    assert_eq!(call(&wms, "/nothing", &json!({})).await.0, 404);
    assert_eq!(state(&wms, RELEASE).await["state"], "unknown");
}
