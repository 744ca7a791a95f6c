//! What must be looked at next, and which looks may still be believed: the order of things, without sockets or clock.
//!
//! A look that was asked for before a container ended says nothing of what came after, so its answer is dropped; one
//! that was asked for after an event has seen that event. That alone keeps ghosts out and leaves nobody missing,
//! however closely events follow each other. At most one look per container is under way, and at most
//! [`MAX_LOOKS`] in all; of these only half may be second tries, so what hangs leaves room for what does not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::offer::container::{Container, Sighting};
use crate::model::words::record::Text;

use super::events::What;
use super::listing::Entry;
use super::timers::Timers;

/// Looks under way at once.
pub(super) const MAX_LOOKS: usize = 8;
const MAX_RETRIES: usize = MAX_LOOKS / 2;
/// How long a container may outlive its stop timeout before it is offered again.
const GRACE: Duration = Duration::from_secs(5);
const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(30);
/// TERM, INT, QUIT and KILL ask every container to stop.
const STOP_SIGNALS: [u32; 4] = [15, 2, 3, 9];

/// What a look brought.
#[derive(Debug)]
pub(super) enum Look {
    /// The container as it is.
    Facts(Arc<Container>),
    /// There is no such container.
    Missing,
    /// The engine did not say, for this reason.
    Failed(String),
}

#[derive(Debug, Default)]
struct Track {
    /// A look is under way.
    looking: bool,
    /// It was asked for before the container ended.
    outdated: bool,
    /// Something happened since it was asked for.
    again: bool,
    /// Waits for its turn.
    queued: bool,
    /// Failed looks in a row, and when to try again.
    failures: u32,
    retry_at: Option<Instant>,
    /// Asked to stop: until when it may take.
    stop_by: Option<Instant>,
    stop_signal: Option<u32>,
    stop_timeout: Option<Duration>,
    started_at: Text,
    /// The container whose network it shares: it must be known too, be it listed or not.
    shares: Option<Text>,
}

impl Track {
    /// When it is to be looked at again, be it to try again or to see whether it has survived.
    fn due(&self) -> Option<Instant> {
        if self.looking || self.queued { None } else { self.retry_at.or(self.stop_by) }
    }
}

/// The order of sightings of one engine.
#[derive(Debug, Default)]
pub(super) struct Tracker {
    tracks: BTreeMap<Text, Track>,
    /// When each is due.
    timers: Timers,
    queue: VecDeque<Text>,
    /// Second tries.
    retries: VecDeque<Text>,
    under_way: usize,
    retries_under_way: usize,
    /// Listed containers that have not been looked at yet; `None` when in step.
    unseen: Option<BTreeSet<Text>>,
    /// The list as it was told last.
    last: BTreeMap<Text, Entry>,
    /// Containers with an event since the list was asked for.
    since_list: BTreeSet<Text>,
    listing: bool,
    /// Sightings to be told, in order.
    pub(super) told: VecDeque<Sighting>,
}

impl Tracker {
    /// The connection is gone: no look under way will ever answer.
    pub(super) fn disconnected(&mut self) {
        self.under_way = 0;
        self.retries_under_way = 0;
        self.listing = false;
        self.unseen = None;
        self.queue.clear();
        self.retries.clear();
        for track in self.tracks.values_mut() {
            (track.looking, track.outdated, track.again, track.queued) = (false, false, false, false);
            (track.failures, track.retry_at) = (0, None);
        }
        self.retime_all();
    }

    /// A list has been asked for.
    pub(super) fn list_asked(&mut self) {
        self.listing = true;
        self.since_list.clear();
    }

    /// The list has not come.
    pub(super) fn list_failed(&mut self) {
        self.listing = false;
    }

    /// Whether a list is on its way.
    pub(super) fn is_listing(&self) -> bool {
        self.listing
    }

