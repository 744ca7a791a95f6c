//! Who moves the master: wharf, and those it is laid beside.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::program::Agent;
use super::servers::{Process, Trio, ask, free_port, number, until};

pub trait Mover {
    /// Whether it gives servers their first master, that start frozen.
    const FROZEN: bool;

    /// Makes this one the master; returns when it is.
    fn switch(&mut self, trio: &Trio, to: usize);
}

/// The program itself, asked by HTTP.
#[allow(missing_debug_implementations)] // the agent has none
pub struct Wharf(Agent);

impl Wharf {
    pub fn start(trio: &Trio) -> Self {
        let tables = trio.ports().map(|port| {
            format!("[[service]]\nname = \"redis-1\"\nport = {port}\naddress = \"127.0.0.1\"\nid = \"at-{port}\"\ncheck = \"redis\"\n")
        });
        let tables = tables.concat();
        let topology = "[[topology]]\nservice = \"redis-1\"\nservers = [\"127.0.0.0/8\"]\n";
        let mut own = Self(Agent::start(&format!("probe-interval = \"500ms\"\n{tables}{topology}")));
        own.switch(trio, 0);
        own
    }

    fn put(&self, trio: &Trio, to: usize) -> bool {
        let address = self.0.address("http");
        let of = |port: u16| format!(r#"{{"address":"127.0.0.1","port":{port}}}"#);
        let slaves = trio.ports().map(of).join(",");
        let body = format!(r#"{{"master":{},"slaves":[{slaves}]}}"#, of(trio.ports()[to]));
        let length = body.len();
        let head = format!("PUT /v1/topology/redis-1 HTTP/1.1\r\nHost: {address}\r\nContent-Length: {length}\r\n");
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(format!("{head}Connection: close\r\n\r\n{body}").as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let is_done = reply.starts_with("HTTP/1.1 200");
        if !is_done {
            println!("{}", reply.lines().last().unwrap_or_default());
        }
        is_done
    }
}

impl Mover for Wharf {
    const FROZEN: bool = true;

    fn switch(&mut self, trio: &Trio, to: usize) {
        until("wharf has switched", || self.put(trio, to));
    }
}

/// Redis' own command.
#[derive(Debug)]
pub struct Failover;

impl Failover {
    pub fn start(_trio: &Trio) -> Self {
        Self
    }
}

impl Mover for Failover {
    const FROZEN: bool = false;

    fn switch(&mut self, trio: &Trio, to: usize) {
        let (old, new) = (trio.servers[trio.master()].port, trio.servers[to].port.to_string());
        until("FAILOVER is taken", || ask(old, &["FAILOVER", "TO", "127.0.0.1", &new]) == "+OK");
        until("FAILOVER is over", || trio.info(to, "replication").contains("role:master"));
        // It leaves the other replica with the old master.
        for other in (0..3).filter(|other| *other != to) {
            ask(trio.servers[other].port, &["REPLICAOF", "127.0.0.1", &new]);
        }
    }
}

/// Valkey's Sentinels.
#[derive(Debug)]
pub struct Sentinels([Process; 3]);

impl Sentinels {
    pub fn start(trio: &Trio) -> Self {
        let program = super::valkey();
        let start = |()| {
            let monitor = format!(
                "sentinel monitor mymaster 127.0.0.1 {} 2\nsentinel down-after-milliseconds mymaster 5000\n\
                 sentinel failover-timeout mymaster 10000\n",
                trio.ports()[0]
            );
            Process::start(program.to_str().unwrap(), free_port(), Some("--sentinel"), &monitor)
        };
        let own = Self([(); 3].map(start));
        until("the Sentinels know each other and the replicas", || {
            own.0.iter().all(|sentinel| {
                let master = ask(sentinel.port, &["SENTINEL", "master", "mymaster"]);
                let lines: Vec<&str> = master.lines().collect();
                let field = |name: &str| lines.iter().position(|line| *line == name).and_then(|at| lines.get(at + 1));
                field("num-slaves") == Some(&"2") && field("num-other-sentinels") == Some(&"2")
            })
        });
        own
    }
}

impl Mover for Sentinels {
    const FROZEN: bool = false;

    /// They choose the new master themselves.
    fn switch(&mut self, trio: &Trio, _to: usize) {
        let (at, old) = (self.0[0].port, trio.master());
        until("a coordinated failover is taken", || {
            ask(at, &["SENTINEL", "FAILOVER", "mymaster", "COORDINATED"]) == "+OK"
        });
        until("a coordinated failover is over", || {
            let told = ask(at, &["SENTINEL", "get-master-addr-by-name", "mymaster"]);
            let port: Option<u16> = told.lines().nth(1).and_then(|port| port.parse().ok());
            port.is_some_and(|port| port != trio.ports()[old] && ask(port, &["ROLE"]).starts_with("master"))
        });
    }
}

/// The dictator's order, as its page tells it: the old master refuses writes, its replicas reach its offset, the new
/// one is made master, the others follow it, and all take writes again.
#[derive(Debug)]
pub struct Dictator;

impl Dictator {
    pub fn start(_trio: &Trio) -> Self {
        Self
    }
}

impl Mover for Dictator {
    const FROZEN: bool = false;

    fn switch(&mut self, trio: &Trio, to: usize) {
        const PAUSE: Duration = Duration::from_millis(5);
        let old = trio.master();
        let refuse = |count: &str| ask(trio.ports()[old], &["CONFIG", "SET", "min-replicas-to-write", count]);
        refuse("1000000");
        loop {
            // What the master says of its replicas, which tell it once a second.
            let info = trio.info(old, "replication");
            let offset = number(&info, "master_repl_offset:");
            let told = info.lines().filter(|line| line.starts_with("slave") && line.contains("offset="));
            let at = |line: &str| line.split("offset=").nth(1)?.split(',').next()?.parse::<u64>().ok();
            if told.filter_map(at).all(|at| at >= offset) {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        ask(trio.ports()[to], &["REPLICAOF", "NO", "ONE"]);
        let port = trio.ports()[to].to_string();
        for other in (0..3).filter(|other| *other != to) {
            ask(trio.ports()[other], &["REPLICAOF", "127.0.0.1", &port]);
        }
        trio.all_follow();
        refuse("0");
    }
}
