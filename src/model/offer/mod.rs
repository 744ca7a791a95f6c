//! From a container to what this host means to offer: its labels, its ports, where it is reached.

pub mod advertise;
pub mod cgroup;
pub mod container;
pub mod instance;
pub mod inventory;
pub mod naming;
