//! Courses of events against a stand-in engine: what registrator got wrong, and faults that a real engine does not make
//! on demand. The names are those of the scenarios in `data/registrator_cases.json` where there is one.
#![allow(clippy::unwrap_used)]

mod engine;
mod watched;

use std::time::{Duration, Instant};

use engine::{Engine, container, event, id, kill};
use serde_json::json;
use watched::{Watched, endpoints, names, set};
use wharf::model::offer::instance::DockerStanding;
use wharf::model::offer::naming::kind;

#[tokio::test]
async fn start_sync() {
    let engine = Engine::start().await;
    engine.add(container(1, "redis", 6379, 10_001));
    engine.add(container(2, "memcached", 11211, 10_002));
    let mut host = Watched::start(engine.endpoint());
    let offer = host.in_step().await;
    assert_eq!(endpoints(&offer), set(["192.0.2.10:10001", "192.0.2.10:10002"]));
}

#[tokio::test]
async fn list_before_subscribe() {
    for _ in 0..15 {
        let engine = Engine::start().await;
        let mut host = Watched::start(engine.endpoint());
        host.in_step().await;
        let requests = engine.requests();
        let place = |what: &str| requests.iter().position(|request| request.contains(what)).unwrap();
        assert!(place("/events?") < place("/containers/json"), "{requests:?}");
        assert!(requests.iter().all(|request| request.starts_with("GET ")), "{requests:?}");
        let events = &requests[place("/events?")];
        assert!(events.contains("filters=") && !events.contains("since="), "{events}");
    }
}

#[tokio::test]
async fn start_die_same_instant() {
    let engine = Engine::start().await;
    let mut host = Watched::start(engine.endpoint());
    host.in_step().await;
    for number in 0..200 {
        // Inspected while it still runs, or when it is gone: either may be.
        engine.add(container(number, "redis", 6379, 10_000));
        let pair = [event("start", &id(number)), event("die", &id(number))];
        if number % 2 == 0 {
            engine.remove(&id(number));
        }
        engine.emit(&pair);
    }
    engine.run(container(999, "redis", 6379, 9_999));
    host.until("the last one is offered", |offer| names(offer).contains("c999")).await;
    // Every look under way has ended once the engine is silent; a ghost would stay.
    host.until("no ghosts", |offer| names(offer) == set(["c999"])).await;
    settled(&engine).await;
    assert_eq!(names(&host.now()), set(["c999"]), "ghosts");
}

#[tokio::test]
async fn die_start_same_instant() {
    let engine = Engine::start().await;
    for number in 0..200 {
        engine.add(container(number, "redis", 6379, 10_000));
    }
    let mut host = Watched::start(engine.endpoint());
    let offer = host.in_step().await;
    assert_eq!(names(&offer).len(), 200);
    for number in 0..200 {
        let new_port = container(number, "redis", 6379, 20_000);
        engine.add(new_port);
        engine.emit(&[event("die", &id(number)), event("start", &id(number))]);
    }
    let all_new = |offer: &wharf::model::offer::instance::Offer| {
        names(offer).len() == 200 && endpoints(offer) == set(["192.0.2.10:20000"])
    };
    host.until("all 200 are offered with their new port", all_new).await;
    settled(&engine).await;
    assert!(all_new(&host.now()), "missing");
}

/// Until no request has come for a while.
async fn settled(engine: &Engine) {
    let mut count = engine.requests().len();
    loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = engine.requests().len();
        if now == count {
            return;
        }
        count = now;
    }
}

#[tokio::test]
async fn slow_inspect_blocks_others() {
    let engine = Engine::start().await;
    let mut host = Watched::start(engine.endpoint());
    host.in_step().await;
    engine.slow(&id(1), Duration::from_secs(4));
    engine.run(container(1, "redis", 6379, 10_001));
    engine.run(container(2, "redis", 6379, 10_002));
    host.within(Duration::from_secs(1), "the other is offered", |offer| names(offer) == set(["c2"])).await;
    host.until("the slow one too", |offer| names(offer) == set(["c1", "c2"])).await;
}

