//! `/v1/services` and `/v1/services/NAME`: the catalog as JSON.

use std::sync::Arc;

use axum::Extension;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::error::Problem;
use super::listing::Listing;
use super::router::Context;
use super::{json, pieces, shape};
use crate::catalog::facade::api;
use crate::catalog::index::Endpoint;
use crate::catalog::select::near::near;
use crate::host::clients::Guest;
use crate::model::words::record::Role;
use crate::model::words::site::{Standpoint, said_near};

/// A longer name is nobody's slip of the pen.
const MAX_NAME: usize = 253;

pub(super) async fn all(State(context): State<Context>, Extension(guest): Extension<Guest>) -> Response {
    let ticket = context.readers.take(&guest);
    let catalog = context.sources.catalog.load();
    let stale = shape::is_stale(&context.sources.catalog, &catalog);
    let zones = context.sources.zones.clone();
    let listing = context.workbench.run(&guest, move || Listing::of_all("", &catalog, stale, &zones, "\n")).await;
    json::raw(StatusCode::OK, pieces::body(listing, ticket))
}

pub(super) async fn one(
    State(context): State<Context>,
    Extension(guest): Extension<Guest>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let wanted = Wanted::parse(query.as_deref().unwrap_or_default())?;
    let ticket = context.readers.take(&guest);
    let catalog = context.sources.catalog.load();
    let stale = shape::is_stale(&context.sources.catalog, &catalog);
    let (of, zones, settings) = (name.clone(), context.sources.zones.clone(), Arc::clone(&context.settings));
    let listing = context.workbench.run(&guest, move || {
        let found = catalog.service(&zones, &of)?;
        let head =
            api::Service { revision: Some(catalog.revision()), stale: Some(stale), ..api::Service::head(&found) };
        Some(Listing::of_one(&head, wanted.of(found.endpoints, &settings.standpoint), "\n"))
    });
    match listing.await {
        Some(listing) => Ok(json::raw(StatusCode::OK, pieces::body(listing, ticket))),
        None => Err(unknown(&context, &guest, &name).await),
    }
}

/// Why there is no such service: it may merely not be known yet.
pub(super) async fn unknown(context: &Context, guest: &Guest, name: &str) -> Problem {
    if !context.sources.ready.borrow().catalog {
        return Problem::not_yet(
            format!("{name:?} is not known, and the catalog has not been read from the store yet"),
            "ask again; GET /readyz tells when it has been read",
        );
    }
    let names = if name.len() > MAX_NAME { Vec::new() } else { meant(context, guest, name.to_owned()).await };
    let hint = match names.as_slice() {
        [] => {
            "wharf services (GET /v1/services) lists all; wharf explain tells why a container of this host is not among them".to_owned()
        }
        names => format!("did you mean {}? names are exact here, unlike in DNS", names.join(" or ")),
    };
    Problem::not_found(format!("no service {name:?}"), hint)
}

/// Names that may have been meant.
async fn meant(context: &Context, guest: &Guest, name: String) -> Vec<String> {
    let (catalog, zones) = (context.sources.catalog.load(), context.sources.zones.clone());
    context.workbench.run(guest, move || near(&catalog, &zones, &name)).await
}

fn is_asked_for(value: &str) -> Result<bool, Problem> {
    said_near(value).ok_or_else(|| Problem::bad_request(format!("near={value:?}"), "near is 1 or 0"))
}

/// How far an endpoint is: 0 on this host.
fn distance(endpoint: &Endpoint, from: &Standpoint) -> u8 {
    let is_own = from.node().is_some_and(|node| endpoint.is_on(node));
    if is_own { 0 } else { from.distance_to(endpoint.site().map(|site| &**site)) }
}

/// Which endpoints of a service are asked for.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    role: Option<Role>,
    tag: Option<String>,
    node: Option<String>,
    near: bool,
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
                "near" => wanted.near = is_asked_for(&value)?,
                _ => {
                    let hint = "role, tag, node and near are known";
                    return Err(Problem::bad_request(format!("no parameter {key:?}"), hint));
                }
            }
        }
        Ok(wanted)
    }

    /// Those that are asked for, the nearest first if that is.
    fn of(&self, mut endpoints: Vec<Endpoint>, from: &Standpoint) -> Vec<Endpoint> {
        endpoints.retain(|endpoint| self.takes(endpoint));
        if self.near {
            endpoints.sort_by_cached_key(|endpoint| distance(endpoint, from));
        }
        endpoints
    }

    fn takes(&self, endpoint: &Endpoint) -> bool {
        self.role.is_none_or(|role| endpoint.role() == Some(role))
            && self.tag.as_deref().is_none_or(|tag| endpoint.tags().iter().any(|given| shape::alike(given, tag)))
            && self.node.as_deref().is_none_or(|node| endpoint.node().is_some_and(|on| shape::alike(on, node)))
    }
}
