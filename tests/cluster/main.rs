//! Everything that is tested on the three-host lab, in one program, so that one lab serves it all.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../lab/mod.rs"]
mod lab;

mod adoption;
mod builds;
mod faults;
mod lab_itself;
mod lock;
mod migration;
mod outage;
mod seed_postgres;
mod switch;
mod thread;
