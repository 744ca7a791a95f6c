//! Scenes of a few servers, and what is decided in them.

use std::time::Duration;

use super::begin::{Operator, Wish, begin};
use super::command::{Command, Mark};
use super::heal::heal;
use super::journal::{Journal, Kind, Stage};
use super::refusal::Refusal;
use super::seen::Seen;
use super::server::{Follows, Hindrance, Position, ServerState, Sight, Upstream};
use super::step::{End, Step, step};
use super::takeover::take_over;
use super::topology::{Applied, Server};

const ME: Operator<'static> = Operator { name: "me", last: 6, before: None };

fn state(follows: Follows, id: &str, offset: u64, keys: u64) -> ServerState {
    ServerState {
        run: String::new(),
        follows,
        position: Position { id: id.to_owned(), offset, second: None },
        keys,
        bytes: 100 * keys,
        append_only: false,
        rebooted: None,
        hindrances: vec![],
        paused: None,
        frozen: None,
        unpaused: false,
        upstream: Upstream::default(),
    }
}

fn of(name: &str) -> Follows {
    Follows::At { host: format!("host-{name}"), port: 6379, up: true }
}

fn master(offset: u64) -> ServerState {
    state(Follows::NoOne, "r", offset, 5)
}

fn replica(of_whom: &str, offset: u64) -> ServerState {
    state(of(of_whom), "r", offset, 5)
}

/// Servers by their names, with `applied` naming the first one; each is run `1` unless it says otherwise.
fn scene(servers: &[(&str, ServerState)]) -> Seen {
    let mut seen = Seen { trusted: true, hold_left: Duration::from_secs(4), ..Seen::default() };
    for (name, state) in servers {
        let mut state = state.clone();
        if state.run.is_empty() {
            state.run = format!("{name}1");
        }
        let server = Server { name: (*name).to_owned(), host: format!("host-{name}"), port: 6379, ..Server::default() };
        seen.servers.insert((*name).to_owned(), (server, Sight::Answers(Box::new(state))));
    }
    let (first, _) = servers[0];
    let mut head = seen.written(first).expect("it is there");
    head.run = format!("{first}1");
    head.position.id = "r".to_owned();
    let replicas = servers[1..].iter().map(|(name, _)| (*name).to_owned()).collect();
    seen.applied = Some(Applied { epoch: 3, number: 6, master: head, replicas, ..Applied::default() });
    seen
}

fn set(seen: &mut Seen, name: &str, change: impl FnOnce(&mut ServerState)) {
    let Some((_, Sight::Answers(state))) = seen.servers.get_mut(name) else { panic!("{name} answers") };
    change(state);
}

fn silence(seen: &mut Seen, name: &str) {
    seen.servers.get_mut(name).expect("it is there").1 = Sight::Broken;
}

fn wish(master: &str) -> Wish {
    Wish { master: master.to_owned(), slaves: vec![], force: false, max_pause: 200 }
}

fn three() -> Seen {
    scene(&[("a", master(100)), ("b", replica("a", 90)), ("c", replica("a", 100))])
}

#[track_caller]
fn refused(seen: &Seen, expected: &[&str]) {
    let refusals = begin(&wish("b"), seen, ME).expect_err("refused");
    let words: Vec<String> = refusals.iter().map(ToString::to_string).collect();
    assert_eq!(words, expected);
}

#[test]
fn a_switch_begins_with_an_intent_that_names_everybody() {
    let journal = begin(&wish("b"), &three(), ME).expect("nothing is against it");
    assert_eq!((journal.kind, journal.stage, journal.number, journal.epoch), (Kind::Switch, Stage::Intent, 7, 3));
    assert_eq!(journal.old.as_ref().map(|old| (old.name.as_str(), old.run.as_str())), Some(("a", "a1")));
    assert_eq!(journal.rest.iter().map(|server| server.name.as_str()).collect::<Vec<_>>(), ["c"]);
}

