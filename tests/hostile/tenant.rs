//! A container that means harm, by its labels and by its image.

use serde_json::{Map, Value, json};

use crate::engine::container;
use crate::town::{Charter, Town};

/// A container on the host's network whose image exposes these ports: each would be offered.
fn exposing(number: usize, ports: impl Iterator<Item = u16>) -> Value {
    let mut facts = container(number, "greedy", 1, 1);
    let exposed: Map<String, Value> = ports.map(|port| (format!("{port}/tcp"), json!({}))).collect();
    facts["HostConfig"]["NetworkMode"] = "host".into();
    facts["NetworkSettings"] = json!({"Ports": {}, "Networks": {}});
    facts["Config"]["ExposedPorts"] = exposed.into();
    facts
}

fn saying(mut facts: Value, labels: impl Iterator<Item = (String, String)>) -> Value {
    facts["Config"]["Labels"] = labels.map(|(key, value)| (key, Value::from(value))).collect::<Map<_, _>>().into();
    facts
}

/// How many records a container has.
fn records_of(town: &Town, container: &str) -> usize {
    let local: Value = serde_json::from_str(&town.get("/v1/local").1).unwrap();
    let instances = local["instances"].as_array().unwrap();
    let of = instances.iter().filter(|instance| instance["id"].as_str().unwrap().contains(container));
    of.map(|instance| instance["keys"].as_array().unwrap().len()).sum()
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

#[test]
fn every_port_exposed_and_four_thousand_labels_keep_nobody_waiting() {
    let town = Town::found();
    let labels = |number: usize| {
        let labels = (0..4_000).map(|label| (format!("SERVICE_ATTR_{label}"), "value".to_owned()));
        saying(exposing(number, 1..=65_535), labels)
    };
    (1..=3).for_each(|number| town.run(labels(number)));
    town.neighbours_are_offered();
    town.until("it is explained", || {
        let told = town.wharf("explain c1");
        told.contains("more than 64 ports") && told.contains("64 KiB")
    });
    town.neighbours_are_offered();
    town.beats_never_missed();
}

#[test]
fn names_for_all_ports_keep_nobody_waiting() {
    for etcd in [false, true] {
        let town = Town::found_with(&Charter { etcd, ..Charter::default() });
        let names = |port: u16| (format!("SERVICE_{port}_NAME"), "a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p".to_owned());
        town.run(saying(exposing(1, 1..=65_535), (1_000..2_300).map(names)));
        town.neighbours_are_offered();
        town.until("its records are published", || records_of(&town, "c1") == 1_024);
        assert!(town.wharf("explain c1").contains("more than 1024 records"));
        town.neighbours_are_offered();
        town.beats_never_missed();
    }
}

/// A container with so many published ports, each with a name of its own, of which nobody ever answers a probe.
fn silent(town: &Town, number: usize, ports: std::ops::Range<u16>) -> Value {
    let host_port = town.silence().to_string();
    let mut facts = container(number, "memcached", 1, 1);
    let bound =
        ports.clone().map(|port| (format!("{port}/tcp"), json!([{"HostIp": "0.0.0.0", "HostPort": host_port}])));
    facts["NetworkSettings"]["Ports"] = bound.collect::<Map<_, _>>().into();
    let names = ports.map(|port| (format!("SERVICE_{port}_NAME"), format!("silent-{port}")));
    let asked = [("SERVICE_CHECK", "memcached"), ("SERVICE_CHECK_TIMEOUT", "10s"), ("SERVICE_CHECK_INTERVAL", "100ms")];
    let asked = asked.map(|(key, value)| (key.to_owned(), value.to_owned()));
    saying(facts, names.chain(asked))
}

#[test]
fn hundreds_of_silent_ports_keep_nobody_from_a_first_probe() {
    let town = Town::found();
    town.run(silent(&town, 1, 1_000..1_450));
    town.until("many are asked", || town.metric("wharf_probes_in_flight") >= 150.0);
    town.neighbours_are_offered();
    town.run(silent(&town, 2, 2_000..2_900));
    town.neighbours_are_offered();
    town.beats_never_missed();
}

#[test]
fn thousands_of_starts_in_a_burst_are_published_and_no_beat_is_missed() {
    let town = Town::found();
    for number in 1..=3_000 {
        let mut facts = exposing(number, [80].into_iter());
        facts["Id"] = format!("{number:012x}{:052x}", 0).into();
        town.run(facts);
    }
    town.until("all are published", || town.metric("wharf_publish_records") >= 3_003.0);
    town.neighbours_are_offered();
    town.beats_never_missed();
}

#[test]
fn a_burst_of_starts_costs_as_much_as_there_are_starts() {
    // CPU time is a measure, which a busy machine spoils: `make drill` takes it.
    if std::env::var_os("WHARF_DRILL").is_none() {
        return;
    }
    let cost = |starts: usize| {
        let town = Town::found();
        let before = town.cpu();
        for number in 1..=starts {
            let mut facts = exposing(number, [80].into_iter());
            facts["Id"] = format!("{number:012x}{:052x}", 0).into();
            town.run(facts);
        }
        let published = starts as f64 + 3.0;
        town.until("all are published", || {
            std::thread::sleep(std::time::Duration::from_millis(100)); // what is asked costs CPU too
            town.metric("wharf_publish_records") >= published
        });
        town.cpu() - before
    };
    let (half, whole) = (cost(2_000), cost(4_000));
    println!("  {half:?} of CPU for 2,000, {whole:?} for 4,000");
    assert!(whole <= half * 3, "{whole:?} for twice what took {half:?}");
}

#[test]
fn two_on_one_port_of_the_host_stay_published_and_are_told_of_each_other() {
    let town = Town::found();
    let on_80 = |number: usize| {
        let mut facts = exposing(number, [80].into_iter());
        facts["Id"] = format!("{number:012x}{:052x}", 0).into();
        facts
    };
    town.run(on_80(1));
    town.run(on_80(2));
    town.until("both are published", || records_of(&town, "c1") == 1 && records_of(&town, "c2") == 1);
    for (one, other) in [("c1", "c2:80"), ("c2", "c1:80")] {
        let told = town.wharf(&format!("explain {one}"));
        assert!(told.contains("is also where") && told.contains(other), "{told}");
    }
    assert_eq!(town.answers("greedy"), 2);
}

#[test]
fn a_name_that_means_something_is_not_claimed() {
    let town = Town::found();
    let claim = |number: usize, name: &str, id: &str| {
        let said = [("SERVICE_NAME", name), ("SERVICE_ID", id), ("SERVICE_CHECK", "none")];
        let said = said.map(|(key, value)| (key.to_owned(), value.to_owned()));
        town.run(saying(exposing(number, [80].into_iter()), said.into_iter()));
    };
    for (number, name) in ["cfg", "NS.dns", "x.apex.dns"].into_iter().enumerate() {
        claim(number + 1, name, "one");
        town.until(name, || town.wharf(&format!("explain c{}", number + 1)).contains("no container's to claim"));
    }
    claim(7, "dns", "ns");
    claim(8, "redis", "primary");
    claim(9, "primary.redis", "two");
    town.until("the last is published", || town.metric("wharf_publish_records") >= 6.0);
    for name in ["cfg", "ns.dns", "x.apex.dns", "primary.redis", "master.redis"] {
        assert_eq!(town.answers(name), 0, "{name}");
    }
    assert!(town.answers("redis") > 0 && town.answers("dns") == 1, "they are offered all the same");
    town.neighbours_are_offered();
}

#[test]
fn what_a_container_says_is_printed_without_control_characters() {
    let evil = "x\n2026 ERROR forged\r\u{1b}[31m\u{9b}2J";
    let town = Town::found();
    let keys = ["NAME", "ID", "ROLE", "PRIORITY", "WEIGHT", "TTL", "CHECK", "CHECK_INTERVAL", "CHECK_PASSWORD_FILE"];
    for (number, key) in keys.into_iter().enumerate() {
        let said = [(format!("SERVICE_{key}"), evil.to_owned()), (format!("SERVICE_TOKEN{evil}"), evil.to_owned())];
        let mut facts = saying(exposing(number + 1, [80].into_iter()), said.into_iter());
        facts["Config"]["ExposedPorts"][format!("81/{evil}")] = json!({});
        facts["Config"]["ExposedPorts"][evil] = json!({});
        facts["Config"]["Image"] = evil.into();
        facts["Name"] = format!("/c{number}{evil}").into();
        town.run(facts);
    }
    town.until("the last is explained", || town.wharf("explain").contains(&format!("c{}", keys.len() - 1)));
    town.neighbours_are_offered();
    for line in ["explain", "services", "services -o wide", "nodes"] {
        let told = town.wharf(line);
        let bad = told.chars().find(|one| one.is_control() && *one != '\n');
        assert_eq!(bad, None, "wharf {line}: {told:?}");
        assert!(!told.lines().any(|line| line.starts_with("2026 ERROR forged")), "wharf {line}: {told}");
    }
    let log = town.agent.log();
    assert!(!log.chars().any(|one| one.is_control() && one != '\n'), "{log:?}");
    assert!(!log.lines().any(|line| line.starts_with("2026 ERROR forged")), "{log}");
}
