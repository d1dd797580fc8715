//! What operators ask of a warehouse from outside its tree: to deal with a dead letter, to pause. It
//! looks whether that can be done now, so that the answer is honest; the owner decides again.

use std::time::Duration;

use super::book::OpenOrder;
use super::site::Node;
use crate::domain::command::Command;
use crate::domain::ids::{PartitionId, TransactionId};
use crate::domain::order::NotPossible;
use crate::domain::spread::Charge;
use crate::ports::store::{CommitError, DeadKind, DeadLetter, Instruction, Kept, Lookup, ReadError, Settled};

/// Why an instruction is not queued.
#[derive(Debug, thiserror::Error)]
pub enum InstructError {
    /// There never was such a letter.
    #[error("there is no such dead letter")]
    Unknown,
    /// It was dealt with otherwise.
    #[error("the dead letter was dealt with otherwise")]
    Settled,
    /// What it is about cannot be read, or its bytes were not kept.
    #[error("what it is about cannot be read")]
    Unreadable,
    /// It can only be worked again.
    #[error("it can be redriven and not given up")]
    RedriveOnly,
    /// It can only be given up.
    #[error("it can be given up and not redriven")]
    GiveUpOnly,
    /// The order's state does not allow it.
    #[error(transparent)]
    NotPossible(#[from] NotPossible),
    /// The letter could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It may not be durable.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

/// How long a pause waits for a running owner's turn to end; one that does not come to an end
/// releases nothing either.
const PAUSE_SEEN_WITHIN: Duration = Duration::from_secs(5);
/// How often it looks.
const PAUSE_LOOK: Duration = Duration::from_millis(5);

/// Queues an instruction for the owner.
pub(crate) async fn instruct(
    node: &Node,
    partition: PartitionId,
    asked: Instruction,
) -> Result<(), InstructError> {
    if !node.desks.contains_key(&partition) {
        return Err(InstructError::Unknown);
    }
    let kept = match node.store.dead_letter(partition, asked.letter()).await {
        Err(ReadError::Corrupt { .. }) => return Err(InstructError::Unreadable),
        read => read?,
    };
    match kept {
        None => return Err(InstructError::Unknown),
        Some(Kept::Settled(how)) => {
            return match (asked, how) {
                (Instruction::Redrive(_), Settled::Redriven) | (Instruction::GiveUp(_), Settled::GivenUp) => {
                    Ok(())
                }
                (Instruction::Redrive(_), Settled::GivenUp | Settled::Passed)
                | (Instruction::GiveUp(_), Settled::Redriven | Settled::Passed) => {
                    Err(InstructError::Settled)
                }
            };
        }
        Some(Kept::Open(letter)) => look(node, asked, &letter).await?,
    }
    node.store.instruct(partition, asked).await?.wait().await?;
    node.nudge(partition);
    Ok(())
}

/// Whether it could be done if the owner decided now.
async fn look(node: &Node, asked: Instruction, letter: &DeadLetter) -> Result<(), InstructError> {
    match (letter.kind, letter.id, letter.entry, asked) {
        (DeadKind::Order, Some(id), None, _) => order(node, asked, id).await,
        // It is still to be pulled: only its owner can say anything about it.
        (DeadKind::Order, _, _, Instruction::GiveUp(_)) => Err(InstructError::RedriveOnly),
        (DeadKind::Confirmation | DeadKind::Wave | DeadKind::Stock, _, _, Instruction::GiveUp(_)) => Ok(()),
        // A wave's releases are asked for by themselves; a position wants a count.
        (DeadKind::Wave | DeadKind::Stock, _, _, Instruction::Redrive(_)) => Err(InstructError::GiveUpOnly),
        (DeadKind::Order | DeadKind::Confirmation, _, Some(_), Instruction::Redrive(_)) => Ok(()),
        (DeadKind::Order | DeadKind::Confirmation, _, None, Instruction::Redrive(_)) => {
            Err(InstructError::GiveUpOnly)
        }
    }
}

async fn order(node: &Node, asked: Instruction, id: TransactionId) -> Result<(), InstructError> {
    let stored = match node.store.transaction(id).await {
        Ok(Some(Lookup::Live(stored))) => stored,
        // Ended long ago: nothing is to be done, and the owner says so.
        Ok(Some(Lookup::Expired(_))) => return Ok(()),
        Ok(None) | Err(ReadError::Corrupt { .. }) => return Err(InstructError::Unreadable),
        Err(e @ ReadError::Unavailable(_)) => return Err(e.into()),
    };
    if let Command::Manifest(_) = stored.command {
        return match asked {
            Instruction::Redrive(_) => Ok(()),
            Instruction::GiveUp(_) => Err(InstructError::RedriveOnly),
        };
    }
    let open = OpenOrder::fold(&stored).ok().flatten().ok_or(InstructError::Unreadable)?;
    match asked {
        Instruction::Redrive(_) => open.order.redrive()?,
        Instruction::GiveUp(_) => open.order.give_up()?,
    };
    Ok(())
}

/// Pauses or resumes; durable when it answers. Where an owner runs it waits until a turn of it has
/// seen the change, so that no wave follows the answer to a pause.
pub(crate) async fn set_paused(node: &Node, partition: PartitionId, paused: bool) -> Result<(), CommitError> {
    node.store.set_paused(partition, paused).await?.wait().await?;
    let Some(desk) = node.desks.get(&partition) else { return Ok(()) };
    let until = tokio::time::Instant::now() + PAUSE_SEEN_WITHIN;
    node.nudge(partition);
    let works = || desk.is_served() || node.ownership.is_elsewhere(Charge::Warehouse(partition));
    while works() && desk.snapshot().paused != paused && tokio::time::Instant::now() < until {
        tokio::time::sleep(PAUSE_LOOK).await;
    }
    desk.paused_is(paused);
    Ok(())
}
