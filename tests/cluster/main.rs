//! Everything that is tested on the three-host lab, in one program, so that one lab serves it all.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../lab/mod.rs"]
mod lab;

mod adoption;
mod autodiscovery;
mod builds;
mod faults;
mod lab_itself;
mod migration;
mod near;
mod outage;
mod switch;
mod thread;
