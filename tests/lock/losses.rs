//! A lock that is lost, in every way: the next program runs in time, and never before the last one is dead.

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::ground::{DEAF, Ground, Locker, TTL};

/// What a row may take beyond the lease's time, as the page says, and what a busy machine adds.
const MORE: Duration = Duration::from_secs(2);
const BUSY: Duration = Duration::from_millis(1_500);

/// When the next is due at the latest.
#[derive(Clone, Copy, Debug)]
enum Due {
    /// After the lease's time.
    Loss,
    /// A lease's time later: it ended early.
    Early,
    /// Whenever: nothing is promised while etcd is away.
    Whenever,
}

fn rounds() -> usize {
    if std::env::var_os("WHARF_DRILL").is_some() { 50 } else { 1 }
}

/// One has it, another waits; `breaks` breaks something, and is told what it began with.
fn row(before: &str, due: Due, breaks: impl Fn(&mut Ground, &mut Locker)) {
    for _ in 0..rounds() {
        let mut ground = Ground::new();
        let mut first = ground.stamping("one", before);
        ground.until_lives(1);
        let second = ground.stamping("two", before);
        ground.until("the second waits", || second.log().contains("1 before us"));
        let broken = Instant::now();
        breaks(&mut ground, &mut first);
        ground.until_lives(2);
        let took = broken.elapsed();
        ground.no_two_overlap();
        let most = match due {
            Due::Loss => TTL + MORE,
            Due::Early => TTL * 2 + MORE,
            Due::Whenever => Duration::from_secs(60),
        };
        eprintln!("the next runs {took:?} after; {:?}", ground.lives());
        assert!(took <= most + BUSY, "{took:?} instead of {most:?}\n{}", ground.logs());
        // Whatever still stands still wakes up, and finds that it is too late.
        let _ = kill_process(rustix::process::Pid::from_raw(first.pid()).unwrap(), Signal::CONT);
        std::thread::sleep(Duration::from_millis(300));
        ground.no_two_overlap();
    }
}

#[test]
fn wharf_lock_is_killed() {
    row("", Due::Loss, |_, first| first.signal(Signal::KILL));
}

#[test]
fn wharf_lock_is_killed_and_the_program_ignores_term() {
    row(DEAF, Due::Loss, |_, first| first.signal(Signal::KILL));
}

#[test]
fn wharf_lock_stands_still() {
    row("", Due::Loss, |_, first| first.signal(Signal::STOP));
}

#[test]
fn wharf_lock_stands_still_and_the_program_ignores_term() {
    row(DEAF, Due::Loss, |_, first| first.signal(Signal::STOP));
}

#[test]
fn the_guardian_stands_still() {
    // It loses nothing by itself: the lease goes on, until etcd is asked to end it.
    row("", Due::Early, |ground, first| {
        kill_process(first.guardian(), Signal::STOP).unwrap();
        revoke(ground);
    });
}

#[test]
fn wharf_lock_and_the_guardian_stand_still() {
    row(DEAF, Due::Loss, |_, first| {
        kill_process(first.guardian(), Signal::STOP).unwrap();
        first.signal(Signal::STOP);
    });
}

#[test]
fn the_guardian_is_killed() {
    row(DEAF, Due::Loss, |_, first| {
        kill_process(first.guardian(), Signal::KILL).unwrap();
        assert_eq!(first.code(), 125);
    });
}

#[test]
fn the_lease_is_revoked() {
    row(DEAF, Due::Early, |ground, first| {
        revoke(ground);
        assert_eq!(first.code(), 125);
    });
}

#[test]
fn the_lease_is_revoked_while_wharf_lock_stands_still() {
    row(DEAF, Due::Early, |ground, first| {
        first.signal(Signal::STOP);
        revoke(ground);
    });
}

#[test]
fn the_key_is_deleted() {
    row(DEAF, Due::Early, |ground, first| {
        let key = ground.status("db")["holder"]["key"].as_str().unwrap().to_owned();
        ground.cluster.ctl(&["del", &key]);
        assert_eq!(first.code(), 125);
    });
}

#[test]
fn etcd_is_emptied() {
    row(DEAF, Due::Whenever, |ground, first| {
        ground.cluster.wipe();
        assert_eq!(first.code(), 125);
    });
}

#[test]
fn etcd_is_restored_from_before() {
    row(DEAF, Due::Whenever, |ground, first| {
        let snapshot = ground.cluster.snapshot();
        ground.cluster.ctl(&["put", "/since", "then"]);
        ground.cluster.restore(&snapshot, false);
        assert_eq!(first.code(), 125);
    });
}

#[test]
fn etcd_hangs() {
    row(DEAF, Due::Whenever, |ground, first| {
        ground.cluster.members[0].freeze();
        let began = Instant::now();
        ground.until("it is lost", || first.log().contains("lost: nobody acknowledged it in time"));
        assert!(began.elapsed() < TTL + BUSY, "{:?}", began.elapsed());
        ground.cluster.members[0].thaw();
        assert_eq!(first.code(), 125);
    });
}

#[test]
fn a_grandchild_in_a_session_of_its_own_dies_with_it() {
    let before = "trap '' TERM\nif [ -z \"$INNER\" ]; then INNER=1 setsid bash -c \"$SCRIPT\" & fi";
    let before = format!("export SCRIPT={}\n{before}", quoted(crate::ground::STAMPS));
    row(&before, Due::Loss, |_, first| first.signal(Signal::STOP));
}

#[test]
fn what_was_started_beside_it_dies_with_the_guardian() {
    let before = format!("export SCRIPT={}\nsetsid bash -c \"$SCRIPT\" &", quoted(crate::ground::STAMPS));
    row(&before, Due::Loss, |_, first| {
        kill_process(first.guardian(), Signal::KILL).unwrap();
        assert_eq!(first.code(), 125);
    });
}

fn quoted(script: &str) -> String {
    format!("'{}'", script.replace('\'', "'\\''"))
}

fn revoke(ground: &Ground) {
    let key = ground.status("db")["holder"]["key"].as_str().unwrap().to_owned();
    ground.cluster.ctl(&["lease", "revoke", key.rsplit('/').next().unwrap()]);
}
