//! Names of things: parsed once at the edge, never checked again.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};
use uuid::Uuid;

use super::time::Timestamp;

/// The number of a warehouse's partition: its order pipeline, lanes and stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub u16);

/// The store's number for a client; names are mapped once, keys hold only this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClientNo(pub u32);

impl ClientNo {
    /// Owner of what belongs to no client: the manifests that the house opens by itself.
    pub const HOUSE: ClientNo = ClientNo(0);
}

/// A line number as the client chose it; unique within its order.
pub type LineNo = u32;

/// A count of units of one SKU, 1 to [`QUANTITY_MAX`] where a client names it.
pub type Quantity = u32;

/// The most units that one line or one move may name.
pub const QUANTITY_MAX: Quantity = 1_000_000;

/// A transaction: a UUIDv8 (RFC 9562 §5.8) that carries its home partition.
///
/// 48 bits of Unix milliseconds, 16 bits of home partition (12 in `custom_b`, 4 leading
/// `custom_c`), 58 random bits. Ids made later sort later, to the millisecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransactionId(pub Uuid);

impl TransactionId {
    /// Makes the id of a transaction that begins at `at` in `home`; `random` gives its low 58 bits.
    #[must_use]
    pub fn new(at: Timestamp, home: PartitionId, random: u64) -> Self {
        let ms = at.0.max(0).unsigned_abs() & 0xFFFF_FFFF_FFFF;
        let high = ms << 16 | u64::from(home.0 >> 4);
        let low = u64::from(home.0 & 0xF) << 58 | random & (u64::MAX >> 6);
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&high.to_be_bytes());
        bytes[8..].copy_from_slice(&low.to_be_bytes());
        TransactionId(Uuid::new_v8(bytes))
    }

    /// The partition whose owner decides for this transaction.
    #[must_use]
    pub fn home(&self) -> PartitionId {
        let b = self.0.as_bytes();
        let custom_b = u16::from(b[6] & 0x0F) << 8 | u16::from(b[7]);
        let custom_c = u16::from(b[8] >> 2 & 0x0F);
        PartitionId(custom_b << 4 | custom_c)
    }

    /// When the id was made, to the millisecond.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        let b = self.0.as_bytes();
        let mut ms = [0; 8];
        ms[2..].copy_from_slice(&b[..6]);
        Timestamp(i64::from_be_bytes(ms))
    }
}

impl fmt::Display for TransactionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TransactionId {
    type Err = Malformed;
    fn from_str(s: &str) -> Result<Self, Malformed> {
        // Only the hyphenated form: an id has one spelling, or caches and logs would have several.
        if s.len() != 36 {
            return Err(Malformed("a transaction id is a UUID"));
        }
        Uuid::try_parse(s).map(TransactionId).map_err(|_| Malformed("a transaction id is a UUID"))
    }
}

/// A wave: the orders that went to the WMS in one message. Made like a transaction id.
pub type WaveId = TransactionId;

/// One release of an order's fulfillment to the WMS, written `<fulfillment id>.<n>`.
///
/// The WMS must treat a release id it knows as taken, so it is the idempotency key of that wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ReleaseId {
    /// The order.
    pub order: TransactionId,
    /// Counts the order's releases from 1.
    pub n: u16,
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{FULFILLMENT}.{}", self.order, self.n)
    }
}

/// Every order has one fulfillment today, number 1; its id is `<transaction id>.1`.
pub const FULFILLMENT: u16 = 1;

impl FromStr for ReleaseId {
    type Err = Malformed;
    fn from_str(s: &str) -> Result<Self, Malformed> {
        const WRONG: Malformed = Malformed("a release id is <transaction id>.1.<n>");
        let mut parts = s.split('.');
        let (Some(order), Some(fulfillment), Some(n), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(WRONG);
        };
        if fulfillment != "1" {
            return Err(WRONG);
        }
        let order = order.parse().map_err(|_| WRONG)?;
        let n = n.parse().map_err(|_| WRONG)?;
        Ok(ReleaseId { order, n })
    }
}

/// A stock keeping unit as its owner names it: 1 to 100 characters, none of them a control.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sku(Arc<str>);

impl Sku {
    /// The most characters in a SKU; keeps a stock key within the store's 511 bytes.
    pub const CHARS_MAX: usize = 100;

