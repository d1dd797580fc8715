//! The parts of the `wavegate` binary that can be started from elsewhere: its HTTP door.

pub mod http;
