//! What a WMS's answers mean. Whatever is not plainly an answer decides nothing: the page of a
//! proxy that answers 200 for a dead WMS must never pass for "taken".

use std::collections::{BTreeMap, BTreeSet};

use crate::domain::confirmation::{PackedCarton, ReleaseReport};
use crate::domain::fact::LineUnits;
use crate::domain::ids::{LineNo, QUANTITY_MAX, Quantity, ReleaseId};
use crate::ports::wms::{CancelReply, ReleaseKnown, Taken, WaveAnswer, WmsError};
use crate::wire::wms::{self, CancellationAnswer, CancellationResult, ReleaseStateMessage, WaveResults};

/// The most characters of a WMS's reason that are kept.
const CODE_CHARS_MAX: usize = 64;
/// The reason of a WMS that gives none.
const NO_CODE: &str = "rejected";

/// What a status alone says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// The body decides.
    Good,
    /// What we sent is wrong.
    Refused(u16),
    /// Whom or where we asked is wrong: an operator must mend it, and no order is to blame.
    Misconfigured(u16),
    /// It cannot answer now, or somebody else answered for it.
    Undecided(u16),
}

impl Verdict {
    /// Reads a status.
    pub(super) fn of(status: u16) -> Verdict {
        match status {
            200..=299 => Verdict::Good,
            401 | 403 | 404 | 405 | 407 | 421 => Verdict::Misconfigured(status),
            408 | 425 | 429 => Verdict::Undecided(status),
            400..=499 => Verdict::Refused(status),
            _ => Verdict::Undecided(status),
        }
    }
}

/// What became of each release of a wave: no body, or a release that is not named, is "taken";
/// of a release that is named twice the first result counts; ids that were not asked about are
/// passed over.
pub(super) fn wave(body: &[u8], asked: &[ReleaseId]) -> Result<WaveAnswer, WmsError> {
    if body.trim_ascii().is_empty() {
        return Ok(WaveAnswer::Decided(Vec::new()));
    }
    let WaveResults { results } = parse(body, "results")?;
    let asked: BTreeSet<ReleaseId> = asked.iter().copied().collect();
    let (mut decided, mut strange) = (BTreeMap::new(), 0);
    for result in results {
        match result.release_id.parse::<ReleaseId>().ok().filter(|id| asked.contains(id)) {
            Some(release) => {
                decided.entry(release).or_insert_with(|| taken(result.result, result.code.as_deref()));
            }
            None => strange += 1,
        }
    }
    if strange > 0 {
        tracing::warn!(strange, "the WMS's answer names releases that it was not asked about");
    }
    Ok(WaveAnswer::Decided(decided.into_iter().collect()))
}

fn taken(result: wms::Taken, code: Option<&str>) -> Taken {
    match result {
        wms::Taken::Taken => Taken::Taken,
        wms::Taken::Rejected => {
            let code = code.filter(|code| !code.is_empty()).unwrap_or(NO_CODE);
            Taken::Rejected { code: printable(code) }
        }
    }
}

