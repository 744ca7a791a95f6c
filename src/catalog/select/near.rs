//! Names of services that may have been meant by one that is not there.

use crate::catalog::index::Catalog;
use crate::model::words::zone::Zones;

/// How many near names are told.
const MAX_NEAR: usize = 3;
/// In a catalog of more services a near name is not looked for: a wrong one should cost little.
const MAX_LOOKED_AT: usize = 5_000;

/// Names that may have been meant: those that share whole labels at one end, then those a slip or two away.
pub(crate) fn near(catalog: &Catalog, zones: &Zones, asked: &str) -> Vec<String> {
    if catalog.counts().services > MAX_LOOKED_AT {
        return Vec::new();
    }
    let asked = asked.to_ascii_lowercase();
    let (below, within) = (format!(".{asked}"), format!("{asked}."));
    let mut near: Vec<(usize, String)> = catalog
        .service_names(zones)
        .filter_map(|name| {
            let shares = |one: &str, ends: &str, begins: &str| one.ends_with(ends) || one.starts_with(begins);
            let related = shares(&name, &below, &within) || shares(&asked, &format!(".{name}"), &format!("{name}."));
            let distance = if related { 0 } else { slips(&name, &asked)? };
            Some((distance, name))
        })
        .collect();
    near.sort();
    near.dedup();
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
}
