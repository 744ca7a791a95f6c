//! registrator's rules, held as data: every case of `data/registrator_cases.json` through the real reading of an
//! inspect and the real mapping. What is published is compared, so an unhealthy container's instance does not count.
#![allow(clippy::unwrap_used, clippy::print_stderr)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use wharf::docker::container_of;
use wharf::model::offer::advertise::{Advertise, HostAddresses, choose};
use wharf::model::offer::container::Container;
use wharf::model::offer::instance::{DockerStanding, Instance};
use wharf::model::offer::naming::{self, Offered, Settings};

fn cases() -> Vec<Value> {
    let text = include_str!("data/registrator_cases.json");
    let file: Value = serde_json::from_str(text).unwrap();
    file["cases"].as_array().unwrap().clone()
}

/// registrator's flags in wharf's terms; the hostname's address is the source of the default route.
fn settings(case: &Value) -> Settings {
    let flags = &case["flags"];
    let address = |text: &Value| text.as_str().and_then(|text| text.parse::<IpAddr>().ok());
    let resolved = case["resolve"].as_object().and_then(|hosts| hosts.values().next()).and_then(address);
    // An engine binds what the host has.
    let ports = case["inspect"]["NetworkSettings"]["Ports"].as_object().into_iter().flat_map(|ports| ports.values());
    let bound = ports.filter_map(Value::as_array).flatten().filter_map(|binding| address(&binding["HostIp"]));
    let host = HostAddresses {
        interfaces: resolved.into_iter().chain(bound).map(|address| ("eth0".to_owned(), address)).collect(),
        source_v4: resolved.and_then(|address| if let IpAddr::V4(v4) = address { Some(v4) } else { None }),
        ..HostAddresses::default()
    };
    let asked: Vec<Advertise> = address(&flags["ip"]).map(Advertise::Address).into_iter().collect();
    Settings {
        place: choose(&asked, &host),
        internal: flags["internal"] == true,
        explicit: flags["explicit"] == true,
        tags: flags["tags"].as_str().unwrap_or_default().split(',').filter(|t| !t.is_empty()).map(Into::into).collect(),
        address_label: flags["useIpFromLabel"].as_str().map(str::to_owned),
        ..Settings::new(case["hostname"].as_str().unwrap())
    }
}

fn play(case: &Value) -> Offered {
    let read = |inspect: &Value| Arc::new(container_of(inspect.to_string().as_bytes()).unwrap());
    let others: BTreeMap<String, Arc<Container>> = case["others_inspect"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|inspect| (inspect["Id"].as_str().unwrap().to_owned(), read(inspect)))
        .collect();
    naming::instances(&read(&case["inspect"]), &|id| others.get(id).cloned(), &settings(case))
}

/// What registrator calls a service, one per name.
fn services(instance: &Instance) -> Vec<Value> {
    let mut tags: Vec<&str> = instance.tags.iter().map(|tag| &**tag).collect();
    tags.sort_unstable();
    let one = |name: String| {
        json!({
            "name": name, "id": &*instance.id, "ip": instance.host.to_string(), "port": instance.port, "tags": tags,
            "attrs": instance.attrs, "proto": instance.key.proto.as_str(),
            "ttl": instance.ttl.map(|ttl| ttl.as_secs()), "role": instance.role.map(|role| role.as_str()),
        })
    };
    instance.services.iter().map(|name| one(name.to_string())).collect()
}

fn published(offered: &Offered) -> Vec<Value> {
    let serves = |instance: &&Instance| matches!(instance.docker, DockerStanding::Running | DockerStanding::Healthy);
    offered.instances.iter().filter(serves).flat_map(services).collect()
}

fn is_attr(key: &str) -> bool {
    !key.starts_with("check") && !matches!(key, "role" | "ttl" | "priority" | "weight")
}

