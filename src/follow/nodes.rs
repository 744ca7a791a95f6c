//! The node records of the cluster and what stays on record of its hosts, kept as they change: what `wharf nodes` and
//! the status page show.
//!
//! They are few (one per host) and seldom change, so each change makes a new whole list. While the store is away the
//! last list stays, marked stale.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join3;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::few::{self, Kept};
use crate::catalog::facade::api;
use crate::model::words::advertised::Advertised;
use crate::model::words::key::Prefix;
use crate::model::words::known::{Known, KnownHost};
use crate::model::words::node::NodeRecord;
use crate::model::words::ordinal::Numbered;
use crate::model::words::record::Text;
use crate::store::{Item, Store};

/// Keeps the list of nodes.
#[derive(Debug)]
pub struct Nodes {
    store: Arc<dyn Store>,
    prefix: Prefix,
    shown: watch::Sender<Arc<api::Nodes>>,
    known: watch::Sender<Arc<Vec<Known>>>,
    numbered: watch::Sender<Arc<Numbered>>,
    advertised: watch::Sender<Arc<Advertised>>,
}

/// Where the mirror reads what the hosts say of themselves that answers rest on.
#[derive(Debug)]
pub struct Hosts {
    /// Which hosts are up and have a number.
    pub numbered: watch::Receiver<Arc<Numbered>>,
    /// Which addresses they have, and what waits there.
    pub advertised: watch::Receiver<Arc<Advertised>>,
}

/// Where what is kept is read.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What is shown of all hosts.
    pub nodes: watch::Receiver<Arc<api::Nodes>>,
    /// What stays on record of them, as the store has it.
    pub known: watch::Receiver<Arc<Vec<Known>>>,
}

/// How long a host is missed before it is called lost: the two lists are followed apart, and a host whose lease ended
/// with the store's own trouble is back within moments.
const GRACE: Duration = Duration::from_secs(5);

/// Both lists as they were read last, and whether each is in step with the store.
#[derive(Debug, Default)]
struct Read {
    nodes: (Vec<NodeRecord>, bool),
    known: (Vec<Known>, bool),
    /// Since when hosts have been missed, by owner.
    missed: BTreeMap<Text, Instant>,
}

impl Read {
    /// What is shown now, and when more of it will be.
    fn shown(&mut self, now: Instant) -> api::Nodes {
        let stale = !(self.nodes.1 && self.known.1);
        let all = api::Nodes::of(stale, self.nodes.0.clone(), &self.known.0);
        let lost: HashSet<&Text> = all.lost.iter().map(|lost| &lost.owner).collect();
        self.missed.retain(|owner, _| lost.contains(owner));
        for lost in &all.lost {
            self.missed.entry(lost.owner.clone()).or_insert(now);
        }
        let missed = &self.missed;
        // One that somebody has written down has been missed for long.
        all.missing(|lost| lost.since.is_some() || missed.get(&lost.owner).is_some_and(|since| now >= *since + GRACE))
    }
}

impl Nodes {
    /// A keeper of what stands beside `prefix`, and where it is read.
    pub fn new(store: Arc<dyn Store>, prefix: &Prefix) -> (Self, Seen) {
        let nothing_yet = api::Nodes { stale: true, ..api::Nodes::default() };
        let (shown, nodes) = watch::channel(Arc::new(nothing_yet));
        let (known, known_seen) = watch::channel(Arc::default());
        let (prefix, numbered, advertised) = (prefix.clone(), watch::Sender::default(), watch::Sender::default());
        (Self { store, prefix, shown, known, numbered, advertised }, Seen { nodes, known: known_seen })
    }

    /// Where it is read what hosts say of themselves.
    pub fn hosts(&self) -> Hosts {
        Hosts { numbered: self.numbered.subscribe(), advertised: self.advertised.subscribe() }
    }