#[test]
fn what_is_unsafe_is_refused_and_says_why() {
    type Change = fn(&mut ServerState);
    let cases: [(&str, Change, &str); 7] = [
        ("b", |b| b.position.offset = 1, "b is 99 bytes behind the master"),
        ("b", |b| b.follows = of("c"), "b is no direct replica of the master with its link up"),
        ("b", |b| b.position.id = "x".to_owned(), "b has another replication id than the master"),
        ("b", |b| b.keys = 0, "b is empty and the master is not"),
        ("b", |b| b.hindrances = vec![Hindrance::Syncing], "b is syncing with its master"),
        ("a", |a| a.hindrances = vec![Hindrance::Sentinel], "a is watched by a Sentinel"),
        (
            "a",
            |a| a.hindrances = vec![Hindrance::Login("client|pause".to_owned())],
            "a does not allow this login to use client|pause",
        ),
    ];
    for (server, change, why) in cases {
        let mut seen = three();
        set(&mut seen, server, change);
        if why.contains("99") {
            set(&mut seen, "a", |a| a.position.offset = 100 + 64 * 1024);
            set(&mut seen, "b", |b| b.position.offset = 99);
            refused(&seen, &["b is 65537 bytes behind the master"]);
        } else {
            refused(&seen, &[why]);
        }
    }
    let mut seen = three();
    silence(&mut seen, "b");
    refused(&seen, &["b cannot be reached: no answer"]);
}

#[test]
fn two_masters_are_not_sorted_out_by_force() {
    let mut seen = three();
    set(&mut seen, "c", |c| *c = ServerState { run: "c1".to_owned(), ..state(Follows::NoOne, "z", 9, 7) });
    let forced = Wish { force: true, ..wish("b") };
    let refusals = begin(&forced, &seen, ME).expect_err("refused");
    assert!(refusals.contains(&Refusal::TwoMasters(vec!["a".to_owned(), "c".to_owned()])), "{refusals:?}");
}

#[test]
fn force_overrules_a_lag_and_not_a_login() {
    let mut seen = three();
    set(&mut seen, "a", |a| a.position.offset = 1_000_000);
    let forced = Wish { force: true, ..wish("b") };
    assert!(begin(&wish("b"), &seen, ME).is_err());
    assert!(begin(&forced, &seen, ME).is_ok());
    set(&mut seen, "a", |a| a.hindrances = vec![Hindrance::Login("replicaof".to_owned())]);
    assert!(begin(&forced, &seen, ME).is_err());
}

#[test]
fn a_server_with_data_of_its_own_is_not_wiped_because_it_is_asked_for() {
    let mut seen = three();
    set(&mut seen, "c", |c| (c.position.id, c.follows) = ("other".to_owned(), Follows::Frozen(Mark::START)));
    seen.applied.as_mut().expect("applied").replicas.retain(|name| name != "c");
    let asked = Wish { slaves: vec!["c".to_owned()], ..wish("b") };
    let refusals = begin(&asked, &seen, ME).expect_err("refused");
    assert_eq!(refusals, [Refusal::WouldLose { server: "c".to_owned(), keys: 5, bytes: 500 }]);
    // Unasked it is left alone.
    let journal = begin(&wish("b"), &seen, ME).expect("nothing is against it");
    assert!(journal.rest.is_empty());
}

#[test]
fn a_first_topology_is_taken_where_one_server_has_it_all() {
    let fresh = |id: &str| state(Follows::NoOne, id, 0, 0);
    let mut seen = scene(&[("a", fresh("x")), ("b", fresh("y")), ("c", fresh("z"))]);
    seen.applied = None;
    let journal = begin(&wish("b"), &seen, ME).expect("all are empty");
    assert_eq!((journal.kind, journal.stage, journal.epoch), (Kind::First, Stage::Promote, 0));
    set(&mut seen, "b", |b| b.keys = 3);
    assert!(begin(&wish("b"), &seen, ME).is_ok(), "only the target has keys");
    set(&mut seen, "c", |c| c.keys = 3);
    assert!(begin(&wish("b"), &seen, ME).is_err(), "two have keys");
}

