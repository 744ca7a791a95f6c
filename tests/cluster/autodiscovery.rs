//! Seed 0 on three hosts: a memcached on each, by one unit and without a sidekick, keys under /services/memcached/,
//! health that means something, and a program with a client of ElastiCache that never knows the difference.
//!
//! Then random faults: on every host somebody asks for the list all the time, and nobody is told an empty one, a lower
//! version than before, or two lists under one version. `WHARF_DRILL=1` has a hundred of them; `SEED` plays one again.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use crate::lab::host::Host;
use crate::lab::image::Image;
use crate::lab::process::Process;
use crate::lab::wharf::Wharf;
use crate::lab::{self, Lab, eventually, throughout, within};
use crate::near::resolving;

const SERVICE: &str = "memcached.services.internal";
const REST: Duration = Duration::from_secs(90);
const SETTINGS: &str = "probe-interval = '300ms'\nzone = ['services.lan=/services']\n\
                        [[autodiscovery]]\nservice = 'memcached'\nlisten = '0.0.0.0:11311'\nleave-after = '60s'\n";

/// Asks an agent for the list all the time, each time in a connection of its own, and prints what differs.
const OBSERVER: &str = r#"
import socket, time
asked, last = 0, None
while True:
    try:
        with socket.create_connection(("127.0.0.1", 11311), 2) as stream:
            stream.settimeout(5)
            stream.sendall(b"config get cluster\r\n")
            reply = b""
            while not reply.endswith((b"END\r\n", b"yet\r\n")):
                piece = stream.recv(65536)
                if not piece:
                    raise OSError("closed")
                reply += piece
        asked += 1
        lines = reply.decode().split("\n")
        told = "none" if lines[0].startswith("SERVER_ERROR") else lines[1] + " [" + lines[2].replace(" ", ",") + "]"
    except OSError:
        told = "away"
    if told != last or asked % 100 == 0:
        print(asked, told, flush=True)
    last = told
    time.sleep(0.05)
"#;

/// A program that keeps one client as its manual has it, and tells each round how it fared.
const APPLICATION: &str = r#"
import json, sys, time
from django_elastipymemcache.client import AWSElastiCacheClient
client = AWSElastiCacheClient(sys.argv[1], discovery_interval=1, timeout=1, connect_timeout=1, retry_timeout=1, dead_timeout=2)
while True:
    served = 0
    for number in range(20):
        try:
            client.set(f"key-{number}", str(number))
            served += client.get(f"key-{number}") == str(number).encode()
        except Exception:
            pass
    print(json.dumps({"found": sorted(client.clients), "served": served}), flush=True)
    time.sleep(0.2)
"#;

/// `docker/units/memcached@.service` as systemd runs it: by its own lines, and again when they end.
struct Unit<'lab> {
    host: &'lab Host,
    name: String,
    run: Process,
}

impl<'lab> Unit<'lab> {
    fn start(host: &'lab Host, number: usize) -> Self {
        let unit = include_str!("../../docker/units/memcached@.service");
        let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=/usr/bin/docker ")).unwrap();
        assert!(unit.contains("\nRestart=always\n"));
        host.bring(Image::Memcached);
        host.docker(&["tag", Image::Memcached.reference(), "memcached:1.6"]);
        let (line, engine) = (line.replace("%i", &number.to_string()), host.docker_uri());
        let argv: Vec<&str> = ["docker", "-H", &engine].into_iter().chain(line.split(' ')).collect();
        let run = host.spawn(&format!("memcached-{number}"), &argv, &[]);
        Self { host, name: format!("memcached-{number}"), run }
    }

    fn tend(&mut self) {
        if !self.run.runs() {
            let _ = self.host.try_docker(&["rm", "-f", &self.name]);
            self.run.start_again();
        }
    }

    fn signal(&self, signal: &str) {
        let _ = self.host.try_docker(&["kill", "-s", signal, &self.name]);
    }
}

/// A list as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Told {
    version: u64,
    members: Vec<String>,
}

fn ask(host: &Host) -> Result<Told, String> {
    let text = |error: std::io::Error| error.to_string();
    let at = SocketAddr::from((host.address(), 11311));
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(2)).map_err(text)?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).map_err(text)?;
    stream.write_all(b"config get cluster\r\nquit\r\n").map_err(text)?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).map_err(text)?;
    let mut lines = reply.split('\n').skip(1);
    let version = lines.next().and_then(|line| line.trim().parse().ok()).ok_or(reply.clone())?;
    let members = lines.next().unwrap_or_default().split(' ');
    let place = |member: &str| member.split_once('|').map_or(String::new(), |(_, rest)| rest.replace('|', ":"));
    Ok(Told { version, members: members.map(place).collect() })
}

