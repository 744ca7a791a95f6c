//! A real ensemble of three whose zoo.cfg and myid come from the numbers of their hosts: one joins late, one is killed,
//! quorum is lost and comes back, and one that stands alone has not joined. The list, the barrier and Exhibitor's API
//! say at each moment what a real client can do.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, unreachable_pub)]
#![allow(clippy::disallowed_methods)] // waiting for a process blocks, and nothing else runs here

#[path = "../etcd/mod.rs"]
mod etcd;
#[path = "../program/mod.rs"]
mod program;

mod api;
mod cell;
mod hostile;
mod kazoo;
mod story;
