//! The store in etcd (v3 API, stock etcd 3.4 and later).
//!
//! Each call tries the current endpoint and, at the first missed deadline or broken connection, the next; all its
//! deadlines together stay below a third of the lease's time. What a lagging member says is never taken for news: only
//! linearizable answers tell whether the store is there, and whether it is still the one it was.

pub mod chronicle;
mod connect;
mod error;
mod kv;
mod lease;
mod lock;
mod srv;
pub mod v2;
mod watching;
mod why;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, GetOptions, LeaseTimeToLiveOptions, ResponseHeader};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::{
    Commit, Condition, History, Item, LeaseId, LeaseInfo, MAX_WRITES, Page, Reach, Revision, Session, Store,
    StoreError, Watch, Write,
};
use crate::model::words::key;
use crate::model::words::trouble::Trouble;
use chronicle::Chronicle;
use connect::{Link, Pool};
use error::Verdict;

/// A request unanswered for so long means that the store is away, whether or not it is answered later.
const AWAY: Duration = Duration::from_millis(500);
const LONGEST_ATTEMPT: Duration = Duration::from_secs(1);
const SHORTEST_ATTEMPT: Duration = Duration::from_millis(150);

/// How etcd is reached.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `http://host:port`, `https://host:port`, or `srv://domain`, at least one.
    pub endpoints: Vec<String>,
    /// PEM of the authorities; the system's where none is given.
    pub ca: Option<PathBuf>,
    /// PEM of our certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// User, and the file with the password.
    pub user: Option<(String, PathBuf)>,
    /// The lease's time, which bounds how long a call may try.
    pub lease_ttl: Duration,
    /// A key that the user may read, whether or not it is there: linearizable reads of it tell how etcd is.
    pub probe: String,
}

/// The store in etcd. Clones share connections.
#[derive(Clone, Debug)]
pub struct Etcd {
    core: Arc<Core>,
}

#[derive(Debug)]
struct Core {
    pool: Pool,
    chronicle: Chronicle,
    probe: String,
    /// How long one endpoint has for one request.
    attempt: Duration,
    /// How long all endpoints have together.
    budget: Duration,
}

impl Etcd {
    /// A store that connects when it is first asked.
    pub fn new(settings: Settings) -> Self {
        let budget = settings.lease_ttl / 3;
        let attempts = u32::try_from(connect::count(&settings.endpoints)).unwrap_or(u32::MAX).saturating_add(1);
        let attempt = (budget / attempts).clamp(SHORTEST_ATTEMPT, LONGEST_ATTEMPT);
        let probe = settings.probe.clone();
        let core = Core { pool: Pool::new(settings, attempt), chronicle: Chronicle::default(), probe, attempt, budget };
        Self { core: Arc::new(core) }
    }
}

impl Core {
    /// Runs `call` on one endpoint after the other until one answers, the time is over, or the answer is final.
    async fn call<T: Send>(
        &self,
        tried: &str,
        call: impl Fn(Client) -> BoxFuture<'static, Result<T, etcd_client::Error>>,
    ) -> Result<T, StoreError> {
        let attempts = self.attempts(tried, call);
        tokio::pin!(attempts);
        let result = tokio::select! {
            result = &mut attempts => result,
            () = sleep(AWAY) => {
                self.chronicle.away(&self.pool.current());
                attempts.await
            }
        };
        if let Err(StoreError::Away { .. }) = result {
            self.chronicle.away(&self.pool.current());
        }
        result
    }

    /// The same for a call whose answer says nothing of the store as a whole: one that came too late to count as there
    /// is followed by one that does, or nothing would take back that the store is away.
    async fn call_aside<T: Send>(
        &self,
        tried: &str,
        call: impl Fn(Client) -> BoxFuture<'static, Result<T, etcd_client::Error>>,
    ) -> Result<T, StoreError> {
        let answer = self.call(tried, call).await;
        // That there is no such lease is an answer too.
        let answered = !matches!(answer, Err(StoreError::Away { .. }));
        if answered && self.chronicle.is_away() {
            self.verify().await?;
        }
        answer
    }

    async fn attempts<T: Send>(
        &self,
        tried: &str,
        call: impl Fn(Client) -> BoxFuture<'static, Result<T, etcd_client::Error>>,
    ) -> Result<T, StoreError> {
        let end = Instant::now() + self.budget;
        let mut last = StoreError::Away { tried: tried.to_owned(), source: None };
        for _ in 0..=self.pool.size() {
            let left = || end.saturating_duration_since(Instant::now());
            if left() < SHORTEST_ATTEMPT {
                break;
            }
            let link = match timeout(self.attempt.min(left()), self.pool.link()).await {
                Ok(Ok(link)) => link,
                Ok(Err(unlinked)) => {
                    self.chronicle.met(&unlinked.endpoint, &unlinked.why);
                    last = unlinked.error;
                    continue;
                }
                Err(_) => {
                    self.chronicle.met(&self.pool.current(), "no connection in time");
                    self.pool.skip();
                    continue;
                }
            };
            match timeout(self.attempt.min(left()), call(link.client())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => match error::judge(&error) {
                    Verdict::Final => return Err(error::into_store(error, tried, &link.name)),
                    Verdict::Login => {
                        self.pool.renew(&link);
                        last = error::into_store(error, tried, &link.name);
                    }
                    Verdict::Broken => {
                        self.chronicle.met(&link.name, &why::why(&error, &link.name));
                        self.broken(&link);
                        last = error::into_away(error, tried, &link.name);
                    }
                },
                Err(_) => {
                    self.chronicle.met(&link.name, &format!("no answer within {:?}", self.attempt));
                    self.broken(&link);
                    let tried = format!("{tried} at {}, unanswered for {:?}", link.name, self.attempt);
                    last = StoreError::Away { tried, source: None };
                }
            }
        }
        Err(last)
    }

