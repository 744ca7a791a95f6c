//! The whole catalog as JSON, made piece by piece from one snapshot, so that 100,000 endpoints are never in memory as
//! text.

use axum::body::Bytes;

use super::{json, shape};
use crate::model::catalog::{Catalog, Service};
use crate::model::zone::Zones;

/// About how much JSON is made at a time.
const PIECE: usize = 32 * 1024;

/// The catalog's JSON under way to a client.
#[derive(Debug)]
pub(super) struct Listing {
    services: std::vec::IntoIter<Service>,
    text: Vec<u8>,
    tail: &'static str,
    first: bool,
    done: bool,
}

/// What is said of the catalog as a whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stand {
    pub(super) revision: i64,
    pub(super) stale: bool,
}

impl Listing {
    /// `head`, the catalog's services as one JSON document, and `tail`.
    pub(super) fn new(head: &str, at: Stand, services: Vec<Service>, tail: &'static str) -> Self {
        let Stand { revision, stale } = at;
        let text = format!("{head}{{\"revision\":{revision},\"stale\":{stale},\"services\":[");
        Self { services: services.into_iter(), text: text.into_bytes(), tail, first: true, done: false }
    }

    /// Every service of the zones.
    pub(super) fn of_all(head: &str, catalog: &Catalog, stale: bool, zones: &Zones, tail: &'static str) -> Self {
        Self::new(head, Stand { revision: catalog.revision(), stale }, catalog.services(zones), tail)
    }
}

impl Iterator for Listing {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        if self.done {
            return None;
        }
        while self.text.len() < PIECE {
            let Some(service) = self.services.next() else {
                self.text.extend_from_slice(b"]}");
                self.text.extend_from_slice(self.tail.as_bytes());
                self.done = true;
                break;
            };
            if !std::mem::replace(&mut self.first, false) {
                self.text.push(b',');
            }
            json::write(&mut self.text, &shape::service(&service));
        }
        Some(Bytes::from(std::mem::take(&mut self.text)))
    }
}
