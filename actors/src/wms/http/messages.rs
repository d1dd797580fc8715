//! What we say to a WMS, in the words of the protocol.

use crate::domain::ids::ReleaseId;
use crate::ports::store::ManifestCarton;
use crate::ports::wms::{ManifestOut, ReleaseOut, Wave};
use crate::wire::time::WireTime;
use crate::wire::wms::{ContentMessage, ManifestMessage, ReleaseLineMessage, ReleaseMessage, WaveMessage};

/// A wave; the same wave is always the same message.
pub(super) fn wave(warehouse: &str, wave: Wave) -> WaveMessage {
    WaveMessage {
        wave_id: wave.id.to_string(),
        warehouse: warehouse.to_owned(),
        released_at: WireTime(wave.released_at),
        orders: wave.orders.into_iter().map(release).collect(),
    }
}

fn release(out: ReleaseOut) -> ReleaseMessage {
    let line = |(line, sku, quantity): (_, crate::domain::ids::Sku, _)| ReleaseLineMessage {
        line,
        sku: sku.as_str().to_owned(),
        quantity,
    };
    let ReleaseId { order, .. } = out.release;
    ReleaseMessage {
        release_id: out.release.to_string(),
        transaction_id: order.to_string(),
        owner: out.owner,
        reference: out.reference.as_str().to_owned(),
        correlation_id: out.correlation.as_str().to_owned(),
        traceparent: out.trace.traceparent(),
        service_level: out.service_level,
        priority: out.priority,
        requested_ship_by: out.requested_ship_by.map(WireTime),
        cut_off: out.cut_off.map(WireTime),
        ship_to: out.ship_to,
        lines: out.lines.into_iter().map(line).collect(),
    }
}

/// A closed manifest.
pub(super) fn manifest(manifest: &ManifestOut) -> ManifestMessage {
    let content = |carton: &ManifestCarton| ContentMessage {
        sscc: carton.sscc.to_string(),
        carton_id: carton.carton_id.clone(),
        release_id: carton.release.to_string(),
    };
    ManifestMessage {
        manifest_id: manifest.id.to_string(),
        carrier: manifest.carrier.clone(),
        service_level: manifest.service_level.clone(),
        cartons: manifest.cartons.iter().map(|carton| carton.sscc.to_string()).collect(),
        contents: manifest.cartons.iter().map(content).collect(),
    }
}
