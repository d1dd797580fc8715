//! Facts in words: the `detail` of a history item, and the exceptions of a document.

use super::status::ExceptionItem;
use super::time::WireTime;
use crate::domain::fact::{
    CancelCause, CancellationFact, ExceptionCode, Fact, FailedCause, LineUnits, ManifestFact, MissingCause,
    MoveFact, OrderFact, Recorded, RefusedCause, Units,
};
use crate::domain::ids::{LineNo, Quantity};

/// What happened, short and for a human.
pub(super) fn detail(fact: &Fact) -> String {
    match fact {
        Fact::Accepted(_) => "accepted".to_owned(),
        Fact::Order(fact) => order(fact),
        Fact::Move(MoveFact::Applied) => "the stock was changed".to_owned(),
        Fact::Move(MoveFact::Replenished { cleared }) => format!("arrived, and {cleared} suspect cleared"),
        Fact::Move(MoveFact::Counted { delta, cleared }) => {
            format!("counted: {delta:+} on hand, {cleared} suspect cleared")
        }
        Fact::Move(MoveFact::Rejected) => "the position would leave its range".to_owned(),
        Fact::Cancellation(CancellationFact::Applied { lines }) => format!("{} cancelled", sum(lines)),
        Fact::Cancellation(CancellationFact::Rejected) => "nothing could be cancelled any more".to_owned(),
        Fact::Manifest(ManifestFact::Closed { cartons }) => {
            format!("closed with {}", count(*cartons, "carton"))
        }
        Fact::Manifest(ManifestFact::Departed) => "left with its carrier".to_owned(),
    }
}

fn order(fact: &OrderFact) -> String {
    match fact {
        OrderFact::Allocated { units: Units::Whole } => "stock reserved for all that was wanted".to_owned(),
        OrderFact::Allocated { units: Units::Lines(units) } => {
            format!("stock reserved for {}, the rest waits", sum(units))
        }
        OrderFact::Backordered => "waits for stock".to_owned(),
        OrderFact::Released { n, wave, units: _ } => format!("release {n} sent in wave {wave}"),
        OrderFact::Picking { n, picked } if picked.is_empty() => format!("picking of release {n} began"),
        OrderFact::Picking { n, picked } => format!("{} of release {n} picked", sum(picked)),
        OrderFact::Packed { n, picked: _, cartons, carrier: _ } => {
            let cartons = u32::try_from(cartons.len()).unwrap_or(u32::MAX);
            format!("{} of release {n} packed", count(cartons, "carton"))
        }
        OrderFact::Missing { n, cause, units } => {
            format!("{} of release {n} {}", sum(units), missing(*cause))
        }
        OrderFact::Manifested { manifest, cartons } => {
            let cartons = u32::try_from(cartons.len()).unwrap_or(u32::MAX);
            format!("{} on manifest {manifest}", count(cartons, "carton"))
        }
        OrderFact::Shipped { manifest } => format!("left with manifest {manifest}"),
        OrderFact::CancelAsked { request, releases: _, lines: _ } => {
            format!("the warehouse was asked to cancel, by {request}")
        }
        OrderFact::CancelWithdrawn { request, n } => {
            format!("too late to cancel release {n}, asked by {request}")
        }
        OrderFact::Cancelled { cause: CancelCause::Request(request), release: _, units } => {
            format!("{} cancelled by {request}", sum(units))
        }
        OrderFact::Cancelled { cause: CancelCause::Missing, release: _, units } => {
            format!("{} cancelled, missing at the pick", sum(units))
        }
        OrderFact::Refused { cause: RefusedCause::InsufficientStock, units: _ } => {
            "refused: not all of it was in stock".to_owned()
        }
        OrderFact::Refused { cause: RefusedCause::BackorderExpired, units: _ } => {
            "what waited for stock was given up".to_owned()
        }
        OrderFact::Exception { code, lines: _ } => exception(*code).to_owned(),
        OrderFact::Failed { cause: FailedCause::WmsRejected, release: _ } => {
            "the warehouse refuses it: an operator must look".to_owned()
        }
        OrderFact::Failed { cause: FailedCause::WmsUnreachable, release: _ } => {
            "the warehouse does not answer: an operator must look".to_owned()
        }
        OrderFact::Failed { cause: FailedCause::Crashed, release: _ } => {
            "it crashed the warehouse's work again and again: an operator must look".to_owned()
        }
        OrderFact::Failed { cause: FailedCause::TooLong, release: _ } => {
            "it has as many facts as an order may have: an operator must look".to_owned()
        }
        OrderFact::Failed { cause: FailedCause::Unreadable, release: _ } => {
            "what the warehouse needs of it cannot be read: an operator must look".to_owned()
        }
        OrderFact::Redriven => "goes on".to_owned(),
        OrderFact::GivenUp => "given up by an operator".to_owned(),
        OrderFact::ShippedAlone { n, cartons } => {
            let cartons = u32::try_from(cartons.len()).unwrap_or(u32::MAX);
            format!("{} of release {n} left", count(cartons, "carton"))
        }
    }
}

