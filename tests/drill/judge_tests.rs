//! The judge can fail: timelines in a few words, each with the verdict that it must come to. Two hosts, one server on
//! host 0; times in milliseconds.

use std::time::Duration;

use crate::judge::{Answer, Endpoint, Offence, Record, Said, Verdict, judge};
use crate::soak::{Sample, flat};
use crate::trouble::{Pace, Trouble, Troubles, What};
use crate::truth::{Act, Deed, Life, Look, Seen, Span, covering};

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn span(from: u64, to: u64) -> Span {
    Span { from: ms(from), to: ms(to) }
}

/// What one look at a moment says.
type LookAt = fn(u64) -> Seen;

/// A story: what the server was, what was named, and what was done or broken.
struct Story {
    length: u64,
    server: LookAt,
    acts: Vec<Act>,
    viewer: usize,
    named: fn(u64) -> bool,
    failed: fn(u64) -> bool,
    troubles: Vec<Trouble>,
    late: Duration,
}

impl Default for Story {
    fn default() -> Self {
        Self {
            length: 30_000,
            server: |_| Seen::Serves,
            acts: vec![],
            viewer: 1,
            named: |_| true,
            failed: |_| false,
            troubles: vec![],
            late: Duration::ZERO,
        }
    }
}

impl Story {
    fn verdict(self) -> Verdict {
        let every = |step: u64| (0..self.length / step).map(move |n| n * step);
        let looks = every(100).map(|at| Look { span: span(at, at + 5), seen: (self.server)(at) }).collect();
        let answers = every(50).map(|at| Answer {
            viewer: self.viewer,
            service: 0,
            span: span(at, at + 2),
            said: match ((self.failed)(at), (self.named)(at)) {
                (true, _) => Said::Failed("TimedOut".into()),
                (_, named) => Said::Found(named.then_some(0).into_iter().collect()),
            },
        });
        let pace = every(200).map(|at| Pace { span: span(at, at + 30), late: self.late }).collect();
        judge(&Record {
            answers: answers.collect(),
            endpoints: vec![Endpoint {
                host: 0,
                service: 0,
                label: "it".into(),
                life: Life { looks, acts: self.acts },
            }],
            troubles: Troubles { list: self.troubles, pace },
            settled: Duration::ZERO,
            healed: ms(self.length / 2),
        })
    }

    #[track_caller]
    fn is(self, expected: &[Offence]) {
        let verdict = self.verdict();
        let mut found: Vec<Offence> = verdict.violations.iter().map(|violation| violation.offence).collect();
        found.sort();
        found.dedup();
        assert_eq!(found, expected, "{:#?}", verdict.violations.first());
    }
}

fn act(deed: Deed, from: u64, to: u64) -> Act {
    Act { deed, span: span(from, to) }
}

fn trouble(what: What, from: u64, to: u64) -> Trouble {
    Trouble { what, span: span(from, to), sure: ms(from + 50) }
}

/// Killed at 10 s by something that Docker tells of.
fn killed() -> Story {
    let server: LookAt = |at| if at < 10_000 { Seen::Serves } else { Seen::Dead };
    Story { server, acts: vec![act(Deed::Ended, 9900, 10_050)], ..Story::default() }
}

#[test]
fn a_true_answer_is_no_offence_and_was_decided() {
    let verdict = Story::default().verdict();
    assert!(verdict.violations.is_empty());
    assert!(verdict.decided > 400, "{} of {} answers were decided", verdict.decided, verdict.asked);
    assert!(verdict.to_truth.unwrap() < ms(100), "{:?}", verdict.to_truth);
}

#[test]
fn a_dead_endpoint_may_be_named_for_its_bound_only() {
    Story { named: |at| at < 10_900, ..killed() }.is(&[]);
    Story { named: |at| at < 12_500, ..killed() }.is(&[Offence::Wrong]);
    let verdict = Story { named: |_| true, ..killed() }.verdict();
    assert_eq!(verdict.count(Offence::Wrong), 1, "one offence, however long");
    assert!(verdict.violations[0].span.to > ms(29_000));
}

