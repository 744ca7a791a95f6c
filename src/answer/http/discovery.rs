//! `/sd/prometheus`: every endpoint as a target for Prometheus's `http_sd_configs`.
//!
//! Prometheus replaces its targets by what it is told, so before the first sync this is an error and never an empty
//! list; on an error Prometheus keeps what it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Serialize;

use super::error::Problem;
use super::pieces::{self, Document, Elements};
use super::router::Context;
use super::services::unknown;
use super::{json, query, shape};
use crate::catalog::facade::api;
use crate::catalog::index::{Catalog, Endpoint, Service};
use crate::host::clients::Guest;
use crate::model::words::record::Record;
use crate::model::words::zone::Zones;

/// One target with what is known of it; Prometheus's own shape.
#[derive(Debug, Serialize)]
struct Target {
    targets: [String; 1],
    labels: BTreeMap<String, String>,
}

pub(super) async fn prometheus(
    State(context): State<Context>,
    Extension(guest): Extension<Guest>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let (service, tag) = parse(query.as_deref().unwrap_or_default())?;
    if !context.sources.ready.borrow().catalog {
        return Err(Problem::not_yet("the catalog has not been read from the store yet", "ask again"));
    }
    let ticket = context.readers.take(&guest);
    let (catalog, zones) = (context.sources.catalog.load(), context.sources.zones.clone());
    let asked = service.clone();
    let targets = context.workbench.run(&guest, move || targets(&catalog, &zones, asked.as_deref(), tag)).await;
    match (targets, service) {
        (None, Some(name)) => Err(unknown(&context, &guest, &name).await),
        (targets, _) => {
            let elements = targets.unwrap_or_else(|| Box::new(std::iter::empty()));
            Ok(json::raw(StatusCode::OK, pieces::body(Document::list(elements, "\n"), ticket)))
        }
    }
}

/// Every target that has the tag, of all services or of one; `None` when there is no such service.
fn targets(catalog: &Catalog, zones: &Arc<Zones>, service: Option<&str>, tag: Option<String>) -> Option<Elements> {
    let services: Box<dyn Iterator<Item = Service> + Send> = match service {
        None => Box::new(catalog.each_service(zones)),
        Some(name) => Box::new(std::iter::once(catalog.service(zones, name)?)),
    };
    let targets = services.flat_map(move |service| {
        let tag = tag.clone();
        let has_tag = move |endpoint: &Endpoint| {
            tag.as_deref().is_none_or(|tag| endpoint.tags().iter().any(|given| shape::alike(given, tag)))
        };
        let offered = service.endpoints.into_iter().filter(|endpoint| endpoint.port() > 0).filter(has_tag);
        offered.map(move |endpoint| json::bytes(&target(&service.name, &endpoint.record())))
    });
    Some(Box::new(targets))
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

fn target(service: &str, record: &Record) -> Target {
    let mut labels = BTreeMap::new();
    let mut say = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            labels.insert(format!("__meta_wharf_{name}"), value.to_owned());
        }
    };
    say("service", Some(service));
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
