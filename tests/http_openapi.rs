//! `/openapi.json` is true: every endpoint is described, and every answer is as described, nothing more and nothing
//! less.
#![allow(clippy::unwrap_used, missing_docs)]

mod side;

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use side::Side;
use wharf::answer::http::Readiness;
use wharf::catalog::facade::api::{Absent, Nodes};
use wharf::model::health::standing::State;
use wharf::model::offer::instance::{
    Check, CheckKind, DockerStanding, Instance, InstanceKey, Skipped, Source, Withheld,
};
use wharf::model::publish::local::{Local, LocalInstance};
use wharf::model::publish::maintenance::{Maintenance, Withdrawn};
use wharf::model::words::name::{Label, ServiceName};
use wharf::model::words::node::{NodeRecord, Waiting};
use wharf::model::words::record::{Proto, Record, Role};
use wharf::model::words::trouble::Trouble;

/// What differs between a value and its schema; nothing when it fits. Keeps the schemas honest both ways: a field that
/// is not described is a difference too.
fn differences(api: &Value, schema: &Value, value: &Value, at: &str, seen: &mut BTreeSet<String>) -> Vec<String> {
    if let Some(name) = schema["$ref"].as_str() {
        let target = api.pointer(name.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("{name} is described"));
        return differences(api, target, value, at, seen);
    }
    if let Some(any) = schema["anyOf"].as_array() {
        let each = any.iter().map(|one| differences(api, one, value, at, seen)).collect::<Vec<_>>();
        return if each.iter().any(Vec::is_empty) { vec![] } else { each.concat() };
    }
    let fits = match schema["type"].as_str() {
        Some("string") => value.is_string(),
        Some("integer") => value.is_i64() || value.is_u64(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        Some("array") => value.is_array(),
        Some("object") => value.is_object(),
        other => panic!("{at}: no type {other:?}"),
    };
    if !fits {
        return vec![format!("{at}: {value} is no {}", schema["type"])];
    }
    if let Some(words) = schema["enum"].as_array().filter(|words| !words.contains(value)) {
        return vec![format!("{at}: {value} is none of {words:?}")];
    }
    let mut found = Vec::new();
    for item in value.as_array().into_iter().flatten() {
        found.extend(differences(api, &schema["items"], item, &format!("{at}[]"), seen));
    }
    let Some(fields) = value.as_object() else { return found };
    for name in schema["required"].as_array().into_iter().flatten() {
        if !fields.contains_key(name.as_str().unwrap()) {
            found.push(format!("{at}: {name} is missing"));
        }
    }
    for (name, field) in fields {
        let place = format!("{at}.{name}");
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => found.push(format!("{place} is not described")),
            (Value::Null, Value::Null) => {}
            (Value::Null, other) => found.extend(differences(api, other, field, &place, seen)),
            (described, _) => {
                seen.insert(place.clone());
                found.extend(differences(api, described, field, &place, seen));
            }
        }
    }
    found
}

fn full_record() -> Record {
    Record {
        host: "10.0.0.1".into(),
        host6: Some("2001:db8::1".into()),
        port: 6379,
        priority: Some(1),
        weight: Some(2),
        ttl: Some(3),
        text: Some("text".into()),
        group: Some("g".into()),
        targetstrip: Some(1),
        mail: true,
        id: Some("core-01:redis:6379".into()),
        service: Some("redis".into()),
        node: Some("core-01".into()),
        site: Some("eu/a".into()),
        owner: Some("o".into()),
        proto: Some(Proto::Tcp),
        role: Some(Role::Primary),
        tags: vec!["blue".into()],
        attrs: [("region".into(), "eu".into())].into(),
        container: Some("0123456789ab".into()),
        image: Some("redis:7".into()),
        since: Some("2026-03-04T05:06:07Z".into()),
    }
}

fn full_instance() -> LocalInstance {
    let instance = Instance {
        key: InstanceKey { source: Source::Container("0123456789abcdef".into()), port: 6379, proto: Proto::Tcp },
        services: vec![ServiceName::parse("redis").unwrap()],
        id: "core-01:redis:6379".into(),
        label: Label::parse("core-01-redis-6379").unwrap(),
        host: "10.0.0.1".parse().unwrap(),
        host6: Some("2001:db8::1".parse().unwrap()),
        port: 6379,
        role: None,
        priority: None,
        weight: None,
        ttl: None,
        tags: vec!["blue".into()],
        attrs: [("region".into(), "eu".into())].into(),
        container_name: "redis".into(),
        image: "redis:7".into(),
        check: Check {
            kind: CheckKind::Redis,
            target: Some("10.0.0.1:6379".parse().unwrap()),
            warning: Some("script checks are not run".into()),
            ..Check::default()
        },
        docker: DockerStanding::Running,
        started: "".into(),
    };
    LocalInstance {
        instance: Arc::new(instance),
        state: State::Down,
        role: Some(Role::Replica),
        since: Some(std::time::SystemTime::UNIX_EPOCH),
        error: Some("refused".into()),
        warning: Some("script checks are not run".into()),
        published: false,
        keys: vec!["/services/redis/core-01-redis-6379".into()],
    }
}

