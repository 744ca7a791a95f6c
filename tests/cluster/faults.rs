//! What DESIGN calls "when things break", on the lab: hosts cut off, agents killed, etcd and Docker away. Each test
//! says what is still answered meanwhile, what is not, and what is there again afterwards.

use std::time::{Duration, Instant};

use crate::lab::{self, Lab, eventually, memcached, throughout, within};
use crate::thread::{everyone_finds, nobody_finds};

const MEMCACHED: &str = "memcached.services.internal";
/// The agents' leases in the lab.
const TTL: Duration = Duration::from_secs(5);

fn key_of(lab: &Lab, n: usize) -> String {
    format!("/services/memcached/{}-core-0{n}-11211", lab.host(n).name())
}

/// Every host answers with these targets right now.
fn everyone_has(lab: &Lab, targets: &[String]) -> Result<(), String> {
    lab.hosts()
        .iter()
        .try_for_each(|host| host.dig(MEMCACHED, "SRV").is(targets).map_err(|seen| format!("{}: {seen}", host.name())))
}

#[test]
fn a_host_that_is_cut_off_is_forgotten_after_its_lease_and_back_when_healed() {
    let lab = lab::alone();
    lab.lead_etcd_from(2); // a change of leader would add a lease's time
    let _agents = lab.wharves();
    let _one = lab.host(1).run(memcached().name("core-01").publish(11211));
    let _two = lab.host(2).run(memcached().name("core-02").publish(11211));
    let (at_one, at_two) = (lab.host(1).at(11211), lab.host(2).at(11211));
    everyone_finds(&lab, MEMCACHED, &[at_one.clone(), at_two.clone()]);

    let rest = lab::etcd::Etcd::at(vec![lab.host(2).etcd_endpoint()]);
    let cut = Instant::now();
    lab.host(1).cut();
    within(TTL + Duration::from_secs(1), "its record is gone from the store", || {
        rest.try_ctl(&["get", &key_of(&lab, 1)])
            .map(|found| if found.is_empty() { Ok(()) } else { Err(found) })
            .and_then(|gone| gone)
    });
    println!("gone from etcd {:?} after the cut", cut.elapsed());
    for n in [2, 3] {
        eventually("the others find only what is left", || {
            lab.host(n).dig(MEMCACHED, "SRV").is(std::slice::from_ref(&at_two))
        });
    }
    // The host that was cut off goes on with what it knew: its own service, and the others' as last seen.
    throughout(Duration::from_secs(2), "the cut-off host answers its own service", || {
        let answer = lab.host(1).dig(MEMCACHED, "SRV");
        if answer.targets().contains(&at_one) { Ok(()) } else { Err(format!("{answer:?}")) }
    });
    lab.host(1).heal();
    everyone_finds(&lab, MEMCACHED, &[at_one, at_two]);
}

#[test]
fn an_agent_that_is_killed_and_started_again_never_blinks() {
    let lab = lab::alone();
    let mut agents = lab.wharves();
    let _one = lab.host(1).run(memcached().name("core-01").publish(11211));
    everyone_finds(&lab, MEMCACHED, &[lab.host(1).at(11211)]);
    let watch = lab.etcd().watch(lab.ground().dir(), "/services/");
    agents[0].process().kill();
    agents[0].process().start_again();
    agents[0].wait_ready();
    throughout(TTL + Duration::from_secs(2), "no record is deleted, and every host answers", || {
        watch.no_delete()?;
        everyone_has(&lab, &[lab.host(1).at(11211)])
    });
    assert_eq!(watch.events(), [], "the new agent took over its own records as they were");
}

#[test]
fn an_agent_that_stays_dead_leaves_nothing_after_its_lease() {
    let lab = lab::alone();
    let mut agents = lab.wharves();
    let _one = lab.host(1).run(memcached().name("core-01").publish(11211));
    everyone_finds(&lab, MEMCACHED, &[lab.host(1).at(11211)]);
    agents[0].process().kill();
    within(TTL + Duration::from_secs(1), "its record is gone", || lab.etcd().keys("/services/").is_empty());
    for n in [2, 3] {
        eventually("and no longer answered", || lab.host(n).dig(MEMCACHED, "SRV").is_nothing());
    }
}

#[test]
fn an_agent_that_is_asked_to_stop_keeps_or_withdraws_as_told() {
    let lab = lab::alone();
    let _one = lab.host(1).run(memcached().name("core-01").publish(11211));
    let records = || lab.etcd().keys("/services/");
    let mut keeps = lab.host(1).wharf().start();
    eventually("it is published", || records() == [key_of(&lab, 1)]);
    assert!(keeps.process().terminate().success());
    assert_eq!(records(), [key_of(&lab, 1)], "kept for the rest of the lease");
    let mut withdraws = lab.host(1).wharf().flag("--on-stop", "withdraw").start();
    eventually("it is published", || records() == [key_of(&lab, 1)]);
    assert!(withdraws.process().terminate().success());
    assert_eq!(records(), Vec::<String>::new(), "withdrawn at once");
}

