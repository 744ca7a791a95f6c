//! What is told of rendered files: `GET /v1/renders`, the page, `wharf render`.

use serde::{Deserialize, Serialize};

use crate::model::words::record::Text;

/// `GET /v1/renders`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Renders {
    /// Every table, in the order of the settings.
    pub renders: Vec<Render>,
}

/// How one table stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Render {
    /// Its name.
    pub name: Text,
    /// The file that is written.
    pub destination: Text,
    /// What it is made from: a template's file, or a built-in's name.
    pub template: Text,
    /// `starting`, `current`, `waiting`, `refused`, `failed` or `wrong`.
    pub state: Text,
    /// Why the last change is not in the file, or not loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
    /// What it depends on.
    pub needs: Vec<Text>,
    /// RFC 3339 time of the last change of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed: Option<Text>,
    /// The file is written and its reload has not gone well yet.
    pub reload_owed: bool,
    /// Times that the file was written since the start.
    pub writes: u64,
    /// Times that its check failed since the start.
    pub refusals: u64,
    /// Reloads since the start.
    pub reloads: u64,
    /// Reloads that failed since the start.
    pub failures: u64,
}