/// An agent that has something in every field there is.
async fn full_side() -> Side {
    let mut side = Side::start().await;
    side.renders();
    for key in ["/services/redis/a", "/services/redis/b"] {
        side.put(key, std::str::from_utf8(&full_record().encode()).unwrap());
    }
    side.catalog.hold("/services/redis/b", std::time::Duration::from_secs(60));
    side.put("/services/contested/a", r#"{"host":"10.0.0.1","port":1,"role":"primary"}"#);
    side.put("/services/contested/b", r#"{"host":"10.0.0.2","port":1,"role":"primary"}"#);
    let skipped =
        Skipped { container: "web".into(), port: "80/tcp".into(), kind: "ignored", reason: "SERVICE_IGNORE".into() };
    side.local.send_replace(Arc::new(Local {
        node: "core-01".into(),
        instances: vec![full_instance()],
        skipped: vec![skipped],
        withheld: vec![Withheld { container: "redis".into(), port: "6379/tcp".into(), attr: "db_password".into() }],
        drained: Some(std::time::SystemTime::UNIX_EPOCH),
        lease: 0x1234,
        trouble: Some(Trouble {
            endpoint: "http://10.0.0.1:2379".into(),
            why: "connection refused".into(),
            since: std::time::SystemTime::UNIX_EPOCH,
        }),
        maintenance: {
            let mut all = Maintenance::default();
            all.add(Withdrawn::new(Some("web"), "root", "kernel", std::time::SystemTime::UNIX_EPOCH));
            Arc::new(all)
        },
        ..Local::default()
    }));
    let waiting = Waiting {
        id: "core-01:redis:6379".into(),
        service: "redis".into(),
        state: "down".into(),
        since: Some("2026-03-04T05:06:07Z".into()),
        reason: Some("refused".into()),
        host: Some("10.0.0.1".parse().unwrap()),
        port: Some(6379),
    };
    let node = NodeRecord {
        node: "core-01".into(),
        site: Some("eu/a".into()),
        addresses: vec!["10.0.0.1".parse().unwrap()],
        sentinel: Some(26379),
        machine: Some("6ad1".into()),
        ordinals: [("nucleus".into(), 2)].into(),
        drained: Some("2026-03-04T05:06:07Z".into()),
        states: [("down".into(), 1)].into(),
        services: vec!["redis".into()],
        waiting: vec![waiting],
        more: 3,
        ..NodeRecord::default()
    };
    let lost = Absent {
        node: "core-09".into(),
        addresses: vec!["10.0.0.9".parse().unwrap()],
        since: Some("2026-03-04T05:06:07Z".into()),
        services: vec!["redis".into()],
        ..Absent::default()
    };
    let stopped = vec![Absent { node: "core-08".into(), ..lost.clone() }];
    side.nodes.send_replace(Arc::new(Nodes { stale: false, nodes: vec![node], lost: vec![lost], stopped }));
    side
}

/// The schema of an answer, and that its status and type are described.
fn described<'a>(api: &'a Value, path: &str, method: &str, status: u16, head: &str) -> &'a Value {
    let response = &api["paths"][path][method]["responses"][status.to_string()];
    let response = match response["$ref"].as_str() {
        Some(name) => api.pointer(name.strip_prefix('#').unwrap()).unwrap(),
        None => response,
    };
    let content =
        response["content"].as_object().unwrap_or_else(|| panic!("{method} {path} {status} is not described"));
    let is_it = |(kind, _): &(&String, &Value)| head.contains(&format!("content-type: {kind}"));
    let described = content.iter().find(is_it).unwrap_or_else(|| panic!("{method} {path} {status}: {head}")).1;
    &described["schema"]
}

