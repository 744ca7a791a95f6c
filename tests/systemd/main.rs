//! wharf under a real systemd, installed as `docs/install.md` says, on a host of the lab.
#![allow(clippy::print_stdout, clippy::unwrap_used, unreachable_pub, dead_code)]

#[path = "../lab/mod.rs"]
mod lab;

#[path = "../provision/cloudformation.rs"]
mod cloudformation;
#[path = "../provision/ignition.rs"]
mod ignition;
#[path = "../provision/vagrant.rs"]
mod vagrant;

mod butane;
mod cell;
mod cloud;
mod connects;
mod ec2;
mod handover;
mod load;
mod machine;
mod stock;

mod everyday;

mod image;
mod page;
mod provision;
mod render;
mod resolve;
mod restart;
mod services;
mod shutdown;
mod unit;
