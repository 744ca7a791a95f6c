//! Near first, for programs that know nothing of it: Go by the priorities of SRV answers, HAProxy by `near.`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::lab::host::Host;
use crate::lab::{self, Lab, eventually, memcached};

const SITES: [&str; 3] = ["r/a/1", "r/a/2", "r/b/1"];

/// The Go program, built once.
fn go() -> String {
    let program = format!("{}/near-srv", env!("CARGO_TARGET_TMPDIR"));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cluster/near.go");
    let built = Command::new("go")
        .args(["build", "-o", &program, source])
        .env("GOCACHE", format!("{}/go", env!("CARGO_TARGET_TMPDIR")))
        .output()
        .expect("Go is installed: apt-get install golang-go");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    program
}

/// A command line on a host whose resolver is that host's own agent.
pub(crate) fn resolving(host: &Host, nameservers: &[String], command: &str) -> Vec<String> {
    let file = host.dir().join("resolv.conf");
    let text: String = nameservers.iter().map(|server| format!("nameserver {server}\n")).collect();
    fs::write(&file, format!("{text}options timeout:1 attempts:2\n")).unwrap();
    let script = format!(
        "mount --make-rprivate / && mount --bind {} \"$(readlink -f /etc/resolv.conf)\" && exec {command}",
        file.display()
    );
    ["unshare", "--mount", "sh", "-c", &script].map(str::to_owned).to_vec()
}

/// Every one of Go's answers names this host's server first, and the others by rising priorities.
fn go_prefers(lab: &Lab, program: &str, host: &str) -> Result<(), String> {
    let argv = resolving(lab.host(1), &["127.0.0.1".to_owned()], &format!("{program} memcached services.internal"));
    let told = lab.host(1).try_exec(&argv.iter().map(String::as_str).collect::<Vec<_>>())?;
    for answer in told.lines() {
        let priorities: Vec<&str> = answer.split(' ').filter_map(|one| Some(one.split_once(':')?.0)).collect();
        let is_rising = priorities.windows(2).all(|two| two[0].len() == two[1].len() && two[0] < two[1]);
        if !answer.starts_with(&format!("10:{host}-")) || !is_rising {
            return Err(told);
        }
    }
    if told.lines().count() == 20 { Ok(()) } else { Err(told) }
}

/// What a memcached answers at this address of host 1.
fn whoami(lab: &Lab, address: &str) -> Result<String, String> {
    let (host, port) = address.split_once(':').unwrap();
    let script = format!(
        "import socket\ns = socket.create_connection(('{host}', {port}), 2)\ns.sendall(b'get whoami\\r\\nquit\\r\\n')\n\
         print(s.makefile().read())"
    );
    let told = lab.host(1).try_exec(&["python3", "-c", &script])?;
    told.lines().nth(1).map(|line| line.trim().to_owned()).ok_or(told)
}

fn named(host: &Host) {
    let script = format!(
        "import socket\ns = socket.create_connection(('{}', 11211), 2)\n\
         s.sendall(b'set whoami 0 0 2\\r\\n{}\\r\\nquit\\r\\n')\nassert b'STORED' in s.recv(99)",
        host.address(),
        host.name()
    );
    eventually("a memcached takes its name", || host.try_exec(&["python3", "-c", &script]));
}

fn haproxy(dir: &Path) -> String {
    let file = dir.join("haproxy.cfg");
    let text = "\
resolvers wharf
  nameserver wharf 127.0.0.1:5300
  accepted_payload_size 1232
  timeout resolve 1s
  hold valid 1s
  hold nx 1s
  hold obsolete 0s

defaults
  mode tcp
  timeout connect 1s
  timeout client 30s
  timeout server 30s

listen memcached
  bind 127.0.0.1:11999
  server-template memcached 5 _memcached._tcp.near.services.internal resolvers wharf init-addr none check inter 500ms
";
    fs::write(&file, text).unwrap();
    file.display().to_string()
}

#[test]
fn go_and_haproxy_prefer_what_is_near_and_fall_back_to_what_is_far() {
    let program = go();
    let lab = lab::alone();
    let start = |(host, site): (_, &&str)| {
        let host: &Host = host;
        let at = format!("{}:5300", host.address());
        let spec = host.wharf().dns(&[&at, "127.0.0.1:5300", "127.0.0.1:53"]);
        spec.flag("--site", site).env("WHARF_NEAR_PRIORITY", "true").start_only()
    };
    let agents: Vec<_> = lab.hosts().iter().zip(&SITES).map(start).collect();
    agents.iter().for_each(|agent| agent.wait_ready());
    let run = |n: usize| {
        let server = lab.host(n).run(memcached().name("near").publish(11211));
        named(lab.host(n));
        server
    };
    let near = run(2);
    let _far = run(3);
    let config = haproxy(lab.host(1).dir());
    let _proxy = lab.host(1).spawn("haproxy", &["haproxy", "-db", "-f", &config], &[]);
    let leads_to = |n: usize| {
        let name = lab.host(n).name().to_owned();
        eventually(&format!("HAProxy leads to {name} alone"), || {
            let told: Vec<String> = (0..6).map(|_| whoami(&lab, "127.0.0.1:11999")).collect::<Result<_, _>>()?;
            if told.iter().all(|one| *one == name) { Ok(()) } else { Err(format!("{told:?}")) }
        });
        eventually(&format!("Go prefers {name}"), || go_prefers(&lab, &program, &name));
    };
    // Nothing here: the other host of the same zone, then this one, then what is left in the region.
    leads_to(2);
    let own = run(1);
    leads_to(1);
    own.stop();
    leads_to(2);
    near.stop();
    leads_to(3);
}
