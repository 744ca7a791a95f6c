//! Who waits misses nothing: through many writes in one commit, an agent's restart, etcd's absence and a compaction;
//! and is told when the history does not reach back that far.

use std::collections::BTreeSet;
use std::time::Duration;

use super::ask::{PATIENCE, Told, delete, get, post, put, request, try_ask};
use super::{Ground, agent, cluster, latest, until};

fn wait(at: &str, path: &str, since: u64) -> Told {
    get(at, &format!("{path}?wait=true&recursive=true&waitIndex={since}"))
}

#[test]
fn one_who_waits_is_told_what_happens_whichever_agent_does_it() {
    let ground = Ground::start("/services");
    let [one, two] = [0, 1].map(|place| ground.agents[place].address("etcd_v2"));
    let first = put(&one, "/services/a", &[("value", "1")]);
    let target = "/services?wait=true&recursive=true";
    let waiting = std::thread::spawn({
        let two = two.clone();
        move || try_ask(&two, "GET", target, None, PATIENCE).unwrap()
    });
    until("he waits", || {
        let metrics = request(&ground.agents[1].address("http"), "GET", "/metrics", "", "", PATIENCE).unwrap().text;
        metrics.lines().any(|line| line == "wharf_etcd_v2_waits 1")
    });
    let second = put(&one, "/services/a", &[("value", "2"), ("prevValue", "1")]);
    let told = waiting.join().unwrap();
    assert_eq!((told.action(), told.value(), told.modified()), ("compareAndSwap", "2", second.modified()));
    assert_eq!(told.body["prevNode"]["value"], "1");
    // Each goes on from what he was told.
    assert_eq!(wait(&two, "/services", first.modified()).value(), "1");
    assert_eq!(wait(&two, "/services", first.modified() + 1).value(), "2");
    delete(&two, "/services/a");
    assert_eq!(wait(&one, "/services/a", second.modified() + 1).action(), "delete");
}

#[test]
fn each_write_of_one_commit_is_told() {
    let cluster = cluster();
    let agent = agent(&cluster, "core-01", "/services");
    let at = agent.address("etcd_v2");
    let begun = put(&at, "/services/begin", &[("value", "")]).index();
    let puts: String = (0..20).map(|number| format!("put /services/many/{number:02} {number}\n")).collect();
    let script =
        format!("printf '\\n{puts}\\n\\n' | ETCDCTL_API=3 etcdctl --endpoints {} txn", cluster.endpoints().join(","));
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let (mut since, mut seen) = (begun + 1, Vec::new());
    while seen.len() < 20 {
        let told = wait(&at, "/services", since);
        since = told.modified() + 1;
        seen.push(told.value().parse::<usize>().unwrap());
    }
    assert_eq!(seen, (0..20).collect::<Vec<_>>());
}

