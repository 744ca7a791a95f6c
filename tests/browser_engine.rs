//! The status page of a whole agent, in a real browser, beside a real engine and a real etcd: a container that dies
//! vanishes without reload, and what is away is said. Pictures are kept under the target directory.
#![allow(clippy::unwrap_used, missing_docs)]

mod browser_driver;
mod dockerd;
mod etcd;
mod program;

use browser_driver::Browser;
use dockerd::Dockerd;
use etcd::Cluster;
use program::{Agent, Options};
use serde_json::json;

/// Whether the page shows this text.
fn shows(text: &str) -> String {
    format!("document.body.innerText.includes({})", json!(text))
}

#[test]
fn a_container_that_dies_vanishes_from_the_page_and_what_is_away_is_said() {
    let engine = Dockerd::start();
    let cluster = Cluster::start(1);
    for name in ["stays", "dies"] {
        // The engine's ports are in a network of its own, out of a probe's reach.
        engine.run(name, &["-p", "11211", "-e", "SERVICE_NAME=cache", "-l", "SERVICE_CHECK=none"]);
    }
    let wharf::docker::Endpoint::Unix(socket) = engine.endpoint() else { panic!("a unix socket") };
    let agent = Agent::start_with(&Options {
        engine: Some(format!("unix://{}", socket.display())),
        flags: vec![format!("--etcd-endpoints={}", cluster.endpoints().join(","))],
        ..Options::default()
    });
    let [stays, dies] = ["stays", "dies"].map(|name| format!("127.0.0.1:{}", engine.port(name)));

    let mut browser = Browser::start();
    browser.open(&format!("http://{}/", agent.address("http")));
    for seen in [&*stays, &*dies, "core-01"] {
        browser.until(&shows(seen));
    }
    browser.until("document.getElementById('state').textContent === 'live'");
    browser.value("window.notReloaded = true");
    browser.picture("engine");

    engine.docker(&["kill", "dies"]);
    browser.until(&format!("!{}", shows(&dies)));
    assert!(browser.text().contains(&stays), "the other one is still there");
    engine.run("comes", &["-p", "11211", "-e", "SERVICE_NAME=cache", "-l", "SERVICE_CHECK=none"]);
    browser.until(&shows(&format!("127.0.0.1:{}", engine.port("comes"))));

    cluster.members[0].freeze();
    browser.until("!document.getElementById('stale').hidden");
    assert!(browser.text().contains(&stays), "what was known last is still shown");
    browser.picture("engine-store-away");
    cluster.members[0].thaw();
    browser.until("document.getElementById('stale').hidden");
    assert_eq!(browser.value("window.notReloaded"), json!(true), "all of this without a reload");

    drop(agent);
    browser.until("!document.getElementById('away').hidden");
    browser.picture("engine-agent-away");
}
