//! The topologies of services and the numbers of hosts, as the mirror lays them over its catalog.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::fold::Fold;
use crate::catalog::index::Catalog;
use crate::follow::nodes::Hosts;
use crate::model::steer::names::{Head, Heads};
use crate::model::words::key::Prefix;
use crate::model::words::ordinal::Numbered;

/// What is laid over the catalog; by default nothing is.
#[derive(Debug, Default)]
pub(super) struct HeadsHere {
    from: Option<(Prefix, watch::Receiver<Arc<Heads>>)>,
    hosts: Option<(Hosts, Arc<Numbered>)>,
    now: Arc<Heads>,
    /// Of each service that is being switched, since when.
    since: BTreeMap<String, Duration>,
}

impl HeadsHere {
    pub(super) fn new(prefix: Prefix, heads: watch::Receiver<Arc<Heads>>) -> Self {
        Self { from: Some((prefix, heads)), ..Self::default() }
    }

    /// The same with what hosts say of themselves.
    pub(super) fn among(mut self, hosts: Hosts) -> Self {
        self.hosts = Some((hosts, Arc::default()));
        self
    }

    /// Waits for a change; for ever when none can come. Nothing is lost when this is dropped.
    pub(super) async fn changed(&mut self) {
        let heads = self.from.as_mut().map(|(_, heads)| heads);
        let (numbered, advertised) = match &mut self.hosts {
            Some((hosts, _)) => (Some(&mut hosts.numbered), Some(&mut hosts.advertised)),
            None => (None, None),
        };
        tokio::select! {
            () = changed(heads) => {}
            () = changed(numbered) => {}
            () = changed(advertised) => {}
        }
    }

    /// Takes a change in: what was answered about those services is to be answered anew.
    pub(super) fn take_in(&mut self, fold: &mut Fold, now: Duration) {
        if let Some((hosts, now)) = &mut self.hosts {
            let new = Arc::clone(&hosts.numbered.borrow_and_update());
            if *now != new {
                fold.both(Catalog::touch_all);
                *now = new;
            }
            let advertised = Arc::clone(&hosts.advertised.borrow_and_update());
            if *fold.catalog().advertised() != advertised {
                fold.both(|catalog| catalog.set_advertised(&advertised));
            }
        }
        let Some((prefix, heads)) = &mut self.from else { return };
        let new = Arc::clone(&heads.borrow_and_update());
        let services = self.now.0.keys().chain(new.0.keys());
        for service in services.filter(|service| self.now.0.get(*service) != new.0.get(*service)) {
            fold.both(|catalog| catalog.touch_service(prefix, service));
        }
        let is_switching = |head: &Head| head.switching;
        self.since.retain(|service, _| new.0.get(service).is_some_and(is_switching));
        for (service, _) in new.0.iter().filter(|(_, head)| is_switching(head)) {
            self.since.entry(service.clone()).or_insert(now);
        }
        self.now = new;
    }

    /// Lays them over what is shown.
    pub(super) fn lay(&self, shown: &mut Catalog) {
        if let Some((_, now)) = &self.hosts {
            shown.lay_numbered(now);
        }
        if let Some((prefix, _)) = &self.from {
            shown.lay_heads(prefix, &self.now, &self.since);
        }
    }
}

async fn changed<T>(of: Option<&mut watch::Receiver<T>>) {
    if let Some(of) = of
        && of.changed().await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}
