//! What a WMS reports, one report or an array of them, as the domain takes it; and the way back,
//! for a WMS of ours.
//!
//! Here a message is judged by its form alone. Whether it can be true of a release is the order's
//! to say, later: what cannot becomes a dead letter and holds up nothing.

use std::collections::HashSet;
use uuid::Uuid;

use super::json::Json;
use super::reader::{self, Chars, Fault, FaultCode, Faults, Fields, Path};
use super::requests::LINES_MAX;
use super::time::WireTime;
use super::wms::{CartonMessage, ConfirmationMessage, UnitsMessage};
use crate::domain::confirmation::{Confirmation, PackedCarton, ReleaseReport, Report};
use crate::domain::fact::LineUnits;
use crate::domain::ids::{LineNo, QUANTITY_MAX, ReleaseId, TransactionId};

/// Reports of one message.
pub const CONFIRMATIONS_MAX: usize = 1_000;
/// Cartons of one report: a WMS that has more reports them in several.
pub const CARTONS_MAX: usize = 1_000;
/// Grams of a carton: more than any truck carries.
const WEIGHT_G_MAX: u32 = 100_000_000;

/// Ids and codes that the WMS chose.
const NAME: Chars = Chars { min: 1, max: 128, controls: false };
/// A remark of the WMS's.
const DETAIL: Chars = Chars { min: 0, max: 500, controls: true };
/// The reason of a WMS that gives none.
const NO_CODE: &str = "rejected";

/// The release of a report that names none of ours.
///
/// No id that we made is all zeros, so a report about it is a dead letter like one about any
/// other unknown release. To refuse it would hold up what came in the same message, again and
/// again.
const NO_RELEASE: ReleaseId = ReleaseId { order: TransactionId(Uuid::nil()), n: 0 };

/// The types of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Picking,
    Picked,
    Packed,
    ShortPick,
    Damaged,
    Rejected,
    Cancelled,
    CancelRefused,
    Shipped,
}

impl Type {
    const ALL: [Type; 9] = [
        Type::Picking,
        Type::Picked,
        Type::Packed,
        Type::ShortPick,
        Type::Damaged,
        Type::Rejected,
        Type::Cancelled,
        Type::CancelRefused,
        Type::Shipped,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Type::Picking => "picking",
            Type::Picked => "picked",
            Type::Packed => "packed",
            Type::ShortPick => "short_pick",
            Type::Damaged => "damaged",
            Type::Rejected => "rejected",
            Type::Cancelled => "cancelled",
            Type::CancelRefused => "cancel_refused",
            Type::Shipped => "shipped",
        }
    }

    fn parse(name: &str) -> Option<Type> {
        Type::ALL.into_iter().find(|t| t.as_str() == name)
    }
}

/// Reads one report, or an array of 1 to [`CONFIRMATIONS_MAX`].
///
/// # Errors
/// Every fault found; then nothing of the message is taken.
pub fn confirmations(json: Json<'_>) -> Result<Vec<Confirmation>, Vec<Fault>> {
    let mut faults = Faults::new(Faults::MAX);
    let root = &Path::Root;
    let read = match json {
        several @ Json::List(_) => reader::bounded_list(several, CONFIRMATIONS_MAX, root, &mut faults)
            .and_then(|items| reader::each(items, root, &mut faults, confirmation)),
        one @ (Json::Null
        | Json::Bool(_)
        | Json::Whole(_)
        | Json::Negative(_)
        | Json::Other(_)
        | Json::Text(_)
        | Json::Object(_)) => confirmation(one, root, &mut faults).map(|one| vec![one]),
    };
    match read {
        Some(read) if faults.is_empty() => Ok(read),
        Some(_) | None => Err(faults.into_vec()),
    }
}

/// What a report says beside its type. A type passes over what has no meaning for it: a WMS may
/// repeat the lines of a cancellation that it confirms.
struct Said {
    lines: Option<LineUnits>,
    cartons: Vec<PackedCarton>,
    code: Option<String>,
}

