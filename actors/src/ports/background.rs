//! Threads that stand back: what works behind the door gives way to what answers at it.

/// How much the threads of trees stand back, as a nice value: of a processor that both want, the
/// door has nine parts in ten. A burst is then accepted at the door's own pace, and `backlog_max`
/// bounds how far a warehouse may fall behind for it.
#[cfg(target_os = "linux")]
const NICE: i32 = 10;

/// Lets the calling thread stand back. Where the system knows no priority of a single thread, it
/// does nothing.
pub(crate) fn stand_back() {
    #[cfg(target_os = "linux")]
    if let Err(why) = rustix::process::nice(NICE) {
        tracing::warn!(%why, "a thread of the trees keeps the priority of the door");
    }
}
