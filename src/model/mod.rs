//! The pure core: names, records, and every decision worth a test. Nothing here knows of tokio, sockets, the clock,
//! the environment or a log; time, randomness and the host's name come in as arguments.

pub mod advertise;
pub mod container;
pub mod instance;
pub mod inventory;
pub mod key;
pub mod name;
pub mod naming;
pub mod record;
pub mod standing;
