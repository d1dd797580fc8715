//! Requests as commands: one walk from the JSON tree, which either parses all of it or lists
//! every fault. What comes out needs no second check.

use std::collections::{BTreeMap, HashSet};

use super::address;
use super::json::Json;
use super::reader::{self, Chars, Fault, FaultCode, Faults, Fields, Path};
use crate::domain::command::{
    AdjustmentReason, Allocation, CancellationCommand, Change, MoveCommand, OrderCommand, OrderLine,
    Priority, ShipTo,
};
use crate::domain::ids::{LineNo, QUANTITY_MAX, Quantity, Reference, Sku, TransactionId};

/// Lines of one order: what a WMS works as one release.
pub const LINES_MAX: usize = 500;
/// Pairs of metadata: notes, not a document store.
pub const METADATA_MAX: usize = 16;
/// Ids of one status query.
pub const IDS_MAX: usize = 500;

/// Warehouse codes and the names of services and clients are names that somebody configured.
const NAME: Chars = Chars { min: 1, max: 64, controls: false };
const METADATA_KEY: Chars = Chars { min: 1, max: 64, controls: false };
const METADATA_VALUE: Chars = Chars { min: 0, max: 500, controls: true };
/// An id that is asked for; longer ones are not repeated in the answer.
const ID: Chars = Chars { min: 1, max: 64, controls: false };

/// The warehouses and services that an order may name.
#[derive(Clone, Debug, Default)]
pub struct Catalogue {
    offers: Vec<(String, Vec<String>)>,
}

impl Catalogue {
    /// Warehouse codes in configured order, each with its services.
    #[must_use]
    pub fn new(offers: Vec<(String, Vec<String>)>) -> Catalogue {
        Catalogue { offers }
    }

    fn services(&self, warehouse: &str) -> Option<&[String]> {
        self.offers.iter().find(|(code, _)| code == warehouse).map(|(_, services)| &services[..])
    }

    fn knows_service(&self, service: &str) -> bool {
        self.offers.iter().any(|(_, services)| services.iter().any(|s| s == service))
    }
}

/// An order as sent: the command, and the personal data apart from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OrderRequest {
    /// What is to be done.
    pub command: OrderCommand,
    /// Where it goes.
    pub ship_to: ShipTo,
}

/// A move as sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveRequest {
    /// What is to be done.
    pub command: MoveCommand,
    /// Whose stock it is, where the caller says so.
    pub owner: Option<String>,
}

/// A cancellation as sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancellationRequest {
    /// The client's name for it.
    pub reference: Option<Reference>,
    /// The lines to cancel, none twice; `None` means all.
    pub lines: Option<Vec<LineNo>>,
}

impl CancellationRequest {
    /// The request to cancel all of an order, without a name of its own.
    pub const WHOLE: CancellationRequest = CancellationRequest { reference: None, lines: None };

    /// The name of the request for `order`: its own, else one that a repeat has as well.
    #[must_use]
    pub fn reference_for(&self, order: TransactionId) -> Option<Reference> {
        self.reference.clone().or_else(|| format!("cancel:{order}").parse().ok())
    }

    /// The command that this request is for `order`, whose lines are `known` as long as it is kept.
    ///
    /// # Errors
    /// A fault for each line that is not among the order's `known` ones.
    pub fn command(
        self,
        order: TransactionId,
        known: Option<&[OrderLine]>,
    ) -> Result<CancellationCommand, Vec<Fault>> {
        let mut faults = Faults::new(Faults::MAX);
        let lines = Path::Key(&Path::Root, "lines");
        for (i, line) in self.lines.iter().flatten().enumerate() {
            if known.is_some_and(|known| !known.iter().any(|l| l.line == *line)) {
                faults.add(&Path::Index(&lines, i), FaultCode::UnknownLine, "is no line of this order");
            }
        }
        if !faults.is_empty() {
            return Err(faults.into_vec());
        }
        match self.reference_for(order) {
            Some(reference) => Ok(CancellationCommand { reference, order, lines: self.lines }),
            None => Err(Vec::new()),
        }
    }
}

