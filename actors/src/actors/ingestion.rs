//! Takes commands in: stamps them, hands them to the store, says what became of them. It waits for
//! nothing but durability, and never asks a tree.

use actix::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::gate::Gated;
use super::site::Node;
use super::tripwire::Tripwire;
use super::vitals::Vitals;
use crate::actors::options::{Submission, Submitted};
use crate::domain::fact::{Accepted, Fact, Recorded};
use crate::domain::ids::{ClientNo, PartitionId};
use crate::ports::faults::FaultPoint;
use crate::ports::store::{CommitError, NewCommand, Verdict};
use crate::store::format;

/// Commands that arrived together.
#[derive(Debug, Message)]
#[rtype(result = "Vec<Submitted>")]
pub(crate) struct Submit(pub(crate) Vec<Submission>);

/// The actor: one for each thread that serves HTTP.
pub(crate) struct Ingestion {
    node: Arc<Node>,
    vitals: Arc<Vitals>,
    _tripwire: Tripwire,
}

impl Ingestion {
    pub(crate) fn new(node: Arc<Node>, vitals: Arc<Vitals>) -> Ingestion {
        let (counts, clock) = (vitals.clone(), node.clock.clone());
        let tripwire = Tripwire::new(move |panicked| {
            // Otherwise its thread has ended, and with it who it worked for.
            if panicked {
                counts.died(panicked, clock.now());
            }
        });
        Ingestion { node, vitals, _tripwire: tripwire }
    }

    fn stamp(&self, submission: Submission) -> NewCommand {
        let Submission { client, home, key, command, ship_to, correlation, trace } = submission;
        let at = self.node.now();
        let backlog_max = self.node.warehouses.of(home).map_or(0, |w| w.backlog_max);
        NewCommand {
            id: self.node.new_id(home),
            client,
            key,
            digest: format::digest(&command, ship_to.as_ref()),
            command,
            ship_to,
            accepted: Recorded { at, fact: Fact::Accepted(Accepted { correlation, trace }) },
            backlog_max,
        }
    }
}

impl Actor for Ingestion {
    type Context = Context<Self>;
}

impl Handler<Gated<Submit>> for Ingestion {
    type Result = ResponseFuture<Vec<Submitted>>;

    fn handle(&mut self, gated: Gated<Submit>, _: &mut Self::Context) -> Self::Result {
        let handling = self.vitals.handle();
        self.node.faults.strike(FaultPoint::Ingestion, None);
        let Gated { message: Submit(batch), permit } = gated;
        let commands: Vec<NewCommand> = batch.into_iter().map(|s| self.stamp(s)).collect();
        let stamps: Vec<_> =
            commands.iter().map(|c| (c.id, c.accepted.at, c.command.kind(), c.client)).collect();
        let accepting = self.node.store.accept(commands);
        let node = self.node.clone();
        drop(handling);
        Box::pin(async move {
            let written = accepting.await;
            let verdicts = written.reply;
            let outcome = written.durable.await;
            // A place behind the gate is taken until the answer is known.
            drop(permit);
            let mut written: BTreeMap<PartitionId, BTreeSet<ClientNo>> = BTreeMap::new();
            let submitted = verdicts
                .into_iter()
                .zip(stamps)
                .map(|(verdict, (own, at, kind, client))| {
                    let verdict = durably(verdict, &outcome);
                    node.tallies.judged(kind, verdict.into());
                    let id = match verdict {
                        Verdict::New => Some(own),
                        Verdict::Replay(id) | Verdict::ReferenceConflict(id) => Some(id),
                        Verdict::KeyReused
                        | Verdict::BacklogFull
                        | Verdict::StoreFull
                        | Verdict::Unavailable
                        | Verdict::Unknown => None,
                    };
                    if matches!(verdict, Verdict::New | Verdict::Unknown) {
                        written.entry(own.home()).or_default().insert(client);
                    }
                    Submitted { verdict, id, at }
                })
                .collect();
            for (home, clients) in written {
                node.wrote(home, true, [].into_iter(), clients.iter().copied());
            }
            submitted
        })
    }
}

/// A verdict that says "it is there" stands only when it is durable.
fn durably(verdict: Verdict, outcome: &Result<(), CommitError>) -> Verdict {
    let Err(why) = outcome else { return verdict };
    match verdict {
        Verdict::New | Verdict::Replay(_) | Verdict::ReferenceConflict(_) | Verdict::Unknown => match why {
            CommitError::Unknown(_) => Verdict::Unknown,
            CommitError::Conflict | CommitError::Unavailable(_) => Verdict::Unavailable,
            CommitError::Full => Verdict::StoreFull,
        },
        Verdict::KeyReused | Verdict::BacklogFull | Verdict::StoreFull | Verdict::Unavailable => verdict,
    }
}
