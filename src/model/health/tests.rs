//! Stories of one instance: what is heard on the left, the state that follows on the right.

use std::time::Duration;

use proptest::prelude::*;

use super::DockerStanding::{Healthy, Paused, Running, Starting, Stopping, Unhealthy};
use super::*;

/// What is heard.
#[derive(Clone, Copy, Debug)]
enum Heard {
    Good,
    Full,
    Bad,
    Docker(DockerStanding),
    Adopted,
}
use Heard::{Adopted, Bad, Docker, Full, Good};

const RULES: Rules = Rules { rise: 2, fall: 3 };

fn at(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000 + second)
}

fn hear(health: &mut Health, heard: Heard, now: SystemTime) {
    match heard {
        Good => health.hear_probe(Outcome::serves(), RULES, now),
        Full => health.hear_probe(Outcome::full("full"), RULES, now),
        Bad => health.hear_probe(Outcome::fails("refused"), RULES, now),
        Docker(docker) => health.hear_docker(docker, now),
        Adopted => health.adopt(at(0) - Duration::from_secs(500), Some(Role::Primary), RULES, now),
    }
}

/// Plays `story` and compares the states; each step takes a second.
fn check(probed: bool, docker: DockerStanding, story: &[(Heard, State)]) {
    let mut health = Health::new(probed, docker, at(0));
    for (second, (heard, expected)) in (1..).zip(story) {
        hear(&mut health, *heard, at(second));
        assert_eq!(health.standing(None).state, *expected, "after step {second} of {story:?}");
    }
}

#[test]
fn the_first_good_answer_makes_ready() {
    check(true, Running, &[(Bad, State::Starting), (Bad, State::Starting), (Good, State::Ready)]);
}

#[test]
fn three_bad_answers_take_down_and_two_good_ones_bring_back() {
    let (ready, down) = (State::Ready, State::Down);
    check(
        true,
        Running,
        &[
            (Good, ready),
            (Bad, ready),
            (Bad, ready),
            (Good, ready),
            (Bad, ready),
            (Bad, ready),
            (Bad, down),
            (Good, down),
            (Bad, down),
            (Good, down),
            (Good, ready),
        ],
    );
}

#[test]
fn a_full_server_serves() {
    check(true, Running, &[(Full, State::Saturated), (Good, State::Ready), (Full, State::Saturated)]);
    check(
        true,
        Running,
        &[(Full, State::Saturated), (Bad, State::Saturated), (Bad, State::Saturated), (Bad, State::Down)],
    );
}

#[test]
fn docker_vetoes_what_answers() {
    check(
        true,
        Healthy,
        &[
            (Good, State::Ready),
            (Docker(Unhealthy), State::Unhealthy),
            (Good, State::Unhealthy),
            (Docker(Healthy), State::Ready),
        ],
    );
}

#[test]
fn a_probe_speaks_before_the_healthcheck_has() {
    check(true, Starting, &[(Good, State::Ready), (Docker(Healthy), State::Ready)]);
}

#[test]
fn without_a_probe_docker_alone_speaks() {
    assert_eq!(Health::new(false, Running, at(0)).standing(None).state, State::Ready);
    assert_eq!(Health::new(false, Starting, at(0)).standing(None).state, State::Starting);
    check(
        false,
        Starting,
        &[
            (Docker(Healthy), State::Ready),
            (Docker(Unhealthy), State::Unhealthy),
            (Docker(Healthy), State::Ready),
            (Docker(Paused), State::Paused),
            (Docker(Running), State::Ready),
            (Docker(Stopping), State::Stopping),
        ],
    );
}

#[test]
fn what_was_halted_becomes_ready_like_a_new_one() {
    for halt in [Paused, Stopping] {
        let halted = Health::new(true, halt, at(0));
        assert!(!halted.wants_probes());
        let state = halted.standing(None).state;
        check(
            true,
            Running,
            &[
                (Good, State::Ready),
                (Docker(halt), state),
                (Docker(Running), State::Starting),
                (Bad, State::Starting),
                (Good, State::Ready),
            ],
        );
    }
}

#[test]
fn an_adopted_record_is_ready_until_fall() {
    check(true, Running, &[(Adopted, State::Ready), (Bad, State::Ready), (Bad, State::Ready), (Bad, State::Down)]);
    check(true, Running, &[(Good, State::Ready), (Bad, State::Ready), (Adopted, State::Ready)]);
    let late = [(Bad, State::Starting), (Bad, State::Starting), (Adopted, State::Ready), (Bad, State::Down)];
    check(true, Running, &late);
    let (starting, down) = (State::Starting, State::Down);
    let story =
        [(Bad, starting), (Bad, starting), (Bad, starting), (Adopted, down), (Good, down), (Good, State::Ready)];
    check(true, Running, &story);
    check(false, Starting, &[(Adopted, State::Ready), (Docker(Healthy), State::Ready)]);
    check(false, Starting, &[(Adopted, State::Ready), (Docker(Unhealthy), State::Unhealthy)]);
    check(true, Paused, &[(Adopted, State::Paused)]);
    check(
        true,
        Running,
        &[(Good, State::Ready), (Bad, State::Ready), (Bad, State::Ready), (Bad, State::Down), (Adopted, State::Down)],
    );
}

#[test]
fn an_adopted_record_keeps_its_time_and_role() {
    for (probed, docker) in [(true, Running), (false, Running), (false, Starting)] {
        let mut health = Health::new(probed, docker, at(0));
        hear(&mut health, Adopted, at(1));
        let standing = health.standing(None);
        assert_eq!((standing.since, standing.role), (at(0) - Duration::from_secs(500), Some(Role::Primary)));
    }
}

