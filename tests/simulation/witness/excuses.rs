//! Where the contract itself lets a record go although its instance serves, or stay although it does not.

use std::time::Duration;

use tokio::time::Instant;
use wharf::store::LeaseId;

use super::{Agent, Grant, Ledger, Out, Place, SPREADS, Shown, TTL};

/// Leases that end so close to each other may have been ended together, and in this time their owners publish again.
const TOGETHER: Duration = Duration::from_millis(500);
const PUBLISHED: Duration = Duration::from_millis(2_500);
/// For so long before and after its own lease was lost a host doubts the end of others'.
const LATELY: Duration = Duration::from_secs(1);

impl Ledger {
    /// Whether the contract lets a serving instance go from a host's answers.
    pub(super) fn granted(&self, host: usize, place: Place, was: Shown, now: Instant) -> Grant {
        let (agent, view) = (&self.agents[place.0], &self.agents[host]);
        let kept = agent.kept(was.lease);
        let soon = |at: Instant| now <= self.known_by(at, &[agent, view], now);
        // Section 8: "node lost: its records are gone from the store ≤ lease TTL + 1 s", and "agent killed: records
        // stay ≤ lease TTL". The last keepalive may be a third of the TTL old, or more where the store hung meanwhile;
        // then the record is held by whom has seen it away, which none has that began since. Over a slow link an agent
        // is not back before the store has heard of it.
        let dead = kept + TTL <= now;
        let lost = agent.outs.iter().chain(&agent.out).any(|out| {
            let back = out.until.filter(|until| !agent.slow || kept >= *until);
            let end = back.unwrap_or(now);
            let long = end - out.since >= TTL * 2 / 3 - Duration::from_secs(2);
            (long || view.started > kept) && dead && soon(end)
        });
        // The same where the store hung, or over a slow link, for who has begun since and knows of neither.
        let hung = self.hangs.iter().any(|hang| hang.until.is_none_or(|until| until >= kept));
        let unseen = view.started > kept && dead && (hung || agent.slow || soon(agent.told));
        // Section 3: "A key of ours that someone deletes or spoils comes back within a second", section 8: "A delete
        // under a living lease counts at once".
        let fact = &self.facts[&place];
        let tampered = fact.tampered.is_some_and(soon);
        // The same for this host's own records when several owners' were deleted in one revision: only "records of
        // *other* owners" are held.
        let purged = host == place.0 && self.purged.is_some_and(soon);
        // Section 3: "Only what serves is there". A moment ago it did not, and that word is still on its way.
        let again = soon(fact.changed);
        // Section 8: "held … until their owner publishes or one lease TTL is over".
        let held = |time: Duration| was.held.is_some_and(|since| now - since >= time - Duration::from_millis(10));
        // What went together with that of others is held for so long that an owner that lives has published it again.
        let together = was.held.is_some_and(|since| self.ended_together(place, was.lease, since));
        let over = held(TTL) || host != place.0 && together && held(PUBLISHED);
        // A lease that is ended under its owner looks to others like the end of a lost node. Its own host goes on
        // answering, and so does one whose lease was ended with it, as soon as it knows, or who sees several end. Over
        // a slow link its owner may take longer to publish again, and until then nobody owes it an answer.
        let slow_and_not_yet = |at: Instant| agent.slow && agent.published.is_none_or(|published| published < at);
        let not_again = |at: Instant| soon(at) || slow_and_not_yet(at);
        let robbed = agent.revoked.last().filter(|(at, _)| host != place.0 && not_again(*at));
        let ended = |agent: &&Agent| agent.revoked.last().is_some_and(|(at, all)| *all && soon(*at));
        let known = ended(&view) || self.agents.iter().filter(ended).count() > 1;
        let alike = known && !view.slow && view.out.is_none();
        if lost || unseen || tampered || purged || again || over {
            return Grant::Yes;
        }
        match robbed {
            None => Grant::No,
            Some((_, true)) if alike => Grant::Short,
            Some(_) => Grant::Yes,
        }
    }

    /// Whether the lease of what is held since then ended together with one of another host.
    fn ended_together(&self, place: Place, lease: LeaseId, since: Instant) -> bool {
        let close = |kept: Instant| kept + TTL <= since + TOGETHER;
        let near = |kept: &Instant| close(*kept) && *kept + TTL + TOGETHER >= since;
        let others = self.agents.iter().enumerate().filter(|(other, _)| *other != place.0);
        let revoked = |agent: &Agent| agent.revoked.iter().any(|(at, _)| *at <= since && *at + TOGETHER >= since);
        let ended = |agent: &Agent| agent.kept.values().any(near) || revoked(agent);
        close(self.agents[place.0].kept(lease)) && others.into_iter().any(|(_, other)| ended(other))
    }

