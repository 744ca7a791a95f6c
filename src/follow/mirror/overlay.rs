//! What this host knows of itself, laid over what the store says: its own records out, what it offers in.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::catalog::index::{Catalog, Endpoint};
use crate::model::publish::local::Overlay;
use crate::model::publish::plan;
use crate::model::words::record::Record;

/// The catalog with the overlay of `node` over it. What it shows of this host already stays: in a burst of starts that
/// is nearly all.
pub(super) fn overlaid(base: &Catalog, overlay: &Overlay, node: &str) -> Catalog {
    let shown = overlay.records.iter().filter(|(key, record)| is_shown(base, overlay, key, record));
    let shown: HashSet<&str> = shown.map(|(key, _)| key.as_str()).collect();
    let goes = |endpoint: &Endpoint| !overlay.partial || endpoint.record().container.is_none();
    let own = base.owned_by(node, &overlay.owner);
    let own = own.iter().filter(|own| !shown.contains(&**own.key()) && goes(own)).map(|own| &**own.key());
    let out = overlay.out.iter().map(String::as_str);
    let out = out.filter(|key| !shown.contains(key) && !is_anothers(base, overlay, key));
    let records = overlay.records.iter().filter(|(key, _)| !shown.contains(key.as_str()));
    let records: Vec<_> = records.map(|(key, record)| (place(base, overlay, key, record), &**record)).collect();
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

/// Whether another owner's record stands, or is held, under a key; or one without an owner, unless it stands in for
/// ours.
fn is_anothers(base: &Catalog, overlay: &Overlay, key: &str) -> bool {
    base.get(key).is_some_and(|endpoint| match endpoint.owner() {
        Some(owner) => *owner != overlay.owner,
        None => !overlay.out.contains(key),
    })
}

/// Whether a record of this host stands in the catalog as it is to be shown.
fn is_shown(base: &Catalog, overlay: &Overlay, key: &str, record: &Record) -> bool {
    let own = base.get(key).filter(|endpoint| endpoint.owner() == Some(&overlay.owner) && !endpoint.held());
    own.is_some_and(|endpoint| endpoint.record() == *record)
}
