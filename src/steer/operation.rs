//! One operation from its hold to its end: fences, writes, then sends, one step after the other.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ipnet::IpNet;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use super::Agents;
use super::hold::{Found, Hold, HoldError, Keys};
use super::late::Late;
use super::lookup::Places;
use super::servers::{Access, Connections, hear};
use crate::model::steer::begin::{Operator, Wish, begin};
use crate::model::steer::command::Command;
use crate::model::steer::heal::heal;
use crate::model::steer::journal::{Journal, Kind, Stage};
use crate::model::steer::marks::{Awaited, WAIT};
use crate::model::steer::roster::{Listed, Roster};
use crate::model::steer::seen::Seen;
use crate::model::steer::server::Sight;
use crate::model::steer::step::{End, Step, step};
use crate::model::steer::takeover::take_over;
use crate::model::steer::topology::{Applied, Desired, MAX_SERVERS};
use crate::state::topology::Kept;
use crate::store::{Event, Revision, Store, StoreError, Write};

/// Pause between two looks: a replica's last bytes take less than this.
const LOOK: Duration = Duration::from_micros(500);

/// What an operation is to bring about.
#[derive(Clone, Debug)]
pub(super) enum Task {
    /// A topology that somebody asked for.
    Apply { desired: Desired, force: bool, dry_run: bool },
    /// A dead operator's work, and what can be healed.
    Heal,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is as it was asked for; for how long no write was taken, where one master gave way to another.
    Done {
        /// In milliseconds.
        gap: Option<u64>,
    },
    /// It would have been begun.
    Planned(String),
    /// An address cannot be found.
    Unfound(String),
    /// It is unsafe, and why.
    Refused(Vec<String>),
    /// Another operation is at work.
    Busy,
    /// It was given up, and nothing is changed.
    Unchanged(String),
    /// Somebody has asked that nothing be done.
    Paused(String),
    /// It failed on the way; whoever takes over ends it.
    Failed(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { gap: Some(gap) } => write!(f, "done, no write was taken for {gap} ms"),
            Self::Done { gap: None } => f.write_str("done"),
            Self::Planned(plan) => f.write_str(plan),
            Self::Unfound(what) => f.write_str(what),
            Self::Refused(why) => write!(f, "unsafe: {}", why.join("; ")),
            Self::Busy => f.write_str("another operation is at work"),
            Self::Unchanged(why) => write!(f, "given up, nothing is changed: {why}"),
            Self::Paused(why) => f.write_str(why),
            Self::Failed(why) => write!(f, "failed: {why}"),
        }
    }
}

/// What every operation of a service needs.
pub(super) struct Ground {
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: Keys,
    pub(super) owner: String,
    pub(super) service: String,
    pub(super) servers: Vec<IpNet>,
    pub(super) max_pause: Duration,
    /// What the keys of agents' marks begin with.
    pub(super) marks: String,
    pub(super) agents: Agents,
}

/// What one operation begins from.
pub(super) struct Scene<'a> {
    /// The servers as the registry has them.
    pub(super) roster: Roster,
    /// Where DNS has what the registry does not know.
    pub(super) places: Places,
    /// How to log in.
    pub(super) access: &'a Access,
    /// What was kept beside the store.
    pub(super) kept: Kept,
    /// For how long the registry has shown something else than what was brought about.
    pub(super) differs_for: Duration,
}

struct Operation<'a> {
    ground: &'a Ground,
    hold: Hold,
    connections: Connections,
    seen: Seen,
    began: Instant,
    /// What becomes the desired topology when the new one is published.
    desired: Option<Desired>,
    /// The master that has given way.
    released: Option<String>,
}

impl Ground {
    /// Brings `task` about, as far as it can be; and what is left to do on the old master then.
    pub(super) async fn operate(&self, task: &Task, scene: Scene<'_>) -> (Outcome, Option<Late>) {
        let hold = match Hold::take(Arc::clone(&self.store), self.keys.clone(), &self.owner).await {
            Ok(hold) => hold,
            Err(HoldError::Busy) => return (Outcome::Busy, None),
            Err(error) => return (Outcome::Failed(error.to_string()), None),
        };
        let mut operation = Operation {
            ground: self,
            hold,
            connections: Connections::default(),
            seen: Seen::default(),
            began: Instant::now(),
            desired: None,
            released: None,
        };
        let outcome = operation.run(task, scene).await;
        let (released, mut connections) = (operation.released.take(), std::mem::take(&mut operation.connections));
        operation.hold.let_go().await;
        let late = released.and_then(|old| connections.take(&old).map(|connection| Late::new(old, connection)));
        (outcome, late)
    }
}

