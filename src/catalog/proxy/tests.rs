use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::aim::{Closed, Found};
use super::*;
use crate::catalog::index::Catalog;
use crate::model::steer::names::{Head, Heads};
use crate::model::steer::topology::{Applied, Server};
use crate::model::words::key::Prefix;
use crate::model::words::node::{NodeRecord, Waiting};
use crate::model::words::record::Role;
use crate::model::words::site::{Site, Standpoint};
use crate::model::words::zone::Zones;

fn zones() -> Zones {
    Zones::new("services.internal", Prefix::parse("/services").expect("a prefix"), []).expect("zones")
}

/// The server `a` is at 10.0.0.1, `b` at 10.0.0.2 and so on, each on a node and of an agent of its own.
fn address(name: &str) -> SocketAddr {
    let number = name.as_bytes()[0] - b'a' + 1;
    SocketAddr::from(([10, 0, 0, number], 5432))
}

/// Records as `name:role`, where the role may be `-`, and `~` before the name marks one that is held.
fn catalog(records: &str) -> Catalog {
    let prefix = Prefix::parse("/services").expect("a prefix");
    let mut catalog = Catalog::bounded(&[prefix], 100);
    for (revision, text) in records.split_whitespace().enumerate() {
        let (name, role) = text.trim_start_matches('~').split_once(':').expect("a role");
        let role = if role == "-" { String::new() } else { format!(r#","role":"{role}""#) };
        let at = address(name);
        let value = format!(
            r#"{{"host":"{}","port":{},"owner":"o-{name}","node":"n-{name}"{role},"tags":["t-{name}"]}}"#,
            at.ip(),
            at.port()
        );
        let key = format!("/services/db/{name}");
        catalog.put(&key, value.as_bytes(), 0, revision as i64 + 1).expect("a record");
        if text.starts_with('~') {
            catalog.hold(&key, Duration::from_secs(1000));
        }
    }
    catalog
}

/// What nodes say, as `name:state`; `name!` says that the whole node is drained.
fn reports(words: &str) -> Reports {
    let node = |text: &str| {
        let (name, state) = text.trim_end_matches('!').split_once(':').unwrap_or((&text[..1], ""));
        let at = address(name);
        let waiting = Waiting { host: Some(at.ip()), port: Some(at.port()), state: state.into(), ..Waiting::default() };
        NodeRecord {
            owner: format!("o-{name}").into(),
            drained: text.ends_with('!').then(|| "2026-01-01T00:00:00Z".into()),
            waiting: if state.is_empty() { vec![] } else { vec![waiting] },
            ..NodeRecord::default()
        }
    };
    Reports::of(&words.split_whitespace().map(node).collect::<Vec<_>>())
}

fn wanted(role: &str) -> Wanted {
    Wanted { service: "db".to_owned(), role: Role::parse(role), ..Wanted::default() }
}

fn aim(role: &str, records: &str, words: &str) -> Aim {
    Aim::of(&wanted(role), &catalog(records), &zones(), &Arc::new(reports(words)), &OwnListeners::default())
}

fn open(aim: &Aim) -> String {
    let name = |found: &Found| {
        let SocketAddr::V4(at) = found.address else { return '?' };
        char::from(b'a' + at.ip().octets()[3] - 1)
    };
    aim.open.iter().map(name).collect()
}

/// New connections of a table for `role` go to those of `expected`, or wait for that reason.
#[track_caller]
fn check_open(role: &str, records: &str, expected: &str) {
    let aim = aim(role, records, "");
    let told = aim.closed.map_or_else(|| open(&aim), |closed| closed.to_string());
    assert_eq!(told, expected, "{role} of {records}");
}

/// A connection of a table for `role` that runs to `a`.
#[track_caller]
fn check_cut(role: &str, records: &str, words: &str, expected: &str) {
    let line = Line { address: address("a"), owner: Some("o-a".into()) };
    let told = verdict(&line, &aim(role, records, words)).map_or("keep", Cut::as_str);
    assert_eq!(told, expected, "{role} of {records}, told {words:?}");
}

#[test]
fn new_connections_go_to_what_fits_and_lives() {
    check_open("primary", "a:primary b:replica", "a");
    check_open("replica", "a:primary b:replica c:replica", "bc");
    check_open("any", "a:primary b:replica c:-", "abc");
    check_open("primary", "~a:primary b:primary", "b");
    check_open("any", "~a:- b:-", "b");
}

#[test]
fn new_connections_wait_for_a_word() {
    check_open("primary", "", "no endpoint");
    check_open("primary", "b:replica", "no endpoint");
    check_open("primary", "a:primary b:primary", "contested");
    check_open("primary", "~a:primary b:replica", "held");
    check_open("any", "~a:-", "held");
}

#[test]
fn tag_node_and_own_listeners_narrow_it() {
    let records = catalog("a:primary b:replica c:replica");
    let of = |wanted: Wanted, own: OwnListeners| Aim::of(&wanted, &records, &zones(), &Arc::default(), &own);
    let tagged = Wanted { tag: Some("t-b".to_owned()), ..wanted("any") };
    assert_eq!(open(&of(tagged, OwnListeners::default())), "b");
    let on_node = Wanted { node: Some("n-c".to_owned()), ..wanted("any") };
    assert_eq!(open(&of(on_node, OwnListeners::default())), "c");
    let own = OwnListeners { listeners: vec![address("b")], here: vec![] };
    assert_eq!(open(&of(wanted("any"), own)), "ac");
    let everywhere =
        OwnListeners { listeners: vec!["0.0.0.0:5432".parse().expect("one")], here: vec![address("a").ip()] };
    assert_eq!(open(&of(wanted("any"), everywhere.clone())), "bc");
    assert_eq!(open(&of(wanted("primary"), everywhere.clone())), "");
    let fixed = Aim::fixed(&[address("a"), address("b"), "127.0.0.1:5432".parse().expect("one")], &everywhere);
    assert_eq!(open(&fixed), "b");
}

#[test]
fn another_role_or_holder_cuts() {
    check_cut("primary", "a:primary b:replica", "", "keep");
    check_cut("primary", "a:replica b:replica", "", "role");
    check_cut("primary", "a:replica b:primary", "", "role");
    check_cut("primary", "b:primary", "", "elsewhere");
    check_cut("primary", "a:- b:primary", "", "elsewhere");
    check_cut("replica", "a:primary b:replica", "", "role");
    check_cut("any", "a:primary b:primary", "", "keep");
}

#[test]
fn what_is_gone_held_or_contested_cuts_nothing() {
    for role in ["primary", "replica", "any"] {
        for records in ["", "b:replica", "~a:primary b:replica", "~a:replica", "a:-"] {
            check_cut(role, records, "", "keep");
        }
    }
    check_cut("primary", "a:primary b:primary", "", "keep");
    check_cut("primary", "b:primary c:primary", "", "keep");
    check_cut("primary", "~b:primary", "", "keep");
    check_cut("replica", "b:primary", "", "keep");
}

#[test]
fn a_nodes_word_on_its_own_cuts_until_a_record_stands_again() {
    check_cut("primary", "", "a:down", "down");
    check_cut("any", "", "a:unhealthy", "down");
    check_cut("any", "b:-", "a:drained", "drained");
    check_cut("any", "", "a!", "drained");
    check_cut("any", "~a:-", "a:down", "down");
    check_cut("any", "a:-", "a:down", "keep");
    for state in ["starting", "stopping", "paused", "ready", "saturated", "whatever"] {
        check_cut("any", "", &format!("a:{state}"), "keep");
    }
    let others = Reports::of(&[NodeRecord {
        owner: "o-b".into(),
        waiting: vec![Waiting {
            host: Some(address("a").ip()),
            port: Some(address("a").port()),
            state: "down".into(),
            ..Waiting::default()
        }],
        ..NodeRecord::default()
    }]);
    let aim = Aim::of(&wanted("any"), &catalog(""), &zones(), &Arc::new(others), &OwnListeners::default());
    let line = Line { address: address("a"), owner: Some("o-a".into()) };
    assert_eq!(verdict(&line, &aim), None, "nobody speaks for another one's instances");
}

#[test]
fn a_switch_parks_role_connections_and_cuts_once_it_is_published() {
    let steered = |records: &str, master: &str, switching: bool| {
        let server = |name: &str| Server { name: name.to_owned(), ..Server::default() };
        let replicas = ["a", "b"].map(str::to_owned).into_iter().filter(|name| name != master).collect();
        let applied = Some(Applied { master: server(master), replicas, ..Applied::default() });
        let heads = Heads([("db".to_owned(), Head { applied, revision: 10, switching })].into());
        let mut catalog = catalog(records);
        let prefix = Prefix::parse("/services").expect("a prefix");
        catalog.lay_heads(&prefix, &heads, &[("db".to_owned(), Duration::ZERO)].into());
        catalog
    };
    let of = |records: &Catalog, role: &str| {
        Aim::of(&wanted(role), records, &zones(), &Arc::default(), &OwnListeners::default())
    };
    let line = Line { address: address("a"), owner: Some("o-a".into()) };
    let before = steered("a:primary b:replica", "a", false);
    assert_eq!(open(&of(&before, "primary")), "a");
    let during = steered("a:primary b:replica", "a", true);
    assert_eq!(of(&during, "primary").closed, Some(Closed::Switching));
    assert_eq!(verdict(&line, &of(&during, "primary")), None);
    assert_eq!(of(&during, "any").closed, None);
    let after = of(&steered("a:primary b:replica", "b", false), "primary");
    assert_eq!((open(&after).as_str(), verdict(&line, &after)), ("b", Some(Cut::Elsewhere)), "though records are old");
}

fn found(name: &str, is_far: bool, priority: u16) -> Found {
    Found { address: address(name), also: None, owner: None, tier: (u8::from(is_far), priority) }
}

/// Each `(name, connections)` of a table, and whom so many connections in a row would take.
#[track_caller]
fn check_choice(balance: Balance, loads: &[(&str, usize)], expected: &str) {
    let aim = Aim { open: loads.iter().map(|(name, _)| found(name, false, 0)).collect(), ..Aim::default() };
    let mut running: Vec<(SocketAddr, usize)> = loads.iter().map(|(name, count)| (address(name), *count)).collect();
    let mut chosen = String::new();
    for turn in 0..expected.len() {
        let load = |at: SocketAddr| {
            let connections = running.iter().find(|(address, _)| *address == at).map_or(0, |(_, count)| *count);
            Load { connections, ..Load::default() }
        };
        let address = choose(&aim, balance, &[], turn, load).expect("one").address;
        running.iter_mut().filter(|(at, _)| *at == address).for_each(|(_, count)| *count += 1);
        chosen.push_str(&open(&Aim {
            open: vec![Found { address, also: None, owner: None, tier: (0, 0) }],
            ..Aim::default()
        }));
    }
    assert_eq!(chosen, expected, "{balance:?}");
}

#[test]
fn connections_are_spread_as_the_table_says() {
    check_choice(Balance::Least, &[("a", 3), ("b", 0), ("c", 1)], "bbcb");
    check_choice(Balance::RoundRobin, &[("a", 9), ("b", 0), ("c", 0)], "abcabc");
    check_choice(Balance::First, &[("a", 9), ("b", 0)], "aaa");
}

#[test]
fn what_was_tried_is_busy_or_failed_comes_last() {
    let aim = Aim { open: vec![found("a", false, 0), found("b", false, 0), found("c", true, 0)], ..Aim::default() };
    let of = |tried: &[SocketAddr], load: &dyn Fn(SocketAddr) -> Load| {
        choose(&aim, Balance::First, tried, 0, load).map(|found| found.address)
    };
    let idle = |_: SocketAddr| Load::default();
    assert_eq!(of(&[], &idle), Some(address("a")));
    assert_eq!(of(&[address("a")], &idle), Some(address("b")));
    assert_eq!(of(&[address("a"), address("b")], &idle), Some(address("c")), "near ones first");
    assert_eq!(of(&[address("a"), address("b"), address("c")], &idle), None);
    let failed = |at: SocketAddr| Load { failed: at == address("a"), ..Load::default() };
    assert_eq!(of(&[], &failed), Some(address("b")));
    let busy = |_: SocketAddr| Load { connecting: choose::MAX_CONNECTING, ..Load::default() };
    assert_eq!(of(&[], &busy), None);
}

proptest! {
    /// Whoever may take new connections is not cut off them: a connection would be opened and reset for ever.
    #[test]
    fn what_is_open_is_kept(
        role in "primary|replica|any",
        records in proptest::collection::vec("~?[a-d]:(primary|replica|-)", 0..6),
        words in proptest::collection::vec("[a-d]:(down|drained|paused)|[a-d]!", 0..4),
    ) {
        let aim = aim(&role, &records.join(" "), &words.join(" "));
        for found in &aim.open {
            let line = Line { address: found.address, owner: found.owner.clone() };
            prop_assert_eq!(verdict(&line, &aim), None);
        }
        prop_assert_eq!(aim.open.is_empty(), aim.closed.is_some());
    }
}

#[test]
fn nearer_ones_come_first_by_site_and_a_second_address_is_known() {
    let mut catalog = Catalog::bounded(&[Prefix::parse("/services").expect("a prefix")], 100);
    for (name, site) in [("a", "eu/one/rack-1"), ("b", "us/two"), ("c", "eu/one/rack-2"), ("d", "")] {
        let at = address(name);
        let site = if site.is_empty() { String::new() } else { format!(r#","site":"{site}""#) };
        let value = format!(
            r#"{{"host":"{}","host6":"2001:db8::{name}","port":{},"node":"n-{name}"{site}}}"#,
            at.ip(),
            at.port()
        );
        catalog.put(&format!("/services/db/{name}"), value.as_bytes(), 0, 1).expect("a record");
    }
    let here = |node: &str| Standpoint::new(node, Site::parse("eu/one/rack-2").ok(), false);
    let order = |near: Option<Standpoint>| {
        let wanted = Wanted { near, ..wanted("any") };
        let aim = Aim::of(&wanted, &catalog, &zones(), &Arc::default(), &OwnListeners::default());
        assert!(aim.open.iter().all(|found| found.also.is_some_and(|also| also.is_ipv6() && also.port() == 5432)));
        let mut tried = Vec::new();
        while let Some(found) = choose(&aim, Balance::First, &tried, 0, |_| Load::default()) {
            tried.push(found.address);
        }
        tried.iter().map(|at| open(&Aim::fixed(&[*at], &OwnListeners::default()))).collect::<String>()
    };
    assert_eq!(order(None), "abcd");
    assert_eq!(order(Some(here("elsewhere"))), "cabd");
    assert_eq!(order(Some(here("n-d"))), "dcab");
}

#[test]
fn members_that_are_unwell_come_last_and_are_there_still() {
    let members = [address("a"), address("b")];
    let aim = Aim::members(&members, &[address("a")].into(), &OwnListeners::default());
    let first = choose(&aim, Balance::First, &[], 0, |_| Load::default()).map(|found| found.address);
    assert_eq!((first, open(&aim).as_str()), (Some(address("b")), "ab"));
}
