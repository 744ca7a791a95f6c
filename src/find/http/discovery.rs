//! `/sd/prometheus`: every endpoint as a target for Prometheus's `http_sd_configs`.
//!
//! Prometheus replaces its targets by what it is told, so before the first sync this is an error and never an empty
//! list; on an error Prometheus keeps what it has.

use std::collections::BTreeMap;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::error::Problem;
use super::router::Context;
use super::services::unknown;
use super::{json, query, shape};
use crate::model::api;
use crate::model::catalog::{Endpoint, Service};
use crate::model::record::Record;

/// One target with what is known of it; Prometheus's own shape.
#[derive(Debug, Serialize)]
struct Target {
    targets: [String; 1],
    labels: BTreeMap<String, String>,
}

pub(super) async fn prometheus(State(context): State<Context>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let (service, tag) = parse(query.as_deref().unwrap_or_default())?;
    if !context.sources.ready.borrow().catalog {
        return Err(Problem::not_yet("the catalog has not been read from the store yet", "ask again"));
    }
    let catalog = context.sources.catalog.load();
    let services = match service {
        None => catalog.services(&context.sources.zones),
        Some(name) => {
            let found = catalog.service(&context.sources.zones, &name);
            vec![found.ok_or_else(|| unknown(&context, &catalog, &name))?]
        }
    };
    let has_tag = |endpoint: &&Endpoint| {
        tag.as_deref().is_none_or(|tag| endpoint.tags().iter().any(|given| shape::alike(given, tag)))
    };
    let targets: Vec<Target> = services
        .iter()
        .flat_map(|service| {
            let offered = service.endpoints.iter().filter(|endpoint| endpoint.port() > 0).filter(has_tag);
            offered.map(|endpoint| target(service, &endpoint.record()))
        })
        .collect();
    Ok(json::reply(StatusCode::OK, &targets))
}

fn parse(query: &str) -> Result<(Option<String>, Option<String>), Problem> {
    let (mut service, mut tag) = (None, None);
    for (key, value) in query::pairs(query) {
        match key.as_str() {
            "service" => service = Some(value),
            "tag" => tag = Some(value),
            _ => return Err(Problem::bad_request(format!("no parameter {key:?}"), "service and tag are known")),
        }
    }
    Ok((service, tag))
}

fn target(service: &Service, record: &Record) -> Target {
    let mut labels = BTreeMap::new();
    let mut say = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            labels.insert(format!("__meta_wharf_{name}"), value.to_owned());
        }
    };
    say("service", Some(&service.name));
    say("node", record.node.as_deref());
    say("id", record.id.as_deref());
    say("role", record.role.map(|role| role.as_str()));
    say("proto", Some(record.proto.unwrap_or_default().as_str()));
    say("container", record.container.as_deref());
    say("image", record.image.as_deref());
    if !record.tags.is_empty() {
        say("tags", Some(&format!(",{},", record.tags.join(",")))); // commas around, so that one tag is matched by ,tag,
    }
    for (name, value) in &record.attrs {
        say(&format!("attr_{}", label_name(name)), Some(value));
    }
    Target { targets: [api::hostport(record)], labels }
}

/// A label's name holds letters, digits and underscores.
fn label_name(name: &str) -> String {
    name.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '_' }).collect()
}
