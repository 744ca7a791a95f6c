//! `/v1/autodiscovery`: whom clients of ElastiCache are told of, who of them is away, and whether clients can ask.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::json;
use super::router::Context;
use crate::catalog::facade::autodiscovery::told::Autodiscoveries;

/// Who tells how it stands.
#[derive(Clone)]
pub struct AutodiscoverySource(Arc<dyn Fn() -> Autodiscoveries + Send + Sync>);

impl AutodiscoverySource {
    /// One that asks `told`.
    pub fn new(told: impl Fn() -> Autodiscoveries + Send + Sync + 'static) -> Self {
        Self(Arc::new(told))
    }
}

impl fmt::Debug for AutodiscoverySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AutodiscoverySource")
    }
}

pub(super) async fn autodiscovery(State(context): State<Context>) -> Response {
    json::reply(StatusCode::OK, &(context.sources.autodiscovery.0)())
}
