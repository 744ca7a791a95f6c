//! The worst that was found, by people and by the search: each costs no more than any other question may.

use wharf::catalog::dns::ResponseCode;

use super::asked::Asked;
use super::search::{asked_of, check_plain};
use super::world::{Line, World};

/// What took longest once: questions, and the lines of the world that they were asked of.
const KNOWN: [(&[&str], &str); 10] = [
    // Groups were compared by their texts, and each record's again.
    (
        &["*.10.in-addr.arpa A", "primary.0.0.10.in-addr.arpa A", "green.primary.0.0.10.in-addr.arpa SRV"],
        r#"
    4000 × /services/web/_tcp/aA/web/{n}/a {"host":"10.{n}","text":"{500}{n}"}
    4000 × /ptr/0/0/primary/{n}.b {"host":"_web._tcp.services.internal","group":"{500}{n}","targetstrip":{n%7},"ttl":4294967295,"tags":["Blue {n}","{500}{n}","green"]} leases
        "#,
    ),
    // Names that are stripped to the same are told once, with the least time of all.
    (
        &["green.primary.0.0.10.in-addr.arpa SRV"],
        r#"
    1000 × /ptr/0/0/primary/{n}.b {"host":"10.{n}","group":"{500}{n}","targetstrip":{n%7},"ttl":4294967295,"tags":["Blue {n}","{500}{n}","green"]} leases
        "#,
    ),
    // Targets were followed with a few steps more than there were.
    (
        &["many.test SRV", "many.test A"],
        r#"
    1000 × /ptr/0/0/primary/{n}.b {"host":"10.{n}","group":"{500}{n}","targetstrip":{n%7},"ttl":4294967295,"tags":["Blue {n}","{500}{n}","green"]} leases
    1000 × /services/a/a/web/{n}/{63}/{63} {"host":"10.{n}","group":"{500}{n}","targetstrip":{n%7},"ttl":4294967295,"tags":["Blue {n}","{500}{n}","green"]} leases
    40 × /m1/ns/{63}{n} {"host":"web.services.internal","host6":"2001:db8::1","node":"Core {n}","group":"g{n}"} lease
        "#,
    ),
    (&["apex.dns.services.internal SRV", "apex.dns.many.test SRV"], LONG_HOSTS),
    (&["b.many.test SRV", "b.services.internal SRV", "b.many.test A"], SEVERAL_PREFIXES),
    // Two families of a whole zone: what each record has is looked at, and where it leads.
    (&["many.test A", "many.test AAAA"], SEVERAL_TAGGED),
    // Each name that is led to took a step or two more, when there were none left.
    (
        &[
            "services.internal A seed 7932430762592280412",
            "services.internal AAAA seed 1289222906553006805",
            "services.internal A",
            "services.internal AAAA",
        ],
        r#"
    1000 × /services/{n}.b/dns/a {"host":"10.{n}","group":"{500}{n}","targetstrip":{n%7},"ttl":4294967295,"tags":["Blue {n}","{500}{n}","green"]} leases
    5000 × /services/web/web/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/i{n} {"host":"web.services.internal","role":"primary"} held
        "#,
    ),
    // Names of forty labels, and beside them thousands that are stripped.
    (
        &["*.10.in-addr.arpa SRV", "*.10.in-addr.arpa A"],
        r#"
    1000 × /ptr/0/0/primary/{n}.b {"host":"10.{n}"} leases
    1000 × /services/primary/A{n}/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a/a {"host":"10.{n}","group":"{500}{n}","targetstrip":{n%7},"ttl":4294967295,"tags":["Blue {n}","{500}{n}","green"]} leases
        "#,
    ),
    (&["large.services.internal SRV", "core-1.large.services.internal SRV", "_large._tcp.services.internal A"], ""),
    (&["a.a.services.internal SRV"], r#"4000 × /services/a/a/{n}/{63}/{63} {"host":"10.{n}","port":{n}} held"#),
];
const LONG_HOSTS: &str = r#"
    5000 × /m1/a/{n}/a {"host":"i{n+1}.web.services.internal"}
    4000 × /services/dns/apex/web/i{n} {"host":"{253}{n}.services.internal","text":"t{n}","ttl":{n%7},"owner":"o"} leases
"#;
const SEVERAL_PREFIXES: &str = r#"
    3000 × /services/b/{63}{n} {"host":"10.{n}"} held
    3000 × /m1/b/i{n} {"host":"10.{n}","port":{n}}
    3000 × /m2/b/{63}{n} {"host":"i{n+1}.b.many.test","port":{n}}
"#;
const SEVERAL_TAGGED: &str = r#"
    3000 × /services/b/{63}{n} {"host":"10.{n}","tags":["Blue {n}","{500}{n}","green"]} held
    3000 × /m1/b/i{n} {"host":"10.{n}","port":{n}}
    3000 × /m2/b/{63}{n} {"host":"i{n+1}.b.many.test","port":{n}}
"#;
/// As many records as a host has to hold, in one service.
const HUGE: &str = r#"100000 × /services/web/i{n} {"host":"10.{n}","port":{n}}"#;

/// Where the search begins.
pub fn known() -> impl Iterator<Item = (World, Asked)> {
    KNOWN.iter().flat_map(|(questions, lines)| {
        let world = world(lines);
        questions.iter().map(move |question| (world.clone(), Asked::read(question)))
    })
}

#[test]
fn what_took_longest_once_is_answered() {
    let known = KNOWN.iter().flat_map(|(questions, lines)| questions.iter().map(|question| (*question, *lines)));
    let huge = ["web.services.internal A", "web.services.internal SRV", "i7.web.services.internal SRV"];
    for (question, lines) in known.chain(huge.map(|question| (question, HUGE))) {
        let answer = asked_of(&world(lines), question);
        assert_eq!(answer.rcode, ResponseCode::NoError, "{question}");
    }
}

fn world(lines: &str) -> World {
    let world = World::of(lines.lines().filter(|line| !line.trim().is_empty()).map(Line::read).collect());
    check_plain(&world);
    world
}

#[test]
fn the_form_of_rfc_2782_is_taken_apart_once() {
    let world = world("");
    for first in ["____a", "_", "_a", "a", "*", "primary"] {
        for middle in ["_tcp", "_udp", "_a", "primary", "any", "_tcp._udp"] {
            let name = [first, &vec![middle; 220 / (middle.len() + 1)].join("."), "services.internal"].join(".");
            for qtype in ["A", "SRV", "TXT", "CNAME", "NS", "ANY"] {
                let answer = asked_of(&world, &format!("{name} {qtype}"));
                assert!(answer.steps < 12_000, "{name} {qtype}: {} steps", answer.steps);
            }
        }
    }
    let answer = asked_of(&world, "_large._tcp.services.internal A");
    assert_eq!(answer.rcode, ResponseCode::NoError);
    assert!(answer.answers.len() > 900);
}

#[test]
fn thousands_of_long_hosts_on_leases_cost_no_more_than_others() {
    let world = world(LONG_HOSTS);
    for zone in ["many.test", "services.internal"] {
        for qtype in ["SRV", "A", "TXT", "MX", "HTTPS"] {
            let answer = asked_of(&world, &format!("apex.dns.{zone} {qtype}"));
            assert_eq!(answer.rcode, ResponseCode::NoError, "{zone} {qtype}");
        }
    }
}

#[test]
fn held_records_and_several_prefixes_leave_steps_for_what_they_tell() {
    let world = world(SEVERAL_PREFIXES);
    for zone in ["many.test", "services.internal"] {
        for qtype in ["SRV", "A"] {
            let answer = asked_of(&world, &format!("b.{zone} {qtype}"));
            assert!(answer.answers.len() > 100, "{zone} {qtype}: {} answers", answer.answers.len());
        }
    }
}

#[test]
fn a_name_of_sixty_labels_is_counted_for_each_reading_and_prefix() {
    let answer = asked_of(&world(""), &format!("x1.x1.{}*.{}many.test SRV", "large.".repeat(10), "web.".repeat(40)));
    assert!((600..12_000).contains(&answer.steps), "{} steps", answer.steps);
}