/// Reads an order; at most `faults_max` faults are listed.
///
/// # Errors
/// Every fault found.
pub fn order(json: Json<'_>, catalogue: &Catalogue, faults_max: usize) -> Result<OrderRequest, Vec<Fault>> {
    read(json, faults_max, |fields, root, faults| {
        let reference = fields.required("reference", root, faults, reference);
        let warehouse = fields.optional("warehouse", root, faults, |v, p, f| warehouse(v, catalogue, p, f));
        let service_level = fields.required("service_level", root, faults, |v, p, f| {
            let service = reader::text(v, NAME, p, f)?;
            offered(&service, warehouse.as_ref(), catalogue, p, f).then_some(service)
        });
        let allocation = fields.defaulted("allocation", root, faults, allocation);
        let priority = fields.defaulted("priority", root, faults, |v, p, f| {
            let number = reader::whole(&v, (0, 9), p, f)?;
            u8::try_from(number).ok().map(Priority)
        });
        let not_before = fields.optional("not_before", root, faults, reader::time);
        let requested_ship_by = fields.optional("requested_ship_by", root, faults, reader::time);
        let ship_to = fields.required("ship_to", root, faults, address::ship_to);
        let lines = fields.required("lines", root, faults, lines);
        let metadata = fields.defaulted("metadata", root, faults, metadata);
        let command = OrderCommand {
            reference: reference?,
            warehouse: warehouse?,
            service_level: service_level?,
            allocation: allocation?,
            priority: priority?,
            not_before: not_before?,
            requested_ship_by: requested_ship_by?,
            lines: lines?,
            metadata: metadata?,
        };
        Some(OrderRequest { command, ship_to: ship_to? })
    })
}

/// Reads an inventory move. Its type decides which fields it has, so with a bad type only the
/// fields that all moves share are judged.
///
/// # Errors
/// Every fault found.
pub fn stock_move(json: Json<'_>, catalogue: &Catalogue) -> Result<MoveRequest, Vec<Fault>> {
    let mut faults = Faults::new(Faults::MAX);
    let root = &Path::Root;
    let Some(mut fields) = Fields::open(json, root, &mut faults) else { return Err(faults.into_vec()) };
    let kind = fields.required("type", root, &mut faults, |v, p, f| {
        let name = reader::string(v, p, f)?;
        let kind = MoveType::ALL.into_iter().find(|kind| kind.as_str() == name);
        if kind.is_none() {
            f.add(p, FaultCode::UnknownValue, "must be \"receipt\", \"adjustment\" or \"count\"");
        }
        kind
    });
    let reference = fields.required("reference", root, &mut faults, reference);
    let code = fields.required("warehouse", root, &mut faults, |v, p, f| warehouse(v, catalogue, p, f));
    let sku = fields.required("sku", root, &mut faults, sku);
    let owner = fields.optional("owner", root, &mut faults, |v, p, f| reader::text(v, NAME, p, f));
    // Which fields there are, the type says; without one nothing more can be told.
    let change = kind.and_then(|kind| {
        let change = change(kind, &mut fields, &mut faults);
        fields.close(root, &mut faults);
        change
    });
    let whole = || {
        let command = MoveCommand { reference: reference?, warehouse: code?, sku: sku?, change: change? };
        Some(MoveRequest { command, owner: owner? })
    };
    match whole() {
        Some(request) if faults.is_empty() => Ok(request),
        Some(_) | None => Err(faults.into_vec()),
    }
}

/// The types of move that are read so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MoveType {
    Receipt,
    Adjustment,
    Count,
}

impl MoveType {
    const ALL: [MoveType; 3] = [MoveType::Receipt, MoveType::Adjustment, MoveType::Count];

    fn as_str(self) -> &'static str {
        match self {
            MoveType::Receipt => "receipt",
            MoveType::Adjustment => "adjustment",
            MoveType::Count => "count",
        }
    }
}

