//! A lock that is won, until its program and all that it started is dead, and the store knows it.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout};

use super::guard::Guard;
use super::keeper::Keeper;
use super::line::{How, Order, Report};
use super::waiting::Won;
use super::{Job, LOST, Signals};
use crate::host::boottime;
use crate::model::steer::lock::hold::{Hold, Verdict};
use crate::store::{Condition, Event, Item, Store, StoreError, Write};

/// Pause before a store that is away is asked again.
const AGAIN: Duration = Duration::from_millis(200);
/// How much later than the guardian `wharf lock` acts itself.
const LATER: Duration = Duration::from_millis(60);

/// How a program came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// By itself, or by a signal that was handed on.
    Itself(How),
    /// It was ended.
    Lost,
}

/// A lock that this process holds, with its lease and its guardian.
pub(super) struct Holding<'j> {
    job: &'j Job,
    keeper: Keeper,
    key: String,
    token: i64,
    certificate: Bytes,
    /// Why it is being ended.
    lost: Option<String>,
}

impl<'j> Holding<'j> {
    pub(super) fn new(job: &'j Job, won: Won) -> Self {
        let Won { keeper, key, token, certificate } = won;
        Self { job, keeper, key, token, certificate, lost: None }
    }

    /// Runs the program to its end, has the next one start, and returns the exit code.
    pub(super) async fn run(mut self, guard: &mut Guard, signals: &mut Signals) -> u8 {
        let hold = self.keeper.hold();
        let end = if hold.verdict(boottime(), self.keeper.is_gone()) == Verdict::Run {
            (self.job.tell)(&format!("has it: token {}", self.token));
            self.go(hold, guard).await;
            self.until_end(guard, signals).await
        } else {
            self.lost = Some("the answer that it was won came too late".to_owned());
            guard.leave().await;
            End::Lost
        };
        (self.job.beat)(None);
        if let Some(why) = &self.lost {
            (self.job.tell)(&format!("lost: {why}"));
        }
        self.hand_over(signals).await;
        match end {
            End::Itself(how) => how.code(),
            End::Lost => LOST,
        }
    }

    async fn go(&self, hold: Hold, guard: &mut Guard) {
        guard.order(&order(hold)).await;
        (self.job.beat)(Some(hold.left(boottime())));
        guard.order(&Order::Go { environment: self.environment(hold) }).await;
    }

