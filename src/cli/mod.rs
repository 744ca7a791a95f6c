//! The command line's side: what people and scripts run against an agent.

pub mod age;
pub mod client;
pub mod exit;
pub mod output;
pub mod services;
pub mod table;
pub mod terminal;
