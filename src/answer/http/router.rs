//! Which request goes where, and what every answer has in common: the Host check, the bounds, the headers, the counts.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};
use axum::{Extension, Router};
use futures_util::FutureExt;
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;
use tracing::error;

use super::error::Problem;
use super::guard;
use super::hub::Followed;
use super::metrics::Request as Counted;
use super::tickets::Tickets;
use super::work::Workbench;
use super::{
    Settings, Sources, autodiscovery, discovery, drain, etcd_v2, events, exhibitor, forget, health, local, locks,
    ordinals, page, proxies, renders, services, topology,
};
use crate::host::clients::Guest;

/// Time that making an answer may take; following a watch is another matter.
const ANSWER: Duration = Duration::from_secs(10);
/// Time that something which is asked to be done may take: ending a dead operator's work, and an operation of its own.
const WORK: Duration = Duration::from_secs(30);
/// The largest body of a request; all but a topology need none.
const MAX_BODY: usize = 16 * 1024;

/// Clients that may follow /v1/watch at a time.
const MAX_WATCHERS: usize = 64;
/// Answers that list much, under way at a time: each holds a pointer for every endpoint until its client has taken it.
const MAX_READERS: usize = 32;

/// What every handler sees.
#[derive(Clone, Debug)]
pub(super) struct Context {
    pub(super) settings: Arc<Settings>,
    pub(super) sources: Sources,
    pub(super) followed: Followed,
    pub(super) watchers: Tickets,
    pub(super) readers: Tickets,
    pub(super) workbench: Workbench,
    pub(super) policy: HeaderValue,
    pub(super) stop: CancellationToken,
}

/// What is served on the sockets of the agent, what on those of a topology's `seed-http`, and Exhibitor's API.
#[derive(Clone)]
pub(super) struct Routers {
    pub(super) main: Router,
    pub(super) seeds: Router,
    pub(super) exhibitor: Router,
}

pub(super) fn routers(settings: Settings, sources: Sources, followed: Followed, stop: CancellationToken) -> Routers {
    let context = Context {
        settings: Arc::new(settings),
        sources,
        followed,
        watchers: Tickets::new(MAX_WATCHERS),
        readers: Tickets::new(MAX_READERS),
        workbench: Workbench::default(),
        policy: page::policy_header(),
        stop,
    };
    let seeds = Router::new()
        .route("/master", put(topology::seed_master))
        .route("/dns", put(topology::seed_dns))
        .fallback(topology::seed_unknown)
        .method_not_allowed_fallback(topology::seed_wrong_method)
        .layer(DefaultBodyLimit::max(topology::MAX_BODY))
        .layer(middleware::from_fn_with_state(context.clone(), around))
        .with_state(context.clone());
    let exhibitor = exhibitor::router()
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(context.clone(), around))
        .with_state(context.clone());
    let main = Router::new()
        .route("/", get(page::page))
        .route("/openapi.json", get(page::openapi))
        .route("/sd/prometheus", get(discovery::prometheus))
        .route("/v1/watch", get(events::watch))
        .route("/v1/nodes", get(local::nodes))
        .route("/v1/nodes/{name}", delete(forget::forget))
        .route("/v1/locks", get(locks::locks))
        .route("/v1/ordinals", get(ordinals::ordinals))
        .route("/v1/etcd-v2", get(etcd_v2::etcd_v2))
        .route("/v1/ordinals/{name}", post(ordinals::change).delete(ordinals::change))
        .route("/v1/autodiscovery", get(autodiscovery::autodiscovery))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .route("/v1/services", get(services::all))
        .route("/v1/services/{name}", get(services::one))
        .route("/v1/local", get(local::local))
        .route(
            "/v1/proxies",
            get(proxies::proxies).put(proxies::report).layer(DefaultBodyLimit::max(proxies::MAX_BODY)),
        )
        .route(
            "/v1/renders",
            get(renders::renders).put(renders::report).layer(DefaultBodyLimit::max(renders::MAX_BODY)),
        )
        .route("/v1/drain", post(drain::drain).delete(drain::drain))
        .route("/v1/topology", get(topology::all))
        .route(
            "/v1/topology/{name}",
            get(topology::one).put(topology::put).layer(DefaultBodyLimit::max(topology::MAX_BODY)),
        )
        .route("/v1/topology/{name}/pause", post(topology::pause).delete(topology::pause))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(context.clone(), around))
        .with_state(context);
    Routers { main, seeds, exhibitor }
}

