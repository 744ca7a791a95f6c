//! What finds: the catalog's keepers and those who answer from it.

pub mod http;
pub mod nodes;
pub mod view;
