//! The supervisor of one warehouse's tree. It raises the epoch, reads the records, folds what is
//! open and starts the children; any child's death ends it, and the House builds a fresh tree.

use actix::prelude::*;
use std::time::Duration;

use super::book::{Book, Waits};
use super::careful;
use super::conduct::{Hand, Tree};
use super::gate::Door;
use super::home::Home;
use super::inventory::Inventory;
use super::manifester::Manifester;
use super::pipeline::Pipeline;
use super::promises::Promises;
use super::report::{ActorType, Cause};
use super::site::Site;
use super::tripwire::{Stop, Tripwire};
use super::vitals::Vitals;
use super::wms_link::WmsLink;
use crate::domain::estimate::Pace;
use crate::domain::stock::Ledger;
use crate::ports::faults::FaultPoint;
use crate::ports::store::{CommitError, Fence, PartitionImage, ReadError};

/// A child is gone.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
struct ChildDown {
    child: ActorType,
    panicked: bool,
}

/// Messages that a child takes at a time: the turn asks one thing after the other.
const CHILD_GATE: usize = 1;
/// A store that takes longer to hand over a partition is not there; the House tries again.
const TAKE_WITHIN: Duration = Duration::from_secs(60);

/// Why a tree could not begin.
#[derive(Debug, thiserror::Error)]
enum BeginError {
    #[error("the partition could not be taken")]
    Take(#[from] CommitError),
    #[error("the partition could not be read")]
    Load(#[from] ReadError),
    #[error("the store did not hand over the partition in time")]
    Late,
}

impl BeginError {
    fn cause(&self) -> Cause {
        match self {
            BeginError::Take(why) => why.into(),
            BeginError::Load(_) | BeginError::Late => Cause::Unreadable,
        }
    }
}

/// The actor.
pub(crate) struct Warehouse {
    site: Site,
    home: Home,
    epoch: u64,
    pipeline: Option<Addr<Pipeline>>,
    tree: Option<Tree>,
    /// True once a child is gone: the others follow it, and are not the cause.
    bereft: bool,
    _tripwire: Tripwire,
}

impl Warehouse {
    pub(crate) fn new(site: Site, home: Home, tripwire: Tripwire) -> Warehouse {
        Warehouse { site, home, epoch: 0, pipeline: None, tree: None, bereft: false, _tripwire: tripwire }
    }

    fn begin(&mut self, fence: Fence, image: &PartitionImage, ctx: &mut Context<Self>) {
        let rules = &self.site.node.rules;
        let waits = Waits {
            backorder_max: rules.backorder_max_wait,
            give_up_after: rules.wms_give_up_after,
            silent_after: rules.wms_silent_after,
        };
        let (mut book, aside) = Book::restore(image, waits);
        // As if they had changed now: the owner before may just have told of them.
        image.untold.iter().for_each(|key| book.untold.changed(key, self.site.node.now()));
        book.pace = Pace::new(rules.outcomes_min);
        book.promises = Promises::restore(&image.promises, self.site.node.now());
        let replaced: Vec<_> =
            aside.positions.iter().map(|(key, position, _)| (key.clone(), *position)).collect();
        replaced.iter().for_each(|(key, _)| book.untold.changed(key, self.site.node.now()));
        let mut ledger = Ledger::new(image.positions.iter().cloned().chain(replaced));
        for open in book.orders() {
            ledger.remember(open.client, open.order.waiting());
        }
        self.epoch = fence.epoch;
        let inventory =
            self.child(ctx, ActorType::Inventory, move |site, wire| Inventory::new(site, ledger, wire));
        let wms = self.child(ctx, ActorType::WmsLink, WmsLink::new);
        let manifester = self.child(ctx, ActorType::Manifester, Manifester::new);
        let tree = Tree {
            inventory: Door::new(inventory, CHILD_GATE, self.vitals(ActorType::Inventory)),
            wms: Door::new(wms, CHILD_GATE, self.vitals(ActorType::WmsLink)),
            manifester: Door::new(manifester, CHILD_GATE, self.vitals(ActorType::Manifester)),
        };
        self.tree = Some(tree.clone());
        let hand = Hand::new(book, aside, image.trouble.clone());
        let start = move |site, wire| Pipeline::new(site, fence, tree, hand, wire);
        self.pipeline = Some(self.child(ctx, ActorType::Pipeline, start));
        tracing::info!(warehouse = %self.site.warehouse.code, epoch = fence.epoch, open = image.open.len(), "the warehouse's tree runs");
    }

    /// What is counted of itself or of a child.
    fn vitals(&self, actor: ActorType) -> &Vitals {
        let vitals = self.site.desk.vitals();
        match actor {
            ActorType::Pipeline => &vitals.pipeline,
            ActorType::Inventory => &vitals.inventory,
            ActorType::WmsLink => &vitals.wms_link,
            ActorType::Manifester => &vitals.manifester,
            // The others are no children of a Warehouse.
            ActorType::Warehouse
            | ActorType::House
            | ActorType::Ingestion
            | ActorType::FeedHub
            | ActorType::Notifier
            | ActorType::Endpoint => &vitals.warehouse,
        }
    }

    /// Starts a child with a wire that reports its end, whatever the cause.
    fn child<A, F>(&self, ctx: &mut Context<Self>, child: ActorType, make: F) -> Addr<A>
    where
        A: Actor<Context = Context<A>>,
        F: FnOnce(Site, Tripwire) -> A + Send + 'static,
    {
        self.vitals(child).begins();
        let supervisor = ctx.address().recipient::<ChildDown>();
        let tripwire = Tripwire::new(move |panicked| supervisor.do_send(ChildDown { child, panicked }));
        let site = self.site.clone();
        self.home.start(move |_| make(site, tripwire))
    }
}

async fn take(site: Site, nonce: u64) -> Result<(Fence, PartitionImage), BeginError> {
    let taking = async {
        let fence = site.node.store.take(site.partition(), nonce).await?.wait().await?;
        let image = site.node.store.load(fence).await?;
        Ok((fence, image))
    };
    let taken = tokio::time::timeout(TAKE_WITHIN, taking).await.unwrap_or(Err(BeginError::Late));
    let (fence, mut image) = taken?;
    if site.desk.take_excuse() {
        image.trouble.excuse();
    }
    if image.trouble.is_grave() {
        careful::try_folds(&site, fence, &mut image).await?;
    }
    Ok((fence, image))
}

impl Actor for Warehouse {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        let _handling = self.site.desk.vitals().warehouse.handle();
        self.site.strike(FaultPoint::Warehouse);
        let token = self.site.token.clone();
        ctx.spawn(async move { token.cancelled().await }.into_actor(self).map(|(), _, ctx| ctx.stop()));
        let taking = take(self.site.clone(), self.site.node.entropy.next());
        ctx.spawn(taking.into_actor(self).map(|taken, warehouse, ctx| {
            let _handling = warehouse.site.desk.vitals().warehouse.handle();
            warehouse.site.strike(FaultPoint::WarehouseTaken);
            let begun = taken.map(|(fence, image)| warehouse.begin(fence, &image, ctx));
            if let Err(why) = begun {
                warehouse.site.desk.excuse();
                let source = std::error::Error::source(&why).map(ToString::to_string);
                tracing::error!(warehouse = %warehouse.site.warehouse.code, %why, source, "the warehouse's tree cannot begin");
                warehouse.vitals(ActorType::Warehouse).foretell(why.cause(), None);
                ctx.stop();
            }
        }));
    }
}

impl Handler<ChildDown> for Warehouse {
    type Result = ();

