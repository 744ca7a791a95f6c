//! Waiting for a lock, in order of arrival, until the commit that starts the program is made.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, timeout_at};

use super::guard::Guard;
use super::keeper::Keeper;
use super::queue::{Seen, look, until_gone};
use super::{Job, Signals, why};
use crate::host::boottime;
use crate::model::steer::lock::certificate::{Certificate, Entry};
use crate::model::steer::lock::hold::{Terms, Verdict};
use crate::model::steer::lock::start::Next;
use crate::model::steer::lock::waiter::{Turn, Waiter};
use crate::store::{Commit, Condition, LeaseId, Store, StoreError, Write};

/// Pause before a store that is away is asked again.
const AGAIN: Duration = Duration::from_millis(200);
/// Whoever waits looks that often, should no watch tell.
const LOOK: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

/// A lock that is won: the certificate is written, the program is not started yet.
pub(super) struct Won {
    pub(super) keeper: Keeper,
    pub(super) key: String,
    pub(super) token: i64,
    /// The certificate as it was written.
    pub(super) certificate: Bytes,
}

/// Why it is not won.
#[derive(Debug)]
pub(super) enum Stop {
    NotWon,
    Unreachable(String),
    Refused(String),
    Signal(i32),
    Guardian,
}

/// A place in the queue.
struct Queued {
    keeper: Keeper,
    key: String,
    token: i64,
}

/// What one look led to.
enum Step {
    /// To be looked at again, after what was waited for.
    Again,
    /// The place is lost.
    Lost,
    Won(Bytes),
}

/// A place in the queue for a lock, with the guardian that will start the program.
pub(super) struct Waiting<'j> {
    job: &'j Job,
    waiter: Waiter,
    /// The store's history that all of this is about.
    generation: u64,
    told: String,
    away: Option<String>,
}

impl<'j> Waiting<'j> {
    pub(super) fn new(job: &'j Job) -> Self {
        let generation = job.store.history().borrow().generation;
        let waiter = Waiter::new(job.ttl, job.strict);
        Self { job, waiter, generation, told: String::new(), away: None }
    }

    pub(super) async fn win(mut self, guard: &mut Guard, signals: &mut Signals) -> Result<Won, Stop> {
        let deadline = self.job.wait.map(|wait| Instant::now() + wait);
        let mut queued = None;
        let stop = tokio::select! {
            won = self.queue(&mut queued) => match won {
                Ok(certificate) => {
                    let Queued { keeper, key, token } = queued.take().expect("it was won from this place");
                    return Ok(Won { keeper, key, token, certificate });
                }
                Err(stop) => stop,
            },
            number = signals.next() => Stop::Signal(number),
            _ = guard.report() => Stop::Guardian,
            () = at(deadline) => self.away.take().map_or(Stop::NotWon, Stop::Unreachable),
        };
        if let Some(Queued { keeper, token, .. }) = queued {
            self.leave(&keeper, token).await;
        }
        Err(stop)
    }

    /// Leaves the queue; a certificate may be there, if it was about to be won.
    async fn leave(&self, keeper: &Keeper, token: i64) {
        let revoked = async {
            if let Ok(Seen { certificate: Some((own, value, _)), .. }) = look(&self.job.store, &self.job.keys).await
                && (own.token, own.lease) == (token, keeper.lease)
            {
                self.withdraw(&value).await?;
            }
            self.job.store.revoke(keeper.lease).await
        };
        // What cannot be told the store finds out by time.
        let _ = timeout_at(Instant::now() + 2 * SECOND, revoked).await;
    }

    async fn queue(&mut self, queued: &mut Option<Queued>) -> Result<Bytes, Stop> {
        loop {
            if queued.is_none() {
                match self.enter().await {
                    Ok(place) => *queued = Some(place),
                    Err(error) => {
                        self.trouble(&error).await?;
                        continue;
                    }
                }
            }
            let Some(place) = queued else { continue };
            match self.step(place).await {
                Ok(Step::Won(certificate)) => return Ok(certificate),
                Ok(Step::Again) => self.away = None,
                Ok(Step::Lost) => *queued = None,
                Err(StoreError::Rewound) => *queued = None,
                Err(error) => {
                    if place.keeper.is_gone() {
                        *queued = None;
                    }
                    self.trouble(&error).await?;
                }
            }
            self.look_whether_rewound();
        }
    }

    fn look_whether_rewound(&mut self) {
        let generation = self.job.store.history().borrow().generation;
        if std::mem::replace(&mut self.generation, generation) != generation {
            self.waiter.went_back(boottime());
        }
    }