fn change(kind: MoveType, fields: &mut Fields<'_>, faults: &mut Faults) -> Option<Change> {
    let root = &Path::Root;
    match kind {
        MoveType::Receipt => {
            let quantity = fields.required("quantity", root, faults, units)?;
            Some(Change::Receipt { quantity })
        }
        MoveType::Adjustment => {
            let most = i32::try_from(QUANTITY_MAX).unwrap_or(i32::MAX);
            let delta = fields.required("delta", root, faults, |v, p, f| {
                let delta = reader::signed(&v, (-most, most), p, f)?;
                if delta == 0 {
                    f.add(p, FaultCode::OutOfRange, "must not be 0");
                }
                Some(delta)
            });
            let reason = fields.required("reason", root, faults, |v, p, f| {
                let name = reader::string(v, p, f)?;
                let reason = AdjustmentReason::ALL.into_iter().find(|r| r.as_str() == name);
                if reason.is_none() {
                    let names = AdjustmentReason::ALL.map(AdjustmentReason::as_str).join(", ");
                    f.add(p, FaultCode::UnknownValue, format!("must be one of {names}"));
                }
                reason
            });
            Some(Change::Adjustment { delta: delta?, reason: reason? })
        }
        MoveType::Count => {
            let counted = fields
                .required("counted", root, faults, |v, p, f| reader::whole(&v, (0, QUANTITY_MAX), p, f))?;
            Some(Change::Count { counted })
        }
    }
}

/// Reads a cancellation.
///
/// # Errors
/// Every fault found.
pub fn cancellation(json: Json<'_>) -> Result<CancellationRequest, Vec<Fault>> {
    read(json, Faults::MAX, |fields, root, faults| {
        let reference = fields.optional("reference", root, faults, reference);
        let lines = fields.optional("lines", root, faults, |v, p, f| {
            let items = reader::bounded_list(v, LINES_MAX, p, f)?;
            let mut seen = HashSet::new();
            reader::each(items, p, f, |v, p, f| {
                let number = reader::whole(&v, (1, LineNo::MAX), p, f)?;
                unique(number, &mut seen, p, f)
            })
        });
        Some(CancellationRequest { reference: reference?, lines: lines? })
    })
}

/// Reads the ids of a status query, as they were written: what is no id is simply not found.
///
/// # Errors
/// Every fault found.
pub fn status_query(json: Json<'_>) -> Result<Vec<String>, Vec<Fault>> {
    read(json, Faults::MAX, |fields, root, faults| {
        fields.required("ids", root, faults, |v, p, f| {
            let items = reader::bounded_list(v, IDS_MAX, p, f)?;
            reader::each(items, p, f, |v, p, f| reader::text(v, ID, p, f))
        })
    })
}

/// Opens the body, reads it and refuses what is left over.
pub(super) fn read<T>(
    json: Json<'_>,
    faults_max: usize,
    body: impl FnOnce(&mut Fields<'_>, &Path<'_>, &mut Faults) -> Option<T>,
) -> Result<T, Vec<Fault>> {
    let mut faults = Faults::new(faults_max);
    let request = Fields::open(json, &Path::Root, &mut faults).and_then(|mut fields| {
        let request = body(&mut fields, &Path::Root, &mut faults);
        fields.close(&Path::Root, &mut faults);
        request
    });
    match request {
        Some(request) if faults.is_empty() => Ok(request),
        Some(_) | None => Err(faults.into_vec()),
    }
}

fn reference(value: Json<'_>, path: &Path<'_>, faults: &mut Faults) -> Option<Reference> {
    reader::name(value, Reference::CHARS_MAX, path, faults)
}

fn sku(value: Json<'_>, path: &Path<'_>, faults: &mut Faults) -> Option<Sku> {
    reader::name(value, Sku::CHARS_MAX, path, faults)
}

fn units(value: Json<'_>, path: &Path<'_>, faults: &mut Faults) -> Option<Quantity> {
    reader::whole(&value, (1, QUANTITY_MAX), path, faults)
}

