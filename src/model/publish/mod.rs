//! From what is wanted and what is held to writes, and what an agent remembers and tells of them.

pub mod local;
pub mod maintenance;
pub mod memory;
pub mod node;
pub mod op;
pub mod pace;
pub mod plan;
pub mod view;
