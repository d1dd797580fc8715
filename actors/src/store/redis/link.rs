//! Connections to Redis: one for writes, one for reads. A connection is used only after it was asked
//! what Redis it leads to: whether its settings give the durability that a 202 promises, and whether
//! it holds this store and no other. It must never send a write twice.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value, cmd};
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;
use uuid::Uuid;

use super::replies::{bytes, list};
use super::server::{Doubt, check_settings, run_id};
use crate::ports::store::{CommitError, ReadError};
use crate::store::format;
use crate::store::keys;
use crate::store::redis::place::Slot;
use crate::store::rows::RowError;

/// No answer by then is an unknown outcome: a client is to have its 503 within two seconds, which may
/// wait for one call that is lost and one attempt to connect.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(750);

/// No connection by then is none.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// After a failed attempt to connect nobody tries again for this long.
const PAUSE: Duration = Duration::from_millis(200);

/// The scripts. Their place here is their number.
const SOURCES: [&str; 10] = [
    include_str!("lua/apply.lua"),
    include_str!("lua/append.lua"),
    include_str!("lua/void.lua"),
    include_str!("lua/unclaim.lua"),
    include_str!("lua/relay.lua"),
    include_str!("lua/add_key.lua"),
    include_str!("lua/evict.lua"),
    include_str!("lua/renew.lua"),
    include_str!("lua/assign.lua"),
    include_str!("lua/leave.lua"),
];

/// One of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lua {
    Apply,
    Append,
    Void,
    Unclaim,
    Relay,
    AddKey,
    Evict,
    Renew,
    Assign,
    Leave,
}

/// A script with its keys, all of one slot, and its arguments.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) lua: Lua,
    pub(super) keys: Vec<Vec<u8>>,
    pub(super) args: Vec<Vec<u8>>,
}

