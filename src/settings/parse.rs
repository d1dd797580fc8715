//! Parsers of single values. Each says in its error what was expected, with unit and bounds; the
//! caller adds the key and where it was set.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use chrono::NaiveTime;
use humantime_serde::re::humantime;
use ipnet::IpNet;
use serde::de::{Deserialize, Deserializer, Error, Unexpected, Visitor};
use wavegate_engine::domain::sscc::CompanyPrefix;
use wavegate_engine::wms::http::{ApiKey, BaseUrl};

use super::RedisUrl;
use super::redis::REDIS_SCHEMES;

/// An address with a port.
pub(super) fn listen<'de, D: Deserializer<'de>>(from: D) -> Result<SocketAddr, D::Error> {
    text(from, "an address and a port, say \"127.0.0.1:8080\"", |s| s.parse().ok())
}

/// Origins of pages, as a browser writes them: scheme, host in small letters, and the port unless it is
/// the scheme's own; no path.
pub(super) fn origins<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    let origins: Vec<String> = Vec::deserialize(from)?;
    for origin in &origins {
        if !is_origin(origin) {
            return Err(D::Error::custom(format!(
                "found {origin:?}, expected an origin as a browser writes it, say \"https://shop.example\""
            )));
        }
    }
    Ok(origins)
}

fn is_origin(text: &str) -> bool {
    let Some((scheme, own, rest)) = [("http://", ":80"), ("https://", ":443")]
        .into_iter()
        .find_map(|(scheme, own)| Some((scheme, own, text.strip_prefix(scheme)?)))
    else {
        return false;
    };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-._:[]".contains(&b);
    // What the parser reads as an address without a path comes back with a slash and nothing else.
    let read = text.parse::<reqwest::Url>().ok();
    !rest.is_empty()
        && rest.bytes().all(plain)
        && !rest.ends_with(own)
        && read.is_some_and(|url| url.as_str() == format!("{scheme}{rest}/"))
}

/// A file, or none.
pub(super) fn file<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    text(from, "the path of a file, or nothing", |s| Some((!s.is_empty()).then(|| PathBuf::from(s))))
}

/// A path that is not empty.
pub(super) fn path<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    text(from, "the path of a directory", |s| (!s.is_empty()).then(|| PathBuf::from(s)))
}

/// A warehouse's code.
pub(super) fn code<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    text(from, "1 to 32 of A-Z a-z 0-9 _ and -", |s| named(s, 32, b"_-"))
}

/// A node's name, or nothing.
pub(super) fn node_name<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let name = |s: &str| if s.is_empty() { Some(String::new()) } else { named(s, 32, b"._-") };
    text(from, "nothing, or 1 to 32 of A-Z a-z 0-9 . _ and -", name)
}

/// A client's name.
pub(super) fn client<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    text(from, CLIENT_EXPECTED, client_name).map(Some)
}

/// What a client's name may be.
pub(crate) const CLIENT_EXPECTED: &str = "1 to 64 of A-Z a-z 0-9 . _ and -";

/// A client's name, when `s` is one.
pub(crate) fn client_name(s: &str) -> Option<String> {
    named(s, 64, b"._-")
}

fn named(s: &str, chars_max: usize, others: &[u8]) -> Option<String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || others.contains(&b);
    ((1..=chars_max).contains(&s.len()) && s.bytes().all(allowed)).then(|| s.to_owned())
}

/// An IANA time zone.
pub(super) fn timezone<'de, D: Deserializer<'de>>(from: D) -> Result<chrono_tz::Tz, D::Error> {
    text(from, "an IANA time zone, say \"America/New_York\"", |s| s.parse().ok())
}

/// Local times by service level.
pub(super) fn cut_offs<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, NaiveTime>, D::Error> {
    let texts: BTreeMap<String, String> = BTreeMap::deserialize(from)?;
    let time = |(service, at): (String, String)| match NaiveTime::parse_from_str(&at, "%H:%M") {
        Ok(time) => Ok((service, time)),
        Err(_) => Err(D::Error::custom(format!(
            "found string {at:?} for {service}, expected a local time, say \"16:00\""
        ))),
    };
    texts.into_iter().map(time).collect()
}

