//! The line to a WMS against a server that says exactly what a test wants, byte by byte.

use std::sync::Mutex;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::domain::command::ShipTo;
use crate::domain::ids::PartitionId;
use crate::domain::time::Timestamp;
use crate::ports::store::ManifestCarton;
use crate::ports::wms::{ReleaseOut, Taken};

const KEY: &str = "a-wms-key-0123456789";

/// A WMS that answers every request with the same bytes and then does `after`.
struct Server {
    url: String,
    heard: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone, Copy)]
enum After {
    Close,
    /// Keeps the connection and says no more.
    Hang,
    /// Says the same byte for ever.
    Pour,
}

impl Server {
    async fn start(says: &str, after: After) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/base/", listener.local_addr().unwrap());
        let heard = Arc::new(Mutex::new(Vec::new()));
        let (says, notes) = (says.to_owned(), heard.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, says.clone(), after, notes.clone()));
            }
        });
        Server { url, heard }
    }

    fn wms(&self) -> HttpWms {
        rustls::crypto::ring::default_provider().install_default().ok();
        let settings =
            Settings { warehouse: "ATL1".into(), url: self.url.parse().unwrap(), key: KEY.parse().unwrap() };
        HttpWms::new(settings, Arc::new(Known)).unwrap()
    }

    fn heard(&self) -> String {
        self.heard.lock().unwrap().concat()
    }
}

/// Reads until the JSON body ends, or the head of a GET: our requests have nothing behind it.
async fn answer(mut stream: TcpStream, says: String, after: After, heard: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    let whole = |r: &[u8]| r.ends_with(b"}") || (r.starts_with(b"GET ") && r.ends_with(b"\r\n\r\n"));
    while !whole(&request) {
        match stream.read(&mut chunk).await {
            Ok(n) if n > 0 => request.extend_from_slice(&chunk[..n]),
            Ok(_) | Err(_) => return,
        }
    }
    heard.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
    let _closed = stream.write_all(says.as_bytes()).await;
    match after {
        After::Close => {}
        After::Hang => std::future::pending().await,
        After::Pour => while stream.write_all(&[b' '; 4096]).await.is_ok() {},
    }
}

/// An answer with a body and its length.
fn http(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

struct Known;

impl Origins for Known {
    fn origin(&self, _: TransactionId) -> BoxFuture<Option<Origin>> {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
        let origin = Origin { correlation: "call-7".parse().unwrap(), trace };
        Box::pin(async move { Some(origin) })
    }
}

fn id(random: u64) -> TransactionId {
    TransactionId::new(Timestamp(1_795_536_000_000), PartitionId(1), random)
}

fn release(random: u64) -> ReleaseId {
    ReleaseId { order: id(random), n: 1 }
}

fn wave_of(traces: &[&str]) -> Wave {
    let ship_to = ShipTo {
        name: "Ada Lovelace".into(),
        company: None,
        lines: vec!["1 Main St".into()],
        city: "Atlanta".into(),
        region: None,
        postal_code: None,
        country: "US".into(),
        phone: None,
        email: None,
    };
    let order = |(i, trace): (usize, &&str)| ReleaseOut {
        release: release(i as u64 + 1),
        owner: "acme".into(),
        reference: format!("WEB-{i}").parse().unwrap(),
        correlation: "call-7".parse().unwrap(),
        trace: trace.parse().unwrap(),
        service_level: "ground".into(),
        priority: 5,
        requested_ship_by: None,
        cut_off: Some(Timestamp(1_795_540_000_000)),
        ship_to: Some(ship_to.clone()),
        lines: vec![(1, "A".parse().unwrap(), 2)],
    };
    let orders = traces.iter().enumerate().map(order).collect();
    Wave { id: id(99), released_at: Timestamp(1_795_536_000_000), orders }
}

const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const OTHER: &str = "00-1af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test]
async fn a_wave_says_everything_that_the_contract_names() {
    let server = Server::start(&http("202 Accepted", ""), After::Close).await;
    let answer = server.wms().wave(wave_of(&[TRACE])).await;
    assert_eq!(answer, Ok(WaveAnswer::Decided(vec![])));
    let heard = server.heard();
    let (head, body) = heard.split_once("\r\n\r\n").unwrap();
    let head = head.to_lowercase();
    assert!(head.starts_with("post /base/waves http/1.1\r\n"), "{head}");
    let wave = id(99);
    for header in [
        format!("authorization: bearer {KEY}"),
        format!("x-correlation-id: {wave}"),
        format!("traceparent: {TRACE}"),
        "content-type: application/json".into(),
    ] {
        assert!(head.contains(&header), "{header} is not in {head}");
    }
    let one = release(1);
    let order = one.order;
    let expected = serde_json::json!({
        "wave_id": wave.to_string(), "warehouse": "ATL1", "released_at": "2026-11-24T16:00:00.000Z",
        "orders": [{
            "release_id": one.to_string(), "transaction_id": order.to_string(), "owner": "acme",
            "reference": "WEB-0", "correlation_id": "call-7", "traceparent": TRACE,
            "service_level": "ground", "priority": 5, "requested_ship_by": null,
            "cut_off": "2026-11-24T17:06:40.000Z",
            "ship_to": {"name": "Ada Lovelace", "lines": ["1 Main St"], "city": "Atlanta", "country": "US"},
            "lines": [{"line": 1, "sku": "A", "quantity": 2}],
        }],
    });
    assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap(), expected);
}

