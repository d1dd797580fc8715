//! A connection to one primary, made anew when it breaks. It is used only after it was asked what Redis
//! it leads to: whether its settings give the durability that a 202 promises, and whether it holds this
//! store and no other. It must never send a write twice.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, ServerErrorKind, Value};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::identity;
use super::link::{Call, LinkError, SOURCES};
use super::place::Slot;
use super::replicas::Wait;
use super::replies::bytes;
use super::server::{Doubt, check_settings, run_of};
use super::shared::{Shared, Standing};
use super::slots::{Address, SlotMap, slot_of};

/// No answer by then is an unknown outcome: a client is to have its 503 within two seconds, which may
/// wait for one call that is lost and one attempt to connect. Replicas are waited for within it.
const RESPONSE_TIMEOUT: Duration = Duration::from_millis(750);

/// No connection by then is none.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// After a failed attempt to connect nobody tries again for this long.
const PAUSE: Duration = Duration::from_millis(200);

/// What is sent: a command or a script, of one slot.
#[derive(Clone, Copy)]
pub(super) enum Sending<'c> {
    Command(&'c Cmd),
    Script(&'c Call),
}

impl Sending<'_> {
    /// Its slot. A command's key stands behind its name; one without a key goes where the store's
    /// names are.
    pub(super) fn slot(&self) -> u16 {
        let key = match self {
            Sending::Command(command) => command.args_iter().nth(1).and_then(|arg| match arg {
                redis::Arg::Simple(key) => Some(slot_of(key)),
                // Theirs, and it grows: of what is no key here.
                _ => None,
            }),
            Sending::Script(call) => call.keys.first().map(|key| slot_of(key)),
        };
        key.unwrap_or_else(|| slot_of(&Slot::Meta.key("names")))
    }

    fn add_to(&self, pipeline: &mut Pipeline, scripts: &[Vec<u8>]) {
        match self {
            Sending::Command(command) => {
                pipeline.add_command((*command).clone());
            }
            Sending::Script(call) => {
                let command = pipeline.cmd("EVALSHA");
                command.arg(&scripts[call.lua as usize]).arg(call.keys.len());
                call.keys.iter().chain(&call.args).for_each(|arg| {
                    command.arg(arg);
                });
            }
        }
    }
}

/// One primary.
pub(super) struct Node {
    shared: Arc<Shared>,
    address: Address,
    /// For writes, which replicas may have to acknowledge.
    writes: bool,
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
    wait: Option<Wait>,
}

impl Node {
    /// Not connected yet.
    pub(super) fn new(shared: Arc<Shared>, address: Address, writes: bool) -> Node {
        Node { shared, address, writes, state: Mutex::default() }
    }

