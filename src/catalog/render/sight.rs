//! All that a template may see at one moment.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use imbl::OrdMap;

use crate::catalog::facade::api;
use crate::catalog::facade::autodiscovery::MemberList;
use crate::model::words::name::Label;
use crate::model::words::node::NodeRecord;
use crate::model::words::record::Text;
use crate::model::words::site::Standpoint;

/// A value that has to be asked for, and may not have been answered yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen<T> {
    /// It was asked for, and this is so.
    Known(T),
    /// Who was asked does not answer now; this was so last.
    Stale(T),
}

impl<T> Seen<T> {
    /// What was told last.
    pub(crate) fn last(&self) -> &T {
        let (Self::Known(value) | Self::Stale(value)) = self;
        value
    }
}

/// A snapshot of the cluster, and of what else templates read. It is cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sight {
    /// The services have been read at all.
    pub(crate) read: bool,
    /// The store is away, or nobody answers: they are what was known last.
    pub(crate) stale: bool,
    /// Every service by its name.
    pub(crate) services: OrdMap<Text, Arc<api::Service>>,
    /// Every node; none while they have not been told.
    pub(crate) nodes: Option<Arc<Vec<NodeRecord>>>,
    /// Keys of the store that were asked for, and their values; none is a key that is not there.
    pub(crate) keys: Arc<BTreeMap<String, Seen<Option<Text>>>>,
    /// Whether there is a store whose keys can be asked for.
    pub(crate) has_keys: bool,
    /// Member lists that were asked for, by service; none where no agent keeps one.
    pub(crate) members: Arc<BTreeMap<String, Seen<Option<MemberList>>>>,
    /// Endpoints of auto-discovery that were asked, and the servers that they named.
    pub(crate) discovered: Arc<BTreeMap<String, Seen<Arc<[Text]>>>>,
    /// Where this host is.
    pub(crate) standpoint: Standpoint,
}

impl Sight {
    /// All services, told anew.
    pub(crate) fn snapshot(&mut self, all: api::Services) {
        // An agent that knows nothing yet says that it is stale at the beginning of time: there is nothing to be seen.
        self.read |= !(all.stale && all.revision == 0 && all.services.is_empty());
        self.stale = all.stale;
        let known = std::mem::take(&mut self.services);
        let kept = |service: api::Service| match known.get(&service.name) {
            Some(known) if **known == service => Arc::clone(known),
            _ => Arc::new(service),
        };
        self.services = all.services.into_iter().map(|service| (service.name.clone(), kept(service))).collect();
    }

    /// What has changed, told by endpoint.
    pub(crate) fn change(&mut self, change: api::Change) {
        self.read |= !change.stale || change.revision > 0 || !change.changed.is_empty();
        self.stale = change.stale;
        for name in &change.removed {
            self.services.remove(name);
        }
        for by in change.changed {
            let known = self.services.entry(by.name.clone()).or_default();
            let known = Arc::make_mut(known);
            (known.name, known.contested) = (by.name, by.contested);
            let fresh = by.endpoints.iter().map(|endpoint| &endpoint.key);
            let out: HashSet<&Text> = by.gone.iter().chain(fresh).collect();
            known.endpoints.retain(|endpoint| !out.contains(&endpoint.key));
            known.endpoints.extend(by.endpoints);
            known.endpoints.sort_by(|one, other| one.key.cmp(&other.key));
        }
    }

    /// Nobody tells anything now.
    pub(crate) fn lost(&mut self) {
        self.stale = true;
    }

    /// How far an endpoint is: 0 on this host.
    pub(super) fn distance(&self, node: Option<&str>, site: Option<&str>) -> u8 {
        let is_own = node.is_some_and(|node| self.standpoint.node().is_some_and(|own| alike(node, own)));
        if is_own { 0 } else { self.standpoint.distance_to(site) }
    }
}

/// Whether two names mean the same node or tag, as DNS compares them.
pub(super) fn alike(given: &str, asked: &str) -> bool {
    given == asked || Label::slug(asked).is_some_and(|asked| Label::slug(given) == Some(asked))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_by_endpoint_lead_to_what_the_agent_has() {
        let service = |text: &str| serde_json::from_str::<api::Service>(text).expect("a service");
        let mut sight = Sight::default();
        sight.snapshot(api::Services { stale: true, ..api::Services::default() });
        assert!(!sight.read, "nothing has been read");
        let redis = service(r#"{"name":"redis","endpoints":[{"key":"a","port":1},{"key":"c","port":3}]}"#);
        let web = service(r#"{"name":"web","endpoints":[{"key":"w","port":80}]}"#);
        let all = api::Services { revision: 7, stale: false, services: vec![redis, web] };
        sight.snapshot(all.clone());
        let before = sight.clone();
        let changed =
            service(r#"{"name":"redis","gone":["c"],"endpoints":[{"key":"b","port":2},{"key":"a","port":9}]}"#);
        sight.change(api::Change { changed: vec![changed], removed: vec!["web".into()], ..api::Change::default() });
        let ports: Vec<u16> = sight.services["redis"].endpoints.iter().map(|endpoint| endpoint.record.port).collect();
        assert_eq!((ports, sight.services.len(), sight.read), (vec![9, 2], 1, true));
        let mut again = before.clone();
        again.snapshot(all);
        assert!(Arc::ptr_eq(&again.services["redis"], &before.services["redis"]), "what is the same stays the same");
        again.lost();
        assert!(again.stale && again.read);
    }
}
