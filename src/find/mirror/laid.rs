//! This host's own records, laid over the catalog while the store has not confirmed them.

use std::borrow::Cow;

use crate::model::catalog::{Catalog, Endpoint};
use crate::model::local::Overlay;
use crate::model::plan;
use crate::model::record::Record;

/// The catalog with what `overlay` says of the host called `node`.
pub(super) fn over(base: &Catalog, overlay: &Overlay, node: &str) -> Catalog {
    let goes = |endpoint: &Endpoint| !overlay.partial || endpoint.record().container.is_none();
    let own = base.owned_by(node, &overlay.owner);
    let own = own.iter().filter(|endpoint| goes(endpoint)).map(|endpoint| &**endpoint.key());
    let out = overlay.out.iter().map(String::as_str).filter(|key| !is_anothers(base, overlay, key));
    let records = overlay.records.iter().map(|(key, record)| (place(base, overlay, key, record), &**record));
    let records: Vec<_> = records.collect();
    base.overlay(own.chain(out), records.iter().map(|(key, record)| (&**key, *record)))
}

/// Where to show a record of this host: beside what another owner has under its key, never in its place.
fn place<'k>(base: &Catalog, overlay: &Overlay, key: &'k str, record: &Record) -> Cow<'k, str> {
    if !is_anothers(base, overlay, key) {
        return Cow::Borrowed(key);
    }
    let free = |key: &String| !is_anothers(base, overlay, key) && !overlay.records.contains_key(key);
    plan::asides(key, record).find(free).map_or(Cow::Borrowed(key), Cow::Owned)
}

/// Whether another owner's record stands, or is held, under a key; or one without an owner, unless it stands in for ours.
fn is_anothers(base: &Catalog, overlay: &Overlay, key: &str) -> bool {
    base.get(key).is_some_and(|endpoint| match endpoint.owner() {
        Some(owner) => *owner != overlay.owner,
        None => !overlay.out.contains(key),
    })
}
