//! Ambassadors as clients and servers see them: who is reached, who waits, who is cut, and who must not notice.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs, unreachable_pub)]
#![allow(clippy::print_stderr)] // what many switches did to sessions

mod apart;
mod bytes;
#[path = "../etcd/mod.rs"]
mod etcd;
mod hostile;
#[allow(dead_code)]
#[path = "../probe/servers.rs"]
mod postgres;
#[path = "../program/mod.rs"]
mod program;
#[allow(dead_code)]
#[path = "../topology/servers.rs"]
mod redis;
mod servers;
mod sessions;
mod soak;
mod switches;
mod town;

use std::time::{Duration, Instant};

use town::{Client, Server, Town, is_greeted, own_address};

const PRIMARY: &str = "service = 'db'\nrole = 'primary'\nwait = '20s'";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_follow_the_role_and_none_reaches_a_server_that_lost_it() {
    let town = Town::new(PRIMARY);
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    town.put(&a, "primary");
    town.put(&b, "replica");
    town.leads_to(&a);
    let mut client = town.client().await;
    assert_eq!(client.line().await.unwrap(), "a");
    town.put(&a, "replica");
    client.is_reset().await;
    let mut waiting = town.client().await;
    town.until("parked", &1.into());
    town.put(&b, "primary");
    assert_eq!(waiting.line().await.unwrap(), "b");
    assert!(waiting.echoes().await);
    let told = town.told("db");
    assert_eq!((&told["cut"], &told["connections"], &told["parked"]), (&1.into(), &1.into(), &0.into()), "{told}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_holder_cuts_though_the_record_of_the_first_is_gone() {
    let town = Town::new(PRIMARY);
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    town.put(&a, "primary");
    town.leads_to(&a);
    let mut client = town.client().await;
    assert_eq!(client.line().await.unwrap(), "a");
    town.delete("a");
    town.until("target", &serde_json::Value::Null);
    assert!(client.echoes().await, "what is merely gone cuts nothing");
    town.put(&b, "primary");
    client.is_reset().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_contested_or_away_keeps_what_runs_and_parks_what_comes() {
    let mut town = Town::new(PRIMARY);
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    town.put(&a, "primary");
    town.leads_to(&a);
    let mut client = town.client().await;
    assert_eq!(client.line().await.unwrap(), "a");
    town.put(&b, "primary");
    town.until("reason", &"contested".into());
    let mut waiting = town.client().await;
    town.until("parked", &1.into());
    assert!(client.echoes().await);
    town.put(&b, "replica");
    assert_eq!(waiting.line().await.unwrap(), "a");
    town.etcd.members[0].kill();
    town.agent.until("it knows that the store is away", |agent| {
        let told = agent.wharf("services -o json").stdout;
        String::from_utf8_lossy(&told).contains(r#""stale": true"#)
    });
    assert!(client.echoes().await);
    let mut late = town.client().await;
    assert_eq!(late.line().await.unwrap(), "a", "the last word stands");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nodes_word_cuts_and_a_record_that_stands_again_is_newer() {
    let town = Town::new(PRIMARY);
    let a = Server::start("a").await;
    town.put(&a, "primary");
    town.leads_to(&a);
    let mut client = town.client().await;
    assert_eq!(client.line().await.unwrap(), "a");
    town.delete("a");
    town.say(&a, "down");
    client.is_reset().await;
    town.put(&a, "primary");
    town.leads_to(&a);
    let mut client = town.client().await;
    assert_eq!(client.line().await.unwrap(), "a");
    assert!(client.echoes().await, "though the node's word is not taken back yet");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waited_long_enough_is_reset() {
    let town = Town::new("service = 'db'\nwait = '300ms'");
    let begun = Instant::now();
    town.client().await.is_reset().await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert_eq!(town.told("db")["refused"], 1);
    assert_eq!(town.told("db")["reason"], "no endpoint");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_cannot_be_reached_is_left_for_the_next() {
    let town = Town::new("service = 'db'\nbalance = 'first'");
    let b = Server::start("b").await;
    town.put_at("a", own_address(), "");
    town.put(&b, "");
    town.until("target", &format!("{}, {}", address_of(&town, "a"), b.at).into());
    let mut client = town.client().await;
    assert_eq!(client.line().await.unwrap(), "b");
}

fn address_of(town: &Town, name: &str) -> String {
    let told = town.etcd.ctl(&["get", "--print-value-only", &format!("/services/db/{name}")]);
    let record: serde_json::Value = serde_json::from_str(told.trim()).unwrap();
    format!("{}:{}", record["host"].as_str().unwrap(), record["port"])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_spread_and_those_of_a_table_without_a_role_are_kept() {
    let town = Town::new("service = 'db'");
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    town.put(&a, "primary");
    town.put(&b, "replica");
    town.until("target", &format!("{}, {}", a.at, b.at).into());
    let (mut clients, mut names) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let mut client = town.client().await;
        names.push(client.line().await.unwrap());
        clients.push(client);
    }
    names.sort();
    assert_eq!(names, ["a", "a", "b", "b"]);
    town.put(&a, "replica");
    town.put(&b, "primary");
    town.delete("a");
    town.say(&a, "down");
    town.leads_to(&b);
    for client in &mut clients {
        assert!(client.echoes().await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_adds_changes_and_ends_tables_and_touches_no_other() {
    let (at, other, more) = (own_address(), own_address(), own_address());
    let table = |name: &str, at, rest: &str| {
        format!("[[proxy]]\nname = '{name}'\nlisten = '{at}'\nservice = 'db'\nwait = '20s'\n{rest}\n")
    };
    let kept = table("db", at, "");
    let town = Town::with(at, &format!("{kept}{}", table("other", other, "")));
    let a = Server::start("a").await;
    town.put(&a, "");
    town.leads_to(&a);
    let mut client = town.client().await;
    let mut doomed = Client::open(other).await;
    assert_eq!((client.line().await.unwrap(), doomed.line().await.unwrap()), ("a".into(), "a".into()));
    let denied = table("more", more, "allow = '10.0.0.0/8'");
    std::fs::write(town.agent.settings(), format!("{kept}{denied}")).unwrap();
    town.agent.reload();
    town.agent.until("there is another table", |agent| agent.wharf("proxies more").status.success());
    doomed.is_reset().await;
    assert!(client.echoes().await);
    Client::is_refused([127, 0, 0, 1], more).await;
    std::fs::write(town.agent.settings(), format!("{kept}{}", table("more", more, ""))).unwrap();
    town.agent.reload();
    town.agent.until("it lets us in", |_| is_greeted(more, "a"));
    assert!(client.echoes().await);
    assert!(std::net::TcpStream::connect(other).is_err(), "nobody listens there any more");
}