/// Networks.
pub(super) fn cidrs<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<IpNet>, D::Error> {
    let texts: Vec<String> = Vec::deserialize(from)?;
    let read = |text: String| {
        text.parse()
            .map_err(|_| D::Error::custom(format!("found {text:?}, expected a network, say \"10.1.0.0/16\"")))
    };
    texts.into_iter().map(read).collect()
}

/// The most pauses of a schedule.
const PAUSES_MAX: usize = 50;

/// Pauses between attempts.
pub(super) fn schedule<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Duration>, D::Error> {
    let texts: Vec<String> = Vec::deserialize(from)?;
    if !(1..=PAUSES_MAX).contains(&texts.len()) {
        return Err(D::Error::custom(format!("found {} pauses, expected 1 to {PAUSES_MAX}", texts.len())));
    }
    let (min, max) = (Duration::from_millis(10), Duration::from_secs(7 * 86_400));
    let read = |text: String| {
        let pause = humantime::parse_duration(&text).ok().filter(|d| (min..=max).contains(d));
        pause.ok_or_else(|| {
            D::Error::custom(format!(
                "found {text:?}, expected pauses with their units, 10ms to 7d, say \"5s\""
            ))
        })
    };
    texts.into_iter().map(read).collect()
}

/// A GS1 company prefix.
pub(super) fn sscc_prefix<'de, D: Deserializer<'de>>(from: D) -> Result<CompanyPrefix, D::Error> {
    text(from, "a GS1 company prefix of 7 to 10 digits, in quotes", |s| s.parse().ok())
}

/// Where a WMS is.
pub(super) fn url<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BaseUrl>, D::Error> {
    let expected = "an absolute http or https address without user, query and fragment";
    let found = from.deserialize_str(ExpectText(expected))?;
    match found.parse() {
        Ok(url) => Ok(Some(url)),
        // A user's password is not repeated.
        Err(_) if found.contains('@') => Err(D::Error::custom(format!("expected {expected}"))),
        Err(_) => Err(D::Error::invalid_value(Unexpected::Str(&found), &expected)),
    }
}

/// A key in clear. No fault may repeat it, whatever it is.
pub(super) fn api_key<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ApiKey>, D::Error> {
    let wrong = || D::Error::custom("expected a key of 16 to 128 visible ASCII characters, in quotes");
    let figment::value::Value::String(_, key) = Deserialize::deserialize(from)? else { return Err(wrong()) };
    key.parse().map(Some).map_err(|_| wrong())
}

/// Where a Redis is: a list of addresses. No fault may repeat them, for they may hold a password.
pub(super) fn redis<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<RedisUrl>, D::Error> {
    let wrong = || D::Error::custom("expected a list of addresses, say [\"redis://127.0.0.1:6379\"]");
    let figment::value::Value::Array(_, all) = Deserialize::deserialize(from)? else { return Err(wrong()) };
    let one = |value: &figment::value::Value| {
        let figment::value::Value::String(_, url) = value else { return Err(wrong()) };
        let rest = REDIS_SCHEMES.iter().find_map(|scheme| url.strip_prefix(scheme));
        match rest {
            // What stands behind "#" would turn off that certificates are checked.
            Some(rest) if !rest.is_empty() && !rest.contains('#') => Ok(RedisUrl(url.clone())),
            Some(_) | None => Err(wrong()),
        }
    };
    if all.is_empty() { Err(wrong()) } else { all.iter().map(one).collect() }
}

/// 64 lower-case hexadecimal digits.
pub(super) fn sha256<'de, D: Deserializer<'de>>(from: D) -> Result<[u8; 32], D::Error> {
    text(from, "64 lower-case hexadecimal digits, as `wavegate key new` prints them", digest)
}