#[tokio::test]
async fn hanging_inspects_end_and_leave_room() {
    let engine = Engine::start().await;
    for number in 0..20 {
        engine.slow(&id(number), Duration::from_secs(3600));
        engine.add(container(number, "redis", 6379, 10_000));
    }
    let mut docker = wharf::docker::Settings::new(engine.endpoint());
    docker.inspect_deadline = Duration::from_millis(200);
    let mut host = Watched::with(docker, watched::settings());
    let offer = host.in_step().await;
    assert_eq!(offer.skipped.len(), 20, "each is shown with a reason");
    for number in 100..110 {
        engine.run(container(number, "redis", 6379, 10_000));
    }
    host.until("those that answer are offered", |offer| names(offer).len() == 10).await;
    engine.slow(&id(0), Duration::ZERO);
    host.until("one that answers again is offered", |offer| names(offer).contains("c0")).await;
}

#[tokio::test]
async fn event_stream_eof() {
    let engine = Engine::start().await;
    for number in 0..3 {
        engine.add(container(number, "redis", 6379, 10_000 + u16::try_from(number).unwrap()));
    }
    let mut host = Watched::start(engine.endpoint());
    host.in_step().await;
    engine.run(container(7, "redis", 6379, 10_007));
    host.until("it is offered", |offer| names(offer).contains("c7")).await;
    engine.forget_requests();
    let began = Instant::now();
    engine.drop_streams();
    engine.remove(&id(0));
    engine.add(container(1, "redis", 6379, 20_001));
    engine.add(container(5, "redis", 6379, 10_005));
    let expected = set(["192.0.2.10:20001", "192.0.2.10:10002", "192.0.2.10:10005", "192.0.2.10:10007"]);
    host.within(Duration::from_secs(2), "the changes are seen", |offer| endpoints(offer) == expected).await;
    assert!(began.elapsed() < Duration::from_secs(2));
    let requests = engine.requests();
    let resumed = requests.iter().find(|request| request.contains("/events?")).unwrap();
    assert!(resumed.contains("since=17"), "{resumed}");
}

#[tokio::test]
async fn a_container_restarted_between_two_looks_is_another_life() {
    let engine = Engine::start().await;
    engine.add(container(0, "redis", 6379, 10_000));
    let mut host = Watched::start(engine.endpoint());
    let started =
        |offer: &wharf::model::offer::instance::Offer| offer.instances.values().map(|it| it.started.clone()).next();
    let first = host.in_step().await;
    assert_eq!(started(&first).as_deref(), Some("2026-01-01T00:00:00Z"));
    // The same port again, and no event of it is ever heard.
    engine.change(&id(0), |inspect| inspect["State"]["StartedAt"] = "2026-01-01T00:07:00Z".into());
    engine.drop_streams();
    host.until("the new life", |offer| started(offer).as_deref() == Some("2026-01-01T00:07:00Z")).await;
}

#[tokio::test]
async fn docker_down_at_start() {
    let mut engine = Engine::start().await;
    engine.add(container(1, "redis", 6379, 10_001));
    engine.leave().await;
    let mut host = Watched::start(engine.endpoint());
    let offer = host.until("the engine is away", |offer| !offer.engine).await;
    assert!(!offer.listed);
    engine.listen();
    let offer = host.in_step().await;
    assert_eq!(names(&offer), set(["c1"]));
}

#[tokio::test]
async fn an_engine_away_takes_nothing_with_it() {
    let mut engine = Engine::start().await;
    engine.add(container(1, "redis", 6379, 10_001));
    let mut host = Watched::start(engine.endpoint());
    host.in_step().await;
    engine.leave().await;
    let offer = host.until("the engine is away", |offer| !offer.engine).await;
    assert_eq!(names(&offer), set(["c1"]));
    engine.remove(&id(1));
    engine.add(container(2, "redis", 6379, 10_002));
    engine.listen();
    host.until("it is in step again", |offer| offer.engine && names(offer) == set(["c2"])).await;
}

