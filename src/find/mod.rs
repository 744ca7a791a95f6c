//! What finds: the catalog's keeper and those who answer from it.

pub mod dns;
mod gauges;
pub mod heads;
pub mod http;
pub mod keep;
pub mod mirror;
pub mod nodes;
pub mod view;
