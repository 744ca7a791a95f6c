//! Names and what they are answered with, as tables: records above, questions below.

use std::time::Duration;

use hickory_server::proto::rr::RecordType;

use super::*;
use crate::catalog::index::{Catalog, LeaseTimes};
use crate::model::words::key::Prefix;
use crate::model::words::zone::Zones;

fn prefix(text: &str) -> Prefix {
    Prefix::parse(text).unwrap()
}

fn zones(others: &[(&str, &str)]) -> Zones {
    let others = others.iter().map(|(name, path)| ((*name).to_owned(), prefix(path)));
    Zones::new("services.internal", prefix("/services"), others).unwrap()
}

fn catalog(records: &[(&str, &str)]) -> Catalog {
    let mut catalog = Catalog::default();
    for (key, value) in records {
        let _bad_ones_too = catalog.put(key, value.as_bytes(), 0, 1);
    }
    catalog
}

fn context() -> Context<'static> {
    Context {
        dns_ttl: 60,
        negative_ttl: 5,
        seed: 0,
        now: Duration::ZERO,
        room: 65_535,
        standpoint: Standpoint::NOWHERE,
    }
}

fn name(text: &str) -> Name {
    Name::from_labels(text.trim_end_matches('.').split('.').map(str::as_bytes)).unwrap()
}

fn ask(catalog: &Catalog, zones: &Zones, text: &str, context: &Context<'_>) -> Outcome {
    let (asked, qtype) = text.split_once(' ').unwrap();
    let question = Question { name: name(asked), qtype: qtype.parse().unwrap(), qclass: DNSClass::IN };
    answer(catalog, zones, &question, context)
}

/// An outcome in one line: answers (data only, sorted), or what was said instead.
fn told(outcome: &Outcome) -> String {
    let (answer, chase) = match outcome {
        Outcome::Foreign => return "foreign".to_owned(),
        Outcome::Answer(answer) => (answer, String::new()),
        Outcome::Chase { answer, target } => (answer, format!(" … {target}")),
    };
    let soa = answer.authority.iter().any(|record| record.record_type() == RecordType::SOA);
    let mut data: Vec<String> = answer.answers.iter().map(|record| record.data.to_string()).collect();
    data.sort();
    match (answer.rcode, data.is_empty()) {
        (ResponseCode::NXDomain, _) if soa => "nxdomain".to_owned(),
        (ResponseCode::NoError, true) if soa && answer.contested => "contested".to_owned(),
        (ResponseCode::NoError, true) if soa => "nodata".to_owned(),
        (ResponseCode::NoError, false) => data.join(", ") + &chase,
        (other, _) => format!("{other:?}"),
    }
}

/// Each line is a question and, after `→`, what it is answered with.
fn check_all(catalog: &Catalog, zones: &Zones, table: &str) {
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (question, expected) = line.split_once('→').unwrap();
        let outcome = ask(catalog, zones, question.trim(), &context());
        assert_eq!(told(&outcome).trim(), expected.trim(), "{question}");
    }
}

fn answered(outcome: Outcome) -> Answer {
    match outcome {
        Outcome::Answer(answer) | Outcome::Chase { answer, .. } => answer,
        Outcome::Foreign => panic!("foreign"),
    }
}

