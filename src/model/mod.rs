//! The pure core: names, records, and every decision worth a test. Nothing here knows of tokio, sockets, the clock,
//! the environment or a log; time, randomness and the host's name come in as arguments.

pub mod catalog;
pub mod dns;
pub mod hold;
pub mod instance;
pub mod key;
pub mod name;
pub mod record;
pub mod standing;
pub mod zone;
