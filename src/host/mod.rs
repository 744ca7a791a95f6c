//! The host itself, as far as an agent on it must know: what its service manager hands over, and when it goes down.

pub mod logind;
pub mod sockets;