#[tokio::test]
async fn an_engine_upgraded_under_the_agent() {
    let mut engine = Engine::start().await;
    engine.add(container(1, "redis", 6379, 10_001));
    let mut host = Watched::start(engine.endpoint());
    host.in_step().await;
    assert!(engine.requests().iter().any(|request| request.contains("/v1.41/events")));
    for (version, oldest, spoken) in [
        ((1, 52), (1, 44), "/v1.52/"),
        ((1, 60), (1, 44), "/v1.52/"),
        ((1, 47), (1, 24), "/v1.47/"),
        ((1, 60), (1, 55), "/v1.60/"),
    ] {
        engine.leave().await;
        host.until("the engine is away", |offer| !offer.engine).await;
        engine.forget_requests();
        engine.speaks(version, oldest);
        engine.change(&id(1), |inspect| {
            // Newer engines drop the top-level fields.
            inspect["NetworkSettings"].as_object_mut().unwrap().remove("IPAddress");
        });
        engine.listen();
        host.until("it is watched again", |offer| offer.engine && names(offer) == set(["c1"])).await;
        engine.run(container(2, "redis", 6379, 10_002));
        host.until("its events are seen", |offer| names(offer) == set(["c1", "c2"])).await;
        engine.die(&id(2));
        host.until("in both directions", |offer| names(offer) == set(["c1"])).await;
        let requests = engine.requests();
        assert!(requests.iter().any(|request| request.contains(&format!("{spoken}events"))), "{requests:?}");
    }
}

#[tokio::test]
async fn a_frozen_engine_is_away() {
    let engine = Engine::start().await;
    engine.add(container(1, "redis", 6379, 10_001));
    let mut docker = wharf::docker::Settings::new(engine.endpoint());
    (docker.ping_interval, docker.answer_deadline) = (Duration::from_millis(100), Duration::from_millis(200));
    let mut host = Watched::with(docker, watched::settings());
    host.in_step().await;
    engine.freeze(true);
    host.until("it is away", |offer| !offer.engine).await;
    engine.freeze(false);
    host.until("it is back", |offer| offer.engine && names(offer) == set(["c1"])).await;
}

#[tokio::test]
async fn an_event_the_engine_dropped_is_made_good_by_the_list() {
    let engine = Engine::start().await;
    engine.add(container(1, "redis", 6379, 10_001));
    let mut docker = wharf::docker::Settings::new(engine.endpoint());
    docker.relist_interval = Duration::from_millis(100);
    let mut host = Watched::with(docker, watched::settings());
    host.in_step().await;
    engine.remove(&id(1));
    engine.add(container(2, "redis", 6379, 10_002));
    host.until("the list says it", |offer| names(offer) == set(["c2"])).await;
}

#[tokio::test]
async fn bad_container_kills_agent() {
    let engine = Engine::start().await;
    let mut host = Watched::start(engine.endpoint());
    host.in_step().await;
    let mut web = container(1, "nginx", 80, 8080);
    web["Name"] = json!("/web");
    engine.run(web);
    let mut bad = container(2, "redis", 6379, 0);
    bad["HostConfig"]["NetworkMode"] = json!("container:web");
    bad["NetworkSettings"] = json!({});
    engine.run(bad);
    let offer = host.until("it has a reason", |offer| offer.skipped.contains_key(&*id(2))).await;
    assert_eq!(offer.skipped[&*id(2)][0].kind, kind::NETWORK_CONTAINER);
    assert_eq!(names(&offer), set(["web"]));
}