impl Operation<'_> {
    async fn run(&mut self, task: &Task, scene: Scene<'_>) -> Outcome {
        let Scene { roster, places, access, kept, differs_for } = scene;
        self.seen.differs_for = differs_for;
        let found = match Found::read(&*self.ground.store, &self.ground.keys).await {
            Ok(found) => found.or_kept(&kept),
            Err(error) => return Outcome::Failed(error.to_string()),
        };
        if let Some(why) = &found.unreadable {
            return Outcome::Failed(why.clone());
        }
        let journal = found.journal.as_ref().map(|(journal, _)| journal);
        let applied = found.applied.iter().flat_map(|applied| [&applied.master]);
        let mut roster = roster.with_known(applied.chain(journal.iter().flat_map(|journal| journal.servers())));
        let wish = match self.wish(task, &places, &mut roster) {
            Ok(wish) => wish,
            Err(outcome) => return outcome,
        };
        let last = journal.map_or(0, |journal| journal.number);
        self.fence(roster, access, last + 1).await;
        (self.seen.applied, self.seen.trusted) = (found.applied.clone(), found.trusted);
        let first = match self.first(journal, last, wish.as_ref()) {
            Ok(Some(first)) => first,
            Ok(None) => return Outcome::Done { gap: None },
            Err(outcome) => return outcome,
        };
        if let Task::Apply { desired, dry_run, .. } = task {
            if *dry_run {
                return Outcome::Planned(plan(&first));
            }
            self.desired = Some(desired.clone());
        }
        for server in self.connections.rename(access, first.number).await {
            self.breaks(&server);
        }
        info!(service = self.ground.service, number = first.number, kind = ?first.kind, "an operation begins");
        self.drive(first, found.journal_revision()).await
    }

    /// The servers by name that a topology means.
    fn wish(&self, task: &Task, places: &Places, roster: &mut Roster) -> Result<Option<Wish>, Outcome> {
        let Task::Apply { desired, force, .. } = task else { return Ok(None) };
        let place = |address| places.get(address).unwrap_or(address);
        let mut find = |address| roster.find(&self.ground.service, place(address)).map_err(Outcome::Unfound);
        let master = find(&desired.master)?;
        let slaves = desired.slaves.iter().map(find).collect::<Result<Vec<_>, _>>()?;
        let slaves = slaves.into_iter().filter(|slave| *slave != master).collect();
        let max_pause = u64::try_from(self.ground.max_pause.as_millis()).unwrap_or(u64::MAX);
        Ok(Some(Wish { master, slaves, force: *force, max_pause }))
    }

    /// Connects to every server that may be told anything, and ends all other operations' connections there.
    async fn fence(&mut self, roster: Roster, access: &Access, number: u64) {
        let is_ours = |listed: &Listed| self.ground.servers.iter().any(|net| net.contains(&listed.host));
        let (ours, others): (Vec<_>, Vec<_>) = roster.0.into_values().partition(is_ours);
        let ours = ours.into_iter().take(MAX_SERVERS).collect();
        let (connections, servers) = Connections::open(access, ours, number).await;
        (self.connections, self.seen.servers) = (connections, servers);
        for other in others {
            warn!(service = self.ground.service, server = other.name, host = %other.host, "outside of `servers`, left alone");
        }
    }

    /// The first journal of this part; nothing when there is nothing to do.
    fn first(&self, journal: Option<&Journal>, last: u64, wish: Option<&Wish>) -> Result<Option<Journal>, Outcome> {
        if let Some(journal) = journal.filter(|journal| !journal.is_over()) {
            return Ok(Some(take_over(journal, &self.ground.owner, self.seen.trusted)));
        }
        let operator = Operator { name: &self.ground.owner, last, before: journal };
        let Some(wish) = wish else {
            return heal(&self.seen, operator).map_err(|refusal| Outcome::Refused(vec![refusal.to_string()]));
        };
        let words = |refusals: Vec<_>| Outcome::Refused(refusals.iter().map(ToString::to_string).collect());
        let journal = begin(wish, &self.seen, operator).map_err(words)?;
        Ok(Some(journal).filter(|journal| !self.is_so_already(journal)))
    }

    fn is_so_already(&self, journal: &Journal) -> bool {
        let follows = |name: &str| {
            let state = self.seen.state(name);
            state.is_none_or(|state| state.is_replica_of(&journal.target.host, journal.target.port))
        };
        journal.kind == Kind::Attach && journal.rest.iter().all(|server| follows(&server.name))
    }

    async fn drive(&mut self, first: Journal, mut revision: Option<Revision>) -> Outcome {
        let was_over = first.stage;
        let mut next = Step::Write { journal: Box::new(first.clone()), applied: None };
        let mut journal = first;
        loop {
            match next {
                Step::Write { journal: mut written, applied } => {
                    (written.at, written.held) = (now(), self.hold.revision());
                    let applied = applied.map(|applied| Applied { held: written.held, ..*applied });
                    match self.write(&written, applied, revision).await {
                        Ok(at) => {
                            (journal, revision) = (*written, Some(at));
                            self.gather(&journal, at).await;
                        }
                        Err(HoldError::Unknown) => return Outcome::Failed(HoldError::Unknown.to_string()),
                        // Not written for sure, so what was not decided may still be undone.
                        Err(error) if journal.stage == Stage::Intent && revision.is_some() => {
                            warn!(%error, "an operation is given up without the store");
                            self.seen.store_lost = true;
                        }
                        Err(error) => return Outcome::Failed(error.to_string()),
                    }
                }
                Step::Send(commands) => self.send(commands).await,
                Step::Look(servers) => self.look(&servers).await,
                Step::End(End::Over) => {
                    self.connections.rewrite().await;
                    return outcome(&journal, was_over);
                }
                Step::End(End::Later(why)) if self.seen.store_lost => return Outcome::Unchanged(why),
                Step::End(End::Later(why)) => return Outcome::Failed(why),
            }
            self.seen.store_lost |= self.hold.is_lost();
            self.seen.hold_left = self.hold.left();
            self.seen.wall = now();
            next = step(&journal, &self.seen, self.began.elapsed());
        }
    }

    /// With an intent, waits until every agent keeps those who ask it for the master, or for as long as it may take.
    async fn gather(&self, journal: &Journal, since: Revision) {
        let mut awaited = Awaited::new(journal.number, (self.ground.agents)());
        if journal.stage != Stage::Intent || awaited.is_met() {
            return;
        }
        let gathered = async {
            let mut watch = self.ground.store.watch(&self.ground.marks, since).await?;
            while !awaited.is_met() {
                for event in watch.next().await?.events {
                    if let (Event::Put(item), Some(agent)) = (&event, event.key().strip_prefix(&self.ground.marks)) {
                        awaited.hear(agent, &item.value);
                    }
                }
            }
            Ok::<_, StoreError>(())
        };
        if !matches!(timeout(WAIT, gathered).await, Ok(Ok(()))) {
            let missing = awaited.missing();
            info!(service = self.ground.service, missing, "agents that may name the old master for a moment");
        }
    }

    async fn write(
        &mut self,
        journal: &Journal,
        applied: Option<Applied>,
        last: Option<Revision>,
    ) -> Result<Revision, HoldError> {
        let put = |key: &str, value: Vec<u8>| Write::Put { key: key.to_owned(), value: value.into(), lease: 0 };
        let mut with = vec![];
        if let Some(applied) = &applied {
            with.push(put(&self.ground.keys.applied, applied.encode()));
        }
        let published = matches!(journal.stage, Stage::Publish) && (applied.is_some() || journal.kind == Kind::Attach);
        if let Some(desired) = self.desired.as_ref().filter(|_| published) {
            with.push(put(&self.ground.keys.desired, desired.encode()));
        }
        let revision = self.hold.commit(last, journal, with).await?;
        info!(service = self.ground.service, number = journal.number, stage = ?journal.stage, why = journal.why, "written");
        if applied.is_some() {
            (self.seen.applied, self.seen.trusted) = (applied, true);
        }
        Ok(revision)
    }

    async fn send(&mut self, commands: Vec<(String, Command)>) {
        for (server, command) in commands {
            if self.hold.left().is_zero() {
                return;
            }
            let said = self.connections.tell(&server, Some(&command)).await;
            if let Err(error) = &said {
                warn!(service = self.ground.service, server, ?command, error, "a server was told and did not do it");
            }
            if said.is_ok() && matches!(command, Command::Release { .. }) {
                self.released = Some(server.clone());
            }
            let now = self.began.elapsed();
            if let Some((_, sight)) = self.seen.servers.get_mut(&server) {
                hear(sight, said, Some(&command), now);
            }
        }
    }

    async fn look(&mut self, servers: &[String]) {
        sleep(LOOK).await;
        let now = self.began.elapsed();
        for (server, said) in self.connections.look(servers).await {
            if let Some((_, sight)) = self.seen.servers.get_mut(&server) {
                hear(sight, said, None, now);
            }
        }
    }

    fn breaks(&mut self, server: &str) {
        if let Some((_, sight)) = self.seen.servers.get_mut(server) {
            *sight = Sight::Broken;
        }
    }
}

fn now() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

fn outcome(journal: &Journal, began_at: Stage) -> Outcome {
    match journal.stage {
        Stage::Stale => Outcome::Failed(journal.why.clone()),
        _ if !journal.why.is_empty() => Outcome::Unchanged(journal.why.clone()),
        _ if began_at == Stage::Intent => Outcome::Done { gap: journal.gap },
        _ => Outcome::Done { gap: None },
    }
}

fn plan(journal: &Journal) -> String {
    let names: Vec<&str> = journal.rest.iter().map(|server| server.name.as_str()).collect();
    let follow = if names.is_empty() { String::new() } else { format!(", {} follow", names.join(", ")) };
    match &journal.old {
        Some(old) => format!("{} gives way to {}{follow}", old.name, journal.target.name),
        None => format!("{} is master{follow}", journal.target.name),
    }
}