#[tokio::test]
async fn a_wave_of_several_traces_has_its_own_and_always_the_same() {
    let one = origin_of_wave(&wave_of(&[TRACE, OTHER]));
    assert_eq!(one, origin_of_wave(&wave_of(&[OTHER, TRACE])));
    assert!(one.trace.traceparent().parse::<TraceContext>().is_ok());
    assert_eq!(origin_of_wave(&wave_of(&[TRACE, TRACE])).trace.traceparent(), TRACE);
}

#[tokio::test]
async fn a_cancellation_and_a_manifest_carry_the_origin_of_what_they_are_about() {
    let server = Server::start(&http("200 OK", r#"{"result":"pending"}"#), After::Close).await;
    let wms = server.wms();
    assert_eq!(wms.cancel(release(1), Some(vec![2])).await, Ok(CancelReply::Pending));
    let sscc: crate::domain::sscc::Sscc = "106141412345678908".parse().unwrap();
    let manifest = ManifestOut {
        id: id(5),
        carrier: "ups".into(),
        service_level: "ground".into(),
        closed_at: Timestamp(1),
        cartons: vec![ManifestCarton { sscc, carton_id: Some("C-1".into()), release: release(1) }],
    };
    assert_eq!(wms.manifest(manifest).await, Ok(()));
    let heard = server.heard();
    assert_eq!(heard.matches("x-correlation-id: call-7").count(), 2, "{heard}");
    let (one, truck) = (release(1), id(5));
    for said in [
        format!(r#"{{"release_id":"{one}","lines":[2]}}"#),
        format!(
            r#"{{"manifest_id":"{truck}","carrier":"ups","service_level":"ground","cartons":["{sscc}"],"contents":[{{"sscc":"{sscc}","carton_id":"C-1","release_id":"{one}"}}]}}"#
        ),
    ] {
        assert!(heard.contains(&said), "{said} is not in {heard}");
    }
}

#[tokio::test]
async fn each_status_means_what_it_must() {
    for (says, answer) in [
        (http("400 Bad Request", "no"), Some(WaveAnswer::Refused)),
        (http("422 Unprocessable", ""), Some(WaveAnswer::Refused)),
        (http("200 OK", "<html>maintenance</html>"), None),
        (http("401 Unauthorized", ""), None),
        (http("404 Not Found", ""), None),
        (http("429 Too Many", ""), None),
        (http("500 Oops", r#"{"results":[]}"#), None),
        ("HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n".into(), None),
        ("garbage\r\n\r\n".into(), None),
        // Half an answer is none: the connection ends before the body does.
        ("HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"results\":[]}".into(), None),
    ] {
        let server = Server::start(&says, After::Close).await;
        let found = server.wms().wave(wave_of(&[TRACE])).await;
        assert_eq!(found.as_ref().ok(), answer.as_ref(), "{says}: {found:?}");
        assert!(!format!("{found:?}").contains("Ada"), "{found:?}");
    }
    let server = Server::start(&http("409 Conflict", r#"{"result":"too_late"}"#), After::Close).await;
    assert_eq!(server.wms().cancel(release(1), None).await, Ok(CancelReply::TooLate));
    let server = Server::start(&http("409 Conflict", "no"), After::Close).await;
    assert!(server.wms().cancel(release(1), None).await.is_err());
}

#[tokio::test]
async fn a_silent_release_is_asked_for_where_that_is_served() {
    let one = release(1);
    let unknown = format!(r#"{{"release_id":"{one}","state":"unknown"}}"#);
    for (says, known) in [
        (http("200 OK", &unknown), Some(Some(ReleaseKnown::Unknown))),
        (http("404 Not Found", &unknown), Some(Some(ReleaseKnown::Unknown))),
        (http("404 Not Found", "no such page"), Some(None)),
        (http("501 Not Implemented", ""), Some(None)),
        (http("200 OK", "<html>"), Some(None)),
        (http("503 Later", &unknown), None),
        (http("401 Unauthorized", &unknown), None),
    ] {
        let server = Server::start(&says, After::Close).await;
        let found = server.wms().release(one).await;
        assert_eq!(found.as_ref().ok(), known.as_ref(), "{says}: {found:?}");
        let heard = server.heard();
        assert!(heard.starts_with(&format!("GET /base/releases/{one} HTTP/1.1\r\n")), "{heard}");
        assert!(heard.contains("x-correlation-id: call-7") && heard.contains(KEY), "{heard}");
    }
}

#[tokio::test]
async fn results_come_through() {
    let one = release(1);
    let body = format!(r#"{{"results":[{{"release_id":"{one}","result":"rejected","code":"hazmat"}}]}}"#);
    let server = Server::start(&http("200 OK", &body), After::Close).await;
    let decided = WaveAnswer::Decided(vec![(one, Taken::Rejected { code: "hazmat".into() })]);
    assert_eq!(server.wms().wave(wave_of(&[TRACE])).await, Ok(decided));
}

#[tokio::test]
async fn a_body_without_an_end_is_bounded_in_size() {
    let head = "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
    let server = Server::start(head, After::Pour).await;
    let found = server.wms().wave(wave_of(&[TRACE])).await;
    assert!(matches!(&found, Err(WmsError::Unavailable(why)) if why.contains("larger")), "{found:?}");
    let declared = "HTTP/1.1 200 OK\r\ncontent-length: 104857600\r\n\r\n";
    let server = Server::start(declared, After::Pour).await;
    assert!(server.wms().wave(wave_of(&[TRACE])).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn silence_is_bounded_in_time() {
    for says in ["", "HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"] {
        let server = Server::start(says, After::Hang).await;
        assert_eq!(server.wms().wave(wave_of(&[TRACE])).await, Err(WmsError::Silent), "{says}");
    }
}

#[tokio::test]
async fn nobody_there_is_unavailable_and_names_no_key() {
    let server = Server { url: "http://127.0.0.1:1".into(), heard: Arc::default() };
    let found = server.wms().wave(wave_of(&[TRACE])).await;
    assert!(matches!(&found, Err(WmsError::Unavailable(why)) if why.contains("refused")), "{found:?}");
    assert!(!format!("{:?}{found:?}", server.wms().0.settings).contains(KEY));
}

#[test]
fn addresses_and_keys_are_parsed_to_the_letter() {
    for bad in [
        "",
        "wms",
        "/wms",
        "ftp://x/",
        "http://",
        "http://u:p@x/",
        "http://x/?a=1",
        "http://x/#a",
        "localhost:1",
    ] {
        assert!(bad.parse::<BaseUrl>().is_err(), "{bad}");
    }
    for (base, at) in [
        ("http://x", "http://x/waves"),
        ("https://x:1/a/b/", "https://x:1/a/b/waves"),
        ("http://[::1]:80/a", "http://[::1]/a/waves"),
    ] {
        assert_eq!(base.parse::<BaseUrl>().unwrap().at(&["waves"]).as_str(), at);
    }
    for bad in ["short", "has a space in it..", "ümlaut-0123456789", &"x".repeat(129)] {
        assert!(bad.parse::<ApiKey>().is_err(), "{bad}");
    }
}
