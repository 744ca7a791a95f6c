//! Zones: which names are served, and below which prefixes their records stand.
//!
//! `services.internal` is `/services`; a zone given several prefixes is their union. The longest zone that a name lies
//! in is its zone. Reverse trees (`10.in-addr.arpa`) are zones like any other.

use super::key::{self, Prefix};

/// One zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// Lower-case labels, most particular first.
    labels: Vec<String>,
    /// Where its records stand, in the order given.
    prefixes: Vec<Prefix>,
    /// Where they are looked for, in the same order.
    roots: Vec<Prefix>,
}

impl Zone {
    /// The labels of its name, lower-case.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// Its name as text, without the final dot.
    pub fn name(&self) -> String {
        self.labels.join(".")
    }

    /// Where its records stand.
    pub fn prefixes(&self) -> &[Prefix] {
        &self.prefixes
    }

    /// Where they are looked for: a prefix below another one is part of names there, in which case makes no difference
    /// and dots part labels.
    pub fn roots(&self) -> &[Prefix] {
        &self.roots
    }
}

/// A zone's name that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no zone name")]
pub struct BadZone(String);

/// Every zone that is served. The first is the default domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zones {
    zones: Vec<Zone>,
}

impl Zones {
    /// The default domain with its prefix, and others; equal names are one zone with several prefixes.
    pub fn new(
        domain: &str,
        prefix: Prefix,
        others: impl IntoIterator<Item = (String, Prefix)>,
    ) -> Result<Self, BadZone> {
        let mut zones = vec![Zone { labels: labels(domain)?, prefixes: vec![prefix], roots: Vec::new() }];
        for (name, prefix) in others {
            let labels = labels(&name)?;
            match zones.iter_mut().find(|zone| zone.labels == labels) {
                Some(zone) if zone.prefixes.contains(&prefix) => {}
                Some(zone) => zone.prefixes.push(prefix),
                None => zones.push(Zone { labels, prefixes: vec![prefix], roots: Vec::new() }),
            }
        }
        let mut zones = Self { zones };
        let outermost: Vec<Prefix> = zones.prefixes().into_iter().cloned().collect();
        for zone in &mut zones.zones {
            zone.roots = zone.prefixes.iter().map(|prefix| root_of(prefix, &outermost)).collect();
        }
        Ok(zones)
    }

    /// Every zone; the default domain is the first.
    pub fn iter(&self) -> impl Iterator<Item = &Zone> {
        self.zones.iter()
    }

    /// The default domain.
    pub fn default_zone(&self) -> &Zone {
        &self.zones[0]
    }

    /// Every prefix whose keys are served, each once and none below another.
    pub fn prefixes(&self) -> Vec<&Prefix> {
        let mut all: Vec<&Prefix> = self.zones.iter().flat_map(|zone| &zone.prefixes).collect();
        all.sort_unstable();
        all.dedup();
        let is_below = |prefix: &Prefix, other: &Prefix| prefix.as_str().starts_with(&other.below());
        all.iter().filter(|prefix| !all.iter().any(|other| is_below(prefix, other))).copied().collect()
    }

    /// The place of the longest zone that `name` (lower-case labels, most particular first) lies in.
    pub fn find<L: AsRef<[u8]>>(&self, name: &[L]) -> Option<usize> {
        let holds = |zone: &Zone| {
            let own = zone.labels.iter().rev().map(String::as_bytes);
            zone.labels.len() <= name.len() && own.zip(name.iter().rev()).all(|(own, label)| own == label.as_ref())
        };
        let holding = self.zones.iter().enumerate().filter(|(_, zone)| holds(zone));
        holding.max_by_key(|(_, zone)| zone.labels.len()).map(|(place, _)| place)
    }

    /// The zone at a place that [`Zones::find`] gave.
    pub fn get(&self, place: usize) -> Option<&Zone> {
        self.zones.get(place)
    }

    /// The dotted name of the service whose records stand below `path`: relative to the default domain, else in full.
    pub fn service_name(&self, path: &str) -> Option<String> {
        let placed = self
            .zones
            .iter()
            .enumerate()
            .flat_map(|(place, zone)| zone.prefixes.iter().map(move |prefix| (place, zone, prefix)));
        let covering = placed.filter(|(_, _, prefix)| path == prefix.as_str() || prefix.parts(path).is_some());
        let (place, zone, prefix) = covering.min_by_key(|(place, ..)| *place)?;
        let mut labels: Vec<&str> = prefix.parts(path).into_iter().flatten().collect();
        labels.reverse();
        if place > 0 || labels.is_empty() {
            labels.extend(zone.labels.iter().map(String::as_str));
        }
        Some(labels.join("."))
    }