/// A call that did not go through.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum LinkError {
    /// It was not sent: there is no connection.
    #[error("there is no connection to redis")]
    Apart(#[source] Arc<RedisError>),
    /// It was not sent: Redis is not what the store needs.
    #[error(transparent)]
    Unfit(Arc<Doubt>),
    /// Redis refused it and did nothing.
    #[error("redis refused it")]
    Refused(#[source] Arc<RedisError>),
    /// Redis has no memory left, and did nothing.
    #[error("redis has no memory left")]
    Full,
    /// It was sent, and there was no answer.
    #[error("redis did not answer")]
    Unknown(#[source] Arc<RedisError>),
}

impl From<LinkError> for CommitError {
    fn from(e: LinkError) -> Self {
        match e {
            LinkError::Full => CommitError::Full,
            LinkError::Unknown(_) => CommitError::Unknown(Arc::new(e)),
            LinkError::Apart(_) | LinkError::Unfit(_) | LinkError::Refused(_) => {
                CommitError::Unavailable(Arc::new(e))
            }
        }
    }
}

impl From<LinkError> for ReadError {
    fn from(e: LinkError) -> Self {
        ReadError::Unavailable(Arc::new(e))
    }
}

impl From<LinkError> for RowError {
    fn from(e: LinkError) -> Self {
        RowError::Backend(Arc::new(e))
    }
}

/// What both connections share.
pub(super) struct Shared {
    pub(super) client: Client,
    /// Take Redis' durability for given.
    pub(super) assume_durability: bool,
    /// Whose rows it must hold, once that is known.
    pub(super) store: parking_lot::Mutex<Option<Uuid>>,
    /// How the last call found Redis.
    pub(super) standing: parking_lot::Mutex<Standing>,
    /// The run of Redis that is known to have all that was accepted: no other is used. `None`: any.
    pub(super) run: parking_lot::Mutex<Option<String>>,
    /// Told when another run is met.
    pub(super) behind: Notify,
    /// Says nothing of what it finds: others do.
    pub(super) is_quiet: bool,
}

/// How a Redis was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It answers.
    Well,
    /// It does not answer.
    Apart,
    /// It answers, and is not what the store needs.
    Unfit,
}

impl Shared {
    /// Says once when it changes.
    fn found(&self, standing: Standing, why: &dyn std::error::Error) {
        if self.is_quiet || std::mem::replace(&mut *self.standing.lock(), standing) == standing {
            return;
        }
        let (redis, why) = (self.client.get_connection_info().addr(), with_causes(why));
        match standing {
            Standing::Well => {}
            Standing::Apart => {
                tracing::error!(%redis, why, "redis does not answer; nothing is accepted until it does")
            }
            Standing::Unfit => {
                tracing::error!(%redis, why, "redis cannot be used; nothing is accepted until it can")
            }
        }
    }

    /// Whether a run may be used; who looks after the receipts hears of one that may not.
    fn check_run(&self, run: &str) -> Result<(), LinkError> {
        if self.run.lock().as_deref().is_none_or(|known| known == run) {
            return Ok(());
        }
        self.behind.notify_one();
        Err(LinkError::Unfit(Arc::new(Doubt::Behind)))
    }

    fn found_well(&self) {
        if !self.is_quiet && std::mem::replace(&mut *self.standing.lock(), Standing::Well) != Standing::Well {
            tracing::info!(redis = %self.client.get_connection_info().addr(), "redis answers again");
        }
    }
}

/// One connection, made anew when it breaks.
pub(super) struct Link {
    pub(super) shared: Arc<Shared>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    connected: Option<Connected>,
    generation: u64,
    failed: Option<(Instant, LinkError)>,
}

#[derive(Clone)]
struct Connected {
    generation: u64,
    connection: MultiplexedConnection,
    scripts: Arc<Vec<Vec<u8>>>,
    run: Arc<str>,
}

impl Link {
    /// Not connected yet.
    pub(super) fn new(shared: Arc<Shared>) -> Link {
        Link { shared, state: Mutex::default() }
    }

    /// Reads: commands in one round trip, and again when the connection turns out to be broken.
    pub(super) async fn ask(&self, commands: &Pipeline) -> Result<Vec<Value>, LinkError> {
        match self.write(commands).await {
            Err(LinkError::Unknown(e)) if e.is_connection_dropped() => self.write(commands).await,
            answer => answer,
        }
    }

    /// Commands that write, in one round trip.
    pub(super) async fn write(&self, commands: &Pipeline) -> Result<Vec<Value>, LinkError> {
        if commands.is_empty() {
            return Ok(Vec::new());
        }
        let mut connected = self.connected().await?;
        let answer = commands.query_async::<Vec<Value>>(&mut connected.connection).await;
        self.judged(answer, connected.generation).await
    }

    /// Runs scripts in order, in one round trip. Each has an answer of its own; an error of the whole is
    /// that of each.
    pub(super) async fn run(&self, calls: &[Call]) -> Result<Vec<Result<Value, LinkError>>, LinkError> {
        if calls.is_empty() {
            return Ok(Vec::new());
        }
        let mut answers = self.run_once(calls).await?;
        let unknown: Vec<usize> = (0..answers.len()).filter(|i| is_no_script(&answers[*i])).collect();
        if !unknown.is_empty() {
            // Somebody flushed the scripts: they were not run, and a new connection loads them.
            self.forget(None).await;
            let again: Vec<Call> = unknown.iter().map(|i| calls[*i].clone()).collect();
            for (i, answer) in unknown.into_iter().zip(self.run_once(&again).await?) {
                answers[i] = answer;
            }
        }
        Ok(answers)
    }

    async fn run_once(&self, calls: &[Call]) -> Result<Vec<Result<Value, LinkError>>, LinkError> {
        let mut connected = self.connected().await?;
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for call in calls {
            let command = pipeline.cmd("EVALSHA");
            command.arg(&connected.scripts[call.lua as usize]).arg(call.keys.len());
            call.keys.iter().chain(&call.args).for_each(|arg| {
                command.arg(arg);
            });
        }
        let answer = pipeline.query_async::<Vec<Result<Value, RedisError>>>(&mut connected.connection).await;
        let answers = self.judged(answer, connected.generation).await?;
        Ok(answers.into_iter().map(|answer| answer.map_err(refused)).collect())
    }

    async fn judged<T>(&self, answer: Result<T, RedisError>, generation: u64) -> Result<T, LinkError> {
        match answer {
            Ok(answer) => {
                self.shared.found_well();
                Ok(answer)
            }
            Err(e) if is_reply(&e) => Err(refused(e)),
            Err(e) => {
                // A late answer on this connection is nobody's; calls that still wait keep it.
                self.forget(Some(generation)).await;
                self.shared.found(Standing::Apart, &e);
                Err(LinkError::Unknown(Arc::new(e)))
            }
        }
    }

    /// Gives up the connection: all of them, or the one of this number.
    pub(super) async fn forget(&self, generation: Option<u64>) {
        let mut state = self.state.lock().await;
        let current = state.connected.as_ref().map(|c| c.generation);
        if generation.is_none() || current == generation {
            state.connected = None;
        }
    }

    async fn connected(&self) -> Result<Connected, LinkError> {
        let mut state = self.state.lock().await;
        if let Some(connected) = &state.connected {
            return Ok(connected.clone());
        }
        if let Some((at, e)) = &state.failed
            && at.elapsed() < PAUSE
        {
            return Err(e.clone());
        }
        match self.connect().await {
            Ok(connected) => {
                state.generation += 1;
                let connected = Connected { generation: state.generation, ..connected };
                state.connected = Some(connected.clone());
                state.failed = None;
                self.shared.found_well();
                Ok(connected)
            }
            Err(e) => {
                state.failed = Some((Instant::now(), e.clone()));
                let unfit = matches!(e, LinkError::Unfit(_));
                self.shared.found(if unfit { Standing::Unfit } else { Standing::Apart }, &e);
                Err(e)
            }
        }
    }

    async fn connect(&self) -> Result<Connected, LinkError> {
        let apart = |e| LinkError::Apart(Arc::new(e));
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(CONNECT_TIMEOUT));
        let connecting = self.shared.client.get_multiplexed_async_connection_with_config(&config);
        let mut connection = connecting.await.map_err(apart)?;
        let run =
            check_settings(&mut connection, self.shared.assume_durability).await.map_err(
                |doubt| match doubt {
                    Doubt::Unread(e) => LinkError::Apart(e),
                    other => LinkError::Unfit(Arc::new(other)),
                },
            )?;
        let expected = *self.shared.store.lock();
        let mut pipeline = redis::pipe();
        pipeline.cmd("HGET").arg(Slot::Meta.key("names")).arg(keys::STORE);
        for source in SOURCES {
            pipeline.cmd("SCRIPT").arg("LOAD").arg(source);
        }
        let mut answers =
            pipeline.query_async::<Vec<Value>>(&mut connection).await.map_err(apart)?.into_iter();
        if let Some(expected) = expected {
            let found = answers.next().and_then(bytes);
            let found = found.and_then(|record| format::decode_store(&record).ok()).map(|(id, _)| id);
            if found != Some(expected) {
                return Err(LinkError::Unfit(Arc::new(Doubt::Another { expected, found })));
            }
        } else {
            answers.next();
        }
        // The last that is asked of it: one that holds no store of ours is never written.
        self.shared.check_run(&run)?;
        connection.set_response_timeout(RESPONSE_TIMEOUT);
        let scripts = Arc::new(answers.filter_map(bytes).collect());
        Ok(Connected { generation: 0, connection, scripts, run: run.into() })
    }

    /// The run of Redis that the connection leads to.
    pub(super) async fn run_id(&self) -> Result<Arc<str>, LinkError> {
        Ok(self.connected().await?.run)
    }

    /// Asks on the connection as it is whether Redis answers, and still holds this store.
    pub(super) async fn look(&self) -> Result<(), LinkError> {
        let expected = *self.shared.store.lock();
        let mut pipeline = redis::pipe();
        pipeline.cmd("HGET").arg(Slot::Meta.key("names")).arg(keys::STORE).cmd("INFO").arg("server");
        let mut answers = self.ask(&pipeline).await?.into_iter().map(bytes);
        let (found, info) = (answers.next().flatten(), answers.next().flatten().unwrap_or_default());
        if let Err(e) = self.shared.check_run(&run_id(&String::from_utf8_lossy(&info))) {
            // Something between here and Redis has moved the connection to another one.
            self.forget(None).await;
            self.shared.found(Standing::Unfit, &e);
            return Err(e);
        }
        let found = found.and_then(|record| format::decode_store(&record).ok()).map(|(id, _)| id);
        match expected {
            Some(expected) if found != Some(expected) => {
                // It was emptied under our hands: every later call meets the check of a new connection.
                self.forget(None).await;
                let e = LinkError::Unfit(Arc::new(Doubt::Another { expected, found }));
                self.shared.found(Standing::Unfit, &e);
                Err(e)
            }
            Some(_) | None => Ok(()),
        }
    }
}

fn is_reply(e: &RedisError) -> bool {
    matches!(e.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

/// An error that Redis answered with: scripts check before they write, so nothing was done.
fn refused(e: RedisError) -> LinkError {
    if e.code() == Some("OOM") { LinkError::Full } else { LinkError::Refused(Arc::new(e)) }
}

fn is_no_script(answer: &Result<Value, LinkError>) -> bool {
    let Err(LinkError::Refused(e)) = answer else { return false };
    e.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// An error with what it came from, on one line.
pub(super) fn with_causes(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// Asks for one thing.
pub(super) async fn one(
    connection: &mut MultiplexedConnection,
    name: &str,
    args: &[&str],
) -> Result<Vec<Value>, RedisError> {
    let mut command = cmd(name);
    args.iter().for_each(|arg| {
        command.arg(*arg);
    });
    command.query_async::<Value>(connection).await.map(list)
}
