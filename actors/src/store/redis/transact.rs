//! Runs an operation of [`crate::store::rows`] over rows of one slot: it is run, what it needs is
//! read, it is run again; what it wrote goes in one script, which refuses when something that it was
//! built on has changed since. It must never write in two scripts.

use redis::Value;

use super::fetch::Reading;
use super::link::{Call, Link, Lua};
use super::overlay::{Fetch, Overlay};
use super::place::Slot;
use super::program::Program;
use super::replies::bytes;
use crate::ports::store::{CommitError, Fence, ReadError};
use crate::store::rows::{ClaimHasher, Claims, Counters, ReadRows, Room, RowError, Write};

/// Rounds of reading and running: the deepest operation needs four, the rest are for others' writes in
/// between.
const ROUNDS_MAX: usize = 64;

/// Others kept writing what an operation was built on.
#[derive(Debug, thiserror::Error)]
#[error("what it was built on kept changing")]
struct Restless;

fn restless() -> RowError {
    RowError::Backend(std::sync::Arc::new(Restless))
}

/// Runs a read over what was read ahead and what it asks for besides.
///
/// # Errors
/// When Redis does not answer, or what the operation returns.
pub(super) async fn read<T>(
    link: &Link,
    slot: Slot,
    ahead: Vec<Fetch>,
    mut operation: impl FnMut(&dyn ReadRows) -> Result<T, RowError>,
) -> Result<T, ReadError> {
    let mut overlay = Overlay::new(slot);
    fetch(link, &mut overlay, ahead).await?;
    run_over(link, &mut overlay, &mut operation).await.map_err(ReadError::from)
}

/// The same over an overlay that knows something already.
///
/// # Errors
/// As above.
pub(super) async fn run_over<T>(
    link: &Link,
    overlay: &mut Overlay,
    operation: &mut impl FnMut(&dyn ReadRows) -> Result<T, RowError>,
) -> Result<T, RowError> {
    for _ in 0..ROUNDS_MAX {
        let answer = operation(&*overlay);
        let missing = overlay.take_missing();
        if missing.is_empty() {
            return answer;
        }
        fetch(link, overlay, missing).await?;
    }
    Err(restless())
}

/// Reads rows; false when they are not of one time.
///
/// # Errors
/// When Redis does not answer.
pub(super) async fn fetch(link: &Link, overlay: &mut Overlay, wanted: Vec<Fetch>) -> Result<bool, RowError> {
    let mut reading = Reading::of(overlay.slot);
    for fetch in wanted {
        reading.fetch(fetch)?;
    }
    reading.read(link, overlay).await.map_err(RowError::from)
}

/// A write: where, under what fence, and what it will surely need.
pub(super) struct Plan {
    pub(super) slot: Slot,
    pub(super) fence: Option<Fence>,
    pub(super) ahead: Vec<Fetch>,
}

impl Plan {
    /// Without a fence.
    pub(super) fn open(slot: Slot, ahead: Vec<Fetch>) -> Plan {
        Plan { slot, fence: None, ahead }
    }
}

/// Runs a write, all or nothing. It is durable when this answers.
///
/// # Errors
/// When Redis does not answer, the fence is void, or what the operation returns.
pub(super) async fn write<T>(
    link: &Link,
    plan: &Plan,
    hasher: ClaimHasher,
    operation: impl FnMut(&mut Write<'_>) -> Result<T, RowError>,
) -> Result<T, CommitError> {
    write_over(link, plan, hasher, |_| {}, operation).await
}

/// The same; `prepare` adds what is read in another way.
///
/// # Errors
/// As above.
pub(super) async fn write_over<T>(
    link: &Link,
    plan: &Plan,
    hasher: ClaimHasher,
    prepare: impl Fn(&mut Reading),
    mut operation: impl FnMut(&mut Write<'_>) -> Result<T, RowError>,
) -> Result<T, CommitError> {
    let mut known: Option<Overlay> = None;
    for _ in 0..ROUNDS_MAX {
        let mut overlay = match known.take() {
            Some(overlay) => overlay,
            None => {
                let mut overlay = Overlay::new(plan.slot);
                let mut reading = Reading::of(plan.slot);
                for fetch in &plan.ahead {
                    reading.fetch(fetch.clone())?;
                }
                prepare(&mut reading);
                if !reading.read(link, &mut overlay).await? {
                    continue;
                }
                overlay
            }
        };
        let answer = run_once(&mut overlay, hasher, &mut operation);
        let missing = overlay.take_missing();
        if !missing.is_empty() {
            if fetch(link, &mut overlay, missing).await? {
                overlay.rewind();
                known = Some(overlay);
            }
            continue;
        }
        let value = answer?;
        let Some(program) = Program::of(&overlay, plan.fence)? else { return Ok(value) };
        let call = Call { lua: Lua::Apply, keys: program.keys, args: program.args };
        match verdict(link.run(&[call]).await?.into_iter().next().transpose()?) {
            Applied::Yes => return Ok(value),
            Applied::Moved => {}
            Applied::Void => return Err(CommitError::Conflict),
            Applied::Broken(what) => return Err(broken(what)),
        }
    }
    Err(restless().into())
}

fn run_once<T>(
    overlay: &mut Overlay,
    hasher: ClaimHasher,
    operation: &mut impl FnMut(&mut Write<'_>) -> Result<T, RowError>,
) -> Result<T, RowError> {
    // Claims lie in slots of their own; the operation finds none here.
    let mut claims = Claims::load(&Nothing, hasher, usize::MAX)?;
    let mut counters = Counters::default();
    let mut changed = Vec::new();
    let value = operation(&mut Write {
        rows: overlay,
        counters: &mut counters,
        claims: &mut claims,
        changed: &mut changed,
        room: Room::All,
    })?;
    counters.flush(overlay)?;
    Ok(value)
}

enum Applied {
    Yes,
    Moved,
    Void,
    Broken(&'static str),
}

fn verdict(answer: Option<Value>) -> Applied {
    match answer.and_then(bytes).as_deref() {
        Some(b"ok") => Applied::Yes,
        Some(b"moved") => Applied::Moved,
        Some(b"fence") => Applied::Void,
        Some(b"there") => Applied::Broken("what should be new is there already"),
        Some(b"gone") => Applied::Broken("a lane's entry that should be taken is not there"),
        Some(_) | None => Applied::Broken("the script answered what it never says"),
    }
}

/// What the caller says and what is stored cannot both be true; nothing was written.
fn broken(what: &'static str) -> CommitError {
    tracing::error!(what, "a broken invariant");
    RowError::Broken(what.to_owned()).into()
}

/// A log of claims without a row.
struct Nothing;

impl ReadRows for Nothing {
    fn get(&self, _: crate::store::keys::Table, _: &[u8]) -> Result<Option<&[u8]>, RowError> {
        Ok(None)
    }

    fn walk(
        &self,
        _: crate::store::keys::Table,
        _: &[u8],
        _: Option<&[u8]>,
        _: &mut crate::store::rows::Visit<'_>,
    ) -> Result<(), RowError> {
        Ok(())
    }
}