#[test]
fn a_frozen_one_has_the_time_that_probes_take() {
    let frozen = || Story { acts: vec![act(Deed::Froze, 9990, 10_000)], ..killed() };
    Story { named: |at| at < 17_000, ..frozen() }.is(&[]);
    Story { named: |at| at < 20_000, ..frozen() }.is(&[Offence::Wrong]);
}

#[test]
fn one_that_serves_has_to_be_named_after_its_bound() {
    let server: LookAt = |at| if at < 10_000 { Seen::Dead } else { Seen::Serves };
    let started = || Story { server, acts: vec![act(Deed::Started, 9800, 10_050)], ..Story::default() };
    Story { named: |at| at >= 10_900, ..started() }.is(&[]);
    Story { named: |at| at >= 12_000, ..started() }.is(&[Offence::Missing]);
    Story { named: |_| false, ..started() }.is(&[Offence::Missing]);
}

#[test]
fn one_that_was_named_and_serves_must_not_vanish() {
    Story { named: |at| at != 15_000, ..Story::default() }.is(&[Offence::Blink]);
    // Not even while the store is away, or when it returns.
    let troubles = vec![trouble(What::Store, 12_000, 14_000)];
    Story { named: |at| at != 13_000, troubles: troubles.clone(), ..Story::default() }.is(&[Offence::Blink]);
    Story { named: |at| at != 14_500, troubles, ..Story::default() }.is(&[Offence::Blink]);
    // A new name for its container is no reason either.
    let acts = vec![act(Deed::Renamed, 14_900, 15_100)];
    Story { named: |at| at != 15_000, acts, ..Story::default() }.is(&[Offence::Blink]);
}

#[test]
fn the_end_of_an_earlier_life_may_be_told_late() {
    // It died and came back while the store was away: its host, when it can again, first takes the old record out.
    let server: LookAt = |at| if (10_000..10_800).contains(&at) { Seen::Dead } else { Seen::Serves };
    let acts = || vec![act(Deed::Ended, 9900, 10_050), act(Deed::Started, 10_700, 10_850)];
    let reborn =
        |from, to| Story { server, acts: acts(), troubles: vec![trouble(What::Store, from, to)], ..Story::default() };
    Story { named: |at| !(19_200..20_500).contains(&at), ..reborn(9000, 19_000) }.is(&[]);
    Story { named: |at| !(19_200..24_000).contains(&at), ..reborn(9000, 19_000) }.is(&[Offence::Missing]);
    // Not when it had long been told that it serves again, nor when it had come into the answers since.
    Story { named: |at| at != 19_200, ..reborn(16_000, 19_000) }.is(&[Offence::Blink]);
    let back = |at| !(10_500..11_500).contains(&at) && at != 19_200;
    Story { named: back, ..reborn(13_000, 19_000) }.is(&[Offence::Blink]);
}

#[test]
fn while_a_server_is_being_stopped_both_answers_are_right() {
    let acts = || vec![act(Deed::Ended, 14_000, 16_000)];
    let server: LookAt = |at| if at < 15_500 { Seen::Serves } else { Seen::Dead };
    Story { named: |at| at < 14_050, server, acts: acts(), ..Story::default() }.is(&[]);
    Story { named: |at| at < 16_500, server, acts: acts(), ..Story::default() }.is(&[]);
}

