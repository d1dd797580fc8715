//! What all handlers share: the engine, the keys, the catalogue, the bounds.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use actix_web::HttpResponse;
use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use wavegate_engine::domain::command::Kind;
use wavegate_engine::domain::fact::Fact;
use wavegate_engine::domain::ids::{ClientNo, PartitionId, Reference, TransactionId};
use wavegate_engine::engine::Handle;
use wavegate_engine::ports::store::{Lookup, ReadError, StoredTransaction, Tombstone};
use wavegate_engine::wire::requests::Catalogue;

use super::auth::Keys;
use super::events::ticket::Tickets;
use super::pace;
use super::problem::Problem;
use super::shown::ShownDocuments;
use super::status;

/// Batches in hand at once: each may hold its ten megabytes and its trees.
const BATCHES_MAX: usize = 16;

/// Large messages of warehouses in hand at once. Places of their own, so that clients' batches can
/// never keep out what ends the orders before them.
const LARGE_REPORTS_MAX: usize = 16;

/// What is counted of streams.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Streams {
    /// Open ones.
    pub(crate) open: usize,
    /// How many may be.
    pub(crate) max: usize,
    /// How many were cut because they did not keep up, or could not be read.
    pub(crate) cut: u64,
}

type Limiter = RateLimiter<ClientNo, HashMapStateStore<ClientNo>, DefaultClock>;

/// Shared by all workers.
pub(crate) struct State {
    /// The engine.
    pub(crate) engine: Handle,
    /// Who may call.
    pub(crate) keys: Keys,
    /// Which warehouses and services an order may name.
    pub(crate) catalogue: Catalogue,
    /// Bytes of a body.
    pub(crate) body_max: usize,
    /// Bytes of a batch's body.
    pub(crate) batch_body_max: usize,
    /// Status documents that were written before.
    pub(crate) shown: ShownDocuments,
    /// Pages of these origins may call.
    pub(crate) cors_origins: Vec<String>,
    /// Tickets for browsers.
    pub(crate) tickets: Tickets,
    streams: Arc<Semaphore>,
    streams_max: usize,
    streams_cut: AtomicU64,
    retention: Duration,
    drain: CancellationToken,
    limiter: Option<Limiter>,
    batches: Semaphore,
    large_reports: Semaphore,
}

impl State {
    /// Puts the parts together.
    pub(crate) fn new(engine: Handle, keys: Keys, options: &super::HttpOptions) -> State {
        let offers = engine.warehouses().iter().map(|w| (w.code.clone(), w.services.clone())).collect();
        let limiter = |rate: NonZeroU32| RateLimiter::hashmap(Quota::per_second(rate).allow_burst(rate));
        State {
            catalogue: Catalogue::new(offers),
            keys,
            body_max: options.body_max,
            batch_body_max: options.batch_body_max,
            shown: ShownDocuments::new(),
            cors_origins: options.cors_origins.clone(),
            tickets: Tickets::of(engine.store().as_ref(), engine.now()),
            streams: Arc::new(Semaphore::new(options.streams_max)),
            streams_max: options.streams_max,
            streams_cut: AtomicU64::new(0),
            retention: options.retention,
            drain: options.drain.clone(),
            limiter: options.client_rate.map(limiter),
            batches: Semaphore::new(BATCHES_MAX),
            large_reports: Semaphore::new(LARGE_REPORTS_MAX),
            engine,
        }
    }

    /// True from the moment that the process is to end.
    pub(crate) fn is_draining(&self) -> bool {
        self.drain.is_cancelled() || self.engine.is_draining()
    }

    /// Refuses new work once the process is to end.
    pub(crate) fn take_work(&self) -> Result<(), Problem> {
        if self.is_draining() { Err(Problem::Draining) } else { Ok(()) }
    }

    /// Takes one of the places for batches.
    pub(crate) fn take_batch(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.batches.try_acquire().map_err(|_| Problem::Overloaded)
    }

    /// Takes one of the places for streams; it is free again when it is dropped.
    pub(crate) fn take_stream(&self) -> Option<OwnedSemaphorePermit> {
        self.streams.clone().try_acquire_owned().ok()
    }

    /// A stream was cut because it did not keep up, or could not be read.
    pub(crate) fn stream_cut(&self) {
        self.streams_cut.fetch_add(1, Relaxed);
    }

