//! What is sent: the three-line order of 566 bytes, its references, and the stock behind it.

use std::cell::Cell;
use std::fmt::Write;
use std::ops::Range;

use super::keys::Key;

/// SKUs that orders ask for, in turn.
pub(super) const SKUS: u32 = 20;
/// Units that one order asks for.
pub(super) const UNITS: u64 = 4;
/// The body's length in bytes.
const BODY: usize = 566;
/// Letters of a reference.
const REFERENCE: usize = 16;
/// The most units that one receipt may name.
const RECEIPT_UNITS: u32 = 1_000_000;

/// How references follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum References {
    /// Each above the one before: a counter, as most systems have it.
    Ordered,
    /// Anywhere: random ids, as some systems have it.
    Random,
}

/// Makes requests that accept an order each; no two are alike.
pub(super) struct Orders {
    template: Vec<u8>,
    reference: usize,
    warehouse: usize,
    skus: [usize; 3],
    warehouses: u32,
    references: References,
    next: Cell<u64>,
    end: u64,
}

impl Orders {
    /// Orders of `warehouses` in turn, with these numbers.
    pub(super) fn new(warehouses: u32, references: References, numbers: Range<u64>) -> Orders {
        Orders::of(post("/v1/orders", &body()), warehouses, references, numbers)
    }

    /// The same with a client's key.
    pub(super) fn with_key(key: &Key, warehouses: u32, numbers: Range<u64>) -> Orders {
        Orders::of(key.on(&post("/v1/orders", &body())), warehouses, References::Ordered, numbers)
    }

    fn of(request: String, warehouses: u32, references: References, numbers: Range<u64>) -> Orders {
        let template = request.into_bytes();
        let find = |mark: &str| {
            let mark = mark.as_bytes();
            template.windows(mark.len()).position(|w| w == mark).unwrap_or_default()
        };
        let skus = ["SKU-a", "SKU-b", "SKU-c"].map(|mark| find(mark) + 4);
        let (reference, warehouse) = (find(&"r".repeat(REFERENCE)), find("\"W000\"") + 2);
        Orders {
            template,
            reference,
            warehouse,
            skus,
            warehouses,
            references,
            next: Cell::new(numbers.start),
            end: numbers.end,
        }
    }

    /// The number of the next one.
    pub(super) fn next_number(&self) -> u64 {
        self.next.get()
    }

    /// Writes the next request into `buffer`, which must be used for nothing else; `None` after
    /// the last.
    pub(super) fn write<'a>(&self, buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        if self.next.get() >= self.end {
            return None;
        }
        if buffer.is_empty() {
            buffer.extend_from_slice(&self.template);
        }
        let number = self.next.replace(self.next.get() + 1);
        let name = match self.references {
            References::Ordered => number,
            References::Random => scattered(number),
        };
        hexadecimal(&mut buffer[self.reference..self.reference + REFERENCE], name);
        let mut digits = |at: usize, length: usize, n: u64| decimal(&mut buffer[at..at + length], n);
        digits(self.warehouse, 3, number % u64::from(self.warehouses));
        // Warehouses and SKUs in turn, but not in step: every pair of them comes.
        let turn = number / u64::from(self.warehouses);
        for (i, at) in (0..).zip(self.skus) {
            digits(at, 2, (turn + 7 * i) % u64::from(SKUS));
        }
        Some(buffer)
    }
}

/// The code of the `n`th warehouse.
pub(super) fn code(n: u32) -> String {
    format!("W{n:03}")
}

/// The requests that book a warehouse's stock: enough for 250,000 orders of each SKU's turn.
pub(super) fn receipts(warehouse: u32) -> impl Iterator<Item = Vec<u8>> {
    let code = code(warehouse);
    (0..SKUS).map(move |sku| {
        let body = format!(
            r#"{{"reference":"{code}-{sku}","warehouse":"{code}","type":"receipt","sku":"SKU-{sku:02}","quantity":{RECEIPT_UNITS}}}"#
        );
        post("/v1/inventory/moves", &body).into_bytes()
    })
}

/// The request that pauses a warehouse.
pub(super) fn pause(warehouse: u32) -> Vec<u8> {
    post(&format!("/v1/ops/warehouses/{}/pause", code(warehouse)), "").into_bytes()
}

/// What all receipts of a warehouse bring.
pub(super) const STOCK: u64 = SKUS as u64 * RECEIPT_UNITS as u64;

/// A request with a JSON body.
pub(super) fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// A request without a body.
pub(super) fn get(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n")
}

