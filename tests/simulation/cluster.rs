//! The one store of a history, behind everybody's links: it hangs, is wiped, and is restored from a backup.
//!
//! It is the embedded store; a lease that nobody keeps ends by its clock, also while the store hangs: then it goes at
//! the thaw, before anything else, as in etcd. Numbers of leases are never given twice, as in etcd, whatever is wiped.

use std::pin::pin;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::Notify;
use wharf::store::Store;
use wharf::store::embedded::Embedded;

use crate::link::Quality;
use crate::steps::HOSTS;

/// A value that wakes those who wait for it in the order that they came. (tokio's own wakes them in any order.)
#[derive(Debug)]
pub struct Bell<T> {
    value: Mutex<T>,
    changed: Notify,
}

impl<T: Clone> Bell<T> {
    pub fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    pub fn get(&self) -> T {
        self.value.lock().unwrap().clone()
    }

    pub fn change(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.value.lock().unwrap());
        self.changed.notify_waiters();
    }

    pub async fn wait_for(&self, holds: impl Fn(&T) -> bool) -> T {
        loop {
            let mut changed = pin!(self.changed.notified());
            changed.as_mut().enable();
            let value = self.get();
            if holds(&value) {
                return value;
            }
            changed.await;
        }
    }
}

/// The store as it is now.
#[derive(Clone, Debug)]
pub struct Now {
    pub store: Embedded,
    /// The cluster's identity.
    pub id: u64,
    pub hung: bool,
    /// Grows when every connection breaks.
    pub breaks: u64,
    /// How each host's link carries.
    pub links: [Quality; HOSTS],
}

#[derive(Debug)]
pub struct Cluster {
    pub bell: Bell<Now>,
    backup: Mutex<Embedded>,
}

impl Cluster {
    pub fn new() -> Self {
        let store = Embedded::new();
        let backup = Mutex::new(store.copy());
        let links = [crate::world::WELL; HOSTS];
        Self { bell: Bell::new(Now { store, id: 1, hung: false, breaks: 0, links }), backup }
    }

    pub fn now(&self) -> Now {
        self.bell.get()
    }

    pub fn store(&self) -> Embedded {
        self.now().store
    }

    pub fn hang(&self, hung: bool) {
        self.bell.change(|now| now.hung = hung);
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
        self.bell.change(|now| {
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
