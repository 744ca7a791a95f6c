//! What hostile records and names may cost, and mean: nothing for anybody else.

use std::time::Duration;

use super::*;
use crate::catalog::index::Catalog;
use crate::catalog::steps::MOST;
use crate::model::words::key::Prefix;
use crate::model::words::record::Record;
use crate::model::words::zone::Zones;

fn ask(catalog: &Catalog, text: &str) -> Answer {
    ask_seeded(catalog, text, 1)
}

fn ask_seeded(catalog: &Catalog, text: &str, seed: u64) -> Answer {
    let prefix = |text: &str| Prefix::parse(text).unwrap();
    let others = [("other.test", "/other"), ("10.in-addr.arpa", "/ptr")];
    let others = others.map(|(name, path)| (name.to_owned(), prefix(path)));
    ask_of(catalog, &Zones::new("services.internal", prefix("/services"), others).unwrap(), text, seed)
}

fn ask_of(catalog: &Catalog, zones: &Zones, text: &str, seed: u64) -> Answer {
    let (name, qtype) = text.split_once(' ').unwrap();
    let name = Name::from_labels(name.split('.').map(str::as_bytes)).unwrap();
    let question = Question { name, qtype: qtype.parse().unwrap(), qclass: DNSClass::IN };
    let context = Context {
        dns_ttl: 60,
        negative_ttl: u32::MAX,
        seed,
        now: Duration::ZERO,
        room: 65_535,
        standpoint: Standpoint::NOWHERE,
    };
    match answer(catalog, zones, &question, &context) {
        Outcome::Answer(answer) | Outcome::Chase { answer, .. } => {
            assert!(answer.steps <= MOST, "{text}: {} steps", answer.steps);
            answer
        }
        Outcome::Foreign => panic!("{text} is foreign"),
    }
}

fn catalog(records: &[(&str, &str)]) -> Catalog {
    let mut catalog = Catalog::default();
    for (key, value) in records {
        catalog.put(key, value.as_bytes(), 0, 1).unwrap();
    }
    catalog
}

fn many(count: usize, key: &str, value: &str) -> Catalog {
    let mut catalog = Catalog::default();
    for number in 0..count {
        let filled = |text: &str| text.replace("{n}", &number.to_string());
        catalog.put(&filled(key), filled(value).as_bytes(), 0, 1).unwrap();
    }
    catalog
}

fn data(answer: &Answer) -> Vec<String> {
    answer.answers.iter().map(|record| record.data.to_string()).collect()
}

#[test]
fn a_form_of_rfc_2782_is_taken_apart_once() {
    let web = catalog(&[("/services/web/a", "10.0.0.1:80")]);
    let hostile = format!("____a.{}services.internal SRV", "_tcp.".repeat(37));
    let answer = ask(&web, &hostile);
    assert_eq!(answer.rcode, ResponseCode::NXDomain);
    assert!(answer.steps < 1_000, "{} steps", answer.steps);
    assert_eq!(ask(&web, "_web._tcp.services.internal A").answers.len(), 1);
}

