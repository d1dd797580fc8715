//! The world's WMS as the engine calls it: slow, silent, deciding late, refusing; it honours release
//! ids, as the contract asks of every WMS. It outlives the node.

use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

use super::books::{Books, Step, Work};
use super::life::Life;
use super::submissions::{CLIENTS, address};
use super::{Planted, World};
use crate::domain::command::Command;
use crate::domain::fact::{Fact, LineUnits, OrderFact};
use crate::domain::ids::{ClientNo, LineNo, PartitionId, ReleaseId, TransactionId};
use crate::ports::BoxFuture;
use crate::ports::entropy::Entropy;
use crate::ports::wms::{
    CancelReply, ManifestOut, ReleaseKnown, ReleaseOut, Sink, Taken, Wave, WaveAnswer, Wms, WmsError,
};

/// The longest silence, in milliseconds.
const SILENCE_MS: u64 = 300_000;
/// Longer than the engine waits for an answer.
const HANGS: Duration = Duration::from_secs(60);

/// The WMS of all warehouses.
pub(crate) struct WorldWms {
    pub(crate) world: Arc<World>,
    pub(crate) books: Mutex<Books>,
    /// The doors of the nodes that it reports to, newest last.
    doors: Mutex<Vec<(Arc<Life>, Sink)>>,
    /// Nobody reaches it before then, and it reaches nobody.
    silent_until: Mutex<Option<Instant>>,
}

/// The face that one warehouse of one life of a node sees.
struct Face {
    wms: Arc<WorldWms>,
    life: Arc<Life>,
}

/// What a call meets.
enum Lot {
    Good,
    /// It is not heard.
    NotHeard,
    /// It is heard, and the answer is lost.
    AnswerLost,
    /// It gets no answer for longer than anybody waits.
    Hangs,
}

impl WorldWms {
    pub(crate) fn new(world: Arc<World>) -> WorldWms {
        WorldWms { world, books: Mutex::default(), doors: Mutex::default(), silent_until: Mutex::default() }
    }

    /// A new life: the doors of the last are gone.
    pub(crate) fn begin_life(&self) {
        self.doors.lock().clear();
    }

    /// The face for one warehouse of a node.
    pub(crate) fn face(self: &Arc<Self>, life: &Arc<Life>, _: PartitionId, sink: Sink) -> Arc<dyn Wms> {
        self.doors.lock().push((life.clone(), sink));
        Arc::new(Face { wms: self.clone(), life: life.clone() })
    }

    /// The newest door of a node that lives.
    pub(crate) fn door(&self) -> Option<Sink> {
        let mut doors = self.doors.lock();
        doors.retain(|(life, _)| !life.is_over());
        doors.last().map(|(_, sink)| sink.clone())
    }

    /// True while it is cut off.
    pub(crate) fn is_silent(&self) -> bool {
        self.world.is_faulty() && self.silent_until.lock().is_some_and(|until| Instant::now() < until)
    }

    fn lot(&self) -> Lot {
        let (world, rate) = (&self.world, self.world.profile.wms_faults);
        if world.strikes(world.profile.silences) {
            world.observer.saw("silences");
            world.note(format_args!("the WMS falls silent"));
            *self.silent_until.lock() = Some(Instant::now() + world.pause(SILENCE_MS));
        }
        if self.is_silent() {
            if world.chance.below(2) == 0 { Lot::Hangs } else { Lot::NotHeard }
        } else if world.strikes(rate) {
            Lot::NotHeard
        } else if world.strikes(rate) {
            Lot::AnswerLost
        } else {
            Lot::Good
        }
    }

    /// Compares what it did with what the engine believes, at rest.
    pub(crate) fn compare(&self) {
        let books = self.books.lock();
        for order in self.world.observer.orders() {
            books.compare(&self.world, &order);
        }
    }

    /// No effect before its commit: what we are asked must be on the disk already.
    fn must_be_committed(&self, id: TransactionId, what: &str, is_it: impl Fn(&OrderFact) -> bool) {
        let committed = self.world.stored(id).is_some_and(|stored| match stored.command {
            Command::Manifest(_) => true,
            Command::Order(_) | Command::Move(_) | Command::Cancellation(_) => {
                stored.facts.iter().any(|f| matches!(&f.fact, Fact::Order(fact) if is_it(fact)))
            }
        });
        if !committed {
            let found = format!("the WMS was asked for {what} of {id} before it was committed");
            self.world.violated("INV-2", found);
        }
    }

    /// An order comes with its own client's name and address, or with none that was erased (INV-8).
    fn must_be_its_own(&self, order: &ReleaseOut) {
        let client = self.world.stored(order.release.order).map(|stored| stored.client);
        let owner = client.and_then(|ClientNo(n)| CLIENTS.get(n as usize - 1)).copied().unwrap_or_default();
        let to = address(owner, &order.reference.to_string());
        if order.owner != owner || order.ship_to.as_ref() != Some(&to) {
            let found =
                format!("{} of {owner} came as {}'s, for {:?}", order.release, order.owner, order.ship_to);
            self.world.violated("INV-8", found);
        }
    }

    /// Whether it will have none of a wave: only where it has taken nothing of it yet.
    fn refuses(&self, wave: &Wave) -> bool {
        let world = &self.world;
        let mut books = self.books.lock();
        let refused = books.refused.contains(&wave.id)
            || (wave.orders.len() > 1
                && !wave.orders.iter().any(|o| books.releases.contains_key(&o.release))
                && world.strikes(world.profile.refusals));
        if refused {
            world.observer.saw("waves refused");
            books.refused.insert(wave.id);
        }
        refused
    }