    /// Gives a connection up: its streams end, and the next endpoint is the current one.
    fn broken(&self, link: &Arc<Link>) {
        self.pool.broken(link);
        self.chronicle.doubt();
    }

    /// Takes in a linearizable answer to something asked when `before` was the newest revision known.
    fn told(&self, header: Option<&ResponseHeader>, before: Revision) -> Result<(), StoreError> {
        let Some(header) = header else { return Ok(()) };
        self.chronicle.told(header.cluster_id(), header.revision(), before)
    }

    /// A linearizable read, for what it says of the store.
    async fn verify(&self) -> Result<Revision, StoreError> {
        let before = self.chronicle.newest();
        let key = self.probe.clone();
        let answer = self
            .call("a linearizable read", move |mut client| {
                let key = key.clone();
                async move { client.get(key, Some(GetOptions::new().with_keys_only())).await }.boxed()
            })
            .await?;
        self.told(answer.header(), before)?;
        Ok(answer.header().map_or(before, ResponseHeader::revision))
    }

    /// Reads once before a stream is opened, if anything has broken since the last answer.
    async fn settled(&self) -> Result<(), StoreError> {
        if self.chronicle.doubtful() { self.verify().await.map(drop) } else { Ok(()) }
    }

    async fn lease_info(&self, id: LeaseId, keys: bool) -> Result<LeaseInfo, StoreError> {
        let answer = self
            .call_aside("a look at the lease", move |client| {
                let mut client = client.lease_client();
                let options = LeaseTimeToLiveOptions::new();
                let options = if keys { options.with_keys() } else { options };
                async move { client.time_to_live(id, Some(options)).await }.boxed()
            })
            .await?;
        let Ok(left) = u64::try_from(answer.ttl()) else { return Err(StoreError::NoLease(id)) };
        let keys = answer.keys().iter().map(|key| key::text(key.clone())).collect();
        let granted = Duration::from_secs(u64::try_from(answer.granted_ttl()).unwrap_or(0));
        Ok(LeaseInfo { granted, left: Duration::from_secs(left), keys })
    }
}

impl Store for Etcd {
    fn read<'a>(
        &'a self,
        prefix: &'a str,
        after: Option<&'a str>,
        at: Option<Revision>,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        kv::read(&self.core, prefix, after, at).boxed()
    }

    fn get<'a>(&'a self, keys: &'a [String]) -> BoxFuture<'a, Result<Page, StoreError>> {
        kv::get(&self.core, keys).boxed()
    }

    fn first<'a>(&'a self, prefix: &'a str, at: Option<Revision>) -> BoxFuture<'a, Result<Option<Item>, StoreError>> {
        kv::first(&self.core, prefix, at).boxed()
    }

    fn watch<'a>(&'a self, prefix: &'a str, from: Revision) -> BoxFuture<'a, Result<Box<dyn Watch>, StoreError>> {
        watching::watch(&self.core, prefix, from).boxed()
    }

    fn session(&self, ttl: Duration, adopt: Option<LeaseId>) -> BoxFuture<'_, Result<Session, StoreError>> {
        lease::session(&self.core, ttl, adopt).boxed()
    }

    fn commit<'a>(
        &'a self,
        conditions: &'a [Condition],
        writes: &'a [Write],
    ) -> BoxFuture<'a, Result<Commit, StoreError>> {
        kv::commit(&self.core, conditions, writes).boxed()
    }

    fn lease(&self, id: LeaseId) -> BoxFuture<'_, Result<LeaseInfo, StoreError>> {
        self.core.lease_info(id, true).boxed()
    }

    fn lease_times(&self, id: LeaseId) -> BoxFuture<'_, Result<LeaseInfo, StoreError>> {
        self.core.lease_info(id, false).boxed()
    }

    fn revoke(&self, id: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        async move {
            let call = move |client: Client| async move { client.lease_client().revoke(id).await }.boxed();
            match self.core.call_aside("to end the lease", call).await {
                Ok(_) => Ok(()),
                Err(StoreError::NoLease(_)) => Err(StoreError::NoLease(id)),
                Err(error) => Err(error),
            }
        }
        .boxed()
    }

    fn history(&self) -> watch::Receiver<History> {
        self.core.chronicle.history()
    }

    fn reach(&self) -> watch::Receiver<Reach> {
        self.core.chronicle.reach()
    }

    fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.core.chronicle.trouble()
    }
}
