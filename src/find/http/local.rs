//! `/v1/local`: what this host offers, what it skips, and why.

use std::time::SystemTime;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::json;
use super::router::Context;
use crate::model::api;
use crate::model::instance::{Skipped, Source, Withheld};
use crate::model::local::{Local, LocalInstance};
use crate::model::record::Text;

const SHORT_ID: usize = 12;

pub(super) async fn local(State(context): State<Context>) -> Response {
    let local = context.sources.local.borrow().clone();
    json::reply(StatusCode::OK, &shape(&local, &context.settings.version))
}

/// What is sent of a host.
pub(super) fn shape(local: &Local, version: &str) -> api::Local {
    api::Local {
        node: local.node.clone(),
        owner: local.owner.clone(),
        version: version.into(),
        drained: local.drained.map(time),
        docker: api::DockerReach { reachable: local.engine, listed: local.listed },
        store: api::Publication {
            session: local.session.as_str().into(),
            lease: (local.lease != 0).then(|| format!("{:x}", local.lease).into()),
            records: local.records,
            unconfirmed: local.unconfirmed,
        },
        instances: local.instances.iter().map(instance).collect(),
        skipped: local.skipped.iter().map(skipped).collect(),
        withheld: local.withheld.iter().map(withheld).collect(),
    }
}

fn instance(shown: &LocalInstance) -> api::LocalInstance {
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
        warning: of.check.warning.as_deref().map(Text::from),
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
pub(super) async fn nodes(State(context): State<Context>) -> Response {
    let nodes = context.sources.nodes.borrow().clone();
    json::reply(StatusCode::OK, &*nodes)
}
