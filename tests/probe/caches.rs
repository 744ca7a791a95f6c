//! memcached in every way it can be started, and ZooKeeper.

use std::io::Read as _;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use wharf::model::health::standing::State;
use wharf::model::offer::instance::CheckKind;
use wharf::offer::probe::Settings;

use crate::harness::{Host, eventually, instance, quick};
use crate::servers::{Server, free_port, memcached, memcached_at, zookeeper};

#[tokio::test]
async fn memcached_is_ready_in_every_dialect() {
    let host = Host::new(quick());
    for extra in [&[][..], &["-S"], &["-B", "binary"], &["-B", "ascii"]] {
        let server = memcached(extra);
        let key = host.put(instance(CheckKind::Memcached, server.target));
        let standing = host.until_state(&key, State::Ready).await;
        assert_eq!(standing.role, None, "{extra:?}");
    }
}

#[tokio::test]
async fn memcached_that_wants_a_login_by_text_is_alive() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "user:secret\n").unwrap();
    std::fs::set_permissions(file.path(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let server = memcached(&["-Y", file.path().to_str().unwrap()]);
    let host = Host::new(quick());
    let key = host.put(instance(CheckKind::Memcached, server.target));
    host.until_state(&key, State::Ready).await;
}

#[tokio::test]
async fn memcached_is_ready_soon_after_it_accepts() {
    let host = Host::new(Settings::default());
    let target = free_port();
    let key = host.put(instance(CheckKind::Memcached, target));
    let standing = host.until(&key, |standing| standing.error.is_some()).await.0;
    assert_eq!(standing.state, State::Starting);
    let _server = memcached_at(target, &[]);
    let accepted = eventually("accepting", || std::net::TcpStream::connect(target).ok().map(|_| Instant::now())).await;
    host.until_state(&key, State::Ready).await;
    assert!(accepted.elapsed() < Duration::from_secs(1), "{:?}", accepted.elapsed());
}

#[tokio::test]
async fn a_frozen_memcached_is_withdrawn_and_comes_back() {
    let server = memcached(&[]);
    let host = Host::new(quick());
    let key = host.put(instance(CheckKind::Memcached, server.target));
    host.until_state(&key, State::Ready).await;
    // The kernel still accepts for it.
    server.signal(Signal::STOP);
    let down = host.until_state(&key, State::Down).await;
    assert_eq!(down.error.as_deref(), Some("no answer within 500ms"));
    server.signal(Signal::CONT);
    let back = host.until_state(&key, State::Ready).await;
    assert!(back.since >= down.since);
}

/// Takes every slot of a memcached. One that a probe had at the moment is free again later: only when a while of tries
/// has been refused is there none left.
async fn fill(server: &Server) -> Vec<TcpStream> {
    let (mut crowd, mut refused) = (Vec::new(), 0);
    while refused < 25 {
        let mut stream = TcpStream::connect(server.target).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        match stream.read(&mut [0; 64]) {
            Ok(_) => refused += 1,
            Err(_) => {
                crowd.push(stream);
                refused = 0;
            }
        }
        assert!(crowd.len() < 100, "it lets everybody in");
    }
    crowd
}

#[tokio::test]
async fn a_full_memcached_is_saturated_as_long_as_it_is_full() {
    let host = Host::new(quick());
    // memcached counts descriptors of its own among the connections.
    for dialect in ["auto", "binary", "ascii"] {
        let server = memcached(&["-c", "24", "-B", dialect]);
        let key = host.put(instance(CheckKind::Memcached, server.target));
        let ready = host.until_state(&key, State::Ready).await;
        let crowd = fill(&server).await;
        let full = host.until_state(&key, State::Saturated).await;
        assert_eq!(full.error.as_deref(), Some("too many open connections"), "{dialect}");
        host.stays(&key, State::Saturated, quick().interval * 10).await;
        assert_eq!(host.standing(&key).unwrap().since, ready.since, "{dialect}: it serves all the time");
        drop(crowd);
        host.until_state(&key, State::Ready).await;
        host.remove(&key);
    }
}

#[tokio::test]
async fn a_memcached_that_is_full_when_it_is_met_is_not_mistaken_for_one_of_text() {
    let (host, server) = (Host::new(quick()), memcached(&["-c", "24", "-B", "binary"]));
    eventually("it is up", || TcpStream::connect(server.target).ok()).await;
    let crowd = fill(&server).await;
    let key = host.put(instance(CheckKind::Memcached, server.target));
    host.until_state(&key, State::Saturated).await;
    drop(crowd);
    host.until_state(&key, State::Ready).await;
    host.stays(&key, State::Ready, quick().interval * 10).await;
}

#[tokio::test]
async fn zookeeper_is_ready_with_its_quorum_only() {
    let host = Host::new(quick());
    let (alone, lost) = (zookeeper(0), zookeeper(2));
    let ready = host.put(instance(CheckKind::Zookeeper, alone.target));
    let starting = host.put(instance(CheckKind::Zookeeper, lost.target));
    host.until_state(&ready, State::Ready).await;
    let standing =
        host.until(&starting, |standing| standing.error.as_deref() == Some("not serving requests: no quorum"));
    assert_eq!(standing.await.0.state, State::Starting);
    host.never_serves(&starting, Duration::from_secs(1)).await;
}
