//! A container that means harm, by its labels and by its image.

use serde_json::{Value, json};

use crate::engine::container;
use crate::town::{Charter, Town};

/// A container without published ports: the engine shows what its image exposes.
fn exposing(number: usize, ports: impl Iterator<Item = u16>) -> Value {
    let mut facts = container(number, "greedy", 1, 1);
    let exposed: serde_json::Map<String, Value> = ports.map(|port| (format!("{port}/tcp"), json!({}))).collect();
    facts["NetworkSettings"]["Ports"] = exposed.keys().map(|port| (port.clone(), Value::Null)).collect();
    facts["Config"]["ExposedPorts"] = exposed.into();
    facts
}

#[test]
fn in_peace_neighbours_are_offered() {
    for etcd in [false, true] {
        let town = Town::found_with(&Charter { etcd, ..Charter::default() });
        town.run(exposing(1, [80, 443].into_iter()));
        town.until("it is explained", || town.wharf("explain c1").contains("80/tcp"));
        town.neighbours_are_offered();
        town.beats_never_missed();
        assert!(town.rss() > 0 && town.cpu().as_nanos() > 0 && town.get("/healthz").0 == 200);
    }
}
