//! Names that may be used once by all nodes together, such as a ticket. Each is a key that ends by itself.

use std::time::Duration;

use redis::Value;

use super::Inner;
use super::place::Slot;
use crate::ports::store::CommitError;

impl Inner {
    /// True for whoever comes first.
    pub(super) async fn first_use(&self, name: [u8; 32], within: Duration) -> Result<bool, CommitError> {
        let within = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        let mut set = redis::pipe();
        set.cmd("SET").arg(key(name)).arg(1).arg("NX").arg("PX").arg(within);
        let answer = self.writes.write(&set).await?.into_iter().next();
        Ok(!matches!(answer, None | Some(Value::Nil)))
    }

    /// Lets the next one be the first.
    pub(super) async fn forget_use(&self, name: [u8; 32]) {
        let mut forget = redis::pipe();
        forget.cmd("DEL").arg(key(name));
        if let Err(why) = self.writes.write(&forget).await {
            tracing::debug!(%why, "what was used stays used");
        }
    }
}

fn key(name: [u8; 32]) -> Vec<u8> {
    let hex = name.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    Slot::Meta.key(&format!("used:{hex}"))
}
