//! This host as its kernel knows it: addresses, default routes, processes.

mod addresses;
mod process;

pub use addresses::{Addresses, read_addresses};
pub use process::{Process, watch_process};