/// Every host tells the same list, of all three.
fn all_told(lab: &Lab) -> Result<Told, String> {
    let told: Vec<Told> = lab.hosts().iter().map(ask).collect::<Result<_, _>>()?;
    let mut members = told[0].members.clone();
    members.sort();
    let wanted: Vec<String> = (1..=3).map(|n| lab.host(n).at(11211)).collect();
    if members == wanted && told.iter().all(|one| *one == told[0]) {
        return Ok(told[0].clone());
    }
    Err(format!("{told:?}"))
}

/// The application's last word, after this one.
fn last_round(log: &str) -> Option<(usize, Value)> {
    let rounds: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    Some((rounds.len(), rounds.last()?.clone()))
}

/// Everything is as it was, for the application, too.
fn at_rest(lab: &Lab, units: &mut [Unit<'_>], application: &Process) -> Told {
    let begun = last_round(&application.log()).map_or(0, |(rounds, _)| rounds);
    let all: Vec<String> = (1..=3).map(|n| lab.host(n).at(11211)).collect();
    let told = within(REST, "every host tells one list of all three", || {
        units.iter_mut().for_each(Unit::tend);
        lab.hosts().iter().try_for_each(|host| host.dig(SERVICE, "SRV").is(&all))?;
        all_told(lab)
    });
    within(REST, "the application is served by all three", || {
        let (rounds, last) = last_round(&application.log()).ok_or("nothing yet")?;
        let is_well =
            rounds > begun + 1 && last["served"] == 20 && last["found"].as_array().is_some_and(|f| f.len() == 3);
        if is_well { Ok(()) } else { Err(last.to_string()) }
    });
    told
}

/// What one host's observer saw: how often it was answered, and how many lists there were.
fn judged(name: &str, log: &str, lists: &mut BTreeMap<u64, String>) -> (u64, usize) {
    let (mut highest, mut asked, mut changes) = (0, 0, 0);
    for line in log.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        asked = words[0].parse().unwrap();
        match words[1..] {
            ["away"] => {}
            ["none"] => assert_eq!(highest, 0, "{name} tells nothing any more"),
            [version, list] => {
                let version: u64 = version.parse().unwrap();
                assert!(version >= highest, "{name} fell from {highest} to {version}");
                assert!(list.len() > 2, "{name} tells an empty list: {line}");
                assert_eq!(lists.entry(version).or_insert_with(|| list.to_owned()), list, "one version is one list");
                changes += usize::from(version > highest);
                highest = version;
            }
            _ => panic!("{name}: {line}"),
        }
    }
    assert!(highest > 0, "{name} never told anything: {log}");
    (asked, changes)
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    FreezeServer,
    KillServer,
    StopServer,
    KillAgent,
    HangAgent,
    Cut,
    Lose,
    HangEtcd,
    KillEtcd,
    HangAllEtcd,
    EmptyEtcd,
    Drain,
    RestartEngine,
}

use Fault::{
    Cut, Drain, EmptyEtcd, FreezeServer, HangAgent, HangAllEtcd, HangEtcd, KillAgent, KillEtcd, KillServer, Lose,
    RestartEngine, StopServer,
};

const FAULTS: [Fault; 13] = [
    FreezeServer,
    KillServer,
    StopServer,
    KillAgent,
    HangAgent,
    Cut,
    Lose,
    HangEtcd,
    KillEtcd,
    HangAllEtcd,
    EmptyEtcd,
    Drain,
    RestartEngine,
];

/// The cluster with all that runs on it.
struct World<'lab> {
    lab: &'lab Lab,
    units: Vec<Unit<'lab>>,
    agents: Vec<Wharf<'lab>>,
}

