//! Answers held against the truth. Pure: a record of what was asked and seen goes in, verdicts come out, so that the
//! judge itself can be tested (`judge_tests.rs`) and cannot look away.
//!
//! Only what is certain counts: for an answer to be wrong its server must have been dead for longer than the bound,
//! from the first moment at which that was certain up to the moment of the question; for one to be missing it must have
//! served from before the bound until after the answer. What the machine was late by is added to the bound.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::bounds::{self, ROOM};
use crate::trouble::{Path, Trouble, Troubles, What};
use crate::truth::{Deed, Life, Moment, Span, Stretch, covering};

/// A server, by the address it is found under.
#[derive(Clone, Debug)]
pub struct Endpoint {
    pub host: usize,
    pub service: usize,
    pub label: String,
    pub life: Life,
}

/// What a question came back with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// These endpoints (by number).
    Found(BTreeSet<usize>),
    /// No answer, or not one that a client can use.
    Failed(String),
}

/// One question to the agent of a host.
#[derive(Clone, Debug)]
pub struct Answer {
    pub viewer: usize,
    pub service: usize,
    pub span: Span,
    pub said: Said,
}

/// All that was seen in one drill.
#[derive(Clone, Debug, Default)]
pub struct Record {
    pub endpoints: Vec<Endpoint>,
    pub answers: Vec<Answer>,
    pub troubles: Troubles,
    /// Since when nothing had changed when this began.
    pub settled: Moment,
    /// When the last fault was taken back.
    pub healed: Moment,
}

/// What is held against an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offence {
    /// An endpoint that had been dead for longer than its bound.
    Wrong,
    /// One that had served for longer than its bound, and was not named.
    Missing,
    /// The same for one that had been named before.
    Blink,
    /// A question that nobody answered well.
    Failed,
}

/// One offence, however many answers in a row it lasted for.
#[derive(Clone, Debug)]
pub struct Violation {
    pub offence: Offence,
    pub viewer: usize,
    pub service: usize,
    pub endpoint: Option<usize>,
    pub span: Span,
    pub why: String,
}

/// What came of a drill.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    pub asked: usize,
    /// How often an endpoint had to be in an answer, or out of it, for certain.
    pub decided: usize,
    pub violations: Vec<Violation>,
    /// From the last fault's end until every host had answered every name as the truth was.
    pub to_truth: Option<Duration>,
}

impl Verdict {
    /// How many of one kind.
    pub fn count(&self, offence: Offence) -> usize {
        self.violations.iter().filter(|violation| violation.offence == offence).count()
    }
}

/// Holds a record's answers against its truth.
pub fn judge(record: &Record) -> Verdict {
    let stretches: Vec<Vec<Stretch>> = record.endpoints.iter().map(|endpoint| record.stretches(endpoint)).collect();
    let mut verdict = Verdict { asked: record.answers.len(), ..Verdict::default() };
    verdict.violations.extend(record.answers.iter().filter_map(|answer| failure(record, answer)));
    for (number, endpoint) in record.endpoints.iter().enumerate() {
        for viewer in record.viewers() {
            let case = Case { troubles: &record.troubles, host: endpoint.host, viewer, stretches: &stretches[number] };
            case.judge(record, number, &mut verdict);
        }
    }
    verdict.violations.sort_by_key(|violation| violation.span.from);
    verdict.violations = in_a_row(verdict.violations);
    verdict.to_truth = to_truth(record, &stretches);
    verdict
}

/// The next answer to the same question comes well within this.
const NEXT: Duration = Duration::from_secs(1);

fn in_a_row(all: Vec<Violation>) -> Vec<Violation> {
    let mut found: Vec<Violation> = vec![];
    for one in all {
        let same = |other: &&mut Violation| {
            let what = |it: &Violation| (it.offence, it.viewer, it.service, it.endpoint);
            what(other) == what(&one) && one.span.from <= other.span.to + NEXT
        };
        match found.iter_mut().rev().find(same) {
            Some(other) => other.span.to = one.span.to,
            None => found.push(one),
        }
    }
    found
}

