//! When to ask: pure timing, with the clock and the dice passed in.
//!
//! An instance that has never served is asked in a burst that thins out; all such probes of the host share one budget,
//! the youngest instance first, so a crowd that never comes up cannot delay a newcomer. Everything else is asked at
//! its interval, spread out. Both kinds have a bound of their own on what is in flight at a time. Of both a container
//! has its share ([`Shares`]), so that one with hundreds of silent ports delays nobody but itself.
//!
//! What a probe costs is mostly waking up for it, so steady probes keep to a common beat: those that are due within the
//! same few milliseconds set out together, and their answers come in together.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

use super::shares::{Had, Shares};

/// What tells one instance from another here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    /// Its container.
    pub(super) of: u64,
    pub(super) number: u64,
}

/// The two kinds of probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// Of an instance that has never served and was born then.
    First {
        /// When it appeared.
        born: Instant,
    },
    /// Of all others.
    Steady,
}

/// Probes of one class that may be under way at a time: below the usual limit of open files even together.
const MOST_IN_FLIGHT: usize = 400;

/// Of those, what only newcomers get: where hundreds never answer, a newcomer does not wait for one of them to end.
const KEPT_FOR_NEWCOMERS: usize = 100;

/// As long as that an instance is a newcomer.
const NEW: Duration = Duration::from_secs(2);

/// When a steady probe is looked at again whose container has to make room.
const MAKES_ROOM: Duration = Duration::from_millis(50);

/// Steady probes set out on multiples of this since the schedule's beginning.
const BEAT: Duration = Duration::from_millis(20);

/// Intervals from here on are long enough to be kept to a beat.
const UNHURRIED: Duration = Duration::from_secs(1);

/// The time from one probe's start to the next, for an instance of that age (in its first readiness) or any other.
/// `dice` is from 0 to 1.
pub(super) fn gap(first_readiness: Option<Duration>, interval: Duration, dice: f64) -> Duration {
    let often = match first_readiness {
        Some(age) if age < NEW => Duration::from_millis(25),
        Some(age) if age < Duration::from_secs(30) => Duration::from_millis(100),
        // 10 % to either side, less what keeping to the beat takes.
        _ => return interval.mul_f64(0.91 + 0.18 * dice),
    };
    often.min(interval)
}

/// The time from the probe that found an instance ready to the next: anywhere within the interval, so that what
/// started together is not asked together for ever.
pub(super) fn spread(interval: Duration, dice: f64) -> Duration {
    interval.mul_f64(0.1 + 0.9 * dice)
}

/// The beat nearest to `at`, counted from `origin`.
fn on_beat(at: Instant, origin: Instant) -> Instant {
    let passed = at.saturating_duration_since(origin) + BEAT / 2;
    // The beats themselves would outgrow 32 bits within 994 days.
    let beyond = passed.as_nanos() % BEAT.as_nanos();
    origin + passed - Duration::from_nanos(u64::try_from(beyond).unwrap_or(0))
}

/// At most 1,000 in any second, and never a long wait for the next one.
#[derive(Debug)]
struct Budget {
    tokens: f64,
    at: Option<Instant>,
}

impl Budget {
    const RATE: f64 = 900.0;
    const BURST: f64 = 100.0;

    fn refill(&mut self, now: Instant) {
        let passed = self.at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        self.tokens = (self.tokens + passed.as_secs_f64() * Self::RATE).min(Self::BURST);
        self.at = Some(now);
    }

    fn take(&mut self, now: Instant) -> bool {
        self.refill(now);
        let there = self.tokens >= 1.0;
        if there {
            self.tokens -= 1.0;
        }
        there
    }

    fn next(&self, now: Instant) -> Instant {
        let missing = (1.0 - self.tokens).max(0.0);
        now + Duration::from_secs_f64(missing / Self::RATE)
    }
}

/// Where an instance is waiting.
#[derive(Clone, Copy, Debug)]
enum Place {
    Steady(Instant),
    First { at: Instant, born: Instant },
    Due { born: Instant },
}

/// All probes that are to come.
#[derive(Debug)]
pub(super) struct Schedule {
    origin: Instant,
    places: HashMap<Id, Place>,
    steady: BTreeSet<(Instant, Id)>,
    first: BTreeSet<(Instant, Id)>,
    /// First-readiness probes whose time has come, of each container the youngest first.
    due: HashMap<u64, BTreeSet<(Reverse<Instant>, Id)>>,
    /// The youngest of each container, youngest first.
    youngest: BTreeSet<(Reverse<Instant>, Id)>,
    shares: Shares,
    budget: Budget,
    first_in_flight: usize,
    steady_in_flight: usize,
}

