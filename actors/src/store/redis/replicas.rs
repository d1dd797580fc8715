//! Waiting for replicas: no write counts before enough of them have it. It must never take what a reply
//! alone says for an acknowledgement.

use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, RedisError, Value};

use super::replies::{list, number};
use super::server::Doubt;

/// How many replicas must have a write before it counts, and for how long they are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replication {
    /// Of each primary; 1 at least.
    pub replicas: u32,
    /// Fewer by then is an unknown outcome. Less than what an answer may take.
    pub within: Duration,
}

/// The first version that has `WAITAOF`.
const WAITAOF_SINCE: (u32, u32) = (7, 2);

/// What is sent right behind writes, on their connection.
///
/// Redis waits until its replicas have what it had written itself when the command before this one was
/// done, whoever wrote it: so what was only read here, a replay's transaction say, is waited for as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wait {
    of: Replication,
    /// `WAITAOF`: on their disks; else `WAIT`: in their memory.
    on_disk: bool,
}

impl Wait {
    /// What a Redis of this version can be asked for.
    pub(super) fn of(of: Replication, version: (u32, u32)) -> Wait {
        Wait { of, on_disk: version >= WAITAOF_SINCE }
    }

    /// The command, and what it makes sure of.
    pub(super) fn name(self) -> &'static str {
        if self.on_disk { "WAITAOF" } else { "WAIT" }
    }

    pub(super) fn add_to(self, pipeline: &mut Pipeline) {
        let command = pipeline.cmd(self.name());
        if self.on_disk {
            command.arg(1);
        }
        command.arg(self.of.replicas).arg(u64::try_from(self.of.within.as_millis()).unwrap_or(u64::MAX));
    }

    /// Whether enough replicas answered.
    ///
    /// # Errors
    /// [`Doubt::Alone`] when they did not: what stands before it may be on this Redis alone.
    pub(super) fn judge(self, answer: Option<Result<Value, RedisError>>) -> Result<(), Arc<Doubt>> {
        let found = answer.and_then(Result::ok).map(list).unwrap_or_default();
        let found: Vec<u64> = found.into_iter().filter_map(number).collect();
        let (is_here, replicas) = match (self.on_disk, &found[..]) {
            (true, [here, replicas]) => (*here >= 1, *replicas),
            (false, [replicas]) => (true, *replicas),
            (true | false, _) => (false, 0),
        };
        if is_here && replicas >= u64::from(self.of.replicas) {
            return Ok(());
        }
        Err(Arc::new(Doubt::Alone { found: replicas, needed: self.of.replicas, within: self.of.within }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Replication = Replication { replicas: 2, within: Duration::from_millis(300) };

    fn packed(wait: Wait) -> String {
        let mut pipeline = redis::pipe();
        wait.add_to(&mut pipeline);
        String::from_utf8(pipeline.get_packed_pipeline()).unwrap()
    }

    #[test]
    fn what_is_asked_for_depends_on_the_version() {
        let (old, new) = (Wait::of(TWO, (7, 0)), Wait::of(TWO, (7, 2)));
        assert_eq!((old.name(), new.name(), Wait::of(TWO, (8, 0)).name()), ("WAIT", "WAITAOF", "WAITAOF"));
        assert_eq!(packed(old), "*3\r\n$4\r\nWAIT\r\n$1\r\n2\r\n$3\r\n300\r\n");
        assert_eq!(packed(new), "*4\r\n$7\r\nWAITAOF\r\n$1\r\n1\r\n$1\r\n2\r\n$3\r\n300\r\n");
    }

    #[test]
    fn fewer_than_needed_are_no_acknowledgement_and_neither_is_an_error() {
        let (memory, disk) = (Wait::of(TWO, (7, 0)), Wait::of(TWO, (7, 2)));
        let both = |here, there| Some(Ok(Value::Array(vec![Value::Int(here), Value::Int(there)])));
        assert!(
            memory.judge(Some(Ok(Value::Int(2)))).is_ok() && memory.judge(Some(Ok(Value::Int(3)))).is_ok()
        );
        assert!(disk.judge(both(1, 2)).is_ok());
        assert!(disk.judge(both(0, 2)).is_err() && disk.judge(both(1, 1)).is_err());
        let refused = || Some(Err(RedisError::from((redis::ErrorKind::Io, "no"))));
        for wait in [memory, disk] {
            for none in [None, refused(), Some(Ok(Value::Int(1))), Some(Ok(Value::Nil))] {
                assert!(wait.judge(none).is_err());
            }
        }
        assert!(disk.judge(Some(Ok(Value::Int(2)))).is_err() && memory.judge(both(2, 2)).is_err());
    }
}
