//! Two builds in one cluster, host by host up and back down: no record goes, no host misses an answer.
//!
//! `WHARF_OLDER` names the older build's program; for the drill `tests/setup/older.sh` makes one from the history.
//! Without it one build plays both parts, on state files and records that another has written.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::lab::{self, Lab, eventually, memcached, wharf::Wharf};
use crate::thread::everyone_finds;

const MEMCACHED: &str = "memcached.services.internal";

fn older() -> Option<PathBuf> {
    std::env::var_os("WHARF_OLDER").filter(|program| !program.is_empty()).map(PathBuf::from)
}

/// An agent to be: of the build under test, or of another. A busy machine takes its time to start one, so that the
/// lease is longer than usual.
fn agent<'lab>(lab: &'lab Lab, n: usize, program: Option<&PathBuf>) -> lab::wharf::WharfSpec<'lab> {
    let spec = lab.host(n).wharf().lease_ttl(Duration::from_secs(20));
    match program {
        Some(program) => spec.program(program.clone()),
        None => spec,
    }
}

/// Ends the agent of a host and starts the other build in its place, on the same state.
fn replace<'lab>(lab: &'lab Lab, agents: &mut Vec<Wharf<'lab>>, n: usize, program: Option<&PathBuf>) {
    let mut old = agents.remove(n - 1);
    assert!(old.process().terminate().success());
    if program.is_none() {
        touch(lab, n);
    }
    agents.insert(n - 1, agent(lab, n, program).start());
}

/// Runs `change` on one host while the others are asked, and answer, all the while.
fn while_others_answer(lab: &Lab, n: usize, targets: &[String], change: impl FnOnce()) {
    let (done, begin) = (AtomicBool::new(false), Instant::now());
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            // The limit is for a change that fails.
            while !done.load(Ordering::SeqCst) && begin.elapsed() < Duration::from_secs(60) {
                for other in (1..=3).filter(|other| *other != n) {
                    lab.host(other).dig(MEMCACHED, "SRV").is(targets).unwrap();
                }
            }
        });
        change();
        done.store(true, Ordering::SeqCst);
        asking.join().unwrap();
    });
}

/// Every record with the lease that it hangs on.
fn leases(lab: &Lab) -> BTreeMap<String, i64> {
    let text = lab.etcd().ctl(&["get", "--prefix", "/services/", "-w", "json"]);
    let reply: serde_json::Value = serde_json::from_str(&text).unwrap();
    let one = |kv: &serde_json::Value| Some((kv["key"].as_str()?.to_owned(), kv["lease"].as_i64()?));
    reply["kvs"].as_array().unwrap().iter().filter_map(one).collect()
}

/// Leaves the host's state file and record as a build would that knows more fields.
fn touch(lab: &Lab, n: usize) {
    let path = lab.host(n).dir().join("wharf/state/state.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut state: serde_json::Value = serde_json::from_str(&text).unwrap();
    state["from-another-build"] = serde_json::json!({ "kept": [1] });
    std::fs::write(&path, state.to_string()).unwrap();
    for (key, value) in lab.etcd().read("/services/memcached/") {
        if key.contains(&format!("/{}-", lab.host(n).name())) {
            let mut record: serde_json::Value = serde_json::from_str(&value).unwrap();
            record["from-another-build"] = serde_json::json!(true);
            lab.etcd().ctl(&["put", "--ignore-lease", &key, &record.to_string()]);
        }
    }
}

#[test]
fn two_builds_in_one_cluster_go_up_and_back_down_without_a_blink() {
    let older = older();
    let lab = lab::alone();
    let mut agents: Vec<Wharf<'_>> = (1..=3).map(|n| agent(&lab, n, older.as_ref()).start_only()).collect();
    agents.iter().for_each(Wharf::wait_ready);
    let _caches: Vec<_> =
        (1..=3).map(|n| lab.host(n).run(memcached().name(&format!("core-0{n}")).publish(11211))).collect();
    let targets: Vec<String> = (1..=3).map(|n| lab.host(n).at(11211)).collect();
    everyone_finds(&lab, MEMCACHED, &targets);
    let before = leases(&lab);
    let watch = lab.etcd().watch(lab.ground().dir(), "/services/");

    for program in [None, older.as_ref()] {
        for n in 1..=3 {
            while_others_answer(&lab, n, &targets, || replace(&lab, &mut agents, n, program));
            eventually("the host itself answers again", || lab.host(n).dig(MEMCACHED, "SRV").is(&targets));
            watch.no_delete().unwrap();
        }
    }
    assert_eq!(leases(&lab), before, "each agent took over the lease of the one before it");
    assert_eq!(before.len(), 3);
    if older.is_none() {
        let state = std::fs::read_to_string(lab.host(1).dir().join("wharf/state/state.json")).unwrap();
        assert!(state.contains("from-another-build"), "{state}");
        let records = lab.etcd().read("/services/memcached/");
        assert!(records.iter().all(|(_, value)| value.contains("from-another-build")), "{records:?}");
    }
}
