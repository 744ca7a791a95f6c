//! `/v1/local`: what this host offers, what it skips, and why.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Extension;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::pieces::{self, Document, Elements};
use super::router::Context;
use super::{Settings, json};
use crate::catalog::facade::api;
use crate::host::clients::Guest;
use crate::model::offer::instance::{Skipped, Source, Withheld};
use crate::model::publish::local::{Local, LocalInstance};
use crate::model::publish::maintenance::Withdrawn;
use crate::model::words::record::Text;
use crate::model::words::trouble::Trouble;

const SHORT_ID: usize = 12;

pub(super) async fn local(State(context): State<Context>, Extension(guest): Extension<Guest>) -> Response {
    let ticket = context.readers.take(&guest);
    let local = context.sources.local.borrow().clone();
    let document = document("", &local, &context.settings, "\n");
    json::raw(StatusCode::OK, pieces::body(document, ticket))
}

/// What is sent of a host.
pub(super) fn document(before: &str, local: &Arc<Local>, settings: &Settings, after: &str) -> Document {
    let usual = settings.probe_interval;
    let lists = vec![
        ("instances", elements(local, |local| &local.instances, move |shown| instance(shown, usual))),
        ("skipped", elements(local, |local| &local.skipped, skipped)),
        ("withheld", elements(local, |local| &local.withheld, withheld)),
    ];
    Document::new(before, &head(local, &settings.version), lists, after)
}

/// Each element of a list of something shared, in the shape that it is sent in.
fn elements<O, T, S>(of: &Arc<O>, list: fn(&O) -> &Vec<T>, shape: impl Fn(&T) -> S + Send + 'static) -> Elements
where
    O: Send + Sync + 'static,
    T: 'static,
    S: Serialize + 'static,
{
    let of = of.clone();
    Box::new((0..list(&of).len()).map(move |place| json::bytes(&shape(&list(&of)[place]))))
}

/// The host without its lists.
fn head(local: &Local, version: &str) -> api::Local {
    api::Local {
        node: local.node.clone(),
        owner: local.owner.clone(),
        version: version.into(),
        drained: local.drained.map(time),
        maintenance: local.maintenance.all().map(maintained).collect(),
        addresses_unread: local.addresses_unread.map(time),
        addresses_remembered: local.addresses_remembered.iter().map(|address| address.to_string().into()).collect(),
        docker: api::DockerReach { reachable: local.engine, listed: local.listed },
        store: api::Publication {
            session: local.session.as_str().into(),
            lease: (local.lease != 0).then(|| format!("{:x}", local.lease).into()),
            records: local.records,
            unconfirmed: local.unconfirmed,
            trouble: local.trouble.as_ref().map(trouble),
            awaits: local.awaits().filter(|_| local.drained.is_some()).map(|awaited| awaited.to_string().into()),
        },
        ..api::Local::default()
    }
}

fn maintained(one: &Withdrawn) -> api::Maintained {
    let Withdrawn { what, since, who, reason } = one;
    api::Maintained { what: what.clone(), since: time(*since), who: who.clone(), reason: reason.clone() }
}

fn trouble(trouble: &Trouble) -> api::StoreTrouble {
    let Trouble { endpoint, why, since } = trouble;
    api::StoreTrouble { endpoint: endpoint.clone(), why: why.clone(), since: time(*since) }
}

fn instance(shown: &LocalInstance, usual: Duration) -> api::LocalInstance {
    let of = &*shown.instance;
    let services: Vec<Text> = of.services.iter().map(|service| service.to_string().into()).collect();
    let container = match &of.key.source {
        Source::Container(id) => Some(id.get(..SHORT_ID).unwrap_or(id).into()),
        Source::Static(_) => None,
    };
    api::LocalInstance {
        id: of.id.clone(),
        service: services.first().cloned().unwrap_or_default(),
        services,
        keys: shown.keys.iter().map(|key| key.as_str().into()).collect(),
        host: of.host.to_string().into(),
        host6: of.host6.map(|host| host.to_string().into()),
        port: of.port,
        proto: of.key.proto,
        exposed: of.key.port,
        role: shown.role,
        tags: of.tags.clone(),
        attrs: of.attrs.clone(),
        container,
        container_name: of.container_name.clone(),
        image: of.image.clone(),
        state: shown.state.as_str().into(),
        published: shown.published,
        check: of.check.kind.as_str().into(),
        guessed: of.check.guessed,
        target: of.check.target.map(|target| target.to_string().into()),
        asks: of.check.asks(usual).map(Into::into),
        warning: shown.warning.clone(),
        error: shown.error.clone(),
        since: shown.since.map(time),
    }
}

fn skipped(port: &Skipped) -> api::LocalSkipped {
    api::LocalSkipped {
        container: port.container.clone(),
        port: port.port.as_str().into(),
        kind: port.kind.into(),
        reason: port.reason.as_str().into(),
    }
}

fn withheld(of: &Withheld) -> api::LocalWithheld {
    api::LocalWithheld { container: of.container.clone(), port: of.port.as_str().into(), attr: of.attr.as_str().into() }
}

fn time(time: SystemTime) -> Text {
    humantime::format_rfc3339_seconds(time).to_string().into()
}

/// `GET /v1/nodes`.
pub(super) async fn nodes(State(context): State<Context>, Extension(guest): Extension<Guest>) -> Response {
    let ticket = context.readers.take(&guest);
    let nodes = context.sources.nodes.borrow().clone();
    json::raw(StatusCode::OK, pieces::body(nodes_document("", &nodes, "\n"), ticket))
}

/// What is sent of every node.
pub(super) fn nodes_document(before: &str, nodes: &Arc<api::Nodes>, after: &str) -> Document {
    let empty = api::Nodes { stale: nodes.stale, ..api::Nodes::default() };
    let lists = vec![
        ("nodes", elements(nodes, |nodes| &nodes.nodes, Clone::clone)),
        ("lost", elements(nodes, |nodes| &nodes.lost, Clone::clone)),
        ("stopped", elements(nodes, |nodes| &nodes.stopped, Clone::clone)),
    ];
    Document::new(before, &empty, lists, after)
}