#[tokio::test]
async fn every_answer_is_as_described() {
    let side = full_side().await;
    let api = side.get("/openapi.json").await.json();
    let mut seen = BTreeSet::new();
    let mut asked = BTreeSet::new();
    for (path, target, status) in [
        ("/", "/", 200),
        ("/healthz", "/healthz", 200),
        ("/readyz", "/readyz", 200),
        ("/metrics", "/metrics", 200),
        ("/openapi.json", "/openapi.json", 200),
        ("/sd/prometheus", "/sd/prometheus", 200),
        ("/sd/prometheus", "/sd/prometheus?service=nothing", 404),
        ("/sd/prometheus", "/sd/prometheus?x=y", 400),
        ("/v1/services", "/v1/services", 200),
        ("/v1/services/{name}", "/v1/services/redis", 200),
        ("/v1/services/{name}", "/v1/services/nothing", 404),
        ("/v1/services/{name}", "/v1/services/redis?role=x", 400),
        ("/v1/local", "/v1/local", 200),
        ("/v1/nodes", "/v1/nodes", 200),
        ("/v1/ordinals", "/v1/ordinals", 200),
        ("/v1/etcd-v2", "/v1/etcd-v2", 200),
        ("/v1/locks", "/v1/locks", 200),
        ("/v1/autodiscovery", "/v1/autodiscovery", 200),
        ("/v1/proxies", "/v1/proxies", 200),
        ("/v1/renders", "/v1/renders", 200),
        ("/v1/watch", "/v1/watch?x=y", 400),
        ("/v1/topology", "/v1/topology", 200),
        ("/v1/topology/{name}", "/v1/topology/redis-1", 200),
        ("/v1/topology/{name}", "/v1/topology/nobody", 404),
    ] {
        let reply = side.get(target).await;
        assert_eq!(reply.status, status, "{target}");
        asked.insert(path.to_owned());
        let schema = described(&api, path, "get", status, &reply.head);
        if reply.head.contains("content-type: application/json") {
            let found = differences(&api, schema, &reply.json(), path, &mut seen);
            assert!(found.is_empty(), "{target}: {found:#?}");
        }
    }
    side.ready.send_replace(Readiness::default());
    for path in ["/readyz", "/sd/prometheus"] {
        let reply = side.get(path).await;
        assert_eq!(reply.status, 503);
        let schema = described(&api, path, "get", 503, &reply.head);
        assert_eq!(differences(&api, schema, &reply.json(), path, &mut seen), Vec::<String>::new());
    }
    for elsewhere in ["/v1/drain", "/v1/nodes/{name}", "/v1/ordinals/{name}", "/v1/topology/{name}/pause"] {
        asked.insert(elsewhere.to_owned()); // asked in its own test
    }
    let described: BTreeSet<String> = api["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(asked, described, "every path that is described is asked, and the other way round");
    for (schema, place) in [
        ("Endpoint", "/v1/services.services[].endpoints[]"),
        ("LocalInstance", "/v1/local.instances[]"),
        ("Skipped", "/v1/local.skipped[]"),
        ("Withheld", "/v1/local.withheld[]"),
        ("Node", "/v1/nodes.nodes[]"),
        ("Waiting", "/v1/nodes.nodes[].waiting[]"),
        ("Absent", "/v1/nodes.lost[]"),
        ("Absent", "/v1/nodes.stopped[]"),
        ("Locks", "/v1/locks"),
        ("Lock", "/v1/locks.locks[]"),
        ("LockHolder", "/v1/locks.locks[].holder"),
        ("LockCertificate", "/v1/locks.locks[].certificate"),
        ("LockWaiting", "/v1/locks.locks[].waiting[]"),
        ("Ordinals", "/v1/ordinals"),
        ("EtcdV2", "/v1/etcd-v2"),
        ("EtcdV2Trouble", "/v1/etcd-v2.troubles[]"),
        ("Autodiscovery", "/v1/autodiscovery.autodiscoveries[]"),
        ("Listed", "/v1/autodiscovery.autodiscoveries[].members[]"),
        ("Proxy", "/v1/proxies.proxies[]"),
        ("Render", "/v1/renders.renders[]"),
        ("Topology", "/v1/topology.topologies[]"),
        ("TopologyApplied", "/v1/topology.topologies[].applied"),
        ("TopologyLast", "/v1/topology.topologies[].last"),
        ("TopologyPaused", "/v1/topology.topologies[].paused"),
        ("TopologyInstance", "/v1/topology.topologies[].instances[]"),
    ] {
        for field in api["components"]["schemas"][schema]["properties"].as_object().unwrap().keys() {
            assert!(seen.contains(&format!("{place}.{field}")), "{schema} has no {field}");
        }
    }
    side.stop().await;
}

#[tokio::test]
async fn events_are_as_described() {
    let mut side = full_side().await;
    let api = side.get("/openapi.json").await.json();
    let mut events = side.events("/v1/watch?changes=endpoints&with=local,nodes", None).await;
    let mut seen = BTreeSet::new();
    let mut kinds = BTreeSet::new();
    while kinds.len() < 4 || !seen.contains("Change.changed[].gone") {
        let event = events.next().await.unwrap();
        let name = match event.kind.as_str() {
            "snapshot" => {
                side.delete("/services/redis/a");
                side.delete("/services/contested/a");
                "Services"
            }
            "change" => "Change",
            "local" => "Local",
            "nodes" => "Nodes",
            other => panic!("{other} is not described"),
        };
        let schema = json!({"$ref": format!("#/components/schemas/{name}")});
        let found = differences(&api, &schema, &event.data, name, &mut seen);
        assert!(found.is_empty(), "{found:#?}");
        kinds.insert(event.kind);
    }
    side.stop().await;
}

#[test]
fn a_wrong_answer_would_be_noticed() {
    let api = json!({"components": {"schemas": {"Drain": {
        "type": "object", "properties": {"drained": {"type": "boolean"}}, "required": ["drained"],
        "additionalProperties": false}}}});
    let schema = json!({"$ref": "#/components/schemas/Drain"});
    let mut seen = BTreeSet::new();
    assert!(differences(&api, &schema, &json!({"drained": true}), "", &mut seen).is_empty());
    for wrong in [json!({"drained": 1}), json!({}), json!({"drained": true, "more": 1}), json!([])] {
        assert_eq!(differences(&api, &schema, &wrong, "", &mut seen).len(), 1, "{wrong}");
    }
}
