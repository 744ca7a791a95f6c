//! Exhibitor's API, on an address of its own: what clients and load balancers of a cell ask of a ZooKeeper ensemble.
//!
//! It only tells. Starting, stopping and restarting servers is refused: whatever runs them does that.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use serde::Serialize;

use super::error::Problem;
use super::json;
use super::router::Context;
use super::shape::is_stale;
use crate::catalog::facade::api;
use crate::catalog::facade::zookeeper::cell::Cell;
use crate::catalog::facade::zookeeper::exhibitor::{List, State as MemberState, Status};
use crate::model::words::ordinal::RoleName;

const FORM: &str = "application/x-www-form-urlencoded";
const JSON: &str = "application/json";
/// Only so much of an Accept is read: real ones name a handful.
const MAX_RANGES: usize = 32;

/// Where it is served, and of whom it tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exhibitor {
    /// Where.
    pub listen: SocketAddr,
    /// The service whose instances are the members.
    pub service: String,
    /// The role in whose order they are listed.
    pub ordinal: Option<RoleName>,
}

/// Every route. What is counted and checked of each request is the caller's.
pub(super) fn router() -> Router<Context> {
    let mut router = Router::new()
        .route("/exhibitor/v1/cluster/list", get(list))
        .route("/exhibitor/v1/cluster/status", get(status))
        .route("/exhibitor/v1/cluster/state", get(state))
        .route("/exhibitor/v1/cluster/state/{host}", get(state_of))
        .route("/exhibitor/v1/cluster/node/serving", get(serving));
    for deed in ["start", "stop", "restart"] {
        let path = format!("/exhibitor/v1/cluster/{deed}");
        router = router.route(&path, any(refused)).route(&format!("{path}/{{host}}"), any(refused));
    }
    router.fallback(unknown).method_not_allowed_fallback(wrong_method)
}

/// Says of an answer that it is what was known last. Exhibitor's bodies have no word for that; the header is HTTP's own
/// (RFC 7234, section 5.5), and whoever does not know it reads the same list as before.
pub(super) fn date(context: &Context, headers: &mut HeaderMap) {
    if is_stale(&context.sources.catalog, &context.sources.catalog.load()) {
        headers.insert(header::WARNING, HeaderValue::from_static("110 wharf \"Response is Stale\""));
    }
}

/// The endpoint's name among the metrics.
pub(super) fn endpoint(path: &str) -> &'static str {
    match path.strip_prefix("/exhibitor/v1/cluster/") {
        Some("list") => "/exhibitor/v1/cluster/list",
        Some("status") => "/exhibitor/v1/cluster/status",
        Some("node/serving") => "/exhibitor/v1/cluster/node/serving",
        Some(rest) if rest == "state" || rest.starts_with("state/") => "/exhibitor/v1/cluster/state",
        _ => "/exhibitor/…",
    }
}

fn cell(context: &Context) -> Cell {
    let Some(settings) = &context.settings.exhibitor else { return Cell::default() };
    let catalog = context.sources.catalog.load();
    let found = catalog.service(&context.sources.zones, &settings.service);
    let found = found.as_ref().map(api::Service::from);
    let nodes = Arc::clone(&context.sources.nodes.borrow());
    Cell::of(&settings.service, found.as_ref(), &nodes.nodes, settings.ordinal.as_ref())
}

async fn list(State(context): State<Context>, headers: HeaderMap) -> Response {
    let list = List::of(&cell(&context));
    match wanted(&headers) {
        Some(JSON) => json::raw(StatusCode::OK, Body::from(json::bytes(&list))),
        Some(kind) => ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], list.form()).into_response(),
        None => Problem::new(
            StatusCode::NOT_ACCEPTABLE,
            "the list is told as JSON or as a form",
            "send Accept: application/json or application/x-www-form-urlencoded",
        )
        .into_response(),
    }
}

