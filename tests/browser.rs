//! The status page in a real browser: live without reload, honest when something is away, safe against what containers
//! say, usable on a phone, in the dark and by keyboard. Pictures are kept under the target directory.
#![allow(clippy::unwrap_used, missing_docs)]

mod browser_driver;
mod side;

use std::sync::Arc;

use browser_driver::Browser;
use serde_json::json;
use side::{Options, Side};
use wharf::catalog::facade::api::Nodes;
use wharf::model::offer::instance::Skipped;
use wharf::model::publish::local::Local;
use wharf::model::words::node::{NodeRecord, Waiting};

const EVIL: &str = r#"{"host":"10.88.0.3","port":80,"node":"<img src=x onerror=\"window.hacked=1\">","image":"<script>window.hacked=1</script>","tags":["a\u001b[2Jb","\u202eevil"]}"#;

fn fill(side: &mut Side) {
    side.put("/services/redis/a", r#"{"host":"10.88.0.1","port":6379,"node":"core-01","role":"primary","since":"2026-03-04T05:06:07Z","image":"redis:7"}"#);
    side.put(
        "/services/redis/b",
        r#"{"host":"10.88.0.2","port":6379,"node":"core-02","role":"replica","image":"redis:7","site":"r/a/rack-7"}"#,
    );
    side.put(
        "/services/memcached/a",
        r#"{"host":"10.88.0.1","port":11211,"node":"core-01","tags":["blue"],"image":"memcached:1.6"}"#,
    );
    let skipped = Skipped {
        container: "web".into(),
        port: "80/tcp".into(),
        kind: "loopback",
        reason: "bound to 127.0.0.1, which no other host reaches".into(),
    };
    side.local.send_replace(Arc::new(Local {
        node: "core-01".into(),
        skipped: vec![skipped],
        engine: true,
        listed: true,
        ..Local::default()
    }));
    let waiting = Waiting {
        id: "core-02:postgres:5432".into(),
        service: "postgres".into(),
        state: "down".into(),
        since: None,
        reason: Some("connection refused".into()),
        ..Waiting::default()
    };
    let node = |name: &str, waiting: Vec<Waiting>| NodeRecord {
        node: name.into(),
        version: "0.1.0".into(),
        addresses: vec!["10.88.0.1".parse().unwrap()],
        started: "2026-03-04T05:06:07Z".into(),
        site: Some("r/b/rack-8".into()),
        states: [("ready".into(), 2), ("down".into(), waiting.len())].into(),
        waiting,
        ..NodeRecord::default()
    };
    let nodes = vec![node("core-01", vec![]), node("core-02", vec![waiting])];
    side.nodes.send_replace(Arc::new(Nodes::of(false, nodes, &[])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_page_is_live_honest_safe_and_usable() {
    let address = side::own_address();
    let mut side = Side::start_with(Options { listen: Some(address), ..Options::default() }).await;
    fill(&mut side);
    let mut browser = tokio::task::block_in_place(Browser::start);
    let url = format!("http://{address}/");

    // Everything is there.
    let desk = json!({"width": 1280, "height": 1000, "deviceScaleFactor": 1, "mobile": false});
    browser.call("Emulation.setDeviceMetricsOverride", desk);
    browser.open(&url);
    browser.until("document.getElementById('state').textContent === 'live'");
    browser.until(
        "document.body.innerText.includes('10.88.0.2:6379') && document.body.innerText.includes('connection refused')",
    );
    browser.until("document.body.innerText.includes('10.77.0.2:11211')");
    let text = browser.text();
    for seen in ["memcached", "core-02", "replica", "bound to 127.0.0.1", "0.1.0", "core-02:postgres:5432"] {
        assert!(text.contains(seen), "{seen} in {text}");
    }
    browser.until("document.getElementById('etcd-v2').innerText.includes('PUT /v2/keys/other')");
    browser
        .until("document.getElementById('locks').innerText.includes('what core-09 started is not known to be dead')");
    // Files that follow the cluster are there as soon as there are any, and say what they wait for.
    assert_eq!(browser.value("document.getElementById('renders-section').hidden"), json!(true));
    let shows = "!document.getElementById('renders-section').hidden";
    browser.until_with(shows, || side.renders()); // the process that renders tells it again and again
    let text = browser.text();
    for seen in ["Files", "/etc/haproxy/haproxy.cfg", "waiting", "services are not read yet"] {
        assert!(text.contains(seen), "{seen} in {text}");
    }
    // Where hosts and endpoints are, and whom clients of ElastiCache are told of.
    for seen in ["r/a/rack-7", "r/b/rack-8", "10.77.0.2:11211", "away 12s", "1767225600", "0.0.0.0:11311 (TLS)"] {
        assert!(text.contains(seen), "{seen} in {text}");
    }
    assert!(text.contains("cannot listen on 127.0.0.1:11312") && text.contains("no members yet"), "{text}");
    browser.picture("wide");

    // What dies vanishes without reload.
    browser.value("window.notReloaded = true");
    side.delete("/services/redis/b");
    browser.until("!document.body.innerText.includes('10.88.0.2:6379')");
    side.put("/services/redis/c", r#"{"host":"10.88.0.9","port":6379}"#);
    browser.until("document.body.innerText.includes('10.88.0.9:6379')");
    assert_eq!(browser.value("window.notReloaded"), json!(true));

    // Text from containers stays text.
    side.put("/services/evil/x", EVIL);
    browser.until("document.body.innerText.includes('<script>window.hacked=1</script>')");
    assert_eq!(browser.value("window.hacked === undefined"), json!(true));
    let text = browser.text();
    assert!(text.contains(r"a\u{1b}[2Jb") && !text.contains(['\u{1b}', '\u{202e}']), "{text}");

    // The store away.
    side.set_stale(true);
    browser
        .until("document.getElementById('state').textContent === 'stale' && !document.getElementById('stale').hidden");
    browser.picture("stale");
    side.set_stale(false);
    browser.until("document.getElementById('stale').hidden");

    // By keyboard alone: slash, a word, escape.
    browser.keys("/");
    browser.keys("memc");
    browser.until("document.getElementById('services-count').textContent === '1 of 4'");
    browser.press("Escape", 27);
    browser.until("document.getElementById('services-count').textContent === '4'");

    // On a phone, in the dark.
    let phone = json!({"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": true});
    browser.call("Emulation.setDeviceMetricsOverride", phone);
    let dark = json!({"features": [{"name": "prefers-color-scheme", "value": "dark"}]});
    browser.call("Emulation.setEmulatedMedia", dark);
    browser.until("document.documentElement.scrollWidth <= 360");
    assert_eq!(browser.value("getComputedStyle(document.body).backgroundColor"), json!("rgb(20, 24, 27)"));
    browser.picture("phone-dark");

    // The agent away, and back on the same address.
    let complaints = std::mem::take(&mut browser.complaints);
    assert!(complaints.is_empty(), "the page runs within its own policy: {complaints:?}");
    side.stop().await;
    browser.until(
        "!document.getElementById('away').hidden && document.getElementById('state').textContent === 'agent away'",
    );
    browser.picture("agent-away");
    let mut side = Side::start_with(Options { listen: Some(address), ..Options::default() }).await;
    side.put("/services/after/a", r#"{"host":"10.88.0.7","port":1}"#);
    browser.until("document.getElementById('away').hidden && document.body.innerText.includes('10.88.0.7:1')");
    assert!(!browser.text().contains("10.88.0.9:6379"), "what the agent no longer knows is gone");
    drop(browser);
    side.stop().await;
}

#[tokio::test]
async fn the_policy_allows_nothing_but_the_pages_own_script() {
    let side = Side::start().await;
    let page = side.get("/").await;
    let policy = page.head.lines().find(|line| line.starts_with("content-security-policy: ")).unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    for outside in ["src=\"http", "href=\"http", "@import", "innerHTML", "insertAdjacent", "document.write", "eval("] {
        assert!(!page.body.contains(outside), "{outside}");
    }
    side.stop().await;
}