fn redis() -> Catalog {
    catalog(&[
        (
            "/services/redis/r1",
            r#"{"host":"10.0.0.1","port":6379,"node":"core-01","role":"primary","tags":["blue"],"proto":"tcp"}"#,
        ),
        (
            "/services/redis/r2",
            r#"{"host":"10.0.0.2","port":6379,"node":"core-02","role":"replica","tags":["blue","EU West"],"proto":"tcp"}"#,
        ),
        (
            "/services/redis/r3",
            r#"{"host":"10.0.0.3","port":6379,"node":"Core.03","role":"replica","tags":["green"],"proto":"tcp"}"#,
        ),
        ("/services/dns/d1", r#"{"host":"10.0.0.4","port":53,"node":"core-01","proto":"tcp"}"#),
        ("/services/dns/d2", r#"{"host":"10.0.0.4","port":53,"node":"core-01","proto":"udp"}"#),
        ("/services/prod/cache/c1", r#"{"host":"10.0.1.1","port":11211,"node":"core-01","proto":"tcp"}"#),
        ("/services/prod/cache/core-09", r#"{"host":"10.0.1.2","port":11211,"node":"core-02","proto":"tcp"}"#),
        ("/services/prod/cache/broken", r#"{"host":"10.0.1.3","port":70000}"#),
        ("/services/hollow/broken", "["),
    ])
}

#[test]
fn a_name_is_resolved_in_this_order() {
    check_all(
        &redis(),
        &zones(&[]),
        "
        # 1. what the tree holds at or below the name; bad records do not count
        redis.services.internal A           → 10.0.0.1, 10.0.0.2, 10.0.0.3
        r2.redis.services.internal A        → 10.0.0.2
        cache.prod.services.internal A      → 10.0.1.1, 10.0.1.2
        prod.services.internal A            → 10.0.1.1, 10.0.1.2
        broken.cache.prod.services.internal A → nxdomain
        hollow.services.internal A          → nxdomain
        # an instance of that very name wins over a selector
        core-09.cache.prod.services.internal A → 10.0.1.2
        # 2. else the first label selects: role, then node, then tag
        primary.redis.services.internal A   → 10.0.0.1
        master.redis.services.internal A    → 10.0.0.1
        replicas.redis.services.internal A  → 10.0.0.2, 10.0.0.3
        slaves.redis.services.internal A    → 10.0.0.2, 10.0.0.3
        core-02.redis.services.internal A   → 10.0.0.2
        core-03.redis.services.internal A   → 10.0.0.3
        CORE-03.Redis.services.internal A   → 10.0.0.3
        blue.redis.services.internal A      → 10.0.0.1, 10.0.0.2
        eu-west.redis.services.internal A   → 10.0.0.2
        core-01.prod.services.internal A    → 10.0.1.1
        # two selectors stack, in any order, not three
        core-02.replicas.redis.services.internal A → 10.0.0.2
        replicas.core-02.redis.services.internal A → 10.0.0.2
        primary.blue.redis.services.internal A     → 10.0.0.1
        core-01.replicas.redis.services.internal A → nodata
        core-02._redis._udp.services.internal A    → nodata
        blue.core-02.replicas.redis.services.internal A → nxdomain
        # a role that nobody has is no data, never another role
        primary.cache.prod.services.internal A  → nodata
        replicas.dns.services.internal SRV      → nodata
        primary.core-02.redis.services.internal A → nodata
        # nothing else exists
        nobody.redis.services.internal A    → nxdomain
        primary.nothing.services.internal A → nxdomain
        core-01.services.internal A         → nxdomain
        primary.services.internal A         → nxdomain
        x.r1.redis.services.internal A      → nxdomain
        redis.services.internal AAAA        → nodata
        redis.example.com A                 → foreign
    ",
    );
}

#[test]
fn rfc_2782_names_find_services_by_proto() {
    let mut catalog = redis();
    catalog.put("/services/_tcp/_literal/x", br#"{"host":"10.9.9.9","port":1}"#, 0, 1).unwrap();
    catalog.put("/services/plain/x", b"10.8.8.8:80", 0, 1).unwrap();
    check_all(
        &catalog,
        &zones(&[]),
        "
        _redis._tcp.services.internal A        → 10.0.0.1, 10.0.0.2, 10.0.0.3
        _dns._udp.services.internal SRV        → 10 100 53 d2.dns.services.internal.
        _dns._tcp.services.internal SRV        → 10 100 53 d1.dns.services.internal.
        _cache._tcp.prod.services.internal A   → 10.0.1.1, 10.0.1.2
        _literal._tcp.services.internal A      → 10.9.9.9
        _plain._tcp.services.internal A        → 10.8.8.8
        # the rest may hold selectors, and a selection may stand before
        _redis._tcp.primary.services.internal A  → 10.0.0.1
        _redis._tcp.core-02.replicas.services.internal A → 10.0.0.2
        primary._redis._tcp.services.internal A  → 10.0.0.1
        core-02._redis._tcp.services.internal A  → 10.0.0.2
        # a service without that proto is there, and what its name stands below is too
        _redis._udp.services.internal A        → nodata
        _tcp.services.internal A               → 10.9.9.9
        _udp.services.internal NS              → nodata
        _tcp.prod.services.internal NS         → nodata
        _nothing._tcp.services.internal A      → nxdomain
        _redis._sctp.services.internal A       → nxdomain
        _._tcp.services.internal A             → nxdomain
    ",
    );
}

#[test]
fn nobody_is_primary_while_several_claim_it() {
    let mut catalog = redis();
    catalog
        .put("/services/redis/r9", br#"{"host":"10.0.0.9","port":6379,"node":"core-09","role":"primary"}"#, 0, 2)
        .unwrap();
    let zones = zones(&[]);
    check_all(
        &catalog,
        &zones,
        "
        primary.redis.services.internal A         → contested
        core-01.primary.redis.services.internal A → contested
        primary.core-01.redis.services.internal A → contested
        replicas.redis.services.internal A        → 10.0.0.2, 10.0.0.3
    ",
    );
    assert_eq!((catalog.counts().contested, catalog.contested().count()), (1, 1));
    catalog.delete("/services/redis/r1");
    check_all(&catalog, &zones, "primary.redis.services.internal A → 10.0.0.9");
    assert_eq!(catalog.counts().contested, 0);
}

#[test]
fn a_held_primary_gives_way_to_one_that_lives() {
    let mut catalog = redis();
    catalog.hold("/services/redis/r1", Duration::from_secs(30));
    check_all(&catalog, &zones(&[]), "primary.redis.services.internal A → 10.0.0.1");
    catalog.put("/services/redis/r9", br#"{"host":"10.0.0.9","port":6379,"role":"primary"}"#, 0, 2).unwrap();
    check_all(&catalog, &zones(&[]), "primary.redis.services.internal A → 10.0.0.9");
}

#[test]
fn several_prefixes_are_a_union_with_owners_first() {
    let catalog = catalog(&[
        ("/services/web/new", r#"{"host":"10.0.0.1","port":80,"owner":"o1","id":"new"}"#),
        ("/old/web/old", "10.0.0.1:80"),
        ("/old/web/only", "10.0.0.2:80"),
        ("/old/web/udp", r#"{"host":"10.0.0.1","port":80,"proto":"udp"}"#),
        ("/old/relic/x", "10.0.0.3:80"),
    ]);
    check_all(&catalog, &zones(&[("services.internal", "/old")]), "
        web.services.internal SRV   → 10 33 80 new.web.services.internal., 10 33 80 only.web.services.internal., 10 33 80 udp.web.services.internal.
        web.services.internal A     → 10.0.0.1, 10.0.0.2
        relic.services.internal A   → 10.0.0.3
        old.web.services.internal A → 10.0.0.1
    ");
}

#[test]
fn reverse_names_are_ours_when_a_tree_or_a_record_has_them() {
    let catalog = catalog(&[
        ("/skydns/arpa/in-addr/10/0/0/1", r#"{"host":"reverse.example.com"}"#),
        ("/services/web/a", r#"{"host":"10.0.0.1","port":80}"#),
        ("/services/web/b", r#"{"host":"10.0.0.2","port":80,"host6":"2001:db8::2"}"#),
        ("/services/api/b", r#"{"host":"10.0.0.2","port":81}"#),
    ]);
    let zones = zones(&[("in-addr.arpa", "/skydns/arpa/in-addr")]);
    check_all(
        &catalog,
        &zones,
        "
        1.0.0.10.in-addr.arpa PTR → reverse.example.com.
        2.0.0.10.in-addr.arpa PTR → b.api.services.internal., b.web.services.internal.
        3.0.0.10.in-addr.arpa PTR → nxdomain
        3.0.0.11.in-addr.arpa PTR → nxdomain
        02.0.0.10.in-addr.arpa PTR → nxdomain
        2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR → b.web.services.internal.
        1.0.0.10.in-addr.arpa A   → nodata
        0.10.in-addr.arpa PTR     → nodata
        9.in-addr.arpa PTR        → nxdomain
    ",
    );
}

#[test]
fn sixteen_names_of_an_address_are_enough() {
    let mut catalog = Catalog::default();
    for number in 0..40 {
        catalog.put(&format!("/services/s{number}/x"), b"10.0.0.1:80", 0, 1).unwrap();
    }
    let answer = answered(ask(&catalog, &zones(&[]), "1.0.0.10.in-addr.arpa PTR", &context()));
    assert_eq!(answer.answers.len(), 16);
    assert!(answer.authoritative);
}

#[test]
fn dual_stack_instances_have_both_addresses() {
    let catalog = catalog(&[("/services/web/a", r#"{"host":"10.0.0.1","port":80,"host6":"2001:db8::1"}"#)]);
    let zones = zones(&[]);
    check_all(
        &catalog,
        &zones,
        "
        web.services.internal A    → 10.0.0.1
        web.services.internal AAAA → 2001:db8::1
        web.services.internal SRV  → 10 100 80 a.web.services.internal.
    ",
    );
    let answer = answered(ask(&catalog, &zones, "web.services.internal SRV", &context()));
    assert_eq!(answer.additional.len(), 2);
}

#[test]
fn names_for_hosts_lead_on() {
    let catalog = catalog(&[
        ("/services/in", r#"{"host":"web.services.internal"}"#),
        ("/services/web/a", r#"{"host":"10.0.0.1","role":"primary"}"#),
        ("/services/role", r#"{"host":"primary.web.services.internal."}"#),
        ("/services/out", r#"{"host":"www.example.com"}"#),
        ("/services/far", r#"{"host":"out.services.internal"}"#),
        ("/services/dead", r#"{"host":"nothing.services.internal"}"#),
        ("/services/self", r#"{"host":"self.services.internal"}"#),
        ("/services/mixed/a", r#"{"host":"10.0.0.7"}"#),
        ("/services/mixed/b", r#"{"host":"in.services.internal"}"#),
        ("/services/two/a", r#"{"host":"dead.services.internal"}"#),
        ("/services/two/b", r#"{"host":"web.services.internal"}"#),
        ("/services/bad", r#"{"host":"2000..3"}"#),
        ("/services/only/text", r#"{"text":"x"}"#),
    ]);
    check_all(
        &catalog,
        &zones(&[]),
        "
        in.services.internal A      → 10.0.0.1, web.services.internal.
        in.services.internal CNAME  → web.services.internal.
        in.services.internal AAAA   → web.services.internal.
        role.services.internal A    → primary.web.services.internal.
        out.services.internal A     → www.example.com. … www.example.com.
        far.services.internal AAAA  → out.services.internal., www.example.com. … www.example.com.
        dead.services.internal A    → nxdomain
        self.services.internal A    → nodata
        mixed.services.internal A   → 10.0.0.1, 10.0.0.7
        mixed.services.internal CNAME → nodata
        two.services.internal A     → 10.0.0.1, web.services.internal.
        bad.services.internal A     → nodata
        bad.services.internal SRV   → nodata
        only.services.internal SRV  → nodata
        only.services.internal TXT  → x
        web.services.internal ANY   → RFC8482 
        nothing.services.internal ANY → nxdomain
        services.internal AXFR      → Refused
    ",
    );
}

#[test]
fn the_apex_names_itself() {
    let catalog = catalog(&[
        ("/zone/x", r#"{"host":"10.0.0.2"}"#),
        ("/zone/dns/apex/a1", r#"{"host":"10.0.0.4"}"#),
        ("/zone/dns/apex/a2", r#"{"host":"2003::8:1"}"#),
        ("/zone/dns/ns/a", r#"{"host":"10.0.0.9"}"#),
        ("/services/y", r#"{"host":"10.0.0.3"}"#),
    ]);
    check_all(
        &catalog,
        &zones(&[("zone.test", "/zone")]),
        "
        zone.test A               → 10.0.0.4
        zone.test AAAA            → 2003::8:1
        zone.test NS              → a.ns.dns.zone.test.
        services.internal A       → 10.0.0.3
        services.internal NS      → nodata
        services.internal MX      → nodata
        x.zone.test NS            → nodata
        x.zone.test SOA           → nodata
    ",
    );
}

#[test]
fn wildcards_fit_one_label_and_all_below() {
    let catalog = catalog(&[
        ("/services/east/production/rails/1", r#"{"host":"10.0.0.1"}"#),
        ("/services/east-2/production/rails/2", r#"{"host":"10.0.0.2"}"#),
        ("/services/east/production-x/rails/3", r#"{"host":"10.0.0.3"}"#),
        ("/services/west/production", r#"{"host":"10.0.0.4"}"#),
        ("/services/west/staging/rails/5", r#"{"host":"10.0.0.5"}"#),
        ("/services/zulu", r#"{"host":"10.0.0.6"}"#),
    ]);
    check_all(
        &catalog,
        &zones(&[]),
        "
        production.*.services.internal A     → 10.0.0.1, 10.0.0.2, 10.0.0.4
        rails.any.east.services.internal A   → 10.0.0.1, 10.0.0.3
        *.services.internal A                → 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5, 10.0.0.6
        *.*.services.internal A              → 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.4, 10.0.0.5
        rails.*.*.services.internal A        → 10.0.0.1, 10.0.0.2, 10.0.0.3, 10.0.0.5
        *.rails.*.west.services.internal A   → 10.0.0.5
        nothing.*.services.internal A        → nxdomain
        *.zulu.services.internal A           → nxdomain
        *.1.rails.production.east.services.internal A → nxdomain
    ",
    );
}

#[test]
fn dots_and_capitals_in_keys_are_found_by_the_name_they_read_as() {
    let catalog = catalog(&[
        ("/services/redis/core-01.example:redis:6379", r#"{"host":"10.0.0.1","port":6379}"#),
        ("/services/Web/A", r#"{"host":"10.0.0.2","port":80}"#),
    ]);
    let zones = zones(&[]);
    check_all(
        &catalog,
        &zones,
        "
        redis.services.internal SRV → 10 100 6379 core-01.example\\:redis\\:6379.redis.services.internal.
        core-01.example:redis:6379.redis.services.internal A → 10.0.0.1
        web.services.internal SRV   → 10 100 80 a.web.services.internal.
        a.web.services.internal A   → 10.0.0.2
        *.web.services.internal A   → 10.0.0.2
        services.internal A         → 10.0.0.1, 10.0.0.2
    ",
    );
}

#[test]
fn how_long_an_answer_may_be_kept() {
    let owned = r#"{"host":"10.0.0.1","owner":"o","ttl":600}"#;
    let foreign = r#"{"host":"10.0.0.1"}"#;
    let mut catalog = Catalog::default();
    catalog.put("/services/plain/x", br#"{"host":"10.0.0.1","ttl":600}"#, 0, 1).unwrap();
    catalog.put("/services/default/x", foreign.as_bytes(), 0, 1).unwrap();
    catalog.put("/services/owned/x", owned.as_bytes(), 1, 1).unwrap();
    catalog.put("/services/unknown/x", owned.as_bytes(), 9, 1).unwrap();
    catalog.put("/services/leased/x", foreign.as_bytes(), 2, 1).unwrap();
    catalog.put("/services/unasked/x", foreign.as_bytes(), 8, 1).unwrap();
    let seconds = Duration::from_secs;
    catalog.set_lease(1, LeaseTimes { granted: seconds(30), until: seconds(30) });
    catalog.set_lease(2, LeaseTimes { granted: seconds(90), until: seconds(45) });
    let check = |catalog: &Catalog, service: &str, now: u64, expected: u32| {
        let context = Context { now: seconds(now), ..context() };
        let answer = answered(ask(catalog, &zones(&[]), &format!("{service}.services.internal A"), &context));
        assert_eq!(answer.answers[0].ttl, expected, "{service}");
        answer
    };
    check(&catalog, "plain", 0, 600);
    check(&catalog, "default", 0, 60);
    check(&catalog, "owned", 0, 10);
    check(&catalog, "unknown", 0, 5);
    let leased = check(&catalog, "leased", 5, 40);
    assert_eq!((leased.leases.as_slice(), leased.fresh_until), ([2].as_slice(), Some(seconds(6))));
    check(&catalog, "leased", 60, 0);
    check(&catalog, "unasked", 0, 1);
    catalog.hold("/services/plain/x", seconds(30));
    check(&catalog, "plain", 0, 5);
    catalog.set_stale(Some(seconds(1)));
    check(&catalog, "default", 0, 5);
    check(&catalog, "owned", 0, 5);
}

#[test]
fn an_answer_says_what_it_rests_on() {
    let zones = zones(&[]);
    let check = |question: &str, change: fn(&mut Catalog), holds: bool| {
        let mut catalog = redis();
        let answer = answered(ask(&catalog, &zones, question, &context()));
        let epoch = catalog.epoch();
        change(&mut catalog);
        assert_eq!(catalog.holds_still(epoch, &answer.dependencies), holds, "{question}");
    };
    let put_redis: fn(&mut Catalog) = |catalog| catalog.put("/services/redis/r7", b"10.0.0.7:1", 0, 5).unwrap();
    let put_cache: fn(&mut Catalog) = |catalog| catalog.put("/services/prod/cache/r7", b"10.0.0.7:1", 0, 5).unwrap();
    let delete: fn(&mut Catalog) = |catalog| catalog.delete("/services/redis/r1");
    let stale: fn(&mut Catalog) = |catalog| catalog.set_stale(Some(Duration::ZERO));
    check("redis.services.internal A", put_redis, false);
    check("redis.services.internal A", delete, false);
    check("redis.services.internal A", stale, false);
    check("redis.services.internal A", put_cache, true);
    check("r1.redis.services.internal A", delete, false);
    check("primary.redis.services.internal A", put_redis, false);
    check("primary.redis.services.internal A", put_cache, true);
    check("blue.redis.services.internal A", put_cache, true);
    check("nobody.redis.services.internal A", put_redis, false);
    check("nobody.redis.services.internal A", put_cache, true);
    check("_redis._tcp.services.internal A", put_redis, false);
    check("*.prod.services.internal A", put_cache, false);
    check("*.prod.services.internal A", put_redis, true);
    check("1.0.0.10.in-addr.arpa PTR", put_cache, false);
}

#[test]
fn answers_rotate() {
    let firsts = (0..3).map(|seed| {
        let answer = answered(ask(&redis(), &zones(&[]), "redis.services.internal A", &Context { seed, ..context() }));
        answer.answers[0].data.to_string()
    });
    assert_eq!(firsts.collect::<Vec<_>>(), ["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
}

/// Facts from the tables of CoreDNS's etcd plugin (Apache-2.0) that the data file does not hold.
#[test]
fn what_users_of_coredns_know() {
    let large = format!(r#"{{"text":"{}"}}"#, "0".repeat(600));
    let catalog = catalog(&[
        ("/skydns/test/skydns/region1/dev/server1/a", r#"{"host":"dev.server1","port":8080}"#),
        ("/skydns/test/skydns/region1/prod/server1/a", r#"{"host":"10.0.0.1","port":8080}"#),
        ("/skydns/test/skydns/region1/prod/server1/b", r#"{"host":"10.0.0.2","port":8080}"#),
        ("/skydns/test/skydns/region1/prod/server6/b", r#"{"host":"::1","port":8080}"#),
        ("/skydns/test/skydns/region1/prod/cname", r#"{"host":"unresolvable.skydns.test"}"#),
        ("/skydns/test/skydns/priority", r#"{"host":"priority.server1","priority":333,"port":8080}"#),
        ("/skydns/test/skydns/region1/sub/a", r#"{"host":"sub.server1"}"#),
        ("/skydns/test/skydns/region1/sub/b", r#"{"host":"sub.server2","port":80}"#),
        ("/skydns/test/skydns/region1/sub/c", r#"{"host":"10.0.0.1","port":8080}"#),
        ("/skydns/test/skydns/region2", r#"{"host":"mainendpoint.region2.skydns.test"}"#),
        ("/skydns/test/skydns/region2/cname1", r#"{"host":"cname2.region2.skydns.test"}"#),
        ("/skydns/test/skydns/region2/cname2", r#"{"host":"cname3.region2.skydns.test"}"#),
        ("/skydns/test/skydns/region2/cname3", r#"{"host":"cname4.region2.skydns.test"}"#),
        ("/skydns/test/skydns/region2/cname4", r#"{"host":"cname5.region2.skydns.test"}"#),
        ("/skydns/test/skydns/region2/cname5", r#"{"host":"cname6.region2.skydns.test"}"#),
        ("/skydns/test/skydns/region2/cname6", r#"{"host":"endpoint.region2.skydns.test"}"#),
        ("/skydns/test/skydns/region2/endpoint", r#"{"host":"10.240.0.1"}"#),
        ("/skydns/test/skydns/start", r#"{"host":"cname1.region2.skydns.test"}"#),
        ("/skydns/test/skydns/region3", r#"{"text":"SOME-RECORD-TEXT"}"#),
        ("/skydns/test/skydns/mx3/a", r#"{"host":"a.ipaddr.skydns.test","priority":20,"mail":true}"#),
        ("/skydns/test/skydns/mx3/b", r#"{"host":"a.ipaddr.skydns.test","priority":30,"mail":true}"#),
        ("/skydns/test/skydns/ipaddr/a", r#"{"host":"172.16.1.1"}"#),
        ("/skydns/test/skydns/large600", &large),
        ("/skydns/test/zonea/x", r#"{"host":"10.0.0.2"}"#),
        ("/skydns/test/zonea/y", r#"{"host":"10.0.0.3"}"#),
        ("/skydns/test/zonec/x", r#"{"host":"10.0.0.2"}"#),
        ("/skydns/test/zonec/dns/apex/a1", r#"{"host":"10.0.0.4"}"#),
        ("/skydns/test/zonec/dns/apex/a2", r#"{"host":"10.0.0.5"}"#),
    ]);
    let zones = zones(&[
        ("skydns.test", "/skydns/test/skydns"),
        ("extra.test", "/skydns/test/extra"),
        ("zonea.test", "/skydns/test/zonea"),
        ("zonec.test", "/skydns/test/zonec"),
    ]);
    check_all(
        &catalog,
        &zones,
        "
        a.SERVer1.dEv.region1.skydns.tEst SRV → 10 100 8080 dev.server1.
        b.server6.prod.region1.skydns.test AAAA → ::1
        server1.prod.region1.skydns.test A     → 10.0.0.1, 10.0.0.2
        priority.skydns.test SRV               → 333 100 8080 priority.server1.
        sub.region1.skydns.test SRV            → 10 33 0 sub.server1., 10 33 80 sub.server2., 10 33 8080 c.sub.region1.skydns.test.
        prod.*.skydns.test SRV                 → 10 25 0 unresolvable.skydns.test., 10 25 8080 a.server1.prod.region1.skydns.test., 10 25 8080 b.server1.prod.region1.skydns.test., 10 25 8080 b.server6.prod.region1.skydns.test.
        a.server1.dev.region1.skydns.test HINFO → dev.server1. … dev.server1.
        a.server1.nonexistent.region1.skydns.test HINFO → nxdomain
        a.skydns.test NS                       → nxdomain
        extra.test SOA                         → ns.dns.extra.test. hostmaster.extra.test. 0 28800 7200 604800 5
        extra.test A                           → nodata
        zonea.test A                           → 10.0.0.2, 10.0.0.3
        zonec.test A                           → 10.0.0.4, 10.0.0.5
        region2.skydns.test CNAME              → mainendpoint.region2.skydns.test.
        region2.skydns.test A                  → 10.240.0.1
        region3.skydns.test CNAME              → nodata
        mx3.skydns.test MX                     → 20 a.ipaddr.skydns.test., 30 a.ipaddr.skydns.test.
        start.skydns.test SRV                  → 10 100 0 cname1.region2.skydns.test.
    ",
    );
    let all = answered(ask(&catalog, &zones, "*.region1.skydns.test SRV", &context()));
    let twelfths = all.answers.iter().filter(|record| record.data.to_string().starts_with("10 12 "));
    assert_eq!((all.answers.len(), twelfths.count(), all.additional.len()), (8, 8, 4));
    let chain = answered(ask(&catalog, &zones, "start.skydns.test SRV", &context()));
    assert_eq!(chain.additional.len(), 7, "six names and the address that they lead to");
    let mail = answered(ask(&catalog, &zones, "mx3.skydns.test MX", &context()));
    assert_eq!(mail.additional.len(), 1);
    let text = answered(ask(&catalog, &zones, "large600.skydns.test TXT", &context()));
    let RData::TXT(strings) = &text.answers[0].data else { panic!("{text:?}") };
    assert_eq!(strings.txt_data.iter().map(|string| string.len()).collect::<Vec<_>>(), [255, 255, 90]);
}