#[test]
fn a_lost_node_is_forgotten_after_its_lease_and_named_again_on_return() {
    let cut = || Story { troubles: vec![trouble(What::Cut(0), 8000, 18_000)], ..Story::default() };
    Story { named: |at| !(14_000..=20_500).contains(&at), ..cut() }.is(&[]);
    Story { named: |_| true, ..cut() }.is(&[Offence::Wrong]);
    Story { named: |at| !(9000..=20_000).contains(&at), ..cut() }.is(&[Offence::Blink]); // its lease cannot be over
    Story { named: |at| !(14_000..=25_000).contains(&at), ..cut() }.is(&[Offence::Missing]);
    // It can be no sooner than the store is there for it, when that goes away in its return.
    let again = |from, to| Story {
        troubles: vec![trouble(What::Cut(0), 8000, 18_000), trouble(What::Store, from, to)],
        ..Story::default()
    };
    Story { named: |at| !(14_000..=24_500).contains(&at), ..again(18_500, 22_000) }.is(&[]);
    Story { named: |at| !(14_000..=27_500).contains(&at), ..again(18_500, 22_000) }.is(&[Offence::Missing]);
    Story { named: |at| !(14_000..=20_000).contains(&at) && at != 25_000, ..again(24_000, 26_000) }
        .is(&[Offence::Blink]);
    // A new leader of etcd gives every lease its time anew.
    let led =
        || Story { troubles: vec![trouble(What::Cut(0), 8000, 24_000), trouble(What::Leader, 8500, 9500)], ..cut() };
    Story { named: |at| !(18_000..=26_000).contains(&at), ..led() }.is(&[]);
    Story { named: |at| !(21_000..=26_000).contains(&at), ..led() }.is(&[Offence::Wrong]);
    // Not one that was over before, nor one that comes when the lease is.
    let led_at = |from, to| Story {
        troubles: vec![trouble(What::Cut(0), 8000, 24_000), trouble(What::Leader, from, to)],
        ..cut()
    };
    Story { named: |at| !(17_000..=26_000).contains(&at), ..led_at(6000, 7000) }.is(&[Offence::Wrong]);
    Story { named: |at| !(17_000..=26_000).contains(&at), ..led_at(15_500, 16_000) }.is(&[Offence::Wrong]);
    // One that is lost together with another is held for as long as its owner would need to publish again.
    let two = |another| Story {
        troubles: vec![trouble(What::Cut(0), 8000, 24_000), trouble(What::Agent(another), 8000, 24_000)],
        ..cut()
    };
    Story { named: |at| !(17_000..=26_000).contains(&at), ..two(2) }.is(&[]);
    Story { named: |at| !(19_000..=26_000).contains(&at), ..two(2) }.is(&[Offence::Wrong]);
    Story { named: |at| !(17_000..=26_000).contains(&at), ..two(0) }.is(&[Offence::Wrong]);
    // So does a return of the store shortly before: what vanishes then is held.
    let returned =
        || Story { troubles: vec![trouble(What::Cut(0), 8000, 24_000), trouble(What::Store, 1000, 2000)], ..cut() };
    Story { named: |at| !(19_000..=26_000).contains(&at), ..returned() }.is(&[]);
    Story { named: |at| !(21_000..=26_000).contains(&at), ..returned() }.is(&[Offence::Wrong]);
    // For the viewer alone, too, when its agent was connected to that host's member of etcd.
    let stranded = || Story {
        troubles: vec![trouble(What::Cut(0), 8000, 24_000), trouble(What::Stranded(1), 8000, 9000)],
        ..cut()
    };
    Story { named: |at| !(19_000..=26_000).contains(&at), ..stranded() }.is(&[]);
    Story { named: |at| !(22_500..=26_000).contains(&at), ..stranded() }.is(&[Offence::Wrong]);
    // Its own agent goes on naming what serves there.
    Story { viewer: 0, ..cut() }.is(&[]);
    Story { viewer: 0, named: |at| at != 15_000, ..cut() }.is(&[Offence::Blink]);
}

#[test]
fn a_restart_within_the_lease_shows_nowhere() {
    let restart = |host| Story { troubles: vec![trouble(What::Agent(host), 14_000, 15_000)], ..Story::default() };
    restart(0).is(&[]);
    Story { named: |at| at != 15_500, ..restart(0) }.is(&[Offence::Blink]);
    // Nor at the agent itself, which has its file.
    Story { named: |at| at != 15_500, ..restart(1) }.is(&[Offence::Blink]);
    Story { failed: |at| (14_000..15_900).contains(&at), ..restart(1) }.is(&[]);
    Story { failed: |at| (14_000..19_000).contains(&at), ..restart(1) }.is(&[Offence::Failed]);
}

#[test]
fn what_a_file_could_not_have_is_not_asked_of_it() {
    let server: LookAt = |at| if at < 8000 { Seen::Dead } else { Seen::Serves };
    let acts = vec![act(Deed::Started, 7800, 8050)];
    let troubles = vec![trouble(What::Agent(1), 14_000, 15_000)];
    let young = Story { server, acts, troubles, ..Story::default() };
    Story { named: |at| (8100..14_000).contains(&at) || at > 16_000, ..young }.is(&[]);
}

