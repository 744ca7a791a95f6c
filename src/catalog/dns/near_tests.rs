//! `near.`, `local.` and answers that prefer what is near, as tables: records above, questions below.

use std::fmt::Write as _;
use std::time::Duration;

use super::*;
use crate::catalog::index::Catalog;
use crate::model::words::key::Prefix;
use crate::model::words::site::{Site, Standpoint};
use crate::model::words::zone::Zones;

/// `NODE SITE`, then what else is in the record.
const CACHES: [&str; 6] = [
    "core-01 r/a/1",
    "core-02 r/a/1",
    "core-03 r/a/2",
    "core-04 r/b/1",
    "core-05 s/a/1",
    r#"core-06 - ,"role":"replica""#,
];

fn catalog(of: &[&str]) -> Catalog {
    let mut catalog = Catalog::default();
    for (number, line) in of.iter().enumerate() {
        let mut words = line.splitn(3, ' ');
        let (node, site, more) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap_or_default());
        let mut value = format!(r#"{{"host":"10.0.0.{}","port":11211,"node":"{node}","owner":"o""#, number + 1);
        if site != "-" {
            write!(value, r#","site":"{site}""#).unwrap();
        }
        value.push_str(more);
        value.push('}');
        catalog.put(&format!("/services/cache/i{number}"), value.as_bytes(), 0, 1).unwrap();
    }
    catalog
}

fn at(node: &str, site: &str) -> Standpoint {
    Standpoint::new(node, (site != "-").then(|| Site::parse(site).unwrap()), false)
}

fn ask(catalog: &Catalog, question: &str, standpoint: &Standpoint, seed: u64) -> Answer {
    let zones = Zones::new("services.internal", Prefix::parse("/services").unwrap(), []).unwrap();
    let (name, qtype) = question.split_once(' ').unwrap();
    let labels = name.split('.').chain(["services", "internal"]).map(str::as_bytes);
    let name = Name::from_labels(labels).unwrap();
    let question = Question { name, qtype: qtype.parse().unwrap(), qclass: DNSClass::IN };
    let context = Context { dns_ttl: 60, negative_ttl: 5, seed, now: Duration::ZERO, room: 65_535, standpoint };
    match answer(catalog, &zones, &question, &context) {
        Outcome::Answer(answer) => answer,
        other => panic!("{other:?}"),
    }
}

/// The last bytes of the addresses, in order; or the response code.
fn addresses(answer: &Answer) -> String {
    let last = |record: &Rr| record.data.ip_addr().map(|ip| ip.to_string().rsplit('.').next().unwrap().to_owned());
    let mut found: Vec<String> = answer.answers.iter().filter_map(last).collect();
    found.sort();
    match answer.rcode {
        ResponseCode::NoError if found.is_empty() => "nodata".to_owned(),
        ResponseCode::NoError => found.join(" "),
        other => format!("{other:?}"),
    }
}

/// `priority:target` in order.
fn services(answer: &Answer) -> String {
    let told = |record: &Rr| match &record.data {
        RData::SRV(srv) => {
            format!("{}:{}", srv.priority, srv.target.iter().next().map(String::from_utf8_lossy).unwrap())
        }
        other => panic!("{other}"),
    };
    answer.answers.iter().map(told).collect::<Vec<_>>().join(" ")
}

#[test]
fn near_is_what_is_at_the_least_distance() {
    let catalog = catalog(&CACHES);
    for (node, site, question, expected) in [
        ("core-01", "r/a/1", "near.cache A", "1"),
        ("other", "r/a/1", "near.cache A", "1 2"),
        ("other", "r/a/9", "near.cache A", "1 2 3"),
        ("other", "r/c/1", "near.cache A", "1 2 3 4"),
        ("other", "t/a/1", "near.cache A", "1 2 3 4 5"),
        ("other", "-", "near.cache A", "1 2 3 4 5"),
        ("core-06", "-", "near.cache A", "6"),
        ("other", "r/a/1", "near.replicas.cache A", "6"),
        ("other", "r/a/1", "replicas.near.cache A", "6"),
        ("other", "r/a/1", "core-04.near.cache A", "4"),
        ("other", "r/a/1", "near.i4.cache A", "5"),
        ("other", "r/a/1", "near.* A", "1 2"),
        ("other", "r/a/1", "near.primary.cache A", "nodata"),
        ("other", "r/a/1", "near.near.near.cache A", "NXDomain"),
        ("other", "r/a/1", "near.nothing A", "NXDomain"),
        ("other", "r/a/1", "near.cache AAAA", "nodata"),
        ("core-05", "r/a/1", "local.cache A", "5"),
        ("CORE-05", "r/a/1", "local.cache A", "5"),
        ("other", "r/a/1", "local.cache A", "nodata"),
        ("core-05", "r/a/1", "local.nothing A", "NXDomain"),
        ("core-06", "r/a/1", "local.replicas.cache A", "6"),
        ("core-05", "r/a/1", "local.replicas.cache A", "nodata"),
    ] {
        assert_eq!(addresses(&ask(&catalog, question, &at(node, site), 0)), expected, "{node} at {site}: {question}");
    }
    assert_eq!(addresses(&ask(&catalog, "near.cache A", Standpoint::NOWHERE, 0)), "1 2 3 4 5");
    let mut with_servers = catalog.clone();
    with_servers.put("/services/dns/ns/a", br#"{"host":"10.0.0.9"}"#, 0, 2).unwrap();
    for name in ["local.dns A", "near.dns A"] {
        assert_eq!(addresses(&ask(&with_servers, name, &at("core-01", "r"), 0)), "NXDomain", "{name} is SkyDNS's own");
    }
}

#[test]
fn near_is_widened_until_it_holds_as_many_as_they_ask_for() {
    let of = |min: u8| {
        CACHES.map(|line| {
            format!("{line} ,\"attrs\":{{\"near_min\":\"{min}\"}}").replacen(" ,\"role\":\"replica\"", "", 1)
        })
    };
    for (min, expected) in [(1, "1"), (2, "1 2"), (3, "1 2 3"), (4, "1 2 3 4"), (6, "1 2 3 4 5 6"), (60, "1 2 3 4 5 6")]
    {
        let lines = of(min);
        let catalog = catalog(&lines.each_ref().map(String::as_str));
        assert_eq!(addresses(&ask(&catalog, "near.cache A", &at("core-01", "r/a/1"), 0)), expected, "{min}");
    }
}

#[test]
fn a_large_service_is_near_where_it_is_near() {
    let lines: Vec<String> =
        (0..6_000_u32).map(|number| format!("n{number} r/z{}/k{}", number % 7, number % 700)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let catalog = catalog(&lines);
    let near = |node: &str, site: &str, seed| ask(&catalog, "near.cache SRV", &at(node, site), seed);
    for seed in [0, 77, 5_000] {
        assert_eq!(near("n17", "r/z3/k17", seed).answers.len(), 1, "this host's own");
        let rack = near("x", "r/z3/k17", seed);
        assert_eq!(rack.answers.len(), 9, "every 700th, of those in the same zone");
        assert!(near("x", "r/z3/none", seed).answers.len() > 800, "the zone");
        assert!(rack.steps < 1_000, "{} steps", rack.steps);
    }
}

#[test]
fn who_prefers_what_is_near_is_told_it_first_and_the_far_behind_it() {
    let catalog = catalog(&CACHES);
    let mut standpoint = at("core-03", "r/a/2");
    let plain = services(&ask(&catalog, "cache SRV", &standpoint, 0));
    assert_eq!(plain, "10:i0 10:i1 10:i2 10:i3 10:i4 10:i5", "unasked nothing is ordered");
    standpoint.prefers_near = true;
    for (seed, expected) in [
        (0, "10:i2 11:i0 11:i1 12:i3 13:i4 14:i5"),
        (1, "10:i2 11:i1 11:i0 12:i3 13:i4 14:i5"),
        (6, "10:i2 11:i0 11:i1 12:i3 13:i4 14:i5"),
    ] {
        let answer = ask(&catalog, "cache SRV", &standpoint, seed);
        assert_eq!((services(&answer).as_str(), answer.in_order), (expected, true), "{seed}");
        assert_eq!(answer.additional.len(), 6);
    }
    assert_eq!(addresses(&ask(&catalog, "cache A", &standpoint, 0)), "1 2 3 4 5 6");
    assert!(!ask(&catalog, "cache A", &standpoint, 0).in_order);
}

#[test]
fn a_records_own_priority_comes_before_its_distance() {
    let catalog = catalog(&[
        r#"core-01 r/a ,"priority":20,"attrs":{"near":"true"}"#,
        r#"core-02 r/b ,"priority":5"#,
        r#"core-03 s/a ,"priority":5"#,
        r#"core-04 r/b ,"priority":5"#,
    ]);
    let answer = ask(&catalog, "cache SRV", &at("core-01", "r/a"), 0);
    assert_eq!(services(&answer), "10:i1 10:i3 11:i2 12:i0", "one that asks for it is enough");
    let weight = |record: &Rr| match &record.data {
        RData::SRV(srv) => srv.weight,
        other => panic!("{other}"),
    };
    let weights: Vec<u16> = answer.answers.iter().map(weight).collect();
    assert_eq!(weights, [50, 50, 100, 100], "weights are shares of their class");
}

#[test]
fn what_does_not_fit_is_taken_from_the_far_end() {
    let lines: Vec<String> = (0..2_000).map(|number| format!("n{number} r/z{}", number % 4)).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let catalog = catalog(&lines);
    let mut standpoint = at("n9", "r/z1");
    standpoint.prefers_near = true;
    let answer = ask(&catalog, "cache SRV", &standpoint, 3);
    let plain = ask(&catalog, "cache SRV", Standpoint::NOWHERE, 3);
    let (near, plain) = (answer.answers.len(), plain.answers.len());
    assert!(answer.cut && near > plain * 3 / 4 && near > 512, "{near} of {plain}, {} steps", answer.steps);
    let told = services(&answer);
    let classes: Vec<&str> = told.split(' ').map(|one| one.split(':').next().unwrap()).collect();
    assert!(classes.is_sorted() && classes[0] == "10" && classes[1] == "11" && classes[499] == "11", "{told}");
    assert_eq!(classes[500], "12", "all that is near, before anything that is far");
    assert!(answer.steps <= crate::catalog::steps::MOST);
}

#[test]
fn a_service_larger_than_the_window_is_told_nearest_first_whichever_window_it_is() {
    let lines: Vec<String> = (0..20_000_u32)
        .map(|number| format!(r#"n{number} r/z{}/k{} ,"attrs":{{"near":"true"}}"#, number % 7, number % 700))
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let catalog = catalog(&lines);
    for seed in [0, 77, 5_000, 12_345] {
        let answer = ask(&catalog, "cache SRV", &at("n17", "r/z3/k17"), seed);
        let told = services(&answer);
        let told: Vec<&str> = told.split(' ').collect();
        assert_eq!(told[0], "10:i17", "this host's own, of 20,000");
        // Every 700th: those in the rack of this host, of which there are 28 more.
        assert!(told[1..29].iter().all(|one| one.starts_with("11:")), "{:?}", &told[..32]);
        assert!(told[29..].iter().all(|one| !one.starts_with("11:")), "all of the rack");
        assert!(told[29..].iter().take(500).all(|one| one.starts_with("12:")), "then the zone");
        assert!(answer.cut && answer.in_order && answer.steps <= crate::catalog::steps::MOST);
        let small = ask(&catalog, "near.cache SRV", &at("x", "r/z3/k17"), seed);
        assert_eq!(small.answers.len(), 29);
    }
    let elsewhere = ask(&catalog, "cache SRV", &at("x", "q/z3/k17"), 3);
    assert!(elsewhere.answers.len() > 512, "who is far from all of them is told of a window");
}
