//! `/v1/watch`: one event per change, and none lost by whoever comes back.
#![allow(clippy::unwrap_used, clippy::large_futures, missing_docs)]

mod side;

use std::sync::Arc;

use serde_json::{Value, json};
use side::{Event, Side};
use wharf::catalog::facade::api::Nodes;
use wharf::model::publish::local::Local;
use wharf::model::words::node::NodeRecord;

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|one| one.as_str().or_else(|| one["name"].as_str()).unwrap()).collect()
}

fn what(event: &Event) -> (&str, Vec<&str>, Vec<&str>) {
    match event.kind.as_str() {
        "snapshot" => ("snapshot", names(&event.data["services"]), vec![]),
        "change" => ("change", names(&event.data["changed"]), names(&event.data["removed"])),
        other => panic!("unexpected {other}"),
    }
}

#[tokio::test]
async fn a_snapshot_then_one_event_per_change() {
    let mut side = Side::start().await;
    side.put("/services/redis/a", "10.0.0.1:6379");
    let mut events = side.events("/v1/watch", None).await;
    assert_eq!(what(&events.next().await.unwrap()), ("snapshot", vec!["redis"], vec![]));
    side.put("/services/memcached/a", "10.0.0.1:11211");
    let added = events.next().await.unwrap();
    assert_eq!(what(&added), ("change", vec!["memcached"], vec![]));
    assert_eq!(added.data["changed"][0]["endpoints"][0]["port"], json!(11211));
    side.put("/services/redis/b", "10.0.0.2:6379");
    let grown = events.next().await.unwrap();
    assert_eq!(grown.data["changed"][0]["endpoints"].as_array().unwrap().len(), 2, "a changed service comes whole");
    side.delete("/services/memcached/a");
    assert_eq!(what(&events.next().await.unwrap()), ("change", vec![], vec!["memcached"]));
    side.set_stale(true);
    let stale = events.next().await.unwrap();
    assert_eq!((what(&stale), &stale.data["stale"]), (("change", vec![], vec![]), &json!(true)));
    side.stop().await;
    assert!(events.next().await.is_none(), "the stream ends with the agent");
}

#[tokio::test]
async fn who_comes_back_gets_what_was_missed() {
    let mut side = Side::start().await;
    side.put("/services/redis/a", "10.0.0.1:6379");
    let mut events = side.events("/v1/watch", None).await;
    let id = events.next().await.unwrap().id.unwrap();
    drop(events);
    side.put("/services/memcached/a", "10.0.0.1:11211");
    side.delete("/services/redis/a");
    let mut again = side.events("/v1/watch", Some(&id)).await;
    // While nobody followed, several changes may have become one; none is lost, and no snapshot is needed.
    let (mut changed, mut removed) = (vec![], vec![]);
    while changed != ["memcached"] || removed != ["redis"] {
        let event = again.next().await.unwrap();
        assert_eq!(event.kind, "change");
        changed.extend(names(&event.data["changed"]).into_iter().map(str::to_owned));
        removed.extend(names(&event.data["removed"]).into_iter().map(str::to_owned));
    }
    let mut stranger = side.events("/v1/watch", Some("deadbeef-1")).await;
    assert_eq!(stranger.next().await.unwrap().kind, "snapshot");
    side.stop().await;
}

#[tokio::test]
async fn one_service_is_followed_alone_and_resumed() {
    let mut side = Side::start().await;
    side.put("/services/memcached/a", "10.0.0.1:11211");
    let mut events = side.events("/v1/watch?service=redis", None).await;
    assert_eq!(what(&events.next().await.unwrap()), ("snapshot", vec![], vec![]), "unknown is an empty snapshot");
    side.put("/services/memcached/b", "10.0.0.2:11211");
    side.put("/services/redis/a", "10.0.0.1:6379");
    let appeared = events.next().await.unwrap();
    assert_eq!(what(&appeared), ("change", vec!["redis"], vec![]));
    let id = appeared.id.unwrap();
    let mut again = side.events("/v1/watch?service=redis", Some(&id)).await;
    side.put("/services/memcached/c", "10.0.0.3:11211");
    side.delete("/services/redis/a");
    assert_eq!(what(&again.next().await.unwrap()), ("change", vec![], vec!["redis"]));
    assert_eq!(what(&events.next().await.unwrap()), ("change", vec![], vec!["redis"]));
    side.stop().await;
}