    /// Follows the store until `stop`; whatever the store does, it tries again.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let read = Mutex::new(Read::default());
        let nodes = few::follow(self.store.clone(), self.prefix.nodes(), |kept: &few::Known<NodeRecord>, in_step| {
            let list: Vec<NodeRecord> = kept.all().map(|(_, record)| record.clone()).collect();
            few::send_changed(&self.numbered, Numbered::of(&list));
            few::send_changed(&self.advertised, Advertised::of(&list));
            self.tell(&read, |read| read.nodes = (list, in_step));
        });
        let known = few::follow(self.store.clone(), self.prefix.known(), |kept: &few::Known<Standing>, in_step| {
            let of =
                |(key, of): (&str, &Standing)| Known { key: key.into(), revision: of.revision, host: of.host.clone() };
            let list = kept.all().map(of).collect();
            self.tell(&read, |read| read.known = (list, in_step));
        });
        let missed = async {
            loop {
                sleep(GRACE / 5).await;
                let missed = !read.lock().unwrap_or_else(PoisonError::into_inner).missed.is_empty();
                if missed {
                    self.tell(&read, |_| {});
                }
            }
        };
        let _: Option<((), (), ())> = stop.run_until_cancelled(join3(nodes, known, missed)).await;
        Ok(())
    }

    /// Takes in what one of the lists is now, and shows both together.
    fn tell(&self, read: &Mutex<Read>, change: impl FnOnce(&mut Read)) {
        let mut read = read.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut read);
        if **self.known.borrow() != read.known.0 {
            self.known.send_replace(Arc::new(read.known.0.clone()));
        }
        let shown = read.shown(Instant::now());
        few::send_changed(&self.shown, shown);
    }
}

/// A known host with the revision of its last put.
#[derive(Debug)]
struct Standing {
    revision: i64,
    host: KnownHost,
}

impl Kept for Standing {
    const NAME: &str = "records of known hosts";

    fn read(item: &Item) -> Result<Self, String> {
        let host = KnownHost::decode(&item.value).map_err(|reason| reason.to_string())?;
        Ok(Self { revision: item.revision, host })
    }
}

impl Kept for NodeRecord {
    const NAME: &str = "node records";

    fn read(item: &Item) -> Result<Self, String> {
        Self::decode(&item.value).map_err(|reason| reason.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::time::timeout;

    use super::*;
    use crate::store::Write;
    use crate::store::embedded::Embedded;

    fn record(node: &str) -> Bytes {
        NodeRecord { node: node.into(), ..NodeRecord::default() }.encode().into()
    }

    async fn write(store: &Embedded, writes: &[Write]) {
        store.commit(&[], writes).await.expect("it takes writes");
    }

    fn put(key: &str, value: Bytes) -> Write {
        Write::Put { key: key.into(), value, lease: 0 }
    }

    async fn until(seen: &mut watch::Receiver<Arc<api::Nodes>>, names: &[&str]) {
        let shown = |list: &Arc<api::Nodes>| {
            !list.stale && list.nodes.iter().map(|node| &*node.node).collect::<Vec<_>>() == names
        };
        timeout(Duration::from_secs(10), seen.wait_for(shown)).await.expect("shown in time").expect("it runs");
    }

    #[tokio::test]
    async fn nodes_come_change_and_go_and_a_bad_one_costs_itself() {
        let store = Embedded::new();
        let prefix = Prefix::parse("/services").expect("a prefix");
        write(&store, &[put("/wharf/services/nodes/a/1", record("a")), put("/wharf/services/nodes/x/1", "{".into())])
            .await;
        let (nodes, Seen { nodes: mut seen, .. }) = Nodes::new(Arc::new(store.clone()), &prefix);
        assert!(seen.borrow().stale);
        let stop = CancellationToken::new();
        let running = tokio::spawn(nodes.run(stop.clone()));
        until(&mut seen, &["a"]).await;
        write(&store, &[put("/wharf/services/nodes/b/2", record("b")), put("/services/redis/b", "b:1".into())]).await;
        until(&mut seen, &["a", "b"]).await;
        write(&store, &[Write::Delete("/wharf/services/nodes/a/1".into())]).await;
        until(&mut seen, &["b"]).await;
        stop.cancel();
        running.await.expect("no panic").expect("no error");
    }
}
