//! What the fleet makes of the offer: Docker's word, adopted records, changes, crowds.

use std::time::{Duration, Instant};

use wharf::model::health::adopted::Adopted;
use wharf::model::health::standing::State;
use wharf::model::offer::instance::{CheckKind, DockerStanding, Instance, InstanceKey};
use wharf::model::words::record::{Record, Role};
use wharf::offer::probe::Settings;

use crate::dump::{SLOWLY, dump};
use crate::harness::{Host, PATIENCE, eventually, instance, long_ago, quick, rules};
use crate::servers::{directory, free_port, memcached, redis, redis_in};

/// What an earlier life of the agent left of `instance`: a record, perhaps with another container's id.
fn adopted(instance: &Instance, container: Option<&str>) -> Adopted {
    let record = Record {
        id: Some(instance.id.clone()),
        container: container.or(instance.key.container()).map(Into::into),
        port: instance.port,
        proto: Some(instance.key.proto),
        role: Some(Role::Replica),
        since: Some(humantime::format_rfc3339_seconds(long_ago()).to_string().into()),
        ..Record::default()
    };
    Adopted::of_records([&record].into_iter())
}

#[tokio::test]
async fn without_a_check_dockers_word_is_told_at_once() {
    let host = Host::new(Settings::default());
    let mut asked = instance(CheckKind::None, free_port());
    asked.docker = DockerStanding::Starting;
    let key = host.put(asked.clone());
    host.until_state(&key, State::Starting).await;
    for (docker, state) in [
        (DockerStanding::Healthy, State::Ready),
        (DockerStanding::Unhealthy, State::Unhealthy),
        (DockerStanding::Running, State::Ready),
        (DockerStanding::Paused, State::Paused),
        (DockerStanding::Stopping, State::Stopping),
    ] {
        asked.docker = docker;
        host.put(asked.clone());
        host.until_state(&key, state).await;
    }
    host.remove(&key);
    eventually("gone", || host.standing(&key).is_none().then_some(())).await;
}

#[tokio::test]
async fn the_label_wins_over_what_the_server_says() {
    let (host, server) = (Host::new(quick()), crate::servers::redis(&[]));
    let mut asked = instance(CheckKind::Redis, server.target);
    asked.role = Some(Role::Replica);
    let key = host.put(asked);
    assert_eq!(host.until_state(&key, State::Ready).await.role, Some(Role::Replica));
}

#[tokio::test]
async fn an_adopted_record_stands_until_probes_reach_fall() {
    let asked = instance(CheckKind::Memcached, free_port());
    let host = Host::with_adopted(quick(), adopted(&asked, None));
    let began = Instant::now();
    let key = host.put(asked);
    let standing = host.until_state(&key, State::Ready).await;
    assert_eq!((standing.since, standing.role), (long_ago(), Some(Role::Replica)));
    let down = host.until_state(&key, State::Down).await;
    assert!(began.elapsed() > quick().interval * (rules().fall - 1) / 2, "{:?}", began.elapsed());
    assert!(down.since > long_ago());
}

#[tokio::test]
async fn records_read_late_are_still_adopted_and_others_are_not() {
    let host = Host::new(Settings { interval: Duration::from_secs(60), ..Settings::default() });
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let asked = instance(CheckKind::Memcached, silent.local_addr().unwrap());
    let key = host.put(asked.clone());
    host.until_state(&key, State::Starting).await;
    host.adopted.send_replace(adopted(&asked, Some("ffffffffffff")).into());
    host.never_serves(&key, Duration::from_millis(100)).await;
    host.adopted.send_replace(adopted(&asked, None).into());
    host.until_state(&key, State::Ready).await;
    // The container ends and another life of it begins: its record is used up.
    host.offer(|offer| offer.listed = true);
    host.remove(&key);
    eventually("gone", || host.standing(&key).is_none().then_some(())).await;
    host.put(asked);
    host.until_state(&key, State::Starting).await;
    host.never_serves(&key, Duration::from_millis(100)).await;
}

/// Every state of `key` from `change` on until it serves.
async fn states_until_ready(host: &Host, key: &InstanceKey, change: impl FnOnce()) -> Vec<(State, Option<String>)> {
    let mut standings = host.standings.clone();
    standings.mark_unchanged();
    change();
    let mut seen = Vec::new();
    tokio::time::timeout(PATIENCE, async {
        loop {
            standings.changed().await.unwrap();
            let standing = standings.borrow_and_update()[key].clone();
            seen.push((standing.state, standing.error.as_deref().map(str::to_owned)));
            if standing.state == State::Ready {
                return;
            }
        }
    })
    .await
    .unwrap_or_else(|_| panic!("not ready: {seen:?}"));
    seen
}

