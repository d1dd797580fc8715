//! The courier against a receiver that says exactly what a test wants, byte by byte.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::ports::clock::SystemClock;

/// What a receiver does once it has said its piece.
#[derive(Clone, Copy)]
enum After {
    Close,
    /// Keeps the connection and says no more.
    Hang,
    /// Says the same for ever, as fast as it is read.
    Pour,
    /// Says a byte a second for ever.
    Drip,
}

struct Receiver {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<String>>>,
    /// Bytes that it got rid of.
    sent: Arc<AtomicUsize>,
}

impl Receiver {
    async fn start(says: &str, after: After) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, sent) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (says, notes, bytes) = (says.to_owned(), heard.clone(), sent.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, says.clone(), after, notes.clone(), bytes.clone()));
            }
        });
        Receiver { address, heard, sent }
    }

    fn url(&self) -> String {
        format!("http://{}/hooks", self.address)
    }

    fn heard(&self) -> usize {
        self.heard.lock().unwrap().len()
    }
}

async fn answer(
    mut stream: TcpStream,
    says: String,
    after: After,
    heard: Arc<Mutex<Vec<String>>>,
    sent: Arc<AtomicUsize>,
) {
    let mut request = Vec::new();
    let mut chunk = [0; 4096];
    while !request.ends_with(b"}") {
        match stream.read(&mut chunk).await {
            Ok(n) if n > 0 => request.extend_from_slice(&chunk[..n]),
            Ok(_) | Err(_) => return,
        }
    }
    heard.lock().unwrap().push(String::from_utf8_lossy(&request).into_owned());
    if stream.write_all(says.as_bytes()).await.is_err() {
        return;
    }
    match after {
        After::Close => {}
        After::Hang => std::future::pending().await,
        After::Pour => {
            while stream.write_all(&[b' '; 4096]).await.is_ok() {
                sent.fetch_add(4096, SeqCst);
            }
        }
        After::Drip => {
            while stream.write_all(b" ").await.is_ok() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// Names with one answer after the other; the last stays.
struct Names(Mutex<Vec<Vec<IpAddr>>>);

impl Lookup for Names {
    fn addresses(&self, name: String) -> BoxFuture<io::Result<Vec<IpAddr>>> {
        let mut answers = self.0.lock().unwrap();
        let found = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
        let unknown = || io::Error::new(io::ErrorKind::NotFound, name);
        Box::pin(std::future::ready(if found.is_empty() { Err(unknown()) } else { Ok(found) }))
    }
}

fn courier(allowed: &[&str], names: &[&[&str]]) -> HttpCourier {
    rustls::crypto::ring::default_provider().install_default().ok();
    let guard = Guard::new(allowed.iter().map(|net| net.parse().unwrap()).collect());
    let parse = |all: &&[&str]| all.iter().map(|address| address.parse().unwrap()).collect();
    let names = Names(Mutex::new(names.iter().map(parse).collect()));
    HttpCourier::new(guard, Arc::new(names), Arc::new(SystemClock)).unwrap()
}

fn parcel(url: String) -> Parcel {
    Parcel {
        url,
        content_type: "application/json",
        headers: vec![("webhook-id", "a.1".to_owned()), ("x-correlation-id", "no\nheader".to_owned())],
        body: br#"{"a":1}"#.as_slice().into(),
    }
}

async fn answered(says: &str, after: After) -> (Result<Answer, PostError>, Receiver) {
    let receiver = Receiver::start(says, after).await;
    let answer = courier(&["127.0.0.0/8"], &[&[]]).post(parcel(receiver.url())).await;
    (answer, receiver)
}

fn plain(status: u16) -> Answer {
    Answer { status, retry_after: None, disable: false }
}

#[tokio::test]
async fn a_delivery_arrives_as_it_was_given() {
    let (answer, receiver) = answered(&http("204 No Content", "", ""), After::Close).await;
    assert_eq!(answer, Ok(plain(204)));
    let heard = receiver.heard.lock().unwrap().concat().to_lowercase();
    assert!(heard.starts_with("post /hooks http/1.1\r\n"), "{heard}");
    for part in ["\r\nwebhook-id: a.1\r\n", "\r\ncontent-type: application/json\r\n", "\r\n\r\n{\"a\":1}"] {
        assert!(heard.contains(part), "{part} in {heard}");
    }
    assert!(!heard.contains("x-correlation-id"), "what is no header is left out: {heard}");
}

#[tokio::test]
async fn headers_of_an_answer_are_read() {
    let busy = http("503 Busy", "retry-after: 7\r\n", "");
    let (answer, _) = answered(&busy, After::Close).await;
    assert_eq!(answer, Ok(Answer { retry_after: Some(Duration::from_secs(7)), ..plain(503) }));
    let enough = http("200 OK", "Webhook-Delivery: Disable\r\nretry-after: -7\r\n", "");
    let (answer, _) = answered(&enough, After::Close).await;
    assert_eq!(answer, Ok(Answer { disable: true, ..plain(200) }));
}

#[tokio::test]
async fn nobody_follows_where_an_answer_leads() {
    let inside = Receiver::start(&http("200 OK", "", ""), After::Close).await;
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let leads = http(status, &format!("location: {}\r\n", inside.url()), "");
        let (answer, _) = answered(&leads, After::Close).await;
        assert_eq!(answer, Ok(plain(status[..3].parse().unwrap())));
    }
    assert_eq!(inside.heard(), 0);
}

#[tokio::test]
async fn of_a_huge_answer_only_the_beginning_is_read() {
    let huge = "HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n";
    let (answer, receiver) = answered(huge, After::Pour).await;
    assert_eq!(answer, Ok(plain(200)));
    // What both sockets buffer is not read; a gigabyte is not among it.
    assert!(receiver.sent.load(SeqCst) < 32 << 20, "{}", receiver.sent.load(SeqCst));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_drips_in_or_never_comes_ends_with_the_attempt() {
    let began = Instant::now();
    let (answer, _) = answered("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n", After::Drip).await;
    assert_eq!(answer, Ok(plain(200)), "the status has decided");
    let (answer, _) = answered("HTTP/1.1 200 OK\r\nx-drips: ", After::Drip).await;
    assert_eq!(answer, Err(PostError::Silent));
    let (answer, _) = answered("", After::Hang).await;
    assert_eq!(answer, Err(PostError::Silent));
    assert!(began.elapsed() < 4 * ATTEMPT_WITHIN, "{:?}", began.elapsed());
}

#[tokio::test]
async fn what_is_no_http_is_no_answer() {
    for nonsense in ["", "SSH-2.0-OpenSSH_9.2\r\n", "HTTP/1.1 000 nothing\r\n\r\n"] {
        let (answer, _) = answered(nonsense, After::Close).await;
        assert!(matches!(answer, Err(PostError::Unreachable(_))), "{nonsense}: {answer:?}");
    }
}

#[tokio::test]
async fn a_written_address_is_checked_in_every_notation() {
    let receiver = Receiver::start(&http("200 OK", "", ""), After::Close).await;
    let port = receiver.address.port();
    let courier = courier(&[], &[&["1.1.1.1"]]);
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:7f00:0001]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "%31%32%37.0.0.1",
        "127。0。0。1",
        "0",
        "169.254.169.254",
    ] {
        let url = format!("http://{host}:{port}/hooks");
        assert_eq!(courier.post(parcel(url.clone())).await, Err(PostError::Forbidden), "{url}");
        assert_eq!(courier.judge(url.clone()).await, Err(AddressForbidden), "{url}");
    }
    assert_eq!(receiver.heard(), 0);
}

#[tokio::test]
async fn a_name_is_checked_at_each_attempt_and_one_bad_address_spoils_it() {
    let receiver = Receiver::start(&http("200 OK", "", ""), After::Close).await;
    let url = format!("http://shop.example:{}/hooks", receiver.address.port());
    // Good when it was named, inside afterwards: rebound, or half of it.
    let names: [&[&str]; 4] = [&["1.1.1.1"], &["127.0.0.1"], &["1.1.1.1", "::1"], &["10.0.0.1"]];
    let strict = courier(&[], &names);
    assert_eq!(strict.judge(url.clone()).await, Ok(()));
    for _ in 0..3 {
        assert_eq!(strict.post(parcel(url.clone())).await, Err(PostError::Forbidden));
    }
    assert_eq!(receiver.heard(), 0);
    // RFC 6761: what these names mean does not depend on any resolver.
    for name in ["localhost", "LOCALHOST.", "a.localhost"] {
        let url = format!("http://{name}:{}/hooks", receiver.address.port());
        assert_eq!(strict.judge(url.clone()).await, Err(AddressForbidden), "{url}");
        let opened = courier(&["127.0.0.0/8"], &[&[]]);
        assert_eq!(opened.post(parcel(url)).await, Ok(plain(200)));
    }
    let opened = courier(&["127.0.0.0/8"], &[&["127.0.0.1"]]);
    assert_eq!(opened.post(parcel(url)).await, Ok(plain(200)));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_may_be_named_and_is_not_reached() {
    let courier = courier(&[], &[&[]]);
    let url = "http://nowhere.example/".to_owned();
    assert_eq!(courier.judge(url.clone()).await, Ok(()));
    assert!(matches!(courier.post(parcel(url)).await, Err(PostError::Unreachable(_))));
}
