//! What finds: the catalog's keeper and those who answer from it.
//! What finds: the catalog's keepers and those who answer from it.

pub mod dns;
mod gauges;
pub mod http;
mod keep;
pub mod mirror;
pub mod nodes;
pub mod view;
