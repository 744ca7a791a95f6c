//! What the registrar asks of the store: each job owns all that it needs, so that nothing else waits while it runs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::model::publish::op::{Change, Expect, Op};
use crate::model::words::key::Prefix;
use crate::state::StateDir;
use crate::store::{
    Commit, Condition, LeaseId, Page, Revision, Session, Store, StoreError, Watch, Write, lease_as_told, watch_since,
};

/// What came of a job.
pub(super) enum Outcome {
    /// A session, new or taken over.
    Session(Result<Opened, StoreError>),
    /// The keys asked for, and a watch from there on.
    Synced { asked: Vec<String>, result: Result<Synced, StoreError> },
    /// Operations on records.
    Committed { ops: Vec<Op>, lease: LeaseId, result: Result<Commit, StoreError> },
    /// Keys looked at again.
    Reread { asked: Vec<String>, result: Result<Page, StoreError> },
    /// The node record was written.
    Node { value: Bytes, lease: LeaseId, result: Result<Commit, StoreError> },
    /// One page of everything below the prefix.
    Scanned(Result<Page, StoreError>),
    /// An old lease was ended.
    Retired { lease: LeaseId, result: Result<(), StoreError> },
}

/// A session as it was opened.
pub(super) struct Opened {
    pub(super) session: Session,
    /// Keys that hung on the lease of before.
    pub(super) found: Vec<String>,
    /// A lease of before that was not taken over, to be ended once the new records stand.
    pub(super) retire: Option<LeaseId>,
}

/// Own keys as they stand, and what is told of them from there on.
pub(super) struct Synced {
    pub(super) page: Page,
    pub(super) watch: Box<dyn Watch>,
    /// The node record is elsewhere, and watched by itself.
    pub(super) node_watch: Box<dyn Watch>,
}

pub(super) type Job = BoxFuture<'static, Outcome>;

/// What a session is opened from.
pub(super) struct Opening {
    pub(super) store: Arc<dyn Store>,
    pub(super) state: Arc<StateDir>,
    pub(super) ttl: Duration,
    /// The lease of before, and the cluster that granted it.
    pub(super) adopt: Option<(LeaseId, Option<u64>)>,
    /// A lease of before whose records are under another prefix.
    pub(super) inherit: Option<LeaseId>,
    /// Any key that may be read: the read tells which cluster this is.
    pub(super) probe: String,
}

pub(super) fn open(opening: Opening) -> Job {
    Box::pin(async move { Outcome::Session(opened(opening).await) })
}

async fn opened(opening: Opening) -> Result<Opened, StoreError> {
    let Opening { store, state, ttl, adopt, inherit, probe } = opening;
    store.get(&[probe]).await?;
    let cluster = store.history().borrow().cluster;
    let adopt = adopt.filter(|(_, of)| *of == cluster).map(|(lease, _)| lease);
    let info = match adopt.or(inherit) {
        None => None,
        // What hangs on it and is not told is found below the prefix, later.
        Some(lease) => match lease_as_told(&*store, lease).await {
            Ok((info, _)) => Some(info),
            Err(StoreError::NoLease(_)) => None,
            Err(error) => return Err(error),
        },
    };
    // A lease of another length is not taken over: the records move to one of the length asked for.
    let fits = info.as_ref().is_some_and(|info| info.granted >= ttl && info.granted <= ttl + Duration::from_secs(2));
    let session = store.session(ttl, adopt.filter(|_| fits)).await?;
    let lease = session.lease();
    // The disk may be slow; nothing else waits for it here.
    let remembered = state.remember_aside(move |memory| (memory.lease, memory.cluster) = (Some(lease), cluster));
    if let Err(error) = remembered.await {
        tracing::warn!(%error, "lease cannot be remembered, a restart will begin a new one");
    }
    let retire = adopt.or(inherit).filter(|_| info.is_some() && !session.adopted());
    Ok(Opened { session, found: info.map(|info| info.keys).unwrap_or_default(), retire })
}

pub(super) fn sync(store: Arc<dyn Store>, prefix: String, keys: BTreeSet<String>, node: String) -> Job {
    let asked: Vec<String> = keys.into_iter().chain([node.clone()]).collect();
    Box::pin(async move {
        let result = synced(&*store, &prefix, &asked, &node).await;
        Outcome::Synced { asked, result }
    })
}

async fn synced(store: &dyn Store, prefix: &str, asked: &[String], node: &str) -> Result<Synced, StoreError> {
    let generation = store.history().borrow().generation;
    let page = store.get(asked).await?;
    let from = page.revision + 1;
    let watch = watch_since(store, generation, prefix, from).await?;
    let node_watch = watch_since(store, generation, node, from).await?;
    Ok(Synced { page, watch, node_watch })
}

pub(super) fn commit(store: Arc<dyn Store>, ops: Vec<Op>, lease: LeaseId) -> Job {
    Box::pin(async move {
        let conditions: Vec<Condition> = ops.iter().map(condition).collect();
        let writes: Vec<Write> = ops.iter().flat_map(|op| writes(op, lease)).collect();
        let result = store.commit(&conditions, &writes).await;
        Outcome::Committed { ops, lease, result }
    })
}

fn condition(op: &Op) -> Condition {
    match &op.expect {
        Expect::Absent => Condition::Absent(op.key.clone()),
        Expect::Holds(value) => Condition::Holds(op.key.clone(), Bytes::copy_from_slice(value)),
    }
}

/// The writes of one operation: a record's, and of the keys besides it that its layout has.
fn writes(op: &Op, lease: LeaseId) -> Vec<Write> {
    let put = |(key, value): (String, String)| Write::Put { key, value: value.into(), lease };
    let own = match &op.change {
        Change::Put(record) => Write::Put { key: op.key.clone(), value: record.encode().into(), lease },
        Change::Delete => Write::Delete(op.key.clone()),
    };
    let over = op.over().into_iter().map(Write::Delete);
    [own].into_iter().chain(over).chain(op.beside().into_iter().map(put)).collect()
}

pub(super) fn reread(store: Arc<dyn Store>, asked: Vec<String>) -> Job {
    Box::pin(async move {
        let result = store.get(&asked).await;
        Outcome::Reread { asked, result }
    })
}

/// Writes the node record. Its key holds this owner's name, so nobody else's can be hit.
pub(super) fn node(store: Arc<dyn Store>, key: String, value: Bytes, lease: LeaseId) -> Job {
    Box::pin(async move {
        let write = Write::Put { key, value: value.clone(), lease };
        let result = store.commit(&[], std::slice::from_ref(&write)).await;
        Outcome::Node { value, lease, result }
    })
}

pub(super) fn scan(store: Arc<dyn Store>, prefix: &Prefix, place: Option<(String, Revision)>) -> Job {
    let below = prefix.below();
    Box::pin(async move {
        let (after, at) = place.map_or((None, None), |(after, at)| (Some(after), Some(at)));
        Outcome::Scanned(store.read(&below, after.as_deref(), at).await)
    })
}

pub(super) fn retire(store: Arc<dyn Store>, lease: LeaseId) -> Job {
    Box::pin(async move {
        let result = store.revoke(lease).await;
        Outcome::Retired { lease, result }
    })
}