fn confirmation(json: Json<'_>, path: &Path<'_>, faults: &mut Faults) -> Option<Confirmation> {
    let mut fields = Fields::open(json, path, faults)?;
    let text = |v: Json<'_>, p: &Path<'_>, f: &mut Faults| reader::text(v, NAME, p, f);
    let confirmation_id = fields.required("confirmation_id", path, faults, text);
    let kind = fields.required("type", path, faults, |v, p, f| {
        let kind = Type::parse(&reader::string(v, p, f)?);
        if kind.is_none() {
            let names = Type::ALL.map(Type::as_str).join(", ");
            f.add(p, FaultCode::UnknownValue, format!("must be one of {names}"));
        }
        kind
    });
    let at = fields.required("at", path, faults, reader::time);
    let release = fields.optional("release_id", path, faults, text);
    let manifest = fields.optional("manifest_id", path, faults, text);
    let lines = fields.optional("lines", path, faults, lines);
    let cartons = fields.optional("cartons", path, faults, cartons);
    let code = fields.optional("code", path, faults, text);
    // Read for its form only: what it would be kept for has its own words.
    let detail = fields.optional("detail", path, faults, |v, p, f| reader::text(v, DETAIL, p, f));
    fields.close(path, faults);

    let subject = match (kind, release, manifest) {
        (Some(kind), Some(release), Some(manifest)) => subject(kind, release, manifest, path, faults),
        (_, _, _) => None,
    };
    let said = match (lines, cartons, code) {
        (Some(lines), Some(cartons), Some(code)) => {
            Some(Said { lines, cartons: cartons.unwrap_or_default(), code })
        }
        (_, _, _) => None,
    };
    let step = match (kind, &subject, said) {
        // A manifest that left has all its cartons with it; its lines say nothing new.
        (Some(_), Some(Subject::Manifest(_)), Some(_)) => None,
        (Some(kind), _, Some(said)) => step(kind, said, path, faults),
        (_, _, _) => None,
    };
    let (confirmation_id, at, _detail) = (confirmation_id?, at?, detail?);
    let (report, stranger) = match subject? {
        Subject::Manifest(named) => {
            let known = named.parse().ok();
            let manifest = known.unwrap_or(NO_RELEASE.order);
            (Report::Departed { manifest }, known.is_none().then_some(named))
        }
        Subject::Release(named) => {
            let known = named.parse().ok();
            let release = known.unwrap_or(NO_RELEASE);
            (Report::Release { release, step: step? }, known.is_none().then_some(named))
        }
    };
    // The dead letter keeps what was named, for whoever looks for it.
    let confirmation_id = match stranger {
        Some(named) => format!("{confirmation_id} about {named:?}"),
        None => confirmation_id,
    };
    Some(Confirmation { confirmation_id, at, report })
}

/// What a report is about, as the WMS names it.
enum Subject {
    Release(String),
    Manifest(String),
}

fn subject(
    kind: Type,
    release: Option<String>,
    manifest: Option<String>,
    path: &Path<'_>,
    faults: &mut Faults,
) -> Option<Subject> {
    let at_manifest = &Path::Key(path, "manifest_id");
    match (release, manifest) {
        (Some(release), None) => Some(Subject::Release(release)),
        (None, Some(manifest)) if kind == Type::Shipped => Some(Subject::Manifest(manifest)),
        (Some(_), Some(_)) => {
            faults.add(at_manifest, FaultCode::UnknownField, "must not stand beside release_id");
            None
        }
        (None, Some(_)) => {
            faults.add(at_manifest, FaultCode::UnknownField, "only \"shipped\" is about a manifest");
            None
        }
        (None, None) => {
            faults.add(&Path::Key(path, "release_id"), FaultCode::Missing, "is required");
            None
        }
    }
}