#[tokio::test]
async fn a_container_restarted_between_two_looks_goes_through_first_readiness_again() {
    // No probe of the old life's rhythm falls into this test.
    let host = Host::new(Settings { interval: PATIENCE * 10, ..Settings::default() });
    let server = redis(&[]);
    let mut asked = instance(CheckKind::Redis, server.target);
    asked.started = "2026-11-21T11:42:33.5Z".into();
    let key = host.put(asked.clone());
    let first = host.until_role(&key, Some(Role::Primary)).await;
    drop(server);
    let folder = directory();
    dump(folder.path(), 1_000);
    let _server = redis_in(folder, asked.check.target.unwrap(), &SLOWLY);
    asked.started = "2026-11-21T11:50:00.5Z".into();
    let seen = states_until_ready(&host, &key, || drop(host.put(asked))).await;
    let (ready, before) = seen.split_last().unwrap();
    assert_eq!(ready.0, State::Ready);
    assert!(before.iter().all(|(state, _)| *state == State::Starting), "{seen:?}");
    assert!(before.iter().any(|(_, error)| error.as_deref() == Some("loading its data")), "{seen:?}");
    assert!(host.standing(&key).unwrap().since > first.since);
}

#[tokio::test]
async fn an_unprobed_container_restarted_between_two_looks_serves_since_then() {
    let host = Host::new(quick());
    let mut asked = instance(CheckKind::None, free_port());
    asked.started = "2026-11-21T11:42:33.5Z".into();
    let key = host.put(asked.clone());
    let first = host.until_state(&key, State::Ready).await;
    asked.started = "2026-11-21T11:50:00.5Z".into();
    host.put(asked);
    host.until(&key, |standing| standing.state == State::Ready && standing.since > first.since).await;
}

#[tokio::test]
async fn a_record_of_a_containers_earlier_life_is_not_adopted() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut asked = instance(CheckKind::Memcached, silent.local_addr().unwrap());
    let at = |seconds: u64| humantime::format_rfc3339_nanos(long_ago() + Duration::from_secs(seconds)).to_string();
    asked.started = at(2).into();
    let host = Host::with_adopted(quick(), adopted(&asked, None));
    let key = host.put(asked.clone());
    host.until_state(&key, State::Starting).await;
    host.never_serves(&key, Duration::from_millis(300)).await;
    // Its first second is the record's own: that tells whole seconds only.
    asked.started = at(0).into();
    let host = Host::with_adopted(quick(), adopted(&asked, None));
    let key = host.put(asked);
    assert_eq!(host.until_state(&key, State::Ready).await.since, long_ago());
}

#[tokio::test]
async fn a_paused_container_is_not_asked_and_ready_at_once_afterwards() {
    let (host, server) = (Host::new(quick()), memcached(&[]));
    let mut asked = instance(CheckKind::Memcached, server.target);
    let key = host.put(asked.clone());
    host.until_state(&key, State::Ready).await;
    // Longer than the test waits: only a probe out of turn can make it ready again.
    asked.check.interval = Some(PATIENCE * 10);
    asked.docker = DockerStanding::Paused;
    host.put(asked.clone());
    host.until_state(&key, State::Paused).await;
    let probes = || host.metrics().lines().find(|line| line.starts_with("wharf_probes_total")).unwrap().to_owned();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = probes();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(before, probes());
    asked.docker = DockerStanding::Running;
    host.put(asked);
    host.until_state(&key, State::Ready).await;
}

#[tokio::test]
async fn a_check_without_an_address_says_so() {
    let host = Host::new(quick());
    let mut asked = instance(CheckKind::Redis, free_port());
    asked.check.target = None;
    let key = host.put(asked);
    let standing = host.until_state(&key, State::Starting).await;
    assert_eq!(standing.error.as_deref(), Some("no address of this host to ask at"));
}

#[tokio::test]
async fn another_target_is_asked_without_a_blink() {
    let (host, one, other) = (Host::new(quick()), memcached(&[]), memcached(&[]));
    let mut asked = instance(CheckKind::Memcached, one.target);
    let key = host.put(asked.clone());
    let first = host.until_state(&key, State::Ready).await;
    asked.check.target = Some(other.target);
    host.put(asked);
    drop(one);
    host.offer(|offer| offer.engine = false);
    tokio::time::sleep(quick().interval * 5).await;
    assert_eq!(host.standing(&key), Some(first));
}

#[tokio::test]
async fn a_newcomer_is_ready_at_once_among_hundreds_that_never_come_up() {
    let host = Host::new(Settings::default());
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    host.offer(|offer| {
        for port in 1..=800 {
            let mut dead = instance(CheckKind::Memcached, silent);
            dead.key.port = port;
            offer.instances.insert(dead.key.clone(), dead.into());
        }
    });
    eventually("a crowd", || (host.standings.borrow().len() == 800).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let server = memcached(&[]);
    eventually("accepting", || std::net::TcpStream::connect(server.target).ok()).await;
    let (_, took) =
        host.until(&host.put(instance(CheckKind::Memcached, server.target)), |s| s.state == State::Ready).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}

#[tokio::test]
async fn the_fleet_ends_with_the_offer() {
    assert!(Host::new(quick()).end_offer().await.is_err());
}
