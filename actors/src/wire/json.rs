//! A JSON text as a tree, read in one pass.
//!
//! Stricter than JSON where the contract is: no key twice in one object at any depth, no text
//! behind the value, no nesting beyond 128 levels (`serde_json`'s limit, which keeps a hostile
//! body from eating the stack), no number that a double cannot hold, no lone surrogate, UTF-8
//! only. Whatever fails here is "malformed"; what the values mean is judged by the reader.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;

/// A value. Texts without escapes borrow from the body.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number written without fraction or exponent, not negative, up to 2^64.
    Whole(u64),
    /// The same below zero, down to -2^63.
    Negative(i64),
    /// Any other number.
    Other(f64),
    /// A string.
    Text(Cow<'a, str>),
    /// An array.
    List(Vec<Json<'a>>),
    /// An object, in the order written, no key twice.
    Object(Vec<(Cow<'a, str>, Json<'a>)>),
}

impl Json<'_> {
    /// What the value is, in words for a client.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Json::Null => "null",
            Json::Bool(_) => "a boolean",
            Json::Whole(_) => "a whole number",
            Json::Negative(_) => "a negative number",
            Json::Other(_) => {
                "a number that is very small, very large or written with a fraction or an exponent"
            }
            Json::Text(_) => "a string",
            Json::List(_) => "an array",
            Json::Object(_) => "an object",
        }
    }
}

/// Why a text is not JSON as the contract wants it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct MalformedJson(String);

/// Reads a whole text.
///
/// # Errors
/// [`MalformedJson`], with the place, for every text that this module's rules refuse.
pub fn parse(text: &[u8]) -> Result<Json<'_>, MalformedJson> {
    let text = std::str::from_utf8(text)
        .map_err(|e| MalformedJson(format!("the text is not UTF-8 from byte {} on", e.valid_up_to())))?;
    let mut reader = serde_json::Deserializer::from_str(text);
    let tree = Json::deserialize(&mut reader);
    tree.and_then(|tree| reader.end().map(|()| tree)).map_err(|e| MalformedJson(e.to_string()))
}

impl<'de> Deserialize<'de> for Json<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Tree)
    }
}

struct Tree;

impl<'de> Visitor<'de> for Tree {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }
    fn visit_unit<E: Error>(self) -> Result<Json<'de>, E> {
        Ok(Json::Null)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Json<'de>, E> {
        Ok(Json::Bool(value))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Json<'de>, E> {
        Ok(Json::Whole(value))
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Json<'de>, E> {
        Ok(Json::Negative(value))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Json<'de>, E> {
        Ok(Json::Other(value))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Owned(value.to_owned())))
    }
    fn visit_borrowed_str<E: Error>(self, value: &'de str) -> Result<Json<'de>, E> {
        Ok(Json::Text(Cow::Borrowed(value)))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json<'de>, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json<'de>, A::Error> {
        let mut fields = Vec::new();
        while let Some(Key(key)) = map.next_key()? {
            fields.push((key, map.next_value()?));
        }
        match repeated(&fields) {
            Some(key) => {
                // A hostile key is not repeated at its full length.
                let key: String = key.chars().take(60).collect();
                Err(Error::custom(format_args!("the key {key:?} stands twice in one object")))
            }
            None => Ok(Json::Object(fields)),
        }
    }
}

/// Below this many keys comparing each with each is faster than sorting them.
const FEW_KEYS: usize = 12;

fn repeated<'f>(fields: &'f [(Cow<'_, str>, Json<'_>)]) -> Option<&'f str> {
    if fields.len() <= FEW_KEYS {
        let twice = |i: usize, key: &str| fields.iter().take(i).any(|(k, _)| k == key);
        return fields.iter().enumerate().find(|(i, (key, _))| twice(*i, key)).map(|(_, (key, _))| &**key);
    }
    let mut keys: Vec<&str> = fields.iter().map(|(key, _)| &**key).collect();
    keys.sort_unstable();
    keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// A key, borrowed where it has no escapes; an escaped key is compared as what it means.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_str<E: Error>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
            fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_key_may_not_stand_twice_at_any_depth_however_it_is_written() {
        let many: String = (0..40).map(|i| format!("\"k{i}\":{i},")).collect();
        for twice in [
            r#"{"a":1,"a":1}"#.to_owned(),
            r#"{"a":1,"\u0061":2}"#.to_owned(),
            r#"[{"x":{"deep":[{"a":1,"b":2,"a":3}]}}]"#.to_owned(),
            format!("{{{many}\"k7\":0}}"),
        ] {
            assert!(parse(twice.as_bytes()).unwrap_err().to_string().contains("twice"), "{twice}");
        }
        assert!(parse(br#"{"a":{"a":1},"b":[{"a":1},{"a":1}]}"#).is_ok());
    }

    #[test]
    fn what_is_no_json_is_malformed() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        for bad in
            ["", "{", "{} x", "{}{}", "nul", "NaN", "[1,]", "1e400", r#""\ud800""#, "\u{feff}{}", "{'a':1}"]
        {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse(b"\"\xff\"").is_err());
        assert!(parse(deep(100).as_bytes()).is_ok());
        assert!(parse(deep(10_000).as_bytes()).is_err());
        assert!(parse("{\"a\":".repeat(10_000).as_bytes()).is_err());
    }

    #[test]
    fn numbers_keep_how_they_were_written() {
        fn read(text: &str) -> Json<'_> {
            parse(text.as_bytes()).unwrap()
        }
        assert_eq!(read("9007199254740993"), Json::Whole(9_007_199_254_740_993));
        assert_eq!(read("-1"), Json::Negative(-1));
        for other in ["1.0", "1e2", "-1.0", "-0", "18446744073709551616"] {
            assert!(matches!(read(other), Json::Other(_)), "{other}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused_without_a_panic(bytes: Vec<u8>) {
            let _tree = parse(&bytes);
        }

        #[test]
        fn texts_come_back_as_they_were(text: String) {
            let written = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(parse(written.as_bytes()).unwrap(), Json::Text(text.into()));
        }
    }
}