#[tokio::test]
async fn malformed_inspects_never_stop_the_agent() {
    let engine = Engine::start().await;
    engine.add(container(1, "redis", 6379, 10_001));
    let null_env = json!({"Id": id(2), "Name": null, "State": {"Running": true}, "Config": null, "HostConfig": null, "NetworkSettings": null});
    engine.add(null_env);
    let mut no_networks = container(3, "redis", 6379, 10_003);
    no_networks["NetworkSettings"] = json!({"Ports": {"6379/tcp": [{"HostIp": "0.0.0.0", "HostPort": "10003"}]}});
    no_networks["Config"]["Env"] = json!(null);
    engine.add(no_networks);
    let mut one_letter = container(4, "r", 6379, 10_004);
    one_letter["Name"] = json!("/x");
    engine.add(one_letter);
    let mut huge_label = container(5, "redis", 6379, 10_005);
    huge_label["Config"]["Labels"] = json!({"SERVICE_REGION": "x".repeat(64 * 1024), "other": "y".repeat(64 * 1024)});
    engine.add(huge_label);
    let mut many_ports = container(6, "redis", 6379, 10_006);
    for port in 1..=10_000 {
        many_ports["NetworkSettings"]["Ports"][format!("{port}/tcp")] =
            json!([{"HostIp": "0.0.0.0", "HostPort": port.to_string()}]);
    }
    engine.add(many_ports);
    let mut bad_ports = container(7, "redis", 6379, 10_007);
    bad_ports["NetworkSettings"]["Ports"] = json!({"0/tcp": [{"HostPort": "1"}], "x": null, "70000/tcp": [], "80/tcp": [{"HostIp": "?", "HostPort": "99999"}]});
    engine.add(bad_ports);
    engine.add(container(8, "redis", 6379, 10_008));
    engine.spoil(&id(8), 200, "{\"Id\":");
    engine.add(container(9, "redis", 6379, 10_009));
    engine.spoil(&id(9), 500, "out of order");
    // A state that no engine knows yet, in the list too.
    let mut new_state = container(11, "redis", 6379, 10_011);
    new_state["State"] = json!({"Status": "thriving", "Running": true, "Pid": "7"});
    engine.add(new_state);
    let mut host = Watched::start(engine.endpoint());
    let offer = host.in_step().await;
    assert_eq!(names(&offer), set(["c1", "c3", "x", "c5", "c6", "c11"]));
    let kinds = |number: usize| -> Vec<&str> { offer.skipped[&*id(number)].iter().map(|one| one.kind).collect() };
    assert_eq!(kinds(2), [kind::NO_PORTS]);
    assert_eq!(kinds(5), [kind::TOO_MUCH_TEXT], "what it says too much is left out, and it is offered");
    assert_eq!(offer.instances.values().filter(|one| &*one.container_name == "c6").count(), 64);
    assert!(kinds(6).len() <= 257, "256 ports are shown, and the number of the others");
    let skipped = format!("wharf_skipped_ports{{reason=\"too-many-ports\"}} {}", 10_000 - 64);
    assert!(host.metrics().contains(&skipped), "{}", host.metrics());
    assert_eq!(kinds(7).len(), 5, "four that are no ports, and 6379, which is only exposed");
    assert_eq!((kinds(8), kinds(9)), (vec![kind::INSPECT], vec![kind::INSPECT]));
    assert!(host.metrics().contains("wharf_skipped_ports{reason=\"inspect\"} 2"), "{}", host.metrics());
    engine.mend(&id(8));
    host.until("one that is readable again is offered", |offer| names(offer).contains("c8")).await;
    engine.emit_raw(b"no event\n{\"Type\":\"container\",\"Action\":\"start\"}\n");
    engine.run(container(10, "redis", 6379, 10_010));
    host.until("events after a bad one are seen", |offer| names(offer).contains("c10")).await;
}

