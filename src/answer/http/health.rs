//! `/healthz`, `/readyz` and `/metrics`: for those who watch the agent itself.

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::error::Problem;
use super::json;
use super::plain_metrics;
use super::router::Context;
use crate::host::clients::Guest;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What must be there before this host answers as it should.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// DNS is bound.
    pub dns: bool,
    /// The catalog has been read from the store since the start, or the embedded store serves.
    pub catalog: bool,
}

impl Readiness {
    /// What is missing, in words; nothing when ready.
    fn missing(self) -> Vec<&'static str> {
        let dns = (!self.dns).then_some("DNS is not bound yet");
        let catalog = (!self.catalog).then_some("the catalog has not been read from the store yet");
        dns.into_iter().chain(catalog).collect()
    }
}

#[derive(Serialize)]
struct Alive<'a> {
    status: &'static str,
    version: &'a str,
}

pub(super) async fn healthz(State(context): State<Context>) -> Response {
    json::reply(StatusCode::OK, &Alive { status: "ok", version: &context.settings.version })
}

pub(super) async fn readyz(State(context): State<Context>) -> Result<Response, Problem> {
    let missing = context.sources.ready.borrow().missing();
    if missing.is_empty() {
        return Ok(json::reply(StatusCode::OK, &Alive { status: "ready", version: &context.settings.version }));
    }
    Err(Problem::not_yet(missing.join("; "), "ask again, or see the agent's log and GET /v1/local"))
}

pub(super) async fn metrics(
    State(context): State<Context>,
    Extension(guest): Extension<Guest>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    context.sources.proxies.forget();
    let registry = context.sources.registry.clone();
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|accept| accept.to_str().ok());
    let is_open = accepted.into_iter().any(plain_metrics::wants_open_metrics);
    let text = context.workbench.run(&guest, move || {
        let mut text = String::with_capacity(16 * 1024);
        let written = prometheus_client::encoding::text::encode(&mut text, &registry);
        written.map(|()| if is_open { text } else { plain_metrics::of_open_metrics(&text) })
    });
    let text = text.await.map_err(|_| Problem::not_yet("a metric could not be written", "ask again"))?;
    let kind = HeaderValue::from_static(if is_open { OPEN_METRICS } else { plain_metrics::PLAIN });
    Ok(([(header::CONTENT_TYPE, kind), (header::VARY, HeaderValue::from_static("accept"))], text).into_response())
}
