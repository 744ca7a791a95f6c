//! What SkyDNS keeps in etcd's v2 store, and what becomes of it in the v3 store: a tree that a reply told, records and
//! what is none, what may be written, and its settings in this program's flags.

pub mod config;
pub mod plan;
pub mod told;
pub mod tree;
