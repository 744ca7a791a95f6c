//! The host itself, as far as an agent on it must know: its addresses and processes, what its service manager hands
//! over, and when it goes down.
//! And the streams of those who come to be served here.

mod addresses;
pub mod clients;
pub mod identity;
pub mod logind;
mod process;
pub mod sockets;

pub use addresses::{Addresses, read_addresses};
pub use process::{Process, watch_process};
