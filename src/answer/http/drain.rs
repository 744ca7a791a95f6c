//! `POST /v1/drain` and `DELETE /v1/drain`: the one thing that HTTP changes. A drain is 200 once the store has nothing
//! of this host, 202 while that is on its way.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::info;

use super::error::Problem;
use super::guard;
use super::json;
use super::router::Context;
use crate::catalog::facade::api;
use crate::host::clients::Guest;
use crate::model::publish::local::{Awaited, Local};

const CONFIRM: Duration = Duration::from_secs(5);
/// How long the store has to confirm what is withdrawn; after that it is said what is waited for.
const WITHDRAWAL: Duration = Duration::from_secs(3);

/// Asks for this host to be drained, or to offer again.
#[derive(Debug)]
pub struct DrainRequest {
    /// Drain, or end it.
    pub drain: bool,
    /// Told once it is remembered and under way, with the masters that stay here and why, or why it cannot be.
    pub reply: oneshot::Sender<Result<Vec<String>, String>>,
}

pub(super) async fn drain(
    State(context): State<Context>,
    Extension(guest): Extension<Guest>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    guard::check_deed(guest.peer, &headers, &uri, context.settings.token.as_ref(), guard::DRAIN)?;
    let drain = method == Method::POST;
    info!(drain, peer = ?guest.peer, "drain was asked for");
    let stays = ask(&context.sources.drain, drain).await?.into_iter().map(Into::into).collect();
    let awaits = if drain {
        awaited(context.sources.local.clone()).await.map(|awaited| awaited.to_string().into())
    } else {
        None
    };
    let status = if awaits.is_none() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(json::reply(status, &api::Drain { drained: drain, awaits, stays }))
}

/// What the withdrawal still waits for after its time.
async fn awaited(mut local: watch::Receiver<Arc<Local>>) -> Option<Awaited> {
    // Whatever became of the wait, what is awaited now counts.
    let _ = timeout(WITHDRAWAL, local.wait_for(|local| local.awaits().is_none())).await;
    local.borrow().awaits()
}

async fn ask(to: &mpsc::Sender<DrainRequest>, drain: bool) -> Result<Vec<String>, Problem> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        to.send(DrainRequest { drain, reply }).await.ok()?;
        answer.await.ok()
    };
    match timeout(CONFIRM, asked).await {
        Ok(Some(Ok(stays))) => Ok(stays),
        Ok(Some(Err(why))) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, why, "see the agent's log")),
        Ok(None) => Err(Problem::not_yet("the agent is stopping", "ask again once it runs")),
        Err(_) => {
            Err(Problem::not_yet("the drain was not confirmed within 5 s", "see GET /v1/local for what became of it"))
        }
    }
}
