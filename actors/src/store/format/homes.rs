//! The assignment of warehouses and endpoints to nodes as it is stored.

use std::collections::BTreeMap;

use super::{Decoded, Record, packed, unpacked};
use crate::domain::ids::PartitionId;
use crate::domain::spread::{Charge, Homes, NodeId};

/// Warehouses and groups of endpoints of one node.
type OfNode = (Vec<PartitionId>, Vec<u8>);

/// An assignment, by node: there are few.
#[must_use]
pub fn encode_homes(homes: &Homes) -> Vec<u8> {
    let mut nodes: BTreeMap<NodeId, OfNode> = BTreeMap::new();
    for (charge, node) in homes {
        let (warehouses, endpoints) = nodes.entry(*node).or_default();
        match charge {
            Charge::Warehouse(partition) => warehouses.push(*partition),
            Charge::Endpoints(group) => endpoints.push(*group),
        }
    }
    packed(Record::Homes, &nodes)
}

/// Reads an assignment.
///
/// # Errors
/// When the bytes are not one.
pub fn decode_homes(bytes: &[u8]) -> Decoded<Homes> {
    let nodes: BTreeMap<NodeId, OfNode> = unpacked(Record::Homes, bytes)?;
    let charges = nodes.into_iter().flat_map(|(node, (warehouses, endpoints))| {
        let warehouses = warehouses.into_iter().map(Charge::Warehouse);
        let endpoints = endpoints.into_iter().map(Charge::Endpoints);
        warehouses.chain(endpoints).map(move |charge| (charge, node)).collect::<Vec<_>>()
    });
    Ok(charges.collect())
}
