//! Which request goes where, and what every answer has in common: who may ask, the bounds, the headers, the counts.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use futures_util::{FutureExt, stream};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::desk::Desk;
use super::hub::{Log, Sorter};
use super::ledger::{Ledger, noted};
use super::metrics::{EtcdV2Metrics, Request as Counted};
use super::surroundings::Surroundings;
use super::waiter::Waiter;
use crate::answer::http::json;
use crate::answer::http::tickets::Tickets;
use crate::host::clients::{self, Guest};
use crate::model::etcd_v2::request::{METHODS, read};
use crate::model::etcd_v2::{Ask, Change, Code, Fault, NodePath, Reply, Scope, Wait};

/// Time that making an answer may take; waiting is another matter.
const ANSWER: Duration = Duration::from_secs(10);
/// The largest body of a request.
const MAX_BODY: usize = 1024 * 1024;
/// Clients that may wait at a time.
const MAX_WAITS: usize = 1_024;
/// Where keys are.
const KEYS: &str = "/v2/keys";

/// What every request sees.
#[derive(Clone, Debug)]
pub(super) struct Context(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    desk: Desk,
    scope: Scope,
    access: Access,
    logs: Vec<(Sorter, watch::Receiver<Log>)>,
    surroundings: Surroundings,
    metrics: EtcdV2Metrics,
    ledger: Ledger,
    waits: Tickets,
}

impl Context {
    pub(super) fn new(
        desk: Desk,
        scope: Scope,
        access: Access,
        logs: Vec<(Sorter, watch::Receiver<Log>)>,
        surroundings: Surroundings,
        metrics: EtcdV2Metrics,
        ledger: Ledger,
    ) -> Self {
        let waits = Tickets::new(MAX_WAITS);
        Self(Arc::new(Inner { desk, scope, access, logs, surroundings, metrics, ledger, waits }))
    }
}

pub(super) fn router(context: Context, stop: CancellationToken) -> Router {
    Router::new().fallback(serve).with_state((context, stop))
}

/// Checks, bounds, counts and dresses one request.
async fn serve(
    State((context, stop)): State<(Context, CancellationToken)>,
    Extension(guest): Extension<Guest>,
    request: Request,
) -> Response {
    guest.asked();
    let (asked, uri) = (request.method().clone(), request.uri().clone());
    let method = METHODS.into_iter().find(|method| asked == *method).unwrap_or("other");
    let answered = AssertUnwindSafe(timeout(ANSWER, context.0.answer(&guest, request, stop))).catch_unwind().await;
    let metrics = &context.0.metrics;
    let mut response = match answered {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => fault(&Fault::away(format!("no answer within {ANSWER:?}: ask again"))),
        Err(_panic) => {
            metrics.panics.inc();
            tracing::error!(method, ?uri, "a request's handling panicked");
            fault(&Fault::away("this request could not be handled"))
        }
    };
    context.0.ledger.note(guest.peer, &asked, &uri, &mut response);
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    insert(headers, "x-etcd-cluster-id", &context.0.surroundings.cluster());
    metrics.requests.get_or_create(&Counted { method, code: response.status().as_u16() }).inc();
    response
}

