//! A ZooKeeper cell on three hosts. Its zoo.cfg and myid are rendered from the hosts' numbers; the list, the barrier
//! and Exhibitor's API say on every host what a real client can do at that moment.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::kazoo::{Asking, has_sessions};
use crate::lab::host::Host;
use crate::lab::process::Process;
use crate::lab::wharf::Wharf;
use crate::lab::{self, Lab, eventually, throughout, within};

/// How long servers may take that start on a machine with much else to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
const PROGRAM: &str = env!("CARGO_BIN_EXE_wharf");
const CLIENTS: u16 = 2181;
const EXHIBITOR: u16 = 8181;
const CELL: &str = "exhibitor = '0.0.0.0:8181'\nprobe-interval = '500ms'\n[[ordinal]]\nrole = 'nucleus'\n\
                    [[service]]\nname = 'zookeeper'\nport = 2181\ncheck = 'zookeeper'\n";
const SERVERS: &str = "{% for n in nodes | sort(attribute='ordinals.nucleus') if n.ordinals.nucleus is defined %}\n\
                       server.{{ n.ordinals.nucleus }}={{ n.addresses[0] }}:2888:3888\n{% endfor %}\n";

/// One host of the cell: its agent, what renders its files, its server.
struct Member<'lab> {
    host: &'lab Host,
    agent: Wharf<'lab>,
    dir: PathBuf,
    _render: Process,
    server: Process,
}

impl<'lab> Member<'lab> {
    fn start(host: &'lab Host, agent: Wharf<'lab>) -> Self {
        let dir = host.dir().join("zookeeper");
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(dir.join("data")).unwrap();
        let at = |name: &str| dir.join(name).display().to_string();
        let template = format!(
            "tickTime=500\ninitLimit=10\nsyncLimit=4\ndataDir={}\nclientPort={CLIENTS}\nadmin.enableServer=false\n{SERVERS}",
            at("data")
        );
        fs::write(dir.join("zoo.cfg.j2"), template).unwrap();
        fs::write(dir.join("myid.j2"), "{{ ordinal('nucleus') }}\n").unwrap();
        let table = |name: &str, file: &str| {
            let (template, destination) = (at(&format!("{name}.j2")), at(file));
            format!("[[render]]\nname = '{name}'\ntemplate = '{template}'\ndestination = '{destination}'\n")
        };
        let (cfg, id) =
            (table("zoo.cfg", "zoo.cfg").replace("name = 'zoo.cfg'", "name = 'zoo'"), table("myid", "data/myid"));
        let socket = host.dir().join("wharf/http.sock");
        let settings = format!("node = '{}'\nhttp-socket = '{}'\n{cfg}{id}", host.name(), socket.display());
        fs::write(dir.join("render.toml"), settings).unwrap();
        let argv = [PROGRAM, "render", "--follow", "--config", &at("render.toml")];
        let render = host.spawn("render", &argv, &[]);
        let server = Process::at_rest(
            &format!("{}'s ZooKeeper", host.name()),
            host.inside(&java(&at("zoo.cfg")).iter().map(String::as_str).collect::<Vec<_>>()),
            vec![],
            dir.join("zookeeper.log"),
        );
        Self { host, agent, dir, _render: render, server }
    }

    fn place(&self) -> String {
        self.host.at(CLIENTS)
    }

    /// Its number, as its server is told.
    fn number(&self) -> Option<u32> {
        fs::read_to_string(self.dir.join("data/myid")).ok()?.trim().parse().ok()
    }

