//! The locks of the cluster, kept as they change: who has which, since when, and who waits. Only for people to see:
//! what runs a program under a lock asks the store itself.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::few::{self, Kept, Known};
use crate::catalog::facade::api::Locks;
use crate::model::steer::lock::certificate::Certificate;
use crate::model::steer::lock::queue::{Keys, LockName, Place, in_order};
use crate::model::steer::lock::told::Status;
use crate::model::words::key::Prefix;
use crate::store::{Item, Store};

/// So many locks are shown, each with so many who wait.
const MOST: usize = 1_000;
const MOST_WAITING: usize = 100;

/// Keeps them.
#[derive(Debug)]
pub struct LockKeeper {
    store: Arc<dyn Store>,
    prefix: Prefix,
    shown: watch::Sender<Arc<Locks>>,
}

impl LockKeeper {
    /// A keeper of the locks beside `prefix`, and where they are read.
    pub fn new(store: Arc<dyn Store>, prefix: &Prefix) -> (Self, watch::Receiver<Arc<Locks>>) {
        let (shown, seen) = watch::channel(Arc::new(Locks { stale: true, ..Locks::default() }));
        (Self { store, prefix: prefix.clone(), shown }, seen)
    }

    /// Follows the store until `stop`; what was known last stands while it is away.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let Self { store, prefix, shown } = self;
        let below = prefix.locks();
        let show = |known: &Known<Said>, in_step: bool| {
            few::send_changed(&shown, Locks { locks: locks(&prefix, known), stale: !in_step });
        };
        stop.run_until_cancelled(few::follow(store, below, show)).await;
        Ok(())
    }
}

/// One key of a lock.
enum Said {
    Place(Place),
    Child(Certificate),
}

impl Kept for Said {
    const NAME: &str = "keys of locks";

    fn read(item: &Item) -> Result<Self, String> {
        if item.key.ends_with("/child") {
            return Ok(Self::Child(Certificate::decode(&item.value)));
        }
        let Item { key, value, lease, created, .. } = item;
        Ok(Self::Place(Place::new(key.clone().into_bytes(), *created, *lease, value.to_vec())))
    }
}

fn locks(prefix: &Prefix, known: &Known<Said>) -> Vec<Status> {
    let below = prefix.locks();
    let mut all: BTreeMap<&str, (Vec<Place>, Option<Certificate>)> = BTreeMap::new();
    for (key, said) in known.all() {
        let Some(rest) = key.strip_prefix(&below) else { continue };
        let root = rest.rsplit_once("/queue/").map(|(root, _)| root).or_else(|| rest.strip_suffix("/child"));
        let Some(root) = root.filter(|root| all.len() < MOST || all.contains_key(root)) else { continue };
        let (places, child) = all.entry(root).or_default();
        match said {
            Said::Place(place) => places.push(place.clone()),
            Said::Child(certificate) => *child = Some(certificate.clone()),
        }
    }
    let status = |(root, (places, child)): (&str, (Vec<Place>, Option<Certificate>))| {
        // The root of a lock by a key has lost its first slash.
        let name = if root.contains('/') { format!("/{root}") } else { root.to_owned() };
        let name = LockName::parse(&name).ok()?;
        let mut line = in_order(&Keys::new(prefix, &name), places);
        line.truncate(1 + MOST_WAITING);
        let status = Status::new(name.as_str(), &line, child, None);
        (!status.is_free()).then_some(status)
    };
    all.into_iter().filter_map(status).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::store::Write;
    use crate::store::embedded::Embedded;

    #[tokio::test]
    async fn a_lock_is_told_with_its_holder_and_who_waits() {
        let store = Embedded::new();
        let prefix = Prefix::parse("/services").expect("a prefix");
        let (keeper, mut seen) = LockKeeper::new(Arc::new(store.clone()), &prefix);
        let stop = CancellationToken::new();
        let running = tokio::spawn(keeper.run(stop.clone()));
        let put = |key: &str, value: &str| Write::Put {
            key: format!("/wharf/services/locks/{key}"),
            value: value.to_owned().into(),
            lease: 0,
        };
        for write in [
            put("services/pg/master/queue/1", r#"{"node":"core-01"}"#),
            put("services/pg/master/queue/2", r#"{"node":"core-02"}"#),
            put("services/pg/master/queue/readme", "x"),
            put("left/child", r#"{"token":7,"node":"core-03"}"#),
            put("no lock", "x"),
            put("no name/child", "{}"),
        ] {
            store.commit(&[], &[write]).await.expect("it takes writes");
        }
        let told = |locks: &Arc<Locks>| {
            let [left, pg] = &*locks.locks else { return false };
            let waits: Vec<&str> = pg.waiting.iter().map(|waiting| waiting.node.as_str()).collect();
            let has = pg.holder.as_ref().map(|holder| holder.node.as_str());
            pg.name == "/services/pg/master" && has == Some("core-01") && waits == ["core-02"] && left.name == "left"
        };
        timeout(Duration::from_secs(10), seen.wait_for(told)).await.expect("in time").expect("it runs");
        stop.cancel();
        running.await.expect("no panic").expect("no error");
    }
}
