//! The offer of a real engine: what people do with containers is seen at once and as it is.
#![allow(clippy::unwrap_used)]

mod dockerd;
mod watched;

use std::time::{Duration, Instant};

use dockerd::Dockerd;
use watched::{Watched, endpoints, names, set};
use wharf::docker::Settings;
use wharf::model::offer::instance::{DockerStanding, Offer};
use wharf::model::offer::naming::kind;

/// The address that `watched` advertises, with a host port.
fn at(port: u16) -> String {
    format!("192.0.2.10:{port}")
}

fn docker_standing(offer: &Offer, name: &str) -> Option<DockerStanding> {
    offer.instances.values().find(|one| &*one.container_name == name).map(|one| one.docker)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_come_and_go() {
    let engine = Dockerd::start();
    engine.run("first", &["-p", "11211"]);
    let mut host = Watched::start(engine.endpoint());
    let offer = host.in_step().await;
    assert_eq!(endpoints(&offer), set([at(engine.port("first"))]));

    engine.run(
        "named",
        &["-p", "11211", "-e", "SERVICE_NAME=cache.prod", "-l", "SERVICE_TAGS=a,b", "-l", "SERVICE_TTL=30"],
    );
    let offer = host.until("the second", |offer| names(offer).contains("named")).await;
    let named = offer.instances.values().find(|one| &*one.container_name == "named").unwrap();
    assert_eq!(named.services[0].to_string(), "cache.prod");
    assert_eq!((&*named.id, named.ttl), ("node1:named:11211", Some(Duration::from_secs(30))));
    assert_eq!(named.tags.iter().map(|tag| &**tag).collect::<Vec<_>>(), ["a", "b"]);

    engine.docker(&["rename", "named", "renamed"]);
    host.until("the new name", |offer| names(offer) == set(["first", "renamed"])).await;
    engine.docker(&["rm", "-f", "renamed"]);
    host.until("no key under either name", |offer| names(offer) == set(["first"])).await;

    engine.docker(&["pause", "first"]);
    host.until("paused", |offer| docker_standing(offer, "first") == Some(DockerStanding::Paused)).await;
    engine.docker(&["unpause", "first"]);
    host.until("not paused", |offer| names(offer) == set(["first"])).await;

    let before = engine.port("first");
    engine.docker(&["restart", "-t", "1", "first"]);
    let after = engine.port("first");
    assert_ne!(before, after, "the engine gives a new port at restart");
    host.within(Duration::from_secs(1), "the new port", |offer| endpoints(offer) == set([at(after)])).await;

    engine.docker(&["kill", "-s", "HUP", "first"]);
    engine.docker(&["stop", "first"]);
    host.until("nothing", |offer| offer.instances.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_signal_withdraws_before_the_death() {
    let engine = Dockerd::start();
    // Stopped processes do not die of TERM until they go on.
    engine.run("stays", &["-p", "11211", "--stop-timeout", "0"]);
    engine.run("reloads", &["-p", "11211"]);
    let mut host = Watched::start(engine.endpoint());
    host.in_step().await;
    let pid = rustix::process::Pid::from_raw(engine.pid("stays")).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    engine.docker(&["kill", "-s", "USR1", "stays"]);
    engine.docker(&["kill", "-s", "TERM", "stays"]);
    let began = Instant::now();
    host.within(Duration::from_secs(1), "withdrawn", |offer| {
        docker_standing(offer, "stays") == Some(DockerStanding::Stopping)
    })
    .await;
    assert_eq!(docker_standing(&host.now(), "reloads"), Some(DockerStanding::Running));
    host.until("the survivor comes back", |offer| names(offer).contains("stays")).await;
    assert!(began.elapsed() >= Duration::from_secs(4));
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).unwrap();
    host.until("it dies after all", |offer| names(offer) == set(["reloads"])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn networks_are_followed() {
    let engine = Dockerd::start();
    engine.docker(&["network", "create", "--subnet", "172.30.0.0/24", "front"]);
    engine.docker(&["network", "create", "--subnet", "172.31.0.0/24", "back"]);
    // It leaves its port to the container that will share its network.
    let options = ["run", "-d", "--name", "app", "--network", "front", "--ip", "172.30.0.7"];
    engine.docker(&[&options[..], &[dockerd::IMAGE, "memcached", "-u", "root", "-p", "11299"]].concat());
    let mut settings = watched::settings();
    settings.naming.internal = true;
    settings.naming.networks = vec!["back".to_owned()];
    let mut host = Watched::with(Settings::new(engine.endpoint()), settings);
    let offer = host.in_step().await;
    assert_eq!(endpoints(&offer), set(["172.30.0.7:11211"]));
    engine.docker(&["network", "connect", "--ip", "172.31.0.9", "back", "app"]);
    host.within(Duration::from_secs(1), "the preferred network", |offer| endpoints(offer) == set(["172.31.0.9:11211"]))
        .await;
    engine.docker(&["network", "disconnect", "back", "app"]);
    host.within(Duration::from_secs(1), "the other again", |offer| endpoints(offer) == set(["172.30.0.7:11211"])).await;

    engine.run("side", &["--network", "container:app"]);
    let both = |offer: &Offer| names(offer) == set(["app", "side"]) && endpoints(offer) == set(["172.30.0.7:11211"]);
    host.until("one that shares the network", both).await;
    engine.run("lonely", &["--network", "none"]);
    let offer = host.until("one without a network", |offer| offer.skipped.len() == 1).await;
    assert_eq!(offer.skipped.values().next().unwrap()[0].kind, kind::NO_ADDRESS);
    engine.run("on-host", &["--network", "host"]);
    host.until("one on the host's", |offer| endpoints(offer).contains("192.0.2.10:11211")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_that_restarts_changes_nothing_while_processes_live() {
    let mut engine = Dockerd::start();
    engine.run("stays", &["-p", "11211"]);
    engine.run("dies", &["-p", "11211"]);
    let mut settings = watched::settings();
    // Nothing is probed: Docker and the processes are all there is to go by.
    settings.naming.checks = wharf::model::offer::naming::ChecksMode::Off;
    let mut host = Watched::with(Settings::new(engine.endpoint()), settings);
    host.in_step().await;
    let dies = rustix::process::Pid::from_raw(engine.pid("dies")).unwrap();
    engine.leave();
    let offer = host.until("the engine is away", |offer| !offer.engine).await;
    assert_eq!(names(&offer), set(["stays", "dies"]));
    rustix::process::kill_process(dies, rustix::process::Signal::KILL).unwrap();
    host.within(Duration::from_secs(1), "a dead process is withdrawn", |offer| names(offer) == set(["stays"])).await;
    engine.launch();
    let offer = host.until("it is back", |offer| offer.engine).await;
    assert_eq!(names(&offer), set(["stays"]));
    engine.run("new", &["-p", "11211"]);
    host.until("and watched", |offer| names(offer) == set(["stays", "new"])).await;
}