impl Record {
    /// What served when this began did so when all was settled, too, and was named then.
    fn stretches(&self, endpoint: &Endpoint) -> Vec<Stretch> {
        let mut stretches = endpoint.life.stretches();
        let began = endpoint.life.looks.first().map(|look| look.span.to);
        if let Some(first) = stretches.first_mut().filter(|first| first.serves && Some(first.from) == began) {
            first.from = first.from.min(self.settled);
            first.by = Some(Deed::Started);
        }
        stretches
    }

    fn viewers(&self) -> BTreeSet<usize> {
        self.answers.iter().map(|answer| answer.viewer).collect()
    }

    fn found(&self, viewer: usize, service: usize) -> impl Iterator<Item = (&Answer, &BTreeSet<usize>)> {
        let its = self.answers.iter().filter(move |answer| answer.viewer == viewer && answer.service == service);
        its.filter_map(|answer| match &answer.said {
            Said::Found(found) => Some((answer, found)),
            Said::Failed(_) => None,
        })
    }
}

fn failure(record: &Record, answer: &Answer) -> Option<Violation> {
    let Said::Failed(why) = &answer.said else { return None };
    let late = record.troubles.late(answer.span);
    let restarting = record
        .troubles
        .last_restart(answer.viewer, answer.span.to)
        .is_some_and(|away| answer.span.from <= away.span.to + bounds::OPEN.length + ROOM + late);
    // Silence of a machine that stalled as long as the question waited says nothing of the agent.
    if restarting || late > Duration::from_secs(1) {
        return None;
    }
    let (viewer, service) = (answer.viewer, answer.service);
    Some(Violation { offence: Offence::Failed, viewer, service, endpoint: None, span: answer.span, why: why.clone() })
}

/// One endpoint as one host's agent should see it.
struct Case<'a> {
    troubles: &'a Troubles,
    host: usize,
    viewer: usize,
    stretches: &'a [Stretch],
}

/// An endpoint was in every answer since, and the latest so.
#[derive(Clone, Copy)]
struct Named {
    since: Moment,
    last: Moment,
    /// Since when it served in that of its lives which it is known to be named for: news that could not travel may have
    /// kept it in the answers from one life to the next, and the end of the first is told late.
    life: Option<Moment>,
}

/// What an answer must not do any more, and since when.
#[derive(Clone, Copy, Debug)]
struct Charge {
    offence: Offence,
    what: &'static str,
    since: Moment,
    by: Option<Deed>,
    /// From when the bound counts: news may have been held up until then.
    clock: Moment,
    bound: Duration,
    late: Duration,
}

impl Charge {
    fn due(&self) -> Moment {
        self.clock + self.bound + ROOM + self.late
    }

    fn tell(&self, at: Span) -> String {
        let (due, by) = (self.due(), self.by.map(|deed| format!(" ({deed:?})")).unwrap_or_default());
        format!(
            "{} since {:.3?}{by}, news free since {:.3?}, bound {:?}, machine late by {:?}: due by {due:.3?}, over by {:.3?}",
            self.what,
            self.since,
            self.clock,
            self.bound,
            self.late,
            at.from.saturating_sub(due)
        )
    }
}