fn body() -> String {
    let mut text = format!(
        r#"{{"reference":"{}","warehouse":"W000","service_level":"ground","priority":3,"ship_to":{{"name":"Amara Okafor","company":"Okafor & Daughters LLC","lines":["1420 Peachtree St NE","Suite 300"],"city":"Atlanta","region":"GA","postal_code":"30309","country":"US","phone":"+1 404 555 0142","email":"amara@example.com"}},"lines":["#,
        "r".repeat(REFERENCE)
    );
    for (line, (mark, quantity)) in (1..).zip([("a0", 1), ("b0", 2), ("c0", 1)]) {
        let comma = if line == 1 { "" } else { "," };
        // Writing to a String cannot fail.
        write!(text, r#"{comma}{{"line":{line},"sku":"SKU-{mark}","quantity":{quantity}}}"#).ok();
    }
    text.push_str(r#"],"metadata":{"channel":"web","note":""#);
    let rest = BODY.saturating_sub(text.len() + 3);
    text.extend("leave at the door, ring twice; ".chars().cycle().take(rest));
    text.push_str("\"}}");
    text
}

/// Another number for each number, in no order (the finaliser of MurmurHash3, a bijection).
fn scattered(mut n: u64) -> u64 {
    n ^= n >> 33;
    n = n.wrapping_mul(0xff51_afd7_ed55_8ccd);
    n ^= n >> 33;
    n = n.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    n ^ n >> 33
}

fn hexadecimal(into: &mut [u8], mut n: u64) {
    for digit in into.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(n & 15) as usize];
        n >>= 4;
    }
}

fn decimal(into: &mut [u8], mut n: u64) {
    for digit in into.iter_mut().rev() {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::BTreeSet;
    use wavegate_engine::wire::json;
    use wavegate_engine::wire::reader::Faults;
    use wavegate_engine::wire::requests::{self, Catalogue};

    fn bodies(orders: &Orders, count: usize) -> Vec<String> {
        let mut buffer = Vec::new();
        let body = |_| {
            let text = String::from_utf8(orders.write(&mut buffer).unwrap().to_vec()).unwrap();
            text.split_once("\r\n\r\n").unwrap().1.to_owned()
        };
        (0..count).map(body).collect()
    }

    #[test]
    fn every_order_is_valid_has_566_bytes_and_a_name_of_its_own() {
        let catalogue = Catalogue::new((0..3).map(|n| (code(n), vec!["ground".to_owned()])).collect());
        for references in [References::Ordered, References::Random] {
            let orders = Orders::new(3, references, 5..505);
            let mut names = BTreeSet::new();
            for body in bodies(&orders, 500) {
                assert_eq!(body.len(), BODY, "{body}");
                let order = requests::order(json::parse(body.as_bytes()).unwrap(), &catalogue, Faults::MAX);
                let command = order.unwrap().command;
                assert_eq!(command.lines.len(), 3);
                assert_eq!(command.lines.iter().map(|l| u64::from(l.quantity)).sum::<u64>(), UNITS);
                names.insert(command.reference.as_str().to_owned());
            }
            assert_eq!((names.len(), orders.next_number()), (500, 505));
            assert!(orders.write(&mut Vec::new()).is_none(), "there is an end");
        }
    }

    #[test]
    fn ordered_references_ascend_and_random_ones_do_not() {
        let names = |references| -> Vec<String> {
            let bodies = bodies(&Orders::new(1, references, 0..100), 100);
            bodies
                .iter()
                .map(|b| serde_json::from_str::<Value>(b).unwrap()["reference"].to_string())
                .collect()
        };
        assert!(names(References::Ordered).is_sorted());
        assert!(!names(References::Random).is_sorted());
    }

    #[test]
    fn every_sku_of_an_order_is_in_stock_of_its_warehouse() {
        let stocked: BTreeSet<(String, String)> = (0..3)
            .flat_map(receipts)
            .map(|request| {
                let text = String::from_utf8(request).unwrap();
                let body: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
                (body["warehouse"].to_string(), body["sku"].to_string())
            })
            .collect();
        let mut asked = BTreeSet::new();
        for body in bodies(&Orders::new(3, References::Ordered, 0..300), 300) {
            let order: Value = serde_json::from_str(&body).unwrap();
            for line in order["lines"].as_array().unwrap() {
                asked.insert((order["warehouse"].to_string(), line["sku"].to_string()));
            }
        }
        assert_eq!(asked, stocked);
    }
}
