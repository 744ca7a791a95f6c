//! `POST /v1/drain` and `DELETE /v1/drain`: withdraws this host, or one service or instance of it, and offers it again.
//! A drain of the host is 200 once the store has nothing of it, 202 while that is on its way.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

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
use super::query;
use super::router::Context;
use crate::catalog::facade::api;
use crate::host::clients::Guest;
use crate::model::publish::local::{Awaited, Local};
use crate::model::publish::maintenance::Withdrawn;

const CONFIRM: Duration = Duration::from_secs(5);
/// How long the store has to confirm what is withdrawn; after that it is said what is waited for.
const WITHDRAWAL: Duration = Duration::from_secs(3);

/// Asks for this host to be drained, or to offer again.
#[derive(Debug)]
pub struct DrainRequest {
    /// Drain, or end it.
    pub drain: bool,
    /// A service, an instance's id or a container's name; none is the whole host.
    pub what: Option<String>,
    /// By whose word.
    pub who: String,
    /// Why.
    pub reason: String,
    /// Told once it is remembered and under way, with the masters that stay here and why, or why it cannot be.
    pub reply: oneshot::Sender<Result<Vec<String>, NotDrained>>,
}

/// Why a drain was not begun, or not ended, in words for whoever asked.
#[derive(Debug)]
pub enum NotDrained {
    /// What is to be offered again was not drained.
    Unknown(String),
    /// It failed here.
    Failed(String),
}

/// What a drain is asked for with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Asked {
    what: Option<String>,
    who: Option<String>,
    reason: Option<String>,
}

impl Asked {
    fn parse(uri: &Uri) -> Result<Self, Problem> {
        let mut asked = Self::default();
        for (key, value) in query::pairs(uri.query().unwrap_or_default()) {
            match key.as_str() {
                "what" => asked.what = Some(value),
                "who" => asked.who = Some(value),
                "reason" => asked.reason = Some(value),
                _ => {
                    let hint = "what, who and reason are known";
                    return Err(Problem::bad_request(format!("no parameter {key:?}"), hint));
                }
            }
        }
        if asked.what.as_deref() == Some("") {
            return Err(Problem::bad_request("nothing is named", "what is a service, an instance's id or a container"));
        }
        Ok(asked)
    }

    /// Whether this host has what is named: a slip would drain nothing, and nobody would know.
    fn is_here(&self, local: &Local) -> bool {
        let Some(what) = &self.what else { return true };
        let named = Withdrawn::new(Some(what), "", "", SystemTime::UNIX_EPOCH);
        local.instances.iter().any(|shown| named.means(&shown.instance))
    }
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
    let asked = Asked::parse(&uri)?;
    let what = asked.what.clone();
    info!(drain, ?what, who = ?asked.who, reason = ?asked.reason, peer = ?guest.peer, "drain was asked for");
    if drain && !asked.is_here(&context.sources.local.borrow()) {
        let what = what.unwrap_or_default();
        return Err(Problem::not_found(
            format!("nothing called {what:?} is offered by this host"),
            "see wharf explain",
        ));
    }
    let stays = ask(&context.sources.drain, drain, asked, &guest).await?.into_iter().map(Into::into).collect();
    let awaits = if drain && what.is_none() {
        awaited(context.sources.local.clone()).await.map(|awaited| awaited.to_string().into())
    } else {
        None
    };
    let status = if awaits.is_none() { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok(json::reply(status, &api::Drain { drained: drain, what: what.map(Into::into), awaits, stays }))
}

/// What the withdrawal still waits for after its time.
async fn awaited(mut local: watch::Receiver<Arc<Local>>) -> Option<Awaited> {
    // Whatever became of the wait, what is awaited now counts.
    let _ = timeout(WITHDRAWAL, local.wait_for(|local| local.awaits().is_none())).await;
    local.borrow().awaits()
}

async fn ask(
    to: &mpsc::Sender<DrainRequest>,
    drain: bool,
    asked: Asked,
    guest: &Guest,
) -> Result<Vec<String>, Problem> {
    let (reply, answer) = oneshot::channel();
    let Asked { what, who, reason } = asked;
    let who = who.unwrap_or_else(|| guest.peer.to_string());
    let request = DrainRequest { drain, what, who, reason: reason.unwrap_or_default(), reply };
    let asked = async {
        to.send(request).await.ok()?;
        answer.await.ok()
    };
    match timeout(CONFIRM, asked).await {
        Ok(Some(Ok(stays))) => Ok(stays),
        Ok(Some(Err(NotDrained::Unknown(why)))) => Err(Problem::not_found(why, "wharf explain shows what is drained")),
        Ok(Some(Err(NotDrained::Failed(why)))) => {
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, why, "see the agent's log"))
        }
        Ok(None) => Err(Problem::not_yet("the agent is stopping", "ask again once it runs")),
        Err(_) => {
            Err(Problem::not_yet("the drain was not confirmed within 5 s", "see GET /v1/local for what became of it"))
        }
    }
}