impl Case<'_> {
    fn judge(&self, record: &Record, number: usize, verdict: &mut Verdict) {
        let service = record.endpoints[number].service;
        let mut named: Option<Named> = None;
        for (nth, (answer, found)) in record.found(self.viewer, service).enumerate() {
            let (at, there) = (answer.span, found.contains(&number));
            let overdue = |charge: Option<Charge>| charge.filter(|charge| at.from > charge.due());
            let charges = (overdue(self.must_be_out(at)), overdue(self.must_be_in(at, named)));
            verdict.decided += usize::from(charges.0.is_some() || charges.1.is_some());
            let broken = if there { charges.0 } else { charges.1 };
            verdict.violations.extend(broken.map(|charge| Violation {
                offence: charge.offence,
                viewer: self.viewer,
                service,
                endpoint: Some(number),
                span: at,
                why: charge.tell(at),
            }));
            let first = if nth == 0 { record.settled } else { at.from };
            let since = named.map_or(first, |named| named.since);
            let life = self.life_named(at, since).or(named.and_then(|named| named.life));
            named = there.then_some(Named { since, last: at.from, life });
        }
    }

    /// Which life of its server an endpoint is certainly named for that has been in the answers since `since`: one in
    /// which it came into them, or one whose beginning was no news any more.
    fn life_named(&self, at: Span, since: Moment) -> Option<Moment> {
        let life = covering(self.stretches, at).filter(|stretch| stretch.serves)?.from;
        let told = match self.troubles.path(self.host, self.viewer, at) {
            Path::OpenSince(open) => at.from >= life.max(open) + bounds::RETURNED.length,
            Path::Blocked => false,
        };
        (since >= life || told).then_some(life)
    }

    /// From when on an answer that names the endpoint is wrong.
    fn must_be_out(&self, at: Span) -> Option<Charge> {
        let dead = covering(self.stretches, at).filter(|stretch| !stretch.serves);
        if let Some(lost) = self.lost(at, dead) {
            return self.must_be_gone_with_its_node(at, lost, dead);
        }
        let dead = dead?;
        let Path::OpenSince(open) = self.troubles.path(self.host, self.viewer, at) else { return None };
        let engine_told = !self.troubles.engine_in(self.host, Span { from: before(dead.from), to: at.to });
        let told = dead.by == Some(Deed::Ended) && engine_told;
        let bound = if told { bounds::ENDED.length } else { bounds::FROZEN.length };
        let clock = dead.from.max(open);
        Some(self.charge(Offence::Wrong, "dead", dead, clock, bound.max(returned(open, clock)), at))
    }

    /// A node that is gone takes its records with it; whether its servers still serve, others cannot know.
    fn lost(&self, at: Span, dead: Option<Stretch>) -> Option<Trouble> {
        let through = |trouble: &Trouble| trouble.sure <= at.from && trouble.span.to >= at.to;
        let lost = |trouble: &Trouble| match trouble.what {
            What::Cut(host) => host == self.host,
            What::Agent(host) => host == self.host && dead.is_some(),
            _ => false,
        };
        let mut all = self.troubles.list.iter().filter(|trouble| through(trouble) && lost(trouble));
        all.next().filter(|_| self.host != self.viewer).copied()
    }

    fn must_be_gone_with_its_node(&self, at: Span, lost: Trouble, dead: Option<Stretch>) -> Option<Charge> {
        let Path::OpenSince(open) = self.troubles.store_path(self.viewer, at) else { return None };
        let since = match lost.what {
            What::Cut(_) => lost.sure,
            _ => lost.sure.max(dead?.from),
        };
        let lease = Span { from: lost.span.from, to: since + bounds::LOST.length };
        let mut bound = bounds::LOST.length + self.troubles.lengthened(lease);
        let lately = Span { from: lost.span.from.saturating_sub(bounds::RETURN.length), to: at.to };
        if self.troubles.may_have_returned(self.viewer, lately) {
            bound += bounds::HELD.length;
        } else if self.troubles.another_away(self.host, lease) {
            bound += bounds::TOGETHER.length;
        }
        let late = self.troubles.late(Span { from: since, to: at.to });
        let (offence, clock) = (Offence::Wrong, since.max(open));
        Some(Charge { offence, what: "its node lost", since, by: None, clock, bound, late })
    }

    /// From when on an answer that does not name the endpoint is wrong.
    fn must_be_in(&self, at: Span, named: Option<Named>) -> Option<Charge> {
        let up = covering(self.stretches, at).filter(|stretch| stretch.serves)?;
        let Path::OpenSince(engine) = self.troubles.engine(self.host, at) else { return None };
        if self.may_have_vanished(at) || self.troubles.stalled_before(at) {
            return None;
        }
        let mut clock = up.from;
        let mut bound = if up.by == Some(Deed::Started) { bounds::STARTED } else { bounds::THAWED }.length;
        if engine > before(up.from) {
            (clock, bound) = (clock.max(engine), bound.max(bounds::RESYNCED.length));
        }
        // Named since it serves: from then on no trouble on the way may take it out of the answers again.
        if named.is_some_and(|named| named.life == Some(up.from) && !self.need_not_be_filed(at, named)) {
            return Some(self.charge(Offence::Blink, "serves, and was named,", up, clock, bound, at));
        }
        let Path::OpenSince(open) = self.troubles.path(self.host, self.viewer, at) else { return None };
        clock = clock.max(open);
        Some(self.charge(Offence::Missing, "serves", up, clock, bound.max(returned(open, clock)), at))
    }

    fn charge(
        &self,
        offence: Offence,
        what: &'static str,
        stretch: Stretch,
        clock: Moment,
        bound: Duration,
        at: Span,
    ) -> Charge {
        let meanwhile = Span { from: stretch.from, to: at.to };
        let overlaid =
            if self.troubles.store_in(self.host, meanwhile) { bounds::OVERLAID.length } else { Duration::ZERO };
        let late = self.troubles.late(meanwhile);
        Charge { offence, what, since: stretch.from, by: stretch.by, clock, bound: bound + overlaid, late }
    }

    /// Whether the node was away for long enough to lose its lease, and has not been back for longer than its bound.
    fn may_have_vanished(&self, at: Span) -> bool {
        self.troubles.away(self.host, self.viewer).iter().any(|away| {
            let late = self.troubles.late(Span { from: away.span.from, to: at.to });
            let within = bounds::OPEN.length + bounds::RETURNED.length + ROOM + late;
            let back = self.troubles.through(self.host, self.viewer, away.span.to, within);
            away.span.from + bounds::KEPT.length < at.to && away.span.from <= at.to && at.from <= back
        })
    }

    /// Whether this host's agent was started anew, with a file that may be older than the endpoint.
    fn need_not_be_filed(&self, at: Span, named: Named) -> bool {
        let Some(restart) = self.troubles.last_restart(self.viewer, at.to) else { return false };
        let written = self.troubles.disk_full_since(self.viewer, restart.span.from).unwrap_or(restart.span.from);
        named.last <= restart.span.to && named.since + bounds::FILED.length > written
    }
}