impl Inner {
    async fn answer(&self, guest: &Guest, request: Request, stop: CancellationToken) -> Response {
        // A few questions of one peer at a time, however many connections it has.
        let _turn = guest.turns.question.acquire().await.ok();
        yield_now().await;
        if let Err(refused) = self.access.check(guest.peer, request.method(), request.uri(), request.headers()) {
            return unknown_to_us(&refused);
        }
        let path = request.uri().path();
        match path.strip_prefix(KEYS).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
            Some(_) => self.keys(guest, request, stop).await.unwrap_or_else(|refused| fault(&refused)),
            None => self.besides(request.method(), request.uri(), request.headers()).await,
        }
    }

    async fn besides(&self, method: &Method, uri: &Uri, headers: &HeaderMap) -> Response {
        let Some(reply) = self.surroundings.reply(uri.path(), headers).await else {
            return (StatusCode::NOT_FOUND, "404 page not found\n").into_response();
        };
        if [Method::GET, Method::HEAD].contains(method) { reply } else { wrong_method("GET, HEAD") }
    }

    async fn keys(&self, guest: &Guest, request: Request, stop: CancellationToken) -> Result<Response, Fault> {
        let (parts, body) = request.into_parts();
        let (method, uri) = (parts.method.as_str(), &parts.uri);
        if !METHODS.contains(&method) {
            return Ok(wrong_method("HEAD, GET, PUT, POST, DELETE"));
        }
        let has_form = ["PUT", "POST"].contains(&method) && is_form(&parts.headers);
        let too_large = |_| Fault::new(Code::InvalidForm, "the body is larger than 1 MiB").with_status(413);
        let body = axum::body::to_bytes(body, MAX_BODY).await.map_err(too_large)?;
        let body = if has_form { &body[..] } else { &[] };
        let path = uri.path().strip_prefix(KEYS).unwrap_or_default();
        match read(method, path, uri.query().unwrap_or_default(), body)? {
            Ask::Get(get) => {
                self.check_scope(&get.path)?;
                self.desk.get(&get).await.map(|told| reply(&told))
            }
            Ask::Change(change) => self.change(guest, &change).await,
            Ask::Wait(wait) => self.wait(guest, wait, stop).await,
        }
    }

    fn check_scope(&self, path: &NodePath) -> Result<usize, Fault> {
        let outside =
            || Fault::new(Code::Unauthorized, format!("{path} is not served: only what is below {}", self.scope));
        self.scope.root_of(path).ok_or_else(outside)
    }

    async fn change(&self, guest: &Guest, change: &Change) -> Result<Response, Fault> {
        self.check_scope(&change.path)?;
        let told = self.desk.change(change).await;
        tracing::debug!(path = change.path.as_str(), is_met = told.is_ok(), peer = ?guest.peer, "a change was asked for");
        told.map(|told| reply(&told))
    }

    async fn wait(&self, guest: &Guest, wait: Wait, stop: CancellationToken) -> Result<Response, Fault> {
        let root = self.check_scope(&wait.path)?;
        let Some(ticket) = self.waits.take_of_others(guest) else {
            return Err(Fault::away("too many wait already: ask again later"));
        };
        let place = (ticket, clients::Counted::new(self.metrics.waits.clone()));
        let log = self.logs[root].clone();
        let (waiter, index) = Waiter::begin(wait, self.desk.looker.clone(), log, place).await?;
        let told = stream::unfold((waiter, stop), |(mut waiter, stop)| async move {
            let told = stop.run_until_cancelled(waiter.next()).await.flatten()?;
            Some((Ok::<_, Infallible>(told), (waiter, stop)))
        });
        Ok(dressed(StatusCode::OK, index, Body::from_stream(told)))
    }
}

/// Go reads a form only from a body that is said to be one.
fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn reply(reply: &Reply) -> Response {
    let status = StatusCode::from_u16(reply.status()).unwrap_or(StatusCode::OK);
    let mut text = Vec::with_capacity(256);
    json::write(&mut text, reply);
    text.push(b'\n');
    dressed(status, reply.index, Body::from(text))
}

fn fault(fault: &Fault) -> Response {
    let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut text = Vec::with_capacity(256);
    json::write(&mut text, &fault.body());
    text.push(b'\n');
    noted(dressed(status, fault.index, Body::from(text)), fault)
}

/// One who may not ask is told so, and how to say who he is.
fn unknown_to_us(refused: &Fault) -> Response {
    let mut response = fault(refused);
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"etcd\""));
    }
    response
}

fn dressed(status: StatusCode, index: u64, body: Body) -> Response {
    let kind = HeaderValue::from_static("application/json");
    let mut response = (status, [(header::CONTENT_TYPE, kind)], body).into_response();
    for name in ["x-etcd-index", "x-raft-index"] {
        insert(response.headers_mut(), name, &index.to_string());
    }
    insert(response.headers_mut(), "x-raft-term", "0");
    response
}

fn insert(headers: &mut HeaderMap, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(HeaderName::from_static(name), value);
    }
}

fn wrong_method(allowed: &'static str) -> Response {
    let allow = [(header::ALLOW, HeaderValue::from_static(allowed))];
    (StatusCode::METHOD_NOT_ALLOWED, allow, "Method Not Allowed\n").into_response()
}
