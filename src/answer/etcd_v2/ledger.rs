//! What clients met: written down where it happens, and told over HTTP by whoever reads the other end.

use std::sync::Arc;
use std::time::SystemTime;

use axum::http::{Method, StatusCode, Uri};
use axum::response::Response;
use tokio::sync::watch;

use super::metrics::EtcdV2Metrics;
use crate::catalog::facade::etcd_v2::Standing;
use crate::host::clients::Peer;
use crate::model::etcd_v2::{Code, Fault, NodePath};

/// The ledger. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    standing: Arc<watch::Sender<Standing>>,
    metrics: EtcdV2Metrics,
}

/// Why a request was not met; it travels with the response to where that is noted.
#[derive(Clone, Debug)]
struct Noted(Fault);

impl Ledger {
    pub(super) fn new(standing: watch::Sender<Standing>, metrics: EtcdV2Metrics) -> Self {
        Self { standing: Arc::new(standing), metrics }
    }

    pub(super) fn listens(&self, address: Option<std::net::SocketAddr>) {
        let listen = address.map(|address| address.to_string().into());
        self.standing.send_modify(|standing| standing.listen = listen);
    }

    /// The watch of a tree runs, or why it does not.
    pub(super) fn tree(&self, root: &NodePath, is_in_step: Result<(), String>) {
        self.standing.send_modify(|standing| {
            let root = root.as_str().into();
            match is_in_step {
                Ok(()) => drop(standing.away.remove(&root)),
                Err(why) => {
                    let since = standing.away.get(&root).map_or_else(SystemTime::now, |(since, _)| *since);
                    standing.away.insert(root, (since, why.into()));
                }
            }
            self.metrics.away.set(i64::try_from(standing.away.len()).unwrap_or(i64::MAX));
        });
    }

    /// Notes what a response says that is trouble; a key that is not there is none.
    pub(super) fn note(&self, peer: Peer, method: &Method, uri: &Uri, response: &mut Response) {
        let Some(Noted(fault)) = response.extensions_mut().remove() else { return };
        let is_refused = fault.code == Code::Unauthorized;
        if !is_refused && fault.status < StatusCode::INTERNAL_SERVER_ERROR.as_u16() {
            return;
        }
        let client = match peer {
            Peer::Tcp(address) => address.to_canonical().to_string(),
            Peer::Unix(_) | Peer::Inside => "this host".to_owned(),
        };
        let request = format!("{method} {}", uri.path());
        self.standing.send_modify(|standing| {
            let met = if is_refused { &mut standing.refused } else { &mut standing.failed };
            Standing::note(met, SystemTime::now(), &client, &request, &fault.cause);
        });
    }
}

/// A response that says why.
pub(super) fn noted(mut response: Response, fault: &Fault) -> Response {
    response.extensions_mut().insert(Noted(fault.clone()));
    response
}
