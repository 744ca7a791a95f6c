//! What may be in the way of a switch, or left behind by one, on real servers.

use std::time::Duration;

use rustix::fs::Mode;
use tokio::time::{sleep, timeout};
use wharf::state::topology::KeptTopology;
use wharf::steer::{Outcome, Settings};
use wharf::store::embedded::Embedded;
use wharf::store::{Store, Write};

use crate::agent::{agent, all_are_shown, started, switched};
use crate::servers::{Client, Server};
use crate::{REDIS, all_follow, applied, desired, eventually, journal, operator_with, settings, three};

const BELOW: &str = "/wharf/services/topology/redis-1/";

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_comes_late_to_the_old_master_is_closed_once_more() {
    let servers = started();
    let agent = agent(&servers, "");
    all_are_shown(&agent);
    switched(&agent, "a");
    all_follow(&servers.iter().collect::<Vec<_>>(), 0).await;
    switched(&agent, "b");
    let mut late = Client::open(servers[0].address()).await.unwrap();
    assert!(late.ask(&["PING"]).await.is_ok(), "it is served at first");
    let closed = async {
        while late.ask(&["PING"]).await.is_ok() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(Duration::from_secs(10), closed).await.expect("it is closed");
    all_follow(&servers.iter().collect::<Vec<_>>(), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_somebody_else_holds_are_his_to_let_go() {
    let store = Embedded::new();
    let (servers, operator) = three(REDIS, &store).await;
    let refs: Vec<&Server> = servers.iter().collect();
    servers[0].ask(&["CLIENT", "PAUSE", "60000", "WRITE"]).await;
    let mut held = Client::open(servers[0].address()).await.unwrap();
    let write = tokio::spawn(async move { held.ask(&["RPUSH", "log", "x"]).await });
    eventually("a client is held", async || servers[0].ask(&["CLIENT", "LIST"]).await.contains("cmd=rpush")).await;
    let outcome = operator.put(desired(&refs, 1)).await;
    assert_eq!(outcome, Outcome::Refused(vec!["a has its writes held by somebody else".to_owned()]));
    assert!(!write.is_finished(), "the pause stands");
    servers[0].ask(&["CLIENT", "UNPAUSE"]).await;
    assert_eq!(write.await.unwrap().unwrap(), ":1");
    operator.switch(&refs, 1).await;
}

/// Three servers that ask for a login, and a way to log in.
fn guarded(more: &[&str]) -> ([Server; 3], Settings, tempfile::TempDir) {
    let more = [&["--requirepass", "s3cret"], more].concat();
    let servers = ["a", "b", "c"].map(|name| Server::start_with(REDIS, name, &more));
    let secrets = tempfile::tempdir().unwrap();
    std::fs::write(secrets.path().join("redis.pw"), "s3cret\n").unwrap();
    rustix::fs::chmod(secrets.path().join("redis.pw"), Mode::from(0o600)).unwrap();
    let settings = Settings {
        password_file: Some("redis.pw".to_owned()),
        secrets: Some(secrets.path().to_owned()),
        ..settings(Duration::from_millis(500))
    };
    (servers, settings, secrets)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_could_not_follow_is_left_alone() {
    let (servers, settings, _secrets) = guarded(&["--masterauth", "s3cret"]);
    let refs: Vec<&Server> = servers.iter().collect();
    let store = Embedded::new();
    let operator = operator_with("op-1", &store, &refs, settings, None);
    operator.switch(&refs, 0).await;
    all_follow(&refs, 0).await;
    servers[0].ask(&["CONFIG", "SET", "masterauth", ""]).await;
    let outcome = operator.put(desired(&refs, 1)).await;
    let why = "a could not follow the other: it lacks masterauth".to_owned();
    assert_eq!(outcome, Outcome::Refused(vec![why]));
    assert_eq!(servers[0].ask(&["RPUSH", "log", "x"]).await, ":1", "nothing was done to it");
    servers[0].ask(&["CONFIG", "SET", "masterauth", "s3cret"]).await;
    operator.switch(&refs, 1).await;
    all_follow(&refs, 1).await;
}

async fn wipe(store: &Embedded) {
    let gone = ["journal", "applied"].map(|key| Write::Delete(format!("{BELOW}{key}")));
    store.commit(&[], &gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_and_epochs_go_on_when_the_store_was_emptied() {
    let store = Embedded::new();
    let servers = ["a", "b", "c"].map(|name| Server::start(REDIS, name));
    let refs: Vec<&Server> = servers.iter().collect();
    let state = tempfile::tempdir().unwrap();
    let kept = || Some(KeptTopology::new(state.path(), "redis-1"));
    let first = operator_with("op-1", &store, &refs, settings(Duration::from_millis(500)), kept());
    first.switch(&refs, 0).await;
    all_follow(&refs, 0).await;
    first.switch(&refs, 1).await;
    all_follow(&refs, 1).await;
    let (before, number) = (applied(&store).await.unwrap(), journal(&store).await.unwrap().number);
    let file = kept().unwrap();
    eventually("a copy is kept", async || {
        let kept = file.read();
        kept.journal.is_some_and(|journal| journal.number == number && journal.is_over())
    })
    .await;
    drop(first);
    wipe(&store).await;
    let second = operator_with("op-2", &store, &refs, settings(Duration::from_millis(500)), kept());
    assert_eq!(second.handle.shown.borrow().applied.as_ref().map(|applied| applied.epoch), Some(before.epoch));
    second.switch(&refs, 2).await;
    let after = applied(&store).await.unwrap();
    assert_eq!((after.epoch, after.master.name.as_str()), (before.epoch + 1, "c"));
    assert!(journal(&store).await.unwrap().number > number);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_whose_journal_is_gone_is_ended_after_a_while() {
    let servers = started();
    let agent = agent(&servers, "");
    all_are_shown(&agent);
    switched(&agent, "a");
    servers[0].ask(&["RPUSH", "log", "x"]).await;
    eventually("it is replicated", async || servers[1].ask(&["LLEN", "log"]).await == ":1").await;
    let began = std::time::Instant::now();
    servers[0].ask(&["REPLICAOF", "127.87.1.9", "1"]).await;
    agent.until("it is healed", |agent| agent.log().contains("kind=Restart"));
    eventually("it takes writes again", async || servers[0].ask(&["RPUSH", "log", "y"]).await == ":2").await;
    assert!(began.elapsed() >= Duration::from_secs(10), "its operator has time to go on: {:?}", began.elapsed());
    all_follow(&servers.iter().collect::<Vec<_>>(), 0).await;
}
