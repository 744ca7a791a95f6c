//! `DELETE /v1/nodes/NAME`: a lost host is gone for good, and nobody has to miss it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tracing::info;

use super::error::Problem;
use super::guard;
use super::json;
use super::router::Context;
use crate::catalog::facade::api;
use crate::host::clients::Guest;

/// How long the store has to take it.
const CONFIRM: Duration = Duration::from_secs(5);

type Asking = dyn Fn(String) -> BoxFuture<'static, Result<usize, String>> + Send + Sync;

/// Whom to ask: how many records of a host of this name went, or why none.
#[derive(Clone)]
pub struct ForgetSource(Arc<Asking>);

impl ForgetSource {
    /// One that asks so.
    pub fn new(ask: impl Fn(String) -> BoxFuture<'static, Result<usize, String>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(ask))
    }
}

impl fmt::Debug for ForgetSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ForgetSource")
    }
}

pub(super) async fn forget(
    State(context): State<Context>,
    Extension(guest): Extension<Guest>,
    Path(node): Path<String>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    guard::check_deed(guest.peer, &headers, &uri, context.settings.token.as_ref(), guard::FORGET)?;
    info!(node, peer = ?guest.peer, "a host is to be forgotten");
    let hint = "see `wharf nodes`";
    match timeout(CONFIRM, (context.sources.forget.0)(node.clone())).await {
        Ok(Ok(0)) => Err(Problem::new(StatusCode::NOT_FOUND, format!("no lost host is called {node:?}"), hint)),
        Ok(Ok(_)) => Ok(json::reply(StatusCode::OK, &api::Forgotten { forgotten: node.as_str().into() })),
        Ok(Err(why)) => Err(Problem::new(StatusCode::CONFLICT, format!("{node:?} is not forgotten: {why}"), hint)),
        Err(_) => Err(Problem::not_yet("the store has not confirmed it within 5 s", hint)),
    }
}