#[test]
fn a_change_while_the_store_is_away_is_due_after_its_return() {
    let troubles = || vec![trouble(What::Store, 9000, 19_000)];
    Story { named: |at| at < 20_000, troubles: troubles(), ..killed() }.is(&[]);
    Story { named: |at| at < 24_000, troubles: troubles(), ..killed() }.is(&[Offence::Wrong]);
    // So is one that comes just after.
    let just_before = || vec![trouble(What::Store, 5000, 9980)];
    Story { named: |at| at < 12_500, troubles: just_before(), ..killed() }.is(&[]);
    Story { named: |at| at < 14_500, troubles: just_before(), ..killed() }.is(&[Offence::Wrong]);
    // At home it shows all the same.
    Story { viewer: 0, named: |at| at < 13_000, troubles: troubles(), ..killed() }.is(&[Offence::Wrong]);
    Story { viewer: 0, named: |at| at < 11_000, troubles: troubles(), ..killed() }.is(&[]);
}

#[test]
fn a_question_that_fails_counts() {
    Story { failed: |at| at == 15_000, ..Story::default() }.is(&[Offence::Failed]);
}

#[test]
fn a_machine_that_is_late_lengthens_the_bounds_and_hides_nothing_else() {
    Story { named: |at| at < 12_500, late: ms(500), ..killed() }.is(&[]);
    Story { named: |at| at < 14_500, late: ms(500), ..killed() }.is(&[Offence::Wrong]);
    // One that is late by half a second made etcd's members late: agents found it away, and what vanished then is held.
    let cut = |late| Story { troubles: vec![trouble(What::Cut(0), 8000, 29_000)], late, ..Story::default() };
    Story { named: |at| at < 17_500, ..cut(ms(100)) }.is(&[Offence::Wrong]);
    Story { named: |at| at < 19_500, ..cut(ms(130)) }.is(&[]);
    Story { named: |at| at < 21_500, ..cut(ms(130)) }.is(&[Offence::Wrong]);
    // A machine that stands still for a second may have lost any lease; it names the dead no longer for that.
    Story { named: |at| at != 15_000, late: ms(500), ..Story::default() }.is(&[Offence::Blink]);
    Story { named: |at| at != 15_000, late: ms(1100), ..Story::default() }.is(&[]);
    // A server that nobody could ask in time may have been anything.
    let server: LookAt = |at| if at < 10_000 { Seen::Serves } else { Seen::Unclear };
    Story { server, named: |at| at < 14_000, ..Story::default() }.is(&[]);
}

#[test]
fn only_what_is_certain_is_a_stretch() {
    let look = |at, seen| Look { span: span(at, at + 10), seen };
    let looks = vec![
        look(0, Seen::Serves),
        look(100, Seen::Serves),
        look(200, Seen::Unclear),
        look(300, Seen::Serves),
        look(400, Seen::Dead),
        look(500, Seen::Dead),
        look(5000, Seen::Dead),
    ];
    let stretches = Life { looks, acts: vec![] }.stretches();
    let told: Vec<_> = stretches.iter().map(|s| (s.serves, s.from, s.to)).collect();
    assert_eq!(
        told,
        [
            (true, ms(10), ms(300)),
            (false, ms(410), ms(500)),
            (false, ms(5010), ms(5010)), // nobody looked for too long
        ]
    );
    assert!(covering(&stretches, span(50, 250)).is_some());
    assert!(covering(&stretches, span(50, 350)).is_none(), "it died at some time after 300");
    assert!(covering(&stretches, span(0, 5)).is_none());
}

#[test]
fn a_size_that_grows_is_not_flat() {
    let samples = |kib: fn(u64) -> u64, files: fn(u64) -> u64| -> Vec<Sample> {
        (0..30).map(|n| Sample { at: ms(n), kib: kib(n), files: files(n), threads: 8 }).collect()
    };
    flat(&samples(|_| 30_000, |n| 20 + n % 10)).unwrap();
    flat(&samples(|n| 30_000 + 500 * n, |_| 20)).unwrap_err();
    flat(&samples(|_| 30_000, |n| 20 + n)).unwrap_err();
    flat(&[]).unwrap_err();
}
