//! Where a reader stands in a feed, as the opaque text that it is given and gives back.

use std::fmt;
use std::str::FromStr;

use crate::domain::ids::{ClientNo, TransactionId};

/// A place in a feed: everything up to and including `sequence` was seen.
///
/// It names its feed, so that one of another client's, or of a feed that has been numbered anew, is
/// told from a place in this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Of the numbering; changes when the numbers of a feed are no longer those of before.
    pub epoch: u64,
    /// Whose feed; [`ClientNo::HOUSE`] for the stream of a transaction that belongs to no client.
    pub client: ClientNo,
    /// The last sequence that was seen.
    pub sequence: u64,
    /// True when a transaction's stream has said its last word: nothing follows.
    pub ended: bool,
}

/// Digits of a cursor: a shape, the epoch, the client and the sequence, two for each byte.
const DIGITS: usize = 2 * (1 + 8 + 4 + 8);

/// The first byte: what the rest is. Never reused.
const OPEN: u8 = 1;
const ENDED: u8 = 2;

impl Cursor {
    /// A sequence for the stream of a transaction without a feed: there versions are what is numbered,
    /// and a part of the id keeps another transaction's cursor from being taken for this one's.
    #[must_use]
    pub fn version_of(id: TransactionId, version: u32) -> u64 {
        let [.., a, b, c, d] = id.0.into_bytes();
        u64::from(u32::from_be_bytes([a, b, c, d])) << 32 | u64::from(version)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shape = if self.ended { ENDED } else { OPEN };
        write!(f, "{shape:02x}{:016x}{:08x}{:016x}", self.epoch, self.client.0, self.sequence)
    }
}

/// Not a cursor of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor of this server")]
pub struct MalformedCursor;

impl FromStr for Cursor {
    type Err = MalformedCursor;

    /// Reads exactly what is written, and nothing that only looks like it.
    fn from_str(text: &str) -> Result<Self, MalformedCursor> {
        let digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() != DIGITS || !text.bytes().all(digit) {
            return Err(MalformedCursor);
        }
        let number =
            |from: usize, to: usize| u64::from_str_radix(&text[from..to], 16).map_err(|_| MalformedCursor);
        let ended = match number(0, 2)? {
            shape if shape == u64::from(OPEN) => false,
            shape if shape == u64::from(ENDED) => true,
            _ => return Err(MalformedCursor),
        };
        let client = u32::try_from(number(18, 26)?).map_err(|_| MalformedCursor)?;
        Ok(Cursor { epoch: number(2, 18)?, client: ClientNo(client), sequence: number(26, DIGITS)?, ended })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_cursor_survives_its_text(epoch: u64, client: u32, sequence: u64, ended: bool) {
            let cursor = Cursor { epoch, client: ClientNo(client), sequence, ended };
            prop_assert_eq!(cursor.to_string().parse::<Cursor>(), Ok(cursor));
        }

        #[test]
        fn any_text_is_read_or_refused(text: String) {
            if let Ok(read) = text.parse::<Cursor>() {
                prop_assert_eq!(read.to_string(), text);
            }
        }
    }

    #[test]
    fn only_what_is_written_is_read() {
        let good = Cursor { epoch: 7, client: ClientNo(1), sequence: 9, ended: false }.to_string();
        let long = "0".repeat(65_536);
        for bad in ["", "x", &good[1..], &format!("{good}0"), &good.replace('7', "G"), &long, "earliest"] {
            assert_eq!(bad.parse::<Cursor>(), Err(MalformedCursor), "{}", bad.len());
        }
        assert_eq!(format!("03{}", &good[2..]).parse::<Cursor>(), Err(MalformedCursor));
        assert_eq!(good.replacen("01", "0É", 1).parse::<Cursor>(), Err(MalformedCursor));
    }
}