    /// By when what was done at `at` has come to where it matters: time in which the store hung, or one of the hosts
    /// could not reach it, does not count.
    fn known_by(&self, at: Instant, hosts: &[&Agent], now: Instant) -> Instant {
        let mut outs: Vec<Out> = hosts.iter().filter_map(|agent| agent.out).chain(self.hangs.iter().copied()).collect();
        outs.sort_by_key(|out| out.since);
        let later = |by: Instant, out: &Out| {
            let until = out.until.unwrap_or(now);
            if out.since <= by && until + SPREADS > by { until + SPREADS } else { by }
        };
        outs.iter().fold(at + SPREADS, later)
    }

    /// Until when the contract lets an instance be answered that does not serve any more; `None` is for now.
    pub(super) fn lingers(&self, host: usize, place: Place, shown: Shown, now: Instant) -> Option<Instant> {
        let ended = self.facts.get(&place).map_or(self.start, |fact| fact.changed);
        let (agent, view) = (&self.agents[place.0], &self.agents[host]);
        let mut until = ended.max(agent.told) + SPREADS;
        if agent.slow || view.slow || !agent.running && host == place.0 {
            return None;
        }
        if let Some(out) = agent.out {
            // Section 8: "agent killed: records stay ≤ lease TTL", "node lost: … ≤ lease TTL + 1 s".
            let end = out.until.unwrap_or(now);
            until = until.max(end.min(agent.kept(shown.lease) + TTL + Duration::from_secs(1)) + SPREADS);
        }
        if host == place.0 {
            // Section 8: etcd is away after "a watch without progress for 5 s", when a change that it confirmed had not
            // come back yet.
            let away = self.known_by(ended, &[agent], now) + Duration::from_secs(5);
            return Some(if self.hangs.is_empty() && agent.out.is_none() { until } else { until.max(away) });
        }
        // Section 8: "etcd away: DNS answers go on from the last catalog".
        if self.hung || view.out.is_some_and(|out| out.until.is_none()) {
            return None;
        }
        // Section 8: "held: still answered, … until their owner publishes or one lease TTL is over", after a return "in
        // the first relist, together with their lease within 10 s of it, or several owners' in one revision"; but "a
        // delete under a living lease counts at once".
        let known = [self.returned, self.purged, view.out.and_then(|out| out.until), view.back];
        let known = || known.into_iter().flatten();
        if let Some(since) = shown.held {
            let soon = |at: Instant| since <= at + Duration::from_secs(10) + SPREADS;
            // "The lease is lost": what went in the moment before or after may have gone the same way.
            let alike = |(at, _): (Instant, bool)| since + LATELY >= at && since <= at + LATELY + SPREADS;
            let robbed = view.revoked.iter().copied().any(alike);
            // Whoever was out then returns, and reads its first list, when it is back.
            let soon_for_it = |at| since <= self.known_by(at, &[view], now) + Duration::from_secs(10);
            let lost = [self.replaced, self.purged].into_iter().flatten().any(soon_for_it);
            let dead = agent.kept(shown.lease) + TTL <= now;
            let held = if lost || dead && (robbed || known().any(soon)) {
                since + TTL + SPREADS
            } else if self.ended_together(place, shown.lease, since) {
                since + PUBLISHED + SPREADS
            } else {
                // It has to ask whether the lease lives.
                self.known_by(since, &[view], now)
            };
            return Some(until.max(held));
        }
        until = known().map(|at| at + SPREADS).fold(until, Instant::max);
        // A restored lease has its time anew.
        let anew = self.returned.map(|returned| returned + TTL + SPREADS);
        Some(anew.map_or(until, |anew| until.max(anew)))
    }
}

impl Agent {
    /// When the store last took a keepalive of a lease of this agent; of its newest, where that is not one of its own.
    pub(super) fn kept(&self, lease: LeaseId) -> Instant {
        let newest = || self.kept.last_key_value().map(|(_, kept)| *kept);
        self.kept.get(&lease).copied().or_else(newest).unwrap_or(self.told)
    }
}
