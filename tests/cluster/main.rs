//! Everything that is tested on the three-host lab, in one program, so that one lab serves it all.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

#[path = "../lab/mod.rs"]
mod lab;

mod adoption;
mod autodiscovery;
mod builds;
mod cell;
mod faults;
#[path = "../zookeeper/kazoo.rs"]
mod kazoo;
mod lab_itself;
mod lock;
#[path = "../mcrouter/mod.rs"]
mod mcrouter;
mod migration;
mod near;
mod outage;
mod render;
mod switch;
mod thread;
