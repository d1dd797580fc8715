//! The body of `POST /v1/orders`: any bytes are an order or a list of faults, and an order that was
//! taken says so again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use wavegate_engine::wire::json;
use wavegate_engine::wire::reader::Faults;
use wavegate_engine::wire::requests::{self, Catalogue};

fuzz_target!(|body: &[u8]| {
    let catalogue = Catalogue::new(vec![("ATL1".to_owned(), vec!["ground".to_owned()])]);
    let read = || json::parse(body).ok().map(|tree| requests::order(tree, &catalogue, Faults::MAX));
    match read() {
        Some(Ok(order)) => assert_eq!(read().and_then(Result::ok), Some(order)),
        Some(Err(faults)) => assert!(!faults.is_empty(), "a refusal names its reason"),
        None => {}
    }
});
