//! What clients send: orders, moves, cancellations, by two clients that use the same references and
//! the same SKUs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::World;
use crate::domain::command::{
    AdjustmentReason, Allocation, CancellationCommand, Change, Command, Kind, MoveCommand, OrderCommand,
    OrderLine, Priority, ShipTo,
};
use crate::domain::ids::{ClientNo, PartitionId, Sku, TransactionId};
use crate::engine::{Handle, Submission};
use crate::ports::clock::Clock;
use crate::ports::entropy::Entropy;
use crate::ports::store::IdempotencyKey;

/// SKUs of the world: few, so that orders meet.
pub(crate) const SKUS: u64 = 4;
/// The clients.
pub(crate) const CLIENTS: [&str; 2] = ["acme", "bolt"];

/// Writes submissions for one world.
pub(crate) struct Writer<'a> {
    pub(crate) world: &'a World,
    pub(crate) handle: &'a Handle,
    /// Makes references of one step differ from those of another.
    pub(crate) step: usize,
}

impl Writer<'_> {
    /// One of the clients.
    pub(crate) fn client(&self) -> &'static str {
        CLIENTS[self.world.chance.below(2) as usize]
    }

    /// One of the warehouses.
    pub(crate) fn home(&self) -> PartitionId {
        PartitionId(1 + self.world.chance.below(u64::from(self.world.profile.warehouses)) as u16)
    }

    fn number(&self, client: &str) -> ClientNo {
        self.handle.client(client).expect("the client is registered")
    }

    fn submission(&self, client: &str, home: PartitionId, command: Command) -> Submission {
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        Submission {
            client: self.number(client),
            home,
            key: None,
            command,
            ship_to: None,
            correlation: format!("step-{}", self.step).parse().expect("letters and digits"),
            trace: trace.parse().expect("the standard's own example"),
        }
    }

    /// An order of one to three lines; now and then with an `Idempotency-Key`, or for later.
    pub(crate) fn order(&self, client: &str, home: PartitionId, reference: &str) -> Submission {
        let chance = &self.world.chance;
        let allocation = [Allocation::ShipComplete, Allocation::ShipPartial, Allocation::FillOrKill]
            [chance.below(3) as usize];
        let now = self.world.clock.now();
        let later =
            |c: u64| (chance.below(8) == 0).then(|| now.after(Duration::from_millis(chance.below(c))));
        let lines = (1..=1 + chance.below(3) as u32)
            .map(|line| OrderLine {
                line,
                sku: sku(chance.below(SKUS)),
                quantity: 1 + chance.below(3) as u32,
            })
            .collect();
        let command = Command::Order(OrderCommand {
            reference: reference.parse().expect("a short name"),
            warehouse: None,
            service_level: ["ground", "express"][chance.below(2) as usize].to_owned(),
            allocation,
            priority: Priority(chance.below(10) as u8),
            not_before: later(3_000),
            requested_ship_by: later(60_000),
            lines,
            metadata: BTreeMap::new(),
        });
        let mut order = self.submission(client, home, command);
        order.ship_to = Some(address(client, reference));
        if chance.below(4) == 0 {
            order.key = Some(IdempotencyKey { call: Kind::Order, key: format!("key-{reference}") });
        }
        order
    }

    /// A receipt, an adjustment or a count of some SKU.
    pub(crate) fn movement(&self) -> Submission {
        let chance = &self.world.chance;
        let change = match chance.below(8) {
            0 => Change::Adjustment { delta: 1 + chance.below(3) as i32, reason: AdjustmentReason::Found },
            1 => Change::Adjustment { delta: -1 - chance.below(3) as i32, reason: AdjustmentReason::Lost },
            2 => Change::Count { counted: chance.below(12) as u32 },
            _ => Change::Receipt { quantity: 1 + chance.below(12) as u32 },
        };
        let reference = format!("m{}", self.step);
        self.movement_of(self.client(), self.home(), sku(chance.below(SKUS)), change, &reference)
    }

    /// A move of one SKU.
    pub(crate) fn movement_of(
        &self,
        client: &str,
        home: PartitionId,
        sku: Sku,
        change: Change,
        reference: &str,
    ) -> Submission {
        let command = Command::Move(MoveCommand {
            reference: reference.parse().expect("a short name"),
            warehouse: format!("{home:?}"),
            sku,
            change,
        });
        self.submission(client, home, command)
    }

    /// A request to cancel an order, or its first line.
    pub(crate) fn cancellation(&self, client: &str, order: TransactionId) -> Submission {
        let lines = (self.world.chance.below(3) == 0).then(|| vec![1]);
        let command = Command::Cancellation(CancellationCommand {
            reference: format!("c{}", self.step).parse().expect("a short name"),
            order,
            lines,
        });
        self.submission(client, order.home(), command)
    }
}

/// One of the SKUs.
pub(crate) fn sku(n: u64) -> Sku {
    format!("SKU-{n}").parse().expect("a short name")
}

/// An address that says whose order it belongs to.
pub(crate) fn address(client: &str, reference: &str) -> ShipTo {
    ShipTo {
        name: format!("{client} {reference}"),
        company: None,
        lines: vec!["1 Main St".to_owned()],
        city: "Atlanta".to_owned(),
        region: None,
        postal_code: None,
        country: "US".to_owned(),
        phone: None,
        email: None,
    }
}