/// What is reported of a release.
fn step(kind: Type, said: Said, path: &Path<'_>, faults: &mut Faults) -> Option<ReleaseReport> {
    let Said { lines, cartons, code } = said;
    let mut counted = |lines: Option<LineUnits>| match lines {
        Some(lines) if !lines.is_empty() => Some(lines),
        Some(_) => {
            faults.add(&Path::Key(path, "lines"), FaultCode::OutOfRange, "must have at least one item");
            None
        }
        None => {
            faults.add(&Path::Key(path, "lines"), FaultCode::Missing, "is required");
            None
        }
    };
    match kind {
        Type::Picking => Some(ReleaseReport::Picking),
        Type::Picked => Some(ReleaseReport::Picked(counted(lines)?)),
        Type::ShortPick => Some(ReleaseReport::ShortPick(counted(lines)?)),
        Type::Damaged => Some(ReleaseReport::Damaged(counted(lines)?)),
        Type::Packed if cartons.is_empty() => Some(ReleaseReport::Packed { lines: counted(lines)?, cartons }),
        Type::Packed => Some(ReleaseReport::Packed { lines: lines.unwrap_or_default(), cartons }),
        Type::Shipped => Some(ReleaseReport::Shipped(lines.unwrap_or_default())),
        Type::Rejected => Some(ReleaseReport::Rejected { code: code.unwrap_or_else(|| NO_CODE.to_owned()) }),
        Type::Cancelled => Some(ReleaseReport::Cancelled),
        Type::CancelRefused => Some(ReleaseReport::CancelRefused),
    }
}

/// Units by line, no line twice; the list may be empty.
fn lines(value: Json<'_>, path: &Path<'_>, faults: &mut Faults) -> Option<LineUnits> {
    let items = reader::list(value, path, faults)?;
    if items.len() > LINES_MAX {
        faults.add(path, FaultCode::TooLong, format!("must have at most {LINES_MAX} items"));
        return None;
    }
    let mut seen = HashSet::with_capacity(items.len());
    let read = reader::each(items, path, faults, |value, path, faults| {
        let mut fields = Fields::open(value, path, faults)?;
        let line = fields.required("line", path, faults, |v, p, f| {
            let line = reader::whole(&v, (1, LineNo::MAX), p, f)?;
            if !seen.insert(line) {
                f.add(p, FaultCode::DuplicateLine, format!("line {line} stands here twice"));
            }
            Some(line)
        });
        let quantity =
            fields.required("quantity", path, faults, |v, p, f| reader::whole(&v, (1, QUANTITY_MAX), p, f));
        fields.close(path, faults);
        Some((line?, quantity?))
    });
    read.map(LineUnits::from)
}

/// Cartons, none twice; the list may be empty, a carton may not.
fn cartons(value: Json<'_>, path: &Path<'_>, faults: &mut Faults) -> Option<Vec<PackedCarton>> {
    let items = reader::list(value, path, faults)?;
    if items.len() > CARTONS_MAX {
        faults.add(path, FaultCode::TooLong, format!("must have at most {CARTONS_MAX} items"));
        return None;
    }
    let mut seen = HashSet::with_capacity(items.len());
    reader::each(items, path, faults, |value, path, faults| {
        let mut fields = Fields::open(value, path, faults)?;
        let text = |v: Json<'_>, p: &Path<'_>, f: &mut Faults| reader::text(v, NAME, p, f);
        let carton_id = fields.required("carton_id", path, faults, |v, p, f| {
            let id = text(v, p, f)?;
            if !seen.insert(id.clone()) {
                f.add(p, FaultCode::DuplicateCarton, "the carton stands here twice");
            }
            Some(id)
        });
        let tracking_number = fields.optional("tracking_number", path, faults, text);
        let weight_g =
            fields.optional("weight_g", path, faults, |v, p, f| reader::whole(&v, (0, WEIGHT_G_MAX), p, f));
        let lines = fields.required("lines", path, faults, |v, p, f| {
            let lines = lines(v, p, f)?;
            if lines.is_empty() {
                f.add(p, FaultCode::OutOfRange, "must have at least one item");
            }
            Some(lines)
        });
        fields.close(path, faults);
        Some(PackedCarton {
            carton_id: carton_id?,
            tracking_number: tracking_number?,
            weight_g: weight_g?,
            lines: lines?,
        })
    })
}

