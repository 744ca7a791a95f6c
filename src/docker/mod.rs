//! The Docker engine: its events and what it says of each container, as sightings.
//!
//! Only GET calls are made, through bollard, so a read-only proxy of the socket is enough. The engine's JSON is read
//! tolerantly, field by field: one that is missing or of another type costs that fact, at most that container.

mod endpoint;
mod engine;
mod events;
mod inspect;
mod link;
mod listing;
mod networks;
mod timers;
mod tracker;
mod watch;

pub use endpoint::{BadEndpoint, Endpoint};
pub use inspect::{NotAContainer, container_of};
pub use watch::{Settings, Watch, no_engine};