#[test]
fn dns_goes_on_while_all_of_etcd_is_hung_and_then_dead() {
    let lab = lab::alone();
    let agents = lab.wharves();
    let _one = lab.host(1).run(memcached().name("core-01").publish(11211));
    let targets = [lab.host(1).at(11211)];
    everyone_finds(&lab, MEMCACHED, &targets);
    let all_answer = || everyone_has(&lab, &targets);

    for host in lab.hosts() {
        host.etcd().hang();
    }
    // Longer than the lease: etcd revokes it the moment it thaws.
    throughout(TTL + Duration::from_secs(3), "every host answers while etcd hangs", all_answer);
    for agent in &agents {
        assert_eq!(agent.json("/v1/services").unwrap()["stale"], true, "and says that the answer is old");
    }
    for host in lab.hosts() {
        host.etcd().thaw();
    }
    throughout(Duration::from_secs(5), "and when it thaws", all_answer);
    eventually("the record is there again", || {
        lab.etcd()
            .try_ctl(&["get", "-w=fields", &key_of(&lab, 1)])
            .map(|text| text.contains("\"Key\""))
            .unwrap_or(false)
    });

    for host in lab.hosts() {
        host.etcd().kill();
    }
    throughout(Duration::from_secs(3), "every host answers while etcd is dead", all_answer);
    for host in lab.hosts() {
        host.etcd().start_again();
    }
    throughout(Duration::from_secs(5), "and when it is back", all_answer);
    for agent in &agents {
        eventually("answers are fresh again", || agent.json("/v1/services").is_ok_and(|told| told["stale"] == false));
    }
}

#[test]
fn a_dead_etcd_member_is_hardly_noticed() {
    let lab = lab::alone();
    let _agents = lab.wharves();
    lab.host(1).etcd().kill();
    let _one = lab.host(1).run(memcached().name("core-01").publish(11211));
    everyone_finds(&lab, MEMCACHED, &[lab.host(1).at(11211)]);
    lab.host(1).etcd().start_again();
    throughout(Duration::from_secs(2), "nor its return", || {
        lab.host(3).dig(MEMCACHED, "SRV").is(&[lab.host(1).at(11211)])
    });
}

#[test]
fn an_engine_that_hangs_or_restarts_costs_no_answer_that_still_serves() {
    let lab = lab::alone();
    let _agents = lab.wharves();
    let _one = lab.host(1).run(memcached().name("core-01").option("--restart=always").publish(11211));
    let targets = [lab.host(1).at(11211)];
    everyone_finds(&lab, MEMCACHED, &targets);
    lab.host(1).engine().hang();
    throughout(Duration::from_secs(4), "its containers serve while the engine hangs", || {
        lab.host(2).dig(MEMCACHED, "SRV").is(&targets)
    });
    lab.host(1).engine().thaw();
    lab.host(1).restart_engine(); // its containers are stopped and started again
    everyone_finds(&lab, MEMCACHED, &targets);
    assert_eq!(lab.etcd().keys("/services/"), [key_of(&lab, 1)]);
    let _two = lab.host(1).run(memcached().name("core-02").env("SERVICE_NAME", "later").publish_as(11311, 11211));
    everyone_finds(&lab, "later.services.internal", &[lab.host(1).at(11311)]);
}

#[test]
fn a_drained_host_offers_nothing_until_undrained_even_after_a_restart() {
    let lab = lab::alone();
    let mut agents = lab.wharves();
    let _one = lab.host(1).run(memcached().name("core-01").publish(11211));
    let _two = lab.host(2).run(memcached().name("core-02").publish(11211));
    let (at_one, at_two) = (lab.host(1).at(11211), lab.host(2).at(11211));
    everyone_finds(&lab, MEMCACHED, &[at_one.clone(), at_two.clone()]);
    agents[0].command(&["drain"]).unwrap();
    everyone_finds(&lab, MEMCACHED, std::slice::from_ref(&at_two));
    assert!(agents[0].process().terminate().success());
    agents[0].process().start_again();
    agents[0].wait_ready();
    throughout(Duration::from_secs(3), "it stays drained", || {
        lab.host(2).dig(MEMCACHED, "SRV").is(std::slice::from_ref(&at_two))
    });
    agents[0].command(&["undrain"]).unwrap();
    everyone_finds(&lab, MEMCACHED, &[at_one, at_two]);
}

#[test]
fn a_record_that_somebody_deletes_or_spoils_is_back_within_a_second() {
    let lab = lab::alone();
    let _agents = lab.wharves();
    let _one = lab.host(1).run(memcached().name("core-01").publish(11211));
    everyone_finds(&lab, MEMCACHED, &[lab.host(1).at(11211)]);
    let etcd = lab.etcd();
    let key = key_of(&lab, 1);
    let good = etcd.ctl(&["get", "--print-value-only", &key]);
    etcd.delete(&key);
    within(Duration::from_secs(1), "it is back", || etcd.ctl(&["get", "--print-value-only", &key]) == good);
    etcd.put(&key, "spoiled");
    within(Duration::from_secs(1), "it is whole again", || etcd.ctl(&["get", "--print-value-only", &key]) == good);
}

#[test]
fn a_bad_record_of_somebody_else_hurts_nobody() {
    let lab = lab::alone();
    let _agents = lab.wharves();
    let _one = lab.host(1).run(memcached().name("core-01").publish(11211));
    let targets = [lab.host(1).at(11211)];
    everyone_finds(&lab, MEMCACHED, &targets);
    for (n, bad) in ["{", "[]", r#"{"host":"10.0.0.1","port":70000}"#, r#"{"host":7}"#].iter().enumerate() {
        lab.etcd().put(&format!("/services/memcached/bad-{n}"), bad);
    }
    throughout(Duration::from_secs(1), "its neighbours are answered", || {
        lab.host(2).dig(MEMCACHED, "SRV").is(&targets)
    });
    nobody_finds(&lab, "bad-0.memcached.services.internal");
}
