//! What holds for every catalog and every question: costs, rotation, and that nothing panics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::catalog::index::{Catalog, LeaseTimes, WINDOW};
use crate::model::words::key::Prefix;
use crate::model::words::record::{Proto, Record, Role};
use crate::model::words::zone::Zones;

/// What any question may cost.
const MOST_STEPS: usize = crate::catalog::steps::MOST;

fn zones() -> Zones {
    let prefix = |text: &str| Prefix::parse(text).unwrap();
    let others = [("old.test", "/services"), ("old.test", "/old"), ("10.in-addr.arpa", "/ptr")];
    let others = others.map(|(name, path)| (name.to_owned(), prefix(path)));
    Zones::new("services.internal", prefix("/services"), others).unwrap()
}

fn context(seed: u64, room: usize) -> Context<'static> {
    Context { dns_ttl: 5, negative_ttl: 5, seed, now: Duration::ZERO, room, standpoint: Standpoint::NOWHERE }
}

fn ask(catalog: &Catalog, text: &str, context: &Context<'_>) -> Answer {
    let (asked, qtype) = text.split_once(' ').unwrap();
    let labels = asked.split('.').map(str::as_bytes);
    let question =
        Question { name: Name::from_labels(labels).unwrap(), qtype: qtype.parse().unwrap(), qclass: DNSClass::IN };
    match answer(catalog, &zones(), &question, context) {
        Outcome::Answer(answer) | Outcome::Chase { answer, .. } => answer,
        Outcome::Foreign => panic!("{text} is foreign"),
    }
}

/// 40,000 endpoints of one service and 20,000 services of three: 100,000 records.
static LARGE: LazyLock<Catalog> = LazyLock::new(|| {
    let mut catalog = Catalog::default();
    let mut put = |key: String, number: usize, role: Option<Role>| {
        let record = Record {
            host: format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255).into(),
            port: 6379,
            node: Some(format!("core-{}", number % 1_000).into()),
            owner: Some("owner".into()),
            proto: Some(Proto::Tcp),
            role,
            tags: vec!["blue".into(), "prod".into()],
            ..Record::default()
        };
        catalog.put_record(&key, &record, 0, 1);
    };
    for number in 0..40_000 {
        let role = if number == 23_456 { Role::Primary } else { Role::Replica };
        put(format!("/services/big/i{number}"), number, Some(role));
    }
    for number in 40_000..100_000 {
        put(format!("/services/s{}/i{number}", number / 3), number, None);
    }
    catalog
});

#[test]
fn no_question_looks_at_more_than_a_window() {
    let check = |text: &str, least: usize| {
        for (seed, room) in [(0, 65_535), (7, 1_232), (12_345, 65_535)] {
            let answer = ask(&LARGE, text, &context(seed, room));
            assert!(answer.steps <= MOST_STEPS, "{text}: {} steps", answer.steps);
            assert!(answer.answers.len() <= WINDOW, "{text}: {} answers", answer.answers.len());
            assert!(answer.answers.len() + answer.additional.len() <= room / 16 + 2, "{text}: made too much");
            let wanted = least.min(room / 80);
            assert!(answer.answers.len() >= wanted, "{text}: {} answers of {wanted}", answer.answers.len());
        }
    };
    check("services.internal SRV", 900);
    check("services.internal A", 900);
    check("services.internal TXT", 0);
    check("services.internal ANY", 1);
    check("*.services.internal SRV", 900);
    check("*.*.services.internal SRV", 900);
    check("any.*.services.internal A", 900);
    check("*.*.*.services.internal A", 0);
    check("i50001.*.services.internal A", 0);
    check("nothing.*.*.services.internal A", 0);
    check("big.services.internal SRV", 900);
    check("_big._tcp.services.internal SRV", 900);
    check("_big._udp.services.internal SRV", 0);
    check("blue.big.services.internal A", 900);
    check("blue.prod.big.services.internal A", 900);
    check("replicas.blue.big.services.internal A", 900);
    check("primary.big.services.internal A", 1);
    check("core-7.replicas.big.services.internal A", 40);
    check("green.big.services.internal A", 0);
    check("primary.*.services.internal A", 0);
    check("primary.big.old.test A", 1);
    check("big.old.test SRV", 900);
    check("s20000.services.internal SRV", 3);
}

#[test]
fn a_small_set_within_a_large_service_is_whole() {
    let one = ask(&LARGE, "primary.big.services.internal A", &context(0, 1_232));
    assert_eq!(one.answers[0].data.to_string(), "10.0.91.160");
    assert_eq!(ask(&LARGE, "core-7.big.services.internal A", &context(3, 1_232)).answers.len(), 40);
    assert!(one.steps < 100, "{} steps", one.steps);
    let three = ask(&LARGE, "s20000.services.internal SRV", &context(3, 1_232));
    assert_eq!((three.answers.len(), three.additional.len(), three.cut), (3, 3, false));
    assert!(three.steps < 100, "{} steps", three.steps);
}

