//! The cases' tables for single functions, each asked through what it decides of an answer.

use std::time::Duration;

use serde_json::Value;

use super::*;
use crate::catalog::index::{Catalog, LeaseTimes};
use crate::catalog::select::{Hit, grouped};
use crate::model::words::key::Prefix;
use crate::model::words::zone::Zones;

fn cases(suite: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../../../tests/data/skydns_cases.json")).unwrap();
    let suites = all["suites"].as_array().unwrap();
    let found = suites.iter().find(|own| own["id"] == suite).unwrap_or_else(|| panic!("no suite {suite}"));
    found["cases"].as_array().unwrap().clone()
}

fn ask(catalog: &Catalog, prefix: &str, text: &str, dns_ttl: u32) -> Vec<Rr> {
    let zones = Zones::new("skydns.local", Prefix::parse(prefix).unwrap(), []).unwrap();
    let (name, qtype) = text.split_once(' ').unwrap();
    let name = Name::from_labels(name.trim_end_matches('.').split('.').map(str::as_bytes)).unwrap();
    let question = Question { name, qtype: qtype.parse().unwrap(), qclass: DNSClass::IN };
    let context = Context {
        dns_ttl,
        negative_ttl: 5,
        seed: 0,
        now: Duration::ZERO,
        room: 65_535,
        standpoint: Standpoint::NOWHERE,
    };
    match answer(catalog, &zones, &question, &context) {
        Outcome::Answer(answer) | Outcome::Chase { answer, .. } => answer.answers,
        Outcome::Foreign => panic!("{text} is foreign"),
    }
}

fn one(key: &str, value: &str) -> Catalog {
    let mut catalog = Catalog::default();
    catalog.put(key, value.as_bytes(), 0, 1).unwrap();
    catalog
}

#[test]
fn names_and_keys_turn_into_each_other() {
    for case in cases("unit-path") {
        let (name, path) = (case["name"].as_str().unwrap(), case["want"].as_str().unwrap());
        let prefix = format!("/{}/local/skydns", case["prefix"].as_str().unwrap());
        let answers = ask(&one(path, "10.0.0.1:80"), &prefix, &format!("{name} A"), 60);
        assert_eq!(answers.len(), 1, "{case}");
    }
    for case in cases("unit-domain") {
        let key = case["key"].as_str().unwrap().trim_end_matches('/');
        let zones = Zones::new("local", Prefix::parse("/skydns/local").unwrap(), []).unwrap();
        let question =
            Question { name: Name::from_ascii("local.").unwrap(), qtype: RecordType::SRV, qclass: DNSClass::IN };
        let context = Context {
            dns_ttl: 5,
            negative_ttl: 5,
            seed: 0,
            now: Duration::ZERO,
            room: 512,
            standpoint: Standpoint::NOWHERE,
        };
        let Outcome::Answer(answer) = answer(&one(key, "10.0.0.1:80"), &zones, &question, &context) else {
            panic!("{case}")
        };
        let RData::SRV(srv) = &answer.answers[0].data else { panic!("{case}") };
        assert_eq!(srv.target.to_string(), case["want"].as_str().unwrap());
    }
}

#[test]
fn wildcards_look_below_the_labels_before_them() {
    for case in cases("unit-path-wildcard") {
        let (name, want) = (case["name"].as_str().unwrap(), &case["want"]);
        let below = format!("{}/x/service", want[0].as_str().unwrap());
        let answers = ask(&one(&below, "10.0.0.1:80"), "/skydns/local/skydns", &format!("{name} A"), 60);
        assert_eq!(answers.len(), 1, "{case}");
    }
}

