//! `/v1/topology`: which Redis server is master, and asking for another one; and `PUT /master` and `PUT /dns` on an
//! address of their own, as the programs before spoke.
//!
//! What is asked for is answered when it is done. A request whose asker goes before its turn is not begun.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tracing::info;

use super::error::Problem;
use super::router::Context;
use super::{guard, json, query};
use crate::host::clients::Guest;
use crate::model::steer::told::{Answer, Topologies, Topology};
use crate::model::steer::topology::MAX_TEXT;

/// The largest topology, and what tells that it is too large.
pub(super) const MAX_BODY: usize = MAX_TEXT + 1;
/// How long a question for what is known may take: the servers are looked at for it.
const TOLD: Duration = Duration::from_secs(3);

/// The service that the endpoints of the programs before are for.
#[derive(Clone, Debug)]
pub(super) struct Seed(pub(super) Arc<str>);

/// Something about topologies that is asked of those who steer.
#[derive(Debug)]
pub enum TopologyAsk {
    /// What is known of all of them, or of one.
    Tell(Option<String>, oneshot::Sender<Vec<Topology>>),
    /// Something is to be changed.
    Change {
        /// In which service.
        service: String,
        /// What.
        change: TopologyChange,
        /// Told what came of it: a status and words.
        reply: oneshot::Sender<(u16, Answer)>,
    },
}

/// What is to be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TopologyChange {
    /// Another topology is wanted.
    Apply {
        /// The topology, as it was sent.
        desired: Bytes,
        /// Whether what a person may overrule is overruled.
        force: bool,
        /// Whether only the plan is wanted.
        dry_run: bool,
    },
    /// Names are to be as this topology, as it was sent: they follow what was applied, so it is held against that.
    Name(Bytes),
    /// Nothing is to be done any more, or again.
    Pause(bool),
}

pub(super) async fn all(State(context): State<Context>) -> Result<Response, Problem> {
    let topologies = told(&context.sources.topology, None).await?;
    Ok(json::reply(StatusCode::OK, &Topologies { topologies }))
}

pub(super) async fn one(State(context): State<Context>, Path(name): Path<String>) -> Result<Response, Problem> {
    let found = told(&context.sources.topology, Some(name.clone())).await?;
    let none =
        || Problem::not_found(format!("{name} has no [[topology]] table"), "GET /v1/topology lists those that have");
    Ok(json::reply(StatusCode::OK, found.first().ok_or_else(none)?))
}

async fn told(to: &mpsc::Sender<TopologyAsk>, name: Option<String>) -> Result<Vec<Topology>, Problem> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        to.send(TopologyAsk::Tell(name, reply)).await.ok()?;
        answer.await.ok()
    };
    let told = timeout(TOLD, asked).await.ok().flatten();
    told.ok_or_else(|| Problem::not_yet("topologies are not told of now", "ask again"))
}

pub(super) async fn put(
    State(context): State<Context>,
    Extension(guest): Extension<Guest>,
    Path(service): Path<String>,
    RawQuery(asked): RawQuery,
    (uri, headers): (Uri, HeaderMap),
    desired: Bytes,
) -> Result<Response, Problem> {
    guard::check_deed(guest.peer, &headers, &uri, context.settings.token.as_ref(), guard::TOPOLOGY)?;
    let (mut force, mut dry_run) = (false, false);
    for (key, value) in query::pairs(asked.as_deref().unwrap_or_default()) {
        let is_on = match value.as_str() {
            "1" | "true" => true,
            "0" | "false" => false,
            _ => return Err(Problem::bad_request(format!("{key} is neither 0 nor 1"), "write force=1 or dry_run=1")),
        };
        match key.as_str() {
            "force" => force = is_on,
            "dry_run" => dry_run = is_on,
            _ => return Err(Problem::bad_request(format!("no parameter {key:?}"), "force and dry_run are known")),
        }
    }
    info!(service, force, dry_run, peer = ?guest.peer, "a topology was asked for");
    let (status, answer) = change(&context, &service, TopologyChange::Apply { desired, force, dry_run }).await?;
    Ok(json::reply(status, &answer))
}

pub(super) async fn pause(
    State(context): State<Context>,
    Extension(guest): Extension<Guest>,
    Path(service): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    guard::check_deed(guest.peer, &headers, &uri, context.settings.token.as_ref(), guard::TOPOLOGY)?;
    let pause = method == Method::POST;
    info!(service, pause, peer = ?guest.peer, "a topology's pause was asked for");
    let (status, answer) = change(&context, &service, TopologyChange::Pause(pause)).await?;
    Ok(json::reply(status, &answer))
}

/// Hands a change in, and waits for what comes of it.
async fn change(context: &Context, service: &str, change: TopologyChange) -> Result<(StatusCode, Answer), Problem> {
    let (reply, answer) = oneshot::channel();
    let ask = TopologyAsk::Change { service: service.to_owned(), change, reply };
    let busy = |_| Problem::not_yet("too many topologies are asked for at once", "ask again");
    context.sources.topology.try_send(ask).map_err(busy)?;
    let (status, answer) = answer.await.map_err(|_| Problem::not_yet("the agent is stopping", "ask another one"))?;
    Ok((StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), answer))
}

pub(super) async fn seed_master(
    context: State<Context>,
    guest: Extension<Guest>,
    seed: Extension<Seed>,
    head: (Uri, HeaderMap),
    desired: Bytes,
) -> Result<Response, Problem> {
    seed_put(context, guest, seed, head, TopologyChange::Apply { desired, force: false, dry_run: false }).await
}

pub(super) async fn seed_dns(
    context: State<Context>,
    guest: Extension<Guest>,
    seed: Extension<Seed>,
    head: (Uri, HeaderMap),
    desired: Bytes,
) -> Result<Response, Problem> {
    seed_put(context, guest, seed, head, TopologyChange::Name(desired)).await
}

async fn seed_put(
    State(context): State<Context>,
    Extension(guest): Extension<Guest>,
    Extension(seed): Extension<Seed>,
    (uri, headers): (Uri, HeaderMap),
    what: TopologyChange,
) -> Result<Response, Problem> {
    guard::check_deed(guest.peer, &headers, &uri, context.settings.token.as_ref(), guard::TOPOLOGY)?;
    info!(service = %seed.0, path = uri.path(), peer = ?guest.peer, "a topology was asked for");
    let (status, answer) = change(&context, &seed.0, what).await?;
    Ok(text(status, answer.error.as_deref().unwrap_or("OK")))
}

pub(super) async fn seed_unknown() -> Response {
    text(StatusCode::NOT_FOUND, "Object Not Found")
}

pub(super) async fn seed_wrong_method() -> Response {
    text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}

/// One line, as those programs answered; what servers said in it is made plain.
fn text(status: StatusCode, words: &str) -> Response {
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    (status, [(header::CONTENT_TYPE, kind)], format!("{}\n", crate::model::words::plain::plain(words))).into_response()
}
