//! `/v1/proxies`: how the ambassadors of this host stand. A process that serves some apart from the agent tells it, and
//! is forgotten when it does so no more.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use tokio::time::Instant;

use super::error::Problem;
use super::router::Context;
use super::{guard, json};
use crate::catalog::proxy::told::Proxies;
use crate::host::clients::Guest;

/// The largest report: some hundred tables.
pub(super) const MAX_BODY: usize = 64 * 1024;
/// How long a report counts: three times as long as it is until the next one.
const COUNTS: Duration = Duration::from_secs(6);

/// Who tells how they stand.
#[derive(Clone)]
pub struct ProxySource {
    own: Arc<dyn Fn() -> Proxies + Send + Sync>,
    /// Shows among the metrics what is reported.
    mirror: Arc<dyn Fn(&Proxies) + Send + Sync>,
    reported: Arc<Mutex<Option<(Instant, Proxies)>>>,
}

impl ProxySource {
    /// One that asks `own` for those of this process, and shows those of others by `mirror`.
    pub fn new(
        own: impl Fn() -> Proxies + Send + Sync + 'static,
        mirror: impl Fn(&Proxies) + Send + Sync + 'static,
    ) -> Self {
        Self { own: Arc::new(own), mirror: Arc::new(mirror), reported: Arc::default() }
    }

    /// Takes what a process apart tells.
    fn take(&self, mut told: Proxies) {
        (self.mirror)(&told);
        told.proxies.iter_mut().for_each(|proxy| proxy.counts = None);
        *self.reported() = Some((Instant::now(), told));
    }

    /// Forgets a process that tells nothing any more, before somebody is shown the metrics.
    pub(super) fn forget(&self) {
        let mut reported = self.reported();
        if reported.as_ref().is_some_and(|(at, _)| at.elapsed() >= COUNTS) {
            *reported = None;
            (self.mirror)(&Proxies::default());
        }
    }

    /// Those of this process, and those that another one has told of.
    pub fn told(&self) -> Proxies {
        let mut told = (self.own)();
        let reported = self.reported();
        let fresh = reported.as_ref().filter(|(at, _)| at.elapsed() < COUNTS);
        told.proxies.extend(fresh.into_iter().flat_map(|(_, others)| others.proxies.iter().cloned()));
        told
    }

    fn reported(&self) -> MutexGuard<'_, Option<(Instant, Proxies)>> {
        self.reported.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for ProxySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProxySource")
    }
}

pub(super) async fn proxies(State(context): State<Context>) -> Response {
    json::reply(StatusCode::OK, &context.sources.proxies.told())
}

/// Takes what a process apart tells.
pub(super) async fn report(
    State(context): State<Context>,
    Extension(guest): Extension<Guest>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    guard::check_deed(guest.peer, &headers, &uri, context.settings.token.as_ref(), guard::REPORT)?;
    let told: Proxies = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad_request(format!("that is no report of ambassadors: {error}"), "it is what GET /v1/proxies tells")
    })?;
    context.sources.proxies.take(told);
    Ok(json::reply(StatusCode::OK, &context.sources.proxies.told()))
}