    /// What fences it where somebody checks, etcdctl's names among it.
    fn environment(&self, hold: Hold) -> Vec<(String, String)> {
        let key = self.job.keys.held.as_ref().unwrap_or(&self.key);
        let value = if self.job.keys.held.is_some() { &self.job.value } else { &self.job.node };
        let token = self.token.to_string();
        [
            ("WHARF_LOCK_NAME", self.job.name.as_str().to_owned()),
            ("WHARF_LOCK_KEY", key.clone()),
            ("WHARF_LOCK_VALUE", value.clone()),
            ("WHARF_LOCK_TTL", self.keeper.terms.granted().as_secs().to_string()),
            ("WHARF_LOCK_DEADLINE", hold.deadline().as_millis().to_string()),
            ("WHARF_LOCK_TOKEN", token.clone()),
            ("ETCD_LOCK_KEY", self.key.clone()),
            ("ETCD_LOCK_REV", token),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }

    async fn until_end(&mut self, guard: &mut Guard, signals: &mut Signals) -> End {
        let (store, keys) = (self.job.store.clone(), self.watched());
        let gone = until_lost(&store, &keys);
        tokio::pin!(gone);
        let mut worth = self.keeper.worth.clone();
        let mut kept = true;
        loop {
            let now = *worth.borrow_and_update();
            let hold = now.hold;
            if now.gone {
                let why = "etcd says that its lease is gone, or is not the etcd that it was".to_owned();
                return self.kill(why, guard).await;
            }
            tokio::select! {
                report = guard.report() => return self.ended(report, guard).await,
                why = &mut gone => return self.kill(why, guard).await,
                changed = worth.changed(), if kept => {
                    // Once the keeper has left the lease to its end nothing more is told of it.
                    kept = changed.is_ok();
                    let hold = worth.borrow().hold;
                    guard.order(&order(hold)).await;
                    (self.job.beat)(Some(hold.left(boottime())));
                }
                number = signals.next() => guard.order(&Order::Signal(number)).await,
                () = sleep(hold.left(boottime()) + LATER) => {
                    return self.kill("nobody acknowledged it in time".to_owned(), guard).await;
                }
            }
        }
    }

    /// What is to be there as it was written.
    fn watched(&self) -> Vec<(String, Bytes, i64)> {
        let lease = self.keeper.lease;
        let held = self.job.keys.held.iter().map(|key| (key.clone(), Bytes::from(self.job.value.clone()), lease));
        [(self.key.clone(), Bytes::new(), lease)].into_iter().chain(held).collect()
    }

    /// Has the guardian end it all, and does so without it, should it not be heard of in time.
    async fn kill(&mut self, why: String, guard: &mut Guard) -> End {
        self.lost.get_or_insert(why);
        guard.order(&Order::Kill).await;
        match timeout(LATER * 2, guard.report()).await {
            Ok(report) => self.ended(report, guard).await,
            Err(_) => {
                guard.kill().await;
                End::Lost
            }
        }
    }

    async fn ended(&mut self, report: Option<Report>, guard: &mut Guard) -> End {
        match report {
            Some(Report::Ended { how, killed: false }) => End::Itself(how),
            Some(Report::Ended { .. }) => {
                self.lost.get_or_insert("nobody acknowledged it in time".to_owned());
                End::Lost
            }
            _ => {
                self.lost.get_or_insert("the guardian is dead".to_owned());
                guard.kill().await;
                End::Lost
            }
        }
    }

    /// Deletes the certificate, then everything that hangs on the lease: the next one starts.
    async fn hand_over(&self, signals: &mut Signals) {
        let patience = self.keeper.terms.granted() * 4 + Duration::from_secs(10);
        let end = Instant::now() + patience;
        while Instant::now() < end {
            match self.delete_certificate().await {
                Ok(()) => break,
                Err(StoreError::Refused { .. }) => break,
                Err(_) => tokio::select! {
                    () = sleep(AGAIN) => {}
                    // Whoever is in a hurry leaves it to time.
                    _ = signals.next() => return,
                },
            }
        }
        let _ = self.job.store.revoke(self.keeper.lease).await;
    }

    async fn delete_certificate(&self) -> Result<(), StoreError> {
        let child = &self.job.keys.child;
        let own = [Condition::Holds(child.clone(), self.certificate.clone())];
        // Refused: somebody has started since, by time, and it is his.
        self.job.store.commit(&own, &[Write::Delete(child.clone())]).await.map(drop)
    }
}

fn order(hold: Hold) -> Order {
    Order::Hold { deadline: hold.deadline(), term: hold.term_at() }
}

/// Returns when one of these keys is not as it was written, or the store is not the one that it was. An empty value is
/// any.
async fn until_lost(store: &dyn Store, keys: &[(String, Bytes, i64)]) -> String {
    loop {
        match lost(store, keys).await {
            Ok(why) | Err(Some(why)) => return why,
            Err(None) => sleep(AGAIN).await,
        }
    }
}

/// The same until the store is away.
async fn lost(store: &dyn Store, keys: &[(String, Bytes, i64)]) -> Result<String, Option<String>> {
    let away = |error: StoreError| match error {
        StoreError::Rewound => Some("etcd went back, or is another one".to_owned()),
        _ => None,
    };
    let names: Vec<String> = keys.iter().map(|(key, ..)| key.clone()).collect();
    let page = store.get(&names).await.map_err(away)?;
    for (key, value, lease) in keys {
        let as_written = page.items.iter().any(|item| item.key == *key && is_as_written(item, value, *lease));
        if !as_written {
            return Ok(format!("{key} is gone, or is somebody else's"));
        }
    }
    let mut watches = Vec::with_capacity(keys.len());
    for (key, ..) in keys {
        watches.push(store.watch(key, page.revision + 1).await.map_err(away)?);
    }
    loop {
        let (batch, ..) = futures_util::future::select_all(watches.iter_mut().map(|watch| watch.next())).await;
        for event in batch.map_err(away)?.events {
            if let Some(why) = spoiled(&event, keys) {
                return Ok(why);
            }
        }
    }
}

fn spoiled(event: &Event, keys: &[(String, Bytes, i64)]) -> Option<String> {
    let (key, value, lease) = keys.iter().find(|(key, ..)| key == event.key())?;
    match event {
        Event::Put(item) if is_as_written(item, value, *lease) => None,
        _ => Some(format!("{key} was deleted, or overwritten")),
    }
}

fn is_as_written(item: &Item, value: &Bytes, lease: i64) -> bool {
    item.lease == lease && (value.is_empty() || item.value == *value)
}
