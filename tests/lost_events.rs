//! What an engine says twice, too late, or not at all: nothing stays wrong for longer than until the next list.
#![allow(clippy::unwrap_used)]

mod engine;
mod watched;

use std::time::Duration;

use engine::{Engine, container, event, id, kill};
use serde_json::{Value, json};
use watched::{Watched, endpoints, names, set};
use wharf::docker::Settings;
use wharf::model::offer::naming::kind;

/// Settings with which the list is compared often.
fn comparing(engine: &Engine) -> Settings {
    Settings { relist_interval: Duration::from_millis(100), ..Settings::new(engine.endpoint()) }
}

/// A container that runs, is offered, and to which something happens that no event tells.
async fn check(happens: impl FnOnce(&mut Value), expected: &str) {
    let engine = Engine::start().await;
    engine.add(container(1, "redis", 6379, 10_001));
    engine.add(container(2, "redis", 6379, 10_002));
    let mut host = Watched::with(comparing(&engine), watched::settings());
    host.in_step().await;
    engine.change(&id(1), happens);
    let as_expected = |offer: &wharf::model::offer::instance::Offer| {
        let one = offer.instances.values().find(|one| one.id.contains("6379") && &*one.container_name != "c2");
        let shown = one.map(|one| format!("{} {} {:?}", one.container_name, one.port, one.docker));
        shown.unwrap_or_default() == expected && names(offer).contains("c2")
    };
    host.until(expected, as_expected).await;
}

#[tokio::test]
async fn whatever_no_event_told_shows_in_the_next_list() {
    let port = |port: u16| json!([{"HostIp": "0.0.0.0", "HostPort": port.to_string()}]);
    check(|one| one["NetworkSettings"]["Ports"]["6379/tcp"] = port(20_001), "c1 20001 Running").await;
    check(|one| one["Name"] = json!("/other"), "other 10001 Running").await;
    check(|one| one["State"]["Status"] = json!("paused"), "c1 10001 Paused").await;
    check(|one| one["State"]["Running"] = json!(false), "").await;
}

#[tokio::test]
async fn a_restart_that_no_event_told_is_another_life() {
    let engine = Engine::start().await;
    let mut long_up = container(1, "redis", 6379, 10_001);
    long_up["Status"] = json!("Up 3 hours");
    engine.add(long_up);
    let mut host = Watched::with(comparing(&engine), watched::settings());
    host.in_step().await;
    engine.change(&id(1), |one| {
        one["State"]["StartedAt"] = json!("2026-01-01T03:00:00Z");
        one["Status"] = json!("Up Less than a second");
    });
    let newly = |offer: &wharf::model::offer::instance::Offer| {
        offer.instances.values().any(|one| &*one.started == "2026-01-01T03:00:00Z")
    };
    host.until("the new life", newly).await;
}

#[tokio::test]
async fn the_list_is_compared_once_more_soon_after_subscribing() {
    let engine = Engine::start().await;
    engine.add(container(1, "redis", 6379, 10_001));
    let mut host = Watched::start(engine.endpoint());
    host.in_step().await;
    engine.add(container(2, "redis", 6379, 10_002));
    host.within(Duration::from_secs(10), "what fell into the gap", |offer| names(offer) == set(["c1", "c2"])).await;
}

#[tokio::test]
async fn an_entry_that_stays_as_it_was_is_not_looked_at() {
    let engine = Engine::start().await;
    engine.add(container(1, "redis", 6379, 10_001));
    let mut host = Watched::with(comparing(&engine), watched::settings());
    host.in_step().await;
    engine.forget_requests();
    let lists = |engine: &Engine| engine.requests().iter().filter(|line| line.ends_with("/containers/json")).count();
    while lists(&engine) < 5 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(!engine.requests().iter().any(|line| line.contains(&id(1))), "{:?}", engine.requests());
}

#[tokio::test]
async fn an_outlived_signal_that_is_told_again_withdraws_nobody() {
    let engine = Engine::start().await;
    let mut stubborn = container(1, "redis", 6379, 10_001);
    stubborn["Config"]["StopTimeout"] = json!(0);
    engine.add(stubborn);
    let mut host = Watched::start(engine.endpoint());
    host.in_step().await;
    engine.emit(&[kill(&id(1), 15)]);
    host.until("it is withdrawn", |offer| names(offer).is_empty()).await;
    host.until("it has survived", |offer| names(offer) == set(["c1"])).await;
    let mut offers = host.offer.clone();
    offers.mark_unchanged();
    engine.drop_streams();
    engine.run(container(2, "redis", 6379, 10_002));
    let withdrawn = |offer: &wharf::model::offer::instance::Offer| !names(offer).contains("c1");
    let waits = host.until("the stream is back", |offer| names(offer).contains("c2"));
    tokio::select! {
        biased;
        _ = offers.wait_for(|offer| withdrawn(offer)) => panic!("withdrawn"),
        offer = waits => assert!(!withdrawn(&offer)),
    }
    assert!(engine.requests().iter().any(|line| line.contains("since=17")));
}