/// The steps of a switch, each with what the servers say after it.
#[test]
fn a_switch_holds_freezes_proves_decides_promotes_publishes_and_releases() {
    let mut seen = three();
    let now = Duration::from_millis(5);
    let journal = begin(&wish("b"), &seen, ME).expect("nothing is against it");
    let send = |name: &str, command: Command| Step::Send(vec![(name.to_owned(), command)]);
    assert_eq!(step(&journal, &seen, now), send("a", Command::Pause));
    set(&mut seen, "a", |a| a.paused = Some((now, 100)));
    assert_eq!(step(&journal, &seen, now), Step::Look(vec!["b".to_owned()]));
    set(&mut seen, "b", |b| b.position.offset = 100);
    assert_eq!(step(&journal, &seen, now), send("a", Command::Freeze(Mark::of(7))));
    set(&mut seen, "a", |a| (a.follows, a.frozen) = (Follows::Frozen(Mark::of(7)), Some(now)));
    let Step::Write { journal, applied: None } = step(&journal, &seen, now) else { panic!("a decision") };
    assert_eq!((journal.stage, journal.last), (Stage::Promote, Some(100)));
    assert_eq!(step(&journal, &seen, now), send("b", Command::Promote));
    set(&mut seen, "b", |b| {
        b.follows = Follows::NoOne;
        b.position = Position { id: "s".to_owned(), offset: 100, second: Some(("r".to_owned(), 101)) };
    });
    let later = now + Duration::from_millis(7);
    let Step::Write { journal, applied: Some(applied) } = step(&journal, &seen, later) else { panic!("it is named") };
    assert_eq!((journal.stage, journal.gap), (Stage::Publish, Some(7)));
    assert_eq!((applied.epoch, applied.master.name.as_str()), (4, "b"));
    assert_eq!(applied.replicas, ["a", "c"]);
    seen.applied = Some(*applied);
    let follow = |release: bool| {
        let (host, port) = ("host-b".to_owned(), 6379);
        if release { Command::Release { host, port } } else { Command::Attach { host, port } }
    };
    let expected = vec![("a".to_owned(), follow(true)), ("c".to_owned(), follow(false))];
    assert_eq!(step(&journal, &seen, now), Step::Send(expected));
    for name in ["a", "c"] {
        set(&mut seen, name, |server| server.follows = of("b"));
    }
    let Step::Write { journal, .. } = step(&journal, &seen, now) else { panic!("the end") };
    assert_eq!(step(&journal, &seen, now), Step::End(End::Over));
}

#[test]
fn a_target_that_lags_gives_the_switch_up_unchanged() {
    let mut seen = three();
    let journal = begin(&wish("b"), &seen, ME).expect("nothing is against it");
    set(&mut seen, "a", |a| a.paused = Some((Duration::ZERO, 100)));
    let Step::Write { journal, .. } = step(&journal, &seen, Duration::from_millis(200)) else { panic!("a decision") };
    assert_eq!((journal.stage, journal.why.as_str()), (Stage::Abort, "b is 10 bytes behind"));
    assert_eq!(step(&journal, &seen, Duration::ZERO), Step::Send(vec![("a".to_owned(), Command::Unpause)]));
    set(&mut seen, "a", |a| a.unpaused = true);
    assert!(
        matches!(step(&journal, &seen, Duration::ZERO), Step::Write { journal, .. } if journal.stage == Stage::Done)
    );
}

#[test]
fn a_store_that_is_lost_before_the_decision_is_not_waited_for() {
    let mut seen = three();
    let journal = begin(&wish("b"), &seen, ME).expect("nothing is against it");
    set(&mut seen, "a", |a| a.follows = Follows::Frozen(Mark::of(7)));
    seen.store_lost = true;
    assert_eq!(step(&journal, &seen, Duration::ZERO), Step::Send(vec![("a".to_owned(), Command::Undo)]));
    // After the decision nobody unfreezes.
    let decided = Journal { last: Some(100), ..journal.in_stage(Stage::Promote) };
    assert!(matches!(step(&decided, &seen, Duration::ZERO), Step::End(End::Later(_))));
}

#[test]
fn nothing_is_sent_when_the_hold_has_run_out() {
    let mut seen = three();
    seen.hold_left = Duration::ZERO;
    let journal = begin(&wish("b"), &seen, ME).expect("nothing is against it");
    for stage in [Stage::Intent, Stage::Promote, Stage::Abort, Stage::Publish] {
        assert!(matches!(step(&journal.in_stage(stage), &seen, Duration::ZERO), Step::End(End::Later(_))), "{stage:?}");
    }
}

#[test]
fn a_takeover_follows_the_decision_and_without_one_gives_up() {
    let journal = begin(&wish("b"), &three(), ME).expect("nothing is against it");
    for (stage, expected) in
        [(Stage::Intent, Stage::Abort), (Stage::Promote, Stage::Promote), (Stage::Publish, Stage::Publish)]
    {
        let taken = take_over(&journal.in_stage(stage), "other", true);
        assert_eq!((taken.stage, taken.turn, taken.doubtful), (expected, 1, false));
    }
    assert!(take_over(&journal, "other", false).doubtful);
}

