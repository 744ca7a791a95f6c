//! wharf under a real systemd, installed as `docs/install.md` says, on a host of the lab.
#![allow(clippy::print_stdout, clippy::unwrap_used, unreachable_pub, dead_code)]

#[path = "../lab/mod.rs"]
mod lab;

#[path = "../provision/cloudformation.rs"]
mod cloudformation;
#[path = "../provision/ignition.rs"]
mod ignition;

mod butane;
mod cloud;
mod connects;
mod ec2;
mod handover;
mod load;
mod machine;

mod everyday;

mod image;
mod page;
mod provision;
mod resolve;
mod restart;
mod shutdown;
mod unit;
