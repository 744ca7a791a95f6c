//! The catalog as JSON, made endpoint by endpoint from one snapshot, so that 100,000 endpoints are never in memory as
//! text, neither as a list of services nor as one of them.

use std::sync::Arc;

use axum::body::Bytes;
use serde::Serialize;

use super::difference::{Changed, Difference};
use super::json;
use super::pieces::PIECE;
use crate::catalog::facade::api;
use crate::catalog::index::{Catalog, Endpoint, Service};
use crate::model::words::zone::Zones;

/// What ends a document that [`open`] began.
const CLOSE: &str = "]}";

/// What is said of the catalog as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stand {
    pub(super) revision: i64,
    pub(super) stale: bool,
}

/// The services to come: the head of each, and its endpoints.
type Coming = Box<dyn Iterator<Item = (api::Service, Vec<Endpoint>)> + Send>;

/// JSON under way to a client.
pub(super) struct Listing {
    text: Vec<u8>,
    services: Coming,
    /// What is left of the service under way.
    endpoints: Option<std::vec::IntoIter<Endpoint>>,
    /// Whether the next element of the list under way needs no comma.
    first: bool,
    /// What ends it all, once.
    tail: Option<String>,
}

impl Listing {
    /// `before`, every service of the zones in the shape of `GET /v1/services`, and `after`.
    pub(super) fn of_all(before: &str, catalog: &Catalog, stale: bool, zones: &Arc<Zones>, after: &str) -> Self {
        let at = Stand { revision: catalog.revision(), stale };
        Self::of_services(before, at, catalog.each_service(zones), after)
    }

    /// The same with these services only.
    pub(super) fn of_services<S>(before: &str, at: Stand, services: S, after: &str) -> Self
    where
        S: Iterator<Item = Service> + Send + 'static,
    {
        let document = api::Services { revision: at.revision, stale: at.stale, services: Vec::new() };
        let services = services.map(|service| (api::Service::head(&service), service.endpoints));
        Self::new(before, &document, Box::new(services), after)
    }

    /// One event's data, with the services that changed whole or by their endpoints that did.
    pub(super) fn of_change(before: &str, of: &Difference, by: Changed, after: &str) -> Self {
        let Stand { revision, stale } = of.at;
        let document = api::Change { revision, stale, removed: of.removed.clone(), changed: Vec::new() };
        let changed: Vec<_> = of.changed.iter().map(|service| service.told(by)).collect();
        Self::new(before, &document, Box::new(changed.into_iter()), after)
    }

    /// One service as a document of its own.
    pub(super) fn of_one(head: &api::Service, endpoints: Vec<Endpoint>, after: &str) -> Self {
        let endpoints = Some(endpoints.into_iter());
        Self {
            text: open(head),
            services: Box::new(std::iter::empty()),
            endpoints,
            first: true,
            tail: Some(after.to_owned()),
        }
    }

    fn new(before: &str, document: &impl Serialize, services: Coming, after: &str) -> Self {
        let text = [before.as_bytes(), &open(document)].concat();
        let tail = Some(format!("{CLOSE}{after}"));
        Self { text, services, endpoints: None, first: true, tail }
    }

    /// Writes the next endpoint, or what stands between two services.
    fn step(&mut self) {
        let Some(endpoints) = &mut self.endpoints else { return self.next_service() };
        match endpoints.next() {
            Some(endpoint) => {
                self.comma();
                json::write(&mut self.text, &api::Endpoint::from(&endpoint));
            }
            None => {
                self.text.extend_from_slice(CLOSE.as_bytes());
                (self.endpoints, self.first) = (None, false);
            }
        }
    }

    fn next_service(&mut self) {
        if let Some((head, endpoints)) = self.services.next() {
            self.comma();
            self.text.extend(open(&head));
            (self.endpoints, self.first) = (Some(endpoints.into_iter()), true);
        } else if let Some(tail) = self.tail.take() {
            self.text.extend(tail.into_bytes());
        }
    }

    fn comma(&mut self) {
        if !std::mem::replace(&mut self.first, false) {
            self.text.push(b',');
        }
    }
}

impl Iterator for Listing {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        while self.text.len() < PIECE && self.tail.is_some() {
            self.step();
        }
        let piece = std::mem::take(&mut self.text);
        (!piece.is_empty()).then(|| piece.into())
    }
}

/// The JSON of a document whose last field is an empty list, up to where the list's elements go.
fn open(document: &impl Serialize) -> Vec<u8> {
    let mut text = json::bytes(document);
    debug_assert!(text.ends_with(b"[]}"), "the list comes last");
    text.truncate(text.len() - CLOSE.len());
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::words::key::Prefix;

    #[test]
    fn pieces_are_the_document_that_the_shapes_would_give() {
        let mut catalog = Catalog::default();
        for number in 0..2_000 {
            let key = format!("/services/s{}/i{number}", number % 3);
            catalog.put(&key, br#"{"host":"10.0.0.1","port":80,"role":"primary"}"#, 1, number + 1).expect("a record");
        }
        let zones = Zones::new("services.internal", Prefix::parse("/services").expect("a prefix"), []).expect("a zone");
        let zones = Arc::new(zones);
        let services = catalog.services(&zones);
        let whole =
            api::Services { revision: 0, stale: true, services: services.iter().map(api::Service::from).collect() };
        let pieces: Vec<Bytes> = Listing::of_all("data: ", &catalog, true, &zones, "\n").collect();
        assert!(pieces.len() > 3 && pieces.iter().all(|piece| piece.len() < 2 * PIECE));
        assert_eq!(pieces.concat(), [b"data: ", &*json::bytes(&whole), b"\n"].concat());
        let one = Listing::of_one(&api::Service::head(&services[0]), services[0].endpoints.clone(), "");
        assert_eq!(one.collect::<Vec<_>>().concat(), json::bytes(&whole.services[0]));
    }
}
