//! The switch of a Redis master, decided: who may act, and what comes next after a crash at any moment.
//!
//! ```text
//!                    ┌────────── lag, a broken target, a takeover ─────────┐
//!                    │                                                     ▼
//!  begin ──▶ Intent ─┴─ target at the frozen master's last byte ─▶ Promote    Abort ──▶ Done, nothing changed
//!            hold writes, freeze                                   │  │        undo this freeze
//!  heal ──── all say replica, one has everything ────────────────▶ │  │
//!                                            target is master ◀────┘  └──▶ Stale: a server is not as this implies
//!                                                  │
//!  heal ──── a replica strays ──────────────▶ Publish ──▶ Done
//!                                              release the old master, attach the others
//! ```
//!
//! Each arrow is a commit, on the condition of the operator's hold and of the journal's revision, and is known to be
//! written before a server hears of it. `Promote` and `Abort` cannot be taken back. Before `Promote` is written nobody
//! promotes; after it nobody unfreezes the old master. A takeover writes the journal again and follows its decision; no
//! decision means `Abort`. Every command goes over a connection that was fenced before the first commit of this part.
//!
//! | file | decides |
//! |---|---|
//! | [`topology`] | what is asked for, what was brought about |
//! | [`server`] | what a server says; when one history contains another |
//! | [`command`] | what a server is told |
//! | [`journal`] | what is written down |
//! | [`begin`] | whether a switch may begin, and why not ([`refusal`]) |
//! | [`heal`] | what is done unasked |
//! | [`late`] | which clients of an old master are closed once more |
//! | [`takeover`] | the first write of one who goes on |
//! | [`step`] | what comes next |
//! | [`roster`] | which server an address means |
//! | [`names`] | who is named by a role |
//! | [`marks`] | whose word is waited for before writes are held |
//! | [`told`] | what people and programs are told of it |
//!
//! The [`lock`] and the numbers of hosts ([`ordinal`]) are matters of their own, each in a folder of its own.

pub mod begin;
pub mod command;
pub mod heal;
pub mod journal;
pub mod late;
pub mod lock;
pub mod marks;
pub mod names;
pub mod ordinal;
pub mod refusal;
pub mod roster;
pub mod safe;
pub mod seen;
pub mod server;
pub mod step;
pub mod takeover;
pub mod told;
pub mod topology;

#[cfg(test)]
mod tests;
