//! The names and answers that SkyDNS's users know, asked of the model itself: records → catalog → answer.

#![allow(clippy::unwrap_used)]

#[path = "support/skydns/mod.rs"]
mod skydns;

use std::collections::BTreeSet;
use std::str::FromStr;
use std::time::Duration;

use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_server::proto::rr::{DNSClass, Name, RData, Record, RecordType};
use skydns::compare::{Expected, Reply, judge};
use skydns::{Query, Suite};
use wharf::catalog::dns::{Answer, Context, Outcome, Question, answer};
use wharf::catalog::index::{Catalog, LeaseTimes};
use wharf::model::words::key::Prefix;
use wharf::model::words::site::Standpoint;
use wharf::model::words::zone::Zones;

const TCP: usize = 65_535;

/// A name in the case that it is written in.
fn name(text: &str) -> Name {
    Name::from_labels(text.trim_end_matches('.').split('.').map(str::as_bytes)).unwrap()
}

fn load(suite: &Suite) -> (Catalog, Zones) {
    let mut catalog = Catalog::default();
    for (number, service) in suite.services().iter().enumerate() {
        let lease = service.lease.map_or(0, |_| i64::try_from(number).unwrap() + 1);
        if let Some(seconds) = service.lease {
            let seconds = Duration::from_secs(seconds);
            catalog.set_lease(lease, LeaseTimes { granted: seconds, until: seconds });
        }
        catalog.put(&service.path, service.value.as_bytes(), lease, 1).unwrap();
    }
    let mut zones = suite.zones().into_iter().map(|(name, prefix)| (name, Prefix::parse(&prefix).unwrap()));
    let (domain, prefix) = zones.next().unwrap();
    (catalog, Zones::new(&domain, prefix, zones).unwrap())
}

fn ask(catalog: &Catalog, zones: &Zones, query: &Query, seed: u64) -> Reply {
    let question = Question {
        name: name(query.qname()),
        qtype: RecordType::from_str(query.qtype()).unwrap(),
        qclass: DNSClass::from_str(query.qclass()).unwrap(),
    };
    let context = Context {
        dns_ttl: query.default_ttl(),
        negative_ttl: 60,
        seed,
        now: Duration::ZERO,
        room: TCP,
        standpoint: Standpoint::NOWHERE,
    };
    match answer(catalog, zones, &question, &context) {
        Outcome::Answer(answer) => reply(answer),
        Outcome::Chase { mut answer, target } => {
            answer.answers.extend(outside(&target, question.qtype));
            reply(answer)
        }
        Outcome::Foreign if query.is_tagged("no-rec") => reply(Answer::empty(ResponseCode::Refused)),
        Outcome::Foreign => {
            let mut answer = Answer::empty(ResponseCode::NoError);
            answer.answers = outside(&question.name, question.qtype);
            reply(answer)
        }
    }
}

fn reply(answer: Answer) -> Reply {
    Reply {
        rcode: answer.rcode,
        authoritative: answer.authoritative,
        truncated: None,
        answers: answer.answers,
        authority: answer.authority,
        additional: answer.additional,
        edns: None,
        size: None,
    }
}

/// What the outside world says of a name.
fn outside(asked: &Name, qtype: RecordType) -> Vec<Record> {
    let mut found = Vec::new();
    for Expected { name: own, rtype, data, ttl, .. } in skydns::upstream() {
        let owner = name(&own);
        let data = match rtype.as_str() {
            "CNAME" => RData::CNAME(CNAME(name(&data))),
            "A" => RData::A(A(data.parse().unwrap())),
            _ => RData::AAAA(AAAA(data.parse().unwrap())),
        };
        if owner == *asked && (rtype == "CNAME" || rtype == qtype.to_string()) {
            found.push(Record::from_rdata(owner, ttl.unwrap(), data));
        }
    }
    if let [Record { data: RData::CNAME(target), .. }] = found.as_slice() {
        let further = outside(&target.0.clone(), qtype);
        found.extend(further);
    }
    found
}

