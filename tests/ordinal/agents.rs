//! `[[ordinal]]` in the agent.

use std::path::Path;

use serde_json::Value;

use crate::etcd::Cluster;
use crate::program::{Agent, Options, told, wharf};
use crate::{ended, ordinal, stored};

const TABLE: &str = "[[ordinal]]\nrole = \"nucleus\"\n";

/// An agent with the table on a host of this name; 127.0.0.x is the host's address.
fn agent(cluster: &Cluster, node: &str, address: &str, dir: &Path) -> Agent {
    std::fs::create_dir_all(dir.join("run")).unwrap();
    Agent::start_with(&Options {
        settings: TABLE,
        flags: vec![
            "--etcd-endpoints".to_owned(),
            cluster.endpoints().join(","),
            "--lease-ttl".to_owned(),
            "5s".to_owned(),
        ],
        env: vec![("RUNTIME_DIRECTORY".to_owned(), dir.join("run").display().to_string())],
        advertise: Some(address),
        node: Some(node),
        state: Some(dir.join("state")),
        ..Options::default()
    })
}

fn standing(agent: &Agent) -> Value {
    let socket = agent.socket().display().to_string();
    let output = std::process::Command::new("curl")
        .args(["-s", "--unix-socket", &socket, "http://localhost/v1/ordinals"])
        .output();
    let told: Value = serde_json::from_slice(&output.unwrap().stdout).unwrap_or_default();
    told["ordinals"]["nucleus"].clone()
}

fn until_held(agent: &Agent, number: u32) {
    agent.until(&format!("it has {number}"), |agent| {
        let told = standing(agent);
        told["state"] == "held" && told["number"] == number
    });
}

fn address_of(agent: &Agent, name: &str) -> String {
    let output = wharf().args(["resolve", name, "A", "--dns", &agent.address("dns")]).output().unwrap();
    told(&output).1
}

