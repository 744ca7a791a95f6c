//! The one store of a history, behind everybody's links: it hangs, is wiped, and is restored from a backup.
//!
//! It is the embedded store; a lease that nobody keeps ends by its clock, also while the store hangs: then it goes at
//! the thaw, before anything else, as in etcd. Numbers of leases are never given twice, as in etcd, whatever is wiped.

use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::watch;
use wharf::store::Store;
use wharf::store::embedded::Embedded;

/// The store as it is now.
#[derive(Clone, Debug)]
pub struct Now {
    pub store: Embedded,
    /// The cluster's identity.
    pub id: u64,
    pub hung: bool,
    /// Grows when every connection breaks.
    pub breaks: u64,
}

#[derive(Debug)]
pub struct Cluster {
    now: watch::Sender<Now>,
    backup: Mutex<Embedded>,
}

impl Cluster {
    pub fn new() -> Self {
        let store = Embedded::new();
        let backup = Mutex::new(store.copy());
        Self { now: watch::Sender::new(Now { store, id: 1, hung: false, breaks: 0 }), backup }
    }

    pub fn now(&self) -> Now {
        self.now.borrow().clone()
    }

    pub fn store(&self) -> Embedded {
        self.now.borrow().store.clone()
    }

    pub fn follow(&self) -> watch::Receiver<Now> {
        self.now.subscribe()
    }

    pub fn hang(&self, hung: bool) {
        self.now.send_modify(|now| now.hung = hung);
    }

    pub fn back_up(&self) {
        *self.backup.lock().unwrap() = self.store().copy();
    }

    /// Begins anew, empty; as another cluster, or as one with the same identity.
    pub async fn wipe(&self, same: bool) {
        self.replace(Embedded::new(), same).await;
    }

    /// Goes back to the last backup.
    pub async fn restore(&self, same: bool) {
        let backup = self.backup.lock().unwrap().copy();
        self.replace(backup, same).await;
    }

    /// The revision of the last backup.
    pub async fn backed_up(&self) -> i64 {
        let backup = self.backup.lock().unwrap().clone();
        revision(&backup).await
    }

    async fn replace(&self, store: Embedded, same: bool) {
        let used = newest_lease(&self.store()).await;
        while newest_lease(&store).await <= used {}
        *self.backup.lock().unwrap() = store.copy();
        self.now.send_modify(|now| {
            now.store = store;
            now.id += u64::from(!same);
            now.breaks += 1;
        });
    }
}

pub async fn revision(store: &Embedded) -> i64 {
    store.get(&[]).await.unwrap().revision
}

/// Takes the next number of a lease away.
async fn newest_lease(store: &Embedded) -> i64 {
    let session = store.session(Duration::from_secs(1), None).await.unwrap();
    let lease = session.lease();
    store.revoke(lease).await.unwrap();
    lease
}
