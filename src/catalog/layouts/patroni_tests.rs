//! Patroni's keys as it writes them, and what is made of them.

use super::*;

const RUNS: &str = r#""state":"running","version":"4.1.5","tags":{"clonefrom":true,"zone":"a"}"#;

/// A member `name role address[ replication]`.
fn member(text: &str) -> (String, String) {
    let words: Vec<&str> = text.split(' ').collect();
    let streams = words.get(3).map_or(String::new(), |state| format!(r#","replication_state":"{state}""#));
    let url = format!("postgres://{}/postgres", words[2]);
    (format!("orders/members/{}", words[0]), format!(r#"{{"conn_url":"{url}","role":"{}",{RUNS}{streams}}}"#, words[1]))
}

fn said(keys: &[(String, String)]) -> BTreeMap<String, Said> {
    let read = |(key, value): &(String, String)| {
        let key = format!("/service/{key}");
        Some((key.clone(), Said::read(&key, value.as_bytes(), (5, 9)).ok()?))
    };
    keys.iter().filter_map(read).collect()
}

fn take(scopes: &mut Scopes, keys: &[(String, String)], until: Option<Duration>) -> String {
    let prefix = Prefix::parse("/services").expect("a prefix");
    let said = said(keys);
    scopes.take(("/service/", &prefix), said.iter().map(|(key, said)| (key.as_str(), said)), until);
    let shown = scopes.found().map(|found| {
        let Record { host, port, role, .. } = &*found.record;
        let name = found.key.strip_prefix("/services/").unwrap_or_default();
        let doubt = if found.if_writable { "?" } else { "" };
        format!("{name}={host}:{port}:{}{doubt}", role.map_or("-", Role::as_str))
    });
    shown.collect::<Vec<_>>().join(" ")
}

fn key(key: &str, value: &str) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

#[test]
fn the_leader_key_is_the_truth() {
    let check = |members: &[&str], leader: Option<&str>, expected: &str| {
        let mut keys: Vec<_> = members.iter().map(|text| member(text)).collect();
        keys.extend(leader.map(|leader| key("orders/leader", leader)));
        assert_eq!(take(&mut Scopes::default(), &keys, None), expected, "{members:?} {leader:?}");
    };
    check(&["pg1 primary 10.0.0.1:5433"], None, "orders/pg1=10.0.0.1:5433:-");
    let switched = ["pg1 replica 10.0.0.1:5432 streaming", "pg2 primary 10.0.0.2:5432"];
    check(&switched, Some("pg1"), "orders/pg1=10.0.0.1:5432:primary orders/pg2=10.0.0.2:5432:-");
    check(&switched, Some("pg3"), "orders/pg1=10.0.0.1:5432:replica orders/pg2=10.0.0.2:5432:-");
    check(&["pg1 standby_leader 10.0.0.1:5432"], Some("pg1"), "orders/pg1=10.0.0.1:5432:-");
    check(&["pg1 master h1:1"], Some("pg1"), "orders/pg1=h1:1:primary");
    check(&["pg1 replica h1:1", "pg2 replica h2:1 stopped"], None, "orders/pg1=h1:1:replica orders/pg2=h2:1:-");
}

#[test]
fn only_what_runs_is_an_endpoint_and_what_is_not_for_reads_no_replica() {
    let mut stopped = member("pg1 uninitialized 10.0.0.1:5432");
    stopped.1 = stopped.1.replace("running", "stopped");
    let mut spared = member("pg2 replica 10.0.0.2:5432 streaming");
    spared.1 = spared.1.replace(r#""zone":"a""#, r#""noloadbalance":true"#);
    assert_eq!(take(&mut Scopes::default(), &[stopped, spared], None), "orders/pg2=10.0.0.2:5432:-");
}

#[test]
fn addresses_are_read_in_each_of_their_forms() {
    let check = |url: &str, expected: Option<(&str, u16)>| {
        let read = address(url);
        assert_eq!(read.as_ref().map(|(host, port)| (&**host, *port)), expected, "{url}");
    };
    check("postgres://10.0.0.1:23910/postgres", Some(("10.0.0.1", 23910)));
    check("postgres://[2001:db8::1]:5433/postgres?x=1", Some(("2001:db8::1", 5433)));
    check("postgres://h1:1,h2:2/postgres", Some(("h1", 1)));
    check("postgresql://me:it@db.example.com/postgres", Some(("db.example.com", 5432)));
    for none in
        ["", "h:1", "http://h:1/", "postgres:///x", "postgres://h:0/", "postgres://%2Frun:1/", "postgres://[::1/"]
    {
        check(none, None);
    }
}

#[test]
fn groups_are_services_of_their_own_and_no_name_is_taken_twice() {
    let of = |scope: &str, name: &str| {
        let (at, value) = member("pg1 replica 10.0.0.1:5432");
        (at.replace("orders", scope).replace("pg1", name), value)
    };
    let keys = [of("shop/0", "a"), of("shop/1", "a"), of("Shop", "A b"), of("shop", "c"), of("x/y", "a")];
    let found = take(&mut Scopes::default(), &keys, None);
    assert_eq!(found, "shop/a-b=10.0.0.1:5432:replica shop/0/a=10.0.0.1:5432:replica shop/1/a=10.0.0.1:5432:replica");
}

#[test]
fn while_it_may_run_on_the_last_leader_stays_if_it_takes_writes() {
    for (config, expected) in [
        (r#"{"ttl":30,"pause":true}"#, "orders/pg1=h1:1:primary?"),
        (r#"{"failsafe_mode":true}"#, "orders/pg1=h1:1:primary?"),
        (r#"{"pause":false,"failsafe_mode":null}"#, "orders/pg1=h1:1:-"),
        ("garbage", "orders/pg1=h1:1:-"),
    ] {
        let mut scopes = Scopes::default();
        let member = member("pg1 primary h1:1");
        let led = [member.clone(), key("orders/leader", "pg1"), key("orders/config", config)];
        assert_eq!(take(&mut scopes, &led, None), "orders/pg1=h1:1:primary");
        let leaderless = [member, key("orders/config", config)];
        assert_eq!(take(&mut scopes, &leaderless, None), expected, "{config}");
        assert_eq!(take(&mut scopes, &leaderless, None), expected, "and so on");
    }
}

#[test]
fn what_the_store_lost_in_its_return_is_held() {
    let mut scopes = Scopes::default();
    let led = [member("pg1 primary h1:1"), key("orders/leader", "pg1")];
    take(&mut scopes, &led, None);
    let until = Duration::from_secs(30);
    assert_eq!(take(&mut scopes, &[], Some(until)), "orders/pg1=h1:1:primary");
    assert!(scopes.found().all(|found| found.held) && scopes.next() == Some(until));
    assert_eq!(take(&mut scopes, &led[..1], None), "orders/pg1=h1:1:-", "its own word ends it");
    take(&mut scopes, &[], Some(until));
    scopes.expire(until);
    assert_eq!(take(&mut scopes, &[], None), "");
}

#[test]
fn what_is_no_key_of_a_scope_says_nothing() {
    for (at, value) in [
        ("orders/leader", ""),
        ("orders/leader/x", "pg1"),
        ("orders/members/a/b", r#"{"conn_url":"postgres://h:1/"}"#),
        ("leader", "pg1"),
        ("orders/members/pg1", "{"),
        ("orders/members/pg1", r#"{"conn_url":7}"#),
        ("orders/initialize", "7713946814162494791"),
    ] {
        assert_eq!(take(&mut Scopes::default(), &[key(at, value)], None), "", "{at}");
    }
    assert!(Said::read("/service/o/leader", &vec![b'x'; MAX_VALUE + 1], (0, 0)).is_err());
}
