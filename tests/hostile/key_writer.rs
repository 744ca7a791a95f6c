//! Whoever may write one key of etcd: however it is made, the others are served, and it costs what the law of memory
//! says.

use etcd_client::{Client, PutOptions};
use hickory_server::proto::rr::RecordType;
use tokio::runtime::Runtime;

use crate::town::{Charter, Town};

/// What an agent may grow by for other reasons: buffers, a larger heap than is in use.
const SLACK: u64 = 48 * 1024 * 1024;
const RECORD: &[u8] = br#"{"host":"10.9.9.9","port":1}"#;

struct Writer<'t> {
    town: &'t Town,
    runtime: Runtime,
    client: Client,
    /// What the law allows for all that was written.
    allowed: u64,
}

impl Writer<'_> {
    fn put(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        self.put_on(key.as_ref(), value.as_ref(), 0);
    }

    fn put_on(&mut self, key: &[u8], value: &[u8], lease: i64) {
        self.allowed += 1_024 + 4 * (key.len() + value.len()) as u64 + 256 * 200;
        let options = PutOptions::new().with_lease(lease);
        self.runtime.block_on(self.client.put(key, value, Some(options))).unwrap();
    }

    fn lease(&mut self) -> i64 {
        self.runtime.block_on(self.client.lease_grant(60, None)).unwrap().id()
    }

    /// Waits until the agent has seen everything: what is written last is answered.
    fn is_seen(&mut self) {
        self.put("/services/last/one", RECORD);
        self.town.until("the last key is answered", || self.town.answers("last") == 1);
    }
}

/// A writer does this in a town; neighbours must not notice.
fn check(attack: impl FnOnce(&mut Writer<'_>)) {
    let town = Town::found_with(&Charter { etcd: true, ..Charter::default() });
    let before = town.rss();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let endpoints = town.etcd.as_ref().unwrap().endpoints();
    let client = runtime.block_on(Client::connect(endpoints, None)).unwrap();
    let mut writer = Writer { town: &town, runtime, client, allowed: 0 };
    attack(&mut writer);
    writer.is_seen();
    town.neighbours_are_offered();
    town.beats_never_missed();
    let grown = town.rss().saturating_sub(before);
    assert!(grown <= SLACK + writer.allowed, "{grown} bytes for {} allowed", writer.allowed);
}

#[test]
fn one_deep_key_and_one_long_key_cost_themselves() {
    check(|writer| {
        writer.put(format!("/services{}", "/a".repeat(12_000)), RECORD);
        writer.put(format!("/services/{}", "k".repeat(33_000)), RECORD);
        writer.put(format!("/services/x/{}", "a.".repeat(12_000)), RECORD);
        writer.is_seen();
        let bad = writer.town.metric("wharf_catalog_bad_records");
        assert!((bad - 3.0).abs() < 0.1, "{bad}");
    });
}

#[test]
fn keys_that_are_no_text_cost_themselves() {
    check(|writer| {
        for number in 0..501_u16 {
            let [high, low] = number.to_be_bytes();
            writer.put([b"/services/a/\xff", &[high | 0x80, low | 0x80, low][..]].concat(), RECORD);
            writer.put([b"/wharf/services/nodes/\xff", &[high | 0x80, low][..]].concat(), "{}");
        }
        writer.put(b"/services/neighbour-0/\0x", RECORD);
        writer.put(b"/services/neighbour-0\0/x", RECORD);
    });
}

#[test]
fn values_over_the_bounds_cost_themselves() {
    check(|writer| {
        let tags: Vec<String> = (0..880).map(|tag| format!("\"t{tag}\"")).collect();
        for number in 0..200 {
            writer.put(
                format!("/services/tags/{number}"),
                format!(r#"{{"host":"10.0.0.1","tags":[{}]}}"#, tags.join(",")),
            );
            writer.put(format!("/services/host/{number}"), format!("{}:80", "h".repeat(8_180)));
            writer.put(format!("/services/big/{number}"), vec![b'{'; 100_000]);
            writer.put(format!("/services/odd/{number}"), format!(r#"{{"role":"\u001b[31m{}"}}"#, "\\n".repeat(2_000)));
            writer.put(format!("/wharf/services/nodes/n{number}/1"), format!(r#"{{"node":"{}","more":18446744073709551615,"states":{{"ready":18446744073709551615,"saturated":18446744073709551615}}}}"#, "n".repeat(8_000)));
        }
        writer.is_seen();
        assert_eq!(writer.town.answers("tags") + writer.town.answers("host") + writer.town.answers("odd"), 0);
        let table = writer.town.wharf("nodes");
        assert!(
            table.contains("1000000") && table.lines().all(|line| line.len() < 1_000),
            "{}",
            &table[..500.min(table.len())]
        );
        assert!(!writer.town.agent.log().contains("\u{1b}[31m"));
    });
}

#[test]
fn roles_and_names_that_mean_something_change_nothing_for_others() {
    check(|writer| {
        for name in ["primary", "master", "any", "node", "near", "_tcp", "*", "cfg", "ns/dns", "apex/dns"] {
            for number in 0..5 {
                writer.put(format!("/services/{name}/{number}"), br#"{"host":"a.b.c","port":1,"role":"primary"}"#);
            }
        }
        for number in 0..2_000 {
            writer.put(
                format!("/services/roles/{number}"),
                format!(r#"{{"host":"10.0.0.1","port":{},"role":"primary"}}"#, number + 1),
            );
        }
        writer.is_seen();
        let reply = writer.town.ask("primary.roles.services.internal.", RecordType::SRV).unwrap();
        assert!(reply.answers.is_empty(), "contested: {reply:?}");
    });
}

#[test]
fn leases_that_come_and_go_and_one_with_very_many_keys_hold_nobody_up() {
    check(|writer| {
        for _ in 0..1_500 {
            let lease = writer.lease();
            writer.put_on(b"/services/leased/one", RECORD, lease);
        }
        let (lease, long) = (writer.lease(), "k".repeat(8_000));
        for number in 0..700 {
            writer.put_on(format!("/elsewhere/{number}{long}").as_bytes(), b"", lease);
        }
        writer.put_on(b"/services/leased/one", RECORD, lease);
    });
}