    /// An outage is waited out; a refusal is not.
    async fn trouble(&mut self, error: &StoreError) -> Result<(), Stop> {
        self.look_whether_rewound();
        if matches!(error, StoreError::Refused { .. }) {
            return Err(Stop::Refused(why(error)));
        }
        if self.away.replace(why(error)).is_none() {
            self.tell(format!("etcd is waited for: {}", why(error)));
        }
        sleep(AGAIN).await;
        Ok(())
    }

    /// A lease, and a place at the end of the queue.
    async fn enter(&mut self) -> Result<Queued, StoreError> {
        let sent = boottime();
        let (lease, granted) = self.job.store.grant(self.job.ttl).await?;
        let terms = Terms::new(granted, self.job.grace);
        let key = self.job.keys.of_lease(lease);
        let ttl = u64::try_from(granted.as_millis()).unwrap_or(u64::MAX);
        let entry = Entry { node: self.job.node.clone(), since: now(), ttl };
        let write = Write::Put { key: key.clone(), value: entry.encode().into(), lease };
        // Nobody else has this lease's number: once written, it stands.
        match self.job.store.commit(&[Condition::Absent(key.clone())], &[write]).await {
            Ok(Commit::Done(token)) => {
                let keeper = Keeper::new(self.job.store.clone(), lease, key.clone(), terms, sent);
                Ok(Queued { keeper, key, token })
            }
            Ok(Commit::Refused(_)) => self.give_up(lease, &StoreError::NoLease(lease)).await,
            Err(error) => self.give_up(lease, &error).await,
        }
    }

    /// A lease whose key may have been written all the same would stand before our next one.
    async fn give_up(&mut self, lease: LeaseId, error: &StoreError) -> Result<Queued, StoreError> {
        let _ = self.job.store.revoke(lease).await;
        Err(StoreError::Away { tried: format!("to queue: {}", why(error)), source: None })
    }

    async fn step(&mut self, place: &mut Queued) -> Result<Step, StoreError> {
        let seen = look(&self.job.store, &self.job.keys).await?;
        self.look_whether_rewound();
        let certificate = seen.certificate.as_ref().map(|(certificate, ..)| certificate);
        if let (Some(own), Some((_, value, _))) = (certificate, &seen.certificate)
            && (own.token, own.lease) == (place.token, place.keeper.lease)
        {
            // The commit was made, whoever heard of it. What was lost since is not started any more.
            let is_there = seen.line.iter().any(|other| other.key == place.key);
            return if is_there { Ok(Step::Won(value.clone())) } else { self.withdraw(value).await };
        }
        if place.keeper.is_gone() {
            return Ok(Step::Lost);
        }
        match self.waiter.looked(boottime(), &seen.line, certificate, &place.key) {
            Turn::Lost => return Ok(Step::Lost),
            Turn::Behind { count, key, ask } => {
                self.tell(behind(&seen, count));
                self.wait(&seen, &key, place, ask).await?;
            }
            Turn::Head(next) => return self.at_head(next, &seen, place).await,
        }
        Ok(Step::Again)
    }

    /// Takes back a certificate of ours under which nothing was started.
    async fn withdraw(&self, value: &Bytes) -> Result<Step, StoreError> {
        let child = &self.job.keys.child;
        let holds = [Condition::Holds(child.clone(), value.clone())];
        self.job.store.commit(&holds, &[Write::Delete(child.clone())]).await?;
        Ok(Step::Lost)
    }

    async fn at_head(&mut self, next: Next, seen: &Seen, place: &mut Queued) -> Result<Step, StoreError> {
        let child = self.job.keys.child.clone();
        match (next, &seen.held) {
            (Next::At(until), _) => {
                let left = until.saturating_sub(boottime());
                self.tell(format!("{}: its time is over in {}", left_behind(seen), seconds(left)));
                until_gone(&self.job.store, &child, seen.revision, left.max(AGAIN / 10)).await;
            }
            (Next::Certificate, _) => {
                self.tell(format!("{}; --strict waits until it is known to be dead", left_behind(seen)));
                until_gone(&self.job.store, &child, seen.revision, LOOK).await;
            }
            (Next::Start, Some(item)) => {
                let lasts = if item.lease == 0 { ": without a lease, so this will not end by itself" } else { "" };
                self.tell(format!("{} is there, by somebody else{lasts}", item.key));
                until_gone(&self.job.store, &item.key, seen.revision, LOOK).await;
            }
            (Next::Start, None) => return self.start(seen, place).await,
        }
        Ok(Step::Again)
    }

