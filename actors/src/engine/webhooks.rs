//! The door to webhook endpoints.

use super::{Handle, Office};

impl Handle {
    /// What clients and operators may ask of webhook endpoints.
    #[must_use]
    pub fn webhooks(&self) -> Office {
        Office::new(self.0.node.clone())
    }
}
