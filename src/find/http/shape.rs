//! From the catalog's own types to the shapes that are sent.

use crate::find::view::{CatalogView, Progress};
use crate::model::api;
use crate::model::catalog::{Catalog, Endpoint, Service};
use crate::model::name::Label;
use crate::model::zone::Zones;

/// How many near names are told.
const MAX_NEAR: usize = 3;
/// In a catalog of more services a near name is not looked for: a wrong one should cost little.
const MAX_LOOKED_AT: usize = 5_000;

/// All that is sent of a service but its endpoints.
pub(super) fn head(found: &Service) -> api::Service {
    api::Service { name: found.name.as_str().into(), contested: found.contested, ..api::Service::default() }
}

/// An endpoint as it is sent.
pub(super) fn endpoint(found: &Endpoint) -> api::Endpoint {
    api::Endpoint { record: found.record(), key: found.key().clone(), held: found.held() }
}

/// Whether what is shown may be out of date: the store is away, or has not been read since the start.
pub(super) fn is_stale(view: &CatalogView, catalog: &Catalog) -> bool {
    catalog.is_stale() || view.progress() != Progress::Read
}

/// Whether a node's name or a tag is the one asked for: the same text, or the same slug, as in DNS.
pub(super) fn alike(given: &str, asked: &str) -> bool {
    given == asked || Label::slug(asked).is_some_and(|asked| Label::slug(given) == Some(asked))
}

/// Names that may have been meant: those that share whole labels at one end, then those a slip or two away.
pub(super) fn near(catalog: &Catalog, zones: &Zones, asked: &str) -> Vec<String> {
    if catalog.counts().services > MAX_LOOKED_AT {
        return Vec::new();
    }
    let asked = asked.to_ascii_lowercase();
    let (below, within) = (format!(".{asked}"), format!("{asked}."));
    let mut near: Vec<(usize, String)> = catalog
        .services(zones)
        .into_iter()
        .filter_map(|service| {
            let name = &service.name;
            let shares = |one: &str, ends: &str, begins: &str| one.ends_with(ends) || one.starts_with(begins);
            let related = shares(name, &below, &within) || shares(&asked, &format!(".{name}"), &format!("{name}."));
            let distance = if related { 0 } else { slips(&service.name, &asked)? };
            Some((distance, service.name))
        })
        .collect();
    near.sort();
    near.truncate(MAX_NEAR);
    near.into_iter().map(|(_, name)| name).collect()
}

/// How many letters must be changed, added or left out to get from one name to the other; `None` when too many.
fn slips(one: &str, other: &str) -> Option<usize> {
    let allowed = (other.len() / 3).clamp(1, 2);
    if one.len().abs_diff(other.len()) > allowed || other.len() > 64 {
        return None;
    }
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (line, left) in one.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], line + 1);
        for (column, right) in other.bytes().enumerate() {
            let swapped = diagonal + usize::from(left != right);
            diagonal = row[column + 1];
            row[column + 1] = swapped.min(row[column] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().filter(|distance| *distance <= allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_forgiven_and_another_name_is_not() {
        for (one, other, distance) in [
            ("redis", "redi", Some(1)),
            ("redis", "reids", None),
            ("memcached", "memcahced", Some(2)),
            ("pg", "go", None),
        ] {
            assert_eq!(slips(one, other), distance, "{one} {other}");
        }
    }

    #[test]
    fn nodes_and_tags_are_compared_as_dns_does() {
        assert!(alike("Core 01", "core-01"));
        assert!(alike("blue", "blue"));
        assert!(!alike("blue", "green"));
    }
}