impl World<'_> {
    /// Breaks something on a host, leaves it so for a while, and mends it.
    fn suffer(&mut self, fault: Fault, at: usize, hold: Duration) {
        let host = &self.lab.hosts()[at];
        match fault {
            FreezeServer => self.units[at].signal("STOP"),
            KillServer => self.units[at].signal("KILL"),
            StopServer => drop(host.try_docker(&["stop", "-t", "1", &self.units[at].name])),
            KillAgent => self.agents[at].process().kill(),
            HangAgent => self.agents[at].process().hang(),
            Cut => host.cut(),
            Lose => host.lose(30),
            HangEtcd => host.etcd().hang(),
            KillEtcd => host.etcd().kill(),
            HangAllEtcd => self.lab.hosts().iter().for_each(|host| host.etcd().hang()),
            EmptyEtcd => eventually("etcd is emptied", || self.lab.etcd().try_ctl(&["del", "", "--from-key"])).clear(),
            Drain => drop(self.agents[at].command(&["drain"])),
            RestartEngine => host.restart_engine(),
        }
        throughout(hold, "units are tended", || {
            self.units.iter_mut().for_each(Unit::tend);
            true
        });
        match fault {
            FreezeServer => self.units[at].signal("CONT"),
            KillServer | StopServer | EmptyEtcd | RestartEngine => {}
            KillAgent => {
                self.agents[at].process().start_again();
                self.agents[at].wait_ready();
            }
            HangAgent => self.agents[at].process().thaw(),
            Cut | Lose => host.calm(),
            HangEtcd => host.etcd().thaw(),
            KillEtcd => host.etcd().start_again(),
            HangAllEtcd => self.lab.hosts().iter().for_each(|host| host.etcd().thaw()),
            Drain => eventually("it is offered again", || self.agents[at].command(&["undrain"])).clear(),
        }
    }
}

/// The environment with the clients, as tests/autodiscovery has it.
fn python() -> String {
    let folder = format!("{}/autodiscovery-clients", env!("CARGO_TARGET_TMPDIR"));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/autodiscovery/clients.sh");
    let had = Command::new(script).arg(&folder).output().unwrap();
    assert!(had.status.success(), "the clients cannot be had: {}", String::from_utf8_lossy(&had.stderr));
    format!("{folder}/python/bin/python")
}

fn started(lab: &Lab) -> World<'_> {
    let start = |host| {
        let host: &Host = host;
        let file = host.dir().join("wharf.toml");
        std::fs::write(&file, SETTINGS).unwrap();
        let (asked, resolver) = (format!("{}:5300", host.address()), format!("{}:53", host.address()));
        let spec = host.wharf().dns(&[&asked, "127.0.0.1:5300", "127.0.0.1:53", &resolver]);
        spec.flag("--config", &file.display().to_string()).start_only()
    };
    let agents: Vec<Wharf<'_>> = lab.hosts().iter().map(start).collect();
    agents.iter().for_each(|agent| agent.wait_ready());
    let units = lab.hosts().iter().zip(1..).map(|(host, number)| Unit::start(host, number)).collect();
    World { lab, units, agents }
}

/// An application on host 3, which finds its endpoint by name, by any of the hosts.
fn application(lab: &Lab, python: &str) -> Process {
    let host = lab.host(3);
    let script = host.dir().join("application.py");
    std::fs::write(&script, APPLICATION).unwrap();
    let servers = ["127.0.0.1".to_owned(), lab.host(1).address().to_string(), lab.host(2).address().to_string()];
    let command = format!("{python} {} memcached.cfg.services.lan:11311", script.display());
    let argv = resolving(host, &servers, &command);
    host.spawn("application", &argv.iter().map(String::as_str).collect::<Vec<_>>(), &[])
}

/// The record of a host's memcached.
fn record(world: &World<'_>, number: usize) -> Option<Value> {
    let all = world.agents[0].json("/v1/services/memcached").ok()?;
    let host = world.lab.host(number).name();
    all["endpoints"].as_array()?.iter().find(|one| one["node"] == host).cloned()
}

fn state(world: &World<'_>, number: usize) -> Option<String> {
    let local = world.agents[number - 1].json("/v1/local").ok()?;
    let instance = local["instances"].as_array()?.iter().find(|one| one["service"] == "memcached")?.clone();
    instance["state"].as_str().map(str::to_owned)
}

/// Says something to a host's memcached.
fn say(host: &Host, text: &str) -> Result<String, String> {
    let at = SocketAddr::from((host.address(), 11211));
    let mut stream = TcpStream::connect_timeout(&at, Duration::from_secs(2)).map_err(|error| error.to_string())?;
    stream.write_all(format!("{text}quit\r\n").as_bytes()).map_err(|error| error.to_string())?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).map_err(|error| error.to_string())?;
    Ok(reply)
}

