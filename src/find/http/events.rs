//! `/v1/watch`: server-sent events, one per change.
//!
//! A client first gets a `snapshot`, then a `change` each; with the Last-Event-ID of an earlier connection it gets what
//! it missed instead of the snapshot, if that is still known. `?service=NAME` follows one service and costs nothing for
//! the others; `?with=local,nodes` adds this host's and the nodes' state whenever they change.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::error::Problem;
use super::hub::{Cursor, Seat, mark};
use super::listing::{Listing, Stand};
use super::router::Context;
use super::{Counted, json, local, query, shape};
use crate::model::api;
use crate::model::catalog::Catalog;
use crate::model::local::Local;

/// How often a silent stream says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);
const END: &str = "\n\n";

pub(super) async fn watch(
    State(context): State<Context>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asked = Asked::parse(query.as_deref().unwrap_or_default())?;
    let Ok(place) = Arc::clone(&context.watchers).try_acquire_owned() else {
        return Err(Problem::not_yet("too many clients follow already", "ask again later, or read GET /v1/services"));
    };
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let follower = Follower::new(&context, asked, last, place);
    let events = stream::unfold(follower, |mut follower| async move {
        let bytes = follower.next().await?;
        Some((Ok::<_, Infallible>(bytes), follower))
    });
    let kind = HeaderValue::from_static("text/event-stream");
    Ok((StatusCode::OK, [(header::CONTENT_TYPE, kind)], Body::from_stream(events)).into_response())
}

/// What a client wants to follow.
#[derive(Debug, Default)]
struct Asked {
    service: Option<String>,
    local: bool,
    nodes: bool,
}

impl Asked {
    fn parse(query: &str) -> Result<Self, Problem> {
        let mut asked = Self::default();
        for (key, value) in query::pairs(query) {
            match key.as_str() {
                "service" => asked.service = Some(value),
                "with" => {
                    for part in value.split(',') {
                        match part {
                            "local" => asked.local = true,
                            "nodes" => asked.nodes = true,
                            _ => {
                                return Err(Problem::bad_request(
                                    format!("nothing called {part:?}"),
                                    "with is local, nodes",
                                ));
                            }
                        }
                    }
                }
                _ => return Err(Problem::bad_request(format!("no parameter {key:?}"), "service and with are known")),
            }
        }
        Ok(asked)
    }
}

/// One client's stream of events.
struct Follower {
    context: Context,
    services: Services,
    local: Option<watch::Receiver<Arc<Local>>>,
    nodes: Option<watch::Receiver<Arc<api::Nodes>>>,
    under_way: Option<Listing>,
    greeted: bool,
    stop: CancellationToken,
    _kept: (OwnedSemaphorePermit, Counted),
}

/// Where a client stands among the services' changes.
enum Services {
    All { seat: Seat, at: Option<Cursor> },
    One { name: String, changed: watch::Receiver<crate::find::view::Change>, seen: Option<Seen> },
}

/// What a follower of one service was told last; as an id it reads `s<mark>-<stale>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    mark: Option<u64>,
    stale: bool,
}

impl Seen {
    fn parse(id: &str) -> Option<Self> {
        let (mark, stale) = id.strip_prefix('s')?.split_once('-')?;
        let mark = if mark.is_empty() { None } else { Some(u64::from_str_radix(mark, 16).ok()?) };
        Some(Self { mark, stale: stale == "1" })
    }

    fn id(self) -> String {
        let mark = self.mark.map(|mark| format!("{mark:x}")).unwrap_or_default();
        format!("s{mark}-{}", u8::from(self.stale))
    }
}

impl Follower {
    fn new(context: &Context, asked: Asked, last: Option<&str>, place: OwnedSemaphorePermit) -> Self {
        let services = match asked.service {
            None => Services::All { seat: context.followed.follow(), at: last.and_then(Cursor::parse) },
            Some(name) => {
                let mut changed = context.sources.catalog.changed();
                changed.mark_changed();
                Services::One { name, changed, seen: last.and_then(Seen::parse) }
            }
        };
        let fresh = |wanted: bool| wanted.then_some(());
        Self {
            services,
            local: fresh(asked.local).map(|()| marked(&context.sources.local)),
            nodes: fresh(asked.nodes).map(|()| marked(&context.sources.nodes)),
            under_way: None,
            greeted: false,
            stop: context.stop.clone(),
            _kept: (place, Counted::new(context.sources.metrics.watchers.clone())),
            context: context.clone(),
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.greeted, true) {
            return Some(Bytes::from_static(b"retry: 1000\n\n"));
        }
        if let Some(piece) = self.under_way.as_mut().and_then(Iterator::next) {
            return Some(piece);
        }
        self.under_way = None;
        loop {
            if let Some(bytes) = self.services_event().or_else(|| self.local_event()).or_else(|| self.nodes_event()) {
                return Some(bytes);
            }
            tokio::select! {
                () = self.stop.cancelled() => return None,
                () = changed(&mut self.services) => {}
                () = marked_changed(self.local.as_mut()) => {}
                () = marked_changed(self.nodes.as_mut()) => {}
                () = sleep(HEARTBEAT) => return Some(Bytes::from_static(b":\n\n")),
            }
        }
    }