#[test]
fn a_server_that_is_not_as_the_journal_implies_is_told_nothing() {
    let mut seen = three();
    let journal = begin(&wish("b"), &seen, ME).expect("nothing is against it");
    let decided = Journal { last: Some(100), ..journal.in_stage(Stage::Promote) };
    let is_stale = |step: Step| matches!(step, Step::Write { journal, .. } if journal.stage == Stage::Stale);
    // The target is not where it was.
    assert!(is_stale(step(&decided, &seen, Duration::ZERO)));
    set(&mut seen, "b", |b| b.run = "b2".to_owned());
    assert!(is_stale(step(&decided, &seen, Duration::ZERO)));
    set(&mut seen, "a", |a| a.run = "a2".to_owned());
    assert!(is_stale(step(&journal.in_stage(Stage::Abort), &seen, Duration::ZERO)));
}

fn frozen(run: &str, id: &str, offset: u64, keys: u64) -> ServerState {
    ServerState { run: run.to_owned(), ..state(Follows::Frozen(Mark::START), id, offset, keys) }
}

#[track_caller]
fn healed_by(seen: &Seen) -> Result<String, String> {
    let journal = heal(seen, ME).map_err(|refusal| refusal.to_string())?.expect("something to do");
    assert_eq!((journal.kind, journal.stage), (Kind::Restart, Stage::Promote));
    Ok(journal.target.name)
}

#[test]
fn a_master_that_comes_back_with_all_it_had_is_master_again() {
    let back = ServerState { append_only: true, rebooted: Some(false), ..frozen("a2", "new", 0, 5) };
    let seen = scene(&[("a", back), ("b", replica("a", 90)), ("c", replica("a", 95))]);
    assert_eq!(healed_by(&seen), Ok("a".to_owned()));
}

#[test]
fn a_master_that_comes_back_empty_follows_the_replica_that_came_furthest() {
    let seen = scene(&[("a", frozen("a2", "new", 0, 0)), ("b", replica("a", 90)), ("c", replica("a", 95))]);
    assert_eq!(healed_by(&seen), Ok("c".to_owned()));
}

#[test]
fn a_reboot_leaves_the_old_file_alone_and_goes_on_with_a_replica() {
    let back = ServerState { append_only: true, rebooted: Some(true), ..frozen("a2", "new", 0, 5) };
    let seen = scene(&[("a", back), ("b", replica("a", 90)), ("c", replica("a", 95))]);
    let journal = heal(&seen, ME).expect("decided").expect("something to do");
    assert_eq!(journal.target.name, "c");
    assert_eq!(journal.rest.iter().map(|server| server.name.as_str()).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn what_cannot_be_proved_needs_a_hand() {
    let back = ServerState { append_only: true, ..frozen("a2", "new", 0, 5) };
    let mut seen = scene(&[("a", back), ("b", replica("a", 90))]);
    assert_eq!(healed_by(&seen), Err("needs a hand: whether the host of a has rebooted is not known".to_owned()));
    set(&mut seen, "a", |a| a.keys = 0);
    silence(&mut seen, "b");
    assert_eq!(healed_by(&seen), Err("b cannot be reached: its connection broke".to_owned()));
    // Two replicas, each with data of its own.
    let seen = scene(&[("a", frozen("a2", "n", 0, 0)), ("b", frozen("b2", "x", 3, 5)), ("c", replica("a", 95))]);
    assert_eq!(healed_by(&seen), Err("needs a hand: c may lack what another server has".to_owned()));
}

#[test]
fn healing_gives_strays_to_their_master_and_moves_no_master() {
    let mut seen = three();
    assert_eq!(heal(&seen, ME), Ok(None));
    set(&mut seen, "c", |c| c.follows = Follows::Frozen(Mark::START));
    let journal = heal(&seen, ME).expect("decided").expect("something to do");
    assert_eq!((journal.kind, journal.stage, journal.target.name.as_str()), (Kind::Attach, Stage::Publish, "a"));
    // A lone master that nobody named is foreign: neither reverted nor given replicas.
    let foreign = scene(&[("a", frozen("a2", "r", 50, 5)), ("b", master(100))]);
    assert_eq!(heal(&foreign, ME), Ok(None));
}

#[test]
fn a_switch_that_would_cut_a_server_off_is_refused_before_anything_is_done() {
    let asking = Upstream { asks_login: true, has_login: true, lacks_tls: false };
    let mut seen = three();
    for name in ["a", "b", "c"] {
        set(&mut seen, name, |server| server.upstream = asking);
    }
    assert!(begin(&wish("b"), &seen, ME).is_ok());
    set(&mut seen, "a", |a| a.upstream.has_login = false);
    set(&mut seen, "c", |c| c.upstream.lacks_tls = true);
    let told = begin(&wish("b"), &seen, ME).expect_err("two could not follow");
    let told: Vec<String> = told.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "a could not follow the other: it lacks masterauth",
            "c could not follow the other: it lacks tls-replication yes"
        ]
    );
    assert!(begin(&Wish { force: true, ..wish("b") }, &seen, ME).is_ok());
}