#[test]
fn the_window_moves_until_all_have_been_seen() {
    let mut seen = BTreeSet::new();
    for seed in 0..800 {
        let answer = ask(&LARGE, "big.services.internal A", &context(seed, 65_535));
        assert!(answer.cut);
        seen.extend(answer.answers.iter().filter_map(|record| record.data.ip_addr()));
    }
    assert_eq!(seen.len(), 40_000);
}

#[test]
fn one_change_leaves_nearly_everything_shared() {
    let mut changed = LARGE.clone();
    let before = changed.generation();
    let answer = ask(&changed, "s20000.services.internal SRV", &context(0, 1_232));
    changed.put("/services/s20001/new", b"10.0.0.1:80", 0, 2).unwrap();
    assert_ne!(changed.generation(), before);
    assert!(changed.holds_still(changed.epoch(), &answer.dependencies));
    assert_eq!(LARGE.counts().records + 1, changed.counts().records);
    assert!(LARGE.get("/services/s20001/new").is_none());
}

/// What may happen to a catalog.
#[derive(Clone, Debug)]
enum Event {
    Put(String, String),
    Delete(String),
    Hold(String),
}

fn key() -> impl Strategy<Value = String> {
    let segment =
        prop_oneof![Just("a"), Just("b"), Just("B.c"), Just("any"), Just("primary"), Just("_tcp"), Just("n-1")];
    let root = prop_oneof![Just("/services"), Just("/old"), Just("/ptr")];
    (root, prop::collection::vec(segment, 1..4)).prop_map(|(root, parts)| format!("{root}/{}", parts.join("/")))
}

