//! What is told of ambassadors: `GET /v1/proxies`, the page, `wharf proxies`.

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
}