impl From<&Confirmation> for ConfirmationMessage {
    fn from(confirmation: &Confirmation) -> ConfirmationMessage {
        let mut message = ConfirmationMessage {
            confirmation_id: confirmation.confirmation_id.clone(),
            kind: String::new(),
            release_id: None,
            manifest_id: None,
            at: WireTime(confirmation.at),
            lines: Vec::new(),
            cartons: Vec::new(),
            code: None,
            detail: None,
        };
        let kind = match &confirmation.report {
            Report::Departed { manifest } => {
                message.manifest_id = Some(manifest.to_string());
                Type::Shipped
            }
            Report::Release { release, step } => {
                message.release_id = Some(release.to_string());
                say(step, &mut message)
            }
        };
        kind.as_str().clone_into(&mut message.kind);
        message
    }
}

/// Writes what happened to a release into a message.
fn say(step: &ReleaseReport, message: &mut ConfirmationMessage) -> Type {
    let (kind, lines) = match step {
        ReleaseReport::Picking => (Type::Picking, None),
        ReleaseReport::Picked(lines) => (Type::Picked, Some(lines)),
        ReleaseReport::Packed { lines, cartons } => {
            message.cartons = cartons.iter().map(CartonMessage::from).collect();
            (Type::Packed, Some(lines))
        }
        ReleaseReport::ShortPick(lines) => (Type::ShortPick, Some(lines)),
        ReleaseReport::Damaged(lines) => (Type::Damaged, Some(lines)),
        ReleaseReport::Rejected { code } => {
            message.code = Some(code.clone());
            (Type::Rejected, None)
        }
        ReleaseReport::Cancelled => (Type::Cancelled, None),
        ReleaseReport::CancelRefused => (Type::CancelRefused, None),
        ReleaseReport::Shipped(lines) => (Type::Shipped, Some(lines)),
    };
    message.lines = lines.map(units).unwrap_or_default();
    kind
}

fn units(lines: &LineUnits) -> Vec<UnitsMessage> {
    lines.iter().map(|&(line, quantity)| UnitsMessage { line, quantity }).collect()
}

impl From<&PackedCarton> for CartonMessage {
    fn from(carton: &PackedCarton) -> CartonMessage {
        CartonMessage {
            carton_id: carton.carton_id.clone(),
            tracking_number: carton.tracking_number.clone(),
            weight_g: carton.weight_g,
            lines: units(&carton.lines),
        }
    }
}

