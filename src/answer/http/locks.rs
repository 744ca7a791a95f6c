//! `/v1/locks`: who has which lock of the cluster, and who waits for it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::json;
use super::router::Context;

pub(super) async fn locks(State(context): State<Context>) -> Response {
    let locks = Arc::clone(&context.sources.locks.borrow());
    json::reply(StatusCode::OK, &*locks)
}
