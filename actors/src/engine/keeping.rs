//! Where actors live, and who starts the House again when it dies.

use actix::Addr;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::Threads;
use crate::actors::home::Home;
use crate::actors::house::House;
use crate::actors::site::Node;
use crate::actors::tripwire::Tripwire;
use crate::domain::ids::PartitionId;
use crate::ports::wms::Wms;

/// The places where actors live.
pub(super) fn homes(threads: Threads) -> Vec<Home> {
    match threads {
        Threads::Here => vec![Home::Here],
        Threads::Arbiters(n) => {
            let cores = || std::thread::available_parallelism().map_or(1, usize::from);
            let n = if n == 0 { cores() } else { n };
            (0..n).map(|_| Home::Arbiter(actix::Arbiter::new().handle())).collect()
        }
    }
}

/// Starts the House, and a fresh one whenever it is gone: it is the one actor without a supervisor
/// among the actors.
pub(super) fn keep_house(
    node: Arc<Node>,
    homes: Vec<Home>,
    wms: BTreeMap<PartitionId, Arc<dyn Wms>>,
) -> Arc<Mutex<Addr<House>>> {
    let (gone, mut is_gone) = tokio::sync::mpsc::unbounded_channel();
    let home = homes[0].clone();
    let (vitals, clock) = (node.house.clone(), node.clock.clone());
    let start = move || {
        let gone = gone.clone();
        let tripwire = Tripwire::new(move |panicked| {
            // The keeper is gone only when the node is.
            let _ended = gone.send(panicked);
        });
        let (node, homes, wms) = (node.clone(), homes.clone(), wms.clone());
        home.start(move |_| House::new(node, homes, wms, tripwire))
    };
    let house = Arc::new(Mutex::new(start()));
    let kept = Arc::downgrade(&house);
    actix_rt::spawn(async move {
        while let Some(panicked) = is_gone.recv().await {
            let Some(house) = kept.upgrade() else { return };
            if panicked {
                tracing::error!("the House is gone and starts again");
                vitals.died(panicked, clock.now());
                // Under the lock: who tells the House something meets the old one before its death is
                // known, or the new one.
                let mut kept = house.lock();
                *kept = start();
            }
        }
    });
    house
}
