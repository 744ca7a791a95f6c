//! What the fleet makes of the offer: Docker's word, adopted records, changes, crowds.

use std::time::{Duration, Instant};

use wharf::model::instance::{CheckKind, DockerStanding};
use wharf::model::record::Role;
use wharf::model::standing::State;
use wharf::offer::probe::{Adopted, Adoptions, Settings};

use crate::harness::{Host, PATIENCE, eventually, instance, long_ago, quick, rules};
use crate::servers::{free_port, memcached};

fn adopted(instance: &wharf::model::instance::Instance) -> Adoptions {
    let wharf::model::instance::Source::Container(id) = &instance.key.source else { unreachable!() };
    let record = Adopted { container: Some(id[..12].into()), since: long_ago(), role: Some(Role::Replica) };
    Adoptions::from([(instance.id.clone(), record)])
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
    let host = Host::with_adoptions(quick(), adopted(&asked));
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
    let mut foreign = adopted(&asked);
    foreign.values_mut().for_each(|record| record.container = Some("ffffffffffff".into()));
    host.adoptions.send_replace(foreign.into());
    host.never_serves(&key, Duration::from_millis(100)).await;
    host.adoptions.send_replace(adopted(&asked).into());
    host.until_state(&key, State::Ready).await;
    // The container ends and another life of it begins: its record is used up.
    host.offer(|offer| offer.listed = true);
    host.remove(&key);
    eventually("gone", || host.standing(&key).is_none().then_some(())).await;
    host.put(asked);
    host.until_state(&key, State::Starting).await;
    host.never_serves(&key, Duration::from_millis(100)).await;
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
