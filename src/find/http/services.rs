//! `/v1/services` and `/v1/services/NAME`: the catalog as JSON.
//!
//! The whole catalog is sent piece by piece from one snapshot, so that 100,000 endpoints are never in memory as text.

use std::convert::Infallible;

use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::stream;

use super::error::Problem;
use super::router::Context;
use super::{json, shape};
use crate::model::api;
use crate::model::catalog::{Catalog, Service};
use crate::model::record::Role;

/// About how much JSON is made at a time.
const PIECE: usize = 32 * 1024;

pub(super) async fn all(State(context): State<Context>) -> Response {
    let catalog = context.sources.catalog.load();
    let services = catalog.services(&context.sources.zones).into_iter();
    let head = format!("{{\"revision\":{},\"stale\":{},\"services\":[", catalog.revision(), catalog.is_stale());
    let listing = Listing { services, text: head.into_bytes(), first: true, done: false };
    json::raw(StatusCode::OK, Body::from_stream(stream::unfold(listing, piece)))
}

/// A list of services under way to a client.
struct Listing {
    services: std::vec::IntoIter<Service>,
    text: Vec<u8>,
    first: bool,
    done: bool,
}

async fn piece(mut listing: Listing) -> Option<(Result<Bytes, Infallible>, Listing)> {
    if listing.done {
        return None;
    }
    while listing.text.len() < PIECE {
        let Some(service) = listing.services.next() else {
            listing.text.extend_from_slice(b"]}\n");
            listing.done = true;
            break;
        };
        if !std::mem::replace(&mut listing.first, false) {
            listing.text.push(b',');
        }
        json::write(&mut listing.text, &shape::service(&service));
    }
    let text = Bytes::from(std::mem::take(&mut listing.text));
    Some((Ok(text), listing))
}

pub(super) async fn one(
    State(context): State<Context>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let wanted = Wanted::parse(query.as_deref().unwrap_or_default())?;
    let catalog = context.sources.catalog.load();
    let Some(found) = catalog.service(&context.sources.zones, &name) else {
        return Err(unknown(&context, &catalog, &name));
    };
    let mut service = shape::service(&found);
    service.endpoints.retain(|endpoint| wanted.takes(endpoint));
    service.revision = Some(catalog.revision());
    service.stale = Some(catalog.is_stale());
    Ok(json::reply(StatusCode::OK, &service))
}

/// Why there is no such service: it may merely not be known yet.
pub(super) fn unknown(context: &Context, catalog: &Catalog, name: &str) -> Problem {
    if !context.sources.ready.borrow().catalog {
        return Problem::not_yet(
            format!("{name:?} is not known, and the catalog has not been read from the store yet"),
            "ask again; GET /readyz tells when it has been read",
        );
    }
    let near = shape::near(catalog, &context.sources.zones, name);
    let hint = match near.as_slice() {
        [] => {
            "GET /v1/services lists all; wharf explain tells why a container of this host is not among them".to_owned()
        }
        near => format!("did you mean {}? names are exact here, unlike in DNS", near.join(" or ")),
    };
    Problem::not_found(format!("no service {name:?}"), hint)
}

/// Which endpoints of a service are asked for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    role: Option<Role>,
    tag: Option<String>,
    node: Option<String>,
}

impl Wanted {
    fn parse(query: &str) -> Result<Self, Problem> {
        let mut wanted = Self::default();
        for (key, value) in super::query::pairs(query) {
            match key.as_str() {
                "role" => {
                    let role = Role::parse(&value);
                    let hint = "role is primary or replica";
                    wanted.role = Some(role.ok_or_else(|| Problem::bad_request(format!("no role {value:?}"), hint))?);
                }
                "tag" => wanted.tag = Some(value),
                "node" => wanted.node = Some(value),
                _ => return Err(Problem::bad_request(format!("no parameter {key:?}"), "role, tag and node are known")),
            }
        }
        Ok(wanted)
    }

    fn takes(&self, endpoint: &api::Endpoint) -> bool {
        let record = &endpoint.record;
        self.role.is_none_or(|role| record.role == Some(role))
            && self.tag.as_deref().is_none_or(|tag| record.tags.iter().any(|given| shape::alike(given, tag)))
            && self.node.as_deref().is_none_or(|node| record.node.as_deref().is_some_and(|on| shape::alike(on, node)))
    }
}