    /// Open streams, how many may be, and how many were cut.
    pub(crate) fn streams(&self) -> Streams {
        Streams {
            open: self.streams_max.saturating_sub(self.streams.available_permits()),
            max: self.streams_max,
            cut: self.streams_cut.load(Relaxed),
        }
    }

    /// Resolves when streams are to end.
    pub(crate) async fn draining(&self) {
        self.drain.cancelled().await;
    }

    /// Takes one of the places for large messages of a warehouse's system.
    pub(crate) fn take_large_report(&self) -> Result<SemaphorePermit<'_>, Problem> {
        self.large_reports.try_acquire().map_err(|_| Problem::Overloaded)
    }

    /// Counts a command against its client's rate. A command that was accepted before accepts
    /// nothing, so it passes at any rate and counts for nothing: a retry must always find out, and
    /// many retries must not keep new work out. Looking first costs a read, and only with a rate.
    pub(crate) async fn take_turn(
        &self,
        client: ClientNo,
        kind: Kind,
        reference: &Reference,
    ) -> Result<(), Problem> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        if let Ok(Some(_)) = self.engine.store().claimed(client, kind, reference.clone()).await {
            return Ok(());
        }
        let Err(refused) = limiter.check_key(&client) else { return Ok(()) };
        let wait = refused.wait_time_from(DefaultClock::default().now());
        Err(Problem::ClientRateLimited(pace::jittered(wait.as_secs() + 1)))
    }

    /// The code of the warehouse that has this partition; empty when it is configured no more.
    pub(crate) fn code_of(&self, partition: PartitionId) -> &str {
        self.engine.warehouses().of(partition).map_or("", |w| &w.code)
    }

    /// Reads a transaction.
    pub(crate) async fn read(&self, id: TransactionId) -> Result<Option<Lookup>, Problem> {
        let lookup = self.engine.store().transaction(id).await.map_err(|e| unreadable(&e))?;
        Ok(lookup.map(|lookup| self.aged(lookup)))
    }

    /// A transaction past its retention as what it will be. The sweep comes by now and then; what a
    /// caller is told must not depend on when it came by last.
    fn aged(&self, lookup: Lookup) -> Lookup {
        match lookup {
            Lookup::Live(transaction) => match self.ended_long_ago(&transaction) {
                Some(tombstone) => Lookup::Expired(Arc::new(tombstone)),
                None => Lookup::Live(transaction),
            },
            Lookup::Expired(tombstone) => Lookup::Expired(tombstone),
        }
    }

    fn ended_long_ago(&self, transaction: &StoredTransaction) -> Option<Tombstone> {
        let (first, last) = (transaction.facts.first()?, transaction.facts.last()?);
        // The age first, for the state is a fold. Nothing follows the fact that ended it.
        if last.at.after(self.retention) >= self.engine.now() || !status::state_of(transaction).is_final() {
            return None;
        }
        let Fact::Accepted(accepted) = &first.fact else { return None };
        Some(Tombstone {
            id: transaction.id,
            client: transaction.client,
            digest: transaction.digest,
            kind: transaction.command.kind(),
            reference: transaction.command.reference().clone(),
            accepted_at: first.at,
            correlation: accepted.correlation.clone(),
        })
    }

    /// Reads a transaction once it is as `enough` wants it, at the end of `bound`, or at once
    /// when the process is to end.
    pub(crate) async fn read_when(
        &self,
        id: TransactionId,
        bound: Duration,
        enough: impl Fn(&Lookup) -> bool + Send,
    ) -> Result<Option<Lookup>, Problem> {
        let lookup = tokio::select! {
            biased;
            read = self.engine.await_transaction(id, bound, enough) => read.map_err(|e| unreadable(&e))?,
            () = self.drain.cancelled() => return self.read(id).await,
        };
        Ok(lookup.map(|lookup| self.aged(lookup)))
    }
}

/// What a failed read is to a caller.
pub(crate) fn unreadable(error: &ReadError) -> Problem {
    match error {
        ReadError::Unavailable(_) => Problem::StoreUnavailable,
        ReadError::Corrupt { what, source } => {
            tracing::error!(what, error = %source, "stored bytes cannot be read");
            Problem::Internal
        }
    }
}

/// A 200 with a JSON body.
pub(crate) fn ok_json(body: &impl serde::Serialize) -> Result<HttpResponse, Problem> {
    let bytes = serde_json::to_vec(body).map_err(|_| Problem::Internal)?;
    Ok(HttpResponse::Ok().content_type("application/json").body(bytes))
}
