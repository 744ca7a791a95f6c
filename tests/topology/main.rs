//! The switch of a real Redis master, over real connections, with the embedded store.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::cast_possible_truncation, missing_docs, unreachable_pub)]

mod agent;
mod clients;
#[path = "../steer/dice.rs"]
mod dice;
mod drain;
mod faults;
mod kills;
#[path = "../program/mod.rs"]
mod program;
mod sentinel;
mod servers;
mod tls;
mod waits;
mod writers;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use servers::{Server, roster};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use wharf::model::steer::journal::{Journal, Stage};
use wharf::model::steer::roster::Roster;
use wharf::model::steer::topology::{Applied, Desired};
use wharf::model::words::key::Prefix;
use wharf::state::topology::KeptTopology;
use wharf::steer::{Ask, Desk, Handle, Inputs, Outcome, Registry, Request, Settings};
use wharf::store::Store;
use wharf::store::embedded::Embedded;
use writers::Writers;

const SERVICE: &str = "redis-1";
const REDIS: &str = "redis-server";

/// An agent's part in steering: dropped, it is as dead as after a kill.
struct Operator {
    handle: Handle,
    _running: AbortOnDropHandle<()>,
}

fn settings(max_pause: Duration) -> Settings {
    Settings {
        service: SERVICE.to_owned(),
        servers: vec!["127.0.0.0/8".parse().unwrap()],
        user: None,
        password_file: None,
        secrets: None,
        max_pause,
        tls: false,
    }
}

fn operator(name: &str, store: &Embedded, servers: &[&Server], max_pause: Duration) -> Operator {
    operator_with(name, store, servers, settings(max_pause), None)
}

fn operator_with(
    name: &str,
    store: &Embedded,
    servers: &[&Server],
    settings: Settings,
    kept: Option<KeptTopology>,
) -> Operator {
    operator_of(name, store, roster(servers), settings, kept)
}

/// One whose registry says this of the servers.
fn operator_of(
    name: &str,
    store: &Embedded,
    roster: Roster,
    settings: Settings,
    kept: Option<KeptTopology>,
) -> Operator {
    let inputs = Inputs { kept, ..inputs(name, store, Arc::new(move |_| roster.clone())) };
    operator_on(settings, inputs)
}

/// What an operator stands on who knows of no other agents.
fn inputs(name: &str, store: &Embedded, registry: Registry) -> Inputs {
    Inputs {
        store: Arc::new(store.clone()),
        prefix: Prefix::parse("/services").unwrap(),
        owner: name.to_owned(),
        node: "core-01".to_owned(),
        kept: None,
        metrics: None,
        registry,
        agents: Arc::new(BTreeSet::new),
    }
}

fn operator_on(settings: Settings, inputs: Inputs) -> Operator {
    let (desk, handle) = Desk::new(settings, inputs);
    let running = tokio::spawn(async move {
        Box::pin(desk.run(CancellationToken::new())).await.unwrap();
    });
    Operator { handle, _running: AbortOnDropHandle::new(running) }
}

