//! Well-formed input that means harm, against the program itself: whatever one sends, the others are served.
//!
//! One file for each kind of attacker, each with cases of one shape: found a [`town::Town`], attack it, then
//! `town.neighbours_are_offered()` and `town.beats_never_missed()`.
//!
//! | file | who attacks |
//! |---|---|
//! | `tenant.rs` | a container, by its labels and its image |
//! | `dns_client.rs` | whoever may ask DNS |
//! | `http_client.rs` | whoever may ask HTTP |
//! | `key_writer.rs` | whoever may write one key of etcd |
//! | `host.rs` | nobody: what happens to a host |
//! | `thief.rs` | whoever wants a password |
//!
//! `measured.rs` tells what some of these cost in time and memory, beside the same town in peace.
//!
//! A new file is added below with `mod`; whatever several of them need goes into `town.rs`. A town holds a lock of its
//! own, so that one at a time is measured. `cargo test --release --test hostile tenant::` runs one file.
#![allow(clippy::unwrap_used, unreachable_pub)]
#![allow(clippy::disallowed_methods)] // blocking is what a test does here: the town's engine has threads of its own

#[path = "../engine/mod.rs"]
mod engine;
#[path = "../etcd/mod.rs"]
mod etcd;
#[path = "../program/mod.rs"]
mod program;

mod beats;
mod dns_client;
mod host;
mod http_client;
mod key_writer;
mod measured;
mod tenant;
mod thief;
mod town;
