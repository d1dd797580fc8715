//! The end of the process.

/// Ends the process when going on could lie: a commit whose outcome is unknown is only resolved
/// by starting again and reading.
pub trait Fate: Send + Sync + 'static {
    /// Ends the process. Production does not return; the seeded world marks the node as dead and
    /// drops it, so the caller must do nothing afterwards.
    fn end(&self, reason: &str);
}

/// Ends the real process with exit code 3: the store cannot be relied on.
#[derive(Clone, Copy, Debug, Default)]
pub struct ProcessFate;

impl Fate for ProcessFate {
    fn end(&self, reason: &str) {
        tracing::error!(reason, "the process ends; it recovers from the store when it starts again");
        std::process::exit(3);
    }
}