#[test]
fn an_agent_claims_tells_and_keeps_its_number() {
    let (cluster, dir) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let first = agent(&cluster, "a", "127.0.0.11", &one);
    until_held(&first, 1);
    let second = agent(&cluster, "b", "127.0.0.12", &two);
    until_held(&second, 2);
    // To units, to DNS, before a record of that name.
    assert_eq!(std::fs::read_to_string(two.join("run/ordinals.env")).unwrap(), "WHARF_ORDINAL_NUCLEUS=2\n");
    cluster.ctl(&["put", "/services/nucleus/2", r#"{"host":"10.9.9.9","port":1}"#]);
    first.until("the other one is found by its number", |agent| {
        address_of(agent, "2.nucleus.services.internal").contains("127.0.0.12")
    });
    assert!(!address_of(&first, "2.nucleus.services.internal").contains("10.9.9.9"));
    let explained = told(&second.wharf("explain")).1;
    assert!(explained.contains("this host's number of nucleus is 2, since"), "{explained}");
    // The command says the same, by the agent and by etcd.
    assert_eq!(told(&second.wharf("ordinal nucleus")), (Some(0), "2\n".to_owned(), String::new()));
    assert_eq!(told(&second.wharf("ordinal body")), (Some(0), "1\n".to_owned(), String::new()), "without a table");
    let state = two.join("state");
    assert_eq!(ended(&ordinal(&cluster, "b", &state, &["nucleus"]).output().unwrap()), (Some(0), "2".to_owned()));
    // A host that is down is not found by its number any more, and has it still.
    drop(second);
    first.until("it is found no longer", |agent| address_of(agent, "2.nucleus.services.internal").contains("10.9.9.9"));
    assert_eq!(stored(&cluster, 2)["node"], "b");
    // Nor does a host lose it with its disk.
    std::fs::remove_dir_all(&state).unwrap();
    let second = agent(&cluster, "b", "127.0.0.12", &two);
    until_held(&second, 2);
    // Freed under a living agent: it gives it up first.
    assert_eq!(
        ended(&ordinal(&cluster, "a", &one.join("state"), &["nucleus", "--release", "b"]).output().unwrap()).0,
        Some(0)
    );
    second.until("it is released", |agent| standing(agent)["state"] == "released");
    second.until("nobody has it", |_| stored(&cluster, 2) == Value::Null);
    assert_eq!(std::fs::read_to_string(two.join("run/ordinals.env")).unwrap(), "");
}

#[test]
fn after_a_restore_holders_come_before_newcomers_and_no_number_is_there_twice() {
    let (mut cluster, dir) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let empty = cluster.snapshot();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    let (first, second) = (agent(&cluster, "a", "127.0.0.11", &one), agent(&cluster, "b", "127.0.0.12", &two));
    first.until("it has one", |agent| standing(agent)["state"] == "held");
    second.until("it has one", |agent| standing(agent)["state"] == "held");
    let number = |agent: &Agent| u32::try_from(standing(agent)["number"].as_u64().unwrap()).unwrap();
    let (of_first, of_second) = (number(&first), number(&second));
    assert_eq!(of_first + of_second, 3);
    // Back to before anybody had one, with somebody new there at once.
    cluster.restore(&empty, true);
    let newcomer = ordinal(&cluster, "new", &dir.path().join("new"), &["nucleus"]).output().unwrap();
    assert_eq!(ended(&newcomer), (Some(0), "3".to_owned()));
    assert_eq!(
        (stored(&cluster, of_first)["node"].as_str(), stored(&cluster, of_second)["node"].as_str()),
        (Some("a"), Some("b"))
    );
    assert_eq!((number(&first), number(&second)), (of_first, of_second));
    // And a store that was emptied: another cluster.
    cluster.wipe();
    for (agent, number) in [(&first, of_first), (&second, of_second)] {
        agent.until("it is written again", |_| stored(&cluster, number)["node"].is_string());
        until_held(agent, number);
    }
}

#[test]
fn two_hosts_of_one_name_are_told_apart() {
    let (cluster, dir) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let first = agent(&cluster, "a", "127.0.0.11", &dir.path().join("one"));
    until_held(&first, 1);
    // An agent of that name on another machine, as its node record tells.
    first.until("its node record tells the number", |_| {
        cluster.ctl(&["get", "--prefix", "/wharf/services/nodes/a/"]).contains(r#""nucleus":1"#)
    });
    let other = r#"{"node":"twin","owner":"x","machine":"another"}"#;
    cluster.ctl(&["put", "/wharf/services/nodes/twin/x", other]);
    let refused = ended(&ordinal(&cluster, "twin", &dir.path().join("twin"), &["nucleus"]).output().unwrap());
    assert_eq!(refused.0, Some(4), "{}", refused.1);
    assert!(refused.1.contains("an agent of this name lives on another machine"), "{}", refused.1);
    cluster.ctl(&["del", "/wharf/services/nodes/twin/x"]);
    let claimed = ended(&ordinal(&cluster, "twin", &dir.path().join("twin"), &["nucleus"]).output().unwrap());
    assert_eq!(claimed, (Some(0), "2".to_owned()));
}

#[test]
fn on_one_host_alone_no_etcd_is_needed() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let mut agent = Agent::start_with(&Options { state: Some(state), ..Options::default() });
    assert_eq!(standing(&agent), Value::Null);
    std::fs::write(agent.settings(), TABLE).unwrap();
    agent.reload();
    until_held(&agent, 1);
    assert_eq!(told(&agent.wharf("ordinal nucleus")).1, "1\n");
    agent.restart();
    until_held(&agent, 1);
    assert_eq!(told(&wharf().args(["ordinal", "nucleus", "--http", "127.0.0.1:1"]).output().unwrap()).0, Some(3));
    // A role without a table is claimed by word; its number outlasts the agent.
    assert_eq!(told(&agent.wharf("ordinal body")).1, "1\n");
    // A number is freed by word, and claimed again by word.
    let released = told(&agent.wharf("ordinal nucleus --release"));
    assert_eq!((released.0, released.1.as_str()), (Some(0), ""), "{}", released.2);
    assert!(released.2.contains("nucleus 1 of core-01 is free"), "{}", released.2);
    agent.until("it is released", |agent| standing(agent)["state"] == "released");
    assert_eq!(told(&agent.wharf("ordinal nucleus --release")).0, Some(1), "it has none");
    assert_eq!(told(&agent.wharf("ordinal nucleus")).1, "1\n");
    until_held(&agent, 1);
    assert_eq!(told(&agent.wharf("ordinal nucleus --renumber")).1, "1\n", "nothing is lost");
    agent.restart();
    assert_eq!(told(&agent.wharf("ordinal body")).1, "1\n");
    assert_eq!(told(&agent.wharf("ordinal body --release")).0, Some(0));
    assert_eq!(told(&agent.wharf("ordinal body --release")).0, Some(1));
    assert_eq!(told(&agent.wharf("ordinal nucleus --release another")).0, Some(1));
}

#[test]
fn on_one_host_alone_a_number_that_became_anothers_is_told_until_a_new_one_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (old, state) = (dir.path().join("old"), dir.path().join("state"));
    let start = |node, state: &Path| {
        Agent::start_with(&Options {
            settings: TABLE,
            node: Some(node),
            state: Some(state.to_owned()),
            ..Options::default()
        })
    };
    let first = start("a", &old);
    until_held(&first, 1);
    first.terminate();
    let other = start("b", &state);
    until_held(&other, 1);
    other.terminate();
    // The store is of another day than the host: b has its number there.
    std::fs::copy(old.join("ordinal-nucleus.json"), state.join("ordinal-nucleus.json")).unwrap();
    let again = start("a", &state);
    again.until("it is lost", |agent| standing(agent)["state"] == "lost");
    let (code, printed, complaint) = told(&again.wharf("ordinal nucleus"));
    assert_eq!((code, printed.as_str()), (Some(4), ""), "{complaint}");
    assert!(complaint.contains("was 1, which is b's now") && complaint.contains("--renumber"), "{complaint}");
    assert_eq!(told(&again.wharf("ordinal nucleus --renumber")).1, "2\n");
    until_held(&again, 2);
    let freed = told(&again.wharf("ordinal nucleus --release b"));
    assert!(freed.0 == Some(0) && freed.2.contains("nucleus 1 of b is free"), "{freed:?}");
    assert_eq!(told(&again.wharf("ordinal nucleus")).1, "2\n", "a number never changes under a running server");
}