#[test]
fn texts_are_cut_into_strings_of_255() {
    for case in cases("unit-split255") {
        let length = usize::try_from(case["len"].as_u64().unwrap()).unwrap();
        let catalog = one("/z/x", &format!(r#"{{"text":"{}"}}"#, "a".repeat(length)));
        let RData::TXT(txt) = ask(&catalog, "/z", "x.skydns.local TXT", 60).swap_remove(0).data else {
            panic!("{case}")
        };
        let lengths: Vec<u64> = txt.txt_data.iter().map(|string| string.len() as u64).collect();
        let wanted: Vec<u64> = case["want"].as_array().unwrap().iter().map(|own| own.as_u64().unwrap()).collect();
        assert_eq!(lengths, wanted);
    }
}

#[test]
fn the_shortest_key_sets_the_group() {
    for case in cases("unit-group") {
        let mut catalog = Catalog::default();
        for (number, service) in case["in"].as_array().unwrap().iter().enumerate() {
            let key = format!("/z/{number}.{}", service["key"].as_str().unwrap()).replace('.', "-");
            let value = format!(r#"{{"host":{},"group":{}}}"#, service["host"], service["group"]);
            catalog.put(&key, value.as_bytes(), 0, 1).unwrap();
        }
        let found = catalog.at_or_below("/z", 0, 100).entries.into_iter();
        let mut hits: Vec<Hit<'_>> = found.map(|entry| Hit::new(entry, 0)).collect();
        grouped(&mut hits);
        assert_eq!(hits.len() as u64, case["want_count"].as_u64().unwrap(), "{case}");
        for key in case["want_keys"].as_array().into_iter().flatten() {
            assert!(hits.iter().any(|hit| hit.entry.key.ends_with(key.as_str().unwrap())), "{case}");
        }
    }
}

#[test]
fn equal_records_are_one() {
    for case in cases("unit-dedup") {
        let mut catalog = Catalog::default();
        for (number, record) in case["in"].as_array().unwrap().iter().enumerate() {
            let address = record.as_str().unwrap().rsplit(' ').next().unwrap();
            catalog.put(&format!("/z/svc/{number}"), format!("{address}:80").as_bytes(), 0, 1).unwrap();
        }
        let answers = ask(&catalog, "/z", "svc.skydns.local A", 60);
        let mut found: Vec<String> = answers.iter().map(|record| record.data.to_string()).collect();
        found.sort();
        let wanted = case["want_sorted"].as_array().unwrap().iter().map(|own| own.as_str().unwrap().to_owned());
        assert_eq!(found, wanted.collect::<Vec<_>>());
    }
}

#[test]
fn a_host_is_an_address_or_a_name() {
    for case in cases("unit-hosttype") {
        let mut value = case.clone();
        value.as_object_mut().unwrap().remove("want");
        let catalog = one("/z/x", &value.to_string());
        for qtype in ["A", "AAAA", "CNAME"] {
            let answers = ask(&catalog, "/z", &format!("x.skydns.local {qtype}"), 60);
            let own = answers.iter().filter(|record| record.record_type().to_string() == qtype).count();
            // Not every host that is no address is a name: one with an empty label is neither.
            let is_name = !case["host"].as_str().unwrap().contains("..");
            assert_eq!(own, usize::from(case["want"] == qtype && is_name), "{case} {qtype}");
        }
    }
}

#[test]
fn what_is_held_may_be_kept_no_longer_than_it_is_held() {
    for (left, ttl) in [(30_000, 5), (2_500, 2), (300, 1), (0, 1)] {
        let mut catalog = one("/z/x", "10.0.0.1:80");
        catalog.hold("/z/x", Duration::from_millis(left));
        assert_eq!(ask(&catalog, "/z", "x.skydns.local A", 60)[0].ttl, ttl, "{left} ms left");
    }
}

#[test]
fn the_lesser_of_lease_and_ttl_counts() {
    for case in cases("unit-ttl-rule") {
        let number = |field: &str, otherwise: u64| case[field].as_u64().unwrap_or(otherwise);
        let mut catalog = Catalog::default();
        let lease = number("lease", 0);
        let value = format!(r#"{{"host":"10.0.0.1","ttl":{}}}"#, number("service", 0));
        catalog.put("/z/x", value.as_bytes(), i64::from(lease > 0), 1).unwrap();
        let times = LeaseTimes { granted: Duration::from_secs(2 * lease), until: Duration::from_secs(lease) };
        catalog.set_lease(1, times);
        let default = u32::try_from(number("default", 3600)).unwrap();
        let answers = ask(&catalog, "/z", "x.skydns.local A", default);
        assert_eq!(u64::from(answers[0].ttl), number("want", 0), "{case}");
    }
}
