//! wharf knows what is docked at which berth of every host: it offers what serves on this host, and finds what
//! serves in the cluster. `ARCHITECTURE.md` is the map; a module imports only from its own floor's model types and
//! from the floors below it.

// Floor 0: pure values and rules.
pub mod catalog;
pub mod model;

// Floor 1: adapters, each for one outside thing.
pub mod config;
pub mod docker;
pub mod host;
pub mod state;
pub mod store;
pub mod view;
pub mod wire;

// Floor 2: the workers.
pub mod answer;
pub mod cli;
pub mod follow;
pub mod lock;
pub mod offer;
pub mod proxy;
pub mod render;
pub mod steer;

// Floor 3: only here may two workers be known at once.
pub mod app;
pub mod notify;
pub mod pulse;
pub mod supervisor;
pub mod telemetry;