impl From<CartonMessage> for PackedCarton {
    fn from(message: CartonMessage) -> PackedCarton {
        PackedCarton {
            carton_id: message.carton_id,
            tracking_number: message.tracking_number,
            weight_g: message.weight_g,
            lines: message.lines.into_iter().map(|u| (u.line, u.quantity)).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::json;
    use super::*;
    use crate::domain::ids::PartitionId;
    use crate::domain::time::Timestamp;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn read(body: &Value) -> Result<Vec<Confirmation>, Vec<(String, &'static str)>> {
        let text = body.to_string();
        confirmations(json::parse(text.as_bytes()).expect("well-formed"))
            .map_err(|faults| faults.into_iter().map(|f| (f.pointer, f.code.as_str())).collect())
    }

    fn id() -> TransactionId {
        TransactionId::new(Timestamp(1), PartitionId(1), 7)
    }

    fn packed() -> Value {
        json!({
            "confirmation_id": "C-1", "type": "packed", "release_id": format!("{}.1.2", id()),
            "at": "2026-11-24T16:00:00+00:00", "code": null, "detail": "by hand",
            "lines": [{"line": 1, "quantity": 3}],
            "cartons": [{"carton_id": "B-1", "tracking_number": "1Z", "weight_g": 0, "lines": [{"line": 1, "quantity": 3}]}],
        })
    }

    fn with(pointer: &str, value: Value) -> Value {
        let mut body = packed();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        match body.pointer_mut(parent).unwrap() {
            Value::Object(map) => drop(map.insert(key.to_owned(), value)),
            Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
            other => panic!("{other}"),
        }
        body
    }

    fn without(mut body: Value, fields: &[&str]) -> Value {
        fields.iter().for_each(|f| drop(body.as_object_mut().unwrap().remove(*f)));
        body
    }

    #[test]
    fn a_report_with_all_its_fields_is_read_as_sent() {
        let lines = LineUnits::from_slice(&[(1, 3)]);
        let carton = PackedCarton {
            carton_id: "B-1".into(),
            tracking_number: Some("1Z".into()),
            weight_g: Some(0),
            lines: lines.clone(),
        };
        let expected = Confirmation {
            confirmation_id: "C-1".into(),
            at: Timestamp(1_795_536_000_000),
            report: Report::Release {
                release: ReleaseId { order: id(), n: 2 },
                step: ReleaseReport::Packed { lines, cartons: vec![carton] },
            },
        };
        assert_eq!(read(&packed()), Ok(vec![expected.clone()]));
        assert_eq!(read(&json!([packed(), packed()])), Ok(vec![expected.clone(), expected]));
    }

    #[test]
    fn each_fault_is_told_with_its_place() {
        let line = json!({"line": 1, "quantity": 1});
        let carton = packed()["cartons"][0].clone();
        for (pointer, value, place, code) in [
            ("/confirmation_id", json!(""), "/confirmation_id", "out_of_range"),
            ("/confirmation_id", json!("x".repeat(129)), "/confirmation_id", "too_long"),
            ("/confirmation_id", json!("a\nb"), "/confirmation_id", "malformed"),
            ("/type", json!("gone"), "/type", "unknown_value"),
            ("/at", json!("today"), "/at", "malformed"),
            ("/release_id", json!(7), "/release_id", "wrong_type"),
            ("/release_id", Value::Null, "/release_id", "missing"),
            ("/manifest_id", json!("x"), "/manifest_id", "unknown_field"),
            ("/colour", json!(1), "/colour", "unknown_field"),
            ("/lines", json!({}), "/lines", "wrong_type"),
            ("/lines", json!([line, line]), "/lines/1/line", "duplicate_line"),
            ("/lines", json!(vec![line.clone(); 501]), "/lines", "too_long"),
            ("/lines/0/quantity", json!(0), "/lines/0/quantity", "out_of_range"),
            ("/lines/0/quantity", json!(1_000_001), "/lines/0/quantity", "out_of_range"),
            ("/lines/0/quantity", json!(-1), "/lines/0/quantity", "out_of_range"),
            ("/lines/0/line", json!("1"), "/lines/0/line", "wrong_type"),
            ("/lines/0/sku", json!("A"), "/lines/0/sku", "unknown_field"),
            ("/cartons", json!([carton, carton]), "/cartons/1/carton_id", "duplicate_carton"),
            ("/cartons/0/carton_id", json!(""), "/cartons/0/carton_id", "out_of_range"),
            ("/cartons/0/weight_g", json!(1.5), "/cartons/0/weight_g", "wrong_type"),
            ("/cartons/0/lines", json!([]), "/cartons/0/lines", "out_of_range"),
            ("/cartons/0/lines/0/quantity", json!(0), "/cartons/0/lines/0/quantity", "out_of_range"),
            ("/detail", json!("x".repeat(501)), "/detail", "too_long"),
        ] {
            let body = with(pointer, value);
            assert_eq!(read(&body), Err(vec![(place.to_owned(), code)]), "{body}");
            let second = read(&json!([packed(), body])).unwrap_err();
            assert_eq!(second, [(format!("/1{place}"), code)]);
        }
        assert_eq!(read(&json!([])), Err(vec![(String::new(), "out_of_range")]));
        assert_eq!(read(&json!(vec![packed(); 1_001])), Err(vec![(String::new(), "too_long")]));
        assert_eq!(read(&json!("x")), Err(vec![(String::new(), "wrong_type")]));
        let all: Vec<String> = read(&json!({"lines": 1})).unwrap_err().into_iter().map(|(p, _)| p).collect();
        assert_eq!(all, ["/confirmation_id", "/type", "/at", "/lines"]);
    }

    #[test]
    fn each_type_wants_what_it_counts() {
        let of =
            |kind: &str, without_fields: &[&str]| read(&without(with("/type", json!(kind)), without_fields));
        let missing = || Err(vec![("/lines".to_owned(), "missing")]);
        for kind in ["picked", "short_pick", "damaged"] {
            assert_eq!(of(kind, &["lines"]), missing(), "{kind}");
            assert!(of(kind, &["cartons"]).is_ok(), "{kind}");
        }
        assert_eq!(of("packed", &["lines", "cartons"]), missing());
        for kind in ["packed", "picking", "shipped", "rejected", "cancelled", "cancel_refused"] {
            assert!(of(kind, &["lines"]).is_ok(), "{kind}");
        }
        let mut empty = with("/type", json!("picked"));
        empty["lines"] = json!([]);
        assert_eq!(read(&empty), Err(vec![("/lines".to_owned(), "out_of_range")]));
        let rejected = of("rejected", &[]).unwrap();
        let Report::Release { step: ReleaseReport::Rejected { code }, .. } = &rejected[0].report else {
            panic!("{rejected:?}")
        };
        assert_eq!(code, "rejected");
    }

    #[test]
    fn a_manifest_departs_and_a_release_ships_alone() {
        let mut body = without(with("/type", json!("shipped")), &["lines", "cartons"]);
        let alone = read(&body).unwrap();
        let Report::Release { step, .. } = &alone[0].report else { panic!("{alone:?}") };
        assert_eq!(step, &ReleaseReport::Shipped(LineUnits::new()));
        body["manifest_id"] = json!(id().to_string());
        assert_eq!(read(&body), Err(vec![("/manifest_id".to_owned(), "unknown_field")]));
        body["release_id"] = Value::Null;
        assert_eq!(read(&body).unwrap()[0].report, Report::Departed { manifest: id() });
        body["manifest_id"] = json!("M-7");
        let unknown = &read(&body).unwrap()[0];
        assert_eq!(unknown.report, Report::Departed { manifest: NO_RELEASE.order });
        assert_eq!(unknown.confirmation_id, "C-1 about \"M-7\"");
    }

    #[test]
    fn a_name_that_is_none_of_ours_is_no_fault_of_the_message() {
        for name in ["R-1", "nonsense.1.1", &id().to_string()] {
            let read = &read(&with("/release_id", json!(name))).unwrap()[0];
            assert!(matches!(&read.report, Report::Release { release, .. } if *release == NO_RELEASE));
            assert!(read.confirmation_id.contains(name), "{}", read.confirmation_id);
        }
    }

    fn reports() -> impl Strategy<Value = Report> {
        let units = || {
            prop::collection::btree_map(1..=LineNo::MAX, 1..=QUANTITY_MAX, 1..5)
                .prop_map(|units| units.into_iter().collect::<LineUnits>())
        };
        let carton = (units(), prop::option::of("[!-~]{1,20}"), prop::option::of(0..=WEIGHT_G_MAX)).prop_map(
            |(lines, tracking_number, weight_g)| PackedCarton {
                carton_id: "B".into(),
                tracking_number,
                weight_g,
                lines,
            },
        );
        let step = prop_oneof![
            Just(ReleaseReport::Picking),
            units().prop_map(ReleaseReport::Picked),
            (units(), prop::option::of(carton)).prop_map(|(lines, carton)| ReleaseReport::Packed {
                lines,
                cartons: carton.into_iter().collect()
            }),
            units().prop_map(ReleaseReport::ShortPick),
            units().prop_map(ReleaseReport::Damaged),
            units().prop_map(ReleaseReport::Shipped),
            Just(ReleaseReport::Shipped(LineUnits::new())),
            "[a-z]{1,20}".prop_map(|code| ReleaseReport::Rejected { code }),
            Just(ReleaseReport::Cancelled),
            Just(ReleaseReport::CancelRefused),
        ];
        prop_oneof![
            1 => Just(Report::Departed { manifest: id() }),
            9 => (step, 1..9u16).prop_map(|(step, n)| Report::Release { release: ReleaseId { order: id(), n }, step }),
        ]
    }

    proptest! {
        #[test]
        fn what_a_wms_of_ours_writes_is_read_as_it_was(report in reports(), ms in 0..4_000_000_000_000i64) {
            let confirmation = Confirmation { confirmation_id: "C-1".into(), at: Timestamp(ms), report };
            let text = serde_json::to_vec(&ConfirmationMessage::from(&confirmation)).unwrap();
            prop_assert_eq!(confirmations(json::parse(&text).unwrap()).unwrap(), vec![confirmation]);
        }
    }
}