fn warehouse(value: Json<'_>, catalogue: &Catalogue, path: &Path<'_>, faults: &mut Faults) -> Option<String> {
    let code = reader::string(value, path, faults)?;
    if catalogue.services(&code).is_none() {
        faults.add(path, FaultCode::UnknownWarehouse, "no warehouse has this code");
        return None;
    }
    Some(code.into_owned())
}

/// Whether the warehouse offers the service; without a warehouse, whether any does. A warehouse
/// that is itself at fault says nothing about the service.
fn offered(
    service: &str,
    warehouse: Option<&Option<String>>,
    catalogue: &Catalogue,
    path: &Path<'_>,
    faults: &mut Faults,
) -> bool {
    let (known, detail) = match warehouse {
        Some(Some(code)) => {
            let services = catalogue.services(code).unwrap_or_default();
            (services.iter().any(|s| s == service), "the warehouse does not offer this service")
        }
        Some(None) => (catalogue.knows_service(service), "no warehouse offers this service"),
        None => (true, ""),
    };
    if !known {
        faults.add(path, FaultCode::UnknownServiceLevel, detail);
    }
    known
}

fn allocation(value: Json<'_>, path: &Path<'_>, faults: &mut Faults) -> Option<Allocation> {
    let name = reader::string(value, path, faults)?;
    let all = [Allocation::ShipComplete, Allocation::ShipPartial, Allocation::FillOrKill];
    let found = all.into_iter().find(|a| a.as_str() == name);
    if found.is_none() {
        let detail = "must be \"ship_complete\", \"ship_partial\" or \"fill_or_kill\"";
        faults.add(path, FaultCode::UnknownValue, detail);
    }
    found
}

fn lines(value: Json<'_>, path: &Path<'_>, faults: &mut Faults) -> Option<Vec<OrderLine>> {
    let items = reader::bounded_list(value, LINES_MAX, path, faults)?;
    let mut seen = HashSet::with_capacity(items.len());
    reader::each(items, path, faults, |value, path, faults| {
        let mut fields = Fields::open(value, path, faults)?;
        let line = fields.required("line", path, faults, |v, p, f| {
            let number = reader::whole(&v, (1, LineNo::MAX), p, f)?;
            unique(number, &mut seen, p, f)
        });
        let sku = fields.required("sku", path, faults, sku);
        let quantity = fields.required("quantity", path, faults, units);
        fields.close(path, faults);
        Some(OrderLine { line: line?, sku: sku?, quantity: quantity? })
    })
}

