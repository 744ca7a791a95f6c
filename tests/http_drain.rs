//! Drain over HTTP: who may, who may not, and what comes of it.
#![allow(clippy::unwrap_used, missing_docs)]

mod side;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;
use side::{Options, Reply, Side, send_unix};
use wharf::answer::http::NotDrained;
use wharf::model::publish::local::Local;

fn request(method: &str, host: &str, more: &str) -> String {
    format!("{method} /v1/drain HTTP/1.1\r\nHost: {host}\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n")
}

/// A host whose withdrawal is complete.
fn withdrawn() -> Arc<Local> {
    Arc::new(Local { drained: Some(SystemTime::UNIX_EPOCH), known: true, ..Local::default() })
}

/// Sends the request and confirms the drain that it may cause; tells whether it caused one.
async fn asked(side: &mut Side, request: &str) -> (Reply, Option<bool>) {
    let stream = side.address;
    let sent = tokio::spawn({
        let request = request.to_owned();
        async move { side::send_to(stream, &request).await }
    });
    let confirm = async {
        let drain = side.drains.recv().await.unwrap();
        side.local.send_replace(withdrawn());
        drain.reply.send(Ok(vec![])).unwrap();
        drain.drain
    };
    tokio::pin!(sent);
    tokio::select! {
        reply = &mut sent => (reply.unwrap(), None),
        drained = confirm => (sent.await.unwrap(), Some(drained)),
    }
}

#[tokio::test]
async fn loopback_drains_and_undrains() {
    let mut side = Side::start().await;
    let host = side.address.to_string();
    let (reply, drained) = asked(&mut side, &request("POST", &host, "")).await;
    assert_eq!((reply.status, reply.json(), drained), (200, json!({"drained": true}), Some(true)));
    let (reply, drained) = asked(&mut side, &request("DELETE", &host, "")).await;
    assert_eq!((reply.status, reply.json(), drained), (200, json!({"drained": false}), Some(false)));
    let (reply, drained) = asked(&mut side, &request("GET", &host, "")).await;
    assert_eq!((reply.status, drained), (405, None), "a mere GET drains nothing");
    side.stop().await;
}

#[tokio::test]
async fn a_drain_that_the_store_has_not_confirmed_is_accepted_and_says_what_it_waits_for() {
    let mut side = Side::start().await;
    for (local, word) in [
        (Local { records: 2, ..(*withdrawn()).clone() }, "2 records"),
        (Local { unconfirmed: 1, ..(*withdrawn()).clone() }, "not confirmed 1"),
        (Local { known: false, ..(*withdrawn()).clone() }, "does not tell"),
    ] {
        let (address, request) = (side.address, request("POST", &side.address.to_string(), ""));
        let sent = tokio::spawn(async move { side::send_to(address, &request).await });
        let drain = side.drains.recv().await.unwrap();
        side.local.send_replace(Arc::new(local));
        drain.reply.send(Ok(vec![])).unwrap();
        let reply = sent.await.unwrap();
        assert_eq!((reply.status, &reply.json()["drained"]), (202, &json!(true)));
        assert!(reply.json()["awaits"].as_str().unwrap().contains(word), "{reply:?}");
    }
    side.stop().await;
}

#[tokio::test]
async fn no_web_page_drains() {
    let mut side = Side::start_with(Options { hosts: vec!["core-01.example".into()], ..Options::default() }).await;
    let host = side.address.to_string();
    for (name, more) in [
        (host.as_str(), "Origin: http://evil.example\r\n"),
        (host.as_str(), "Origin: null\r\n"),
        ("core-01.example", ""),
        ("10.1.2.3:5380", ""),
    ] {
        let (reply, drained) = asked(&mut side, &request("POST", name, more)).await;
        assert_eq!((reply.status, drained), (403, None), "{name} {more}");
        assert!(reply.json()["hint"].as_str().unwrap().contains("wharf drain"), "{reply:?}");
    }
    let (reply, drained) = asked(&mut side, &request("POST", "evil.example", "")).await;
    assert_eq!((reply.status, drained), (421, None));
    side.stop().await;
}

#[tokio::test]
async fn with_a_token_tcp_needs_it() {
    let mut side = Side::start_with(Options { token: Some("s3cret"), ..Options::default() }).await;
    let host = side.address.to_string();
    let (reply, drained) = asked(&mut side, &request("POST", &host, "")).await;
    assert_eq!((reply.status, drained), (401, None));
    assert!(reply.has_header("www-authenticate", "bearer"), "{reply:?}");
    let (reply, drained) = asked(&mut side, &request("POST", &host, "Authorization: Bearer wrong\r\n")).await;
    assert_eq!((reply.status, drained), (403, None));
    let (reply, drained) = asked(&mut side, &request("POST", &host, "Authorization: Bearer s3cret\r\n")).await;
    assert_eq!((reply.status, drained), (200, Some(true)));
    side.stop().await;
}

#[tokio::test]
async fn the_unix_socket_always_drains() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("http.sock");
    let options = Options { token: Some("s3cret"), socket: Some(socket.clone()), ..Options::default() };
    let mut side = Side::start_with(options).await;
    let request = request("POST", "whatever", "Origin: http://evil.example\r\n");
    let sent = tokio::spawn(async move { send_unix(&socket, &request).await });
    let drain = side.drains.recv().await.unwrap();
    side.local.send_replace(withdrawn());
    drain.reply.send(Ok(vec![])).unwrap();
    assert_eq!((drain.drain, sent.await.unwrap().status), (true, 200));
    side.stop().await;
}

#[tokio::test]
async fn what_hinders_a_drain_is_told() {
    let mut side = Side::start().await;
    let (address, request) = (side.address, request("POST", &side.address.to_string(), ""));
    let sent = tokio::spawn(async move { side::send_to(address, &request).await });
    let drain = side.drains.recv().await.unwrap();
    drain.reply.send(Err(NotDrained::Failed("the state directory cannot be written".into()))).unwrap();
    let reply = sent.await.unwrap();
    assert_eq!((reply.status, &reply.json()["error"]), (500, &json!("the state directory cannot be written")));
    side.stop().await;
}

#[tokio::test]
async fn nobody_there_to_drain_is_not_silence() {
    let mut side = Side::start().await;
    side.drains.close();
    let begun = std::time::Instant::now();
    let reply = side.send(&request("POST", &side.address.to_string(), "")).await;
    assert_eq!(reply.status, 503);
    assert!(begun.elapsed() < Duration::from_secs(5));
    side.stop().await;
}

#[tokio::test]
async fn a_lost_host_is_forgotten_by_who_may_drain() {
    let side = Side::start().await;
    let reply = side.send("DELETE /v1/nodes/core-09 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!((reply.status, reply.json()["forgotten"].as_str()), (200, Some("core-09")));
    let reply = side.send("DELETE /v1/nodes/core-07 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await;
    assert_eq!(reply.status, 404);
    let page =
        "DELETE /v1/nodes/core-09 HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil\r\nConnection: close\r\n\r\n";
    assert_eq!(side.send(page).await.status, 403);
    side.stop().await;
}
