//! Request headers with a grammar of their own, read to the letter.

use actix_web::http::header::{self, HeaderMap, HeaderName};

use super::problem::Problem;

/// The longest wait that a caller is given, in seconds: proxies give up at 60.
pub(crate) const WAIT_S_MAX: u64 = 30;

/// The `Idempotency-Key` (IETF draft): a quoted structured-field string (RFC 8941 §3.3.3), or
/// the same characters bare; 1 to 255, visible ASCII.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all("idempotency-key");
    let Some(first) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Problem::KeyMalformed);
    }
    let text = first.to_str().map_err(|_| Problem::KeyMalformed)?.trim_matches(' ');
    let key = match text.strip_prefix('"') {
        Some(rest) => unquote(rest).ok_or(Problem::KeyMalformed)?,
        None => text.to_owned(),
    };
    let visible = key.bytes().all(|b| b.is_ascii_graphic());
    if visible && (1..=255).contains(&key.len()) { Ok(Some(key)) } else { Err(Problem::KeyMalformed) }
}

/// The rest of a quoted string up to its closing quote, which must be the end.
fn unquote(rest: &str) -> Option<String> {
    let mut key = String::with_capacity(rest.len());
    let mut chars = rest.chars();
    loop {
        match chars.next()? {
            '"' => return chars.next().is_none().then_some(key),
            '\\' => match chars.next()? {
                escaped @ ('"' | '\\') => key.push(escaped),
                _ => return None,
            },
            other => key.push(other),
        }
    }
}

/// The seconds of `Prefer: wait=N` (RFC 7240), at most [`WAIT_S_MAX`]; the first `wait` counts,
/// what cannot be read is ignored, as the standard asks.
pub(crate) fn prefer_wait(headers: &HeaderMap) -> Option<u64> {
    let values = headers.get_all(HeaderName::from_static("prefer"));
    for value in values.filter_map(|v| v.to_str().ok()) {
        for preference in split_outside_quotes(value, ',') {
            let token = split_outside_quotes(preference, ';').next().unwrap_or_default();
            let (name, value) = token.split_once('=').unwrap_or((token, ""));
            if !name.trim().eq_ignore_ascii_case("wait") {
                continue;
            }
            let value = value.trim();
            let bare = value.strip_prefix('"').and_then(|v| v.strip_suffix('"')).unwrap_or(value);
            let digits = !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_digit());
            // More digits than a u64 has is a very long wait, not nonsense.
            return digits.then(|| bare.parse().unwrap_or(u64::MAX).min(WAIT_S_MAX));
        }
    }
    None
}

fn split_outside_quotes(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    text.split(move |c| {
        if escaped {
            escaped = false;
        } else if quoted && c == '\\' {
            escaped = true;
        } else if c == '"' {
            quoted = !quoted;
        }
        !quoted && c == separator
    })
}

/// `If-None-Match` (RFC 9110 §13.1.2), compared weakly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoneMatch {
    /// `*`: whatever there is.
    Any,
    /// The versions whose tags are listed; other tags are none of ours.
    Versions(Vec<u32>),
}

impl NoneMatch {
    /// Reads the header; `None` when it is absent.
    pub(crate) fn read(headers: &HeaderMap) -> Option<NoneMatch> {
        let mut versions = None;
        for value in headers.get_all(header::IF_NONE_MATCH).filter_map(|v| v.to_str().ok()) {
            if value.trim() == "*" {
                return Some(NoneMatch::Any);
            }
            let listed = split_outside_quotes(value, ',').filter_map(|tag| {
                let tag = tag.trim();
                let tag = tag.strip_prefix("W/").unwrap_or(tag);
                version_in(tag.strip_prefix('"')?.strip_suffix('"')?)
            });
            versions.get_or_insert_with(Vec::new).extend(listed);
        }
        versions.map(NoneMatch::Versions)
    }

    /// Whether a caller that sends this has version `version` already.
    pub(crate) fn has(&self, version: u32) -> bool {
        match self {
            NoneMatch::Any => true,
            NoneMatch::Versions(versions) => versions.contains(&version),
        }
    }
}

/// The version that a tag of ours names.
fn version_in(tag: &str) -> Option<u32> {
    let ours = tag.bytes().all(|b| b.is_ascii_digit()) && !tag.starts_with('0');
    if ours { tag.parse().ok() } else { None }
}

