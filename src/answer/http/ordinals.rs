//! `/v1/ordinals`: this host's numbers, and whose host has which; a number is claimed and freed by a person's word.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;
use futures_util::future::BoxFuture;
use tracing::info;

use super::error::Problem;
use super::router::Context;
use super::{guard, json, query};
use crate::catalog::facade::api;
use crate::host::clients::Guest;
use crate::model::steer::ordinal::told::Standing;
use crate::model::words::ordinal::RoleName;
use crate::model::words::record::Text;

/// A person's word about the number of a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrdinalAsk {
    /// This host shall have one.
    Claim {
        /// A new one where the old one is another host's.
        renumber: bool,
    },
    /// It is free.
    Release {
        /// The host that has it; this one where none is named.
        node: Option<String>,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrdinalDone {
    /// The host stands so.
    Stands(Standing),
    /// A number was freed.
    Freed {
        /// The host that had it.
        node: String,
        /// The number.
        number: u32,
        /// Whether it is free now, or as soon as the host's agent has seen that.
        is_free: bool,
    },
    /// The host has none.
    None {
        /// The host.
        node: String,
    },
}

type Asking = dyn Fn(RoleName, OrdinalAsk) -> BoxFuture<'static, Result<OrdinalDone, String>> + Send + Sync;

/// Whom to ask.
#[derive(Clone)]
pub struct OrdinalSource(Arc<Asking>);

impl OrdinalSource {
    /// One that asks so.
    pub fn new(
        ask: impl Fn(RoleName, OrdinalAsk) -> BoxFuture<'static, Result<OrdinalDone, String>> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(ask))
    }
}

impl fmt::Debug for OrdinalSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OrdinalSource")
    }
}

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

/// What is asked for: `POST` claims (`?renumber=1`), `DELETE` frees (`?node=NAME`).
fn parse(method: &Method, uri: &Uri) -> Result<OrdinalAsk, Problem> {
    let (mut renumber, mut node) = (false, None);
    let claims = method == Method::POST;
    for (key, value) in query::pairs(uri.query().unwrap_or_default()) {
        match (key.as_str(), value.as_str()) {
            ("renumber", "1" | "true") if claims => renumber = true,
            ("renumber", "0" | "false") if claims => {}
            ("node", name) if !claims && !name.is_empty() => node = Some(value),
            _ => {
                let hint = "POST takes renumber=1, DELETE takes node=NAME";
                return Err(Problem::bad_request(format!("{key}={value:?} means nothing here"), hint));
            }
        }
    }
    Ok(if claims { OrdinalAsk::Claim { renumber } } else { OrdinalAsk::Release { node } })
}

pub(super) async fn change(
    State(context): State<Context>,
    Extension(guest): Extension<Guest>,
    Path(role): Path<String>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    guard::check_deed(guest.peer, &headers, &uri, context.settings.token.as_ref(), guard::ORDINAL)?;
    let role = RoleName::parse(&role).map_err(|what| Problem::bad_request(what, "a role is a DNS label"))?;
    let ask = parse(&method, &uri)?;
    info!(%role, ?ask, peer = ?guest.peer, "a number was asked for");
    match (context.sources.ordinal.0)(role.clone(), ask).await {
        Ok(OrdinalDone::Stands(standing)) => Ok(json::reply(StatusCode::OK, &standing)),
        Ok(OrdinalDone::Freed { node, number, is_free }) => {
            Ok(json::reply(StatusCode::OK, &api::Freed { node: node.into(), number, free: is_free }))
        }
        Ok(OrdinalDone::None { node }) => {
            let hint = "GET /v1/ordinals lists those of the hosts that are up";
            Err(Problem::new(StatusCode::NOT_FOUND, format!("{node} has no number of {role}"), hint))
        }
        Err(why) => Err(Problem::not_yet(format!("numbers of {role} cannot be looked at: {why}"), "ask again")),
    }
}