    fn take(self: &Arc<Self>, wave: &Wave) -> Vec<(ReleaseId, Taken)> {
        let mut results = Vec::new();
        for order in &wave.orders {
            let n = order.release.n;
            let is_it = |f: &OrderFact| matches!(f, OrderFact::Released { n: of, .. } if *of == n);
            self.must_be_committed(order.release.order, "a release", is_it);
            self.must_be_its_own(order);
            results.push((order.release, self.take_one(order)));
        }
        results
    }

    fn take_one(self: &Arc<Self>, order: &ReleaseOut) -> Taken {
        let world = &self.world;
        let lines: LineUnits = order.lines.iter().map(|(line, _, q)| (*line, *q)).collect();
        let mut books = self.books.lock();
        let known = books.releases.get(&order.release).cloned();
        let work = known.clone().unwrap_or_else(|| {
            let step = if world.strikes(world.profile.rejects) { Step::Rejected } else { Step::Taken };
            Work { asked: lines.clone(), lines: lines.clone(), step, packed: LineUnits::new() }
        });
        if work.asked != lines {
            world.violated("INV-2", format!("release {} was sent again with other content", order.release));
        }
        let new = known.is_none() && work.step == Step::Taken;
        if new && world.strikes(world.profile.forgets) {
            // Said to be taken, and forgotten at once.
            world.observer.saw("releases forgotten");
            return Taken::Taken;
        }
        let rejected = work.step == Step::Rejected;
        if rejected {
            world.observer.saw("releases rejected");
        }
        books.releases.insert(order.release, work);
        drop(books);
        if new {
            tokio::task::spawn_local(self.clone().work(order.release));
        }
        if rejected { Taken::Rejected { code: "world".to_owned() } } else { Taken::Taken }
    }

    /// A planted bug: what goes out again goes out under fresh release ids.
    fn renumber(&self, wave: &mut Wave) {
        let again = !self.books.lock().met.insert(wave.id);
        if again && self.world.plants(Planted::DoubleShip, 1_000) {
            wave.orders.iter_mut().for_each(|order| order.release.n += 1_000);
        }
    }
}

/// Waits as long as the call takes; an error when it is not heard.
async fn reach(wms: &WorldWms, life: &Life) -> Result<bool, WmsError> {
    let (pause, lot) = (wms.world.pause(30), wms.lot());
    tokio::time::sleep(pause).await;
    life.go_on().await;
    match lot {
        Lot::Good => Ok(true),
        Lot::AnswerLost => Ok(false),
        Lot::NotHeard => Err(WmsError::Unavailable("the world says no".to_owned())),
        Lot::Hangs => {
            tokio::time::sleep(HANGS).await;
            Err(WmsError::Silent)
        }
    }
}

fn unless_lost<T>(answer: T, is_heard: bool) -> Result<T, WmsError> {
    if is_heard { Ok(answer) } else { Err(WmsError::Silent) }
}

impl Wms for Face {
    fn wave(&self, mut wave: Wave) -> BoxFuture<Result<WaveAnswer, WmsError>> {
        let (wms, life) = (self.wms.clone(), self.life.clone());
        Box::pin(async move {
            let is_heard = reach(&wms, &life).await?;
            if wms.refuses(&wave) {
                return unless_lost(WaveAnswer::Refused, is_heard);
            }
            wms.renumber(&mut wave);
            wms.world.note(format_args!("wave {} arrives", wave.id));
            unless_lost(WaveAnswer::Decided(wms.take(&wave)), is_heard)
        })
    }

    fn cancel(
        &self,
        release: ReleaseId,
        lines: Option<Vec<LineNo>>,
    ) -> BoxFuture<Result<CancelReply, WmsError>> {
        let (wms, life) = (self.wms.clone(), self.life.clone());
        let later = wms.world.strikes(wms.world.profile.pendings);
        Box::pin(async move {
            let is_heard = reach(&wms, &life).await?;
            let is_it = |f: &OrderFact| matches!(f, OrderFact::CancelAsked { .. });
            wms.must_be_committed(release.order, "a cancellation", is_it);
            let known = wms.books.lock().cancellations.contains_key(&(release, lines.clone()));
            let reply = wms.books.lock().cancel(release, lines);
            if !known && later {
                wms.world.observer.saw("cancellations decided later");
                tokio::task::spawn_local(wms.answer_later(release, reply));
                return Ok(CancelReply::Pending);
            }
            unless_lost(reply, is_heard)
        })
    }

    fn release(&self, release: ReleaseId) -> BoxFuture<Result<Option<ReleaseKnown>, WmsError>> {
        let (wms, life) = (self.wms.clone(), self.life.clone());
        Box::pin(async move {
            let is_heard = reach(&wms, &life).await?;
            unless_lost(Some(wms.known(release)), is_heard)
        })
    }

    fn manifest(&self, manifest: ManifestOut) -> BoxFuture<Result<(), WmsError>> {
        let (wms, life) = (self.wms.clone(), self.life.clone());
        Box::pin(async move {
            let is_heard = reach(&wms, &life).await?;
            wms.must_be_committed(manifest.id, "a manifest", |_| false);
            let id = manifest.id;
            let before = wms.books.lock().manifests.insert(id, manifest.clone());
            match before {
                None => {
                    wms.books.lock().loading.insert(id);
                    tokio::task::spawn_local(wms.clone().depart(id));
                }
                Some(before) if before != manifest => {
                    // What departs by itself is on no truck any more; nothing else may change.
                    wms.world.violated("INV-2", format!("manifest {id} was sent again with other content"));
                }
                Some(_) => {}
            }
            unless_lost((), is_heard)
        })
    }
}
