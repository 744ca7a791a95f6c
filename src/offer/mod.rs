//! The offering half: what runs on this host becomes instances, probes tell which of them serve, and the registrar
//! publishes those.

pub mod drain;
pub mod registrar;
//! The offering half: from what Docker runs to what this host publishes.

pub mod probe;
