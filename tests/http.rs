//! HTTP as a program sees it: every endpoint, every refusal.
#![allow(clippy::unwrap_used)]

mod side;

use serde_json::json;
use side::{Options, Side, send_unix};
use wharf::answer::http::Readiness;

const REDIS_A: &str = r#"{"host":"10.88.0.1","port":6379,"id":"core-01:redis:6379","service":"redis","node":"core-01","owner":"o1","proto":"tcp","role":"primary","tags":["blue"],"since":"2026-03-04T05:06:07Z"}"#;
const REDIS_B: &str =
    r#"{"host":"10.88.0.2","port":6379,"service":"redis","node":"core-02","owner":"o2","role":"replica"}"#;

async fn with_redis() -> Side {
    let mut side = Side::start().await;
    side.put("/services/redis/core-01-redis-6379", REDIS_A);
    side.put("/services/redis/core-02-redis-6379", REDIS_B);
    side.put("/services/prod/cache/core-01", r#"{"host":"10.88.0.1","port":11211}"#);
    side
}

#[tokio::test]
async fn services_are_listed_with_every_field_of_their_records() {
    let side = with_redis().await;
    let reply = side.get("/v1/services").await;
    assert_eq!(reply.status, 200);
    assert!(reply.has_header("content-type", "application/json"), "{reply:?}");
    let mut a: serde_json::Value = serde_json::from_str(REDIS_A).unwrap();
    a["key"] = "/services/redis/core-01-redis-6379".into();
    let mut b: serde_json::Value = serde_json::from_str(REDIS_B).unwrap();
    b["key"] = "/services/redis/core-02-redis-6379".into();
    let cache = json!({"host": "10.88.0.1", "port": 11211, "key": "/services/prod/cache/core-01"});
    assert_eq!(
        reply.json(),
        json!({"revision": 3, "stale": false, "services": [
            {"name": "cache.prod", "endpoints": [cache]},
            {"name": "redis", "endpoints": [a, b]},
        ]})
    );
    side.stop().await;
}

#[tokio::test]
async fn one_service_is_filtered_by_role_tag_and_node() {
    let side = with_redis().await;
    for (query, hosts) in [
        ("", vec!["10.88.0.1", "10.88.0.2"]),
        ("?role=primary", vec!["10.88.0.1"]),
        ("?role=master", vec!["10.88.0.1"]),
        ("?role=replica", vec!["10.88.0.2"]),
        ("?tag=blue", vec!["10.88.0.1"]),
        ("?tag=green", vec![]),
        ("?node=core-02", vec!["10.88.0.2"]),
        ("?node=core-02&role=primary", vec![]),
    ] {
        let reply = side.get(&format!("/v1/services/redis{query}")).await;
        assert_eq!(reply.status, 200, "{query}");
        let body = reply.json();
        let found: Vec<_> =
            body["endpoints"].as_array().unwrap().iter().map(|one| one["host"].as_str().unwrap()).collect();
        assert_eq!(found, hosts, "{query}");
        assert_eq!((&body["name"], &body["stale"]), (&json!("redis"), &json!(false)));
    }
    // This agent's host is core-02.
    for (query, first) in [("?near=1", "10.88.0.2"), ("?near=0", "10.88.0.1"), ("?near=true&tag=blue", "10.88.0.1")] {
        let body = side.get(&format!("/v1/services/redis{query}")).await.json();
        assert_eq!(body["endpoints"][0]["host"], first, "{query}");
    }
    assert_eq!(side.get("/v1/services/redis?near=2").await.status, 400);
    assert_eq!(side.get("/v1/services/redis?role=boss").await.status, 400);
    assert_eq!(side.get("/v1/services/redis?rolle=primary").await.status, 400);
    side.stop().await;
}

#[tokio::test]
async fn an_unknown_service_is_a_404_with_a_reason_and_a_way_on() {
    let side = with_redis().await;
    for (name, hint) in
        [("redi", "redis"), ("prod", "cache.prod"), ("nothing-like-it", "wharf explain"), ("%00%1b", "/v1/services")]
    {
        let reply = side.get(&format!("/v1/services/{name}")).await;
        assert_eq!(reply.status, 404, "{name}");
        let body = reply.json();
        assert!(body["error"].as_str().unwrap().starts_with("no service"), "{body}");
        assert!(body["hint"].as_str().unwrap().contains(hint), "{name}: {body}");
    }
    side.stop().await;
}

#[tokio::test]
async fn before_the_first_read_unknown_means_not_yet() {
    let side = with_redis().await;
    side.ready.send_replace(Readiness { dns: true, catalog: false });
    assert_eq!(side.get("/v1/services/nginx").await.status, 503);
    assert_eq!(side.get("/v1/services/redis").await.status, 200);
    side.stop().await;
}

#[tokio::test]
async fn a_stale_catalog_says_so() {
    let mut side = with_redis().await;
    side.set_stale(true);
    assert_eq!(side.get("/v1/services").await.json()["stale"], json!(true));
    assert_eq!(side.get("/v1/services/redis").await.json()["stale"], json!(true));
    side.stop().await;
}

#[tokio::test]
async fn two_primaries_are_contested() {
    let mut side = with_redis().await;
    assert_eq!(side.get("/v1/services/redis").await.json().get("contested"), None);
    side.put("/services/redis/core-02-redis-6379", &REDIS_B.replace("replica", "primary"));
    assert_eq!(side.get("/v1/services/redis").await.json()["contested"], json!(true));
    side.stop().await;
}

#[tokio::test]
async fn services_of_other_zones_are_named_in_full() {
    let mut side = Side::start().await;
    side.put("/skydns/local/skydns/rails/1", r#"{"host":"10.0.0.9","port":80}"#);
    let reply = side.get("/v1/services/rails.skydns.local").await;
    assert_eq!((reply.status, &reply.json()["name"]), (200, &json!("rails.skydns.local")));
    assert_eq!(side.get("/v1/services/rails").await.status, 404);
    side.stop().await;
}

#[tokio::test]
async fn control_characters_never_reach_a_terminal() {
    let mut side = Side::start().await;
    side.put(
        "/services/evil/x",
        r#"{"host":"10.0.0.9","port":80,"id":"a\u001b[2J\u009b\u202e\u007f","tags":["\u0007"]}"#,
    );
    let reply = side.get("/v1/services").await;
    let is_odd = |character: &char| character.is_control() && *character != '\n' || *character == '\u{202e}';
    assert!(!reply.body.chars().any(|character| is_odd(&character)), "{:?}", reply.body);
    let id = &reply.json()["services"][0]["endpoints"][0]["id"];
    assert_eq!(id, &json!("a\u{1b}[2J\u{9b}\u{202e}\u{7f}"));
    side.stop().await;
}

#[tokio::test]
async fn health_tells_alive_from_ready() {
    let side = Side::start().await;
    side.ready.send_replace(Readiness::default());
    assert_eq!(side.get("/healthz").await.status, 200);
    let not_yet = side.get("/readyz").await;
    assert_eq!(not_yet.status, 503);
    assert!(not_yet.body.contains("DNS") && not_yet.body.contains("catalog"), "{not_yet:?}");
    side.ready.send_replace(Readiness { dns: true, catalog: false });
    assert_eq!(side.get("/readyz").await.status, 503);
    side.ready.send_replace(Readiness { dns: true, catalog: true });
    assert_eq!(side.get("/readyz").await.status, 200);
    side.stop().await;
}

#[tokio::test]
async fn metrics_are_open_metrics_with_help() {
    let side = Side::start().await;
    side.get("/healthz").await;
    side.get("/nowhere/at/all").await;
    let open = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nAccept: application/openmetrics-text; version=1.0.0\r\n\
                Connection: close\r\n\r\n";
    let reply = side.send(open).await;
    assert!(reply.head.contains("content-type: application/openmetrics-text"), "{reply:?}");
    assert!(reply.body.contains("# HELP wharf_http_requests "), "{}", reply.body);
    assert!(reply.body.contains(r#"wharf_http_requests_total{endpoint="/healthz",code="200"} 1"#), "{}", reply.body);
    assert!(reply.body.contains(r#"wharf_http_requests_total{endpoint="other",code="404"} 1"#), "{}", reply.body);
    assert!(reply.body.ends_with("# EOF\n"), "{}", reply.body);
    let reply = side.get("/metrics").await;
    assert!(reply.head.contains("content-type: text/plain; version=0.0.4"), "{reply:?}");
    assert!(reply.body.contains("# TYPE wharf_http_requests_total counter\n"), "{}", reply.body);
    assert!(!reply.body.contains("# EOF"), "{}", reply.body);
    side.stop().await;
}

#[tokio::test]
async fn a_rebound_name_is_refused_everywhere_and_a_configured_one_is_not() {
    let side = Side::start_with(Options { hosts: vec!["core-01.example".into()], ..Options::default() }).await;
    for path in ["/v1/services", "/v1/local", "/metrics", "/healthz", "/nowhere"] {
        let ask = |host: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let refused = side.send(&ask("evil.example:5380")).await;
        assert_eq!(refused.status, 421, "{path}");
        assert!(refused.json()["hint"].as_str().unwrap().contains("--http-host"), "{refused:?}");
        assert_ne!(side.send(&ask("core-01.example:5380")).await.status, 421, "{path}");
        assert_ne!(side.send(&ask("localhost")).await.status, 421, "{path}");
    }
    assert_eq!(side.send("GET /healthz HTTP/1.0\r\n\r\n").await.status, 400);
    side.stop().await;
}

#[tokio::test]
async fn what_is_not_there_is_told_as_json() {
    let side = Side::start().await;
    let lost = side.get("/v2/services").await;
    assert_eq!(lost.status, 404);
    assert!(lost.json()["hint"].as_str().unwrap().contains("/openapi.json"));
    let post = format!(
        "POST /v1/services HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        side.address
    );
    let wrong = side.send(&post).await;
    assert_eq!(wrong.status, 405);
    assert!(wrong.json()["error"].as_str().unwrap().contains("/v1/services"));
    side.stop().await;
}

#[tokio::test]
async fn the_unix_socket_answers_like_tcp() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("http.sock");
    let mut side = Side::start_with(Options { socket: Some(socket.clone()), ..Options::default() }).await;
    side.put("/services/redis/a", REDIS_A);
    let reply =
        send_unix(&socket, "GET /v1/services/redis HTTP/1.1\r\nHost: anything\r\nConnection: close\r\n\r\n").await;
    assert_eq!((reply.status, &reply.json()["name"]), (200, &json!("redis")));
    side.stop().await;
    assert!(!socket.exists(), "the socket's file goes with the agent");
}

#[tokio::test]
async fn the_process_that_renders_tells_how_its_files_stand() {
    let side = Side::start().await;
    assert_eq!(side.get("/v1/renders").await.json(), json!({"renders": []}));
    let put = async |head: &str, body: &str| {
        let (host, length) = (side.address, body.len());
        let request = format!(
            "PUT /v1/renders HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{head}Content-Length: {length}\r\n\r\n{body}"
        );
        side.send(&request).await
    };
    let told = put("", r#"{"renders":[{"name":"a\"b","state":"current","writes":2,"later":true}]}"#).await;
    assert_eq!(told.status, 200, "{}", told.body);
    let shown = side.get("/v1/renders").await.json();
    assert_eq!(shown["renders"][0]["name"], "a\"b");
    assert_eq!(put("Origin: http://evil.example\r\n", r#"{"renders":[]}"#).await.status, 403, "no web page may");
    assert_eq!((put("", "nonsense").await.status, put("", &" ".repeat(600_000)).await.status), (400, 413));
    assert_eq!(side.get("/v1/renders").await.json(), shown, "what is refused changes nothing");
    let metrics = side.get("/metrics").await.body;
    for line in [r#"wharf_render_current{render="a\"b"} 1"#, r#"wharf_render_writes_total{render="a\"b"} 2"#] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    let many = json!({"renders": vec![json!({"name": "x"}); 1_000]}).to_string();
    assert_eq!(put("", &many).await.json()["renders"].as_array().unwrap().len(), 256);
    side.stop().await;
}

#[tokio::test]
async fn a_number_is_claimed_and_freed_by_a_person_and_by_no_web_page() {
    let side = Side::start().await;
    let ask = async |method: &str, rest: &str, head: &str| {
        let host = side.address;
        let request = format!(
            "{method} /v1/ordinals/{rest} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{head}Content-Length: 0\r\n\r\n"
        );
        side.send(&request).await
    };
    let claimed = ask("POST", "nucleus", "").await;
    let held = |number| json!({"state": "held", "number": number, "since": "2026-03-04T05:06:07Z"});
    assert_eq!((claimed.status, claimed.json()), (200, held(7)));
    assert_eq!(ask("POST", "nucleus?renumber=1", "").await.json(), held(8));
    assert_eq!(ask("POST", "nucleus?renumber=false", "").await.json(), held(7));
    let freed = ask("DELETE", "nucleus?node=core-09", "").await;
    assert_eq!((freed.status, freed.json()), (200, json!({"node": "core-09", "number": 9, "free": true})));
    let none = ask("DELETE", "nucleus", "").await;
    assert_eq!((none.status, &none.json()["error"]), (404, &json!("core-02 has no number of nucleus")));
    for (method, rest, head, status) in [
        ("POST", "nucleus", "Origin: http://evil.example\r\n", 403),
        ("DELETE", "nucleus?node=core-09", "Origin: http://evil.example\r\n", 403),
        ("POST", "Nucleus", "", 400),
        ("POST", "7", "", 400),
        ("POST", "nucleus?node=core-09", "", 400),
        ("POST", "nucleus?renumber=2", "", 400),
        ("DELETE", "nucleus?node=", "", 400),
        ("DELETE", "nucleus?renumber=1", "", 400),
        ("GET", "nucleus", "", 405),
        ("POST", "nucleus/x", "", 404),
    ] {
        assert_eq!(ask(method, rest, head).await.status, status, "{method} {rest} {head}");
    }
    side.stop().await;
}

#[tokio::test]
async fn a_process_apart_tells_how_its_ambassadors_stand() {
    let side = Side::start().await;
    let own = side.get("/v1/proxies").await.json()["proxies"].as_array().unwrap().len();
    let put = async |head: &str, body: &str| {
        let (host, length) = (side.address, body.len());
        let request = format!(
            "PUT /v1/proxies HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{head}Content-Length: {length}\r\n\r\n{body}"
        );
        side.send(&request).await
    };
    let told = put("", r#"{"proxies":[{"name":"apart","connections":2,"later":true}]}"#).await;
    assert_eq!(told.status, 200, "{}", told.body);
    let shown = side.get("/v1/proxies").await.json();
    let last = shown["proxies"].as_array().unwrap().last().unwrap();
    assert_eq!((shown["proxies"].as_array().unwrap().len(), &last["name"]), (own + 1, &"apart".into()));
    assert_eq!(put("", "nonsense").await.status, 400);
    assert_eq!(put("Origin: http://evil.example\r\n", r#"{"proxies":[]}"#).await.status, 403, "no web page may");
    assert_eq!(put("", &" ".repeat(70_000)).await.status, 413);
    assert_eq!(side.get("/v1/proxies").await.json(), shown, "what is refused changes nothing");
    side.stop().await;
}
