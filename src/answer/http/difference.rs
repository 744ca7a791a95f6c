//! What differs between two snapshots of the catalog, service by service, and within a service endpoint by endpoint.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use super::listing::Stand;
use crate::catalog::facade::api;
use crate::catalog::index::{Endpoint, Service};
use crate::model::words::record::Text;

/// How a changed service is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Changed {
    /// With all its endpoints.
    #[default]
    Whole,
    /// With those that are new or changed, and the keys of those that are gone.
    ByEndpoint,
}

/// One step from a snapshot to the next.
#[derive(Clone, Debug)]
pub(super) struct Difference {
    pub(super) at: Stand,
    pub(super) changed: Vec<ChangedService>,
    pub(super) removed: Vec<Text>,
}

/// A service that is new or changed.
#[derive(Clone, Debug)]
pub(super) struct ChangedService {
    service: Service,
    fresh: Vec<Endpoint>,
    gone: Vec<Text>,
}

impl Difference {
    /// How many endpoints it holds on to.
    pub(super) fn size(&self) -> usize {
        self.changed.iter().map(|changed| changed.service.endpoints.len() + changed.fresh.len()).sum()
    }
}

impl ChangedService {
    /// What has become of `service`, which was `before`.
    pub(super) fn new(before: Option<&Service>, service: Service) -> Self {
        let before = before.map(|before| before.endpoints.as_slice()).unwrap_or_default();
        let mut old: HashMap<&str, &Endpoint> = before.iter().map(|endpoint| (&**endpoint.key(), endpoint)).collect();
        let mut fresh = service.endpoints.clone();
        fresh.retain(|endpoint| old.remove(&**endpoint.key()).is_none_or(|old| !is_same(old, endpoint)));
        let mut gone: Vec<Text> = old.into_values().map(|endpoint| endpoint.key().clone()).collect();
        gone.sort();
        Self { service, fresh, gone }
    }

    /// Its head and the endpoints that are told.
    pub(super) fn told(&self, by: Changed) -> (api::Service, Vec<Endpoint>) {
        let head = api::Service::head(&self.service);
        match by {
            Changed::Whole => (head, self.service.endpoints.clone()),
            Changed::ByEndpoint => (api::Service { gone: self.gone.clone(), ..head }, self.fresh.clone()),
        }
    }
}

/// A number that stands for all that is shown of a service.
pub(super) fn mark(service: &Service) -> u64 {
    let mut hasher = DefaultHasher::new();
    service.contested.hash(&mut hasher);
    for endpoint in &service.endpoints {
        (endpoint.key(), endpoint.revision(), endpoint.held()).hash(&mut hasher);
        if is_overlaid(endpoint) {
            endpoint.record().encode().hash(&mut hasher);
        }
    }
    hasher.finish()
}

/// Whether nothing that is shown of an endpoint has changed.
fn is_same(old: &Endpoint, new: &Endpoint) -> bool {
    old.revision() == new.revision() && old.held() == new.held() && (!is_overlaid(new) || old.record() == new.record())
}

/// Whether it is laid over by this host while the store is away: no revision tells its states apart.
fn is_overlaid(endpoint: &Endpoint) -> bool {
    endpoint.revision() == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::index::Catalog;
    use crate::model::words::key::Prefix;
    use crate::model::words::zone::Zones;

    fn service(records: &[(&str, u16, i64)]) -> Service {
        let mut catalog = Catalog::default();
        for (label, port, revision) in records {
            let value = format!("10.0.0.1:{port}");
            catalog.put(&format!("/services/redis/{label}"), value.as_bytes(), 0, *revision).expect("a record");
        }
        let zones = Zones::new("services.internal", Prefix::parse("/services").expect("a prefix"), []).expect("a zone");
        catalog.service(&zones, "redis").expect("it has endpoints")
    }

    #[test]
    fn endpoints_that_stay_as_they_are_are_not_told_again() {
        let before = service(&[("a", 1, 1), ("b", 2, 2), ("c", 3, 3), ("overlaid", 4, 0)]);
        let after = service(&[("a", 1, 1), ("b", 9, 5), ("d", 5, 6), ("overlaid", 8, 0)]);
        let changed = ChangedService::new(Some(&before), after.clone());
        let (head, endpoints) = changed.told(Changed::ByEndpoint);
        let ports: Vec<u16> = endpoints.iter().map(Endpoint::port).collect();
        assert_eq!((ports, head.gone), (vec![9, 5, 8], vec![Text::from("/services/redis/c")]));
        assert_eq!(changed.told(Changed::Whole).1.len(), 4);
        let appeared = ChangedService::new(None, after);
        assert_eq!(appeared.told(Changed::ByEndpoint).1.len(), 4, "a new service is told whole");
    }
}