#[tokio::test]
async fn what_an_unreadable_event_hides_is_made_good_at_once() {
    let engine = Engine::start().await;
    let mut host = Watched::start(engine.endpoint());
    host.in_step().await;
    for (number, bad) in [&b"no event\n"[..], b"{\"Type\":7}\n", b"{\"Type\":\"unheard-of\"}\n"].iter().enumerate() {
        engine.run(container(number, "redis", 6379, 10_000));
        let name = format!("c{number}");
        host.until("it is offered", |offer| offer.engine && names(offer).contains(&name)).await;
        engine.forget_requests();
        engine.add(container(100 + number, "redis", 6379, 10_000));
        // What comes in the same piece is lost with it.
        let hidden = event("start", &id(100 + number)).to_string() + "\n";
        engine.emit_raw(&[bad, hidden.as_bytes()].concat());
        let name = format!("c{}", 100 + number);
        host.within(Duration::from_secs(2), "what it hid", |offer| offer.engine && names(offer).contains(&name)).await;
        let requests = engine.requests();
        let again = requests.iter().find(|request| request.contains("/events?")).unwrap();
        assert!(!again.contains("since="), "it would come again: {again}");
        let counted = format!("wharf_docker_unreadable_events_total {}", number + 1);
        assert!(host.metrics().contains(&counted), "{}", host.metrics());
    }
}

#[tokio::test]
async fn shared_service_id_on_one_host() {
    let engine = Engine::start().await;
    for number in 1..=2 {
        let mut shared = container(number, "redis", 6379, 10_000 + u16::try_from(number).unwrap());
        shared["Config"]["Env"] = json!(["SERVICE_ID=redis"]);
        engine.add(shared);
    }
    let mut host = Watched::start(engine.endpoint());
    let offer = host.in_step().await;
    assert_eq!(names(&offer), set(["c1", "c2"]));
    engine.die(&id(1));
    host.until("the other stays", |offer| names(offer) == set(["c2"])).await;
}

