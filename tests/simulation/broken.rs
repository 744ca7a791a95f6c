//! Workers broken on purpose: the simulation is worth what it finds in them.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use wharf::model::words::record::Record;
use wharf::store::{
    Batch, Commit, Condition, Event, History, LeaseId, LeaseInfo, Page, Reach, Revision, Session, Store, StoreError,
    Watch, Write,
};

use crate::link::Link;

/// What is wrong with an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mischief {
    /// The registrar writes whatever stands in the way.
    Overwrites,
    /// The mirror takes every lease to live, so that it holds nothing whose lease died.
    HoldsNothing,
    /// The mirror takes every lease to be dead, so that it holds what was meant to go.
    HoldsAll,
    /// The mirror is told of no delete.
    Haunts,
    /// The registrar's lease is kept alive no more once it is there.
    Forsakes,
}

impl Mischief {
    /// What the registrar and the mirror are given for their store.
    pub fn apply(mischief: Option<Self>, link: &Link) -> (Arc<dyn Store>, Arc<dyn Store>) {
        let well = || Arc::new(link.beside()) as Arc<dyn Store>;
        let ill = |how| Arc::new(Ill { inner: link.beside(), how }) as Arc<dyn Store>;
        match mischief {
            None => (well(), well()),
            Some(how @ (Self::Overwrites | Self::Forsakes)) => (ill(how), well()),
            Some(how @ (Self::HoldsNothing | Self::HoldsAll | Self::Haunts)) => (well(), ill(how)),
        }
    }
}

#[derive(Debug)]
struct Ill {
    inner: Link,
    how: Mischief,
}

impl Store for Ill {
    fn read<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        at: Option<Revision>,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        self.inner.read(prefix, after, at)
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: Revision) -> BoxFuture<'a, Result<Box<dyn Watch>, StoreError>> {
        async move {
            let inner = self.inner.watch(prefix, from).await?;
            Ok(Box::new(IllWatch { inner, how: self.how }) as Box<dyn Watch>)
        }
        .boxed()
    }

    fn session(&self, ttl: Duration, adopt: Option<LeaseId>) -> BoxFuture<'_, Result<Session, StoreError>> {
        async move {
            let session = self.inner.session(ttl, adopt).await?;
            if self.how != Mischief::Forsakes {
                return Ok(session);
            }
            let (never, lost) = watch::channel(false);
            Ok(Session::new((session.lease(), session.granted()), session.adopted(), lost, never))
        }
        .boxed()
    }

    fn get<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<Page, StoreError>> {
        async move {
            let mut page = self.inner.get(keys).await?;
            if self.how == Mischief::Overwrites {
                page.items.clear();
            }
            Ok(page)
        }
        .boxed()
    }

    fn commit<'a>(
        &'a self,
        conditions: &'a [Condition],
        writes: &'a [Write],
    ) -> BoxFuture<'a, Result<Commit, StoreError>> {
        let conditions = if self.how == Mischief::Overwrites { &[] } else { conditions };
        self.inner.commit(conditions, writes)
    }

    fn lease(&self, id: LeaseId) -> BoxFuture<'_, Result<LeaseInfo, StoreError>> {
        async move {
            match self.inner.lease(id).await {
                Ok(_) if self.how == Mischief::HoldsAll => Err(StoreError::NoLease(id)),
                Err(StoreError::NoLease(_)) if self.how == Mischief::HoldsNothing => {
                    let ttl = crate::witness::TTL;
                    Ok(LeaseInfo { granted: ttl, left: ttl, keys: Vec::new() })
                }
                told => told,
            }
        }
        .boxed()
    }

    fn revoke(&self, id: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        self.inner.revoke(id)
    }

    fn history(&self) -> watch::Receiver<History> {
        self.inner.history()
    }

    fn reach(&self) -> watch::Receiver<Reach> {
        self.inner.reach()
    }
}

struct IllWatch {
    inner: Box<dyn Watch>,
    how: Mischief,
}

impl Watch for IllWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<Batch, StoreError>> {
        async move {
            let mut batch = self.inner.next().await?;
            let others = |event: &Event| match event {
                Event::Put(item) => Record::decode(&item.value).is_err(),
                Event::Delete { .. } => true,
            };
            match self.how {
                Mischief::Overwrites => batch.events.retain(others),
                Mischief::Haunts => batch.events.retain(|event| matches!(event, Event::Put(_))),
                Mischief::HoldsNothing | Mischief::HoldsAll | Mischief::Forsakes => {}
            }
            Ok(batch)
        }
        .boxed()
    }
}
