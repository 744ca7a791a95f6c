//! The host itself, as far as an agent on it must know: its addresses and processes, which of them holds a connection,
//! what its service manager hands over, and when it goes down.
//! And the streams of those who come to be served here.

mod addresses;
pub mod clients;
mod clock;
pub(crate) mod descriptors;
pub(crate) mod fdstore;
mod holder;
pub mod identity;
pub mod logind;
pub mod names;
mod netlink;
mod process;
mod route;
mod secret;
pub mod sockets;

pub use addresses::{Addresses, read_addresses};
pub use clock::{boottime, thread_time};
pub use holder::group_of;
pub use process::{Process, Witness, watch_process};
pub use route::{Whereabouts, whereabouts};
pub(crate) use secret::{SecretError, Secrets};
