//! What the tracker looks at and believes, told as courses of events.

use proptest::prelude::*;

use super::*;
use crate::model::offer::container::RunState;

const WAIT: Duration = Duration::from_secs(3600);

fn facts(id: &str, life: &str) -> Look {
    let facts = Container { id: id.into(), started_at: life.into(), state: RunState::Running, ..Container::default() };
    Look::Facts(Arc::new(facts))
}

fn told(tracker: &mut Tracker) -> Vec<String> {
    let word = |sighting: Sighting| match sighting {
        Sighting::Seen(facts) => format!("seen {}", facts.id),
        Sighting::Gone(id) => format!("gone {id}"),
        Sighting::Stopping(id) => format!("stopping {id}"),
        Sighting::Survived(id) => format!("survived {id}"),
        Sighting::Unseen(id, _) => format!("unseen {id}"),
        Sighting::Listed(ids) => format!("listed {}", ids.into_iter().collect::<Vec<_>>().join(" ")),
        Sighting::InStep => "in step".to_owned(),
        Sighting::Engine(_) => "engine".to_owned(),
    };
    tracker.told.drain(..).map(word).collect()
}

fn ids(ids: &[&str]) -> BTreeMap<Text, Entry> {
    ids.iter().map(|id| (Text::from(*id), Entry::default())).collect()
}

/// A tracker in step, with these containers seen.
fn in_step(known: &[&str]) -> Tracker {
    let mut tracker = Tracker::default();
    tracker.list_asked();
    tracker.listed(ids(known), true);
    while let Some(id) = tracker.next_look() {
        tracker.looked(&id, facts(&id, "1"), Instant::now());
    }
    assert_eq!(told(&mut tracker).last().map(String::as_str), Some("in step"));
    tracker
}

#[test]
fn a_look_asked_for_before_the_end_is_not_believed() {
    let (mut tracker, now) = (in_step(&[]), Instant::now());
    let a = Text::from("a");
    tracker.event(&a, What::Changed, Duration::ZERO, now);
    assert_eq!(tracker.next_look(), Some(a.clone()));
    tracker.event(&a, What::Ended, Duration::ZERO, now);
    tracker.looked(&a, facts("a", "1"), now);
    assert_eq!(told(&mut tracker), ["gone a"]);
    assert_eq!(tracker.next_look(), None);
}

#[test]
fn a_start_after_the_end_is_looked_at() {
    let (mut tracker, now) = (in_step(&["a"]), Instant::now());
    let a = Text::from("a");
    tracker.event(&a, What::Changed, Duration::ZERO, now);
    let _under_way = tracker.next_look();
    tracker.event(&a, What::Ended, Duration::ZERO, now);
    tracker.event(&a, What::Changed, Duration::ZERO, now);
    assert_eq!(tracker.next_look(), None, "one look per container at once");
    tracker.looked(&a, facts("a", "1"), now);
    assert_eq!(tracker.next_look(), Some(a.clone()));
    tracker.looked(&a, facts("a", "2"), now);
    assert_eq!(told(&mut tracker), ["gone a", "seen a"]);
}

#[test]
fn what_happens_while_the_list_is_on_its_way_is_not_undone() {
    let (mut tracker, now) = (in_step(&["a", "b"]), Instant::now());
    tracker.list_asked();
    tracker.event(&"new".into(), What::Changed, Duration::ZERO, now);
    tracker.event(&"a".into(), What::Ended, Duration::ZERO, now);
    tracker.listed(ids(&["b"]), false);
    assert_eq!(told(&mut tracker), ["gone a", "listed b new"]);
}

#[test]
fn hanging_retries_leave_room_for_new_ones() {
    let (mut tracker, now) = (in_step(&[]), Instant::now());
    let names: Vec<Text> = (0..20).map(|number| Text::from(format!("hangs-{number}"))).collect();
    for name in &names {
        tracker.event(name, What::Changed, Duration::ZERO, now);
    }
    let mut left: Vec<Text> = Vec::new();
    while left.len() < names.len() {
        let under_way: Vec<Text> = std::iter::from_fn(|| tracker.next_look()).collect();
        assert!(under_way.len() <= MAX_LOOKS);
        under_way.iter().for_each(|id| tracker.looked(id, Look::Failed("hangs".to_owned()), now));
        left.extend(under_way);
    }
    tracker.tick(now + WAIT);
    let retries = std::iter::from_fn(|| tracker.next_look()).count();
    assert_eq!(retries, MAX_RETRIES);
    tracker.event(&"fresh".into(), What::Changed, Duration::ZERO, now);
    assert_eq!(tracker.next_look(), Some("fresh".into()));
}

