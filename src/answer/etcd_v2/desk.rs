//! Answers a question, and makes a change: looks at the store, has it decided, commits, and begins anew where somebody
//! was faster.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rand::RngExt;
use tokio::time::{Instant, sleep};

use super::look::{Looker, Need};
use crate::model::etcd_v2::node::Answer;
use crate::model::etcd_v2::plan::plan;
use crate::model::etcd_v2::sight::{Life, Sight};
use crate::model::etcd_v2::{Change, Code, Fault, Get, Must, Node, Places, Plan, Reply, Scope, Will, Wish};
use crate::store::{Commit, Condition, LeaseId, Session, Store, StoreError, Write};

/// How long a request may begin anew.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is waited at most before it does, for each time that it has.
const PAUSE: Duration = Duration::from_millis(4);
/// The shortest time that a lease has: stock etcd grants no shorter one.
const SHORTEST: Duration = Duration::from_secs(2);
/// Leases that are remembered as granted here.
const GRANTED: usize = 65_536;

/// The desk. Clones are the same one.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    pub(super) looker: Looker,
    /// Leases granted here, which nobody else holds keys by: what replaces their only key ends them.
    granted: Arc<Mutex<BTreeSet<LeaseId>>>,
}

/// Why a request was not met.
enum Unmet {
    /// Whoever asks is told so.
    Fault(Fault),
    /// Somebody was faster, or what was seen is no longer so.
    Again(Option<StoreError>),
}

impl From<Fault> for Unmet {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

impl From<StoreError> for Unmet {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Compacted(_) | StoreError::NoLease(_) | StoreError::Rewound => Self::Again(Some(error)),
            error => Self::Fault(away(&error)),
        }
    }
}

/// What is told when the store does not answer as it should.
pub(super) fn away(error: &StoreError) -> Fault {
    let why = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    Fault::away(format!("{error}{why}"))
}

impl Desk {
    pub(super) fn new(store: Arc<dyn Store>, places: Arc<Places>, scope: Scope) -> Self {
        Self { looker: Looker { store, places, scope }, granted: Arc::default() }
    }

    fn store(&self) -> &dyn Store {
        &*self.looker.store
    }

    /// Answers a question.
    pub(super) async fn get(&self, get: &Get) -> Answer {
        again(|| self.look(get).boxed()).await
    }

    /// Makes a change.
    pub(super) async fn change(&self, change: &Change) -> Answer {
        again(|| self.attempt(change).boxed()).await
    }

    async fn look(&self, get: &Get) -> Result<Reply, Unmet> {
        let sight = self.looker.sight(&get.path, Need::Missing).await?;
        sight.check_there()?;
        let now = SystemTime::now();
        if let Some(file) = &sight.own.file {
            let node = Node::file(&get.path, file).ending(sight.life(file.lease), now);
            return Ok(Reply::get(node, sight.revision));
        }
        let tree = self.looker.tree(&sight, get.recursive).await?;
        let too_much = |_| {
            let why = format!("more lies below {} than one answer holds: ask for a directory within", get.path);
            Fault::away(why).with_revision(sight.revision)
        };
        let tree = tree.map_err(too_much)?;
        let leases = tree.leases().into_iter().map(|lease| (lease, false)).collect();
        let lives = self.looker.lives(leases).await?;
        Ok(Reply::get(tree.into_node(&sight, &lives, now), sight.revision))
    }

    async fn attempt(&self, change: &Change) -> Result<Reply, Unmet> {
        let sight = self.looker.sight(&change.path, Need::of(change)).await?;
        let now = SystemTime::now();
        let plan = plan(change, &sight, &self.looker.places, now)?;
        let held = self.lease(&plan, &sight).await?;
        let lease = held.as_ref().map_or(0, Held::lease);
        let made = self.store().commit(&conditions(&plan), &writes(&plan, lease)).await;
        let is_fresh = matches!(plan.lease, Wish::Fresh(_));
        let revision = match made {
            Ok(Commit::Done(revision)) => revision,
            Ok(Commit::Refused(_)) => {
                if is_fresh {
                    self.end(lease).await;
                }
                return Err(Unmet::Again(None));
            }
            // It may have been made, or be made yet: the lease is left to its time.
            Err(error) => return Err(error.into()),
        };
        self.forget_old(&plan, &sight).await;
        let life = held.as_ref().and_then(Held::life);
        Ok(plan.reply(revision, life.as_ref(), now))
    }