    /// The servers that its zoo.cfg names.
    fn servers(&self) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("zoo.cfg")).unwrap_or_default();
        text.lines().filter(|line| line.starts_with("server.")).map(str::to_owned).collect()
    }

    /// GET of a path below `/exhibitor/v1/cluster/`: the status, the head, and what was answered.
    fn exhibitor(&self, path: &str) -> Result<(u16, String, String), String> {
        let url = format!("http://{}/exhibitor/v1/cluster/{path}", self.host.at(EXHIBITOR));
        let reply = self.host.try_exec(&["curl", "-si", "--max-time", "5", &url])?;
        let (head, body) = reply.split_once("\r\n\r\n").ok_or("no answer")?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        Ok((status, head.to_lowercase(), body.to_owned()))
    }

    /// Whom its list names, and whether that is said to be what was known last.
    fn list(&self) -> Result<(Vec<String>, bool), String> {
        let (_, head, body) = self.exhibitor("list")?;
        let told: Value = serde_json::from_str(&body).map_err(|error| error.to_string())?;
        let mut servers: Vec<String> =
            serde_json::from_value(told["servers"].clone()).map_err(|error| error.to_string())?;
        servers.iter_mut().for_each(|server| *server = format!("{server}:{}", told["port"]));
        Ok((servers, head.contains("\r\nwarning: 110 ")))
    }

    fn serving(&self) -> u16 {
        self.exhibitor("node/serving").map_or(0, |(status, ..)| status)
    }

    /// The code that its status has of a host.
    fn code(&self, of: &Host) -> Option<u64> {
        let (_, _, body) = self.exhibitor("status").ok()?;
        let told: Vec<Value> = serde_json::from_str(&body).ok()?;
        told.iter().find(|it| it["hostname"] == of.address().to_string())?["code"].as_u64()
    }
}

fn java(config: &str) -> Vec<String> {
    let words = [
        "java",
        "-Xmx64m",
        // It reads the control groups it is in, and some containers show it none that it understands.
        "-XX:-UseContainerSupport",
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-cp",
        "/etc/zookeeper/conf:/usr/share/java/zookeeper.jar",
        "org.apache.zookeeper.server.quorum.QuorumPeerMain",
        config,
    ];
    words.map(str::to_owned).to_vec()
}

/// All hosts with their numbers and files, and without servers.
fn found(lab: &Lab) -> Vec<Member<'_>> {
    let agents = lab.wharves_told(CELL);
    let members: Vec<Member<'_>> =
        lab.hosts().iter().zip(agents).map(|(host, agent)| Member::start(host, agent)).collect();
    within(PATIENCE, "every zoo.cfg names three servers by the numbers of their hosts", || {
        let numbers: Option<BTreeMap<u32, String>> =
            members.iter().map(|member| Some((member.number()?, member.host.address().to_string()))).collect();
        let numbers = numbers.filter(|numbers| numbers.keys().eq(&[1, 2, 3])).ok_or("no numbers 1 to 3")?;
        let expected: Vec<String> =
            numbers.iter().map(|(number, address)| format!("server.{number}={address}:2888:3888")).collect();
        members.iter().try_for_each(|member| {
            if member.servers() == expected { Ok(()) } else { Err(format!("{:?}", member.servers())) }
        })
    });
    members
}

