//! Keys for a server under test that has several clients.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// A key and whose it is.
pub(super) struct Key {
    key: String,
    /// Its entry in the settings.
    pub(super) setting: String,
}

impl Key {
    /// A client's.
    pub(super) fn of_client(name: &str) -> Key {
        Key::new(name, &format!("role = \"client\"\nclient = \"{name}\""))
    }

    /// An operator's.
    pub(super) fn of_operator() -> Key {
        Key::new("operator", "role = \"operator\"")
    }

    fn new(name: &str, whose: &str) -> Key {
        let key = format!("{name}-0123456789abcdef");
        let digest = Sha256::digest(&key).iter().fold(String::new(), |mut text, byte| {
            // Writing to a String cannot fail.
            write!(text, "{byte:02x}").ok();
            text
        });
        Key { key, setting: format!("[[keys]]\n{whose}\nsha256 = \"{digest}\"\n") }
    }

    /// A request with this key.
    pub(super) fn on(&self, request: &str) -> String {
        request.replacen("\r\n", &format!("\r\nAuthorization: Bearer {}\r\n", self.key), 1)
    }
}
