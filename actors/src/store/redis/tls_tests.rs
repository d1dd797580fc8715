//! Against a real Redis that is reached by TLS, with certificates that are made for the test.

use std::net::TcpListener;
use std::path::{Path, PathBuf};

use super::tests::{DURABLE, Redis, recent};
use super::*;
use crate::ports::store::{SharedStore, Verdict};
use crate::store::contract::accept;

/// A certificate of a name, signed by itself, and its key, as files.
fn certificate(dir: &Path, name: &str) -> (PathBuf, PathBuf) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let (cert, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (cert, key)
}

/// A Redis that asks for a password, and for a certificate if `asks_back`, and how it is reached.
fn start(dir: &Path, asks_back: bool) -> (Redis, RedisOptions) {
    let (cert, key) = certificate(dir, "redis");
    let (client, _) = certificate(dir, "client");
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (tls_port, back) = (port.to_string(), if asks_back { "yes" } else { "no" });
    let paths = [&cert, &key, &client].map(|path| path.to_str().unwrap().to_owned());
    let settings = [
        ["--tls-port", &tls_port],
        ["--tls-cert-file", &paths[0]],
        ["--tls-key-file", &paths[1]],
        ["--tls-ca-cert-file", &paths[2]],
        ["--tls-auth-clients", back],
        ["--requirepass", "geheim-geheim"],
    ];
    let settings: Vec<&str> = DURABLE.into_iter().chain(settings.into_iter().flatten()).collect();
    let url = format!("rediss://:geheim-geheim@127.0.0.1:{port}");
    let tls = TlsOptions { ca_file: Some(cert), client: None };
    (Redis::start(&settings), RedisOptions { tls, ..RedisOptions::at(url) })
}

fn said(refused: Result<RedisStore, OpenError>) -> String {
    let Err(e) = refused else { panic!("it was taken") };
    let said = format!("{} {e:?}", link::with_causes(&e));
    assert!(!said.contains("geheim"), "{said}");
    said
}

#[tokio::test]
async fn a_store_is_kept_by_tls_with_whom_is_trusted_and_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let (_redis, options) = start(dir.path(), false);
    let store: SharedStore = Arc::new(RedisStore::open(&options).unwrap());
    assert_eq!(accept(&store, vec![recent(1, "r1", 1)]).await, [Verdict::New]);
    drop(store);
    // Signed by nobody who is known, or by somebody else.
    let of_the_machine = RedisOptions { tls: TlsOptions::default(), ..options.clone() };
    let another = TlsOptions { ca_file: Some(certificate(dir.path(), "another").0), client: None };
    for wrong in [of_the_machine, RedisOptions { tls: another, ..options.clone() }] {
        let said = said(RedisStore::open(&wrong));
        assert!(said.to_lowercase().contains("certificate"), "{said}");
    }
    let missing = TlsOptions { ca_file: Some(dir.path().join("nowhere")), client: None };
    let said = said(RedisStore::open(&RedisOptions { tls: missing, ..options }));
    assert!(said.contains("nowhere"), "{said}");
}

#[tokio::test]
async fn a_redis_that_asks_for_a_certificate_gets_one() {
    let dir = tempfile::tempdir().unwrap();
    let (_redis, options) = start(dir.path(), true);
    said(RedisStore::open(&options));
    let client = Some((dir.path().join("client.pem"), dir.path().join("client.key")));
    let tls = TlsOptions { client, ..options.tls.clone() };
    let store: SharedStore = Arc::new(RedisStore::open(&RedisOptions { tls, ..options }).unwrap());
    assert_eq!(accept(&store, vec![recent(1, "r1", 1)]).await, [Verdict::New]);
}
