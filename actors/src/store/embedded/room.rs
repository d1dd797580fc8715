//! How much disk is left, and which lanes that is enough for. It must never wait for a full disk
//! to show at a commit: LMDB reports that as any other IO error, and the process would end.

use std::path::Path;

use crate::store::rows::Room;

/// Bytes that must stay free for the control lane and for turns: the last thing to close.
const CONTROL_BYTES: u64 = 8 << 20;
/// Bytes that must stay free for the stock lane.
const STOCK_BYTES: u64 = 32 << 20;
/// Bytes that must stay free for the work lane: what the others need to empty the house.
const WORK_BYTES: u64 = 64 << 20;
/// Bytes that a written thing may cost: its pages in several tables, each copied when written.
const ITEM_BYTES: u64 = 16 << 10;

/// What there is room for if `items` things are written now.
pub(super) fn measure(dir: &Path, items: usize) -> Room {
    match rustix::fs::statvfs(dir) {
        Ok(fs) => room_for(fs.f_bavail.saturating_mul(fs.f_frsize), items),
        Err(e) => {
            // Not knowing is no reason to refuse orders; a full disk would then end the process.
            tracing::warn!(error = %e, "free space cannot be measured");
            Room::All
        }
    }
}

fn room_for(free: u64, items: usize) -> Room {
    let batch = u64::try_from(items).unwrap_or(u64::MAX).saturating_mul(ITEM_BYTES);
    let left = free.saturating_sub(batch);
    if left < CONTROL_BYTES {
        Room::Nothing
    } else if left < STOCK_BYTES {
        Room::Control
    } else if left < WORK_BYTES {
        Room::Stock
    } else {
        Room::All
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_close_work_first_and_control_last() {
        let mib = |n: u64| n << 20;
        let rooms = [65, 63, 31, 7].map(|n| room_for(mib(n), 0));
        assert_eq!(rooms, [Room::All, Room::Stock, Room::Control, Room::Nothing]);
        assert_eq!(room_for(mib(65), 1_000), Room::Stock);
    }
}