fn desired(servers: &[&Server], master: usize) -> Desired {
    let address = |server: &Server| format!(r#"{{"address":"127.0.0.1","port":{}}}"#, server.port);
    let slaves: Vec<String> = servers.iter().map(|server| address(server)).collect();
    let text = format!(r#"{{"master":{},"slaves":[{}]}}"#, address(servers[master]), slaves.join(","));
    Desired::parse(text.as_bytes()).unwrap()
}

impl Operator {
    async fn put(&self, desired: Desired) -> Outcome {
        let (reply, outcome) = oneshot::channel();
        let request = Request { ask: Ask::Apply { desired, force: false, dry_run: false }, reply };
        self.handle.requests.send(request).await.unwrap();
        timeout(Duration::from_secs(20), outcome).await.unwrap().unwrap()
    }

    /// Until it is done; somebody else may be at work for a moment.
    async fn switch(&self, servers: &[&Server], master: usize) -> Option<u64> {
        for _ in 0..100 {
            match self.put(desired(servers, master)).await {
                Outcome::Done { gap } => return gap,
                outcome => eprintln!("switch to {master}: {outcome}"),
            }
            sleep(Duration::from_millis(100)).await;
        }
        panic!("never done");
    }
}

async fn applied(store: &Embedded) -> Option<Applied> {
    let key = "/wharf/services/topology/redis-1/applied".to_owned();
    let page = store.get(&[key]).await.unwrap();
    page.items.first().map(|item| Applied::decode(&item.value).unwrap())
}

async fn journal(store: &Embedded) -> Option<Journal> {
    let key = "/wharf/services/topology/redis-1/journal".to_owned();
    let page = store.get(&[key]).await.unwrap();
    page.items.first().map(|item| Journal::decode(&item.value).unwrap())
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let tried = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(30), tried).await.unwrap_or_else(|_| panic!("never: {what}"));
}

async fn all_follow(servers: &[&Server], master: usize) {
    eventually("every replica has its link", async || {
        for (index, server) in servers.iter().enumerate() {
            let info = server.ask(&["INFO", "replication"]).await;
            let is_well = if index == master {
                info.contains("role:master")
            } else {
                info.contains("master_link_status:up")
                    && info.contains(&format!("master_port:{}\r", servers[master].port))
            };
            if !is_well {
                return false;
            }
        }
        true
    })
    .await;
}

/// Three servers, the first of them made master by a first topology.
async fn three(program: &str, store: &Embedded) -> ([Server; 3], Operator) {
    let servers = ["a", "b", "c"].map(|name| Server::start(program, name));
    let refs: Vec<&Server> = servers.iter().collect();
    let operator = operator("op-1", store, &refs, Duration::from_millis(500));
    operator.switch(&refs, 0).await;
    all_follow(&refs, 0).await;
    (servers, operator)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_under_writers_loses_nothing() {
    let count = std::env::var("WHARF_SWITCHES").ok().and_then(|count| count.parse().ok());
    let program = std::env::var("WHARF_REDIS").unwrap_or_else(|_| REDIS.to_owned());
    switches(&program, count.unwrap_or(6)).await;
}

async fn switches(program: &str, count: usize) {
    let store = Embedded::new();
    let (servers, operator) = three(program, &store).await;
    let refs: Vec<&Server> = servers.iter().collect();
    let writers = Writers::start(&store, 4, Duration::from_millis(1));
    let mut gaps = vec![];
    for turn in 0..count {
        writers.progress().await;
        let master = (turn + 1) % 3;
        gaps.push(operator.switch(&refs, master).await.unwrap());
        all_follow(&refs, master).await;
    }
    writers.progress().await;
    let told = writers.stop().await;
    let list = servers[count % 3].ask(&["LRANGE", "log", "0", "-1"]).await;
    let tally = told.against(&list);
    let syncs: Vec<String> = full_syncs(&refs).await;
    gaps.sort_unstable();
    let at = |part: usize| gaps[(gaps.len() - 1) * part / 100];
    eprintln!(
        "{program}: {count} switches, {tally:?}; gap p50 {} p99 {} most {} ms; full resyncs {syncs:?}",
        at(50),
        at(99),
        at(100)
    );
    assert_eq!((tally.missing, tally.phantom), (0, 0), "{tally:?}");
    assert!(tally.acked > 100, "{tally:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_of_valkey_loses_nothing() {
    switches(clients::folder().join("valkey-server").to_str().unwrap(), 6).await;
}

async fn full_syncs(servers: &[&Server]) -> Vec<String> {
    let mut all = vec![];
    for server in servers {
        let info = server.ask(&["INFO", "stats"]).await;
        all.extend(info.lines().find_map(|line| line.strip_prefix("sync_full:")).map(str::to_owned));
    }
    all
}

/// A stopped process still takes connections, and answers none of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_only_dns_knows_is_looked_up() {
    let store = Embedded::default();
    let (servers, operator) = three(REDIS, &store).await;
    let named = |host: &str| {
        let slaves = servers.iter().map(|server| format!(r#"{{"address":"localhost","port":{}}}"#, server.port));
        let slaves = slaves.collect::<Vec<_>>().join(",");
        let master = format!(r#"{{"address":"{host}","port":{}}}"#, servers[1].port);
        Desired::parse(format!(r#"{{"master":{master},"slaves":[{slaves}]}}"#).as_bytes()).unwrap()
    };
    let outcome = operator.put(named("no-such-name.invalid")).await;
    assert!(matches!(&outcome, Outcome::Unfound(why) if why.contains("no-such-name.invalid")), "{outcome}");
    assert!(matches!(operator.put(named("localhost")).await, Outcome::Done { .. }));
    assert_eq!(applied(&store).await.unwrap().master.name, servers[1].name);
    all_follow(&servers.each_ref(), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_hangs_is_refused_until_it_is_back() {
    let store = Embedded::new();
    let (servers, operator) = three(REDIS, &store).await;
    let refs: Vec<&Server> = servers.iter().collect();
    servers[1].signal(Signal::STOP);
    let outcome = operator.put(desired(&refs, 1)).await;
    assert_eq!(outcome, Outcome::Refused(vec!["b cannot be reached: no answer".to_owned()]));
    assert_eq!(servers[0].ask(&["RPUSH", "log", "x"]).await, ":1", "the master was left alone");
    servers[1].signal(Signal::CONT);
    all_follow(&refs, 0).await;
    operator.switch(&refs, 1).await.unwrap();
    assert_eq!(servers[1].ask(&["RPUSH", "log", "y"]).await, ":2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_whose_link_is_cut_is_refused() {
    let store = Embedded::new();
    let (servers, operator) = three(REDIS, &store).await;
    let refs: Vec<&Server> = servers.iter().collect();
    servers[1].ask(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let outcome = operator.put(desired(&refs, 1)).await;
    assert_eq!(outcome, Outcome::Refused(vec!["b is no direct replica of the master with its link up".to_owned()]));
}

/// The operator dies as soon as the journal says so; another one ends its work.
async fn a_death_at(stage: Stage) {
    let store = Embedded::new();
    let (servers, first) = three(REDIS, &store).await;
    let refs: Vec<&Server> = servers.iter().collect();
    for number in 0..50 {
        servers[0].ask(&["RPUSH", "log", &number.to_string()]).await;
    }
    eventually("it is replicated", async || servers[1].ask(&["LLEN", "log"]).await == ":50").await;
    let before = journal(&store).await.unwrap().number;
    let death = async {
        loop {
            if journal(&store).await.is_some_and(|journal| journal.number > before && journal.stage >= stage) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let handle = first.handle.clone();
    let (reply, _gone) = oneshot::channel();
    let ask = Ask::Apply { desired: desired(&refs, 1), force: false, dry_run: false };
    handle.requests.send(Request { ask, reply }).await.unwrap();
    timeout(Duration::from_secs(10), death).await.unwrap();
    drop(first);
    let second = operator("op-2", &store, &refs, Duration::from_millis(500));
    let began = std::time::Instant::now();
    eventually("the work is ended", async || journal(&store).await.unwrap().is_over()).await;
    let mut masters = vec![];
    for (index, server) in servers.iter().enumerate() {
        if server.ask(&["INFO", "replication"]).await.contains("role:master") {
            masters.push(index);
        }
    }
    assert_eq!(masters.len(), 1, "{masters:?}");
    assert_eq!(servers[masters[0]].ask(&["LLEN", "log"]).await, ":50");
    assert_eq!(servers[masters[0]].ask(&["RPUSH", "log", "x"]).await, ":51");
    let named = applied(&store).await.unwrap().master.name;
    assert_eq!(named, servers[masters[0]].name);
    all_follow(&refs, masters[0]).await;
    eprintln!("{stage:?}: {named} is master, {:?} after the death", began.elapsed());
    drop(second);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_dies_after_the_intent_is_followed() {
    a_death_at(Stage::Intent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_dies_after_the_decision_is_followed() {
    a_death_at(Stage::Promote).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_that_dies_after_publishing_is_followed() {
    a_death_at(Stage::Publish).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_that_is_restarted_frozen_is_master_again_with_all_it_had() {
    let store = Embedded::new();
    let (mut servers, operator) = three(REDIS, &store).await;
    for number in 0..50 {
        servers[0].ask(&["RPUSH", "log", &number.to_string()]).await;
    }
    servers[0].down();
    servers[0].up();
    assert!(servers[0].ask(&["RPUSH", "log", "x"]).await.starts_with("-READONLY"), "it comes back frozen");
    eventually("it takes writes again", async || servers[0].ask(&["RPUSH", "log", "x"]).await == ":51").await;
    let refs: Vec<&Server> = servers.iter().collect();
    all_follow(&refs, 0).await;
    assert_eq!(servers[1].ask(&["LLEN", "log"]).await, ":51");
    drop(operator);
}
