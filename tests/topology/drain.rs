//! A host that is drained gives its master away first, where its table says so.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use wharf::model::steer::roster::Roster;
use wharf::model::words::record::Role;
use wharf::steer::{Ask, Outcome, Request};
use wharf::store::embedded::Embedded;

use crate::agent::{agent, all_are_shown, asked, started, switched};
use crate::servers::{Server, roster};
use crate::{Operator, all_follow, applied, operator_of, settings, three};

async fn given_away(operator: &Operator) -> Outcome {
    let (reply, outcome) = oneshot::channel();
    operator.handle.requests.send(Request { ask: Ask::GiveAway, reply }).await.unwrap();
    timeout(Duration::from_secs(20), outcome).await.unwrap().unwrap()
}

/// The servers on these nodes, all but the first replicas that are ready.
fn spread(servers: &[&Server], nodes: [&str; 3]) -> Roster {
    let mut roster = roster(servers);
    for ((place, listed), node) in roster.0.values_mut().enumerate().zip(nodes) {
        listed.node = node.to_owned();
        listed.role = Some(if place == 0 { Role::Primary } else { Role::Replica });
    }
    roster
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_goes_to_a_ready_replica_on_another_host() {
    let store = Embedded::new();
    let (servers, before) = three("redis-server", &store).await;
    drop(before);
    let refs: Vec<&Server> = servers.iter().collect();
    let of = |nodes| operator_of("op-2", &store, spread(&refs, nodes), settings(Duration::from_millis(500)), None);
    let elsewhere = of(["core-09", "core-01", "core-01"]);
    assert!(matches!(given_away(&elsewhere).await, Outcome::Done { gap: None }), "the master is elsewhere already");
    drop(elsewhere);
    let alone = of(["core-01", "core-01", "core-01"]);
    let told = given_away(&alone).await.to_string();
    assert!(told.contains("no replica on another host is ready"), "{told}");
    assert_eq!(applied(&store).await.unwrap().master.name, "a");
    drop(alone);
    let spread = of(["core-01", "core-01", "core-02"]);
    let outcome = given_away(&spread).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome}");
    let now = applied(&store).await.unwrap();
    assert_eq!(now.master.name, "c", "b is on this host, too");
    all_follow(&refs, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_says_which_master_stays_and_is_done_all_the_same() {
    let servers = started();
    let agent = agent(&servers, "on-drain = \"switch\"\n");
    all_are_shown(&agent);
    switched(&agent, "a");
    let (code, said) = asked(&agent, "drain");
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("redis-1 keeps its master here") && said.contains("no replica on another host"), "{said}");
    assert!(said.contains("drained: nothing of this host is offered"), "{said}");
}
