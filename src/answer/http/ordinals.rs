//! `/v1/ordinals`: this host's numbers, and whose host has which.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::json;
use super::router::Context;
use crate::catalog::facade::api;
use crate::model::words::record::Text;

pub(super) async fn ordinals(State(context): State<Context>) -> Response {
    let nodes = Arc::clone(&context.sources.nodes.borrow());
    let mut hosts = BTreeMap::<Text, BTreeMap<u32, Text>>::new();
    for node in &nodes.nodes {
        for (role, number) in &node.ordinals {
            hosts.entry(role.clone()).or_default().insert(*number, node.node.clone());
        }
    }
    let ordinals = context.sources.ordinals.borrow().as_ref().clone();
    json::reply(StatusCode::OK, &api::Ordinals { ordinals, stale: nodes.stale, hosts })
}
