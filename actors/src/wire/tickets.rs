//! What a ticket for a stream is asked for with.

use super::event::TypeFilter;
use super::json::Json;
use super::reader::{self, Chars, Fault, FaultCode, Faults};
use super::requests::read;
use crate::domain::ids::TransactionId;

/// What a ticket may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TicketRequest {
    /// One transaction.
    Transaction(TransactionId),
    /// Events of these types.
    Types(TypeFilter),
}

const ID: Chars = Chars { min: 1, max: 64, controls: false };
const TYPE: Chars = Chars { min: 1, max: TypeFilter::PATTERN_BYTES_MAX, controls: false };

/// Reads a request for a ticket: a transaction, or types, and not both.
///
/// # Errors
/// Every fault found.
pub fn ticket(json: Json<'_>) -> Result<TicketRequest, Vec<Fault>> {
    read(json, Faults::MAX, |fields, root, faults| {
        let id = fields.optional("transaction_id", root, faults, |v, p, f| {
            let text = reader::text(v, ID, p, f)?;
            let id = text.parse().ok();
            if id.is_none() {
                f.add(p, FaultCode::Malformed, "is no transaction id");
            }
            id
        });
        let types = fields.optional("types", root, faults, |v, p, f| {
            let items = reader::bounded_list(v, TypeFilter::PATTERNS_MAX, p, f)?;
            let names = reader::each(items, p, f, |v, p, f| reader::text(v, TYPE, p, f))?;
            let types = TypeFilter::new(names.iter().map(String::as_str));
            if types.is_none() {
                f.add(p, FaultCode::Malformed, "must be 1 to 64 types, each exact or ending in .*");
            }
            types
        });
        match (id?, types?) {
            (Some(id), None) => Some(TicketRequest::Transaction(id)),
            (None, Some(types)) => Some(TicketRequest::Types(types)),
            (None, None) | (Some(_), Some(_)) => {
                faults.add(root, FaultCode::Missing, "needs either `transaction_id` or `types`");
                None
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::json;

    fn read(body: &str) -> Result<TicketRequest, Vec<String>> {
        let faults = |all: Vec<Fault>| all.into_iter().map(|f| f.pointer).collect();
        ticket(json::parse(body.as_bytes()).unwrap()).map_err(faults)
    }

    #[test]
    fn a_ticket_is_for_a_transaction_or_for_types() {
        let id = "019ac2f0-0000-8000-8000-000000000000";
        let read_id = read(&format!(r#"{{"transaction_id": "{id}"}}"#));
        assert_eq!(read_id, Ok(TicketRequest::Transaction(id.parse().unwrap())));
        let types = "wavegate.order.*,wavegate.move.applied".parse().unwrap();
        let body = r#"{"types": ["wavegate.order.*", "wavegate.move.applied"]}"#;
        assert_eq!(read(body), Ok(TicketRequest::Types(types)));
        for (body, pointer) in [
            ("{}".to_owned(), ""),
            (format!(r#"{{"transaction_id": "{id}", "types": ["wavegate.*"]}}"#), ""),
            (r#"{"types": []}"#.to_owned(), "/types"),
            (r#"{"types": ["*"]}"#.to_owned(), "/types"),
            (r#"{"types": "wavegate.*"}"#.to_owned(), "/types"),
            (r#"{"transaction_id": "x"}"#.to_owned(), "/transaction_id"),
            (r#"{"transaction": "x"}"#.to_owned(), "/transaction"),
        ] {
            let found = read(&body).unwrap_err();
            assert!(found.contains(&pointer.to_owned()), "{body}: {found:?}");
        }
    }
}