/// `h1:2181,h2:2181` of the members at these places, by their numbers.
fn listed(members: &[Member<'_>], places: &[usize]) -> String {
    let mut some: Vec<&Member<'_>> = places.iter().map(|place| &members[*place]).collect();
    some.sort_by_key(|member| member.number());
    some.iter().map(|member| member.place()).collect::<Vec<_>>().join(",")
}

/// On every host the list and Exhibitor's API name just these, and a client gets sessions from each.
#[track_caller]
fn everyone_lists(members: &[Member<'_>], places: &[usize]) {
    let expected = listed(members, places);
    let min = places.len().to_string();
    within(PATIENCE, &format!("every host lists {expected}"), || {
        members.iter().try_for_each(|member| {
            let list = member.agent.command(&["zk-list-nodes", "--min", &min, "--ordinal", "nucleus"])?;
            let (api, is_stale) = member.list()?;
            if list == format!("{expected}\n") && api.join(",") == expected && !is_stale {
                Ok(())
            } else {
                Err(format!("{list} {api:?}"))
            }
        })
    });
    assert!(has_sessions(&expected), "a client gets sessions from {expected}");
}

/// A barrier of a host that runs, and its words.
fn barrier(member: &Member<'_>, min: &str) -> Process {
    let name = format!("barrier-{min}");
    let _ = fs::remove_file(member.host.dir().join(format!("{name}.log")));
    let socket = member.host.dir().join("wharf/http.sock").display().to_string();
    let argv =
        [PROGRAM, "zk-barrier", "--ordinal", "nucleus", "--timeout", "300s", "--min", min, "--http-socket", &socket];
    member.host.spawn(&name, &argv, &[])
}

#[test]
fn a_cell_comes_up_by_numbers_and_its_barrier_opens_when_a_client_first_has_its_sessions() {
    let lab = lab::alone();
    let mut members = found(&lab);
    let all = listed(&members, &[0, 1, 2]);
    for member in &members {
        let name = format!("{}.nucleus.services.internal", member.number().unwrap());
        let address = [member.host.address().to_string()];
        eventually(&format!("{name} is its host"), || {
            lab.hosts().iter().try_for_each(|asked| {
                let told = asked.dig(&name, "A").data();
                if told == address { Ok(()) } else { Err(format!("{told:?}")) }
            })
        });
    }
    let mut waiting = barrier(&members[0], "3");
    members[0].server.start_again();
    members[1].server.start_again();
    everyone_lists(&members, &[0, 1]);
    let few = members[2].agent.command(&["zk-list-nodes"]).unwrap_err();
    assert!(few.contains("not enough servers found (2 out of 3)"), "{few}");
    assert!(waiting.runs(), "{}", waiting.log());

    // The third one joins late.
    let kazoo = Asking::of(&all);
    members[2].server.start_again();
    let client = kazoo.ended();
    waiting.wait_for_end(PATIENCE);
    let opened = Instant::now();
    println!("the barrier had opened {:?} after a client had its sessions", opened.saturating_duration_since(client));
    assert!(opened.saturating_duration_since(client) < Duration::from_secs(1));
    assert_eq!(waiting.log().lines().last(), Some(all.as_str()), "{}", waiting.log());
    everyone_lists(&members, &[0, 1, 2]);
    assert!(members.iter().all(|member| member.serving() == 200));
    if std::env::var_os("WHARF_DRILL").is_some() {
        is_broken_and_mended(&lab, &mut members);
    }
}

/// The rest of an ensemble's life.
fn is_broken_and_mended(lab: &Lab, members: &mut [Member<'_>]) {
    // One is killed.
    members[2].server.kill();
    everyone_lists(members, &[0, 1]);
    eventually("load balancers see it", || members[2].serving() == 503);
    eventually("every host calls it down", || members.iter().all(|member| member.code(members[2].host) == Some(1)));
    assert!(!has_sessions(&members[2].place()));

    // Quorum is lost: the last one answers, and serves nobody.
    members[1].server.kill();
    eventually("nobody is listed", || {
        members.iter().all(|member| member.list().is_ok_and(|(list, _)| list.is_empty()))
    });
    eventually("it answers and does not serve", || {
        members.iter().all(|member| member.code(members[0].host) == Some(2))
    });
    assert!(!has_sessions(&members[0].place()));
    let mut waiting = barrier(&members[2], "2");
    throughout(Duration::from_secs(2), "the barrier stays closed", || waiting.runs());

    // It comes back.
    members[1].server.start_again();
    waiting.wait_for_end(PATIENCE);
    let two = listed(members, &[0, 1]);
    assert_eq!(waiting.log().lines().last(), Some(two.as_str()), "{}", waiting.log());
    assert!(has_sessions(&two));
    everyone_lists(members, &[0, 1]);

    // One that stands alone grants sessions, and has not joined.
    let host = members[2].host;
    let dir = host.dir().join("alone");
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    let config = format!("tickTime=500\ndataDir={}\nclientPort={CLIENTS}\nadmin.enableServer=false\n", dir.display());
    fs::write(dir.join("zoo.cfg"), config).unwrap();
    let argv = java(&dir.join("zoo.cfg").display().to_string());
    let mut alone = host.spawn("alone", &argv.iter().map(String::as_str).collect::<Vec<_>>(), &[]);
    within(PATIENCE, "it grants sessions", || has_sessions(&host.at(CLIENTS)));
    eventually("it does not serve", || members.iter().all(|member| member.code(host) == Some(2)));
    everyone_lists(members, &[0, 1]);
    assert_eq!((members[2].serving(), members[0].serving()), (503, 200));
    alone.kill();
    members[2].server.start_again();
    everyone_lists(members, &[0, 1, 2]);

    // The store is away: the list is what was known last, and says so. Servers and clients go on.
    for host in lab.hosts() {
        host.etcd().hang();
    }
    let all: Vec<String> = listed(members, &[0, 1, 2]).split(',').map(str::to_owned).collect();
    eventually("every host says that its list is old", || {
        members.iter().try_for_each(|member| {
            let told = member.list()?;
            if told == (all.clone(), true) { Ok(()) } else { Err(format!("{told:?}")) }
        })
    });
    assert!(has_sessions(&all.join(",")));
    for host in lab.hosts() {
        host.etcd().thaw();
    }
    everyone_lists(members, &[0, 1, 2]);
}
