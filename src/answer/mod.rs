//! What answers: sockets on one side, the latest snapshot on the other.

pub mod autodiscovery;
pub mod dns;
pub mod http;
pub mod sentinel;