    fn services_event(&mut self) -> Option<Bytes> {
        match &mut self.services {
            Services::All { seat, at } => {
                let ring = seat.ring.borrow_and_update().clone()?;
                if let Some(missed) = at.and_then(|at| ring.after(at)) {
                    let mut text = Vec::new();
                    for (cursor, event) in missed {
                        write_event(&mut text, Some(&cursor.to_string()), "change", event);
                    }
                    *at = Some(ring.at);
                    return (!text.is_empty()).then(|| text.into());
                }
                *at = Some(ring.at);
                let head = format!("id: {}\nevent: snapshot\ndata: ", ring.at);
                let mut listing = Listing::of_all(&head, &ring.catalog, ring.stale, &self.context.sources.zones, END);
                let first = listing.next();
                self.under_way = Some(listing);
                first
            }
            Services::One { name, changed, seen } => {
                if !changed.has_changed().unwrap_or(false) {
                    return None;
                }
                changed.mark_unchanged();
                let catalog = self.context.sources.catalog.load();
                one_event(&self.context, &catalog, name, seen)
            }
        }
    }

    fn local_event(&mut self) -> Option<Bytes> {
        let seen = self.local.as_mut().filter(|local| local.has_changed().unwrap_or(false))?;
        let local = seen.borrow_and_update().clone();
        Some(event("local", &local::shape(&local, &self.context.settings.version)))
    }

    fn nodes_event(&mut self) -> Option<Bytes> {
        let seen = self.nodes.as_mut().filter(|nodes| nodes.has_changed().unwrap_or(false))?;
        let nodes = seen.borrow_and_update().clone();
        Some(event("nodes", &*nodes))
    }
}

/// What a follower of one service is told, if anything of it has changed.
fn one_event(context: &Context, catalog: &Catalog, name: &str, seen: &mut Option<Seen>) -> Option<Bytes> {
    let found = catalog.service(&context.sources.zones, name);
    let stale = shape::is_stale(&context.sources.catalog, catalog);
    let now = Seen { mark: found.as_ref().map(mark), stale };
    let before = seen.replace(now);
    if before == Some(now) {
        return None;
    }
    let mut text = Vec::new();
    if before.is_none() {
        let head = format!("id: {}\nevent: snapshot\ndata: ", now.id());
        let listing =
            Listing::new(&head, Stand { revision: catalog.revision(), stale }, found.into_iter().collect(), END);
        text.extend(listing.flatten());
        return Some(text.into());
    }
    let change = api::Change {
        revision: catalog.revision(),
        stale,
        removed: if found.is_none() { vec![name.into()] } else { Vec::new() },
        changed: found.iter().map(shape::service).collect(),
    };
    write_event(&mut text, Some(&now.id()), "change", &json::bytes(&change));
    Some(text.into())
}

fn event(kind: &str, value: &impl Serialize) -> Bytes {
    let mut text = Vec::new();
    write_event(&mut text, None, kind, &json::bytes(value));
    text.into()
}

/// One event; our JSON is a single line.
fn write_event(text: &mut Vec<u8>, id: Option<&str>, kind: &str, data: &[u8]) {
    if let Some(id) = id {
        text.extend_from_slice(format!("id: {id}\n").as_bytes());
    }
    text.extend_from_slice(format!("event: {kind}\ndata: ").as_bytes());
    text.extend_from_slice(data);
    text.extend_from_slice(END.as_bytes());
}

/// A reader that has seen nothing yet.
fn marked<T>(of: &watch::Receiver<T>) -> watch::Receiver<T> {
    let mut reader = of.clone();
    reader.mark_changed();
    reader
}

async fn changed(services: &mut Services) {
    let told = match services {
        Services::All { seat, .. } => seat.ring.changed().await.is_ok(),
        // Only waits: whether it has changed is asked again.
        Services::One { changed, .. } => {
            let told = changed.changed().await.is_ok();
            if told {
                changed.mark_changed();
            }
            told
        }
    };
    if !told {
        std::future::pending::<()>().await;
    }
}

async fn marked_changed<T>(of: Option<&mut watch::Receiver<T>>) {
    let Some(reader) = of else { return std::future::pending().await };
    match reader.changed().await {
        Ok(()) => reader.mark_changed(),
        Err(_) => std::future::pending().await,
    }
}