#[test]
fn a_stream_tells_on() {
    let ground = Ground::start("/services");
    let at = ground.embedded.address("etcd_v2");
    let begun = put(&at, "/services/begin", &[("value", "")]).index();
    for number in 0..5 {
        put(&at, "/services/s/a", &[("value", &number.to_string())]);
    }
    let script = format!(
        "curl -sN -m 20 'http://{at}/v2/keys/services?wait=true&recursive=true&stream=true&waitIndex={}' | head -n 5",
        begun + 1
    );
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    let values: Vec<serde_json::Value> =
        String::from_utf8(output.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let values: Vec<&str> = values.iter().filter_map(|event| event["node"]["value"].as_str()).collect();
    assert_eq!(values, ["0", "1", "2", "3", "4"]);
}

#[test]
fn what_ends_by_itself_is_told_as_such_and_a_directory_as_one() {
    let ground = Ground::start("/services");
    for at in [ground.agents[0].address("etcd_v2"), ground.embedded.address("etcd_v2")] {
        let told = put(&at, "/services/ttl", &[("value", "x"), ("ttl", "2")]);
        let ended = wait(&at, "/services/ttl", told.index() + 1);
        assert_eq!((ended.action(), ended.body["prevNode"]["value"].as_str()), ("expire", Some("x")));
        assert_eq!(put(&at, "/services/dir", &[("dir", "true"), ("ttl", "2")]).status, 201);
        let child = put(&at, "/services/dir/a", &[("value", "x")]);
        let other = put(&at, "/services/dir/b", &[("value", "x"), ("ttl", "600")]);
        assert_eq!(child.body["node"].get("ttl"), None, "a child has no time of its own");
        let ended = wait(&at, "/services", other.index() + 1);
        assert_eq!(
            (ended.action(), ended.body["node"]["key"].as_str()),
            ("expire", Some("/services/dir")),
            "{ended:?}"
        );
        assert_eq!(get(&at, "/services/dir").status, 404);
        let after = put(&at, "/services/after", &[("value", "x")]);
        assert_eq!(wait(&at, "/services", ended.modified() + 1).modified(), after.modified(), "it is told once");
    }
}

#[test]
fn a_refresh_tells_nobody() {
    let ground = Ground::start("/services");
    for at in [ground.agents[0].address("etcd_v2"), ground.embedded.address("etcd_v2")] {
        let begun = put(&at, "/services/r", &[("value", "x"), ("ttl", "100")]);
        for ttl in ["100", "200"] {
            let told = put(&at, "/services/r", &[("refresh", "true"), ("ttl", ttl), ("prevExist", "true")]);
            assert_eq!((told.status, told.value(), told.body["node"]["ttl"].to_string().as_str()), (200, "x", ttl));
        }
        put(&at, "/services/r", &[("value", "y")]);
        assert_eq!(wait(&at, "/services/r", begun.modified() + 1).value(), "y");
    }
}

#[test]
fn an_agents_restart_costs_no_event() {
    let cluster = cluster();
    let mut one = agent(&cluster, "core-01", "/services");
    let two = agent(&cluster, "core-02", "/services");
    let at = two.address("etcd_v2");
    let first = put(&at, "/services/a", &[("value", "1")]);
    put(&at, "/services/a", &[("value", "2")]);
    one.restart();
    let back = latest(&one);
    let told = wait(&back, "/services", first.modified() + 1);
    assert_eq!((told.action(), told.value()), ("set", "2"));
    put(&at, "/services/a", &[("value", "3")]);
    assert_eq!(wait(&back, "/services", told.modified() + 1).value(), "3");
}

#[test]
fn what_the_history_has_no_more_is_said_to_be_gone() {
    let mut ground = Ground::start("/services");
    let at = ground.agents[0].address("etcd_v2");
    let first = put(&at, "/services/a", &[("value", "1")]);
    put(&at, "/services/a", &[("value", "2")]);
    put(&at, "/services/a", &[("value", "3")]);
    let revision = ground.cluster.revision().to_string();
    ground.cluster.ctl(&["compact", &revision]);
    ground.agents[0].restart();
    let at = latest(&ground.agents[0]);
    for since in [1, first.modified(), first.modified() + 1] {
        let told = wait(&at, "/services", since);
        assert_eq!((told.status, told.code()), (400, 401), "{told:?}");
    }
    let now = get(&at, "/services/a");
    assert_eq!(now.value(), "3");
    put(&at, "/services/a", &[("value", "4")]);
    assert_eq!(wait(&at, "/services", now.index() + 1).value(), "4");
    // The embedded store's history ends with its agent.
    let at = ground.embedded.address("etcd_v2");
    let before = put(&at, "/services/a", &[("value", "1")]);
    ground.embedded.restart();
    assert_eq!(wait(&latest(&ground.embedded), "/services", before.modified()).code(), 401);
}

#[test]
fn while_etcd_is_away_nothing_is_invented() {
    let mut cluster = cluster();
    let agent = agent(&cluster, "core-01", "/services");
    let at = agent.address("etcd_v2");
    let first = put(&at, "/services/a", &[("value", "1")]);
    let waiting = std::thread::spawn({
        let at = at.clone();
        move || try_ask(&at, "GET", "/services?wait=true&recursive=true", None, PATIENCE).unwrap()
    });
    cluster.members[0].kill();
    for told in [get(&at, "/services/a"), put(&at, "/services/a", &[("value", "2")]), wait(&at, "/services", 0)] {
        assert_eq!((told.status, told.code()), (500, 300), "{told:?}");
    }
    assert_eq!(request(&at, "GET", "/health", "", "", PATIENCE).unwrap().status, 503);
    let told = waiting.join().unwrap();
    assert!(told.text.is_empty() || told.code() == 300, "he is let go, and asks again: {told:?}");
    cluster.run(0);
    cluster.wait_healthy();
    until("it answers again", || get(&at, "/services/a").status == 200);
    put(&at, "/services/a", &[("value", "3")]);
    let told = wait(&at, "/services", first.modified() + 1);
    assert!(["2", "3"].contains(&told.value()), "{told:?}");
}

#[test]
fn names_in_order_rise_in_the_order_of_commits() {
    let cluster = cluster();
    let agents = ["core-01", "core-02", "core-03"].map(|node| agent(&cluster, node, "/services"));
    let addresses = agents.each_ref().map(|agent| agent.address("etcd_v2"));
    let posting = addresses.clone().map(|at| {
        std::thread::spawn(move || {
            let post = |number: usize| {
                let told = post(&at, "/services/queue", &[("value", &number.to_string())]);
                assert_eq!(told.status, 201, "{told:?}");
                // Whoever takes one away makes no name free for a second one.
                let key = told.body["node"]["key"].as_str().unwrap().to_owned();
                if number.is_multiple_of(3) {
                    assert_eq!(delete(&at, &key).status, 200);
                }
                (told.body["node"]["createdIndex"].as_u64().unwrap(), key)
            };
            (0..15).map(post).collect::<Vec<_>>()
        })
    });
    let mut made: Vec<(u64, String)> = posting.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    made.sort();
    let names: Vec<&String> = made.iter().map(|(_, name)| name).collect();
    assert!(names.is_sorted(), "{names:?}");
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 45);
}

#[test]
fn a_crowd_that_waits_keeps_nobody_out() {
    let ground = Ground::start("/services");
    let at = ground.embedded.address("etcd_v2");
    let crowd: Vec<_> = (0..1_200)
        .filter_map(|_| {
            let mut stream = std::net::TcpStream::connect(&at).ok()?;
            let text = format!("GET /v2/keys/services?wait=true&recursive=true HTTP/1.1\r\nHost: {at}\r\n\r\n");
            std::io::Write::write_all(&mut stream, text.as_bytes()).ok()?;
            Some(stream)
        })
        .collect();
    let told = put(&at, "/services/a", &[("value", "1")]);
    assert_eq!(told.status, 201);
    // Another client of this host, by another address, is let in.
    let script = format!(
        "curl -s -m 20 --interface 127.0.0.2 'http://{at}/v2/keys/services?wait=true&recursive=true&waitIndex={}'",
        told.modified()
    );
    let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("\"value\":\"1\""), "{output:?}");
    assert!(crowd.len() > 1_000);
    let patience = Duration::from_secs(10);
    assert!(try_ask(&at, "GET", "/services/a", None, patience).is_some());
}
