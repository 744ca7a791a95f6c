//! The offering half: what runs on this host becomes instances, probes tell which of them serve, and the registrar
//! publishes those.

pub mod drain;
pub mod inventory;
pub mod probe;
pub mod registrar;
pub mod roll;