fn value() -> impl Strategy<Value = String> {
    let host = prop_oneof![
        Just("10.0.0.1"),
        Just("10.0.0.2"),
        Just("2001:db8::1"),
        Just("a.services.internal"),
        Just("b.a.old.test"),
        Just("www.example.com"),
        Just(""),
        Just("b ad..host"),
    ];
    let rest = prop_oneof![
        Just(r#""role":"primary""#),
        Just(r#""role":"replica","node":"n-1""#),
        Just(r#""tags":["a","T x"]"#),
        Just(r#""group":"g1","text":"some text""#),
        Just(r#""group":"g2","mail":true"#),
        Just(r#""targetstrip":1"#),
        Just(r#""owner":"o","host6":"2001:db8::9""#),
        Just(r#""proto":"udp","weight":7,"ttl":3"#),
        Just(r#""port":70000"#),
    ];
    let json = (host, rest, 0..3_u16).prop_map(|(host, rest, port)| match rest {
        bad if bad.contains("70000") => format!("{{{bad}}}"),
        rest => format!(r#"{{"host":"{host}","port":{port},{rest}}}"#),
    });
    prop_oneof![8 => json, 1 => Just("10.0.0.3:80".to_owned()), 1 => ".{0,12}"]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        5 => (key(), value()).prop_map(|(key, value)| Event::Put(key, value)),
        2 => key().prop_map(Event::Delete),
        1 => key().prop_map(Event::Hold),
    ]
}

fn apply(catalog: &mut Catalog, event: &Event, revision: i64) {
    match event {
        Event::Put(key, value) => drop(catalog.put(key, value.as_bytes(), 0, revision)),
        Event::Delete(key) => catalog.delete(key),
        Event::Hold(key) => catalog.hold(key, Duration::from_secs(9)),
    }
}

/// All that can be seen of a catalog.
fn seen(catalog: &Catalog) -> String {
    let questions = [
        "services.internal SRV",
        "a.services.internal A",
        "b.a.services.internal SRV",
        "*.services.internal A",
        "a.*.old.test SRV",
        "primary.a.services.internal A",
        "n-1.a.services.internal A",
        "_a._tcp.services.internal A",
        "c.b.old.test TXT",
        "a.services.internal MX",
        "any.any.services.internal AAAA",
        "a.services.internal CNAME",
        "t-x.b.services.internal A",
        "old.test NS",
    ];
    let records: Vec<_> =
        catalog.endpoints().map(|endpoint| (endpoint.key().clone(), endpoint.record(), endpoint.held())).collect();
    let bad: Vec<_> = catalog.bad().map(|(key, bad)| (key.clone(), bad.reason.clone())).collect();
    let services: Vec<_> = catalog.services(&zones()).into_iter().map(|own| (own.name, own.endpoints.len())).collect();
    let contested: Vec<_> = catalog.contested().cloned().collect();
    let answers: Vec<_> = questions
        .iter()
        .map(|question| {
            let answer = ask(catalog, question, &context(0, 65_535));
            (answer.rcode, answer.answers, answer.additional, answer.contested)
        })
        .collect();
    format!("{records:?} {bad:?} {services:?} {contested:?} {:?} {answers:?}", catalog.counts())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn events_make_what_a_fresh_list_makes(events in prop::collection::vec(event(), 0..60)) {
        let mut folded = Catalog::default();
        let mut listed: BTreeMap<String, (String, i64)> = BTreeMap::new();
        let mut held = BTreeSet::new();
        for (revision, event) in (1..).zip(&events) {
            apply(&mut folded, event, revision);
            match event {
                Event::Put(key, value) => drop((listed.insert(key.clone(), (value.clone(), revision)), held.remove(key))),
                Event::Delete(key) => drop((listed.remove(key), held.remove(key))),
                Event::Hold(key) => drop(held.insert(key.clone())),
            }
        }
        let mut fresh = Catalog::default();
        for (key, (value, revision)) in &listed {
            let _bad_ones_too = fresh.put(key, value.as_bytes(), 0, *revision);
        }
        held.iter().for_each(|key| fresh.hold(key, Duration::from_secs(9)));
        prop_assert_eq!(seen(&folded), seen(&fresh));
        let everything: Vec<_> = folded.endpoints().map(|endpoint| endpoint.key().clone()).collect();
        everything.iter().for_each(|key| folded.delete(key));
        let bad: Vec<_> = folded.bad().map(|(key, _)| key.clone()).collect();
        bad.iter().for_each(|key| folded.delete(key));
        prop_assert_eq!(seen(&folded), seen(&Catalog::default()));
    }

    #[test]
    fn an_old_snapshot_never_changes(before in prop::collection::vec(event(), 0..30), after in prop::collection::vec(event(), 1..30)) {
        let mut catalog = Catalog::default();
        before.iter().for_each(|event| apply(&mut catalog, event, 0));
        let snapshot = catalog.clone();
        let (was, generation) = (seen(&snapshot), snapshot.generation());
        after.iter().for_each(|event| apply(&mut catalog, event, 0));
        catalog.set_stale(Some(Duration::ZERO));
        catalog.set_lease(1, LeaseTimes { granted: Duration::from_secs(3), until: Duration::ZERO });
        prop_assert_eq!(seen(&snapshot), was);
        prop_assert_eq!(snapshot.generation(), generation);
    }

    #[test]
    fn what_still_holds_is_answered_the_same(before in prop::collection::vec(event(), 0..30), after in event(), question in 0..14_usize) {
        let mut catalog = Catalog::default();
        before.iter().for_each(|event| apply(&mut catalog, event, 0));
        let questions = ["a.services.internal A", "b.a.services.internal SRV", "*.services.internal A", "a.*.old.test SRV",
            "primary.a.services.internal A", "n-1.a.services.internal A", "_a._tcp.services.internal A", "c.b.old.test TXT",
            "b.services.internal AAAA", "any.services.internal SRV", "t-x.b.services.internal A", "a.b.a.services.internal A",
            "services.internal SRV", "a.a.old.test A"];
        let first = ask(&catalog, questions[question], &context(0, 65_535));
        let epoch = catalog.epoch();
        apply(&mut catalog, &after, 0);
        if catalog.holds_still(epoch, &first.dependencies) {
            let second = ask(&catalog, questions[question], &context(0, 65_535));
            prop_assert_eq!((first.rcode, first.answers, first.additional), (second.rcode, second.answers, second.additional));
        }
    }

    #[test]
    fn no_name_and_no_record_makes_an_answer_panic(
        events in prop::collection::vec(event(), 0..20),
        labels in prop::collection::vec(prop_oneof![
            4 => "[a-c*_.]{1,4}".prop_map(String::into_bytes),
            2 => Just(b"any".to_vec()), 2 => Just(b"_tcp".to_vec()), 2 => Just(b"primary".to_vec()), 2 => Just(b"a".to_vec()),
            1 => prop::collection::vec(any::<u8>(), 1..63),
        ], 0..6),
        inside in any::<bool>(),
        qtype in any::<u16>(),
        seed in any::<u64>(),
        room in 0..70_000_usize,
    ) {
        let mut catalog = Catalog::default();
        events.iter().for_each(|event| apply(&mut catalog, event, 0));
        let zone: &[&[u8]] = if inside { &[b"services", b"internal"] } else { &[b"10", b"in-addr", b"arpa"] };
        let all = labels.iter().map(Vec::as_slice).chain(zone.iter().copied());
        let Ok(name) = Name::from_labels(all) else { return Ok(()) };
        let common = [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::PTR, RecordType::MX, RecordType::CNAME];
        let qtype = common.get(usize::from(qtype) % 8).copied().unwrap_or(RecordType::from(qtype ^ u16::try_from(seed & 255).unwrap()));
        let question = Question { name: name.clone(), qtype, qclass: DNSClass::IN };
        if let Outcome::Answer(answer) = answer(&catalog, &zones(), &question, &context(seed, room)) {
            let refused = answer.rcode == ResponseCode::Refused;
            prop_assert!(refused || !answer.answers.is_empty() || !answer.authority.is_empty());
            for record in answer.answers.iter().filter(|record| record.record_type() == qtype) {
                let equal = answer.answers.iter().filter(|other| other.name == record.name && other.record_type() == qtype);
                prop_assert!(equal.into_iter().all(|other| other.ttl == record.ttl));
            }
        }
    }
}

#[test]
fn snapshots_can_be_read_from_any_thread() {
    fn needs<T: Send + Sync + Clone + Default>(_: &T) {}
    needs(&*LARGE);
}
