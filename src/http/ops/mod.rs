//! `/v1/ops`: what operators see and do. Every path here is theirs alone.

pub(crate) mod actors;