    /// The lease that a plan wishes for.
    async fn lease(&self, plan: &Plan, sight: &Sight) -> Result<Option<Held>, Unmet> {
        match plan.lease {
            Wish::Held(0) => Ok(None),
            Wish::Held(lease) => Ok(Some(Held::Other(lease))),
            Wish::Fresh(ttl) => {
                let session = self.store().session(ttl.max(SHORTEST), None).await?;
                self.remember(session.lease());
                Ok(Some(Held::Own(session)))
            }
            Wish::Renewed(lease) => {
                let ttl = sight.lives.get(&lease).map_or(SHORTEST, |life| life.granted);
                let session = self.store().session(ttl, Some(lease)).await?;
                if !session.adopted() {
                    self.end(session.lease()).await;
                    return Err(Unmet::Again(Some(StoreError::NoLease(lease))));
                }
                Ok(Some(Held::Own(session)))
            }
        }
    }

    fn granted(&self) -> std::sync::MutexGuard<'_, BTreeSet<LeaseId>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn remember(&self, lease: LeaseId) {
        let mut granted = self.granted();
        if granted.len() >= GRANTED {
            granted.pop_first();
        }
        granted.insert(lease);
    }

    /// A file that got another lease, or went, leaves one behind that nothing hangs on: many of them would be a burden.
    async fn forget_old(&self, plan: &Plan, sight: &Sight) {
        let Some(file) = sight.own.file.as_ref().filter(|_| !matches!(plan.lease, Wish::Renewed(_))) else { return };
        let is_alone = sight.lives.get(&file.lease).is_some_and(|life| life.is_alone);
        if is_alone && self.granted().contains(&file.lease) {
            self.end(file.lease).await;
        }
    }

    /// Ends a lease that nothing hangs on; one that cannot be ended ends by itself.
    async fn end(&self, lease: LeaseId) {
        self.granted().remove(&lease);
        if let Err(error) = self.store().revoke(lease).await {
            tracing::debug!(%error, "a lease that nothing hangs on is left to its time");
        }
    }
}

/// Does it until it is met, refused, or has been tried for long enough.
async fn again<'a>(mut attempt: impl FnMut() -> BoxFuture<'a, Result<Reply, Unmet>>) -> Answer {
    let deadline = Instant::now() + PATIENCE;
    let mut pause = PAUSE;
    loop {
        let last = match attempt().await {
            Ok(reply) => return Ok(reply),
            Err(Unmet::Fault(fault)) => return Err(fault),
            Err(Unmet::Again(last)) => last,
        };
        if Instant::now() >= deadline {
            let faster = || Fault::new(Code::Internal, "others wrote there faster: ask again");
            return Err(last.as_ref().map_or_else(faster, away));
        }
        let share: f64 = rand::rng().random();
        sleep(pause.mul_f64(share)).await;
        pause = (pause + PAUSE).min(PAUSE * 32);
    }
}

/// The lease that what is written hangs on.
#[derive(Debug)]
enum Held {
    /// Kept by this request; left to its time when that is done.
    Own(Session),
    /// A directory's.
    Other(LeaseId),
}

impl Held {
    fn lease(&self) -> LeaseId {
        match self {
            Self::Own(session) => session.lease(),
            Self::Other(lease) => *lease,
        }
    }

    /// The time of its own that a node has by it.
    fn life(&self) -> Option<Life> {
        match self {
            Self::Own(session) => {
                let granted = session.granted();
                Some(Life { granted, left: granted, is_alone: true })
            }
            Self::Other(_) => None,
        }
    }
}

fn conditions(plan: &Plan) -> Vec<Condition> {
    let condition = |must: &Must| match must.clone() {
        Must::Absent(key) => Condition::Absent(key),
        Must::Unchanged(key, revision) => Condition::Unchanged(key, revision),
        Must::NoneCreatedSince(prefix, revision) => Condition::NoneCreatedSince(prefix, revision),
        Must::NonePutSince(prefix, revision) => Condition::NonePutSince(prefix, revision),
    };
    plan.conditions.iter().map(condition).collect()
}

fn writes(plan: &Plan, wished: LeaseId) -> Vec<Write> {
    let write = |will: &Will| match will.clone() {
        Will::Put { key, value, lease } => {
            Write::Put { key, value: Bytes::from(value), lease: lease.unwrap_or(wished) }
        }
        Will::Delete(key) => Write::Delete(key),
        Will::DeleteAll(prefix) => Write::DeleteAll(prefix),
    };
    plan.writes.iter().map(write).collect()
}