/// Checks, bounds, counts and dresses one request.
async fn around(
    State(context): State<Context>,
    Extension(guest): Extension<Guest>,
    request: Request,
    next: Next,
) -> Response {
    guest.asked();
    let endpoint = endpoint(request.uri().path());
    let mut response = answer(&context, &guest, request, next).await;
    let headers = response.headers_mut();
    if endpoint.starts_with("/exhibitor/") {
        exhibitor::date(&context, headers);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    let code = response.status().as_u16();
    context.sources.metrics.requests.get_or_create(&Counted { endpoint, code }).inc();
    response
}

async fn answer(context: &Context, guest: &Guest, request: Request, next: Next) -> Response {
    let (method, uri) = (request.method().clone(), request.uri().clone());
    let in_turn = async {
        // What is drained or switched is waited for; all else is answered at once, a few questions of one peer at a
        // time: however many it has sent ahead over however many connections, no thread is kept from others for long.
        let _turn = if is_work(uri.path()) { None } else { guest.turns.question.acquire().await.ok() };
        yield_now().await;
        match guard::check_host(guest.peer, request.headers(), request.uri(), &context.settings.hosts) {
            Ok(()) => next.run(request).await,
            Err(problem) => problem.into_response(),
        }
    };
    let answered = AssertUnwindSafe(in_turn).catch_unwind();
    let patience = if is_work(uri.path()) { WORK } else { ANSWER };
    match tokio::time::timeout(patience, answered).await {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => {
            context.sources.metrics.panics.inc();
            error!(?method, ?uri, "a request's handling panicked");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "this request could not be handled", "see the agent's log")
                .into_response()
        }
        Err(_) => Problem::not_yet(format!("no answer within {patience:?}"), "ask again").into_response(),
    }
}

/// Whether something is done there, which takes its time.
fn is_work(path: &str) -> bool {
    let below = ["/v1/topology/", "/v1/ordinals/"];
    ["/v1/drain", "/master", "/dns"].contains(&path) || below.iter().any(|below| path.starts_with(below))
}

/// The endpoint's name among the metrics: a closed set, since paths are the asker's choice.
fn endpoint(path: &str) -> &'static str {
    const KNOWN: [&str; 20] = [
        "/",
        "/healthz",
        "/readyz",
        "/metrics",
        "/openapi.json",
        "/sd/prometheus",
        "/v1/services",
        "/v1/local",
        "/v1/nodes",
        "/v1/locks",
        "/v1/ordinals",
        "/v1/etcd-v2",
        "/v1/autodiscovery",
        "/v1/proxies",
        "/v1/renders",
        "/v1/watch",
        "/v1/drain",
        "/v1/topology",
        "/master",
        "/dns",
    ];
    if path.starts_with("/v1/nodes/") {
        return "/v1/nodes/{name}";
    }
    if path.starts_with("/v1/ordinals/") {
        return "/v1/ordinals/{name}";
    }
    if path.starts_with("/exhibitor/") {
        return exhibitor::endpoint(path);
    }
    if path.starts_with("/v1/services/") {
        return "/v1/services/{name}";
    }
    if path.starts_with("/v1/topology/") {
        return if path.ends_with("/pause") { "/v1/topology/{name}/pause" } else { "/v1/topology/{name}" };
    }
    KNOWN.into_iter().find(|known| *known == path).unwrap_or("other")
}

async fn unknown(uri: Uri) -> Problem {
    Problem::not_found(format!("there is nothing at {}", uri.path()), "GET /openapi.json lists what there is")
}

async fn wrong_method(uri: Uri) -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{} does not take this method", uri.path()),
        "everything is read by GET; POST and DELETE are for /v1/drain and /v1/ordinals/NAME, PUT is for \
         /v1/topology/NAME, DELETE for /v1/nodes/NAME",
    )
}
