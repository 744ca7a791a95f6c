//! What the store has of the topologies of all services, kept as it changes: role names go by it on every host, also on
//! those that steer nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::model::steer::journal::Journal;
use crate::model::steer::names::{Head, Heads};
use crate::model::steer::topology::Applied;
use crate::model::words::key::{self, Prefix};
use crate::store::{Event, Item, Revision, Store, StoreError, watch_since};

/// Pause before the store is asked again.
const AGAIN: Duration = Duration::from_secs(1);
/// A watch that is silent for longer is not in step any more.
const SILENCE: Duration = Duration::from_secs(10);
/// Keys kept; a cluster has fewer, and what else is written there is not ours.
const MAX_KEYS: usize = 4_096;
/// The longest value: 64 servers take a tenth of it.
const MAX_VALUE: usize = 256 * 1024;

/// Keeps them.
#[derive(Debug)]
pub struct HeadKeeper {
    store: Arc<dyn Store>,
    prefix: String,
    known: BTreeMap<String, Item>,
    shown: watch::Sender<Arc<Heads>>,
}

impl HeadKeeper {
    /// A keeper of the topologies beside `prefix`, and where they are read.
    pub fn new(store: Arc<dyn Store>, prefix: &Prefix) -> (Self, watch::Receiver<Arc<Heads>>) {
        let (shown, seen) = watch::channel(Arc::default());
        (Self { store, prefix: prefix.topologies(), known: BTreeMap::new(), shown }, seen)
    }

    /// Follows the store until `stop`; what was known last stands while it is away.
    pub async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        stop.clone().run_until_cancelled(self.follow()).await;
        Ok(())
    }

    async fn follow(&mut self) {
        loop {
            if let Err(error) = self.once().await {
                debug!(%error, "topologies are not in step with the store");
            }
            sleep(AGAIN).await;
        }
    }

    /// Reads all, then takes in changes until the watch breaks.
    async fn once(&mut self) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        let generation = store.history().borrow().generation;
        let revision = self.read().await?;
        self.show();
        let prefix = self.prefix.clone();
        let mut watch = watch_since(&*store, generation, &prefix, revision + 1).await?;
        loop {
            let batch = timeout(SILENCE, watch.next()).await;
            let silent = |_| StoreError::Away { tried: "watching topologies".into(), source: None };
            let batch = batch.map_err(silent)??;
            if batch.events.is_empty() {
                continue;
            }
            for event in batch.events {
                match event {
                    Event::Put(item) => self.put(item),
                    Event::Delete { key, .. } => _ = self.known.remove(&key),
                }
            }
            self.show();
        }
    }

    async fn read(&mut self) -> Result<Revision, StoreError> {
        self.known.clear();
        let (mut after, mut at) = (None::<String>, None);
        loop {
            let page = self.store.read(&self.prefix, after.as_deref(), at).await?;
            at = Some(page.revision);
            for item in page.items {
                after = Some(item.key.clone());
                self.put(item);
            }
            if !page.more || self.known.len() >= MAX_KEYS {
                return Ok(page.revision);
            }
        }
    }

    fn put(&mut self, item: Item) {
        let is_known = self.known.contains_key(&item.key);
        if item.value.len() <= MAX_VALUE && (is_known || self.known.len() < MAX_KEYS) {
            self.known.insert(item.key.clone(), item);
        } else {
            warn!(key = ?key::shown(&item.key), "more of topologies than is kept: left out");
        }
    }

    fn show(&self) {
        let heads = heads(&self.prefix, &self.known);
        self.shown.send_if_modified(|shown| {
            let differs = **shown != heads;
            if differs {
                *shown = Arc::new(heads);
            }
            differs
        });
    }
}

/// What the keys say; one that cannot be read says nothing, and those who steer tell of it.
fn heads(prefix: &str, known: &BTreeMap<String, Item>) -> Heads {
    let mut heads: BTreeMap<String, Head> = BTreeMap::new();
    for (key, item) in known {
        let Some((service, what)) = key.strip_prefix(prefix).and_then(|rest| rest.split_once('/')) else { continue };
        let head = heads.entry(service.to_owned()).or_default();
        match what {
            "applied" => {
                head.applied = Applied::decode(&item.value).ok();
                head.revision = item.revision;
            }
            "journal" => head.at_work(Journal::decode(&item.value).ok().as_ref()),
            _ => {}
        }
    }
    Heads(heads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Write;
    use crate::store::embedded::Embedded;

    #[tokio::test]
    async fn topologies_come_and_go_with_their_keys() {
        let store = Embedded::new();
        let prefix = Prefix::parse("/services").expect("a prefix");
        let (keeper, mut seen) = HeadKeeper::new(Arc::new(store.clone()), &prefix);
        let stop = CancellationToken::new();
        let running = tokio::spawn(keeper.run(stop.clone()));
        let put = |key: &str, value: &str| Write::Put {
            key: format!("/wharf/services/topology/redis-1/{key}"),
            value: value.to_owned().into(),
            lease: 0,
        };
        let journal = |stage: &str| {
            put("journal", &format!(r#"{{"number":4,"kind":"switch","stage":"{stage}","target":{{"name":"b"}}}}"#))
        };
        let applied = put("applied", r#"{"epoch":2,"master":{"name":"a"}}"#);
        for (write, switching, master) in [
            (journal("promote"), true, None),
            (applied, true, Some("a")),
            (journal("publish"), false, Some("a")),
            (journal("{"), false, Some("a")),
        ] {
            store.commit(&[], &[write]).await.expect("it takes writes");
            let is_so = |heads: &Arc<Heads>| {
                heads.0.get("redis-1").is_some_and(|head| {
                    let named = head.applied.as_ref().map(|applied| applied.master.name.as_str());
                    head.switching == switching && named == master
                })
            };
            timeout(Duration::from_secs(10), seen.wait_for(is_so)).await.expect("in time").expect("it runs");
        }
        stop.cancel();
        running.await.expect("no panic").expect("no error");
    }
}