    /// Sends all of it in one round trip, in order, each once. Each has an answer of its own, which may
    /// be an error that Redis answered with; an error of the whole is that of each.
    ///
    /// `is_asking`: of slots that this node is only about to get.
    pub(super) async fn send(
        &self,
        sending: &[Sending<'_>],
        is_asking: bool,
    ) -> Result<Vec<Result<Value, RedisError>>, LinkError> {
        let mut connected = self.connected().await?;
        let mut pipeline = redis::pipe();
        pipeline.ignore_errors();
        for one in sending {
            if is_asking {
                pipeline.cmd("ASKING");
            }
            one.add_to(&mut pipeline, &connected.scripts);
        }
        if let Some(wait) = connected.wait {
            wait.add_to(&mut pipeline);
        }
        let answer = pipeline.query_async::<Vec<Result<Value, RedisError>>>(&mut connected.connection).await;
        let mut answers = self.judged(answer, connected.generation).await?;
        if answers.iter().any(Result::is_ok) {
            self.shared.found_well(&self.address, false);
        }
        if let Some(wait) = connected.wait {
            self.acknowledged(wait.judge(answers.pop()), connected.generation).await?;
        }
        if is_asking {
            let mut n = 0;
            answers.retain(|_| {
                n += 1;
                n % 2 == 0
            });
        }
        if answers.iter().any(is_read_only) {
            // It is no primary any more; whatever leads to the one that is, a new connection meets it.
            self.forget(Some(connected.generation)).await;
        }
        Ok(answers)
    }

    async fn judged<T>(&self, answer: Result<T, RedisError>, generation: u64) -> Result<T, LinkError> {
        match answer {
            Ok(answer) => Ok(answer),
            Err(e) if is_reply(&e) => Err(LinkError::refused(e)),
            Err(e) => {
                // A late answer on this connection is nobody's; calls that still wait keep it.
                self.forget(Some(generation)).await;
                self.shared.found(&self.address, Standing::Apart, &e);
                Err(LinkError::Unknown(Arc::new(e)))
            }
        }
    }

    /// What replicas have not acknowledged may be lost with this Redis. A new connection is used only once
    /// they keep up again: until then nothing more is written of unknown outcome.
    async fn acknowledged(&self, judged: Result<(), Arc<Doubt>>, generation: u64) -> Result<(), LinkError> {
        match judged {
            Ok(()) => {
                self.shared.found_well(&self.address, true);
                Ok(())
            }
            Err(doubt) => {
                self.forget(Some(generation)).await;
                self.shared.found(&self.address, Standing::Alone, &doubt);
                Err(LinkError::Alone(doubt))
            }
        }
    }

    /// Gives up the connection: whatever it is, or the one of this number.
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
                self.shared.found_well(&self.address, self.writes);
                if let Some(wait) = connected.wait.filter(|_| state.generation == 1) {
                    tracing::info!(redis = %self.address, by = wait.name(), "replicas acknowledge every write");
                }
                Ok(connected)
            }
            Err(e) => {
                state.failed = Some((Instant::now(), e.clone()));
                let standing = match &e {
                    LinkError::Unfit(doubt) if matches!(**doubt, Doubt::Alone { .. }) => Standing::Alone,
                    LinkError::Unfit(_) => Standing::Unfit,
                    LinkError::Apart(_)
                    | LinkError::Refused(_)
                    | LinkError::Full
                    | LinkError::Uncovered
                    | LinkError::Alone(_)
                    | LinkError::Unknown(_) => Standing::Apart,
                };
                self.shared.found(&self.address, standing, &e);
                Err(e)
            }
        }
    }

    async fn connect(&self) -> Result<Connected, LinkError> {
        let mut connection = plain(&self.shared, &self.address).await?;
        let met =
            check_settings(&mut connection, &self.shared.wanted).await.map_err(|doubt| match doubt {
                Doubt::Unread(e) => LinkError::Apart(e),
                other => LinkError::Unfit(Arc::new(other)),
            })?;
        let wait = met.wait.filter(|_| self.writes);
        identity::check(&self.shared, &self.address, &mut connection).await?;
        let mut load = redis::pipe();
        for source in SOURCES {
            load.cmd("SCRIPT").arg("LOAD").arg(source);
        }
        let loaded = load.query_async::<Vec<Value>>(&mut connection).await.map_err(apart)?;
        connection.set_response_timeout(RESPONSE_TIMEOUT);
        if let Some(wait) = wait.filter(|_| !self.shared.wanted.assume_durability) {
            let mut ask = redis::pipe();
            wait.add_to(&mut ask);
            let found = ask.query_async::<Vec<Value>>(&mut connection).await.map_err(apart)?;
            wait.judge(found.into_iter().next().map(Ok)).map_err(LinkError::Unfit)?;
        }
        // The last that is asked of it: one that holds no store of ours is never written.
        self.shared.check_run(&met.run)?;
        let scripts = Arc::new(loaded.into_iter().filter_map(bytes).collect());
        Ok(Connected { generation: 0, connection, scripts, run: met.run.into(), wait })
    }

    /// The run of Redis that the connection leads to.
    pub(super) async fn run_id(&self) -> Result<Arc<str>, LinkError> {
        Ok(self.connected().await?.run)
    }

    /// Asks on the connection as it is whether Redis answers, and still holds this store.
    pub(super) async fn look(&self) -> Result<(), LinkError> {
        let mut connected = self.connected().await?;
        let (generation, connection) = (connected.generation, &mut connected.connection);
        let run = self.judged(run_of(connection).await, generation).await?;
        let looked = match self.shared.check_run(&run) {
            Ok(()) => identity::check(&self.shared, &self.address, connection).await,
            // Something between here and Redis has moved the connection to another one.
            Err(e) => Err(e),
        };
        match &looked {
            Ok(()) => self.shared.found_well(&self.address, false),
            Err(e @ LinkError::Unfit(_)) => {
                // Perhaps emptied under our hands: every later call meets the check of a new connection.
                self.forget(Some(generation)).await;
                self.shared.found(&self.address, Standing::Unfit, e);
            }
            // It answers that it cannot: the cluster is down, say.
            Err(e) => self.shared.found(&self.address, Standing::Apart, e),
        }
        looked
    }

    /// Who has which slot, as this node sees it: on the connection if there is one, else on one that is
    /// for nothing else, for it may be a node that is fit for nothing else.
    pub(super) async fn slots(&self) -> Result<SlotMap, LinkError> {
        let connected = self.state.lock().await.connected.clone();
        let (mut connection, generation) = match connected {
            Some(connected) => (connected.connection, Some(connected.generation)),
            None => (plain(&self.shared, &self.address).await?, None),
        };
        let asked = redis::cmd("CLUSTER").arg("SLOTS").query_async::<Value>(&mut connection).await;
        match asked {
            Ok(answer) => Ok(SlotMap::read(answer, &self.address)),
            Err(e) if e.kind() == ErrorKind::Server(ServerErrorKind::ResponseError) => {
                Err(LinkError::Unfit(Arc::new(Doubt::NoCluster)))
            }
            // It still reads its data.
            Err(e) if is_reply(&e) => Err(apart(e)),
            Err(e) => {
                if generation.is_some() {
                    self.forget(generation).await;
                }
                Err(apart(e))
            }
        }
    }
}

/// A connection that nothing was asked of yet.
async fn plain(shared: &Shared, address: &Address) -> Result<MultiplexedConnection, LinkError> {
    let info = shared.info(address).ok_or(LinkError::Uncovered)?;
    let client = Client::open(info).map_err(apart)?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(CONNECT_TIMEOUT));
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(apart)
}

/// One that hears what is published.
pub(super) async fn pubsub(shared: &Shared, address: &Address) -> Result<PubSub, LinkError> {
    let info = shared.info(address).ok_or(LinkError::Uncovered)?;
    let client = Client::open(info).map_err(apart)?;
    let late = |_| apart(RedisError::from((ErrorKind::Io, "no answer in time")));
    tokio::time::timeout(CONNECT_TIMEOUT, client.get_async_pubsub()).await.map_err(late)?.map_err(apart)
}

fn apart(e: RedisError) -> LinkError {
    LinkError::Apart(Arc::new(e))
}

/// True for an error that Redis answered with.
fn is_reply(e: &RedisError) -> bool {
    matches!(e.kind(), ErrorKind::Server(_) | ErrorKind::Extension)
}

fn is_read_only(answer: &Result<Value, RedisError>) -> bool {
    let Err(e) = answer else { return false };
    e.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}
