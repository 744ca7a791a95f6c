//! Exhibitor's API as its clients ask, with nobody there yet.

use std::process::Command;

use crate::cell::{Cell, until};
use crate::program::{told, wharf};

fn curl(at: &str, arguments: &[&str]) -> u32 {
    let output =
        Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}"]).args(arguments).arg(at).output();
    String::from_utf8(output.unwrap().stdout).unwrap().parse().unwrap()
}

#[test]
fn what_it_does_not_do_is_refused_and_what_nobody_has_is_told() {
    let cell = Cell::new(73, 1);
    let host = &cell.hosts[0];
    let form = "Accept: application/x-www-form-urlencoded";
    assert_eq!(host.exhibitor("list", "Accept: application/json"), (200, r#"{"servers":[],"port":2181}"#.to_owned()));
    assert_eq!(host.exhibitor("list", form), (200, "count=0&port=2181".to_owned()));
    assert_eq!(host.exhibitor("list", "Accept: text/html").0, 406);
    assert_eq!(host.serving(), 503);
    until("its own table is known", || host.status().len() == 1);
    let at = host.agent.address("exhibitor");
    let url = |path: &str| format!("http://{at}/exhibitor/v1/cluster/{path}");
    for (path, arguments, expected) in [
        ("list", &["-X", "POST"][..], 405),
        ("status", &["-X", "DELETE"], 405),
        ("node/serving", &["-X", "PUT"], 405),
        ("list", &["-I"], 200),
        ("state", &[], 200),
        ("state/127.0.73.1", &[], 200),
        ("restart", &[], 403),
        ("restart/127.0.73.1", &[], 403),
        ("start/x", &["-X", "POST"], 403),
        ("stop", &["-X", "POST"], 403),
        ("4ltr/ruok", &[], 404),
        ("log/x", &[], 404),
        ("", &[], 404),
        ("list", &["-H", "Host: evil.example"], 421),
        ("list", &["-H", "Host: localhost:8181"], 200),
    ] {
        assert_eq!(curl(&url(path), arguments), expected, "{path} {arguments:?}");
    }
    assert_eq!(curl(&format!("http://{at}/v1/services"), &[]), 404, "the rest of the agent is elsewhere");
    let metrics = Command::new("curl").args(["-s", &format!("http://{}/metrics", host.agent.address("http"))]).output();
    let metrics = String::from_utf8(metrics.unwrap().stdout).unwrap();
    assert!(metrics.contains(r#"endpoint="/exhibitor/v1/cluster/list",code="405""#), "{metrics}");
}

#[test]
fn commands_are_called_by_links_too_and_say_who_cannot_be_asked() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["zk-list-nodes", "zk-barrier"] {
        let link = dir.path().join(name);
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_wharf"), &link).unwrap();
        let output = Command::new(&link)
            .args(["--http", "127.0.0.1:1"])
            .args((name == "zk-barrier").then_some("--timeout=1s"))
            .output();
        let (code, printed, complaint) = told(&output.unwrap());
        assert_eq!((code, printed.as_str()), (Some(3), ""), "{name}: {complaint}");
        assert!(complaint.contains("no agent answers"), "{complaint}");
    }
    let wrong = wharf().env("num_servers", "many").arg("zk-list-nodes").output().unwrap();
    assert_eq!(told(&wrong).0, Some(2));
    let empty = wharf().env("num_servers", "").args(["zk-list-nodes", "--http", "127.0.0.1:1"]).output().unwrap();
    assert_eq!(told(&empty).0, Some(3));
}
