//! `SIGHUP`: a table that comes, goes or changes is taken while the agent runs, and clients of the others notice
//! nothing.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use super::program::{Agent, Server, told};
use super::{PATIENCE, ask};

/// An agent whose tables are written anew.
struct Reloaded {
    agent: Agent,
    services: String,
}

impl Reloaded {
    fn take(&self, tables: &str) {
        std::fs::write(self.agent.settings(), format!("{}{tables}", self.services)).unwrap();
        self.agent.reload();
    }

    /// What `/v1/autodiscovery` tells of a service.
    fn shown(&self, service: &str) -> Value {
        let mut stream = UnixStream::connect(self.agent.socket()).unwrap();
        stream.write_all(b"GET /v1/autodiscovery HTTP/1.0\r\nHost: localhost\r\n\r\n").unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let told: Value = serde_json::from_str(reply.split_once("\r\n\r\n").unwrap().1).unwrap();
        let tables = told["autodiscoveries"].as_array().unwrap();
        tables.iter().find(|table| table["service"] == service).cloned().unwrap_or_default()
    }

    /// What it tells, once it is as it should be.
    fn until(&self, what: &str, service: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.agent.until(what, |_| holds(&self.shown(service)));
        self.shown(service)
    }
}

/// A client that keeps its connection.
struct Client(TcpStream);

impl Client {
    fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(stream)
    }

    fn is_answered(&mut self) -> bool {
        let mut reply = [0; 64];
        self.0.write_all(b"version\r\n").is_ok() && matches!(self.0.read(&mut reply), Ok(length) if length > 0)
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn table(service: &str, listen: &str, rest: &str) -> String {
    format!("[[autodiscovery]]\nservice = '{service}'\nlisten = '{listen}'\n{rest}\n")
}

#[test]
fn tables_come_change_and_go_while_the_agent_runs() {
    let (_cache, port) = Server::memcached();
    let services = format!(
        "[[service]]\nname = 'memcached'\nport = {port}\n[[service]]\nname = 'sessions'\nport = {port}\n\
         check = 'memcached'\n"
    );
    let reloaded = Reloaded { agent: Agent::start(&services), services };
    assert_eq!(reloaded.shown("memcached"), Value::Null, "nothing listens that was not asked for");

    // It comes.
    let memcached = table("memcached", "127.0.0.1:0", "");
    reloaded.take(&memcached);
    let shown = reloaded.until("it has a member", "memcached", |shown| shown["members"][0]["port"] == port);
    assert_eq!((&shown["stale"], &shown["leave_after_s"]), (&json!(false), &json!(300)));
    let address = shown["listen"].as_str().unwrap().to_owned();
    assert_eq!(ask(&address).map(|told| told.ports), Some(vec![port]));
    let mut client = Client::connect(&address);
    assert!(client.is_answered());
    reloaded.until("its client is counted", "memcached", |shown| shown["connections"] == 1);

    // Another one comes, open to all: its record with it. The first one is told of another time only.
    let open = free_port();
    let (first, second) = (table("memcached", "127.0.0.1:0", "leave-after = '7s'"), format!("0.0.0.0:{open}"));
    reloaded.take(&format!("{first}{}", table("sessions", &second, "")));
    reloaded.until("the other one is there", "sessions", |shown| shown["members"][0]["port"] == port);
    reloaded.until("the first one is told", "memcached", |shown| shown["leave_after_s"] == 7);
    reloaded
        .agent
        .prints("services sessions.cfg -o hostport", "its record", |shown| shown.trim() == format!("127.0.0.1:{open}"));
    assert_eq!(reloaded.shown("memcached")["listen"], address.as_str(), "the same socket");
    assert!(client.is_answered());

    // It listens elsewhere: where another program does, and that ends.
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = taken.local_addr().unwrap().to_string();
    reloaded.take(&format!("{first}{}", table("sessions", &elsewhere, "")));
    let shown = reloaded.until("it cannot", "sessions", |shown| shown["reason"].is_string());
    assert!(shown["reason"].as_str().unwrap().contains(&format!("cannot listen on {elsewhere}: ")), "{shown}");
    let explained = told(&reloaded.agent.wharf("explain")).1;
    assert!(explained.contains(&format!("auto-discovery of sessions at {elsewhere} is not served: ")), "{explained}");
    assert!(explained.contains("tells of 1 member, version "), "{explained}");
    assert!(TcpStream::connect(format!("127.0.0.1:{open}")).is_err(), "the old place is left");
    drop(taken);
    reloaded.until("it does", "sessions", |shown| shown["reason"].is_null());
    assert_eq!(ask(&elsewhere).map(|told| told.ports), Some(vec![port]));
    assert!(client.is_answered());

    // What cannot be read changes nothing.
    reloaded.take("[[autodiscovery]]\nlisten = 'x'\n");
    reloaded.agent.until("it is refused", |agent| agent.log().contains("reload refused"));
    assert!(client.is_answered() && reloaded.shown("sessions")["listen"] == elsewhere.as_str());

    // The first one goes, with its clients; the other one stays, and nothing waits for a restart.
    let mut other = Client::connect(&elsewhere);
    assert!(other.is_answered());
    reloaded.take(&table("sessions", &elsewhere, ""));
    reloaded.until("it is gone", "memcached", Value::is_null);
    reloaded.agent.until("its socket, too", |_| TcpStream::connect(&address).is_err());
    assert!(!client.is_answered());
    assert!(other.is_answered());
    assert!(!reloaded.agent.log().contains("wait for a restart"), "{}", reloaded.agent.log());

    // It comes back with the version that it told.
    reloaded.take(&format!("{memcached}{}", table("sessions", &elsewhere, "")));
    let again = reloaded.until("it is back", "memcached", |shown| shown["version"].is_u64());
    assert!(again["members"][0]["port"] == port, "{again}");
    assert!(other.is_answered());
}

#[test]
fn who_is_away_is_shown_with_its_time() {
    let (cache, port) = Server::memcached();
    let service =
        format!("[[service]]\nname = 'memcached'\nport = {port}\ncheck = 'memcached'\ncheck_interval = '100ms'\n");
    let services = format!("{service}{}", table("memcached", "127.0.0.1:0", ""));
    let reloaded = Reloaded { agent: Agent::start(&services), services };
    reloaded.until("it is a member", "memcached", |shown| shown["members"][0]["port"] == port);
    cache.freeze();
    reloaded.until("it is away", "memcached", |shown| shown["members"][0]["away_s"].as_u64() >= Some(1));
    let explained = told(&reloaded.agent.wharf("explain")).1;
    assert!(explained.contains(&format!("  127.0.0.1:{port} on core-01 has no record for ")), "{explained}");
    assert!(explained.contains("s, and leaves after 300s"), "{explained}");
}
