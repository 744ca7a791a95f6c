//! Snapshot to a protocol's reply, as values.

pub mod api;
pub mod autodiscovery;
pub mod etcd_v2;
pub mod sentinel;
pub mod zookeeper;
