//! The catalog by services, as HTTP and the command line show it: names are exact here, never subtrees.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::selectors::role_term;
use super::{Catalog, Endpoint, path};
use crate::model::steer::names::Steered;
use crate::model::words::record::{Role, Text};
use crate::model::words::zone::Zones;

/// One service: its name, and what was found under it.
#[derive(Clone, Debug)]
pub struct Service {
    /// Dotted, relative to the default domain; names of other zones are in full.
    pub name: String,
    /// Its endpoints, in key order.
    pub endpoints: Vec<Endpoint>,
    /// Several of them claim to be the primary.
    pub contested: bool,
}

/// Records with a role that are looked at for one service: some may stand in services below it.
const LOOKED_AT: usize = 256;

/// A service that has one primary, or whose role names go by a topology.
#[derive(Clone, Debug)]
pub struct Led {
    /// Its path.
    pub path: Text,
    /// How its role names stand, where they go by a topology.
    pub steered: Option<Steered>,
    /// The one that is named primary.
    pub primary: Option<Endpoint>,
    /// Some of its replicas.
    pub replicas: Vec<Endpoint>,
}

impl Catalog {
    /// Every service with one primary or a topology, each with at most so many replicas.
    pub fn led(&self, replicas: usize) -> impl Iterator<Item = Led> {
        let with_role = move |role, path: &str, most: usize| -> Vec<Endpoint> {
            let found = self.selectors.within(role_term(role), path, None).take(LOOKED_AT);
            let direct = found.filter(|entry| path::parent(entry.path()) == Some(path));
            direct.take(most).cloned().map(Endpoint).collect()
        };
        self.services.iter().filter_map(move |(path, members)| {
            let steered = self.steered(path);
            (members.primaries == 1 || steered.is_some()).then(|| Led {
                steered,
                primary: with_role(Role::Primary, path, 1).pop().filter(|_| members.primaries == 1),
                replicas: with_role(Role::Replica, path, replicas),
                path: path.clone(),
            })
        })
    }

    /// Every service, by name. Records of no zone are left out.
    pub fn services(&self, zones: &Zones) -> Vec<Service> {
        let mut services: BTreeMap<String, Service> = BTreeMap::new();
        let mut last: Option<(&str, Option<String>)> = None;
        for entry in self.tree.values() {
            let Some(parent) = path::parent(&entry.key) else { continue };
            if last.as_ref().is_none_or(|(path, _)| *path != parent) {
                last = Some((parent, zones.service_name(parent)));
            }
            let Some((_, Some(name))) = &last else { continue };
            let service = services.entry(name.clone()).or_insert_with(|| Service {
                name: name.clone(),
                endpoints: Vec::new(),
                contested: false,
            });
            service.contested |= self.contested.contains(parent);
            service.endpoints.push(Endpoint(entry.clone()));
        }
        services.into_values().collect()
    }

    /// The name of every service, without looking at its records. One that stands in several zones may come
    /// more than once.
    pub fn service_names(&self, zones: &Zones) -> impl Iterator<Item = String> {
        self.services.keys().filter_map(|path| zones.service_name(path))
    }

    /// Every service for one who takes them slowly: what is not taken yet costs a pointer for each endpoint, and no
    /// text.
    pub fn each_service(&self, zones: &Arc<Zones>) -> impl Iterator<Item = Service> + Send + 'static {
        let (mut sizes, mut endpoints) = (Vec::new(), Vec::with_capacity(self.tree.len()));
        for service in self.services(zones) {
            sizes.push((service.endpoints.len(), service.contested));
            endpoints.extend(service.endpoints);
        }
        let (mut endpoints, zones) = (endpoints.into_iter(), zones.clone());
        sizes.into_iter().filter_map(move |(size, contested)| {
            let endpoints: Vec<Endpoint> = endpoints.by_ref().take(size).collect();
            let name = zones.service_name(path::parent(endpoints.first()?.key())?)?;
            Some(Service { name, endpoints, contested })
        })
    }

    /// The service of exactly this name: dotted below the default domain, or in full below any zone.
    pub fn service(&self, zones: &Zones, name: &str) -> Option<Service> {
        let mut service = Service { name: String::new(), endpoints: Vec::new(), contested: false };
        for path in zones.service_paths(name) {
            let own = self.below(&path, None).filter(|entry| self.is_directly_below(&entry.key, &path));
            service.endpoints.extend(own.cloned().map(Endpoint));
            service.contested |= self.contested.contains(path.as_str());
            if service.name.is_empty() {
                service.name = zones.service_name(&path).unwrap_or_else(|| name.to_owned());
            }
        }
        (!service.endpoints.is_empty()).then_some(service)
    }

    /// Whether what a key has in front of its last segment reads as `path`.
    fn is_directly_below(&self, key: &str, path: &str) -> bool {
        let Some(parent) = path::parent(key) else { return false };
        path::alias(self.bounds.prefix_of(key), parent).map_or(parent == path, |read| read == path)
    }
}