/// The exceptions that a fact stands for, one a line; of the whole order without a line.
pub(super) fn exceptions(recorded: &Recorded) -> Vec<ExceptionItem> {
    let at = WireTime(recorded.at);
    let item = |code, detail: String, line| ExceptionItem { code, detail, at, line };
    match &recorded.fact {
        Fact::Order(OrderFact::Exception { code, lines }) => {
            let item = |line: Option<LineNo>| item(code.as_str(), exception(*code).to_owned(), line);
            if lines.is_empty() { vec![item(None)] } else { lines.iter().map(|l| item(Some(*l))).collect() }
        }
        Fact::Order(OrderFact::Missing { n: _, cause, units }) => units
            .iter()
            .map(|&(line, quantity)| {
                item(cause.as_str(), format!("{} {}", count(quantity, "unit"), missing(*cause)), Some(line))
            })
            .collect(),
        Fact::Cancellation(CancellationFact::Rejected) => {
            vec![item("too_late_to_cancel", "nothing could be cancelled any more".to_owned(), None)]
        }
        Fact::Order(
            OrderFact::Allocated { .. }
            | OrderFact::Backordered
            | OrderFact::Released { .. }
            | OrderFact::Picking { .. }
            | OrderFact::Packed { .. }
            | OrderFact::Manifested { .. }
            | OrderFact::Shipped { .. }
            | OrderFact::CancelAsked { .. }
            | OrderFact::CancelWithdrawn { .. }
            | OrderFact::Cancelled { .. }
            | OrderFact::Refused { .. }
            | OrderFact::Failed { .. }
            | OrderFact::Redriven
            | OrderFact::GivenUp
            | OrderFact::ShippedAlone { .. },
        )
        | Fact::Accepted(_)
        | Fact::Move(_)
        | Fact::Cancellation(CancellationFact::Applied { .. })
        | Fact::Manifest(_) => Vec::new(),
    }
}

fn exception(code: ExceptionCode) -> &'static str {
    match code {
        ExceptionCode::InsufficientStock => "not enough stock",
        ExceptionCode::UnknownSku => "this SKU was never received in this warehouse",
        ExceptionCode::CutOffMissed => "the requested time to ship by cannot be met",
        ExceptionCode::WmsRejected => "the warehouse refuses the release",
        ExceptionCode::BackorderExpired => "the wait for stock went past its bound",
        ExceptionCode::WmsUnreachable => "the warehouse's WMS has not answered for too long",
        ExceptionCode::CrashedPipeline => "it could not be worked, and is kept aside",
    }
}

fn missing(cause: MissingCause) -> &'static str {
    match cause {
        MissingCause::ShortPick => "not found in their place",
        MissingCause::Damaged => "found damaged",
    }
}

fn sum(units: &LineUnits) -> String {
    let sum: Quantity = units.iter().map(|(_, quantity)| quantity).sum();
    count(sum, "unit")
}

fn count(n: u32, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}
