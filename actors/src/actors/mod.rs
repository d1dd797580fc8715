//! The supervised actors. They name ports and domain types, never a backend.
//!
//! Who sends what to whom:
//!
//! ```text
//! House ──starts──▶ Warehouse ──starts──▶ Inventory, WmsLink, Manifester, Pipeline
//!   ▲ TreeDown ◀──────── ▲ ChildDown ◀──────── each child's tripwire, whatever the cause
//!   ▲ Wake ◀── Desk ◀── Ingestion and every other writer of a lane; Nudge ──▶ Pipeline
//! whoever follows a feed ──Follow──▶ FeedHub ──one rendering of each event──▶ all who follow
//! House ──lease, assignment, words──▶ Membership, where several nodes share a store
//! Pipeline ──one batch a turn──▶ Inventory (reserve) · WmsLink (plan, perform) · Manifester
//! ```
//!
//! Beside them, Notifier ──starts──▶ Endpoint, one for each webhook endpoint, which reads its client's feed.
//!
//! What each has done stands in its `vitals`, which `census` reads without asking anybody.

pub(crate) mod bell;
pub(crate) mod book;
pub(crate) mod careful;
pub(crate) mod census;
pub(crate) mod conduct;
pub(crate) mod desk;
pub(crate) mod events;
pub(crate) mod feed_hub;
pub(crate) mod gate;
pub(crate) mod gathering;
pub(crate) mod home;
pub(crate) mod house;
pub(crate) mod ingestion;
pub(crate) mod inventory;
pub(crate) mod letters;
pub(crate) mod manifester;
pub(crate) mod observed;
pub(crate) mod options;
pub(crate) mod ownership;
pub(crate) mod pipeline;
pub(crate) mod promises;
pub mod report;
pub(crate) mod ring;
pub(crate) mod site;
pub(crate) mod tallies;
pub(crate) mod tenure;
pub(crate) mod tripwire;
pub(crate) mod turn;
pub(crate) mod untold;
pub(crate) mod vitals;
pub(crate) mod waiters;
pub(crate) mod warehouse;
pub(crate) mod webhooks;
pub(crate) mod wms_link;
