//! Points in time as text: RFC 3339, UTC, milliseconds.

use chrono::{DateTime, SecondsFormat};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::borrow::Cow;
use std::fmt;

use crate::domain::time::Timestamp;

/// A time as it stands in documents: `2026-11-24T16:07:41.000Z`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WireTime(pub Timestamp);

impl WireTime {
    /// Reads RFC 3339 with any offset; finer than a millisecond is cut off.
    #[must_use]
    pub fn parse(text: &str) -> Option<Timestamp> {
        DateTime::parse_from_rfc3339(text).ok().map(|t| Timestamp(t.timestamp_millis()))
    }
}

impl fmt::Display for WireTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Beyond chrono's range only "never" can stand, and no document shows that.
        let time = DateTime::from_timestamp_millis(self.0.0).unwrap_or(DateTime::<chrono::Utc>::MAX_UTC);
        f.write_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl Serialize for WireTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for WireTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        WireTime::parse(&text).map(WireTime).ok_or_else(|| D::Error::custom("is no RFC 3339 time"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_utc_with_milliseconds() {
        let read = WireTime::parse("2026-11-24T18:07:41.1239+02:00").unwrap();
        assert_eq!(WireTime(read).to_string(), "2026-11-24T16:07:41.123Z");
        assert_eq!(WireTime(Timestamp(0)).to_string(), "1970-01-01T00:00:00.000Z");
        for bad in ["", "2026-11-24", "2026-11-24T16:07:41", "2026-13-01T00:00:00Z", "yesterday"] {
            assert_eq!(WireTime::parse(bad), None, "{bad}");
        }
    }
}
