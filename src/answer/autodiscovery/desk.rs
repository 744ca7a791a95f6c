//! Keeps one service's list: tells the newest there is, and writes the next one when it has to change.
//!
//! Every agent with the table does; the store lets one of them through. What clients are told was saved before, so that
//! no restart tells them less.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rand::RngExt;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::board::Notes;
use super::metrics::OfTable;
use super::{Inputs, Settings};
use crate::catalog::facade::autodiscovery::{
    Absences, Drained, Member, MemberList, Moment, ROOM, evolved, newer, next_list,
};
use crate::catalog::index::Catalog;
use crate::state::members::KeptMembers;
use crate::store::{Commit, Condition, Item, Revision, StoreError, Write};
use crate::view::Progress;

/// Time is looked at so often, and in a flood of changes the catalog.
const TICK: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(200);
/// Agents that see the same do not write at the same moment: each waits for a part of this.
const JITTER: Duration = Duration::from_millis(300);
/// Who finds no list and remembers none waits so long for one who remembers.
const FORGOTTEN: Duration = Duration::from_secs(5);

/// What clients are told.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) list: Option<MemberList>,
}

/// The worker.
#[derive(Debug)]
pub(super) struct Desk {
    service: String,
    settings: watch::Receiver<Arc<Settings>>,
    kept: Option<KeptMembers>,
    inputs: Inputs,
    metrics: OfTable,
    notes: Notes,
    told: watch::Sender<Arc<Told>>,
    absences: Absences,
    /// Since when all is in step with the store, and when time was looked at last.
    in_step: Option<(Instant, Instant)>,
    is_complaining: bool,
    /// The store's history when the list was written last from here.
    generation: u64,
}

/// What the catalog and the hosts say.
struct Sight {
    ready: Vec<Member>,
    drained: Drained,
}

impl Desk {
    pub(super) fn new(
        settings: watch::Receiver<Arc<Settings>>,
        inputs: Inputs,
        metrics: OfTable,
        notes: Notes,
    ) -> (Self, watch::Receiver<Arc<Told>>) {
        let Settings { service, kept, .. } = Settings::clone(&settings.borrow());
        let list = kept.as_ref().and_then(KeptMembers::read);
        let (told, seen) = watch::channel(Arc::new(Told { list }));
        let generation = inputs.store.history().borrow().generation;
        let (absences, in_step, is_complaining) = (Absences::default(), None, false);
        let desk = Self {
            service,
            settings,
            kept,
            inputs,
            metrics,
            notes,
            told,
            absences,
            in_step,
            is_complaining,
            generation,
        };
        (desk, seen)
    }