    /// Where the records of the service of this name stand: below the default domain's prefixes, or, when the name
    /// ends in a zone's, below that one's.
    pub fn service_paths(&self, name: &str) -> Vec<String> {
        let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        let labels: Vec<&str> = name.split('.').collect();
        let fits = |label: &&str| !label.is_empty() && !label.contains('/') && !label.chars().any(char::is_control);
        if !labels.iter().all(fits) {
            return Vec::new();
        }
        let relative = self.default_zone().roots.iter().map(|prefix| path_of(prefix, &labels));
        let in_full = self.find(&labels).and_then(|place| self.get(place)).into_iter().flat_map(|zone| {
            let own = &labels[..labels.len() - zone.labels.len()];
            zone.roots.iter().map(|root| path_of(root, own)).collect::<Vec<_>>()
        });
        relative.chain(in_full).collect()
    }
}

/// The path that a prefix reads as below the outermost one that it lies in.
fn root_of(prefix: &Prefix, outermost: &[Prefix]) -> Prefix {
    let within = outermost.iter().find(|other| other.parts(prefix.as_str()).is_some());
    let root = within.and_then(|other| Prefix::parse(&key::alias(other.as_str(), prefix.as_str())?));
    root.unwrap_or_else(|| prefix.clone())
}

/// The path of a name's labels below a prefix.
fn path_of<L: AsRef<str>>(prefix: &Prefix, labels: &[L]) -> String {
    let mut path = prefix.as_str().to_owned();
    for label in labels.iter().rev() {
        path.push('/');
        path.push_str(label.as_ref());
    }
    path
}

fn labels(name: &str) -> Result<Vec<String>, BadZone> {
    let plain = name.strip_suffix('.').unwrap_or(name);
    let fits = |label: &str| {
        (1..=63).contains(&label.len()) && label.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/')
    };
    if plain.len() > 253 || !plain.split('.').all(fits) {
        return Err(BadZone(name.to_owned()));
    }
    Ok(plain.split('.').map(str::to_ascii_lowercase).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        Prefix::parse(text).expect("a prefix")
    }

    fn zones() -> Zones {
        let others = [
            ("skydns.local", "/skydns/local/skydns"),
            ("sub.skydns.local", "/sub"),
            ("SKYDNS.local.", "/services"),
            ("services.internal", "/legacy"),
        ];
        let others = others.map(|(name, path)| (name.to_owned(), prefix(path)));
        Zones::new("services.internal", prefix("/services"), others).expect("zones")
    }

    #[test]
    fn the_longest_zone_wins() {
        let zones = zones();
        let check = |name: &str, expected: Option<&str>| {
            let labels: Vec<&str> = name.split('.').collect();
            let found = zones.find(&labels).and_then(|place| zones.get(place)).map(Zone::name);
            assert_eq!(found.as_deref(), expected, "{name}");
        };
        check("a.services.internal", Some("services.internal"));
        check("a.skydns.local", Some("skydns.local"));
        check("a.sub.skydns.local", Some("sub.skydns.local"));
        check("xskydns.local", None);
        check("internal", None);
    }

    #[test]
    fn equal_names_are_one_zone_with_several_prefixes() {
        let zones = zones();
        assert_eq!(zones.iter().count(), 3);
        assert_eq!(zones.default_zone().prefixes(), [prefix("/services"), prefix("/legacy")]);
        let all: Vec<_> = zones.prefixes().into_iter().map(Prefix::as_str).collect();
        assert_eq!(all, ["/legacy", "/services", "/skydns/local/skydns", "/sub"]);
    }

    #[test]
    fn services_are_named_by_their_zone() {
        let zones = zones();
        assert_eq!(zones.service_name("/services/prod/cache").as_deref(), Some("cache.prod"));
        assert_eq!(zones.service_name("/skydns/local/skydns/web").as_deref(), Some("web.skydns.local"));
        assert_eq!(zones.service_name("/elsewhere/x"), None);
        assert_eq!(zones.service_paths("cache.prod"), ["/services/prod/cache", "/legacy/prod/cache"]);
        assert!(zones.service_paths("web.skydns.local").contains(&"/skydns/local/skydns/web".to_owned()));
        assert!(zones.service_paths("a/b").is_empty());
    }

    #[test]
    fn bad_zone_names_are_refused() {
        for bad in ["", ".", "a..b", "a/b", "a b"] {
            assert!(Zones::new(bad, prefix("/s"), []).is_err(), "{bad:?}");
        }
    }
}