fn digest(s: &str) -> Option<[u8; 32]> {
    if s.len() != 64 || !s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return None;
    }
    let mut out = [0; 32];
    for (byte, pair) in out.iter_mut().zip(s.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(out)
}

/// Directives of the log.
pub(super) fn log_level<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let expected = "error, warn, info, debug, trace, off, or directives as in \"info,wavegate_engine=debug\"";
    text(from, expected, |s| {
        // The filter takes any word for the name of a module, so a misspelt level would mean "off".
        let known = |word: &str| {
            matches!(word.rsplit('=').next(), Some("error" | "warn" | "info" | "debug" | "trace" | "off"))
        };
        let parsed = tracing_subscriber::EnvFilter::builder().parse(s);
        (!s.is_empty() && s.split(',').all(known) && parsed.is_ok()).then(|| s.to_owned())
    })
}

/// A share, 0 to 1.
pub(super) fn rate<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let rate = f64::deserialize(from)?;
    if (0.0..=1.0).contains(&rate) {
        Ok(rate)
    } else {
        Err(D::Error::invalid_value(Unexpected::Float(rate), &"a share, 0.0 to 1.0"))
    }
}

/// A whole number from `MIN` to `MAX`.
pub(super) fn number<'de, D, T, const MIN: u64, const MAX: u64>(from: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<u64>,
{
    let expected = format!("a whole number, {MIN} to {MAX}");
    let n = from.deserialize_i64(ExpectNumber(&expected))?;
    u64::try_from(n)
        .ok()
        .filter(|n| (MIN..=MAX).contains(n))
        .and_then(|n| T::try_from(n).ok())
        .ok_or_else(|| D::Error::invalid_value(Unexpected::Other(&format!("number {n}")), &expected.as_str()))
}

/// A duration from `MIN` to `MAX` milliseconds.
pub(super) fn duration<'de, D, const MIN: u64, const MAX: u64>(from: D) -> Result<Duration, D::Error>
where
    D: Deserializer<'de>,
{
    let (min, max) = (Duration::from_millis(MIN), Duration::from_millis(MAX));
    let whole = |d: Duration| humantime::format_duration(d);
    let expected = format!("a duration with its unit, {} to {}, say \"2s\"", whole(min), whole(max));
    text(from, &expected, |s| humantime::parse_duration(s).ok().filter(|d| (min..=max).contains(d)))
}

/// A size from `MIN` to `MAX` bytes.
pub(super) fn size<'de, D, const MIN: u64, const MAX: u64>(from: D) -> Result<ByteSize, D::Error>
where
    D: Deserializer<'de>,
{
    let expected = format!("a size, {} to {}, say \"256KiB\"", ByteSize(MIN), ByteSize(MAX));
    text(from, &expected, |s| ByteSize::from_str(s).ok().filter(|size| (MIN..=MAX).contains(&size.as_u64())))
}

/// Reads a text and turns it into what it stands for.
fn text<'de, D, T>(
    from: D,
    expected: &(impl Display + ?Sized),
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
{
    let expected = expected.to_string();
    let found = from.deserialize_str(ExpectText(&expected))?;
    parse(&found).ok_or_else(|| D::Error::invalid_value(Unexpected::Str(&found), &expected.as_str()))
}

/// Takes texts only, and says what was expected instead of anything else.
struct ExpectText<'a>(&'a str);

impl Visitor<'_> for ExpectText<'_> {
    type Value = String;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
    fn visit_str<E>(self, v: &str) -> Result<String, E> {
        Ok(v.to_owned())
    }
}

/// Takes whole numbers only.
struct ExpectNumber<'a>(&'a str);

impl Visitor<'_> for ExpectNumber<'_> {
    type Value = i128;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
    fn visit_i64<E>(self, v: i64) -> Result<i128, E> {
        Ok(v.into())
    }
    fn visit_u64<E>(self, v: u64) -> Result<i128, E> {
        Ok(v.into())
    }
}
