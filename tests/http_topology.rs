//! Topologies over HTTP: who may change one, and what is made of what was sent.
#![allow(clippy::unwrap_used, missing_docs)]

mod side;

use side::{Options, Side, send_to, send_unix};

const TOPOLOGY: &str = r#"{"master":{"address":"a"},"slaves":[]}"#;

fn request(method: &str, path: &str, host: &str, more: &str) -> String {
    let length = TOPOLOGY.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{more}Content-Length: {length}\r\nConnection: close\r\n\r\n{TOPOLOGY}"
    )
}

#[tokio::test]
async fn what_was_sent_reaches_those_who_steer() {
    let side = Side::start().await;
    let host = side.address.to_string();
    for (method, path, status, said) in [
        ("PUT", "/v1/topology/redis-1", 409, "redis-1: Apply"),
        ("PUT", "/v1/topology/redis-1?force=1", 409, "force: true, dry_run: false"),
        ("PUT", "/v1/topology/redis-1?dry_run=1&force=0", 409, "force: false, dry_run: true"),
        ("PUT", "/v1/topology/redis-1?force=yes", 400, "neither 0 nor 1"),
        ("PUT", "/v1/topology/redis-1?power=1", 400, "no parameter"),
        ("POST", "/v1/topology/redis-1/pause", 409, "redis-1: Pause(true)"),
        ("DELETE", "/v1/topology/redis-1/pause", 409, "redis-1: Pause(false)"),
        ("POST", "/v1/topology/redis-1", 405, "method"),
    ] {
        let reply = side.send(&request(method, path, &host, "")).await;
        assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
        assert!(reply.json()["error"].as_str().unwrap().contains(said), "{method} {path}: {reply:?}");
    }
    side.stop().await;
}

#[tokio::test]
async fn no_web_page_and_no_other_host_changes_a_topology() {
    let side = Side::start_with(Options { hosts: vec!["core-01.example".into()], ..Options::default() }).await;
    let host = side.address.to_string();
    for path in ["/v1/topology/redis-1", "/v1/topology/redis-1?dry_run=1"] {
        for (name, more) in [(host.as_str(), "Origin: http://evil.example\r\n"), ("core-01.example", "")] {
            let reply = side.send(&request("PUT", path, name, more)).await;
            assert_eq!(reply.status, 403, "{name} {more}");
            assert!(reply.json()["hint"].as_str().unwrap().contains("wharf topology"), "{reply:?}");
        }
        assert_eq!(side.send(&request("PUT", path, "evil.example", "")).await.status, 421);
    }
    side.stop().await;
}

#[tokio::test]
async fn with_a_token_tcp_needs_it_and_the_unix_socket_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("http.sock");
    let options = Options { token: Some("s3cret"), socket: Some(socket.clone()), ..Options::default() };
    let side = Side::start_with(options).await;
    let host = side.address.to_string();
    for (more, status) in
        [("", 401), ("Authorization: Bearer wrong\r\n", 403), ("Authorization: Bearer s3cret\r\n", 409)]
    {
        assert_eq!(side.send(&request("PUT", "/v1/topology/redis-1", &host, more)).await.status, status, "{more}");
    }
    assert_eq!(send_unix(&socket, &request("PUT", "/v1/topology/redis-1", "x", "")).await.status, 409);
    side.stop().await;
}

#[tokio::test]
async fn the_endpoints_of_before_answer_in_plain_words_and_are_guarded_alike() {
    let seeds = vec![("127.0.0.1:0".parse().unwrap(), "redis-1".to_owned())];
    let side = Side::start_with(Options { seeds, ..Options::default() }).await;
    let seed = side.seed.unwrap();
    let host = seed.to_string();
    for (method, path, status, said) in [
        ("PUT", "/master", 409, "redis-1: Apply"),
        ("PUT", "/dns", 409, "redis-1: Name"),
        ("POST", "/master", 405, "Method Not Allowed"),
        ("PUT", "/v1/topology/redis-1", 404, "Object Not Found"),
    ] {
        let reply = send_to(seed, &request(method, path, &host, "")).await;
        assert_eq!(reply.status, status, "{method} {path}: {reply:?}");
        assert!(reply.body.contains(said) && reply.head.contains("content-type: text/plain"), "{reply:?}");
    }
    let origin = "Origin: http://evil.example\r\n";
    assert_eq!(send_to(seed, &request("PUT", "/master", &host, origin)).await.status, 403);
    assert_eq!(send_to(seed, &request("PUT", "/master", "evil.example", "")).await.status, 421);
    side.stop().await;
}
