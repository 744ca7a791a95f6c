//! What follows the store: the catalog's keeper, the list of nodes, the file that outlasts a restart.

mod few;
mod gauges;
pub mod heads;
pub mod keep;
pub mod mirror;
pub mod nodes;
