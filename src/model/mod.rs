//! The pure core of this host: names, records, and every decision worth a test. Nothing here knows of tokio, sockets,
//! the clock, the environment or a log; time, randomness and the host's name come in as arguments. What a room may know
//! of the others is told in `ARCHITECTURE.md`.

pub mod etcd_v2;
pub mod health;
pub mod offer;
pub mod publish;
pub mod shares;
pub mod skydns;
pub mod steer;
pub mod words;
