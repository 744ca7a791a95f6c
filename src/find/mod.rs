//! The finding half: keeps the cluster's catalog and answers from it.

pub mod dns;
mod gauges;
mod keep;
pub mod mirror;
pub mod view;
