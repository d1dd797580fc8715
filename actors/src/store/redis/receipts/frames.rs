//! How receipts stand in a file: each in a frame with its length and a checksum, so that a tail that
//! was torn off by a crash, and damage before it, are known from what was written. Pure: it must never
//! open a file.
//!
//! A frame is a mark, the length of the payload (u32, little-endian), the first bytes of the payload's
//! SHA-256, the payload. The mark begins with a byte that no UTF-8 has, so that nobody writes one into a
//! text. Behind damage the next mark with a right checksum is gone on from.

use sha2::{Digest as _, Sha256};

/// Before each frame.
const MARK: [u8; 4] = [0xF5, b'w', b'g', b'r'];

/// Bytes of a payload's SHA-256 that are kept: against damage, not against forgers.
const CHECK_BYTES: usize = 8;

const HEAD_BYTES: usize = MARK.len() + 4 + CHECK_BYTES;

/// Appends a frame.
pub(super) fn append(bytes: &mut Vec<u8>, payload: &[u8]) {
    let Ok(length) = u32::try_from(payload.len()) else { return };
    bytes.extend_from_slice(&MARK);
    bytes.extend_from_slice(&length.to_le_bytes());
    bytes.extend_from_slice(&check(payload));
    bytes.extend_from_slice(payload);
}

/// What a file holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Frames<'b> {
    /// In the order they were written.
    pub(super) payloads: Vec<&'b [u8]>,
    /// Bytes before the last frame that are of none: somebody's receipts may be gone.
    pub(super) damaged: usize,
    /// Bytes behind the last frame: a write that was cut off, whose 202 nobody got.
    pub(super) torn: usize,
}

/// Reads all frames that are whole.
pub(super) fn read(bytes: &[u8]) -> Frames<'_> {
    let mut frames = Frames::default();
    let mut at = 0;
    let mut bad = 0;
    while at < bytes.len() {
        if let Some(payload) = frame(&bytes[at..]) {
            frames.payloads.push(payload);
            frames.damaged += std::mem::take(&mut bad);
            at += HEAD_BYTES + payload.len();
        } else {
            let next = bytes[at + 1..].windows(MARK.len()).position(|window| window == MARK);
            let next = next.map_or(bytes.len(), |n| at + 1 + n);
            bad += next - at;
            at = next;
        }
    }
    frames.torn = bad;
    frames
}

fn frame(bytes: &[u8]) -> Option<&[u8]> {
    let (length, rest) = bytes.strip_prefix(&MARK)?.split_first_chunk::<4>()?;
    let (expected, rest) = rest.split_first_chunk::<CHECK_BYTES>()?;
    let payload = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
    (check(payload) == *expected).then_some(payload)
}

fn check(payload: &[u8]) -> [u8; CHECK_BYTES] {
    let digest: [u8; 32] = Sha256::digest(payload).into();
    std::array::from_fn(|i| digest[i])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Frames, and where each ends.
    fn written(payloads: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for payload in payloads {
            append(&mut bytes, payload);
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    fn payloads() -> impl Strategy<Value = Vec<Vec<u8>>> {
        proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 1..8)
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(payloads in payloads()) {
            let (bytes, _) = written(&payloads);
            let frames = read(&bytes);
            prop_assert_eq!(frames.payloads, payloads);
            prop_assert_eq!((frames.damaged, frames.torn), (0, 0));
        }

        #[test]
        fn a_torn_tail_costs_only_the_frame_that_it_cuts(payloads in payloads(), cut in any::<prop::sample::Index>()) {
            let (bytes, ends) = written(&payloads);
            let cut = cut.index(bytes.len());
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let frames = read(&bytes[..cut]);
            prop_assert_eq!(frames.payloads, &payloads[..whole]);
            let begun = whole.checked_sub(1).map_or(0, |last| ends[last]);
            prop_assert_eq!((frames.damaged, frames.torn), (0, cut - begun));
        }

        #[test]
        fn a_damaged_byte_costs_only_its_frame_and_is_told(
            payloads in payloads(),
            at in any::<prop::sample::Index>(),
            flip in 1..=u8::MAX,
        ) {
            let (mut bytes, ends) = written(&payloads);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let hit = ends.iter().filter(|end| **end <= at).count();
            let mut left = payloads.clone();
            left.remove(hit);
            let length = HEAD_BYTES + payloads[hit].len();
            let last = hit + 1 == payloads.len();
            let frames = read(&bytes);
            prop_assert_eq!(frames.payloads, left);
            prop_assert_eq!((frames.damaged, frames.torn), if last { (0, length) } else { (length, 0) });
        }

        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let frames = read(&bytes);
            let held: usize = frames.payloads.iter().map(|payload| HEAD_BYTES + payload.len()).sum();
            prop_assert_eq!(held + frames.damaged + frames.torn, bytes.len());
        }
    }
}
