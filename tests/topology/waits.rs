//! What an operation waits for before it begins: a name that is not known yet, and agents that keep who asks them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wharf::model::steer::journal::Stage;
use wharf::model::steer::roster::Roster;
use wharf::steer::Inputs;
use wharf::store::embedded::Embedded;
use wharf::store::{Store, Write};

use crate::agent::{agent, all_are_shown, started, switched};
use crate::servers::{Server, roster};
use crate::{REDIS, all_follow, applied, eventually, inputs, journal, operator_on, settings, three};

const DESIRED: &str = "/config/redis-1/topology";
const TRIGGER: &str = "/config/redis-1/topology-trigger";
const MARKS: &str = "/wharf/services/marks/redis-1/";

async fn put(store: &Embedded, key: &str, value: &str, lease: i64) {
    let write = Write::Put { key: key.to_owned(), value: value.to_owned().into(), lease };
    store.commit(&[], &[write]).await.unwrap();
}

/// A topology with this master, and no slaves that would have to be found.
fn of(master: &str) -> String {
    format!(r#"{{"master":{{"address":"{master}"}},"slaves":[]}}"#)
}

/// Three servers, of which `a` is master, and an operator whose registry is what the test says.
async fn known_by_and_by() -> (Embedded, [Server; 3], Arc<Mutex<Roster>>, crate::Operator) {
    let store = Embedded::new();
    let (servers, first) = three(REDIS, &store).await;
    drop(first);
    let refs: Vec<&Server> = servers.iter().collect();
    let known = Arc::new(Mutex::new(roster(&refs)));
    let registry = Arc::clone(&known);
    let inputs = inputs("op-2", &store, Arc::new(move |_| registry.lock().unwrap().clone()));
    let operator = operator_on(settings(Duration::from_millis(500)), inputs);
    let shown = operator.handle.shown.clone();
    eventually("the store is read", async || !shown.borrow().stale).await;
    (store, servers, known, operator)
}

async fn told(operator: &crate::Operator, words: &str) {
    let shown = operator.handle.shown.clone();
    eventually(words, async || shown.borrow().last.as_ref().is_some_and(|last| last.contains(words))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_whose_name_is_not_known_yet_waits_for_it() {
    let (store, servers, known, operator) = known_by_and_by().await;
    let wanted = r#"{"master":{"address":"b.redis-1"},"slaves":[{"address":"later.redis-1"}]}"#;
    put(&store, DESIRED, wanted, 0).await;
    put(&store, TRIGGER, "1", 0).await;
    told(&operator, "later.redis-1 cannot be found").await;
    assert_eq!(applied(&store).await.unwrap().master.name, "a");
    let later = Server::start(REDIS, "later");
    known.lock().unwrap().0.extend(roster(&[&later]).0);
    eventually("it is applied", async || applied(&store).await.unwrap().has_replica("later")).await;
    let [a, b, c] = servers.each_ref();
    all_follow(&[a, b, c, &later], 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trigger_that_waits_for_a_name_ends_when_another_topology_is_desired() {
    let (store, servers, _known, operator) = known_by_and_by().await;
    put(&store, DESIRED, &of("never.redis-1"), 0).await;
    put(&store, TRIGGER, "1", 0).await;
    told(&operator, "never.redis-1 cannot be found").await;
    put(&store, DESIRED, &of("b.redis-1"), 0).await;
    // Longer than until it would be tried again.
    let begun = Instant::now();
    eventually("its time is over", async || begun.elapsed() > Duration::from_secs(4)).await;
    assert_eq!(applied(&store).await.unwrap().master.name, "a", "what is desired is not applied by itself");
    put(&store, TRIGGER, "2", 0).await;
    eventually("its own trigger applies it", async || applied(&store).await.unwrap().master.name == "b").await;
    all_follow(&servers.each_ref(), 1).await;
}

/// Switches to `b` as soon as `agents` say that they keep who asks, or have had their time; how long writes were
/// taken after the intent.
async fn with_agents(store: &Embedded, servers: &[Server; 3], agents: &[&str], marks: &[&str]) -> Duration {
    let refs: Vec<&Server> = servers.iter().collect();
    let all = roster(&refs);
    let agents: BTreeSet<String> = agents.iter().map(|agent| (*agent).to_owned()).collect();
    let inputs =
        Inputs { agents: Arc::new(move || agents.clone()), ..inputs("op-2", store, Arc::new(move |_| all.clone())) };
    let operator = operator_on(settings(Duration::from_millis(500)), inputs);
    let before = journal(store).await.unwrap().number;
    let marking = async {
        eventually("it is intended", async || {
            journal(store).await.is_some_and(|journal| journal.number > before && journal.stage == Stage::Intent)
        })
        .await;
        let begun = Instant::now();
        for agent in marks {
            put(store, &format!("{MARKS}{agent}"), &(before + 1).to_string(), 0).await;
        }
        eventually("it goes on", async || journal(store).await.unwrap().stage != Stage::Intent).await;
        begun.elapsed()
    };
    let (_, took) = tokio::join!(operator.switch(&refs, 1), marking);
    took
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_never_says_that_it_keeps_who_asks_is_waited_for_a_while_only() {
    let store = Embedded::new();
    let (servers, first) = three(REDIS, &store).await;
    drop(first);
    let took = with_agents(&store, &servers, &["here", "dead"], &["here"]).await;
    assert!(took > Duration::from_millis(200), "writes are held once the other has had its time: {took:?}");
    all_follow(&servers.each_ref(), 1).await;
}

#[test]
fn an_agent_marks_each_switch_that_it_keeps_who_asks_for() {
    let servers = started();
    let agent = agent(&servers, "");
    all_are_shown(&agent);
    switched(&agent, "a");
    switched(&agent, "b");
    switched(&agent, "c");
    assert!(!agent.log().contains("agents that may name the old master"), "{}", agent.log());
}