/// What a body claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Media {
    /// `application/json` or `application/*+json`.
    Json,
    /// `application/x-ndjson`.
    NdJson,
    /// No content type.
    Absent,
    /// Anything else, or encoded.
    Other,
}

/// Reads `Content-Type` and `Content-Encoding`.
pub(crate) fn media(headers: &HeaderMap) -> Media {
    let encoded =
        headers.get_all(header::CONTENT_ENCODING).any(|v| !v.as_bytes().eq_ignore_ascii_case(b"identity"));
    if encoded {
        return Media::Other;
    }
    let mut values = headers.get_all(header::CONTENT_TYPE);
    let Some(value) = values.next() else { return Media::Absent };
    if values.next().is_some() {
        return Media::Other;
    }
    let text = value.to_str().unwrap_or_default();
    let essence = text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match essence.strip_prefix("application/") {
        Some("json") => Media::Json,
        Some("x-ndjson") => Media::NdJson,
        Some(other) if other.len() > "+json".len() && other.ends_with("+json") => Media::Json,
        Some(_) | None => Media::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    fn headers(name: &'static str, values: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn an_idempotency_key_is_the_same_quoted_or_bare() {
        let read = |values: &[&str]| idempotency_key(&headers("idempotency-key", values)).ok();
        assert_eq!(read(&[]), Some(None));
        for good in ["abc", "\"abc\"", " abc "] {
            assert_eq!(read(&[good]), Some(Some("abc".to_owned())), "{good}");
        }
        assert_eq!(read(&[r#""a\"b\\c""#]), Some(Some(r#"a"b\c"#.to_owned())));
        let long = "x".repeat(256);
        for bad in ["", "\"\"", "\"abc", "\"a\"b\"", "a b", "\"a b\"", r#""a\n""#, &long] {
            assert_eq!(read(&[bad]), None, "{bad}");
        }
        assert_eq!(read(&["a", "a"]), None);
        assert!(read(&[&"x".repeat(255)]).is_some());
    }

    #[test]
    fn a_wait_is_found_among_other_preferences() {
        let read = |values: &[&str]| prefer_wait(&headers("prefer", values));
        for (text, wait) in [
            ("wait=10", Some(10)),
            ("respond-async, wait=10", Some(10)),
            ("Wait = \"7\" ; foo", Some(7)),
            ("note=\"a, wait=3\", wait=4", Some(4)),
            ("wait=100", Some(30)),
            ("wait=99999999999999999999999", Some(30)),
            ("wait=0", Some(0)),
            ("wait=5, wait=9", Some(5)),
            ("wait", None),
            ("wait=soon", None),
            ("wait=-1", None),
            ("waiting=5", None),
            ("", None),
        ] {
            assert_eq!(read(&[text]), wait, "{text}");
        }
        assert_eq!(read(&["handling=lenient", "wait=2"]), Some(2));
        assert_eq!(read(&[]), None);
    }

    #[test]
    fn entity_tags_are_compared_weakly() {
        let read = |values: &[&str]| NoneMatch::read(&headers("if-none-match", values));
        assert_eq!(read(&[]), None);
        assert_eq!(read(&["*"]), Some(NoneMatch::Any));
        for (text, has) in [
            ("\"5\"", true),
            ("W/\"5\"", true),
            ("\"4\", \"5\"", true),
            ("\"4\"", false),
            ("5", false),
            ("\"05\"", false),
            ("\"+5\"", false),
            ("\"\"", false),
            ("\"a,\",\"5\"", true),
        ] {
            assert_eq!(read(&[text]).unwrap().has(5), has, "{text}");
        }
        assert!(read(&["\"4\"", "\"5\""]).unwrap().has(5));
    }

    #[test]
    fn only_json_bodies_are_read() {
        for (text, media) in [
            ("application/json", Media::Json),
            ("Application/JSON; charset=utf-8", Media::Json),
            ("application/vnd.acme.order+json", Media::Json),
            ("application/x-ndjson", Media::NdJson),
            ("application/+json", Media::Other),
            ("text/json", Media::Other),
            ("application/xml", Media::Other),
            ("", Media::Other),
        ] {
            assert_eq!(super::media(&headers("content-type", &[text])), media, "{text}");
        }
        assert_eq!(super::media(&HeaderMap::new()), Media::Absent);
        let mut gzip = headers("content-type", &["application/json"]);
        gzip.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        assert_eq!(super::media(&gzip), Media::Other);
    }
}
