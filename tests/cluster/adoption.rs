//! What a restarted agent takes over of its earlier life, and what it does not.

use std::time::Duration;

use crate::lab::{self, eventually, redis};

#[path = "../probe/dump.rs"]
mod dump;

const NAME: &str = "loads.services.internal";

#[test]
fn a_redis_restarted_while_the_agent_was_away_is_found_again_only_when_it_has_loaded() {
    let lab = lab::alone();
    let host = lab.host(1);
    let folder = host.dir().join("dump");
    std::fs::create_dir_all(&folder).unwrap();
    // The lease outlives all that happens: only the agent itself withdraws the record.
    let mut agent = host.wharf().lease_ttl(Duration::from_secs(120)).start();
    let volume = format!("{}:/data", folder.display());
    let spec = redis().name("loads").env("SERVICE_NAME", "loads").publish(6379).option("-v").option(&volume);
    let store = host.run(spec.arguments(&[&["--dir", "/data"], &dump::SLOWLY[..]].concat()));
    let at = [host.at(6379)];
    eventually("it is found", || host.dig(NAME, "SRV").is(&at));

    agent.process().kill();
    // A minute and more to read, unless it is told to hurry.
    dump::dump(&folder, 100_000);
    store.restart();
    agent.process().start_again();
    eventually("it loads, and that is known", || {
        let local = agent.json("/v1/local")?;
        let instance = &local["instances"][0];
        // Down, where it failed often enough before its record was found.
        let loads = ["starting", "down"].iter().any(|state| instance["state"] == *state);
        let loads = loads && instance["error"] == "loading its data";
        if loads && instance["published"] == false { Ok(()) } else { Err(local.to_string()) }
    });
    eventually("nobody is sent to it", || host.dig(NAME, "SRV").is_nothing());
    assert_eq!(lab.etcd().keys("/services/loads/"), Vec::<String>::new());

    store.exec(&["/usr/bin/redis-cli", "config", "set", "key-load-delay", "0"]);
    eventually("it is found again", || host.dig(NAME, "SRV").is(&at));
}
