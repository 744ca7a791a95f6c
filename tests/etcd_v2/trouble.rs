//! What clients meet is told to the people of the host: by `wharf explain`, over HTTP and in metrics.

use super::ask::{PATIENCE, get, put, request};
use super::program::{Agent, told};
use super::{agent, cluster, flags, start};

fn explained(agent: &Agent) -> String {
    told(&agent.wharf("explain")).1
}

fn has_metric(agent: &Agent, line: &str) -> bool {
    let metrics = request(&agent.address("http"), "GET", "/metrics", "", "", PATIENCE).unwrap().text;
    metrics.lines().any(|found| found == line)
}

fn standing(agent: &Agent) -> serde_json::Value {
    request(&agent.address("http"), "GET", "/v1/etcd-v2", "", "", PATIENCE).unwrap().body
}

#[test]
fn who_is_refused_is_told_of_with_what_he_asked_for() {
    let agent = start("core-01", &flags("/services"), "");
    let at = agent.address("etcd_v2");
    assert_eq!(put(&at, "/services/a", &[("value", "1")]).status, 201);
    assert_eq!(get(&at, "/services/none").code(), 100);
    assert!(!explained(&agent).contains("v2 API"), "a key that is not there is nobody's trouble");
    for _ in 0..2 {
        assert_eq!(put(&at, "/other/x", &[("value", "1")]).status, 403);
    }
    let told = explained(&agent);
    let line = told.lines().find(|line| line.contains("v2 API")).unwrap_or_else(|| panic!("{told}"));
    for part in [&at, "refused 2 requests", "PUT /v2/keys/other/x of 127.0.0.1", "only what is below /services"] {
        assert!(line.contains(part), "{part} is not in {line}");
    }
    let told = standing(&agent);
    assert_eq!((&told["listen"], &told["troubles"][0]["count"]), (&at.as_str().into(), &2.into()), "{told}");
    assert!(has_metric(&agent, "wharf_etcd_v2_requests_total{method=\"PUT\",code=\"403\"} 2"));
    let off = start("core-02", &[], "");
    assert_eq!(standing(&off), serde_json::json!({"listen": null, "troubles": []}));
}

#[test]
fn while_etcd_is_away_it_is_said_and_no_longer() {
    let mut cluster = cluster();
    let agent = agent(&cluster, "core-01", "/services,/config");
    let at = agent.address("etcd_v2");
    assert_eq!(put(&at, "/services/a", &[("value", "1")]).status, 201);
    agent.until("all is in step", |agent| has_metric(agent, "wharf_etcd_v2_trees_away 0"));
    cluster.members[0].kill();
    assert_eq!(put(&at, "/services/a", &[("value", "2")]).code(), 300);
    agent.until("it is told", |agent| {
        let told = explained(agent);
        let away = ["/config", "/services"].map(|below| format!("what happens below {below} is not in step"));
        told.contains("failed 1 request,") && away.iter().all(|text| told.contains(text))
    });
    assert!(has_metric(&agent, "wharf_etcd_v2_trees_away 2"));
    cluster.run(0);
    cluster.wait_healthy();
    agent.until("it is over", |agent| !explained(agent).contains("not in step"));
    assert!(has_metric(&agent, "wharf_etcd_v2_trees_away 0"));
    let kinds =
        standing(&agent)["troubles"].as_array().unwrap().iter().map(|one| one["kind"].clone()).collect::<Vec<_>>();
    assert_eq!(kinds, ["failed"], "the request that was lost is remembered for a while");
}
