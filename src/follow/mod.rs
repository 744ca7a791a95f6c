//! What follows the store: the catalog's keeper, the lists of nodes and members, the file that outlasts a restart.

mod few;
mod gauges;
pub mod heads;
pub mod keep;
pub mod leaderless;
pub mod locks;
pub mod members;
pub mod mirror;
pub mod nodes;
pub mod patroni;
