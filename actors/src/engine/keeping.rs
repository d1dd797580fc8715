//! Where actors live, and who starts the root supervisors again when they die.

use actix::{Actor, Addr, Context};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::Threads;
use crate::actors::home::Home;
use crate::actors::house::House;
use crate::actors::site::Node;
use crate::actors::tripwire::Tripwire;
use crate::actors::vitals::Vitals;
use crate::actors::webhooks::Notifier;
use crate::domain::ids::PartitionId;
use crate::ports::background;
use crate::ports::wms::Wms;

/// The places where actors live.
pub(super) fn homes(threads: Threads) -> Vec<Home> {
    match threads {
        Threads::Here => vec![Home::Here],
        Threads::Arbiters(n) => {
            let cores = || std::thread::available_parallelism().map_or(1, usize::from);
            let n = if n == 0 { cores() } else { n };
            let arbiter = |_| {
                let arbiter = actix::Arbiter::new().handle();
                arbiter.spawn_fn(background::stand_back);
                Home::Arbiter(arbiter)
            };
            (0..n).map(arbiter).collect()
        }
    }
}

/// Starts the House, and a fresh one whenever it is gone.
pub(super) fn keep_house(
    node: Arc<Node>,
    homes: Vec<Home>,
    wms: BTreeMap<PartitionId, Arc<dyn Wms>>,
) -> Arc<Mutex<Addr<House>>> {
    let (home, vitals) = (homes[0].clone(), node.house.clone());
    let make = {
        let node = node.clone();
        move |tripwire| House::new(node.clone(), homes.clone(), wms.clone(), tripwire)
    };
    keep("the House", node, home, vitals, make)
}

/// Starts the Notifier, and a fresh one whenever it is gone.
pub(super) fn keep_notifier(node: Arc<Node>, homes: Vec<Home>) -> Arc<Mutex<Addr<Notifier>>> {
    // The House lives in the first place.
    let (home, vitals) = (homes[homes.len() - 1].clone(), node.hooks.notifier.clone());
    let make = {
        let node = node.clone();
        move |tripwire| Notifier::new(node.clone(), homes.clone(), tripwire)
    };
    keep("the Notifier", node, home, vitals, make)
}

/// Starts an actor that has no supervisor among the actors, and a fresh one whenever it is gone.
fn keep<A: Actor<Context = Context<A>>>(
    name: &'static str,
    node: Arc<Node>,
    home: Home,
    vitals: Arc<Vitals>,
    make: impl Fn(Tripwire) -> A + Clone + Send + 'static,
) -> Arc<Mutex<Addr<A>>> {
    let (gone, mut is_gone) = tokio::sync::mpsc::unbounded_channel();
    let start = move || {
        let gone = gone.clone();
        let tripwire = Tripwire::new(move |panicked| {
            // The keeper is gone only when the node is.
            let _ended = gone.send(panicked);
        });
        let make = make.clone();
        home.start(move |_| make(tripwire))
    };
    let addr = Arc::new(Mutex::new(start()));
    let kept = Arc::downgrade(&addr);
    actix_rt::spawn(async move {
        while let Some(panicked) = is_gone.recv().await {
            let Some(addr) = kept.upgrade() else { return };
            if panicked {
                tracing::error!("{name} is gone and starts again");
                vitals.died(panicked, node.now());
                // Under the lock: who tells it something meets the old one before its death is known,
                // or the new one.
                let mut kept = addr.lock();
                *kept = start();
            }
        }
    });
    addr
}