#[tokio::test]
async fn podman_s_words_are_understood() {
    let engine = Engine::start().await;
    for number in 1..=3 {
        engine.add(container(number, "redis", 6379, 10_000 + u16::try_from(number).unwrap()));
    }
    let mut host = Watched::start(engine.endpoint());
    host.in_step().await;
    for (number, word) in [(1, "died"), (2, "remove")] {
        // It still runs when it is looked at; the word alone tells.
        engine.emit(&[event(word, &id(number))]);
        host.within(Duration::from_secs(1), word, |offer| !names(offer).contains(&format!("c{number}"))).await;
    }
    let asked = engine.requests();
    assert!(asked.iter().any(|line| line.contains("died") && line.contains("remove")), "{asked:?}");
}

#[tokio::test]
async fn a_slow_list_comes_at_last_and_events_go_on() {
    let engine = Engine::start().await;
    engine.add(container(1, "redis", 6379, 10_001));
    engine.slow_path("/containers/json", Duration::from_millis(900));
    let docker = Settings { list_deadline: Duration::from_millis(100), ..Settings::new(engine.endpoint()) };
    let mut host = Watched::with(docker, watched::settings());
    host.until("subscribed", |offer| offer.engine).await;
    engine.run(container(2, "redis", 6379, 10_002));
    host.until("an event meanwhile", |offer| names(offer).contains("c2")).await;
    host.in_step().await;
    assert_eq!(names(&host.now()), set(["c1", "c2"]));
    let opened = engine.requests().iter().filter(|line| line.contains("/events?")).count();
    assert_eq!(opened, 1, "the connection is the same all the time");
}

#[tokio::test]
async fn a_slow_inspect_comes_at_last() {
    let engine = Engine::start().await;
    engine.slow(&id(1), Duration::from_millis(500));
    engine.add(container(1, "redis", 6379, 10_001));
    let docker = Settings { inspect_deadline: Duration::from_millis(100), ..Settings::new(engine.endpoint()) };
    let mut host = Watched::with(docker, watched::settings());
    host.until("it is offered", |offer| names(offer) == set(["c1"])).await;
}

#[tokio::test(start_paused = true)]
async fn a_ping_of_three_seconds_is_no_reason_to_look_at_everything() {
    let engine = Engine::start().await;
    engine.add(container(1, "redis", 6379, 10_001));
    let mut host = Watched::start(engine.endpoint());
    host.in_step().await;
    engine.slow_path("/_ping", Duration::from_millis(3500));
    engine.forget_requests();
    let pings = |engine: &Engine| engine.requests().iter().filter(|line| line.ends_with("/_ping")).count();
    while pings(&engine) < 4 {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(!engine.requests().iter().any(|line| line.contains(&id(1))), "{:?}", engine.requests());
}

/// One on a user's network that publishes nothing.
fn unpublished(number: usize, network: &str, address: &str) -> Value {
    let mut one = container(number, "redis", 6379, 0);
    one["HostConfig"]["NetworkMode"] = json!(network);
    one["NetworkSettings"] = json!({"Ports": {}, "Networks": {network: {"NetworkID": network, "IPAddress": address}}});
    one
}

#[tokio::test]
async fn an_address_that_only_this_host_has_is_not_published() {
    let engine = Engine::start().await;
    engine.add_network("lan", json!({"Driver": "macvlan"}));
    engine.add_network("flat", json!({"Driver": "ipvlan", "Internal": false}));
    engine.add_network("inside", json!({"Driver": "bridge", "Internal": true}));
    engine.add_network("cut", json!({"Driver": "macvlan", "Internal": true}));
    engine.add_network("over", json!({"Driver": "overlay"}));
    engine.spoil("/networks/secret", 403, "{\"message\":\"Forbidden\"}");
    for (number, network) in ["lan", "flat", "inside", "cut", "over", "secret", "gone"].iter().enumerate() {
        engine.add(unpublished(number, network, &format!("10.1.0.{number}")));
    }
    let mut host = Watched::start(engine.endpoint());
    let offer = host.in_step().await;
    assert_eq!(endpoints(&offer), set(["10.1.0.0:6379", "10.1.0.1:6379"]));
    for (number, why) in [(2, "no other host"), (3, "no other host"), (4, "no other host"), (5, "403"), (6, "404")] {
        let skipped = &offer.skipped[&*id(number)][0];
        assert!(skipped.kind == kind::NOT_PUBLISHED && skipped.reason.contains(why), "{skipped:?}");
    }
    engine.run(unpublished(20, "lan", "10.1.0.20"));
    host.until("a second one", |offer| endpoints(offer).contains("10.1.0.20:6379")).await;
    let asked = engine.requests().iter().filter(|line| line.ends_with("/networks/lan")).count();
    assert_eq!(asked, 1, "a network is asked for once");
}

#[tokio::test]
async fn a_network_that_cannot_be_read_leaves_its_containers_as_they_were() {
    let engine = Engine::start().await;
    engine.add_network("lan", json!({"Driver": "macvlan"}));
    engine.spoil("/networks/lan", 500, "out of order");
    engine.add(unpublished(1, "lan", "10.1.0.1"));
    let mut host = Watched::start(engine.endpoint());
    host.until("it has a reason", |offer| offer.skipped.contains_key(&*id(1))).await;
    engine.mend("/networks/lan");
    host.until("it is offered", |offer| endpoints(offer) == set(["10.1.0.1:6379"])).await;
}
