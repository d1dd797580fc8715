//! Stored bytes: damaged or of another release, they are a value or an error, never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use uuid::Uuid;
use wavegate_engine::domain::endpoint::EndpointId;
use wavegate_engine::domain::ids::{ClientNo, PartitionId, TransactionId};
use wavegate_engine::domain::time::Timestamp;
use wavegate_engine::store::format;

fuzz_target!(|bytes: &[u8]| {
    let id = TransactionId::new(Timestamp(0), PartitionId(1), 1);
    let endpoint = EndpointId(Uuid::nil());
    if let Ok((head, command)) = format::decode_command(bytes) {
        let written = format::encode_command(&head, &command);
        assert!(format::decode_command(&written).is_ok(), "what is read can be written");
    }
    let _ = format::decode_digest(bytes);
    let _ = format::decode_ship_to(bytes);
    let _ = format::decode_tombstone(id, bytes);
    let _ = format::decode_fact(bytes);
    let _ = format::decode_claim(bytes);
    let _ = format::decode_feed(bytes);
    let _ = format::decode_estimates(bytes);
    let _ = format::decode_lane(bytes);
    let _ = format::decode_position(bytes);
    let _ = format::decode_wave(bytes);
    let _ = format::decode_carton(bytes);
    let _ = format::decode_dead(bytes);
    let _ = format::decode_partition(bytes);
    let _ = format::decode_counter(bytes);
    let _ = format::decode_number(bytes);
    let _ = format::decode_store(bytes);
    let _ = format::decode_secret(bytes);
    let _ = format::decode_settled(bytes);
    let _ = format::decode_logged_claim(bytes);
    let _ = format::decode_numbered_fact(bytes);
    let _ = format::decode_stock_change(bytes);
    let _ = format::decode_endpoint(ClientNo(1), endpoint, bytes);
    let _ = format::decode_progress(bytes);
    let _ = format::decode_pending(1, bytes);
    let _ = format::decode_attempt(bytes);
    let _ = format::decode_dead_delivery(endpoint, 1, bytes);
    let _ = format::decode_replay(Uuid::nil(), bytes);
    let _ = format::decode_notice(bytes);
    let _ = format::decode_receipt(bytes);
    let _ = format::decode_receipts_head(bytes);
    let _ = format::decode_held_claim(bytes);
    let _ = format::decode_homes(bytes);
});
