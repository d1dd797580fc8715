//! `Retry-After` (RFC 9110 §10.2.3): seconds, or a date. What is neither, not in the future or no
//! text says nothing.

use std::time::{Duration, UNIX_EPOCH};

use crate::domain::time::Timestamp;

/// How long the value asks to wait from `now` on.
pub(super) fn parse(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim();
    let wait = if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than a number has are a long time, not nonsense.
        Duration::from_secs(value.parse::<u32>().unwrap_or(u32::MAX).into())
    } else {
        let date = httpdate::parse_http_date(value).ok()?;
        let at = date.duration_since(UNIX_EPOCH).ok()?.as_millis();
        Timestamp(i64::try_from(at).ok()?).since(now)
    };
    (!wait.is_zero()).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_dates_are_read_and_nonsense_says_nothing() {
        // 24 November 2026, 16:00:00 UTC.
        let now = Timestamp(1_795_536_000_000);
        let read = |value| parse(value, now).map(|wait| wait.as_secs());
        assert_eq!(read("120"), Some(120));
        assert_eq!(read(" 7 "), Some(7));
        assert_eq!(read("1000000000"), Some(1_000_000_000));
        assert_eq!(read("99999999999999999999"), Some(u64::from(u32::MAX)));
        assert_eq!(read("Tue, 24 Nov 2026 16:02:00 GMT"), Some(120));
        assert_eq!(read("Tuesday, 24-Nov-26 16:02:00 GMT"), Some(120));
        for nothing in [
            "",
            "0",
            "-5",
            "1.5",
            "soon",
            "+3",
            "1e3",
            "Tue, 24 Nov 2026 15:00:00 GMT",
            "Thu, 01 Jan 1960 00:00:00 GMT",
        ] {
            assert_eq!(read(nothing), None, "{nothing}");
        }
    }
}