    /// Works as long as it is polled.
    pub(super) async fn run(mut self) {
        let (mut changed, mut ticks) = (self.inputs.view.changed(), interval(TICK));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            changed.mark_unchanged();
            self.inputs.lists.mark_unchanged();
            self.look().await;
            sleep(PAUSE).await;
            // No branch takes anything: what is dropped is seen by the next look.
            let is_over = tokio::select! {
                _ = ticks.tick() => false,
                seen = changed.changed() => seen.is_err(),
                seen = self.inputs.lists.changed() => seen.is_err(),
            };
            if is_over {
                return std::future::pending().await; // the mirror is gone, and soon we are
            }
        }
    }

    async fn look(&mut self) {
        let lists = Arc::clone(&self.inputs.lists.borrow());
        let stored = lists.lists.get(&self.service);
        self.tell(stored).await;
        let catalog = self.inputs.view.load();
        let is_in_step = lists.in_step && !catalog.is_stale() && self.inputs.view.progress() == Progress::Read;
        let told = Arc::clone(&self.told.borrow());
        let list = told.list.as_ref();
        let (members, version) = list.map_or((0, 0), |list| (list.members.len(), list.version));
        self.metrics.told(members, version, is_in_step);
        let sight = self.sight(&catalog);
        let Some(since) = self.pass(is_in_step, list, &sight) else { return };
        let is_forgotten = stored.is_none() && list.is_none();
        if is_forgotten && since < FORGOTTEN || self.next(stored, list, &sight).is_none() {
            return;
        }
        let share: f64 = rand::rng().random();
        sleep(JITTER.mul_f64(share)).await;
        match self.write(&sight).await {
            Ok(()) => self.is_complaining = false,
            Err(error) if !std::mem::replace(&mut self.is_complaining, true) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the member list cannot be written, trying again"
                );
            }
            Err(_) => {}
        }
    }

    /// Takes note of time; how long all has been in step, if it is.
    fn pass(&mut self, is_in_step: bool, list: Option<&MemberList>, sight: &Sight) -> Option<Duration> {
        let now = Instant::now();
        let (since, last) = self.in_step.filter(|_| is_in_step).unwrap_or((now, now));
        self.in_step = is_in_step.then_some((since, now));
        let members = list.map_or(&[][..], |list| &list.members);
        self.absences.pass(now - last, members, &sight.ready);
        self.notes.sees(is_in_step, &self.absences);
        is_in_step.then(|| now - since)
    }

    fn sight(&self, catalog: &Catalog) -> Sight {
        let found = catalog.service(&self.inputs.zones, &self.service);
        let ready = found.iter().flat_map(|service| &service.endpoints).filter_map(Member::of);
        Sight { ready: ready.collect(), drained: Drained::of(&self.inputs.nodes.borrow().nodes) }
    }

    fn next(&self, stored: Option<&MemberList>, told: Option<&MemberList>, sight: &Sight) -> Option<MemberList> {
        let leave_after = self.settings.borrow().leave_after;
        let leaves = |member: &Member| sight.drained.has(member) || self.absences.of(member) >= leave_after;
        let went_back = self.inputs.store.history().borrow().generation != self.generation;
        let now = Moment {
            seconds: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |time| time.as_secs()),
            room: if went_back { rand::rng().random_range(ROOM) } else { 0 },
        };
        next_list(stored, told, now, |list| evolved(list, &sight.ready, leaves))
    }

    /// Writes the next list, if the store's own word still asks for one.
    async fn write(&mut self, sight: &Sight) -> Result<(), StoreError> {
        let key = self.inputs.prefix.member_list(&self.service);
        let generation = self.inputs.store.history().borrow().generation;
        let page = self.inputs.store.get(std::slice::from_ref(&key)).await?;
        let item = page.items.first();
        let stored = item.and_then(|item| MemberList::decode(&item.value).ok());
        let told = Arc::clone(&self.told.borrow());
        let Some(next) = self.next(stored.as_ref(), told.list.as_ref(), sight) else {
            self.tell(stored.as_ref()).await;
            return Ok(());
        };
        let put = Write::Put { key: key.clone(), value: next.encode().into(), lease: 0 };
        if let Commit::Done(_) = self.inputs.store.commit(&[unchanged(key, item)], &[put]).await? {
            self.generation = generation;
            self.metrics.wrote();
            tracing::info!(
                service = self.service,
                version = next.version,
                members = next.members.len(),
                "the member list changes"
            );
            self.tell(Some(&next)).await;
        }
        Ok(())
    }

    /// Tells clients this list, if it is newer than what they are told. It is saved first.
    async fn tell(&mut self, list: Option<&MemberList>) {
        let told = Arc::clone(&self.told.borrow());
        let Some(newest) = newer(told.list.as_ref(), list).filter(|newest| told.list.as_ref() != Some(newest)) else {
            return;
        };
        if let Some(kept) = &self.kept
            && let Err(error) = kept.write(newest).await
        {
            tracing::warn!(%error, "the member list cannot be kept: a restart may tell clients an older one");
        }
        self.told.send_replace(Arc::new(Told { list: Some(newest.clone()) }));
    }
}

fn unchanged(key: String, item: Option<&Item>) -> Condition {
    match item.map(|item| -> Revision { item.revision }) {
        Some(revision) => Condition::Unchanged(key, revision),
        None => Condition::Absent(key),
    }
}
