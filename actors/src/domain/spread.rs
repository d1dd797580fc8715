//! Who is in charge of what, where several nodes share one store.
//!
//! An assignment is advice, not proof: what a node may write is decided by the fence of each
//! partition. So nothing is lost when two nodes go by different assignments for a while; it only has
//! to settle.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use uuid::Uuid;

use super::ids::{ClientNo, PartitionId};

/// A node, through all its restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub Uuid);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What one node at a time is in charge of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Charge {
    /// A warehouse's tree.
    Warehouse(PartitionId),
    /// The webhook endpoints of every sixteenth client.
    Endpoints(u8),
}

impl Charge {
    /// Groups of endpoints.
    pub const ENDPOINTS: u8 = 16;

    /// The endpoints of a client.
    #[must_use]
    pub fn endpoints_of(client: ClientNo) -> Charge {
        Charge::Endpoints((client.0 % u32::from(Charge::ENDPOINTS)) as u8)
    }

    fn is_warehouse(self) -> bool {
        match self {
            Charge::Warehouse(_) => true,
            Charge::Endpoints(_) => false,
        }
    }
}

/// The node in charge, by charge.
pub type Homes = BTreeMap<Charge, NodeId>;

/// Spreads charges over nodes: everything that there is has a node that is there, no node has two
/// warehouses (or two groups of endpoints) more than another, and what need not move for that does
/// not. Without nodes everything stays. What `homes` names beyond `charges` is spread too: another
/// node knows it.
#[must_use]
pub fn spread(homes: &Homes, charges: &BTreeSet<Charge>, nodes: &BTreeSet<NodeId>) -> Homes {
    let mut spread = homes.clone();
    if nodes.is_empty() {
        return spread;
    }
    let all: BTreeSet<Charge> = homes.keys().chain(charges).copied().collect();
    for of_warehouses in [true, false] {
        let mut loads: BTreeMap<NodeId, BTreeSet<Charge>> =
            nodes.iter().map(|node| (*node, BTreeSet::new())).collect();
        let mut orphans = Vec::new();
        for charge in all.iter().filter(|charge| charge.is_warehouse() == of_warehouses) {
            match homes.get(charge).and_then(|home| loads.get_mut(home)) {
                Some(load) => {
                    load.insert(*charge);
                }
                None => orphans.push(*charge),
            }
        }
        for orphan in orphans {
            if let Some(load) = least(&loads).and_then(|node| loads.get_mut(&node)) {
                load.insert(orphan);
            }
        }
        while let (Some(least), Some(most)) = (least(&loads), most(&loads))
            && loads[&most].len() > loads[&least].len() + 1
            && let Some(charge) = loads.get_mut(&most).and_then(BTreeSet::pop_last)
            && let Some(load) = loads.get_mut(&least)
        {
            load.insert(charge);
        }
        spread.extend(loads.into_iter().flat_map(|(node, load)| load.into_iter().map(move |c| (c, node))));
    }
    spread
}

fn least(loads: &BTreeMap<NodeId, BTreeSet<Charge>>) -> Option<NodeId> {
    loads.iter().min_by_key(|(_, load)| load.len()).map(|(node, _)| *node)
}

fn most(loads: &BTreeMap<NodeId, BTreeSet<Charge>>) -> Option<NodeId> {
    loads.iter().max_by_key(|(_, load)| load.len()).map(|(node, _)| *node)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn node(n: u8) -> NodeId {
        NodeId(Uuid::from_u128(u128::from(n)))
    }

    fn nodes() -> impl Strategy<Value = BTreeSet<NodeId>> {
        prop::collection::btree_set((0u8..6).prop_map(node), 1..6)
    }

    fn charges() -> impl Strategy<Value = BTreeSet<Charge>> {
        let charge = prop_oneof![
            (0u16..40).prop_map(|p| Charge::Warehouse(PartitionId(p))),
            (0..Charge::ENDPOINTS).prop_map(Charge::Endpoints),
        ];
        prop::collection::btree_set(charge, 0..50)
    }

    fn counts(homes: &Homes, nodes: &BTreeSet<NodeId>, warehouses: bool) -> Vec<usize> {
        let of = |node| homes.iter().filter(|(c, n)| *n == node && c.is_warehouse() == warehouses).count();
        nodes.iter().map(of).collect()
    }

    proptest! {
        #[test]
        fn every_charge_has_a_live_node_and_none_has_more_than_its_share(
            before in prop::collection::btree_map((0u16..40).prop_map(|p| Charge::Warehouse(PartitionId(p))), (0u8..6).prop_map(node), 0..40),
            charges in charges(),
            nodes in nodes(),
        ) {
            let after = spread(&before, &charges, &nodes);
            prop_assert!(charges.iter().chain(before.keys()).all(|c| after.get(c).is_some_and(|n| nodes.contains(n))));
            for warehouses in [true, false] {
                let counts = counts(&after, &nodes, warehouses);
                prop_assert!(counts.iter().max().unwrap() - counts.iter().min().unwrap() <= 1, "{counts:?}");
            }
            prop_assert_eq!(spread(&after, &charges, &nodes), after);
        }

        #[test]
        fn a_node_that_joins_takes_its_share_and_nothing_else_moves(charges in charges(), nodes in nodes(), new in (6u8..9).prop_map(node)) {
            let before = spread(&Homes::new(), &charges, &nodes);
            let mut more = nodes.clone();
            more.insert(new);
            let after = spread(&before, &charges, &more);
            let moved: Vec<_> = before.iter().filter(|(c, n)| after[c] != **n).collect();
            prop_assert!(moved.iter().all(|(c, _)| after[c] == new));
        }

        #[test]
        fn a_node_that_goes_moves_only_what_it_had_and_what_evens_out(charges in charges(), nodes in nodes()) {
            prop_assume!(nodes.len() > 1);
            let before = spread(&Homes::new(), &charges, &nodes);
            let gone = *nodes.first().unwrap();
            let fewer: BTreeSet<NodeId> = nodes.iter().skip(1).copied().collect();
            let after = spread(&before, &charges, &fewer);
            prop_assert!(before.iter().all(|(c, n)| *n == gone || after[c] == *n));
        }
    }
}
