//! `wharf ordinal` by itself.

use std::collections::BTreeSet;
use std::process::Stdio;

use crate::etcd::Cluster;
use crate::{ended, ordinal, stored};

fn number(cluster: &Cluster, node: &str, state: &std::path::Path, flags: &[&str]) -> (Option<i32>, String) {
    ended(&ordinal(cluster, node, state, &[&["nucleus"], flags].concat()).output().unwrap())
}

#[test]
fn a_hundred_hosts_at_once_get_one_to_a_hundred() {
    let (cluster, state) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let begin = |host: u32| {
        let own = state.path().join(host.to_string());
        let mut command = ordinal(&cluster, &format!("core-{host:03}"), &own, &["nucleus"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let hosts: Vec<_> = (0..100).map(begin).collect();
    let numbers = hosts.into_iter().map(|host| ended(&host.wait_with_output().unwrap()));
    let numbers: BTreeSet<u32> =
        numbers.map(|(code, text)| text.parse().unwrap_or_else(|_| panic!("{code:?} {text}"))).collect();
    assert_eq!(numbers, (1..=100).collect());
    // Each is the same again, at once; also for a host that lost its state.
    let again = number(&cluster, "core-042", &state.path().join("42"), &[]);
    let lost = number(&cluster, "core-042", &state.path().join("fresh"), &[]);
    assert_eq!((again.0, &again), (Some(0), &lost));
}

#[test]
fn a_number_is_freed_by_word_and_a_renamed_host_is_another_one() {
    let (cluster, state) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let got = |text: &str| (Some(0), text.to_owned());
    assert_eq!(number(&cluster, "a", state.path(), &[]), got("1"));
    assert_eq!(stored(&cluster, 1)["node"], "a");
    assert!(stored(&cluster, 1)["since"].as_str().is_some_and(|since| since.ends_with('Z')));
    assert_eq!(number(&cluster, "renamed", state.path(), &[]), got("2"), "with the other one's state");
    assert_eq!(number(&cluster, "renamed", state.path(), &["--release", "a"]), got(""));
    assert_eq!(stored(&cluster, 1), serde_json::Value::Null);
    assert_eq!(number(&cluster, "c", state.path(), &[]), got("1"), "the lowest free one");
    assert_eq!(number(&cluster, "c", state.path(), &["--release"]), got(""));
    assert_eq!(number(&cluster, "c", state.path(), &["--release"]).0, Some(1), "it has none");
    assert_eq!(number(&cluster, "d", state.path(), &[]), got("1"));
    let c = state.path().join("c");
    assert_eq!(number(&cluster, "c", &c, &[]), got("3"));
    assert_eq!(number(&cluster, "c", &c, &["--release"]), got(""));
    assert_eq!(number(&cluster, "e", &state.path().join("e"), &[]), got("3"));
    assert_eq!(number(&cluster, "c", &c, &[]), got("4"), "what it has freed itself it has not lost");
}

#[test]
fn a_number_that_became_anothers_is_told_until_a_new_one_is_asked_for() {
    let (cluster, state) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let (a, b) = (state.path().join("a"), state.path().join("b"));
    assert_eq!(number(&cluster, "a", &a, &[]), (Some(0), "1".to_owned()));
    // The store lost it while the host was off, and another one came.
    cluster.ctl(&["del", "/wharf/services/ordinals/nucleus/1"]);
    assert_eq!(number(&cluster, "b", &b, &[]), (Some(0), "1".to_owned()));
    let (code, complaint) = number(&cluster, "a", &a, &[]);
    assert_eq!(code, Some(4));
    assert!(complaint.contains("was 1, which is b's now") && complaint.contains("--renumber"), "{complaint}");
    cluster.ctl(&["del", "/wharf/services/ordinals/nucleus/1"]);
    assert_eq!(number(&cluster, "a", &a, &[]).0, Some(4), "what runs as number 1 on b does not end by that");
    assert_eq!(number(&cluster, "b", &b, &[]), (Some(0), "1".to_owned()));
    assert_eq!(number(&cluster, "a", &a, &["--renumber"]), (Some(0), "2".to_owned()));
    assert_eq!(number(&cluster, "a", &a, &["--renumber"]), (Some(0), "2".to_owned()), "nothing is lost");
}

#[test]
fn wrong_use_and_an_etcd_that_is_away_have_their_codes() {
    let (mut cluster, state) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let code = |cluster: &Cluster, role: &str| ended(&ordinal(cluster, "a", state.path(), &[role]).output().unwrap()).0;
    for role in ["", "Nucleus", "a.b", "7", "a/b"] {
        assert_eq!(code(&cluster, role), Some(2), "{role:?}");
    }
    cluster.members[0].kill();
    assert_eq!(code(&cluster, "nucleus"), Some(3));
}

#[test]
fn what_others_write_there_is_borne() {
    let (cluster, state) = (Cluster::start(1), tempfile::tempdir().unwrap());
    let at = |rest: &str| format!("/wharf/services/ordinals/nucleus/{rest}");
    for (rest, value) in [("1", "{"), ("01", "x"), ("x/y", "x"), ("2", r#"{"node":7}"#), ("0", "{}"), ("70000", "{}")] {
        cluster.ctl(&["put", &at(rest), value]);
    }
    assert_eq!(number(&cluster, "a", state.path(), &[]), (Some(0), "3".to_owned()));
    // A holder's own key comes back from whatever was made of it.
    cluster.ctl(&["put", &at("3"), "spoiled"]);
    assert_eq!(number(&cluster, "a", state.path(), &[]), (Some(0), "3".to_owned()));
    assert_eq!(stored(&cluster, 3)["node"], "a");
}
