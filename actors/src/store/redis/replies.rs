//! What Redis answers, taken apart. An answer of another shape is nothing: the caller finds a row
//! missing and says which.

use redis::Value;

/// Bytes, if the answer is some.
pub(super) fn bytes(value: Value) -> Option<Vec<u8>> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.into_bytes()),
        Value::Int(n) => Some(n.to_string().into_bytes()),
        Value::Okay => Some(b"OK".to_vec()),
        Value::VerbatimString { text, .. } => Some(text.into_bytes()),
        _ => None,
    }
}

/// The parts of a list; pairs of a map one after the other. Bytes are a list of one.
pub(super) fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(all) | Value::Set(all) => all,
        Value::Map(pairs) => pairs.into_iter().flat_map(|(key, value)| [key, value]).collect(),
        Value::Nil => Vec::new(),
        other => vec![other],
    }
}

/// Fields and values.
pub(super) fn pairs(value: Value) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut all = list(value).into_iter().filter_map(bytes);
    let mut found = Vec::new();
    while let (Some(field), Some(value)) = (all.next(), all.next()) {
        found.push((field, value));
    }
    found
}

/// A number, if the answer is one.
pub(super) fn number(value: Value) -> Option<u64> {
    String::from_utf8(bytes(value)?).ok()?.parse().ok()
}

/// The answer to `TIME`, in ms.
pub(super) fn ms(value: Value) -> u64 {
    let mut parts = list(value).into_iter().map(|part| number(part).unwrap_or(0));
    let (seconds, micros) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    seconds * 1_000 + micros / 1_000
}

/// An entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The first part of its id.
    pub(super) epoch: u64,
    /// The second.
    pub(super) n: u64,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// One of its fields; empty when it has none of this name.
    pub(super) fn field(&self, name: &[u8]) -> &[u8] {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map_or(&[], |(_, value)| value.as_slice())
    }

    /// One that is a number; 0 when it is none.
    pub(super) fn number(&self, name: &[u8]) -> u64 {
        std::str::from_utf8(self.field(name)).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
    }
}

/// The entries of a stream.
pub(super) fn entries(value: Value) -> Vec<Entry> {
    let entry = |value: Value| {
        let mut parts = list(value).into_iter();
        let id = String::from_utf8(bytes(parts.next()?)?).ok()?;
        let (epoch, n) = id.split_once('-')?;
        let fields = pairs(parts.next()?);
        Some(Entry { epoch: epoch.parse().ok()?, n: n.parse().ok()?, fields })
    };
    list(value).into_iter().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(s: &str) -> Value {
        Value::BulkString(s.as_bytes().to_vec())
    }

    #[test]
    fn an_entry_of_a_stream_is_its_numbers_and_fields() {
        let entry =
            Value::Array(vec![text("5-7"), Value::Array(vec![text("a"), text("12"), text("e"), text("x")])]);
        let read = entries(Value::Array(vec![entry]));
        assert_eq!((read[0].epoch, read[0].n), (5, 7));
        assert_eq!(
            (read[0].number(b"a"), read[0].field(b"e"), read[0].field(b"z")),
            (12, &b"x"[..], &b""[..])
        );
    }

    #[test]
    fn an_answer_of_another_shape_is_nothing() {
        assert_eq!(bytes(Value::Nil), None);
        assert_eq!(number(text("seven")), None);
        assert!(entries(text("no entry")).is_empty());
    }
}
