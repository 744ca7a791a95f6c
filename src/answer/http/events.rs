//! `/v1/watch`: server-sent events, one per change.
//!
//! A client first gets a `snapshot`, then a `change` each; with the Last-Event-ID of an earlier connection it gets what
//! it missed instead of the snapshot, if that is still known. `?service=NAME` follows one service and costs nothing for
//! the others; `?changes=endpoints` tells of a changed service only the endpoints that changed; `?with=local,nodes`
//! adds this host's and the nodes' state whenever they change.
//!
//! Nothing is made before the client has taken what came before it: one that does not read costs a piece of text.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::difference::{Changed, ChangedService, Difference, mark};
use super::error::Problem;
use super::hub::{Cursor, Seat};
use super::listing::{Listing, Stand};
use super::pieces::Pieces;
use super::router::Context;
use super::tickets::Ticket;
use super::{local, query, shape};
use crate::catalog::facade::api;
use crate::catalog::index::{Catalog, Dependency, Service};
use crate::host::clients::{Counted, Guest};
use crate::model::publish::local::Local;
use crate::model::words::record::Text;
use crate::model::words::zone::Zones;
use crate::view::Change;

/// How often a silent stream says that it lives.
const HEARTBEAT: Duration = Duration::from_secs(10);
const END: &str = "\n\n";

pub(super) async fn watch(
    State(context): State<Context>,
    Extension(guest): Extension<Guest>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let asked = Asked::parse(query.as_deref().unwrap_or_default())?;
    let Some(ticket) = context.watchers.take_of_others(&guest) else {
        return Err(Problem::not_yet("too many clients follow already", "ask again later, or read GET /v1/services"));
    };
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let follower = Follower::new(&context, guest, asked, last, ticket);
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
    changed: Changed,
    local: bool,
    nodes: bool,
}

impl Asked {
    fn parse(query: &str) -> Result<Self, Problem> {
        let mut asked = Self::default();
        let nothing = |part: &str, hint: &str| Problem::bad_request(format!("nothing called {part:?}"), hint);
        for (key, value) in query::pairs(query) {
            match key.as_str() {
                "service" => asked.service = Some(value),
                "changes" => {
                    asked.changed = match value.as_str() {
                        "services" => Changed::Whole,
                        "endpoints" => Changed::ByEndpoint,
                        _ => return Err(nothing(&value, "changes is services or endpoints")),
                    }
                }
                "with" => {
                    for part in value.split(',') {
                        match part {
                            "local" => asked.local = true,
                            "nodes" => asked.nodes = true,
                            _ => return Err(nothing(part, "with is local, nodes")),
                        }
                    }
                }
                _ => {
                    let hint = "service, changes and with are known";
                    return Err(Problem::bad_request(format!("no parameter {key:?}"), hint));
                }
            }
        }
        Ok(asked)
    }
}

/// One client's stream of events.
struct Follower {
    context: Context,
    services: Services,
    changed: Changed,
    local: Option<watch::Receiver<Arc<Local>>>,
    nodes: Option<watch::Receiver<Arc<api::Nodes>>>,
    /// The event that is being sent.
    under_way: Option<Pieces>,
    /// Changes to be sent after it.
    missed: VecDeque<(Cursor, Arc<Difference>)>,
    greeted: bool,
    guest: Guest,
    stop: CancellationToken,
    _kept: (Ticket, Counted),
}

/// Where a client stands among the services' changes.
enum Services {
    All { seat: Seat, at: Option<Cursor> },
    One(One),
}

/// Where a follower of one service stands.
struct One {
    name: String,
    changed: watch::Receiver<Change>,
    seen: Option<Seen>,
    /// What that rests on: while it holds, whatever else has changed is no news.
    rests: Option<Rests>,
    /// The name that it was told by, which may be spelt otherwise than it was asked for.
    called: Option<Text>,
    /// The service as it was told last; not known to one that came back.
    told: Option<Service>,
}

