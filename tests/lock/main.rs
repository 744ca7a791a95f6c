//! `wharf lock` on a real etcd, with real processes: whatever is broken, no two programs ever run at once, by their own
//! stamps of CLOCK_BOOTTIME; and the next one runs in time.
//!
//! `WHARF_DRILL=1` lives through each row fifty times.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs, unreachable_pub)]
// Processes are started and waited for; nothing here needs a runtime meanwhile.
#![allow(clippy::disallowed_methods)]

#[path = "../etcd/mod.rs"]
mod etcd;
#[path = "../program/mod.rs"]
mod program;

mod fences;
mod ground;
mod losses;
mod manners;