    /// The list is here. With `look_at_all` every container is looked at, else the unknown ones and those whose entry
    /// is another one than in the list before: something has happened to them, be it told by an event or not.
    pub(super) fn listed(&mut self, list: BTreeMap<Text, Entry>, look_at_all: bool) {
        self.listing = false;
        let ids: BTreeSet<Text> = list.keys().cloned().collect();
        let before = std::mem::replace(&mut self.last, list);
        let same = |id: &Text| before.get(id).is_some_and(|before| !self.last[id].is_news_after(*before));
        let lately = std::mem::take(&mut self.since_list);
        let shared: Vec<&Text> = self.tracks.values().filter_map(|track| track.shares.as_ref()).collect();
        let known = lately.iter().chain(shared).filter(|id| self.tracks.contains_key(*id));
        let running: BTreeSet<Text> = ids.iter().chain(known).cloned().collect();
        self.tracks.retain(|id, track| running.contains(id) || track.looking);
        for (id, track) in &mut self.tracks {
            track.outdated |= track.looking && !running.contains(id);
        }
        let listed = if look_at_all { running.clone() } else { ids };
        let known = |id: &Text| self.tracks.contains_key(id) && same(id);
        let new: Vec<Text> = listed.into_iter().filter(|id| look_at_all || !known(id)).collect();
        self.told.push_back(Sighting::Listed(running));
        self.retime_all();
        if look_at_all {
            self.unseen = Some(new.iter().cloned().collect());
        }
        for id in new {
            self.want(&id);
        }
        self.check_in_step();
    }

    /// Failed looks at a container in a row.
    pub(super) fn failures(&self, id: &Text) -> u32 {
        self.tracks.get(id).map_or(0, |track| track.failures)
    }

    /// Something happened to a container `age` before `now`.
    pub(super) fn event(&mut self, id: &Text, what: What, age: Duration, now: Instant) {
        if self.listing {
            self.since_list.insert(id.clone());
        }
        match what {
            What::Changed => self.want(id),
            What::Ended => self.ended(id),
            What::Signalled(signal) => self.signalled(id, signal, age, now),
        }
    }

    /// The next container to look at, if a look may be made now.
    pub(super) fn next_look(&mut self) -> Option<Text> {
        if self.under_way >= MAX_LOOKS {
            return None;
        }
        let id = self.next_queued()?;
        if let Some(track) = self.tracks.get_mut(&id) {
            (track.queued, track.looking, track.again, track.outdated) = (false, true, false, false);
            self.under_way += 1;
            self.retries_under_way += usize::from(track.failures > 0);
        }
        self.retime(&id);
        Some(id)
    }

    /// Second tries come first where there is room for them: it is they that have waited.
    fn next_queued(&mut self) -> Option<Text> {
        let queued = |id: &Text| self.tracks.get(id).is_some_and(|track| track.queued);
        if self.retries_under_way < MAX_RETRIES
            && let Some(id) = pop_until(&mut self.retries, queued)
        {
            return Some(id);
        }
        pop_until(&mut self.queue, queued)
    }

    /// A look has ended.
    pub(super) fn looked(&mut self, id: &Text, look: Look, now: Instant) {
        self.under_way = self.under_way.saturating_sub(1);
        let Some(track) = self.tracks.get_mut(id) else { return };
        if track.failures > 0 {
            self.retries_under_way = self.retries_under_way.saturating_sub(1);
        }
        track.looking = false;
        let again = std::mem::take(&mut track.again);
        if std::mem::take(&mut track.outdated) {
            match again {
                true => self.want(id),
                false => _ = self.tracks.remove(id),
            }
        } else {
            self.believe(id, look, again, now);
        }
        self.retime(id);
        self.done(id);
    }

    fn believe(&mut self, id: &Text, look: Look, again: bool, now: Instant) {
        match look {
            Look::Facts(facts) if facts.runs() => self.seen(id, facts, now),
            Look::Facts(_) | Look::Missing => {
                self.told.push_back(Sighting::Gone(id.clone()));
                if !again {
                    self.tracks.remove(id);
                }
            }
            Look::Failed(why) => self.failed(id, why, now),
        }
        if again {
            self.want(id);
        }
    }

