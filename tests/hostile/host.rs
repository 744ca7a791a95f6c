//! Nobody attacks: what happens to a host. It loses its route, its disk, its descriptors, its engine's events.
//!
//! Each test runs itself once more in namespaces of its own, so that routes and disks are there to be taken away.

use std::io::Write;
use std::process::Command;
use std::time::{Duration, Instant};

use hickory_server::proto::rr::{RData, RecordType};
use serde_json::json;

use crate::engine::{container, id};
use crate::program::{Agent, Options, wharf};
use crate::town::{Charter, Town, alone};

/// Says to the run inside that it is inside.
const INSIDE: &str = "WHARF_TEST_HOST";
/// Two uplinks, the default route by the first, and a small disk for all that the agent and the engine write.
const PREPARE: &str = "ip link set lo up
    for uplink in 10.88.0 10.99.0; do
        name=up-${uplink#10.}
        ip link add ${name%.0} type veth peer name ${name%.0}-peer
        ip addr add $uplink.2/24 dev ${name%.0}
        ip link set ${name%.0} up
        ip link set ${name%.0}-peer up
    done
    ip route add default via 10.88.0.1 dev up-88
    mount -t tmpfs -o size=16m tmpfs $TMPDIR
    exec \"$@\"";

/// Whether this is the run inside; the other one waits for it.
fn inside(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let _alone = alone();
    let disk = tempfile::tempdir().unwrap();
    let ran = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "sh", "-ec", PREPARE, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture", &format!("host::{test}")])
        .env(INSIDE, "1")
        .env("TMPDIR", disk.path())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
    false
}

fn ip(line: &str) {
    assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success(), "ip {line}");
}

fn found() -> Town {
    Town::found_with(&Charter { advertise: Some("auto"), ..Charter::default() })
}

/// The addresses that the first neighbour is answered with.
fn addresses(town: &Town) -> Vec<String> {
    let reply = town.ask("neighbour-0.services.internal.", RecordType::A);
    let answers = reply.map(|reply| reply.answers).unwrap_or_default();
    let address = |data: &RData| if let RData::A(address) = data { Some(address.to_string()) } else { None };
    answers.iter().filter_map(|record| address(&record.data)).collect()
}

#[test]
fn a_route_that_goes_takes_no_record() {
    if !inside("a_route_that_goes_takes_no_record") {
        return;
    }
    let town = found();
    assert_eq!(addresses(&town), ["10.88.0.2"]);
    ip("route del default");
    // Several looks at the addresses long.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(6) {
        town.until("it is answered as before", || addresses(&town) == ["10.88.0.2"]);
        assert!(!town.agent.log().contains("no address to advertise"), "{}", town.said());
    }
    town.neighbours_are_offered();
    ip("route add default via 10.99.0.1 dev up-99");
    town.until("another route is followed", || addresses(&town) == ["10.99.0.2"]);
    town.neighbours_are_offered();
    ip("route del default");
    ip("addr del 10.99.0.2/24 dev up-99");
    town.until("an address that is gone is gone", || town.answers("neighbour-0") == 0);
    ip("route add default via 10.88.0.1 dev up-88");
    town.until("it is back", || addresses(&town) == ["10.88.0.2"]);
    town.neighbours_are_offered();
    town.beats_never_missed();
}