    /// Waits for whoever is just before; the first who waits asks for the holder's lease meanwhile.
    async fn wait(
        &mut self,
        seen: &Seen,
        key: &str,
        place: &mut Queued,
        ask: Option<(LeaseId, Duration)>,
    ) -> Result<(), StoreError> {
        let mut worth = place.keeper.worth.clone();
        tokio::select! {
            () = until_gone(&self.job.store, key, seen.revision, LOOK) => {}
            () = asked(&self.job.store, &mut self.waiter, ask) => {}
            _ = worth.wait_for(|worth| worth.gone) => {}
        }
        Ok(())
    }

    /// The commit that starts the program: on the condition of its own key, which hangs on its lease, and of what was
    /// seen of the certificate.
    async fn start(&mut self, seen: &Seen, place: &mut Queued) -> Result<Step, StoreError> {
        if place.keeper.hold().verdict(boottime(), place.keeper.is_gone()) != Verdict::Run {
            sleep(AGAIN).await;
            return Ok(Step::Again);
        }
        let (keys, lease) = (&self.job.keys, place.keeper.lease);
        let certificate = self.certificate(place);
        let last = match &seen.certificate {
            Some((_, _, revision)) => Condition::Unchanged(keys.child.clone(), *revision),
            None => Condition::Absent(keys.child.clone()),
        };
        let mut conditions = vec![Condition::Unchanged(place.key.clone(), place.token), last];
        let mut writes = vec![Write::Put { key: keys.child.clone(), value: certificate.clone(), lease: 0 }];
        if let Some(held) = &keys.held {
            conditions.push(Condition::Absent(held.clone()));
            writes.push(Write::Put { key: held.clone(), value: self.job.value.clone().into(), lease });
        }
        place.keeper.is_used();
        match self.job.store.commit(&conditions, &writes).await? {
            Commit::Done(_) => Ok(Step::Won(certificate)),
            Commit::Refused(_) => Ok(Step::Again),
        }
    }

    fn certificate(&self, place: &Queued) -> Bytes {
        let ttl = u64::try_from(place.keeper.terms.granted().as_millis()).unwrap_or(u64::MAX);
        let (node, boot) = (self.job.node.clone(), self.job.boot.clone());
        let lease = place.keeper.lease;
        Certificate { token: place.token, node, boot, lease, since: now(), ttl }.encode().into()
    }

    /// Tells what has changed.
    fn tell(&mut self, text: String) {
        if self.told != text {
            (self.job.tell)(&text);
            self.told = text;
        }
    }
}

/// Asks about a lease, time and again.
async fn asked(store: &dyn Store, waiter: &mut Waiter, ask: Option<(LeaseId, Duration)>) {
    let Some((lease, mut at)) = ask else { return std::future::pending().await };
    loop {
        sleep(at.saturating_sub(boottime())).await;
        let sent = boottime();
        match store.lease_times(lease).await {
            Ok(info) => at = waiter.told(lease, info.granted, info.left, sent, boottime()),
            // It is about to be gone from the queue, too.
            Err(StoreError::NoLease(_)) => return sleep(AGAIN).await,
            Err(_) => at = boottime() + AGAIN,
        }
    }
}

/// The time of day, in whole seconds.
fn now() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn behind(seen: &Seen, count: usize) -> String {
    let holder = seen.line.first().map(|place| Entry::decode(&place.value).node).unwrap_or_default();
    let holder = if holder.is_empty() { "somebody".to_owned() } else { holder };
    let runs =
        seen.certificate.as_ref().filter(|(it, ..)| seen.line.first().is_some_and(|head| head.created == it.token));
    let since = runs.map(|(it, ..)| format!(" since {}", moment(it.since))).unwrap_or_default();
    format!("held by {holder}{since}; {count} before us")
}

fn left_behind(seen: &Seen) -> String {
    let node = seen.certificate.as_ref().map(|(certificate, ..)| certificate.node.as_str()).unwrap_or_default();
    let whose = if node.is_empty() { "whoever had it".to_owned() } else { node.to_owned() };
    format!("{whose} did not end it and may still run")
}

fn moment(seconds: u64) -> String {
    let time = std::time::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.min(253_402_300_799)));
    time.map(|time| humantime::format_rfc3339_seconds(time).to_string()).unwrap_or_default()
}

fn seconds(time: Duration) -> String {
    format!("{}s", time.as_secs() + 1)
}