/// The kind of answer that a client likes best; JSON where it has no preference.
fn wanted(headers: &HeaderMap) -> Option<&'static str> {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let ranges: Vec<(&str, u16)> = accepts.flat_map(|value| value.split(',')).take(MAX_RANGES).map(range).collect();
    if ranges.is_empty() {
        return Some(JSON);
    }
    let quality = |kind: &str| {
        let group = kind.split_once('/').map_or("", |(group, _)| group);
        let fits = |range: &str| match range.split_once('/') {
            _ if range.eq_ignore_ascii_case(kind) => 3,
            Some((wide, "*")) if wide.eq_ignore_ascii_case(group) => 2,
            Some(("*", "*")) => 1,
            _ => 0,
        };
        // The most particular range counts (RFC 9110, section 12.5.1).
        let best = ranges.iter().filter(|(range, _)| fits(range) > 0).max_by_key(|(range, _)| fits(range));
        best.map_or(0, |(_, quality)| *quality)
    };
    let (json, form) = (quality(JSON), quality(FORM));
    match (json, form) {
        (0, 0) => None,
        (json, form) if form > json => Some(FORM),
        _ => Some(JSON),
    }
}

/// A range of kinds, and how much it is liked in thousandths.
fn range(text: &str) -> (&str, u16) {
    let mut parts = text.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let weight = weight.map_or(Some(1.0), |weight| weight.trim().parse::<f32>().ok());
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // between 0 and 1000
    let thousandths = (weight.filter(|weight| (0.0..=1.0).contains(weight)).unwrap_or_default() * 1000.0) as u16;
    (kind, thousandths)
}

async fn status(State(context): State<Context>) -> Response {
    told(&Status::of_all(&cell(&context)))
}

async fn state(State(context): State<Context>) -> Response {
    told(&own(&context))
}

fn own(context: &Context) -> MemberState {
    MemberState::of(&cell(context), &context.sources.local.borrow().node)
}

/// Another member's state as Exhibitor wraps it.
#[derive(Serialize)]
struct Wrapped {
    response: Option<MemberState>,
    #[serde(rename = "errorMessage")]
    error: &'static str,
    success: bool,
}

async fn state_of(State(context): State<Context>, Path(host): Path<String>) -> Response {
    let response = MemberState::at(&cell(&context), &host);
    let success = response.is_some();
    told(&Wrapped { response, error: if success { "" } else { "no such server" }, success })
}

fn told(value: &impl Serialize) -> Response {
    json::raw(StatusCode::OK, Body::from(json::bytes(value)))
}

/// For load balancers: whether this host's member serves.
async fn serving(State(context): State<Context>) -> Response {
    let own = own(&context);
    let status = if own.serves() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json::raw(status, Body::from(json::bytes(&own)))
}

async fn refused() -> Problem {
    Problem::forbidden("wharf starts, stops and restarts no server", "whatever runs the server does: systemctl, docker")
}

async fn unknown(uri: Uri) -> Problem {
    let all = "/exhibitor/v1/cluster/ has list, status, state and node/serving";
    Problem::not_found(format!("there is nothing at {}", uri.path()), all)
}

async fn wrong_method(uri: Uri) -> Problem {
    let what = format!("{} does not take this method", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, what, "everything is read by GET")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, expected: Option<&str>) {
        let mut headers = HeaderMap::new();
        if !accept.is_empty() {
            headers.insert(header::ACCEPT, HeaderValue::from_str(accept).expect("a value"));
        }
        assert_eq!(wanted(&headers), expected, "{accept}");
    }

    #[test]
    fn clients_are_answered_as_they_like() {
        for json in [
            "",
            "*/*",
            "application/json",
            "application/*",
            "text/html,application/xhtml+xml,*/*;q=0.8",
            "application/x-www-form-urlencoded;q=0.5, application/json",
            "application/json, application/x-www-form-urlencoded",
            "Application/JSON; charset=utf-8",
        ] {
            check(json, Some(JSON));
        }
        for form in [
            "application/x-www-form-urlencoded",
            "application/x-www-form-urlencoded, */*;q=0.1",
            "application/json;q=0.1,application/x-www-form-urlencoded;q=0.2",
            "*/*, application/json;q=0",
        ] {
            check(form, Some(FORM));
        }
        for neither in ["text/html", "application/json;q=0", "*/*;q=7", "*/*;q=x", ",,,"] {
            check(neither, None);
        }
        check(&format!("{}application/json", "a/b,".repeat(1_000)), None);
    }
}