#[tokio::test]
async fn changes_by_endpoint_tell_what_changed_and_what_is_gone() {
    let mut side = Side::start().await;
    side.put("/services/redis/a", "10.0.0.1:6379");
    side.put("/services/redis/b", "10.0.0.2:6379");
    let mut all = side.events("/v1/watch?changes=endpoints", None).await;
    let mut one = side.events("/v1/watch?changes=endpoints&service=redis", None).await;
    let mut ids = Vec::new();
    for events in [&mut all, &mut one] {
        let first = events.next().await.unwrap();
        assert_eq!(what(&first), ("snapshot", vec!["redis"], vec![]));
        ids.push(first.id.unwrap());
    }
    side.put("/services/redis/c", "10.0.0.3:6379");
    for events in [&mut all, &mut one] {
        let grown = events.next().await.unwrap().data;
        let endpoint = json!({"host": "10.0.0.3", "port": 6379, "key": "/services/redis/c"});
        assert_eq!(grown["changed"], json!([{"name": "redis", "endpoints": [endpoint]}]));
    }
    side.delete("/services/redis/a");
    for events in [&mut all, &mut one] {
        let shrunk = events.next().await.unwrap().data;
        assert_eq!(shrunk["changed"], json!([{"name": "redis", "gone": ["/services/redis/a"], "endpoints": []}]));
    }
    // One that comes back gets the steps that it missed; of one service alone, all there is.
    let mut again = side.events("/v1/watch?changes=endpoints", Some(&ids[0])).await;
    assert_eq!(again.next().await.unwrap().data["changed"][0]["endpoints"][0]["key"], "/services/redis/c");
    assert_eq!(again.next().await.unwrap().data["changed"][0]["gone"][0], "/services/redis/a");
    let mut again = side.events("/v1/watch?changes=endpoints&service=redis", Some(&ids[1])).await;
    let whole = again.next().await.unwrap();
    assert_eq!(
        (whole.kind.as_str(), whole.data["services"][0]["endpoints"].as_array().unwrap().len()),
        ("snapshot", 2)
    );
    assert_eq!(side.get("/v1/watch?changes=all").await.status, 400);
    side.stop().await;
}

#[tokio::test]
async fn local_and_nodes_come_along_when_asked_for() {
    let side = Side::start().await;
    let mut events = side.events("/v1/watch?with=local,nodes", None).await;
    let mut kinds: Vec<String> = Vec::new();
    for _ in 0..3 {
        kinds.push(events.next().await.unwrap().kind);
    }
    kinds.sort();
    assert_eq!(kinds, ["local", "nodes", "snapshot"]);
    side.local.send_replace(Arc::new(Local { node: "renamed".into(), ..Local::default() }));
    let event = events.next().await.unwrap();
    assert_eq!((event.kind.as_str(), &event.data["node"]), ("local", &json!("renamed")));
    let node = NodeRecord { node: "core-02".into(), ..NodeRecord::default() };
    side.nodes.send_replace(Arc::new(Nodes::of(false, vec![node], &[])));
    let event = events.next().await.unwrap();
    assert_eq!((event.kind.as_str(), &event.data["nodes"][0]["node"]), ("nodes", &json!("core-02")));
    side.stop().await;
}

#[tokio::test]
async fn a_large_catalog_comes_whole() {
    let mut side = Side::start().await;
    for service in 0..500 {
        for instance in 0..4 {
            let key = format!("/services/service-{service}/instance-{instance}");
            side.catalog.put(&key, b"10.0.0.1:80", 0, 1).unwrap();
        }
    }
    side.put("/services/last/a", "10.0.0.1:80");
    let mut events = side.events("/v1/watch", None).await;
    assert_eq!(names(&events.next().await.unwrap().data["services"]).len(), 501);
    assert_eq!(side.get("/v1/services").await.json()["services"].as_array().unwrap().len(), 501);
    side.stop().await;
}

#[tokio::test]
async fn followers_are_limited_and_wrong_questions_told() {
    let side = Side::start().await;
    assert_eq!(side.get("/v1/watch?servise=redis").await.status, 400);
    assert_eq!(side.get("/v1/watch?with=everything").await.status, 400);
    let mut following = Vec::new();
    for _ in 0..64 {
        let mut events = side.events("/v1/watch?service=redis", None).await;
        events.next().await.unwrap();
        following.push(events);
    }
    assert_eq!(side.get("/v1/watch").await.status, 503);
    assert_eq!(side.get("/v1/services").await.status, 200, "others are still served");
    drop(following);
    side.stop().await;
}