/// The state of the catalog that a service was read from.
struct Rests {
    epoch: u64,
    on: Vec<Dependency>,
}

impl Rests {
    fn of(catalog: &Catalog, zones: &Zones, name: &str) -> Self {
        let on = zones.service_paths(name).iter().map(|path| catalog.dependency(path)).collect();
        Self { epoch: catalog.epoch(), on }
    }

    /// Whether nothing of the service has changed since: nothing of another one is looked at.
    fn hold(&self, catalog: &Catalog) -> bool {
        catalog.holds_still(self.epoch, &self.on)
    }
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
}

impl Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = self.mark.map(|mark| format!("{mark:x}")).unwrap_or_default();
        write!(f, "s{mark}-{}", u8::from(self.stale))
    }
}

impl Follower {
    fn new(context: &Context, guest: Guest, asked: Asked, last: Option<&str>, ticket: Ticket) -> Self {
        let services = match asked.service {
            None => Services::All { seat: context.followed.follow(), at: last.and_then(Cursor::parse) },
            Some(name) => {
                let mut changed = context.sources.catalog.changed();
                changed.mark_changed();
                Services::One(One {
                    name,
                    changed,
                    seen: last.and_then(Seen::parse),
                    rests: None,
                    called: None,
                    told: None,
                })
            }
        };
        let fresh = |wanted: bool| wanted.then_some(());
        Self {
            services,
            changed: asked.changed,
            local: fresh(asked.local).map(|()| marked(&context.sources.local)),
            nodes: fresh(asked.nodes).map(|()| marked(&context.sources.nodes)),
            under_way: None,
            missed: VecDeque::new(),
            greeted: false,
            guest,
            stop: context.stop.clone(),
            _kept: (ticket, Counted::new(context.sources.metrics.watchers.clone())),
            context: context.clone(),
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        if !std::mem::replace(&mut self.greeted, true) {
            return Some(Bytes::from_static(b"retry: 1000\n\n"));
        }
        loop {
            if let Some(piece) = self.under_way.as_mut().and_then(Iterator::next) {
                yield_now().await; // others on this thread have their turn between two pieces
                return Some(piece);
            }
            self.under_way = match self.services_event().await {
                Some(event) => Some(event),
                None => self.local_event().or_else(|| self.nodes_event()),
            };
            if self.under_way.is_some() {
                continue;
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

    /// The next event about services, if there is one.
    async fn services_event(&mut self) -> Option<Pieces> {
        if let Some((cursor, change)) = self.missed.pop_front() {
            return Some(Box::new(Listing::of_change(&head(cursor, "change"), &change, self.changed, END)));
        }
        let (seat, at) = match &mut self.services {
            Services::One(one) => return one.event(&self.context, &self.guest, self.changed).await,
            Services::All { seat, at } => (seat, at),
        };
        let ring = seat.ring.borrow_and_update().clone()?;
        let before = at.replace(ring.at);
        if let Some(missed) = before.and_then(|before| ring.after(before)) {
            self.missed = missed.map(|(cursor, change)| (cursor, Arc::clone(change))).collect();
            let (cursor, change) = self.missed.pop_front()?;
            return Some(Box::new(Listing::of_change(&head(cursor, "change"), &change, self.changed, END)));
        }
        let zones = self.context.sources.zones.clone();
        let listing = move || Listing::of_all(&head(ring.at, "snapshot"), &ring.catalog, ring.stale, &zones, END);
        Some(Box::new(self.context.workbench.run(&self.guest, listing).await))
    }

    fn local_event(&mut self) -> Option<Pieces> {
        let seen = self.local.as_mut().filter(|local| local.has_changed().unwrap_or(false))?;
        let local = seen.borrow_and_update().clone();
        Some(Box::new(local::document(&plain_head("local"), &local, &self.context.settings, END)))
    }

    fn nodes_event(&mut self) -> Option<Pieces> {
        let seen = self.nodes.as_mut().filter(|nodes| nodes.has_changed().unwrap_or(false))?;
        let nodes = seen.borrow_and_update().clone();
        Some(Box::new(local::nodes_document(&plain_head("nodes"), &nodes, END)))
    }
}

impl One {
    /// What is to be told of the service, if anything of it has changed.
    async fn event(&mut self, context: &Context, guest: &Guest, by: Changed) -> Option<Pieces> {
        if !self.changed.has_changed().unwrap_or(false) {
            return None;
        }
        self.changed.mark_unchanged();
        let catalog = context.sources.catalog.load();
        let at = Stand { revision: catalog.revision(), stale: shape::is_stale(&context.sources.catalog, &catalog) };
        let known = self.seen.is_some_and(|seen| seen.stale == at.stale);
        if known && self.rests.as_ref().is_some_and(|rests| rests.hold(&catalog)) {
            return None;
        }
        let (name, zones) = (self.name.clone(), context.sources.zones.clone());
        let read = move || {
            let found = catalog.service(&zones, &name);
            (Rests::of(&catalog, &zones, &name), found.as_ref().map(mark), found)
        };
        let (rests, mark, found) = context.workbench.run(guest, read).await;
        self.rests = Some(rests);
        self.news(at, Seen { mark, stale: at.stale }, found, by).map(|listing| Box::new(listing) as Pieces)
    }

    fn called_name(&self) -> Text {
        self.called.clone().unwrap_or_else(|| self.name.as_str().into())
    }

    /// The event that tells of the service as it is `now`, if that was not told before.
    fn news(&mut self, at: Stand, now: Seen, found: Option<Service>, by: Changed) -> Option<Listing> {
        let before = self.seen.replace(now);
        if let Some(service) = &found {
            self.called = Some(service.name.as_str().into());
        }
        let told = std::mem::replace(&mut self.told, found.clone().filter(|_| by == Changed::ByEndpoint));
        if before == Some(now) {
            return None;
        }
        // One that came back wants endpoints, and what it knows of them is not known here.
        let unknown = by == Changed::ByEndpoint && told.is_none() && before.is_some_and(|seen| seen.mark.is_some());
        if before.is_none() || unknown {
            return Some(Listing::of_services(&head(now, "snapshot"), at, found.into_iter(), END));
        }
        let change = Difference {
            at,
            removed: if found.is_none() { vec![self.called_name()] } else { Vec::new() },
            changed: found.into_iter().map(|service| ChangedService::new(told.as_ref(), service)).collect(),
        };
        Some(Listing::of_change(&head(now, "change"), &change, by, END))
    }
}

/// The lines before an event's data.
fn head(id: impl Display, kind: &str) -> String {
    format!("id: {id}\nevent: {kind}\ndata: ")
}

/// The same for an event without an id.
fn plain_head(kind: &str) -> String {
    format!("event: {kind}\ndata: ")
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
        Services::One(one) => {
            let told = one.changed.changed().await.is_ok();
            if told {
                one.changed.mark_changed();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::words::key::Prefix;

    #[test]
    fn changes_of_other_services_are_not_looked_at() {
        let prefix = Prefix::parse("/services").expect("a prefix");
        let zones = Zones::new("services.internal", prefix, []).expect("a zone");
        let mut catalog = Catalog::default();
        let put = |catalog: &mut Catalog, key: &str| catalog.put(key, b"10.0.0.1:80", 0, 0).expect("a record");
        put(&mut catalog, "/services/web/one");
        put(&mut catalog, "/services/other/one");
        let rests = Rests::of(&catalog, &zones, "web");
        for number in 0..100 {
            put(&mut catalog, &format!("/services/other/i{number}"));
            assert!(rests.hold(&catalog), "a change of another service");
        }
        put(&mut catalog, "/services/web/two");
        assert!(!rests.hold(&catalog), "its own");
    }
}