    fn seen(&mut self, id: &Text, facts: Arc<Container>, now: Instant) {
        let Some(track) = self.tracks.get_mut(id) else { return };
        (track.failures, track.retry_at) = (0, None);
        if track.started_at != facts.started_at {
            let another_life = !track.started_at.is_empty();
            track.started_at = facts.started_at.clone();
            track.stop_by = track.stop_by.filter(|_| !another_life);
        }
        (track.stop_signal, track.stop_timeout) = (facts.stop_signal, facts.stop_timeout);
        track.shares = facts.network_mode.strip_prefix("container:").filter(|id| is_id(id)).map(Text::from);
        let shares = track.shares.clone();
        let asked_to_stop = track.stop_by;
        track.stop_by = asked_to_stop.filter(|by| *by > now);
        let stays = track.stop_by.is_some();
        self.told.push_back(Sighting::Seen(facts));
        match asked_to_stop {
            None => {}
            Some(_) if stays => self.told.push_back(Sighting::Stopping(id.clone())),
            Some(_) => self.told.push_back(Sighting::Survived(id.clone())),
        }
        if let Some(shared) = shares.filter(|shared| !self.tracks.contains_key(shared)) {
            self.want(&shared);
        }
    }

    fn failed(&mut self, id: &Text, why: String, now: Instant) {
        let Some(track) = self.tracks.get_mut(id) else { return };
        let wait = FIRST_RETRY.saturating_mul(1 << track.failures.min(10)).min(LAST_RETRY);
        track.failures += 1;
        track.retry_at = Some(now + wait);
        self.told.push_back(Sighting::Unseen(id.clone(), why));
    }

    /// When the next timer ends.
    pub(super) fn next_timer(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Looks again at what has been waited for.
    pub(super) fn tick(&mut self, now: Instant) {
        for id in self.timers.over(now) {
            self.want(&id);
        }
    }

    fn want(&mut self, id: &Text) {
        let track = self.tracks.entry(id.clone()).or_default();
        track.retry_at = None;
        if track.looking {
            track.again = true;
        } else if !track.queued {
            track.queued = true;
            let queue = if track.failures > 0 { &mut self.retries } else { &mut self.queue };
            queue.push_back(id.clone());
        }
        self.retime(id);
    }

    fn retime(&mut self, id: &Text) {
        self.timers.set(id, self.tracks.get(id).and_then(Track::due));
    }

    fn retime_all(&mut self) {
        self.timers = Timers::default();
        for (id, track) in &self.tracks {
            self.timers.set(id, track.due());
        }
    }

    fn ended(&mut self, id: &Text) {
        self.told.push_back(Sighting::Gone(id.clone()));
        match self.tracks.get_mut(id) {
            Some(track) if track.looking => {
                (track.outdated, track.again, track.queued, track.stop_by) = (true, false, false, None);
            }
            Some(_) => _ = self.tracks.remove(id),
            None => {}
        }
        self.retime(id);
        self.done(id);
    }

    fn signalled(&mut self, id: &Text, signal: u32, age: Duration, now: Instant) {
        let Some(track) = self.tracks.get_mut(id) else { return };
        if !STOP_SIGNALS.contains(&signal) && track.stop_signal != Some(signal) {
            return;
        }
        // Heard of only now, it may have been outlived long ago.
        let left = (track.stop_timeout.unwrap_or(DEFAULT_STOP_TIMEOUT) + GRACE).checked_sub(age);
        let Some(left) = left.filter(|left| !left.is_zero()) else { return self.want(id) };
        track.stop_by = Some(now + left);
        self.told.push_back(Sighting::Stopping(id.clone()));
        self.retime(id);
    }

    /// A listed container has been looked at, or has ended.
    fn done(&mut self, id: &Text) {
        if let Some(unseen) = &mut self.unseen {
            unseen.remove(id);
        }
        self.check_in_step();
    }

    fn check_in_step(&mut self) {
        if !self.listing && self.unseen.as_ref().is_some_and(BTreeSet::is_empty) {
            self.unseen = None;
            self.told.push_back(Sighting::InStep);
        }
    }
}

/// The first that fits; those before it are dropped.
fn pop_until(queue: &mut VecDeque<Text>, fits: impl Fn(&Text) -> bool) -> Option<Text> {
    std::iter::from_fn(|| queue.pop_front()).find(fits)
}

fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
#[path = "tracker_tests.rs"]
mod tests;
