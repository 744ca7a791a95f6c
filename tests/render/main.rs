//! Files that follow the cluster, as the programs that read them see them: real HAProxy and nginx under load, a reader
//! that never waits, processes that are killed, and everything that may be wrong with a table.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs, unreachable_pub)]
#![allow(clippy::print_stdout)] // figures that a person may want to see
#![allow(clippy::disallowed_methods)] // these tests have threads of their own, and no runtime that waits for them

mod churn;
#[path = "../etcd/mod.rs"]
mod etcd;
mod follow;
mod kills;
#[path = "../mcrouter/mod.rs"]
mod mcrouter;
mod once;
mod pools;
#[path = "../program/mod.rs"]
mod program;
mod servers;
mod town;
