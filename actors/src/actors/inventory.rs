//! Reservation: owns the stock ledger and the ranks of those that wait. Asked once a turn.

use actix::prelude::*;

use super::gate::Gated;
use super::report::Observed;
use super::site::Site;
use super::tripwire::{Stop, Tripwire};
use crate::domain::command::Change;
use crate::domain::fact::MoveFact;
use crate::domain::ids::{ClientNo, Sku, TransactionId};
use crate::domain::order::Footprint;
use crate::domain::stock::{Ledger, Placement, Position, StockKey, Want};
use crate::ports::faults::FaultPoint;

/// One turn's work on the ledger, done in the order of the fields.
#[derive(Debug, Default, Message)]
#[rtype(result = "StockAnswer")]
pub(crate) struct StockTurn {
    /// What orders' facts did, as footprints before and after.
    pub(crate) booked: Vec<(ClientNo, Vec<Footprint>, Vec<Footprint>)>,
    /// Orders to take out of the ranks.
    pub(crate) forget: Vec<TransactionId>,
    /// Waits to put into the ranks as they are; positions count them already.
    pub(crate) remember: Vec<(ClientNo, Want)>,
    /// Moves to book.
    pub(crate) moves: Vec<StockMove>,
    /// Orders that want units, in the order they are served after those that wait.
    pub(crate) wants: Vec<(ClientNo, Want)>,
}

impl StockTurn {
    pub(crate) fn is_empty(&self) -> bool {
        let StockTurn { booked, forget, remember, moves, wants } = self;
        booked.is_empty() && forget.is_empty() && remember.is_empty() && moves.is_empty() && wants.is_empty()
    }
}

/// A move to book.
#[derive(Debug)]
pub(crate) struct StockMove {
    /// The move.
    pub(crate) id: TransactionId,
    pub(crate) client: ClientNo,
    pub(crate) sku: Sku,
    pub(crate) change: Change,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct StockAnswer {
    /// What the moves did.
    pub(crate) moves: Vec<(TransactionId, ClientNo, MoveFact)>,
    /// What orders got, or did not.
    pub(crate) placements: Vec<Placement>,
    /// Every position that changed, as it is now.
    pub(crate) positions: Vec<(StockKey, Position)>,
}

/// The actor.
pub(crate) struct Inventory {
    site: Site,
    ledger: Ledger,
    _tripwire: Tripwire,
}

impl Inventory {
    pub(crate) fn new(site: Site, ledger: Ledger, tripwire: Tripwire) -> Inventory {
        Inventory { site, ledger, _tripwire: tripwire }
    }
}

impl Actor for Inventory {
    type Context = Context<Self>;
}

impl Handler<Stop> for Inventory {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Handler<Gated<StockTurn>> for Inventory {
    type Result = MessageResult<Gated<StockTurn>>;

    fn handle(&mut self, gated: Gated<StockTurn>, _: &mut Self::Context) -> Self::Result {
        let vitals = &self.site.desk.vitals().inventory;
        let _handling = vitals.handle();
        self.site.strike(FaultPoint::Inventory);
        let answer = work(&mut self.ledger, gated.message);
        vitals.show(Observed::Inventory { positions: self.ledger.len(), waiting: self.ledger.waiting() });
        drop(gated.permit);
        MessageResult(answer)
    }
}

fn work(ledger: &mut Ledger, turn: StockTurn) -> StockAnswer {
    for (client, before, after) in &turn.booked {
        ledger.book(*client, before, after);
    }
    for order in turn.forget {
        ledger.forget(order);
    }
    for (client, want) in turn.remember {
        ledger.remember(client, want);
    }
    let mut answer = StockAnswer::default();
    for StockMove { id, client, sku, change } in turn.moves {
        let fact = ledger.shift((client, sku), change).unwrap_or(MoveFact::Rejected);
        answer.moves.push((id, client, fact));
    }
    answer.placements = ledger.offer();
    for (client, want) in turn.wants {
        answer.placements.push(ledger.reserve(client, want));
    }
    answer.positions = ledger.take_changed();
    answer
}
