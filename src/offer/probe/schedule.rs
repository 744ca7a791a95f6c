//! When to ask: pure timing, with the clock and the dice passed in.
//!
//! An instance that has never served is asked in a burst that thins out; all such probes of the host share one budget,
//! the youngest instance first, so a crowd that never comes up cannot delay a newcomer. Everything else is asked at
//! its interval, spread out. Both kinds have a bound of their own on what is in flight at a time.
//!
//! What a probe costs is mostly waking up for it, so steady probes keep to a common beat: those that are due within the
//! same few milliseconds set out together, and their answers come in together.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// What tells one instance from another here.
pub(super) type Id = u64;

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
    /// First-readiness probes whose time has come, youngest first.
    due: BTreeSet<(Reverse<Instant>, Id)>,
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
            due: BTreeSet::new(),
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
            Some(Place::Due { born }) => self.due.remove(&(Reverse(born), id)),
            None => false,
        };
    }

    /// What is to be asked now; it is in flight until [`Self::landed`].
    pub(super) fn next(&mut self, now: Instant) -> Option<(Id, Class)> {
        self.collect_due(now);
        if self.steady_in_flight < MOST_IN_FLIGHT
            && let Some(&(at, id)) = self.steady.first()
            && at <= now
        {
            self.cancel(id);
            self.steady_in_flight += 1;
            return Some((id, Class::Steady));
        }
        if let Some(&(Reverse(born), id)) = self.due.first()
            && self.has_room(born, now)
            && self.budget.take(now)
        {
            self.cancel(id);
            self.first_in_flight += 1;
            return Some((id, Class::First { born }));
        }
        None
    }

    /// A probe of this class is over.
    pub(super) fn landed(&mut self, class: Class) {
        let in_flight = match class {
            Class::First { .. } => &mut self.first_in_flight,
            Class::Steady => &mut self.steady_in_flight,
        };
        *in_flight = in_flight.saturating_sub(1);
    }

    /// When to look again, if nothing lands or changes before.
    pub(super) fn wake(&self, now: Instant) -> Option<Instant> {
        let steady = self.steady.first().filter(|_| self.steady_in_flight < MOST_IN_FLIGHT).map(|(at, _)| *at);
        let first = self.first.first().map(|(at, _)| *at);
        let due = self.due.first().is_some_and(|(Reverse(born), _)| self.has_room(*born, now));
        let budget = due.then(|| self.budget.next(now));
        [steady, first, budget].into_iter().flatten().min()
    }

    fn has_room(&self, born: Instant, now: Instant) -> bool {
        let kept = if now.saturating_duration_since(born) < NEW { 0 } else { KEPT_FOR_NEWCOMERS };
        self.first_in_flight + kept < MOST_IN_FLIGHT
    }

    fn collect_due(&mut self, now: Instant) {
        while let Some(&(at, id)) = self.first.first() {
            if at > now {
                break;
            }
            self.first.pop_first();
            let Some(Place::First { born, .. }) = self.places.get(&id).copied() else { continue };
            self.places.insert(id, Place::Due { born });
            self.due.insert((Reverse(born), id));
        }
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

    /// Plays `count` instances that never come up, for `length`; yields when which of them was asked.
    fn crowd(count: u64, length: Duration, newcomer: Option<(Id, Duration)>) -> Vec<(Duration, Id)> {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let mut born: HashMap<Id, Instant> = (0..count).map(|id| (id, start)).collect();
        for id in 0..count {
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
                schedule.landed(class);
                asked.push((now - start, id));
                schedule.plan(id, now + gap(Some(now - born[&id]), INTERVAL, 0.5), Class::First { born: born[&id] });
            }
            now += MS;
        }
        asked
    }

    #[test]
    fn a_crowd_is_asked_at_most_a_thousand_times_a_second() {
        let asked = crowd(500, Duration::from_secs(5), None);
        for (index, (from, _)) in asked.iter().enumerate() {
            let within = asked[index..].iter().take_while(|(at, _)| *at < *from + Duration::from_secs(1)).count();
            assert!(within <= 1_000, "{within} in the second from {from:?}");
        }
        assert!(asked.len() > 4_000, "the budget is used: {}", asked.len());
    }

    #[test]
    fn a_newcomer_is_asked_before_a_crowd_that_never_comes_up() {
        let asked = crowd(2_000, Duration::from_secs(3), Some((9_999, Duration::from_millis(1_500))));
        let times: Vec<_> = asked.iter().filter(|(_, id)| *id == 9_999).map(|(at, _)| *at).collect();
        assert!(times[0] <= 1_503 * MS, "first asked at {:?}", times[0]);
        assert!(times.len() >= 50, "and then every 25 ms: {}", times.len());
    }

    #[test]
    fn what_hangs_does_not_hold_up_the_rest() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        for id in 0..2_000 {
            schedule.plan(id, now, Class::First { born: now });
        }
        for second in 0..10 {
            while schedule.next(now + Duration::from_secs(second)).is_some() {}
        }
        schedule.plan(5_000, now, Class::Steady);
        assert_eq!(schedule.next(now), Some((5_000, Class::Steady)));
        assert_eq!(schedule.next(now + INTERVAL), None, "the first ones are all in flight");
    }

    /// 500 instances, each asked again as it lands, for a minute: how often one has to wake up, and the gaps of each.
    fn minute_of_500(interval: Duration) -> (usize, Vec<Duration>) {
        let start = Instant::now();
        let mut schedule = Schedule::new(start);
        let mut last = HashMap::new();
        let dice = |id: Id, round: usize| ((id * 7_919 + round as u64 * 104_729) % 1_000) as f64 / 1_000.0;
        for id in 0..500 {
            schedule.plan_steady(id, start + spread(interval, dice(id, 0)), interval);
        }
        let (mut wakes, mut gaps) = (0, Vec::new());
        while let Some(now) = schedule.wake(start).filter(|at| *at < start + 30 * interval) {
            wakes += 1;
            while let Some((id, class)) = schedule.next(now) {
                schedule.landed(class);
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
        schedule.plan(1, now, Class::First { born: now });
        schedule.plan(1, now + INTERVAL, Class::Steady);
        assert_eq!(schedule.next(now), None);
        assert_eq!(schedule.wake(now), Some(now + INTERVAL));
        schedule.cancel(1);
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