    /// The SKU as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Sku {
    type Err = Malformed;
    fn from_str(s: &str) -> Result<Self, Malformed> {
        printable(s, Sku::CHARS_MAX).map(|s| Sku(s.into()))
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The client's own name for a command: 1 to 128 characters, none of them a control.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reference(String);

impl Reference {
    /// The most characters in a reference.
    pub const CHARS_MAX: usize = 128;

    /// The reference as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Reference {
    type Err = Malformed;
    fn from_str(s: &str) -> Result<Self, Malformed> {
        printable(s, Reference::CHARS_MAX).map(|s| Reference(s.into()))
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Accepts 1 to `max` characters without controls (Unicode category Cc: CR, LF, NUL and the like).
fn printable(s: &str, max: usize) -> Result<&str, Malformed> {
    if s.is_empty() {
        return Err(Malformed("must not be empty"));
    }
    if s.chars().any(char::is_control) {
        return Err(Malformed("must not contain control characters"));
    }
    // Counting bytes first keeps a hostile megabyte from being counted by characters.
    if s.len() > max * 4 || s.chars().count() > max {
        return Err(Malformed("is too long"));
    }
    Ok(s)
}

/// The id that one call carries from the first request to the last log line:
/// `[A-Za-z0-9._:-]{1,128}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CorrelationId(Arc<str>);

impl CorrelationId {
    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for CorrelationId {
    type Err = Malformed;
    fn from_str(s: &str) -> Result<Self, Malformed> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._:-".contains(&b);
        if (1..=128).contains(&s.len()) && s.bytes().all(allowed) {
            Ok(CorrelationId(s.into()))
        } else {
            Err(Malformed("a correlation id is 1 to 128 of A-Z a-z 0-9 . _ : -"))
        }
    }
}

impl fmt::Display for CorrelationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The W3C trace context (`traceparent`, version 00) that a transaction belongs to.
///
/// Source: <https://www.w3.org/TR/trace-context/>. Text that is not well-formed is no context.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// 16 bytes, not all zero.
    pub trace_id: u128,
    /// The caller's span: 8 bytes, not all zero.
    pub parent_id: u64,
    /// Bit 0: sampled.
    pub flags: u8,
    /// The vendors' `tracestate`, passed on unread; at most 512 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

impl TraceContext {
    /// The most bytes of `tracestate` that are kept; the standard asks for at least 512.
    pub const STATE_MAX: usize = 512;

    /// The trace id as 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id_hex(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// The header as it is sent on; the span is still the one that called us.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{:032x}-{:016x}-{:02x}", self.trace_id, self.parent_id, self.flags)
    }
}

impl FromStr for TraceContext {
    type Err = Malformed;
    fn from_str(s: &str) -> Result<Self, Malformed> {
        const WRONG: Malformed = Malformed("not a W3C traceparent");
        let hex = |s: &str, len: usize| {
            s.len() == len && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let parts: Vec<&str> = s.split('-').collect();
        let [version, trace_id, parent_id, flags, rest @ ..] = parts.as_slice() else {
            return Err(WRONG);
        };
        // A later version may append fields; version 00 has exactly four, ff is forbidden.
        let shape = hex(version, 2) && hex(trace_id, 32) && hex(parent_id, 16) && hex(flags, 2);
        if !shape || *version == "ff" || (*version == "00" && !rest.is_empty()) {
            return Err(WRONG);
        }
        let trace_id = u128::from_str_radix(trace_id, 16).map_err(|_| WRONG)?;
        let parent_id = u64::from_str_radix(parent_id, 16).map_err(|_| WRONG)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| WRONG)?;
        if trace_id == 0 || parent_id == 0 {
            return Err(WRONG);
        }
        Ok(TraceContext { trace_id, parent_id, flags, state: None })
    }
}

/// Why a text is not the name it claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_transaction_id_gives_back_its_home_and_its_time(ms in 0i64..1 << 48, home: u16, random: u64) {
            let id = TransactionId::new(Timestamp(ms), PartitionId(home), random);
            prop_assert_eq!(id.home(), PartitionId(home));
            prop_assert_eq!(id.at(), Timestamp(ms));
            prop_assert_eq!(id.0.get_version_num(), 8);
            prop_assert_eq!(id.0.get_variant(), uuid::Variant::RFC4122);
            prop_assert_eq!(id.to_string().parse::<TransactionId>().unwrap(), id);
        }

        #[test]
        fn a_release_id_survives_its_text(ms in 0i64..1 << 48, home: u16, random: u64, n: u16) {
            let id = ReleaseId { order: TransactionId::new(Timestamp(ms), PartitionId(home), random), n };
            prop_assert_eq!(id.to_string().parse::<ReleaseId>().unwrap(), id);
        }
    }

    #[test]
    fn control_characters_are_no_part_of_a_name_and_emoji_are() {
        for bad in ["", "a\nb", "a\r", "\u{0}", "\u{85}", &"x".repeat(129)] {
            assert!(bad.parse::<Reference>().is_err(), "{bad:?}");
        }
        for good in ["a", "📦-1", &"é".repeat(128)] {
            assert!(good.parse::<Reference>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_traceparent_is_taken_to_the_letter_or_not_at_all() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(good.parse::<TraceContext>().unwrap().traceparent(), good);
        for bad in [
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "garbage",
        ] {
            assert!(bad.parse::<TraceContext>().is_err(), "{bad}");
        }
    }
}