#[test]
fn a_host_is_followed_by_the_tree_alone() {
    let mut catalog = catalog(&[
        ("/services/web/a", r#"{"host":"10.0.0.1","role":"primary","node":"core-1","tags":["blue"]}"#),
        ("/services/plain", r#"{"host":"a.web.services.internal"}"#),
    ]);
    let hosts = [
        "primary.web.services.internal",
        "core-1.web.services.internal",
        "blue.web.services.internal",
        "*.services.internal",
        "any.web.services.internal",
        "_web._tcp.services.internal",
        &format!("____a.{}services.internal", "_tcp.".repeat(37)),
    ];
    for host in hosts {
        catalog.put_record(
            "/services/led",
            &Record::decode(format!(r#"{{"host":"{host}"}}"#).as_bytes()).unwrap(),
            0,
            0,
        );
        let answer = ask(&catalog, "led.services.internal A");
        // No NXDOMAIN and no SOA: asked for by itself, the name may take something.
        assert_eq!((answer.rcode, answer.authority.len()), (ResponseCode::NoError, 0), "{host}");
        assert_eq!(data(&answer), [format!("{host}.")]);
        assert!(ask(&catalog, "led.services.internal SRV").additional.is_empty(), "{host}");
    }
    assert_eq!(data(&ask(&catalog, "plain.services.internal A")), ["a.web.services.internal.", "10.0.0.1"]);
}

#[test]
fn thousands_of_name_servers_cost_no_more_than_others() {
    let named = many(4_000, "/services/dns/ns/n{n}", r#"{"host":"ns{n}.example.com"}"#);
    let answer = ask(&named, "services.internal NS");
    assert!(answer.answers.len() > 500, "{}", answer.answers.len());
    let addressed = many(4_000, "/services/dns/ns/n{n}", "10.0.0.1:53");
    let answer = ask(&addressed, "services.internal NS");
    assert!(answer.answers.len() > 500 && answer.cut, "{}", answer.answers.len());
}

#[test]
fn one_stripped_target_of_many_is_one() {
    let catalog = many(4_000, "/services/web/i{n}", r#"{"host":"10.0.0.1","port":80,"targetstrip":1}"#);
    let answer = ask(&catalog, "web.services.internal SRV");
    assert_eq!(data(&answer), ["10 1 80 web.services.internal."]);
    assert_eq!(answer.additional.len(), 1);
}

#[test]
fn a_target_stripped_out_of_the_zone_has_no_address_of_ours() {
    for (strip, target, glue) in [(1, "web.services.internal.", 1), (2, "services.internal.", 1), (3, "internal.", 0)] {
        let value = format!(r#"{{"host":"10.0.0.1","targetstrip":{strip}}}"#);
        let answer = ask(&catalog(&[("/services/web/a", &value)]), "web.services.internal SRV");
        assert_eq!(data(&answer), [format!("10 100 0 {target}")]);
        assert_eq!(answer.additional.len(), glue, "{target}");
    }
    for strip in [4, 5, 255] {
        let value = format!(r#"{{"host":"10.0.0.1","targetstrip":{strip}}}"#);
        let answer = ask(&catalog(&[("/services/web/a", &value)]), "web.services.internal SRV");
        assert_eq!(data(&answer), ["10 100 0 a.web.services.internal."], "nothing would be left");
    }
}

#[test]
fn a_wildcard_and_a_selector_find_one_of_many_or_say_that_they_cannot() {
    let mut catalog = many(9_000, "/services/s{n}/i", r#"{"host":"10.0.0.1","node":"core-1"}"#);
    catalog.put("/services/s4321/x", br#"{"host":"10.0.0.2","node":"core-2"}"#, 0, 1).unwrap();
    assert_eq!(data(&ask(&catalog, "core-2.*.services.internal A")), ["10.0.0.2"]);
    assert_eq!(data(&ask(&catalog, "s4321.services.internal A")).len(), 2);
    let answer = ask(&catalog, "nobody.*.*.*.services.internal A");
    assert_eq!((answer.rcode, answer.spent), (ResponseCode::ServFail, true));
    assert_eq!(ask(&catalog, "nobody.services.internal A").rcode, ResponseCode::NXDomain);
}

#[test]
fn every_type_follows_a_cname() {
    let catalog = catalog(&[
        ("/services/led", r#"{"host":"web.services.internal"}"#),
        ("/services/web", r#"{"host":"10.0.0.1","text":"hello","mail":true}"#),
        ("/services/away", r#"{"host":"nothing.other.test"}"#),
        ("/other/x", "10.0.0.1:1"),
    ]);
    assert_eq!(data(&ask(&catalog, "led.services.internal TXT")), ["web.services.internal.", "hello"]);
    assert_eq!(
        data(&ask(&catalog, "led.services.internal MX")),
        ["web.services.internal.", "10 web.services.internal."]
    );
    let https = ask(&catalog, "led.services.internal HTTPS");
    assert_eq!((data(&https), https.authority.len()), (vec!["web.services.internal.".to_owned()], 1));
    let away = ask(&catalog, "away.services.internal TXT");
    assert_eq!(away.rcode, ResponseCode::NXDomain);
    assert_eq!(away.authority[0].name.to_string(), "other.test.", "the SOA is that of where it leads");
}

#[test]
fn a_served_reverse_zone_is_never_asked_elsewhere() {
    let catalog = catalog(&[("/ptr/1/0/0", r#"{"host":"a.example.com"}"#), ("/services/web/a", "10.0.0.9:1")]);
    assert_eq!(data(&ask(&catalog, "0.0.1.10.in-addr.arpa PTR")), ["a.example.com."]);
    assert_eq!(data(&ask(&catalog, "9.0.0.10.in-addr.arpa PTR")), ["a.web.services.internal."]);
    let answer = ask(&catalog, "8.0.0.10.in-addr.arpa PTR");
    assert_eq!(answer.rcode, ResponseCode::NXDomain);
    assert_eq!(answer.authority[0].name.to_string(), "10.in-addr.arpa.");
}

#[test]
fn no_ttl_is_longer_than_31_bits() {
    let catalog = catalog(&[("/services/a", r#"{"host":"10.0.0.1","ttl":4294967295}"#)]);
    assert_eq!(ask(&catalog, "a.services.internal A").answers[0].ttl, 2_147_483_647);
    assert_eq!(ask(&catalog, "b.services.internal A").authority[0].ttl, 2_147_483_647);
}

#[test]
fn an_address_of_the_family_asked_for_is_found_among_thousands_without() {
    let mut catalog = many(9_000, "/services/web/i{n}", r#"{"host":"2001:db8::{n}","node":"core-1"}"#);
    catalog.put("/services/web/i4321x", br#"{"host":"10.0.0.2","node":"core-1"}"#, 0, 1).unwrap();
    for seed in 0..8 {
        for name in ["web", "core-1.web", "*", "core-1.*"] {
            let answer = ask_seeded(&catalog, &format!("{name}.services.internal A"), seed);
            // A record named `core-1` below anything is looked for first, which leaves too little to know.
            assert!(data(&answer) == ["10.0.0.2"] || name == "core-1.*" && answer.spent, "{name} {seed}");
        }
    }
}

#[test]
fn the_one_that_speaks_datagrams_is_found_among_thousands_that_do_not() {
    let mut catalog = many(9_000, "/services/web/i{n}", r#"{"host":"10.0.0.1","port":{n},"proto":"tcp"}"#);
    catalog.put("/services/web/i4321x", br#"{"host":"10.0.0.2","port":53,"proto":"udp"}"#, 0, 1).unwrap();
    for seed in 0..4 {
        assert_eq!(data(&ask_seeded(&catalog, "_web._udp.services.internal A", seed)), ["10.0.0.2"]);
        assert_eq!(ask_seeded(&catalog, "_web._udp.services.internal SRV", seed).answers.len(), 1);
    }
    assert!(ask(&catalog, "_web._tcp.services.internal A").cut);
}

#[test]
fn a_hundred_held_primaries_hide_no_living_one() {
    let mut catalog = many(100, "/services/db/a{n}", r#"{"host":"10.0.0.{n}","role":"primary"}"#);
    for number in 0..100 {
        catalog.hold(&format!("/services/db/a{number}"), Duration::from_secs(9));
    }
    assert!(ask(&catalog, "primary.db.services.internal A").contested);
    catalog.put("/services/db/z", br#"{"host":"10.0.1.1","role":"primary"}"#, 0, 1).unwrap();
    assert_eq!(data(&ask(&catalog, "primary.db.services.internal A")), ["10.0.1.1"]);
    catalog.unhold("/services/db/a7");
    assert!(ask(&catalog, "primary.db.services.internal A").contested);
}

#[test]
fn a_prefix_may_have_dots_and_capitals() {
    for path in ["/Services", "/my.app", "/my.App/V2.0"] {
        let prefix = Prefix::parse(path).unwrap();
        let mut catalog = Catalog::bounded(std::slice::from_ref(&prefix), 100);
        catalog.put(&format!("{path}/Web/i.x"), b"10.0.0.1:80", 0, 1).unwrap();
        catalog.put(&format!("{path}/web/y"), br#"{"host":"10.0.0.2","tags":["blue"]}"#, 0, 1).unwrap();
        let zones = Zones::new("services.internal", prefix, []).unwrap();
        for (name, count) in [("web", 2), ("i.x.web", 1), ("y.web", 1), ("blue.web", 1), ("*.web", 2), ("_web._tcp", 2)]
        {
            let name = format!("{name}.services.internal SRV");
            let answer = ask_of(&catalog, &zones, &name, 1);
            assert_eq!((answer.answers.len(), answer.additional.len()), (count, count), "{path} {name}");
        }
        let found = catalog.service(&zones, "web").map(|service| service.endpoints.len());
        assert_eq!((found, catalog.services(&zones).len()), (Some(2), 2), "{path}");
    }
}

#[test]
fn a_zone_below_another_ones_prefix_is_found_whatever_its_letters() {
    let prefix = |path: &str| Prefix::parse(path).unwrap();
    let others = [("web.local", "/services/Web"), ("app.local", "/services/my.App"), ("low.local", "/services/low")];
    let others = others.map(|(zone, path)| (zone.to_owned(), prefix(path)));
    let zones = Zones::new("services.internal", prefix("/services"), others).unwrap();
    let prefixes: Vec<Prefix> = zones.prefixes().into_iter().cloned().collect();
    let mut catalog = Catalog::bounded(&prefixes, 100);
    for (number, key) in ["Web/shop/x", "my.App/shop/y", "Low/shop/z"].into_iter().enumerate() {
        catalog.put(&format!("/services/{key}"), format!("10.0.0.{number}:80").as_bytes(), 0, 1).unwrap();
    }
    for (name, target) in [
        ("shop.web.local", "x.shop.web.local."),
        ("X.shop.WEB.local", "x.shop.web.local."),
        ("shop.web.services.internal", "x.shop.web.services.internal."),
        ("shop.app.local", "y.shop.app.local."),
        ("shop.my.app.services.internal", "y.shop.my.app.services.internal."),
        ("*.low.local", "z.shop.low.local."),
        ("shop.low.services.internal", "z.shop.low.services.internal."),
    ] {
        let answer = ask_of(&catalog, &zones, &format!("{name} SRV"), 1);
        let shown = format!("{:?}", answer.answers);
        assert_eq!((answer.answers.len(), answer.additional.len()), (1, 1), "{name}: {shown}");
        let said = answer.answers[0].data.to_string().to_lowercase();
        assert!(said.ends_with(target), "{name}: {said}");
    }
    for (name, key) in
        [("shop.web.local", "Web/shop/x"), ("shop.app.local", "my.App/shop/y"), ("shop.my.app", "my.App/shop/y")]
    {
        let found = catalog.service(&zones, name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(&**found.endpoints[0].key(), format!("/services/{key}"), "{name}");
    }
}

#[test]
fn thousands_of_held_records_are_told_as_far_as_there_is_room() {
    let mut catalog = many(4_000, "/services/web/i{n}", r#"{"host":"10.0.0.1","port":{n}}"#);
    for number in 0..4_000 {
        catalog.hold(&format!("/services/web/i{number}"), Duration::from_secs(9));
    }
    let answer = ask(&catalog, "web.services.internal SRV");
    assert!(answer.cut && answer.answers.len() > 500, "{}", answer.answers.len());
}
