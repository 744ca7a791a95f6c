//! Roles by what topologies have brought about, and numbers of hosts, laid over what the records say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::{Catalog, Entry, path};
use crate::model::steer::names::{Claim, Head, Heads, Steered};
use crate::model::steer::topology::MAX_SERVERS;
use crate::model::words::key::Prefix;
use crate::model::words::ordinal::Numbered;
use crate::model::words::record::Role;

/// A service with more records below it has no topology that is believed: it has room for as many servers as one may
/// name, and for what else may stand there.
pub(super) const LARGEST: usize = 16 * MAX_SERVERS;
/// So many records are looked at for all of them. Each snapshot does it again, and who writes topologies to the store
/// chooses how many services have one.
const MOST: usize = 8 * LARGEST;

impl Catalog {
    /// Lays the topologies of the services below `prefix` over their records. `since` tells of each service that is
    /// being switched since when.
    pub fn lay_heads(&mut self, prefix: &Prefix, heads: &Heads, since: &BTreeMap<String, Duration>) {
        if heads.0.is_empty() {
            return;
        }
        let (mut steered, mut left) = (BTreeMap::new(), MOST);
        for (service, head) in heads.0.iter().filter(|(_, head)| head.applied.is_some()) {
            let place = service_path(prefix, service);
            let below = self.dirs.get(&place).map_or(0, |dir| dir.below as usize);
            if below > LARGEST.min(left) {
                continue;
            }
            left -= below;
            for (entry, role) in self.renamed_roles(&place, head) {
                self.unlink(&entry);
                self.insert(Arc::new(entry.with_role(role)));
            }
            let switching = since.get(service).filter(|_| head.switching);
            steered.insert(place, switching.map_or(Steered::Named, |since| Steered::Switching(*since)));
        }
        self.steered = Arc::new(steered);
    }

    /// The records that are to be found by another role than they claim.
    fn renamed_roles(&self, place: &str, head: &Head) -> Vec<(Arc<Entry>, Option<Role>)> {
        let direct = |entry: &&Arc<Entry>| path::parent(&entry.key) == Some(place);
        let entries: Vec<Arc<Entry>> = self.below(place, None).filter(direct).cloned().collect();
        let claim = |entry: &'_ Arc<Entry>| -> (String, Option<Role>, i64) {
            let name = entry.key.rsplit('/').next().unwrap_or_default().to_owned();
            (name, entry.role, entry.revision)
        };
        let claims: Vec<_> = entries.iter().map(claim).collect();
        let claims: Vec<Claim<'_>> =
            claims.iter().map(|(name, role, revision)| Claim { name, role: *role, revision: *revision }).collect();
        let roles = head.roles(&claims);
        entries.into_iter().zip(roles).filter(|(entry, role)| entry.role != *role).collect()
    }

    /// How the role names of the service at this path stand.
    pub(crate) fn steered(&self, path: &str) -> Option<Steered> {
        self.steered.get(path).copied()
    }

    /// Whether who asks for a role of this service is to wait for another master.
    pub fn is_switching(&self, prefix: &Prefix, service: &str) -> bool {
        matches!(self.steered(&service_path(prefix, service)), Some(Steered::Switching(_)))
    }

    /// Says that answers about a service are to be made anew.
    pub fn touch_service(&mut self, prefix: &Prefix, service: &str) {
        let generation = self.touch();
        if let Some(dir) = self.dirs.get_mut(service_path(prefix, service).as_str()) {
            dir.generation = generation;
        }
    }
}

impl Catalog {
    /// Says which hosts are up and have a number.
    pub fn lay_numbered(&mut self, numbered: &Arc<Numbered>) {
        self.numbered = Arc::clone(numbered);
    }

    /// Where numbered hosts are.
    pub(crate) fn numbered(&self) -> &Numbered {
        &self.numbered
    }

    /// Says that every answer is to be made anew.
    pub fn touch_all(&mut self) {
        self.epoch = self.touch();
    }
}

fn service_path(prefix: &Prefix, service: &str) -> String {
    service.rsplit('.').fold(prefix.as_str().to_owned(), |path, label| format!("{path}/{label}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::steer::topology::{Applied, Server};

    fn catalog() -> (Catalog, Prefix) {
        let mut catalog = Catalog::default();
        for (name, role) in [("a", "replica"), ("b", "primary"), ("c", "primary")] {
            let value = format!(r#"{{"host":"10.0.0.1","port":6379,"role":"{role}"}}"#);
            catalog.put(&format!("/services/redis-1/{name}"), value.as_bytes(), 0, 5).expect("a record");
        }
        (catalog, Prefix::parse("/services").expect("a prefix"))
    }

    fn heads(switching: bool) -> Heads {
        let applied = Applied {
            master: Server { name: "a".to_owned(), ..Server::default() },
            replicas: vec!["b".to_owned()],
            ..Applied::default()
        };
        Heads(BTreeMap::from([("redis-1".to_owned(), Head { applied: Some(applied), revision: 9, switching })]))
    }

    #[test]
    fn records_are_found_by_the_roles_of_the_topology() {
        let (base, prefix) = catalog();
        assert_eq!(base.counts().contested, 1);
        let mut laid = base.clone();
        laid.lay_heads(&prefix, &heads(false), &BTreeMap::new());
        let role = |name: &str| laid.get(&format!("/services/redis-1/{name}")).expect("it is there").role();
        assert_eq!([role("a"), role("b"), role("c")], [Some(Role::Primary), None, None]);
        assert_eq!((laid.counts().contested, laid.counts().records), (0, 3));
        assert_eq!(laid.steered("/services/redis-1"), Some(Steered::Named));
        assert_eq!(base.get("/services/redis-1/a").expect("it is there").role(), Some(Role::Replica), "the base stays");
    }

    #[test]
    fn a_topology_of_a_huge_service_costs_nobody_a_look_at_all_of_it() {
        let (mut catalog, prefix) = catalog();
        let mut put = |key: String| catalog.put(&key, b"10.0.0.1:1", 0, 5).expect("a record");
        (3..LARGEST).for_each(|number| put(format!("/services/redis-1/{number}")));
        let named = |catalog: &Catalog| {
            let mut laid = catalog.clone();
            laid.lay_heads(&prefix, &heads(false), &BTreeMap::new());
            laid.steered("/services/redis-1").is_some()
        };
        assert!(named(&catalog));
        catalog.put("/services/redis-1/one/more", b"10.0.0.1:1", 0, 5).expect("a record");
        assert!(!named(&catalog), "it is answered as its records say");
    }

    #[test]
    fn a_switch_is_known_by_its_beginning() {
        let (mut laid, prefix) = catalog();
        let since = BTreeMap::from([("redis-1".to_owned(), Duration::from_secs(4))]);
        laid.lay_heads(&prefix, &heads(true), &since);
        assert_eq!(laid.steered("/services/redis-1"), Some(Steered::Switching(Duration::from_secs(4))));
        assert!(laid.is_switching(&prefix, "redis-1") && !laid.is_switching(&prefix, "redis"));
        assert_eq!(laid.steered("/services/redis"), None);
    }
}
