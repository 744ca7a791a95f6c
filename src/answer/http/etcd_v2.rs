//! `/v1/etcd-v2`: how etcd's v2 API stands on this host.

use std::time::SystemTime;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::json;
use super::router::Context;

pub(super) async fn etcd_v2(State(context): State<Context>) -> Response {
    let told = context.sources.etcd_v2.borrow().told(SystemTime::now());
    json::reply(StatusCode::OK, &told)
}
