//! Redis Sentinel's protocol: which masters one would watch, what it replies, and what it tells of changes.
//!
//! To a client each agent is a Sentinel that watches every service with a topology and every Redis service with one
//! primary. Nothing is asked of a server for an answer: all is read off the snapshot. Masters are moved elsewhere, so
//! that commands which would change something are refused.

mod events;
mod info;
mod listing;
mod masters;
mod reply;
mod subscriptions;
mod talk;
#[cfg(test)]
mod tests;

pub use events::{SentinelEvent, difference};
pub use listing::master_fields;
pub use masters::{HOLD, Masters, SeenMaster, SeenSentinel, SeenServer};
pub use reply::{Resp, RespValue};
pub use talk::{Ground, Said, SentinelFacts, SentinelPassword, Talk};
