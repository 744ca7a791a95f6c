//! What is told of ambassadors: `GET /v1/proxies`, the page, `wharf proxies`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::words::record::Text;

/// `GET /v1/proxies`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Proxies {
    /// Every table, in the order of the settings.
    pub proxies: Vec<Proxy>,
}

/// How one table stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Proxy {
    /// Its name.
    pub name: Text,
    /// Where it listens.
    pub listen: Vec<Text>,
    /// Where new connections go; none while they wait.
    pub target: Option<Text>,
    /// Why they wait, or why it does not listen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
    /// Connections that run now.
    pub connections: u64,
    /// Connections that wait for an endpoint now.
    pub parked: u64,
    /// Connections cut since the start.
    pub cut: u64,
    /// Connections refused since the start.
    pub refused: u64,
    /// Bytes moved since the start, in both directions.
    pub bytes: u64,
    /// The counts by reason, which a process apart tells its agent and nobody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
}

/// What is counted of one table since its process started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Endpoints that could not be reached.
    pub unreached: u64,
    /// Sessions that went on with another server.
    pub moved: u64,
    /// Connections cut, by why.
    pub cut: BTreeMap<String, u64>,
    /// Connections refused, by why.
    pub refused: BTreeMap<String, u64>,
    /// Bytes to the server.
    pub up: u64,
    /// Bytes from the server.
    pub down: u64,
}
