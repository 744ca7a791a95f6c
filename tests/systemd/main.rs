//! wharf under a real systemd, installed as `docs/install.md` says, on a host of the lab.
#![allow(clippy::unwrap_used, unreachable_pub)]

#[path = "../lab/mod.rs"]
mod lab;

mod machine;

mod boot;
mod resolve;
mod restart;
mod shutdown;
mod unit;