fn same_attrs(expected: &Value, ours: &Value) -> bool {
    let plain = |attrs: &Value| -> BTreeMap<String, Value> {
        let all = attrs.as_object().into_iter().flatten();
        all.filter(|(key, _)| is_attr(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
    };
    plain(expected) == plain(ours)
}

fn matches(expected: &Value, ours: &Value, with_ttl: bool) -> bool {
    expected.as_object().unwrap().iter().all(|(field, expected)| match field.as_str() {
        "attrs" => same_attrs(expected, &ours["attrs"]),
        "ttl" if !with_ttl || *expected == json!(0) => true,
        "tags" => {
            let mut tags: Vec<&str> = expected.as_array().unwrap().iter().map(|tag| tag.as_str().unwrap()).collect();
            tags.sort_unstable();
            json!(tags) == ours["tags"]
        }
        field => match expected.get("prefix").and_then(Value::as_str) {
            Some(prefix) => ours[field].as_str().is_some_and(|text| text.starts_with(prefix)),
            None => *expected == ours[field],
        },
    })
}

/// Whether `ours` is the expected list in some order.
fn same(expected: &Value, ours: &[Value], with_ttl: bool) -> bool {
    let expected = expected.as_array().unwrap();
    let mut left: Vec<&Value> = ours.iter().collect();
    expected.len() == ours.len()
        && expected.iter().all(|one| {
            let place = left.iter().position(|ours| matches(one, ours, with_ttl));
            place.map(|place| left.remove(place)).is_some()
        })
}

fn check(case: &Value) -> Result<(), String> {
    let wharf = &case["wharf"];
    if wharf["any"] == true {
        return Ok(());
    }
    if case["hostname"] == "" {
        // A node without a name is refused by the configuration, before any container is read.
        return if wharf["refused_at_start"] == true { Ok(()) } else { Err("refused at start".to_owned()) };
    }
    let offered = play(case);
    let ours = published(&offered);
    let accepted: Vec<Value> = match wharf["accept"].as_array() {
        Some(accepted) => accepted.clone(),
        None => vec![case["expect"].clone()],
    };
    if !accepted.iter().any(|expected| same(expected, &ours, wharf.is_object())) {
        return Err(format!("accepted: {accepted:#?}\nours: {ours:#?}\nskipped: {:#?}", offered.skipped));
    }
    if ours.is_empty() && wharf["skip_needs_reason"] == true && offered.skipped.iter().all(|s| s.reason.is_empty()) {
        return Err("nothing is published, and no reason is given".to_owned());
    }
    Ok(())
}

#[test]
fn every_case_holds() {
    let cases = cases();
    assert!(cases.len() >= 81, "the file is whole");
    let mut failed = Vec::new();
    for case in &cases {
        if let Err(why) = check(case) {
            failed.push(format!("{} ({}): {why}", case["name"], case["verdict"]));
        }
    }
    assert!(failed.is_empty(), "{} of {} cases:\n{}", failed.len(), cases.len(), failed.join("\n\n"));
}

#[test]
fn every_port_of_every_case_is_offered_or_has_a_reason() {
    for case in cases().iter().filter(|case| case["hostname"] != "" && case["inspect"]["State"]["Running"] == true) {
        let offered = play(case);
        let ports = case["container"]["exposed"].as_array().unwrap();
        for port in ports.iter().map(|port| port.as_str().unwrap()) {
            let is_offered = offered.instances.iter().any(|one| format!("{}/{}", one.key.port, one.key.proto) == port);
            let is_skipped = offered.skipped.iter().any(|one| one.port == port && !one.reason.is_empty());
            assert!(is_offered || is_skipped, "{}: {port}", case["name"]);
        }
    }
}

#[test]
fn what_is_compared_can_differ() {
    let case = cases().into_iter().find(|case| case["name"] == "docs_multi_metadata").unwrap();
    let ours = published(&play(&case));
    for (pointer, wrong) in
        [("/0/name", json!("x")), ("/0/port", json!(1)), ("/1/tags", json!([])), ("/0/attrs", json!({}))]
    {
        let mut expected = case["expect"].clone();
        *expected.pointer_mut(pointer).unwrap() = wrong;
        assert!(!same(&expected, &ours, false), "{pointer}");
    }
    assert!(same(&case["expect"], &ours, false));
}
