//! Probes against real servers, each started by the test that needs it, and against listeners that mean no good.

#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod caches;
mod dump;
mod fleet;
mod harness;
mod hostile;
mod mongo;
mod redis;
mod servers;
mod sql;
mod thief;
mod traces;
