//! `srv://`: etcd found by DNS, again when it moves, by the agent, a command and an ambassador.

use std::process::Command;

use crate::program::told;

#[test]
fn etcd_is_found_by_its_srv_records_and_again_when_they_change() {
    let dir = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/layouts/srv.sh");
    // A network of its own: port 53 is free there, and the resolver's file may be another.
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--", "bash", script])
        .args([env!("CARGO_BIN_EXE_wharf"), "etcd"])
        .arg(dir.path())
        .env("ETCDCTL_API", "3")
        .output();
    let (code, out, err) = told(&output.unwrap());
    assert_eq!(code, Some(0), "{out}\n{err}");
    assert!(out.ends_with("done\n"), "{out}");
}

#[test]
fn a_domain_that_has_no_such_records_is_told() {
    let mut command = crate::program::wharf();
    command.args(["kv", "get", "/x", "--etcd-endpoints", "srv://no-such-domain.invalid"]);
    let (code, _, err) = told(&command.output().unwrap());
    assert_eq!(code, Some(3), "{err}");
    assert!(err.contains("_etcd-client._tcp.no-such-domain.invalid"), "{err}");
    let mut wrong = crate::program::wharf();
    wrong.args(["kv", "get", "/x", "--etcd-endpoints", "srv://10.0.0.1:2379"]);
    assert_eq!(told(&wrong.output().unwrap()).0, Some(2));
}
