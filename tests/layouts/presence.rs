//! `/services/S/instances/I/{host,port,private_ip,public_ip}` and `/services/S/master`.

use crate::etcd::Cluster;
use crate::{agent, places, srv};

const TABLE: &str = "[[service]]\nname = 'postgres'\nport = 5432\nid = '2'\ncheck = 'none'\nlayout = 'instances'\n";

fn value(cluster: &Cluster, key: &str) -> String {
    cluster.ctl(&["get", "--print-value-only", key]).trim().to_owned()
}

#[test]
fn an_instance_is_published_in_both_layouts_in_one_commit_on_one_lease() {
    let cluster = Cluster::start(1);
    let publisher = agent(&cluster, "core-02", TABLE, &[]);
    let below = "/services/postgres/instances/2";
    publisher.until("it is published", |_| value(&cluster, &format!("{below}/port")) == "5432");
    for (key, expected) in [("host", "127.0.0.1"), ("private_ip", "127.0.0.1"), ("public_ip", "127.0.0.1")] {
        assert_eq!(value(&cluster, &format!("{below}/{key}")), expected, "{key}");
    }
    let keys = cluster.ctl(&["get", "--prefix", "/services/postgres/", "-w", "json"]);
    let keys: serde_json::Value = serde_json::from_str(&keys).unwrap();
    let keys = keys["kvs"].as_array().unwrap();
    assert_eq!(keys.len(), 5, "{keys:?}");
    for what in ["lease", "mod_revision"] {
        assert!(keys.iter().all(|key| key[what] == keys[0][what] && key[what].as_i64() > Some(0)), "{keys:?}");
    }

    // What somebody spoils, deletes, or takes off its lease is put right.
    for break_it in [
        &["put", "/services/postgres/instances/2/port", "1"][..],
        &["put", "/services/postgres/instances/2/host", "127.0.0.1"],
        &["del", "/services/postgres/instances/2/public_ip"],
        &["del", "--prefix", "/services/postgres/"],
    ] {
        cluster.ctl(break_it);
        publisher.until("it is put right", |_| {
            let json = cluster.ctl(&["get", "--prefix", "/services/postgres/", "-w", "json"]);
            let told: serde_json::Value = serde_json::from_str(&json).unwrap();
            let keys = told["kvs"].as_array().cloned().unwrap_or_default();
            let leased = |key: &serde_json::Value| key["lease"].as_i64() > Some(0);
            keys.len() == 5 && keys.iter().all(leased) && value(&cluster, &format!("{below}/port")) == "5432"
        });
    }
    // One endpoint, not two.
    publisher.until("it finds itself", |agent| places(agent, "postgres") == ["127.0.0.1:5432"]);
    assert_eq!(srv(&publisher, "postgres.services.internal"), ["5432 2.postgres.services.internal."]);
    // The master's name makes it the primary.
    cluster.ctl(&["put", "/services/postgres/master", "2"]);
    publisher.until("it is the primary", |agent| {
        srv(agent, "primary.postgres.services.internal") == ["5432 2.postgres.services.internal."]
    });

    // All five go together.
    assert_eq!(publisher.wharf("drain postgres").status.code(), Some(0));
    publisher.until("all of it is withdrawn", |_| {
        !cluster.ctl(&["get", "--prefix", "--keys-only", "/services/postgres/"]).contains("instances")
    });
}

#[test]
fn a_table_that_asks_for_it_no_more_takes_the_keys_back() {
    let cluster = Cluster::start(1);
    let publisher = agent(&cluster, "core-02", TABLE, &[]);
    let keys = || cluster.ctl(&["get", "--prefix", "--keys-only", "/services/"]);
    publisher.until("it is published", |_| keys().contains("instances"));
    std::fs::write(publisher.settings(), TABLE.replace("layout = 'instances'\n", "")).unwrap();
    publisher.reload();
    publisher.until("only the record is left", |_| keys().trim() == "/services/postgres/2");
}

#[test]
fn a_tree_of_other_programs_is_found_with_its_master() {
    let cluster = Cluster::start(1);
    let reader = agent(&cluster, "core-01", "", &[]);
    for (number, address) in [("1", "10.0.0.1"), ("2", "10.0.0.2"), ("3", "10.0.0.3")] {
        let key = |field: &str| format!("/services/postgres/instances/{number}/{field}");
        cluster.ctl(&["put", &key("host"), &format!("core-0{number}")]);
        cluster.ctl(&["put", &key("port"), "5432"]);
        cluster.ctl(&["put", &key("private_ip"), address]);
        cluster.ctl(&["put", &key("public_ip"), "203.0.113.1"]);
    }
    let all = ["10.0.0.1:5432", "10.0.0.2:5432", "10.0.0.3:5432"];
    reader.until("they are found", |agent| places(agent, "postgres") == all);
    let primary = "primary.postgres.services.internal";
    assert_eq!(srv(&reader, primary), [] as [&str; 0], "nobody is named");
    for (master, expected) in [("2", "5432 2."), ("3", "5432 3.")] {
        cluster.ctl(&["put", "/services/postgres/master", master]);
        let expected = format!("{expected}postgres.services.internal.");
        reader.until("the master is the primary", |agent| srv(agent, primary) == [expected.clone()]);
    }
    cluster.ctl(&["del", "/services/postgres/master"]);
    reader.until("nobody is", |agent| srv(agent, primary).is_empty());
    assert_eq!(places(&reader, "postgres"), all);

    // One that loses its port is none any more, and its neighbours stay.
    cluster.ctl(&["del", "/services/postgres/instances/1/port"]);
    reader.until("it is gone", |agent| places(agent, "postgres") == all[1..]);
    // A reader that comes later lists what this one watched.
    let later = agent(&cluster, "core-03", "", &[]);
    later.until("it lists them", |agent| places(agent, "postgres") == all[1..]);
    assert_eq!(later.wharf("services postgres").status.code(), Some(0));
}

#[test]
fn what_is_no_layout_is_refused_where_it_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("wharf.toml");
    std::fs::write(&file, TABLE.replace("'instances'", "'hosts'")).unwrap();
    let output = crate::program::wharf().arg("check-config").arg("--config").arg(&file).output().unwrap();
    let (code, out, err) = crate::program::told(&output);
    assert_eq!(code, Some(2), "{out}{err}");
    assert!(format!("{out}{err}").contains("the only other layout is \"instances\""), "{out}{err}");
}
