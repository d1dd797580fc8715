//! The request headers with a grammar of their own: `Idempotency-Key`, `Prefer`, `If-None-Match`,
//! `Content-Type`.
#![no_main]

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use libfuzzer_sys::fuzz_target;
use wavegate::http::fuzzing;

fuzz_target!(|values: Vec<(u8, Vec<u8>)>| {
    const NAMES: [&str; 4] = ["idempotency-key", "prefer", "if-none-match", "content-type"];
    let mut headers = HeaderMap::new();
    for (name, value) in values {
        let name = HeaderName::from_static(NAMES[usize::from(name) % NAMES.len()]);
        if let Ok(value) = HeaderValue::from_bytes(&value) {
            headers.append(name, value);
        }
    }
    let read = fuzzing::read_headers(&headers);
    assert!(read.wait_s.is_none_or(|s| s <= 30));
    assert!(read.key.is_none_or(|key| (1..=255).contains(&key.len())));
});