impl Schedule {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            origin: now,
            places: HashMap::new(),
            steady: BTreeSet::new(),
            first: BTreeSet::new(),
            due: HashMap::new(),
            youngest: BTreeSet::new(),
            shares: Shares::default(),
            budget: Budget { tokens: Budget::BURST, at: None },
            first_in_flight: 0,
            steady_in_flight: 0,
        }
    }

    /// Asks `id` at `at`, instead of whenever it was to be asked before.
    pub(super) fn plan(&mut self, id: Id, at: Instant, class: Class) {
        self.cancel(id);
        let place = match class {
            Class::Steady => {
                self.steady.insert((at, id));
                Place::Steady(at)
            }
            Class::First { born } => {
                self.first.insert((at, id));
                Place::First { at, born }
            }
        };
        self.places.insert(id, place);
    }

    /// Asks `id` at about `at`, together with others whose intervals are as unhurried.
    pub(super) fn plan_steady(&mut self, id: Id, at: Instant, interval: Duration) {
        let at = if interval < UNHURRIED { at } else { on_beat(at, self.origin) };
        self.plan(id, at, Class::Steady);
    }

    /// Does not ask `id`.
    pub(super) fn cancel(&mut self, id: Id) {
        match self.places.remove(&id) {
            Some(Place::Steady(at)) => self.steady.remove(&(at, id)),
            Some(Place::First { at, .. }) => self.first.remove(&(at, id)),
            Some(Place::Due { born }) => self.change_due(id.of, |due| due.remove(&(Reverse(born), id))),
            None => false,
        };
    }

    /// Changes what is due of one container.
    fn change_due(&mut self, of: u64, change: impl FnOnce(&mut BTreeSet<(Reverse<Instant>, Id)>) -> bool) -> bool {
        let due = self.due.entry(of).or_default();
        if let Some(youngest) = due.first() {
            self.youngest.remove(youngest);
        }
        let changed = change(due);
        match due.first() {
            Some(youngest) => _ = self.youngest.insert(*youngest),
            None => _ = self.due.remove(&of),
        }
        changed
    }

    /// What is to be asked now; it is in flight until [`Self::landed`].
    pub(super) fn next(&mut self, now: Instant) -> Option<(Id, Class)> {
        self.collect_due(now);
        if let Some(id) = self.next_steady(now) {
            self.steady_in_flight += 1;
            return Some(self.set_out(id, Class::Steady, now));
        }
        let (born, id) = self.next_first(now)?;
        if !self.budget.take(now) {
            return None;
        }
        self.first_in_flight += 1;
        Some(self.set_out(id, Class::First { born }, now))
    }

    fn set_out(&mut self, id: Id, class: Class, now: Instant) -> (Id, Class) {
        self.cancel(id);
        self.shares.set_out(id.of, class, now);
        (id, class)
    }

    fn next_steady(&mut self, now: Instant) -> Option<Id> {
        loop {
            let free = MOST_IN_FLIGHT - self.steady_in_flight;
            let &(_, id) = self.steady.first().filter(|(at, _)| *at <= now && free > 0)?;
            if self.shares.has_room(id.of, Class::Steady, free) {
                return Some(id);
            }
            self.plan(id, now + MAKES_ROOM, Class::Steady);
        }
    }

    /// The youngest, of those whose container has had least.
    fn next_first(&self, now: Instant) -> Option<(Instant, Id)> {
        let mut best: Option<(Had, Instant, Id)> = None;
        for &(Reverse(born), id) in &self.youngest {
            let free = self.free(born, now);
            if free == 0 {
                break; // All others are older still.
            }
            if self.shares.has_room(id.of, Class::First { born }, free) {
                let had = self.shares.had(id.of, now, Budget::RATE, self.youngest.len());
                best = best.filter(|best| best.0 <= had).or(Some((had, born, id)));
                if had == Had::Little {
                    break;
                }
            }
        }
        best.map(|(_, born, id)| (born, id))
    }

    /// A probe of this class is over.
    pub(super) fn landed(&mut self, id: Id, class: Class) {
        let in_flight = match class {
            Class::First { .. } => &mut self.first_in_flight,
            Class::Steady => &mut self.steady_in_flight,
        };
        *in_flight = in_flight.saturating_sub(1);
        self.shares.landed(id.of, class);
    }

    /// When to look again, if nothing lands or changes before.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        let steady = self.steady.first().filter(|_| self.steady_in_flight < MOST_IN_FLIGHT).map(|(at, _)| *at);
        let first = self.first.first().map(|(at, _)| *at);
        let budget = self.next_first(now).map(|_| self.budget.next(now));
        [steady, first, budget].into_iter().flatten().min()
    }

    /// How many more first-readiness probes may be in flight for an instance born then.
    fn free(&self, born: Instant, now: Instant) -> usize {
        let kept = if now.saturating_duration_since(born) < NEW { 0 } else { KEPT_FOR_NEWCOMERS };
        MOST_IN_FLIGHT.saturating_sub(self.first_in_flight + kept)
    }

    fn collect_due(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.first.first() {
            if at > now {
                break;
            }
            self.first.pop_first();
            let Some(Place::First { born, .. }) = self.places.get(&id).copied() else { continue };
            self.places.insert(id, Place::Due { born });
            self.change_due(id.of, |due| due.insert((Reverse(born), id)));
        }
        self.shares.forget(now, self.places.len());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const INTERVAL: Duration = Duration::from_secs(2);

    #[test]
    fn the_burst_thins_out() {
        for (age, expected) in [(0, 25), (1_999, 25), (2_000, 100), (29_999, 100), (30_000, 2_000)] {
            assert_eq!(gap(Some(age * MS), INTERVAL, 0.5), expected * MS, "at {age} ms");
        }
        assert_eq!(gap(None, INTERVAL, 0.0), 1_820 * MS);
        assert_eq!(gap(None, INTERVAL, 1.0), 2_180 * MS);
        assert_eq!(gap(Some(3_000 * MS), 100 * MS, 0.5), 100 * MS);
    }

    #[test]
    fn the_beat_goes_on_for_years() {
        let (start, years) = (Instant::now(), Duration::from_secs(3 * 365 * 86_400));
        for (off, expected) in [(0, 0), (9, 0), (10, 20), (29, 20)] {
            assert_eq!(on_beat(start + years + off * MS, start), start + years + expected * MS, "{off}");
        }
    }

    /// An instance of a container of its own.
    fn alone(number: u64) -> Id {
        Id { of: number, number }
    }

    /// Plays `count` instances that never come up, for `length`; yields when which of them was asked.
    fn crowd(
        count: u64,
        length: Duration,
        newcomer: Option<(Id, Duration)>,
        named: fn(u64) -> Id,
    ) -> Vec<(Duration, Id)> {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let mut born: HashMap<Id, Instant> = (0..count).map(|id| (named(id), start)).collect();
        for id in (0..count).map(named) {
            schedule.plan(id, start, Class::First { born: start });
        }
        let (mut asked, mut now, mut newcomer) = (Vec::new(), start, newcomer);
        while now < start + length {
            if let Some((id, at)) = newcomer
                && now >= start + at
            {
                born.insert(id, now);
                schedule.plan(id, now, Class::First { born: now });
                newcomer = None;
            }
            while let Some((id, class)) = schedule.next(now) {
                schedule.landed(id, class);
                asked.push((now - start, id));
                schedule.plan(id, now + gap(Some(now - born[&id]), INTERVAL, 0.5), Class::First { born: born[&id] });
            }
            now += MS;
        }
        asked
    }

    #[test]
    fn a_crowd_is_asked_at_most_a_thousand_times_a_second() {
        for named in [alone, of_one] {
            let asked = crowd(500, Duration::from_secs(5), None, named);
            is_within_budget(&asked);
            assert!(asked.len() > 4_000, "the budget is used: {}", asked.len());
        }
    }

    fn is_within_budget(asked: &[(Duration, Id)]) {
        for (index, (from, _)) in asked.iter().enumerate() {
            let within = asked[index..].iter().take_while(|(at, _)| *at < *from + Duration::from_secs(1)).count();
            assert!(within <= 1_000, "{within} in the second from {from:?}");
        }
    }

    /// An instance of the one container that has them all.
    fn of_one(number: u64) -> Id {
        Id { of: 0, number }
    }

    #[test]
    fn a_container_of_hundreds_of_silent_ports_delays_nobody_else() {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        // Born before the other's ports, so all of them are younger; and they never answer in time.
        schedule.plan(alone(1), start, Class::First { born: start });
        let young = start + MS;
        (0..450).for_each(|number| schedule.plan(of_one(number), young, Class::First { born: young }));
        let (mut under_way, mut asked, mut now) = (Vec::new(), Vec::new(), young);
        while now < start + Duration::from_secs(2) {
            under_way.retain(|&(id, class, until)| {
                if until > now {
                    return true;
                }
                schedule.landed(id, class);
                schedule.plan(id, now, Class::First { born: young });
                false
            });
            while let Some((id, class)) = schedule.next(now) {
                if id == alone(1) {
                    asked.push(now - start);
                    schedule.landed(id, class);
                    schedule.plan(id, now + 25 * MS, Class::First { born: start });
                } else {
                    under_way.push((id, class, now + 500 * MS));
                }
            }
            now += MS;
        }
        assert!(asked[0] <= 5 * MS, "{:?}", asked[0]);
        assert!(asked.windows(2).all(|two| two[1] - two[0] <= 50 * MS), "{asked:?}");
        assert!(under_way.len() >= 150, "and it has what is left: {}", under_way.len());
    }

    #[test]
    fn a_container_whose_steady_probes_hang_leaves_room_for_others() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        (0..1_024).for_each(|number| schedule.plan(of_one(number), now, Class::Steady));
        while schedule.next(now).is_some() {}
        schedule.plan(alone(7), now, Class::Steady);
        assert_eq!(schedule.next(now), Some((alone(7), Class::Steady)));
        assert_eq!(schedule.next(now), None);
        assert_eq!(schedule.wake(now), Some(now + MAKES_ROOM));
    }

    #[test]
    fn a_newcomer_is_asked_before_a_crowd_that_never_comes_up() {
        let asked = crowd(2_000, Duration::from_secs(3), Some((alone(9_999), Duration::from_millis(1_500))), alone);
        let times: Vec<_> = asked.iter().filter(|(_, id)| *id == alone(9_999)).map(|(at, _)| *at).collect();
        assert!(times[0] <= 1_503 * MS, "first asked at {:?}", times[0]);
        assert!(times.len() >= 50, "and then every 25 ms: {}", times.len());
    }

    #[test]
    fn what_hangs_does_not_hold_up_the_rest() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        for id in (0..2_000).map(alone) {
            schedule.plan(id, now, Class::First { born: now });
        }
        for second in 0..10 {
            while schedule.next(now + Duration::from_secs(second)).is_some() {}
        }
        schedule.plan(alone(5_000), now, Class::Steady);
        assert_eq!(schedule.next(now), Some((alone(5_000), Class::Steady)));
        assert_eq!(schedule.next(now + INTERVAL), None, "the first ones are all in flight");
    }

    /// 500 instances, each asked again as it lands, for a minute: how often one has to wake up, and the gaps of each.
    fn minute_of_500(interval: Duration) -> (usize, Vec<Duration>) {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let mut last = HashMap::new();
        let dice = |id: Id, round: usize| ((id.number * 7_919 + round as u64 * 104_729) % 1_000) as f64 / 1_000.0;
        for id in (0..500).map(alone) {
            schedule.plan_steady(id, start + spread(interval, dice(id, 0)), interval);
        }
        let (mut wakes, mut gaps) = (0, Vec::new());
        while let Some(now) = schedule.wake(start).filter(|at| *at < start + 30 * interval) {
            wakes += 1;
            while let Some((id, class)) = schedule.next(now) {
                schedule.landed(id, class);
                gaps.extend(last.insert(id, now).map(|before| now - before));
                schedule.plan_steady(id, now + gap(None, interval, dice(id, wakes)), interval);
            }
        }
        (wakes, gaps)
    }

    #[test]
    fn what_is_due_together_is_asked_at_one_waking_and_still_on_time() {
        let (wakes, gaps) = minute_of_500(INTERVAL);
        assert!(wakes <= 60 * 50, "{wakes} wakings a minute for {} probes", gaps.len());
        assert!(gaps.len() > 13_000, "{}", gaps.len());
        for interval in [INTERVAL, UNHURRIED, Duration::from_millis(100)] {
            for gap in minute_of_500(interval).1 {
                assert!(gap >= interval.mul_f64(0.9) && gap <= interval.mul_f64(1.1), "{gap:?} at {interval:?}");
            }
        }
    }

    #[test]
    fn planning_again_replaces() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        schedule.plan(alone(1), now, Class::First { born: now });
        schedule.plan(alone(1), now + INTERVAL, Class::Steady);
        assert_eq!(schedule.next(now), None);
        assert_eq!(schedule.wake(now), Some(now + INTERVAL));
        schedule.cancel(alone(1));
        assert_eq!(schedule.wake(now), None);
    }

    proptest! {
        #[test]
        fn gaps_stay_near_the_interval(interval in 100u64..3_600_000, dice in 0.0f64..1.0) {
            let interval = Duration::from_millis(interval);
            let steady = gap(None, interval, dice);
            prop_assert!(steady >= interval.mul_f64(0.899) && steady <= interval.mul_f64(1.101));
            prop_assert!(spread(interval, dice) <= interval.mul_f64(1.001));
        }
    }
}
