//! The lease of a lock, renewed each sixth of its time, and what it is worth now.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::host::boottime;
use crate::model::steer::lock::hold::{Hold, Terms};
use crate::store::etcd::Etcd;
use crate::store::{LeaseId, Store, StoreError};

/// Pause after a renewal that failed.
const AGAIN: Duration = Duration::from_millis(100);

/// What a lease is worth.
#[derive(Clone, Copy, Debug)]
pub(super) struct Worth {
    pub(super) hold: Hold,
    /// etcd says that it or its key is gone, or that it is not the etcd that it was.
    pub(super) gone: bool,
}

/// A lease that is renewed until this is dropped.
pub(super) struct Keeper {
    pub(super) lease: LeaseId,
    pub(super) terms: Terms,
    pub(super) worth: watch::Receiver<Worth>,
    running: watch::Sender<bool>,
    _renewing: AbortOnDropHandle<()>,
}

impl Keeper {
    /// Keeps the lease that this key hangs on.
    pub(super) fn new(store: Etcd, lease: LeaseId, key: String, terms: Terms, sent: Duration) -> Self {
        let worth = Worth { hold: Hold::idle(terms, sent), gone: false };
        let (told, worth) = watch::channel(worth);
        let (running, is_running) = watch::channel(false);
        let renewing = Renewing { store, lease, key, terms, told, is_running };
        let _renewing = AbortOnDropHandle::new(tokio::spawn(renewing.run()));
        Self { lease, terms, worth, running, _renewing }
    }

    /// From now on something runs by it: only what was acknowledged in time counts.
    pub(super) fn is_used(&self) {
        self.running.send_replace(true);
    }

    pub(super) fn hold(&self) -> Hold {
        self.worth.borrow().hold
    }

    pub(super) fn is_gone(&self) -> bool {
        self.worth.borrow().gone
    }
}

struct Renewing {
    store: Etcd,
    lease: LeaseId,
    key: String,
    terms: Terms,
    told: watch::Sender<Worth>,
    is_running: watch::Receiver<bool>,
}

impl Renewing {
    async fn run(self) {
        sleep(self.terms.pause()).await;
        loop {
            let sent = boottime();
            if *self.is_running.borrow() && !self.told.borrow().hold.renews(sent) {
                // None that is sent from here on counts: the lease is left to its end, which others can then tell.
                return;
            }
            let next = match timeout(self.terms.pause(), self.renew()).await {
                Ok(Ok(())) => {
                    self.acknowledged(sent);
                    self.terms.pause()
                }
                Ok(Err(StoreError::NoLease(_) | StoreError::Rewound)) => {
                    self.told.send_modify(|worth| worth.gone = true);
                    return;
                }
                Ok(Err(_)) | Err(_) => AGAIN,
            };
            sleep(next.saturating_sub(boottime().saturating_sub(sent)).max(AGAIN)).await;
        }
    }

    /// A lease lives on when its key is deleted: then others count from that, and nothing counts here any more.
    async fn renew(&self) -> Result<(), StoreError> {
        self.store.renew(self.lease).await?;
        let page = self.store.get(std::slice::from_ref(&self.key)).await?;
        let is_there = page.items.first().is_some_and(|item| item.lease == self.lease);
        if is_there { Ok(()) } else { Err(StoreError::NoLease(self.lease)) }
    }

    fn acknowledged(&self, sent: Duration) {
        let (running, now) = (*self.is_running.borrow(), boottime());
        self.told.send_modify(|worth| {
            if running {
                worth.hold.acknowledge(sent, now);
            } else {
                worth.hold = Hold::idle(self.terms, sent);
            }
        });
    }
}