/// What is left at `clock` of the time that all news have which were held up until `open`.
fn returned(open: Moment, clock: Moment) -> Duration {
    if open == Duration::ZERO { open } else { (open + bounds::RETURNED.length).saturating_sub(clock) }
}

/// A little earlier: what was in trouble just before still has its effect.
fn before(moment: Moment) -> Moment {
    moment.saturating_sub(bounds::RESYNCED.length)
}

/// From the end of the faults to the moment at which every host had answered every name as it was.
fn to_truth(record: &Record, stretches: &[Vec<Stretch>]) -> Option<Duration> {
    let services: BTreeSet<usize> = record.endpoints.iter().map(|endpoint| endpoint.service).collect();
    let mut latest = record.healed;
    for viewer in record.viewers() {
        for service in &services {
            let mut after = record.found(viewer, *service).filter(|(answer, _)| answer.span.to >= record.healed);
            let (true_one, _) = after.find(|(answer, found)| {
                record.endpoints.iter().enumerate().filter(|(_, endpoint)| endpoint.service == *service).all(
                    |(n, _)| {
                        covering(&stretches[n], answer.span).is_none_or(|stretch| stretch.serves == found.contains(&n))
                    },
                )
            })?;
            latest = latest.max(true_one.span.to);
        }
    }
    Some(latest.saturating_sub(record.healed))
}
