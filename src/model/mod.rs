//! The pure core: names, records, and every decision worth a test. Nothing here knows of tokio, sockets, the clock,
//! the environment or a log; time, randomness and the host's name come in as arguments.

pub mod adopted;
pub mod advertise;
pub mod api;
pub mod catalog;
pub mod cgroup;
pub mod container;
pub mod dns;
pub mod health;
pub mod hold;
pub mod instance;
pub mod inventory;
pub mod key;
pub mod local;
pub mod memory;
pub mod name;
pub mod naming;
pub mod near;
pub mod node;
pub mod plain;
pub mod plan;
pub mod record;
pub(crate) mod select;
pub mod shares;
pub mod standing;
pub mod steer;
pub mod steps;
pub mod view;
pub mod zone;