fn unique(
    number: LineNo,
    seen: &mut HashSet<LineNo>,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<LineNo> {
    if !seen.insert(number) {
        faults.add(path, FaultCode::DuplicateLine, format!("line {number} stands here twice"));
        return None;
    }
    Some(number)
}

fn metadata(value: Json<'_>, path: &Path<'_>, faults: &mut Faults) -> Option<BTreeMap<String, String>> {
    let pairs = Fields::open(value, path, faults)?.into_members();
    if pairs.len() > METADATA_MAX {
        faults.add(path, FaultCode::TooLong, format!("must have at most {METADATA_MAX} pairs"));
        return None;
    }
    let mut read = Some(BTreeMap::new());
    for (key, value) in pairs {
        let at = Path::Key(path, &key);
        let good_key = reader::check_text(&key, METADATA_KEY, &at, faults);
        let value = reader::text(value, METADATA_VALUE, &at, faults);
        match (value, good_key, &mut read) {
            (Some(value), true, Some(map)) => {
                map.insert(key.into_owned(), value);
            }
            (Some(_), true, None) => {}
            (None, _, _) | (Some(_), false, _) => read = None,
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::super::json;
    use super::*;
    use crate::domain::time::Timestamp;
    use serde_json::{Value, json};

    fn catalogue() -> Catalogue {
        let services = |names: &[&str]| names.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        Catalogue::new(vec![
            ("ATL1".to_owned(), services(&["ground", "express"])),
            ("DFW2".to_owned(), services(&["ground", "freight"])),
        ])
    }

    fn sample() -> Value {
        json!({
            "reference": "WEB-100245", "warehouse": "ATL1", "service_level": "ground",
            "ship_to": {"name": "Ada", "lines": ["1 Main St"], "city": "Atlanta", "country": "US"},
            "lines": [{"line": 1, "sku": "TSHIRT-BLK-M", "quantity": 2}],
        })
    }

    fn read(body: &str) -> Result<OrderRequest, Vec<(String, &'static str)>> {
        let tree = json::parse(body.as_bytes()).expect("well-formed");
        order(tree, &catalogue(), Faults::MAX)
            .map_err(|faults| faults.into_iter().map(|f| (f.pointer, f.code.as_str())).collect())
    }

    /// The sample with one place replaced, or removed by `None`.
    fn with(pointer: &str, value: Option<Value>) -> String {
        let mut body = sample();
        let (parent, key) = pointer.rsplit_once('/').expect("a place below the root");
        let parent = body.pointer_mut(parent).expect("the parent is in the sample");
        match (parent, value) {
            (Value::Object(map), Some(value)) => {
                map.insert(key.to_owned(), value);
            }
            (Value::Object(map), None) => {
                map.remove(key);
            }
            (Value::Array(items), Some(value)) => items[key.parse::<usize>().expect("index")] = value,
            _ => panic!("{pointer} is not in an object or array"),
        }
        body.to_string()
    }

    #[test]
    fn an_order_with_all_its_fields_is_read_as_sent() {
        let mut body = sample();
        body["allocation"] = json!("ship_partial");
        body["priority"] = json!(0);
        body["not_before"] = json!("2026-11-24T16:00:00Z");
        body["requested_ship_by"] = json!("2026-11-25T01:00:00+01:00");
        body["metadata"] = json!({"channel": "web", "note": "two\nlines"});
        body["ship_to"]["company"] = json!("");
        body["ship_to"]["phone"] = Value::Null;
        let read = read(&body.to_string()).unwrap();
        assert_eq!(read.command.allocation, Allocation::ShipPartial);
        assert_eq!(read.command.priority, Priority(0));
        assert_eq!(read.command.not_before, Some(Timestamp(1_795_536_000_000)));
        assert_eq!(read.command.requested_ship_by, Some(Timestamp(1_795_564_800_000)));
        assert_eq!(read.command.metadata.len(), 2);
        assert_eq!(read.ship_to.company.as_deref(), Some(""));
        assert_eq!(read.ship_to.phone, None);
    }

    #[test]
    fn fields_at_their_default_are_the_same_order() {
        let mut explicit = sample();
        explicit["allocation"] = json!("ship_complete");
        explicit["priority"] = json!(5);
        explicit["metadata"] = json!({});
        explicit["not_before"] = Value::Null;
        assert_eq!(read(&explicit.to_string()), read(&sample().to_string()));
    }

    #[test]
    fn each_fault_is_told_with_its_place() {
        let long = "x".repeat(201);
        for (pointer, value, code) in [
            ("/reference", None, "missing"),
            ("/reference", Some(json!(7)), "wrong_type"),
            ("/reference", Some(json!("")), "out_of_range"),
            ("/reference", Some(json!("a\r\nb")), "malformed"),
            ("/reference", Some(json!("x".repeat(129))), "too_long"),
            ("/warehouse", Some(json!("NOPE")), "unknown_warehouse"),
            ("/service_level", Some(json!("freight")), "unknown_service_level"),
            ("/service_level", None, "missing"),
            ("/allocation", Some(json!("some")), "unknown_value"),
            ("/allocation", Some(Value::Null), "wrong_type"),
            ("/priority", Some(json!(10)), "out_of_range"),
            ("/priority", Some(json!("5")), "wrong_type"),
            ("/not_before", Some(json!("tomorrow")), "malformed"),
            ("/requested_ship_by", Some(json!(1)), "wrong_type"),
            ("/colour", Some(json!("red")), "unknown_field"),
            ("/a~1b~0c", Some(json!(1)), "unknown_field"),
            ("/ship_to", Some(json!([])), "wrong_type"),
            ("/ship_to/name", None, "missing"),
            ("/ship_to/name", Some(json!(long)), "too_long"),
            ("/ship_to/city", Some(json!("a\u{0}")), "malformed"),
            ("/ship_to/lines", Some(json!([])), "out_of_range"),
            ("/ship_to/lines/0", Some(json!(1)), "wrong_type"),
            ("/ship_to/country", Some(json!("XX")), "unknown_value"),
            ("/ship_to/country", Some(json!("us")), "unknown_value"),
            ("/ship_to/country", Some(json!("USA")), "unknown_value"),
            ("/ship_to/zip", Some(json!("1")), "unknown_field"),
            ("/lines", Some(json!([])), "out_of_range"),
            ("/lines", Some(json!({})), "wrong_type"),
            ("/lines/0", Some(json!("x")), "wrong_type"),
            ("/lines/0/line", Some(json!(0)), "out_of_range"),
            ("/lines/0/sku", Some(json!("a\tb")), "malformed"),
            ("/lines/0/sku", Some(json!("x".repeat(101))), "too_long"),
            ("/lines/0/colour", Some(json!(1)), "unknown_field"),
            ("/metadata", Some(json!([])), "wrong_type"),
            ("/metadata", Some((0..17).map(|i| (i.to_string(), json!("x"))).collect()), "too_long"),
        ] {
            let body = match pointer {
                "/a~1b~0c" => with("/a", None).replacen('{', "{\"a/b~c\":1,", 1),
                _ => with(pointer, value),
            };
            assert_eq!(read(&body), Err(vec![(pointer.to_owned(), code)]), "{body}");
        }
        let nested = with("/metadata", Some(json!({"a": 1})));
        assert_eq!(read(&nested), Err(vec![("/metadata/a".to_owned(), "wrong_type")]));
    }

    #[test]
    fn quantities_are_whole_numbers_written_as_such() {
        let with_quantity =
            |text: &str| sample().to_string().replace("\"quantity\":2", &format!("\"quantity\":{text}"));
        for good in ["1", "1000000"] {
            assert!(read(&with_quantity(good)).is_ok(), "{good}");
        }
        for (bad, code) in [
            ("0", "out_of_range"),
            ("-1", "out_of_range"),
            ("1000001", "out_of_range"),
            ("9007199254740993", "out_of_range"),
            ("1e300", "out_of_range"),
            ("1.0", "wrong_type"),
            ("1e2", "wrong_type"),
            ("1.5", "wrong_type"),
            ("\"1\"", "wrong_type"),
            ("null", "wrong_type"),
        ] {
            assert_eq!(read(&with_quantity(bad)), Err(vec![("/lines/0/quantity".to_owned(), code)]), "{bad}");
        }
        assert!(json::parse(with_quantity("1e400").as_bytes()).is_err());
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let body = json!({
            "warehouse": "X", "service_level": 1, "priority": -1, "colour": 1, "ship_to": {"country": "QQ"},
            "lines": [{"line": 1, "sku": "A", "quantity": 1}, {"line": 1, "sku": "", "quantity": 0}, {}],
        });
        let found: Vec<String> = read(&body.to_string()).unwrap_err().into_iter().map(|(p, _)| p).collect();
        for pointer in [
            "/reference",
            "/warehouse",
            "/service_level",
            "/priority",
            "/colour",
            "/ship_to/name",
            "/ship_to/lines",
            "/ship_to/city",
            "/ship_to/country",
            "/lines/1/line",
            "/lines/1/sku",
            "/lines/1/quantity",
            "/lines/2/line",
            "/lines/2/sku",
            "/lines/2/quantity",
        ] {
            assert!(found.iter().any(|p| p == pointer), "{pointer} is not among {found:?}");
        }
        assert_eq!(found.len(), 15);
    }

    #[test]
    fn an_unrouted_order_needs_a_service_that_some_warehouse_offers() {
        let mut body = sample();
        body["warehouse"] = Value::Null;
        body["service_level"] = json!("freight");
        assert!(read(&body.to_string()).is_ok());
        body["service_level"] = json!("drone");
        assert_eq!(
            read(&body.to_string()),
            Err(vec![("/service_level".to_owned(), "unknown_service_level")])
        );
    }

    #[test]
    fn a_hostile_body_is_not_answered_with_a_longer_one() {
        let body: String = (0..40_000).map(|i| format!("\"k{i}\":0,")).collect();
        let faults = read(&format!("{{{}}}", body.trim_end_matches(','))).unwrap_err();
        assert_eq!(faults.len(), Faults::MAX);
    }

    #[test]
    fn the_body_must_be_an_object() {
        for body in ["[]", "1", "null", "\"x\"", "true"] {
            assert_eq!(read(body), Err(vec![(String::new(), "wrong_type")]), "{body}");
        }
    }

    #[test]
    fn only_receipts_are_moves_so_far() {
        let read = |body: Value| {
            let text = body.to_string();
            stock_move(json::parse(text.as_bytes()).unwrap(), &catalogue()).map_err(|faults| {
                faults.into_iter().map(|f| (f.pointer, f.code.as_str())).collect::<Vec<_>>()
            })
        };
        let mut body = json!({"reference": "A-1", "warehouse": "ATL1", "type": "receipt", "sku": "S", "quantity": 5, "owner": "acme"});
        let request = read(body.clone()).unwrap();
        assert_eq!(request.command.change, Change::Receipt { quantity: 5 });
        assert_eq!(request.owner.as_deref(), Some("acme"));
        body["transfer"] = json!("x");
        assert_eq!(read(body.clone()), Err(vec![("/transfer".to_owned(), "unknown_field")]));
        for kind in ["transfer", "gift"] {
            body["type"] = json!(kind);
            assert_eq!(read(body.clone()), Err(vec![("/type".to_owned(), "unknown_value")]), "{kind}");
        }
        let moved = |more: serde_json::Value| {
            let mut body = json!({"reference": "A-1", "warehouse": "ATL1", "sku": "S"});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            read(body).map(|request| request.command.change)
        };
        let reason = AdjustmentReason::Lost;
        let adjusted = moved(json!({"type": "adjustment", "delta": -3, "reason": "lost"}));
        assert_eq!(adjusted, Ok(Change::Adjustment { delta: -3, reason }));
        assert_eq!(moved(json!({"type": "count", "counted": 0})), Ok(Change::Count { counted: 0 }));
        let faults = moved(json!({"type": "adjustment", "delta": 0, "reason": "bored", "quantity": 1}));
        let expected =
            [("/delta", "out_of_range"), ("/reason", "unknown_value"), ("/quantity", "unknown_field")];
        assert_eq!(faults, Err(expected.map(|(p, c)| (p.to_owned(), c)).to_vec()));
        assert!(moved(json!({"type": "adjustment", "delta": -1.0, "reason": "lost"})).is_err());
        assert!(moved(json!({"type": "count", "counted": -1})).is_err());
    }

    #[test]
    fn a_cancellation_names_lines_of_its_order() {
        let read = |text: &str| cancellation(json::parse(text.as_bytes()).unwrap());
        assert_eq!(read("{}"), Ok(CancellationRequest::WHOLE));
        assert!(read(r#"{"lines":[]}"#).is_err());
        assert_eq!(read(r#"{"lines":[1,1]}"#).unwrap_err()[0].code, FaultCode::DuplicateLine);
        let order = TransactionId::new(Timestamp(1), crate::domain::ids::PartitionId(1), 7);
        let known = [OrderLine { line: 1, sku: "S".parse().unwrap(), quantity: 1 }];
        let whole = read("{}").unwrap().command(order, Some(&known)).unwrap();
        assert_eq!(whole.reference.as_str(), format!("cancel:{order}"));
        let faults = read(r#"{"lines":[1,2]}"#).unwrap().command(order, Some(&known)).unwrap_err();
        assert_eq!((faults[0].pointer.as_str(), faults[0].code), ("/lines/1", FaultCode::UnknownLine));
    }
}