#[test]
fn since_is_when_the_state_began() {
    let mut health = Health::new(true, Running, at(0));
    for (second, heard, since) in [(3, Good, 3), (4, Full, 3), (5, Good, 3), (6, Bad, 3), (7, Bad, 3), (8, Bad, 8)] {
        hear(&mut health, heard, at(second));
        assert_eq!(health.standing(None).since, at(since), "at second {second}");
    }
}

#[test]
fn a_role_stays_until_another_is_told_and_the_label_wins() {
    let mut health = Health::new(true, Running, at(0));
    health.hear_probe(Outcome::serves().with_role(Some(Role::Replica)), RULES, at(1));
    health.hear_probe(Outcome::serves(), RULES, at(2));
    assert_eq!(health.standing(None).role, Some(Role::Replica));
    assert_eq!(health.standing(Some(Role::Primary)).role, Some(Role::Primary));
    health.hear_probe(Outcome::serves().with_role(None), RULES, at(3));
    assert_eq!(health.standing(None).role, None);
}

#[test]
fn the_last_error_is_told_and_forgotten() {
    let mut health = Health::new(true, Running, at(0));
    hear(&mut health, Bad, at(1));
    assert_eq!(health.standing(None).error.as_deref(), Some("refused"));
    hear(&mut health, Good, at(2));
    assert_eq!(health.standing(None).error, None);
}

#[test]
fn a_check_taken_away_leaves_docker_alone() {
    let mut health = Health::new(true, Running, at(0));
    health.set_probed(false, at(1));
    assert_eq!(health.standing(None).state, State::Ready);
    let mut starting = Health::new(true, Starting, at(0));
    starting.set_probed(false, at(1));
    assert_eq!(starting.standing(None).state, State::Starting);
    let mut ready = Health::new(false, Running, at(0));
    ready.set_probed(true, at(1));
    assert_eq!(ready.standing(None).state, State::Ready, "no blink when a check is added");
}

fn any_heard() -> impl Strategy<Value = Heard> {
    let docker =
        prop_oneof![Just(Running), Just(Healthy), Just(Starting), Just(Unhealthy), Just(Paused), Just(Stopping)];
    prop_oneof![4 => Just(Good), 4 => Just(Bad), 1 => Just(Full), 1 => docker.prop_map(Docker)]
}

proptest! {
    /// Whatever happens: fewer than `fall` bad answers in a row never take a ready instance down, only answers or
    /// Docker change a state, and what is halted is never shown as serving.
    #[test]
    fn laws(story in proptest::collection::vec(any_heard(), 0..60)) {
        let mut health = Health::new(true, Running, at(0));
        let mut bad_in_a_row = 0;
        for (second, heard) in (1..).zip(story) {
            let before = health.standing(None);
            hear(&mut health, heard, at(second));
            let after = health.standing(None);
            bad_in_a_row = match heard {
                Bad => bad_in_a_row + 1,
                Good | Full => 0,
                Docker(_) | Adopted => bad_in_a_row,
            };
            if before.state.serves() && matches!(heard, Bad) && bad_in_a_row < RULES.fall {
                prop_assert!(after.state.serves());
            }
            if before.state == State::Starting && matches!(heard, Good) {
                prop_assert_eq!(after.state, State::Ready);
            }
            if after.state.serves() {
                prop_assert!(health.wants_probes());
            }
            prop_assert!(after.since <= at(second));
            prop_assert!(after.since >= before.since);
        }
    }
}

#[test]
fn a_role_that_cannot_be_asked_for_is_kept_with_its_age() {
    let mut health = Health::new(true, Running, at(0));
    health.hear_probe(Outcome::serves().with_role(Some(Role::Primary)), RULES, at(1));
    let away = || Outcome::serves().with_words("away");
    for (second, at_most, role) in [(500, None, true), (60, Some(60), true), (62, Some(60), false), (500, None, false)]
    {
        let kept = away().with_role_kept(at_most.map(Duration::from_secs));
        health.hear_probe(kept, RULES, at(second));
        let standing = health.standing(None);
        let words = if role { "away: role as told at 1970-01-01T00:16:41Z" } else { "away: role unknown" };
        assert_eq!((standing.role.is_some(), standing.error.as_deref()), (role, Some(words)), "at {second}");
    }
    health.hear_probe(Outcome::serves().with_role(Some(Role::Replica)), RULES, at(600));
    assert_eq!(health.standing(None).error, None);
}

#[test]
fn what_this_host_cannot_ask_stands_for_a_minute_and_not_for_ever() {
    let mut health = Health::new(true, Running, at(0));
    health.hear_probe(Outcome::serves(), RULES, at(1));
    let hear = |health: &mut Health, seconds| {
        let how = (at(2), Duration::from_secs(seconds));
        health.hear_nothing("no port is left", how, RULES, at(2 + seconds));
        health.standing(None)
    };
    for seconds in [0, 30, 59] {
        let standing = hear(&mut health, seconds);
        assert_eq!(standing.state, State::Ready, "{seconds}");
        assert_eq!(standing.error.as_deref(), Some("not asked since 1970-01-01T00:16:42Z: no port is left"));
    }
    for (seconds, state) in [(60, State::Ready), (62, State::Ready), (64, State::Down), (10_000, State::Down)] {
        assert_eq!(hear(&mut health, seconds).state, state, "{seconds}");
    }
    let mut first = Health::new(true, Running, at(0));
    assert_eq!(hear(&mut first, 10_000).state, State::Starting);
}