#[test]
fn an_agent_restarted_without_a_route_has_the_address_that_it_had() {
    if !inside("an_agent_restarted_without_a_route_has_the_address_that_it_had") {
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let settings = "[[service]]\nname = \"app\"\nport = 80\ncheck = \"none\"\n";
    let options =
        Options { settings, advertise: Some("auto"), state: Some(state.path().to_owned()), ..Options::default() };
    let agent = Agent::start_with(&options);
    let written = || std::fs::read_to_string(state.path().join("state.json")).unwrap_or_default();
    agent.prints("services app -o hostport", "its address", |said| said.contains("10.88.0.2"));
    agent.until("the address is remembered", |_| written().contains("10.88.0.2"));
    drop(agent);
    ip("route del default");
    let agent = Agent::start_with(&options);
    agent.prints("services app -o hostport", "the address of before", |said| said.contains("10.88.0.2"));
    let warns = |agent: &Agent| String::from_utf8_lossy(&agent.wharf("explain").stdout).contains("before the restart");
    agent.until("explain says whence it is known", warns);
    let local = agent.wharf("explain -o json").stdout;
    assert!(String::from_utf8_lossy(&local).contains("addresses_remembered"));
    ip("route add default via 10.88.0.1 dev up-88");
    agent.until("a route tells it", |agent| !warns(agent));
}

#[test]
fn a_full_disk_stops_nobody_and_lets_no_second_agent_in() {
    if !inside("a_full_disk_stops_nobody_and_lets_no_second_agent_in") {
        return;
    }
    let town = found();
    let filler = std::env::temp_dir().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[7; 4096]).is_ok() {}
    while file.write_all(&[7]).is_ok() {}
    town.neighbours_are_offered();
    let drain = |line: &str| town.agent.wharf(line);
    let said = String::from_utf8(drain("drain").stderr).unwrap();
    assert!(said.contains("not remembered"), "{said}\n{}", town.said());
    let again = String::from_utf8(drain("drain").stderr).unwrap();
    assert!(again.contains("not remembered"), "asked again it says the same: {again}");
    town.until("it is drained all the same", || town.answers("neighbour-0") == 0);
    assert!(!drain("undrain").status.success());
    town.until("and offers again", || town.answers("neighbour-0") == 1);
    let state = town.agent.socket().with_file_name("state");
    let second = wharf()
        .args(["agent", "--node", "core-01", "--advertise", "127.0.0.1", "--http", "127.0.0.1:0"])
        .args(["--dns", "127.0.0.1:0", "--docker", "unix:///nowhere/docker.sock", "--state-dir"])
        .arg(state)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(second.status.code() == Some(2) && said.contains("in use"), "{said}");
    town.neighbours_are_offered();
    drop(file);
    std::fs::remove_file(filler).unwrap();
    assert!(drain("undrain").status.success(), "what could not be written is written now");
    town.neighbours_are_offered();
    town.beats_never_missed();
}

#[test]
fn without_a_descriptor_everything_stands_as_it_was() {
    if !inside("without_a_descriptor_everything_stands_as_it_was") {
        return;
    }
    let town = found();
    let limit = |soft: &str| {
        let pid = town.agent.pid().to_string();
        assert!(
            Command::new("prlimit").args(["--pid", &pid, &format!("--nofile={soft}:")]).status().unwrap().success()
        );
    };
    limit("3");
    town.until("the addresses cannot be read", || town.agent.log().contains("addresses cannot be read"));
    assert_eq!(addresses(&town), ["10.88.0.2"], "{}", town.said());
    limit("1024");
    town.until("they can be read again", || town.agent.log().contains("addresses can be read again"));
    assert_eq!(addresses(&town), ["10.88.0.2"], "{}", town.said());
    town.neighbours_are_offered();
    assert_eq!(town.get("/healthz").0, 200, "its sockets are still listened on");
    town.beats_never_missed();
}

#[test]
fn an_engine_that_drops_events_is_caught_up_with() {
    if !inside("an_engine_that_drops_events_is_caught_up_with") {
        return;
    }
    let town = found();
    let mut quiet = container(1, "memcached", 11211, town.memcached());
    quiet["Config"]["Labels"] = json!({"SERVICE_NAME": "quiet"});
    town.run(quiet);
    town.until("it is offered", || town.answers("quiet") == 1);
    let port = |town: &Town| {
        let reply = town.ask("quiet.services.internal.", RecordType::SRV)?;
        reply.answers.iter().find_map(|one| if let RData::SRV(srv) = &one.data { Some(srv.port) } else { None })
    };
    // Restarted on another port, and not a word of it.
    let other = town.memcached();
    town.engine.change(&id(1), |inspect| {
        inspect["NetworkSettings"]["Ports"]["11211/tcp"] =
            json!([{"HostIp": "0.0.0.0", "HostPort": other.to_string()}]);
        inspect["State"]["StartedAt"] = json!("2026-01-01T00:07:00Z");
    });
    town.until("it is answered at its new port", || port(&town) == Some(other));
    town.neighbours_are_offered();
    town.beats_never_missed();
}
