//! What answers: sockets on one side, the latest snapshot on the other.

pub mod autodiscovery;
pub mod dns;
pub mod etcd_v2;
pub mod http;
pub mod sentinel;
