//! All of etcd hung for a minute (a few seconds outside of the drill): nothing else in the agent waits for it, and when
//! it thaws everything that happened meanwhile is told.

use std::time::{Duration, Instant};

use crate::lab::{self, Lab, eventually, memcached, throughout, within};
use crate::thread::{everyone_finds, nobody_finds};

/// How long etcd hangs: longer than the leases of the lab, which it ends the moment it thaws.
fn hang() -> Duration {
    Duration::from_secs(if std::env::var_os("WHARF_DRILL").is_some() { 60 } else { 8 })
}

fn dns(name: &str) -> String {
    format!("{name}.services.internal")
}

/// A memcached of a service of its own.
fn cache(name: &str, port: u16) -> lab::container::ContainerSpec {
    memcached().name(name).env("SERVICE_NAME", name).publish_as(port, 11211)
}

/// Every host answers for the service that nothing happens to.
fn steady(lab: &Lab) -> Result<(), String> {
    let targets = [lab.host(3).at(11213)];
    lab.hosts().iter().try_for_each(|host| {
        host.dig(&dns("steady"), "SRV").is(&targets).map_err(|seen| format!("{}: {seen}", host.name()))
    })
}

#[test]
fn an_etcd_that_hangs_blocks_nothing_else() {
    let lab = lab::alone();
    let mut agents = lab.wharves();
    let dies = lab.host(1).run(cache("dies", 11211));
    let _drained = lab.host(2).run(cache("drained", 11212));
    let _steady = lab.host(3).run(cache("steady", 11213));
    for (name, host, port) in [("dies", 1, 11211), ("drained", 2, 11212), ("steady", 3, 11213)] {
        everyone_finds(&lab, &dns(name), &[lab.host(host).at(port)]);
    }

    lab.hosts().iter().for_each(|host| host.etcd().hang());
    let hung = Instant::now();
    // What happens on a host is told by that host, as soon as ever.
    let _starts = lab.host(1).run(cache("starts", 11214));
    eventually("what starts is found on its host", || {
        lab.host(1).dig(&dns("starts"), "SRV").is(&[lab.host(1).at(11214)])
    });
    dies.kill();
    eventually("what dies is not", || lab.host(1).dig(&dns("dies"), "SRV").is_nothing());
    agents[1].command(&["drain"]).unwrap();
    eventually("nor what is drained", || lab.host(2).dig(&dns("drained"), "SRV").is_nothing());
    for path in ["/healthz", "/metrics", "/v1/local", "/v1/services"] {
        let answered = agents[0].get(path).unwrap();
        assert_eq!(answered.0, 200, "{path}: {}", answered.1);
    }
    // An agent that starts in the middle of it goes on from what it remembers.
    agents[2].process().kill();
    agents[2].process().start_again();
    within(Duration::from_secs(10), "a new agent answers from what the old one kept", || steady(&lab));
    throughout(hang().saturating_sub(hung.elapsed()), "everyone goes on answering", || steady(&lab));

    lab.hosts().iter().for_each(|host| host.etcd().thaw());
    let thawed = Instant::now();
    let told = || {
        lab.hosts().iter().try_for_each(|host| {
            steady(&lab)?;
            host.dig(&dns("starts"), "SRV").is(&[lab.host(1).at(11214)])
        })
    };
    eventually("everyone finds what has started", told);
    println!("everything found {:?} after the thaw", thawed.elapsed());
    throughout(Duration::from_secs(5), "and nothing blinks from now on", || steady(&lab));
    for name in ["dies", "drained"] {
        nobody_finds(&lab, &dns(name));
    }
}

/// What a leader of etcd does that had hung for so long that by its own reckoning every lease is over, though the
/// others have renewed them all since. The other hosts' agents stand still, so that nothing is published again
/// meanwhile.
#[test]
fn leases_that_are_ended_under_living_agents_take_no_name_with_them() {
    let lab = lab::alone();
    let mut agents = lab.wharves();
    let _caches: Vec<_> = lab.hosts().iter().map(|host| host.run(cache("cache", 11211))).collect();
    let targets: Vec<String> = lab.hosts().iter().map(|host| host.at(11211)).collect();
    everyone_finds(&lab, &dns("cache"), &targets);
    let own = || {
        let found = lab.host(1).dig(&dns("cache"), "SRV").targets();
        if found.contains(&targets[0]) { Ok(()) } else { Err(format!("{found:?}")) }
    };

    let leases: Vec<String> = [2, 3, 1].map(|n| lease_of(&lab, n)).into();
    agents[1..].iter_mut().for_each(|agent| agent.process().hang());
    std::thread::scope(|scope| {
        let own = scope.spawn(|| throughout(Duration::from_secs(3), "a host answers its own all along", own));
        for lease in &leases {
            lab.etcd().ctl(&["lease", "revoke", lease]);
        }
        eventually("and the others' again", || lab.host(1).dig(&dns("cache"), "SRV").is(&targets));
        throughout(Duration::from_secs(1), "for as long as they may need", || {
            lab.host(1).dig(&dns("cache"), "SRV").is(&targets)
        });
        own.join().unwrap();
    });
    agents[1..].iter_mut().for_each(|agent| agent.process().thaw());
    everyone_finds(&lab, &dns("cache"), &targets);
    eventually("and they are published again", || lab.etcd().keys("/services/cache").len() == 3);
}

/// The lease that a host's record hangs on, as etcdctl writes it.
fn lease_of(lab: &Lab, n: usize) -> String {
    let keys = lab.etcd().keys("/services/cache");
    let name = lab.host(n).name();
    let key = keys.iter().find(|key| key.contains(name)).unwrap_or_else(|| panic!("no record of {name}: {keys:?}"));
    let reply: serde_json::Value = serde_json::from_str(&lab.etcd().ctl(&["get", key, "-w", "json"])).unwrap();
    format!("{:x}", reply["kvs"][0]["lease"].as_i64().expect("a record hangs on a lease"))
}