#[test]
fn a_freeze_without_its_journal_is_left_alone_for_ten_seconds() {
    let mut seen = three();
    for name in ["a", "b", "c"] {
        set(&mut seen, name, |server| server.follows = Follows::Frozen(Mark::of(9)));
    }
    seen.differs_for = Duration::from_secs(9);
    let refusal = heal(&seen, ME).expect_err("its operator may go on");
    assert!(refusal.to_string().contains("left no journal"), "{refusal}");
    let mut before = begin(&wish("b"), &three(), ME).expect("nothing is against it").in_stage(Stage::Done);
    before.number = 8;
    assert!(heal(&seen, Operator { before: Some(&before), ..ME }).is_err(), "a journal of before says nothing of it");
    before.number = 10;
    assert!(heal(&seen, Operator { before: Some(&before), ..ME }).is_ok(), "one that came after it has ended it");
    seen.differs_for = Duration::from_secs(10);
    let journal = heal(&seen, ME).expect("it is ended").expect("there is something to do");
    assert_eq!((journal.kind, journal.target.name.as_str()), (Kind::Restart, "a"));
}

#[test]
fn what_a_store_that_went_back_says_of_replicas_is_not_written_as_if_it_were_new() {
    let stray = frozen("c2", "new", 0, 5);
    let mut seen = scene(&[("a", master(100)), ("b", frozen("b1", "r", 90, 5)), ("c", stray.clone())]);
    seen.trusted = false;
    let journal = heal(&seen, ME).expect("decided").expect("b follows nobody");
    set(&mut seen, "b", |b| b.follows = of("a"));
    let Step::Write { applied: Some(applied), .. } = step(&journal, &seen, Duration::ZERO) else { panic!("the end") };
    assert_eq!(applied.replicas, ["b"], "c may have been a master since");
    (seen.applied, seen.trusted) = (Some(*applied), true);
    assert_eq!(heal(&seen, ME), Ok(None), "what only c has stays");
    // A switch counts a silent one by what it trusts, and an abort names nobody by what it does not.
    let mut seen = scene(&[("a", master(100)), ("b", replica("a", 100)), ("c", stray)]);
    silence(&mut seen, "c");
    seen.trusted = false;
    let journal = begin(&wish("b"), &seen, ME).expect("nothing is against it");
    assert_eq!(journal.rest, []);
    set(&mut seen, "a", |a| a.unpaused = true);
    let end = step(&journal.in_stage(Stage::Abort), &seen, Duration::ZERO);
    assert!(matches!(end, Step::Write { applied: None, .. }), "{end:?}");
}

#[test]
fn who_was_a_replica_before_another_master_was_decided_on_does_not_count() {
    // b was made master and took writes, but was never named; it came back from a snapshot, and a has none of them.
    let seen = scene(&[("a", frozen("a1", "r", 100, 5)), ("b", frozen("b2", "s", 120, 7))]);
    let decided = begin(&wish("b"), &three(), ME).expect("nothing is against it");
    let decided = Journal { last: Some(100), ..decided.in_stage(Stage::Stale) };
    let after = Operator { before: Some(&decided), ..ME };
    let told = begin(&wish("a"), &seen, after).expect_err("b has more");
    let told: Vec<_> = told.iter().map(ToString::to_string).collect();
    let lost = "b has 7 keys (700 bytes) that the new master may not have, and would lose them";
    assert_eq!(told, ["no server takes writes", lost]);
    assert!(begin(&wish("a"), &seen, ME).is_ok(), "without that decision b is a's replica as before");
    // Where a takes writes again, it is named anew, and b is not given to it.
    let seen = scene(&[("a", master(100)), ("b", frozen("b2", "s", 120, 7))]);
    let journal = begin(&wish("a"), &seen, after).expect("a is master");
    assert_eq!((journal.stage, journal.rest), (Stage::Promote, vec![]));
}
