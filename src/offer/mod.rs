//! The offering half: from what Docker runs to what this host publishes.

pub mod probe;
