//! `/v1/ops`: what operators see and do. Every path here is theirs alone, by the access table.

pub(super) mod actors;
pub(super) mod dead_letters;
pub(super) mod pause;