    fn handle(&mut self, ChildDown { child, panicked }: ChildDown, ctx: &mut Self::Context) {
        let _handling = self.site.desk.vitals().warehouse.handle();
        self.site.strike(FaultPoint::WarehouseChildDown);
        let in_hand = self.site.in_hand.lock().filter(|_| panicked && child == ActorType::Pipeline);
        if let Some(order) = in_hand {
            self.site.desk.blame(order, self.site.node.now());
        }
        if std::mem::replace(&mut self.bereft, true) {
            return;
        }
        let cause = self.vitals(child).died(panicked, self.site.node.now());
        self.vitals(ActorType::Warehouse).foretell(cause, Some(child));
        let (child, cause) = (child.as_str(), cause.as_str());
        let in_hand = in_hand.map(tracing::field::display);
        tracing::warn!(warehouse = %self.site.warehouse.code, child, cause, transaction_id = in_hand, "an actor is gone: its tree is dropped");
        ctx.stop();
    }
}

impl Handler<Stop> for Warehouse {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        ctx.stop();
    }
}

impl Drop for Warehouse {
    fn drop(&mut self) {
        // Effects look at the token first, so from here on the old tree does nothing any more.
        self.site.token.cancel();
        self.site.desk.owner_gone(self.epoch);
        if let Some(pipeline) = self.pipeline.take() {
            pipeline.do_send(Stop);
        }
        if let Some(tree) = self.tree.take() {
            tree.manifester.addr().do_send(Stop);
            tree.wms.addr().do_send(Stop);
            tree.inventory.addr().do_send(Stop);
        }
    }
}