#[test]
fn every_suite_is_answered_as_its_users_know_it() {
    let mut asked = 0;
    let mut complaints = Vec::new();
    for suite in skydns::suites() {
        if suite.manual() {
            continue;
        }
        let (catalog, zones) = load(&suite);
        for query in suite.queries().iter().filter(|query| !query.skipped()) {
            for seed in 0..3 {
                asked += 1;
                let reply = ask(&catalog, &zones, query, seed);
                let wrong = judge(query, &reply, query.default_ttl());
                if !wrong.is_empty() {
                    complaints.push(format!("{} {}: {wrong:#?}", query.qname(), query.id()));
                }
            }
        }
    }
    assert!(asked > 300, "only {asked} questions");
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// CoreDNS's cases of one suite: what is served, and what is asked with what is to come back.
#[derive(Default)]
struct Coredns {
    zones: Vec<String>,
    catalog: Catalog,
    asked: Vec<(String, BTreeSet<String>)>,
}

fn coredns() -> Vec<Coredns> {
    let path = |name: &str| name.split('.').rev().fold("/skydns".to_owned(), |path, label| format!("{path}/{label}"));
    let mut suites: Vec<Coredns> = Vec::new();
    for line in include_str!("data/coredns_cases.txt").lines() {
        let text = line.trim();
        let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
        match first {
            "" | "#" => {}
            "suite" => suites.push(Coredns::default()),
            "zone" => suites.last_mut().unwrap().zones.push(rest.to_owned()),
            "?" => suites.last_mut().unwrap().asked.push((rest.to_owned(), BTreeSet::new())),
            "=" | ">" | "!" => drop(suites.last_mut().unwrap().asked.last_mut().unwrap().1.insert(text.to_owned())),
            name => suites.last_mut().unwrap().catalog.put(&path(name), rest.as_bytes(), 0, 1).unwrap(),
        }
    }
    for suite in &suites {
        assert!(!suite.zones.is_empty() && !suite.asked.is_empty());
    }
    suites
}

/// An answer in the cases' own notation.
fn noted(answer: &Answer, asked: &Name, qtype: RecordType) -> BTreeSet<String> {
    let data = |record: &Record| match &record.data {
        RData::TXT(text) => format!("{:?}", text.to_string()),
        data => data.to_string(),
    };
    let note = |record: &Record| {
        let owner = record.name.to_ascii();
        match record.record_type() {
            rtype if rtype == qtype && record.name.eq_case(asked) => format!("= {}", data(record)),
            rtype => format!("> {} {rtype} {}", owner.trim_end_matches('.'), data(record)),
        }
    };
    let mut noted: BTreeSet<String> = answer.answers.iter().chain(&answer.additional).map(note).collect();
    let soa = matches!(answer.authority.as_slice(), [Record { data: RData::SOA(_), .. }]);
    match answer.rcode {
        ResponseCode::NXDomain if soa => drop(noted.insert("! NXDOMAIN".to_owned())),
        ResponseCode::NoError if soa => drop(noted.insert("! NODATA".to_owned())),
        ResponseCode::NoError => assert!(answer.authority.is_empty()),
        rcode => panic!("{rcode} for {asked}"),
    }
    noted
}

#[test]
fn what_corednss_etcd_plugin_says_is_said() {
    let (mut asked, mut complaints) = (0, BTreeSet::new());
    for Coredns { zones, catalog, asked: questions } in coredns() {
        let prefix = |zone: &str| {
            let path = zone.split('.').rev().fold("/skydns".to_owned(), |path, label| format!("{path}/{label}"));
            Prefix::parse(&path).unwrap()
        };
        let all: Vec<_> = zones.iter().map(|zone| (zone.clone(), prefix(zone))).collect();
        let zones = Zones::new(&all[0].0, all[0].1.clone(), all[1..].iter().cloned()).unwrap();
        for (text, expected) in questions {
            let (own, qtype) = text.split_once(' ').unwrap();
            let question = Question { name: name(own), qtype: qtype.parse().unwrap(), qclass: DNSClass::IN };
            for seed in 0..3 {
                asked += 1;
                let context = Context {
                    dns_ttl: 300,
                    negative_ttl: 30,
                    seed,
                    now: Duration::ZERO,
                    room: TCP,
                    standpoint: Standpoint::NOWHERE,
                };
                let (Outcome::Answer(answer) | Outcome::Chase { answer, .. }) =
                    answer(&catalog, &zones, &question, &context)
                else {
                    panic!("{text} is foreign")
                };
                assert!(answer.authoritative, "{text}");
                assert!(answer.answers.iter().all(|record| record.ttl == 300), "{text}");
                let noted = noted(&answer, &question.name, question.qtype);
                if noted != expected {
                    complaints.insert(format!("{text}: {noted:#?}"));
                }
            }
        }
    }
    assert!(asked > 100, "only {asked} questions");
    assert!(complaints.is_empty(), "{}", complaints.into_iter().collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_wrong_reply_is_told_from_a_right_one() {
    let suite = skydns::suites().into_iter().find(|suite| suite.id() == "derived-ttl-rules").unwrap();
    let (catalog, zones) = load(&suite);
    let query = &suite.queries()[0];
    let check = |spoil: fn(&mut Reply)| {
        let mut reply = ask(&catalog, &zones, query, 0);
        assert_eq!(judge(query, &reply, 3600), Vec::<String>::new());
        spoil(&mut reply);
        assert!(!judge(query, &reply, 3600).is_empty(), "{reply:?}");
    };
    check(|reply| drop(reply.answers.pop()));
    check(|reply| reply.answers[0].ttl += 1);
    check(|reply| reply.rcode = ResponseCode::NXDomain);
    check(|reply| reply.additional = reply.answers.clone());
    check(|reply| reply.answers[0].name = name("T.skydns.test."));
}
