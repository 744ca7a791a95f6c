//! The worst that was found, by people and by the search: each costs no more than any other question may.

use wharf::catalog::dns::ResponseCode;

use super::search::{asked_of, check_plain};
use super::world::{Line, World};

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
    let world = world(
        r#"
    5000 × /m1/a/{n}/a {"host":"i{n+1}.web.services.internal"}
    4000 × /services/dns/apex/web/i{n} {"host":"{253}{n}.services.internal","text":"t{n}","ttl":{n%7},"owner":"o"} leases
        "#,
    );
    for zone in ["many.test", "services.internal"] {
        for qtype in ["SRV", "A", "TXT", "MX", "HTTPS"] {
            let answer = asked_of(&world, &format!("apex.dns.{zone} {qtype}"));
            assert_eq!(answer.rcode, ResponseCode::NoError, "{zone} {qtype}");
        }
    }
}

#[test]
fn held_records_and_several_prefixes_leave_steps_for_what_they_tell() {
    let world = world(
        r#"
    3000 × /services/b/{63}{n} {"host":"10.{n}"} held
    3000 × /m1/b/i{n} {"host":"10.{n}","port":{n}}
    3000 × /m2/b/{63}{n} {"host":"i{n+1}.b.many.test","port":{n}}
        "#,
    );
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