#[test]
fn a_stop_signal_withdraws_and_a_survivor_comes_back() {
    let (mut tracker, now) = (in_step(&["a"]), Instant::now());
    let a = Text::from("a");
    for other in [1, 10, 28] {
        tracker.event(&a, What::Signalled(other), Duration::ZERO, now);
    }
    assert_eq!(told(&mut tracker), Vec::<String>::new(), "other signals change nothing");
    tracker.event(&a, What::Signalled(15), Duration::ZERO, now);
    assert_eq!(told(&mut tracker), ["stopping a"]);
    assert_eq!(tracker.next_timer(), Some(now + DEFAULT_STOP_TIMEOUT + GRACE));
    tracker.event(&a, What::Changed, Duration::ZERO, now);
    let _look = tracker.next_look();
    tracker.looked(&a, facts("a", "1"), now);
    assert_eq!(told(&mut tracker), ["seen a", "stopping a"], "a look in between changes nothing");
    let later = now + DEFAULT_STOP_TIMEOUT + GRACE;
    tracker.tick(later);
    let _look = tracker.next_look();
    tracker.looked(&a, facts("a", "1"), later);
    assert_eq!(told(&mut tracker), ["seen a", "survived a"]);
    assert_eq!(tracker.next_timer(), None);
}

#[test]
fn a_failing_look_waits_longer_each_time() {
    let (mut tracker, mut now) = (in_step(&[]), Instant::now());
    let a = Text::from("a");
    tracker.event(&a, What::Changed, Duration::ZERO, now);
    let mut waits = Vec::new();
    for _ in 0..10 {
        assert_eq!(tracker.next_look(), Some(a.clone()));
        tracker.looked(&a, Look::Failed("no".to_owned()), now);
        let at = tracker.next_timer().expect("a retry");
        waits.push(at - now);
        now = at;
        tracker.tick(now);
    }
    assert!(waits.is_sorted() && waits[0] == FIRST_RETRY && waits[9] == LAST_RETRY, "{waits:?}");
}

#[test]
fn the_container_whose_network_is_shared_is_looked_at_too() {
    let (mut tracker, now) = (in_step(&[]), Instant::now());
    let (a, pod) = (Text::from("a"), Text::from("0".repeat(64)));
    tracker.event(&a, What::Changed, Duration::ZERO, now);
    let _look = tracker.next_look();
    let sharing = Container {
        id: a.clone(),
        state: RunState::Running,
        network_mode: format!("container:{pod}").into(),
        ..Container::default()
    };
    tracker.looked(&a, Look::Facts(Arc::new(sharing)), now);
    assert_eq!(tracker.next_look(), Some(pod.clone()));
    tracker.looked(&pod, facts(&pod, "1"), now);
    told(&mut tracker);
    tracker.list_asked();
    tracker.listed(ids(&["a"]), false);
    assert_eq!(told(&mut tracker), [format!("listed {pod} a")], "it stays though it is not listed");
}

proptest! {
    /// The next timer is kept, not looked for: it is the earliest of all that are due.
    #[test]
    fn the_next_timer_is_the_earliest(steps in prop::collection::vec((0..8_usize, 0..4_usize), 1..120)) {
        let (mut tracker, mut now) = (in_step(&["a", "b"]), Instant::now());
        let mut under_way = Vec::new();
        for (step, which) in steps {
            let id = Text::from(["a", "b", "c", "d"][which]);
            match step {
                0 => tracker.event(&id, What::Changed, Duration::ZERO, now),
                1 => tracker.event(&id, What::Ended, Duration::ZERO, now),
                2 => tracker.event(&id, What::Signalled(15), Duration::ZERO, now),
                3 => under_way.extend(tracker.next_look()),
                4 if !under_way.is_empty() => {
                    let id: Text = under_way.remove(which % under_way.len());
                    let look = if which == 0 { Look::Failed("hung".into()) } else { facts(&id, "1") };
                    tracker.looked(&id, look, now);
                }
                5 => {
                    tracker.list_asked();
                    tracker.listed(ids(&["a", "b", "c", "d"][which..]), which == 1);
                }
                6 if which == 0 => {
                    tracker.disconnected();
                    under_way.clear();
                }
                _ => {
                    now += Duration::from_secs(which as u64);
                    tracker.tick(now);
                }
            }
            prop_assert_eq!(tracker.next_timer(), tracker.tracks.values().filter_map(Track::due).min());
        }
    }
}
