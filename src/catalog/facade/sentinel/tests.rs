//! A catalog in the notation of its records, and what a client is told of it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::*;
use crate::catalog::index::Catalog;
use crate::model::steer::names::{Head, Heads};
use crate::model::steer::topology::{Applied, Server};
use crate::model::words::key::Prefix;
use crate::model::words::node::NodeRecord;
use crate::model::words::zone::Zones;

fn zones() -> Zones {
    Zones::new("services.internal", Prefix::parse("/services").expect("a prefix"), Vec::new()).expect("a zone")
}

/// Records as `service/name port role`, with the image after it where there is one.
fn catalog(records: &[&str]) -> Catalog {
    let mut catalog = Catalog::default();
    for record in records {
        let words: Vec<&str> = record.split(' ').collect();
        let image = words.get(3).map(|image| format!(r#","image":"{image}""#)).unwrap_or_default();
        let value = format!(r#"{{"host":"10.0.0.1","port":{},"role":"{}"{image}}}"#, words[1], words[2]);
        catalog.put(&format!("/services/{}", words[0]), value.as_bytes(), 0, 5).expect("a record");
    }
    catalog
}

fn masters(records: &[&str]) -> Masters {
    Masters::of(&catalog(records), &zones(), &BTreeMap::from([("mymaster".to_owned(), "redis-1".to_owned())]))
}

const USUAL: [&str; 3] = ["redis-1/a 6379 primary", "redis-1/b 6380 replica", "pg/a 5432 primary postgres:16"];

fn facts(password: Option<&str>) -> SentinelFacts {
    SentinelFacts::new("owner", "1.0.0", 26379, password.and_then(SentinelPassword::new))
}

fn bytes(talk: &mut Talk, masters: &Masters, facts: &SentinelFacts, line: &str) -> String {
    let words: Vec<Vec<u8>> = line.split_whitespace().map(|word| word.as_bytes().to_vec()).collect();
    let ground = Ground { masters, facts, clients: 1, now: Duration::from_secs(100) };
    let mut out = Vec::new();
    let values = match talk.answer(&words, &ground) {
        Said::Replies(values) => values,
        Said::Last(value) => vec![value, RespValue::Simple("<end>")],
        Said::Masters => masters.all().filter_map(|master| master_fields(master, masters)).collect(),
    };
    values.iter().for_each(|value| value.write(talk.resp(), &mut out));
    String::from_utf8(out).expect("text").replace("\r\n", "|")
}

/// Lines of one client, and how each reply begins.
#[track_caller]
fn check(lines: &[(&str, &str)]) {
    let (masters, facts) = (masters(&USUAL), facts(None));
    let mut talk = Talk::new(7, &facts);
    for (line, expected) in lines {
        let told = bytes(&mut talk, &masters, &facts, line);
        assert!(told.starts_with(expected), "{line}: {told}");
    }
}

#[test]
fn a_master_is_found_by_its_service_and_by_its_alias() {
    for name in ["redis-1", "mymaster"] {
        check(&[
            (&format!("SENTINEL get-master-addr-by-name {name}"), "*2|$8|10.0.0.1|$4|6379|"),
            (&format!("sentinel GET-PRIMARY-ADDR-BY-NAME {name}"), "*2|$8|10.0.0.1|$4|6379|"),
            (&format!("SENTINEL replicas {name}"), "*1|*42|$4|name|$13|10.0.0.1:6380|$2|ip|$8|10.0.0.1|"),
            (&format!("SENTINEL sentinels {name}"), "*0|"),
            (&format!("SENTINEL ckquorum {name}"), "+OK 1 usable Sentinels. Quorum"),
        ]);
    }
    check(&[
        ("SENTINEL get-master-addr-by-name pg", "*-1|"),
        ("SENTINEL MASTER nobody", "-ERR No such master with that name|"),
        ("SENTINEL master mymaster", "*40|$4|name|$8|mymaster|$2|ip|$8|10.0.0.1|$4|port|$4|6379|$5|runid|$40|"),
        ("SENTINEL masters", "*40|"),
        ("ROLE", "*2|$8|sentinel|*2|$8|mymaster|$7|redis-1|"),
        ("INFO sentinel", "$"),
        ("INFO nosuch", "$0||"),
    ]);
}

#[test]
fn what_is_asked_wrong_is_told_as_by_redis() {
    check(&[
        ("nosuch a b", "-ERR unknown command 'nosuch', with args beginning with: 'a' 'b' |"),
        ("PING a b", "-ERR wrong number of arguments for 'ping' command|"),
        ("SENTINEL", "-ERR wrong number of arguments for 'sentinel' command|"),
        ("SENTINEL master", "-ERR wrong number of arguments for 'sentinel|master' command|"),
        ("SENTINEL nosuch", "-ERR unknown subcommand 'nosuch'. Try SENTINEL HELP.|"),
        ("SENTINEL failover redis-1", "-ERR failover is not for clients of this Sentinel"),
        ("CLIENT nosuch", "-ERR unknown subcommand 'nosuch'. Try CLIENT HELP.|"),
        ("CLIENT MAINT_NOTIFICATIONS ON", "-ERR unknown subcommand"),
        ("CLIENT SETINFO LIB-NAME redis-py", "+OK|"),
        ("CLIENT GETNAME", "$-1|"),
        ("CLIENT SETNAME me", "+OK|"),
        ("CLIENT GETNAME", "$2|me|"),
        ("HELLO 4", "-NOPROTO unsupported protocol version|"),
        ("HELLO x", "-ERR Protocol version is not an integer or out of range|"),
        ("HELLO 3 NOPE", "-ERR Syntax error in HELLO option 'NOPE'|"),
        ("AUTH x", "-ERR AUTH <password> called without any password"),
        ("COMMAND COUNT", ":14|"),
        ("PING", "+PONG|"),
        ("QUIT", "+OK|+<end>|"),
    ]);
}

#[test]
fn resp3_has_maps_and_pushes() {
    check(&[
        (
            "HELLO 3",
            "%6|$6|server|$5|redis|$7|version|$5|7.2.0|$5|proto|:3|$2|id|:7|$4|mode|$8|sentinel|$7|modules|*0|",
        ),
        ("SENTINEL get-master-addr-by-name nobody", "_|"),
        ("SENTINEL masters", "%20|$4|name|$8|mymaster|"),
        ("SUBSCRIBE a", ">3|$9|subscribe|$1|a|:1|"),
        ("PING", "+PONG|"),
        ("SENTINEL myid", "$40|"),
        ("RESET", "+RESET|"),
        ("SENTINEL get-master-addr-by-name nobody", "*-1|"),
    ]);
}

#[test]
fn one_who_listens_in_resp2_does_nothing_else() {
    check(&[
        ("SUBSCRIBE a b", "*3|$9|subscribe|$1|a|:1|*3|$9|subscribe|$1|b|:2|"),
        ("PING", "*2|$4|pong|$0||"),
        ("PING x", "*2|$4|pong|$1|x|"),
        ("INFO", "-ERR Can't execute 'info': only (P|S)SUBSCRIBE"),
        ("UNSUBSCRIBE", "*3|$11|unsubscribe|"),
        ("UNSUBSCRIBE", "*3|$11|unsubscribe|$-1|:0|"),
        ("INFO", "$"),
    ]);
}

#[test]
fn a_password_is_asked_for_before_anything_else() {
    let (masters, facts) = (masters(&USUAL), facts(Some("s3cret\n")));
    let mut talk = Talk::new(7, &facts);
    let mut say = |line: &str, expected: &str| {
        let told = bytes(&mut talk, &masters, &facts, line);
        assert!(told.starts_with(expected), "{line}: {told}");
    };
    say("PING", "-NOAUTH Authentication required.|");
    say("nosuch", "-NOAUTH Authentication required.|");
    say("SUBSCRIBE +switch-master", "-NOAUTH Authentication required.|");
    say("HELLO 3", "-NOAUTH HELLO must be called");
    say("AUTH wrong", "-WRONGPASS ");
    say("AUTH admin s3cret", "-WRONGPASS ");
    say("HELLO 3 AUTH default wrong", "-WRONGPASS ");
    say("PING", "-NOAUTH Authentication required.|");
    say("HELLO 3 AUTH default s3cret", "%6|");
    say("PING", "+PONG|");
    say("RESET", "+RESET|");
    say("PING", "-NOAUTH Authentication required.|");
    say("AUTH s3cret", "+OK|");
    say("SENTINEL get-master-addr-by-name redis-1", "*2|");
}

#[test]
fn only_one_primary_of_redis_kind_is_watched() {
    let names = |records: &[&str]| masters(records).all().map(|master| master.name.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&["cache/a 7000 primary quay.io/valkey/valkey:8"]), ["cache"]);
    assert_eq!(names(&["a/x 6379 primary", "a/y 6380 primary"]), Vec::<String>::new());
    assert_eq!(names(&["a/x 6379 replica", "b/x 27017 primary mongo", "c/x 27017 primary"]), Vec::<String>::new());
    assert_eq!(
        names(&["a/x 6379 primary", "mymaster/x 6379 primary", "redis-1/x 6379 primary"]),
        ["a", "mymaster", "redis-1"]
    );
}

fn switching(since: u64) -> Masters {
    let applied = Applied { master: Server { name: "a".to_owned(), ..Server::default() }, ..Applied::default() };
    let head = Head { applied: Some(applied), revision: 9, switching: true };
    let mut catalog = catalog(&USUAL);
    let since = BTreeMap::from([("redis-1".to_owned(), Duration::from_secs(since))]);
    let prefix = Prefix::parse("/services").expect("a prefix");
    catalog.lay_heads(&prefix, &Heads(BTreeMap::from([("redis-1".to_owned(), head)])), &since);
    Masters::of(&catalog, &zones(), &BTreeMap::new())
}

#[test]
fn while_a_master_is_switched_nobody_is_told_the_old_one() {
    let facts = facts(None);
    let mut talk = Talk::new(7, &facts);
    let held = |masters: &Masters, talk: &Talk, line: &str| {
        let words: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
        talk.is_held(&words, &Ground { masters, facts: &facts, clients: 1, now: Duration::from_secs(100) })
    };
    for line in ["SENTINEL get-master-addr-by-name redis-1", "SENTINEL MASTERS", "sentinel replicas redis-1"] {
        assert!(held(&switching(99), &talk, line), "{line}");
        assert!(!held(&switching(98), &talk, line), "{line}: for two seconds");
    }
    for line in ["SENTINEL get-master-addr-by-name pg", "PING", "SENTINEL myid"] {
        assert!(!held(&switching(99), &talk, line), "{line}");
    }
    let mut say = |line| bytes(&mut talk, &switching(90), &facts, line);
    assert_eq!(say("SENTINEL get-master-addr-by-name redis-1"), "*-1|");
    assert!(say("SENTINEL master redis-1").contains("|s_down,o_down,master,failover_in_progress|"));
}

/// What is told when these records become those.
fn told(steps: &[&[&str]]) -> Vec<String> {
    let mut before = Masters::default();
    let mut events = Vec::new();
    for records in steps {
        let now = Masters::of(&catalog(records), &zones(), &BTreeMap::new()).after(&before);
        events = difference(&before, &now);
        before = now;
    }
    events.into_iter().map(|event| format!("{} {}", event.channel, event.payload)).collect()
}

#[test]
fn a_switch_is_told_first() {
    let (a, b) = (
        &["redis-1/a 6379 primary", "redis-1/b 6380 replica", "redis-1/c 6381 replica"],
        &["redis-1/a 6379 replica", "redis-1/b 6380 primary", "redis-1/c 6381 replica"],
    );
    assert_eq!(
        told(&[a, b]),
        [
            "+switch-master redis-1 10.0.0.1 6379 10.0.0.1 6380",
            "+slave slave 10.0.0.1:6379 10.0.0.1 6379 @ redis-1 10.0.0.1 6380",
            "+slave-reconf-done slave 10.0.0.1:6381 10.0.0.1 6381 @ redis-1 10.0.0.1 6380",
        ]
    );
    assert_eq!(told(&[a, a]), Vec::<String>::new());
}

#[test]
fn a_master_that_was_away_is_compared_with_where_it_was() {
    let (old, new, none): (&[&str], &[&str], &[&str]) = (&["redis-1/a 6379 primary"], &["redis-1/a 7000 primary"], &[]);
    assert_eq!(
        told(&[old, none]),
        ["+sdown master redis-1 10.0.0.1 6379", "+odown master redis-1 10.0.0.1 6379 #quorum 1/1"]
    );
    assert_eq!(told(&[old, none, old]), ["-sdown master redis-1 10.0.0.1 6379", "-odown master redis-1 10.0.0.1 6379"]);
    assert_eq!(told(&[old, none, new]), ["+switch-master redis-1 10.0.0.1 6379 10.0.0.1 7000"]);
    assert_eq!(told(&[old, none, none, old]).len(), 2);
    assert_eq!(told(&[old]), ["+monitor master redis-1 10.0.0.1 6379 quorum 1"]);
}

#[test]
fn of_a_flood_the_new_masters_are_told() {
    let records =
        |port: u16| (0..1_100).map(move |number| format!("redis-{number}/a {port} primary")).collect::<Vec<_>>();
    let (old, new) = (records(6379), records(6380));
    let old: Vec<&str> = old.iter().map(String::as_str).collect();
    let new: Vec<&str> = new.iter().map(String::as_str).collect();
    let events = told(&[&old, &new]);
    assert!(events.len() == 1_024 && events.iter().all(|event| event.starts_with("+switch-master ")));
}

#[test]
fn other_agents_that_speak_it_are_the_other_sentinels() {
    let node = |owner: &str, sentinel| NodeRecord {
        owner: owner.into(),
        addresses: vec!["10.0.0.7".parse().expect("an address")],
        sentinel,
        ..NodeRecord::default()
    };
    let nodes = [node("owner", Some(26379)), node("other", Some(26380)), node("silent", None)];
    let (masters, facts) = (masters(&USUAL).beside(&nodes, "owner"), facts(None));
    let mut talk = Talk::new(7, &facts);
    let told = bytes(&mut talk, &masters, &facts, "SENTINEL sentinels redis-1");
    assert!(told.starts_with("*1|*28|$4|name|$40|") && told.contains("|$2|ip|$8|10.0.0.7|$4|port|$5|26380|"), "{told}");
    assert!(bytes(&mut talk, &masters, &facts, "SENTINEL ckquorum redis-1").starts_with("+OK 2 usable"));
}