#[tokio::test]
async fn rename_health_pause_and_networks_are_seen() {
    let engine = Engine::start().await;
    engine.add(container(1, "redis", 6379, 10_001));
    let mut settings = watched::settings();
    settings.naming.internal = true;
    let mut host = Watched::with(wharf::docker::Settings::new(engine.endpoint()), settings);
    host.in_step().await;
    engine.change(&id(1), |one| one["Name"] = json!("/renamed"));
    engine.emit(&[event("rename", &id(1))]);
    host.until("the new name", |offer| names(offer) == set(["renamed"])).await;
    for (health, expected) in [("unhealthy", DockerStanding::Unhealthy), ("healthy", DockerStanding::Healthy)] {
        engine.change(&id(1), |one| one["State"]["Health"] = json!({"Status": health}));
        engine.emit(&[event(&format!("health_status: {health}"), &id(1))]);
        host.until(health, |offer| offer.instances.values().all(|one| one.docker == expected)).await;
    }
    engine.change(&id(1), |one| one["State"]["Paused"] = json!(true));
    engine.emit(&[event("pause", &id(1))]);
    host.until("paused", |offer| offer.instances.values().all(|one| one.docker == DockerStanding::Paused)).await;
    engine.change(&id(1), |one| one["State"]["Paused"] = json!(false));
    engine.emit(&[event("unpause", &id(1))]);
    host.until("it goes on", |offer| names(offer) == set(["renamed"])).await;
    engine.change(&id(1), |one| one["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] = json!("172.17.0.99"));
    let mut connect = json!({"Type": "network", "Action": "connect", "Actor": {"ID": "net", "Attributes": {}}});
    connect["Actor"]["Attributes"]["container"] = json!(id(1));
    engine.emit(&[connect]);
    host.within(Duration::from_secs(1), "the new address", |offer| endpoints(offer) == set(["172.17.0.99:6379"])).await;
}

#[tokio::test]
async fn a_stop_signal_withdraws_at_once_and_another_changes_nothing() {
    let engine = Engine::start().await;
    for number in 1..=2 {
        let mut one = container(number, "redis", 6379, 10_000);
        // Its time to stop is over at once; five seconds more and it has survived.
        one["Config"]["StopTimeout"] = json!(0);
        one["Config"]["StopSignal"] = json!(if number == 1 { "SIGUSR1" } else { "SIGTERM" });
        engine.add(one);
    }
    let mut host = Watched::start(engine.endpoint());
    host.in_step().await;
    engine.emit(&[kill(&id(1), 1), kill(&id(2), 10), kill(&id(2), 28)]);
    engine.run(container(3, "redis", 6379, 10_003));
    host.until("c3", |offer| names(offer) == set(["c1", "c2", "c3"])).await;
    let began = Instant::now();
    engine.emit(&[kill(&id(1), 10), kill(&id(2), 15)]);
    let offer = host.within(Duration::from_secs(1), "withdrawn", |offer| names(offer) == set(["c3"])).await;
    assert_eq!(offer.instances.len(), 3, "it is known as stopping");
    engine.die(&id(2));
    host.until("gone", |offer| offer.instances.len() == 2).await;
    host.until("the survivor comes back", |offer| names(offer) == set(["c1", "c3"])).await;
    assert!(began.elapsed() >= Duration::from_secs(5), "not before five seconds");
}

#[tokio::test]
async fn dead_container_added() {
    let engine = Engine::start().await;
    let mut host = Watched::start(engine.endpoint());
    host.in_step().await;
    let mut dead = container(1, "redis", 6379, 10_001);
    dead["State"] = json!({"Status": "exited", "Running": false});
    engine.run(dead);
    engine.run(container(2, "redis", 6379, 10_002));
    host.until("the living one", |offer| names(offer) == set(["c2"])).await;
    settled(&engine).await;
    assert_eq!(names(&host.now()), set(["c2"]));
}

#[tokio::test]
async fn initial_sync_500() {
    let engine = Engine::start().await;
    engine.every_inspect_takes(Duration::from_millis(2));
    for number in 0..500 {
        engine.add(container(number, "app", 80, 10_000 + u16::try_from(number).unwrap()));
    }
    let mut host = Watched::start(engine.endpoint());
    let offer = host.in_step().await;
    assert_eq!(endpoints(&offer).len(), 500);
    assert_eq!(engine.most_inspecting(), 8, "at most eight inspects at once");
}

#[tokio::test]
async fn a_changed_address_is_followed() {
    let engine = Engine::start().await;
    engine.add(container(1, "redis", 6379, 10_001));
    let mut host = Watched::start(engine.endpoint());
    host.in_step().await;
    let none = wharf::model::offer::advertise::HostAddresses::default();
    host.addresses.send_replace(none.into());
    let offer = host.until("there is none", |offer| offer.instances.is_empty()).await;
    assert_eq!(offer.skipped[&*id(1)][0].kind, kind::NO_ADDRESS);
    let mut other = watched::addresses();
    other.source_v4 = "198.51.100.7".parse().ok();
    host.addresses.send_replace(other.into());
    host.until("another", |offer| endpoints(offer) == set(["198.51.100.7:10001"])).await;
}

#[tokio::test]
async fn what_changes_nothing_is_not_told() {
    let engine = Engine::start().await;
    engine.add(container(1, "redis", 6379, 10_001));
    let mut docker = wharf::docker::Settings::new(engine.endpoint());
    docker.relist_interval = Duration::from_millis(50);
    let mut host = Watched::with(docker, watched::settings());
    host.in_step().await;
    host.offer.mark_unchanged();
    engine.forget_requests();
    engine.emit(&[event("update", &id(1)), event("exec_start: sh", &id(1)), event("oom", &id(1))]);
    let looked = |request: &String| request.contains(&id(1));
    while engine.requests().iter().filter(|request| request.contains("/containers/json")).count() < 3
        || !engine.requests().iter().any(looked)
    {
        tokio::task::yield_now().await;
    }
    assert!(!host.offer.has_changed().unwrap(), "{:?}", host.now());
}