/// A stranger's text as it may stand in a log line and a dead letter.
fn printable(text: &str) -> String {
    text.chars().take(CODE_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// What was decided about a cancellation; it must be said.
pub(super) fn cancellation(body: &[u8]) -> Result<CancelReply, WmsError> {
    let CancellationAnswer { result } = parse(body, "a result")?;
    Ok(match result {
        CancellationResult::Cancelled => CancelReply::Cancelled,
        CancellationResult::TooLate => CancelReply::TooLate,
        CancellationResult::Pending => CancelReply::Pending,
    })
}

/// A manifest needs no answer, but what is no JSON was not said by the WMS.
pub(super) fn manifest(body: &[u8]) -> Result<(), WmsError> {
    if body.trim_ascii().is_empty() {
        return Ok(());
    }
    parse(body, "JSON").map(|serde::de::IgnoredAny| ())
}

/// What a WMS knows of a release. An answer that is none of this protocol's says that it cannot be
/// asked: the call is optional, and one that does not know it may answer anything.
pub(super) fn release(body: &[u8], asked: ReleaseId) -> Option<ReleaseKnown> {
    let message: ReleaseStateMessage = serde_json::from_slice(body).ok()?;
    if message.release_id.parse() != Ok(asked) {
        return None;
    }
    let lines = units(message.lines.into_iter().map(|u| (u.line, u.quantity)))?;
    let mut cartons = Vec::with_capacity(message.cartons.len());
    for carton in message.cartons {
        let carton = PackedCarton::from(carton);
        let lines = units(carton.lines.iter().copied())?;
        if !lines.is_empty() && !cartons.iter().any(|c: &PackedCarton| c.carton_id == carton.carton_id) {
            cartons.push(PackedCarton { lines, ..carton });
        }
    }
    let step = match message.state.as_str() {
        "unknown" => return Some(ReleaseKnown::Unknown),
        "taken" => None,
        "picking" => Some(ReleaseReport::Picking),
        "picked" => Some(ReleaseReport::Picked(lines)),
        "packed" => {
            let cartons = std::mem::take(&mut cartons);
            Some(ReleaseReport::Packed { lines, cartons })
        }
        "short_pick" => Some(ReleaseReport::ShortPick(lines)),
        "damaged" => Some(ReleaseReport::Damaged(lines)),
        "shipped" => Some(ReleaseReport::Shipped(lines)),
        "rejected" => Some(ReleaseReport::Rejected { code: NO_CODE.to_owned() }),
        "cancelled" => Some(ReleaseReport::Cancelled),
        "cancel_refused" => Some(ReleaseReport::CancelRefused),
        _ => return None,
    };
    // Its cartons are known whatever came last, and what left was packed before.
    let packed = (!cartons.is_empty()).then_some(ReleaseReport::Packed { lines: LineUnits::new(), cartons });
    Some(ReleaseKnown::Known(packed.into_iter().chain(step).collect()))
}

/// Units by line as a report may have them: no line twice, none of nothing. Cumulative numbers
/// only rise, so of two the larger is the later.
fn units(said: impl Iterator<Item = (LineNo, Quantity)>) -> Option<LineUnits> {
    let mut units: BTreeMap<LineNo, Quantity> = BTreeMap::new();
    for (line, quantity) in said.filter(|(_, quantity)| *quantity > 0) {
        if quantity > QUANTITY_MAX {
            return None;
        }
        let most = units.entry(line).or_default();
        *most = quantity.max(*most);
    }
    Some(units.into_iter().collect())
}

/// The parser's own words would repeat what the WMS said, and that may be anything.
fn parse<T: serde::de::DeserializeOwned>(body: &[u8], expected: &str) -> Result<T, WmsError> {
    serde_json::from_slice(body).map_err(|e| {
        let (line, column) = (e.line(), e.column());
        WmsError::Unavailable(format!(
            "its answer is not {expected} as agreed, at line {line} column {column}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{PartitionId, TransactionId};
    use crate::domain::time::Timestamp;

    fn release(n: u16) -> ReleaseId {
        ReleaseId { order: TransactionId::new(Timestamp(1), PartitionId(1), 7), n }
    }

    fn decided(text: &str) -> Vec<(u16, Option<String>)> {
        let Ok(WaveAnswer::Decided(results)) = wave(text.as_bytes(), &[release(1), release(2)]) else {
            panic!("{text} decides")
        };
        let code = |taken| match taken {
            Taken::Taken => None,
            Taken::Rejected { code } => Some(code),
        };
        results.into_iter().map(|(release, taken)| (release.n, code(taken))).collect()
    }

    #[test]
    fn results_may_miss_repeat_or_invent_releases() {
        let (one, three) = (release(1), release(3));
        assert_eq!(decided(""), []);
        assert_eq!(decided(" \r\n"), []);
        assert_eq!(decided(r#"{"results":[]}"#), []);
        let text = format!(
            r#"{{"more":1,"results":[
                {{"release_id":"{one}","result":"rejected","code":"hazmat\n"}},
                {{"release_id":"{one}","result":"taken"}},
                {{"release_id":"{three}","result":"rejected"}},
                {{"release_id":"nonsense","result":"rejected"}}]}}"#
        );
        assert_eq!(decided(&text), [(1, Some("hazmat ".to_owned()))]);
        let text = format!(r#"{{"results":[{{"release_id":"{one}","result":"rejected","code":null}}]}}"#);
        assert_eq!(decided(&text), [(1, Some("rejected".to_owned()))]);
    }

    #[test]
    fn what_is_no_answer_decides_nothing() {
        let one = release(1);
        let maybe = format!(r#"{{"results":[{{"release_id":"{one}","result":"maybe"}}]}}"#);
        let nested = "[".repeat(100_000);
        for text in ["<html>ok</html>", "{}", "null", "[]", "\u{0}", "\"taken\"", &maybe, &nested] {
            assert!(wave(text.as_bytes(), &[one]).is_err(), "{text:.60}");
            assert!(cancellation(text.as_bytes()).is_err(), "{text:.60}");
        }
        assert!(wave(b"\xff", &[one]).is_err());
        assert!(cancellation(b"").is_err());
        assert_eq!(cancellation(br#"{"result":"too_late","x":1}"#), Ok(CancelReply::TooLate));
        assert_eq!(manifest(b""), Ok(()));
        assert_eq!(manifest(br#"{"loaded":true}"#), Ok(()));
        assert!(manifest(b"<html>").is_err());
    }

    #[test]
    fn a_silent_release_is_known_by_its_last_report() {
        let one = release(1);
        let known =
            |rest: &str| super::release(format!(r#"{{"release_id":"{one}",{rest}}}"#).as_bytes(), one);
        let lines = |q| LineUnits::from_slice(&[(1, q)]);
        let carton =
            PackedCarton { carton_id: "B".into(), tracking_number: None, weight_g: None, lines: lines(2) };
        let cartons = r#""cartons":[{"carton_id":"B","lines":[{"line":1,"quantity":2}]}]"#;
        assert_eq!(known(r#""state":"unknown""#), Some(ReleaseKnown::Unknown));
        assert_eq!(known(r#""state":"taken","lines":[]"#), Some(ReleaseKnown::Known(vec![])));
        let twice = r#""state":"picked","lines":[{"line":1,"quantity":2},{"line":1,"quantity":1},{"line":2,"quantity":0}]"#;
        assert_eq!(known(twice), Some(ReleaseKnown::Known(vec![ReleaseReport::Picked(lines(2))])));
        let shipped = format!(r#""state":"shipped",{cartons}"#);
        let packed = ReleaseReport::Packed { lines: LineUnits::new(), cartons: vec![carton] };
        assert_eq!(
            known(&shipped),
            Some(ReleaseKnown::Known(vec![packed.clone(), ReleaseReport::Shipped(LineUnits::new())]))
        );
        assert_eq!(known(&shipped.replace("shipped", "packed")), Some(ReleaseKnown::Known(vec![packed])));
        for other in [
            r#""state":"asleep""#,
            r#""state":7"#,
            r#""state":"picked","lines":[{"line":1,"quantity":4000000000}]"#,
        ] {
            assert_eq!(known(other), None, "{other}");
        }
        let another = format!(r#"{{"release_id":"{}","state":"unknown"}}"#, release(2));
        for other in [another.as_str(), "", "<html>", "null"] {
            assert_eq!(super::release(other.as_bytes(), one), None, "{other}");
        }
    }

    #[test]
    fn an_error_never_repeats_what_the_wms_said() {
        let said = wave(br#"{"results":"Ada Lovelace, 1 Main St"}"#, &[]).unwrap_err().to_string();
        assert!(!said.contains("Ada"), "{said}");
    }

    #[test]
    fn only_what_blames_the_orders_refuses_them() {
        for (status, verdict) in [
            (200, Verdict::Good),
            (204, Verdict::Good),
            (302, Verdict::Undecided(302)),
            (400, Verdict::Refused(400)),
            (401, Verdict::Misconfigured(401)),
            (403, Verdict::Misconfigured(403)),
            (404, Verdict::Misconfigured(404)),
            (408, Verdict::Undecided(408)),
            (409, Verdict::Refused(409)),
            (413, Verdict::Refused(413)),
            (422, Verdict::Refused(422)),
            (425, Verdict::Undecided(425)),
            (429, Verdict::Undecided(429)),
            (500, Verdict::Undecided(500)),
            (503, Verdict::Undecided(503)),
        ] {
            assert_eq!(Verdict::of(status), verdict);
        }
    }
}