/// Frozen, full, restarted and cold: DNS tells at once what may be asked, the list stays as it was.
fn health_means_something(world: &mut World<'_>, all: &Told) {
    let lab = world.lab;
    let without_two = [lab.host(1).at(11211), lab.host(3).at(11211)];
    world.units[1].signal("STOP");
    for host in lab.hosts() {
        eventually("a frozen one is found no more", || host.dig(SERVICE, "SRV").is(&without_two));
    }
    assert_eq!(all_told(lab).as_ref(), Ok(all), "it stays in the list");
    let shown = world.agents[2].json("/v1/autodiscovery").unwrap();
    let away = shown["autodiscoveries"][0]["members"].as_array().unwrap().iter().filter(|one| one["away_s"].is_u64());
    assert_eq!(away.map(|one| one["node"].as_str().unwrap()).collect::<Vec<_>>(), [lab.host(2).name()], "{shown}");
    world.units[1].signal("CONT");
    eventually("it is thawed", || record(world, 2));

    let at = SocketAddr::from((lab.host(1).address(), 11211));
    let crowd: Vec<TcpStream> = (0..1_100).filter_map(|_| TcpStream::connect(at).ok()).collect();
    eventually("a full one says so", || match state(world, 1) {
        Some(state) if state == "saturated" => Ok(()),
        other => Err(format!("{other:?} with {} connections", crowd.len())),
    });
    assert!(record(world, 1).is_some(), "and is offered");
    drop(crowd);
    eventually("it has room again", || state(world, 1).is_some_and(|state| state == "ready"));

    let before = record(world, 3).unwrap()["since"].clone();
    assert_eq!(say(lab.host(3), "set warm 0 0 1\r\n1\r\n").unwrap(), "STORED\r\n");
    world.units[2].signal("KILL");
    let since = eventually("a restarted one is new", || {
        world.units[2].tend();
        record(world, 3).map(|record| record["since"].clone()).filter(|since| *since != before)
    });
    assert!(since.as_str() >= before.as_str());
    assert_eq!(eventually("it answers", || say(lab.host(3), "get warm\r\n")), "END\r\n", "and cold");
    assert_eq!(eventually("all are told", || all_told(lab)), *all, "it takes its own place in the list");
}

#[test]
fn seed_0_whole_and_no_fault_gives_an_empty_or_a_lower_list() {
    let is_drill = std::env::var_os("WHARF_DRILL").is_some();
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| rand::rng().random());
    let python = python();
    let lab = lab::alone();
    let mut world = started(&lab);
    let observers: Vec<Process> =
        lab.hosts().iter().map(|host| host.spawn("observer", &["python3", "-c", OBSERVER], &[])).collect();
    within(REST, "everybody is listed", || all_told(&lab));
    let application = application(&lab, &python);
    let all = at_rest(&lab, &mut world.units, &application);
    let keys: Vec<String> =
        (1..=3).map(|n| format!("/services/memcached/{}-memcached-{n}-11211", lab.host(n).name())).collect();
    assert_eq!(
        lab.etcd().keys("/services/memcached/").into_iter().filter(|key| !key.contains("/cfg/")).collect::<Vec<_>>(),
        keys
    );
    health_means_something(&mut world, &all);

    let mut random = StdRng::seed_from_u64(seed);
    let count = if is_drill { 100 } else { 5 };
    for number in 1..=count {
        let which = random.random_range(0..if is_drill { FAULTS.len() } else { FAULTS.len() - 1 });
        let (at, hold) = (random.random_range(0..3), Duration::from_millis(random.random_range(100..3_000)));
        println!("seed {seed}, fault {number}: {:?} on host {} for {hold:?}", FAULTS[which], at + 1);
        world.suffer(FAULTS[which], at, hold);
        if number % 10 == 0 {
            at_rest(&lab, &mut world.units, &application);
        }
    }
    let last = at_rest(&lab, &mut world.units, &application);
    assert!(last.version >= all.version);
    let mut lists = BTreeMap::new();
    for (host, observer) in lab.hosts().iter().zip(&observers) {
        let (asked, changes) = judged(host.name(), &observer.log(), &mut lists);
        println!("{}: answered {asked} times, {changes} lists, the last one {last:?}", host.name());
        assert!(asked > 100, "{} was asked", host.name());
    }
    let told = application.log();
    let rounds: Vec<Value> = told.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let well = rounds.iter().filter(|round| round["served"] == 20).count();
    println!("the application: {well} of {} rounds served whole", rounds.len());
    assert!(
        rounds.iter().skip(1).all(|round| round["found"].as_array().is_some_and(|found| !found.is_empty())),
        "{told}"
    );
}
