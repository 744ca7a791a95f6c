//! Exhibitor's API, as far as it tells: the list, the status of all, the state of one.

use serde::Serialize;

use super::cell::{Cell, Member, Standing};
use crate::model::words::record::Text;

/// `/cluster/list`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct List {
    /// The hosts that serve.
    pub servers: Vec<Text>,
    /// The port of all of them.
    pub port: u16,
}

/// What ZooKeeper listens on where nobody is there to tell.
const USUAL_PORT: u16 = 2181;

impl List {
    /// Those that serve. The API knows one port: the first one's, whose ensemble has others is not listed whole.
    pub fn of(cell: &Cell) -> Self {
        let port = cell.ready().next().map_or(USUAL_PORT, |member| member.port);
        let servers = cell.ready().filter(|member| member.port == port).map(hostname).collect();
        Self { servers, port }
    }

    /// The same as a form has it.
    pub fn form(&self) -> String {
        let mut text = format!("count={}", self.servers.len());
        for (number, server) in self.servers.iter().enumerate() {
            text.push_str(&format!("&server{number}={}", escaped(server)));
        }
        text.push_str(&format!("&port={}", self.port));
        text
    }
}

/// How Exhibitor calls it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    code: u8,
    description: &'static str,
    hostname: Text,
    #[serde(rename = "isLeader")]
    is_leader: bool,
}

impl Status {
    /// Every member, also those that do not serve.
    pub fn of_all(cell: &Cell) -> Vec<Self> {
        cell.members().iter().map(|member| Self::of(cell, member)).collect()
    }

    fn of(cell: &Cell, member: &Member) -> Self {
        let (code, description) = code(cell, member);
        Self { code, description, hostname: hostname(member), is_leader: leads(member) }
    }
}

/// As clients put it before a colon and the port.
fn hostname(member: &Member) -> Text {
    if member.host.contains(':') { format!("[{}]", member.host).into() } else { member.host.clone() }
}

/// What a form may hold of it: a host has few other characters.
fn escaped(host: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let one = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
    host.bytes().map(one).collect()
}

fn code(cell: &Cell, member: &Member) -> (u8, &'static str) {
    match member.standing {
        _ if cell.serves(member) => (3, "serving"),
        Standing::Down => (1, "down"),
        _ => (2, "not serving"),
    }
}

fn leads(member: &Member) -> bool {
    matches!(member.standing, Standing::Serves { leads: true })
}

/// `/cluster/state`: of the member on one host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct State {
    switches: Switches,
    state: u8,
    description: &'static str,
    #[serde(rename = "isLeader")]
    is_leader: bool,
}

/// What Exhibitor does to its servers, and wharf does not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
struct Switches {
    restarts: bool,
    cleanup: bool,
    backups: bool,
}

impl State {
    /// Of the member on a node; latent where there is none.
    pub fn of(cell: &Cell, node: &str) -> Self {
        let (member, switches) = (own(cell, node), Switches::default());
        let (state, description) = member.map_or((0, "latent"), |member| code(cell, member));
        Self { switches, state, description, is_leader: member.is_some_and(leads) }
    }

    /// Of the member that is called so in the list.
    pub fn at(cell: &Cell, host: &str) -> Option<Self> {
        let member = cell.members().iter().find(|member| *hostname(member) == *host)?;
        let (state, description) = code(cell, member);
        Some(Self { switches: Switches::default(), state, description, is_leader: leads(member) })
    }

    /// Whether the member serves.
    pub fn serves(&self) -> bool {
        self.state == 3
    }
}

/// The member on a node: one that serves before others.
fn own<'c>(cell: &'c Cell, node: &str) -> Option<&'c Member> {
    let own = || cell.members().iter().filter(|member| &*member.node == node);
    own().find(|member| cell.serves(member)).or_else(|| own().next())
}

#[cfg(test)]
mod tests {
    use super::super::cell::tests::{nodes, service};
    use super::*;

    fn cell() -> Cell {
        let found = ["10.0.0.1 a replica", "10.0.0.2 b primary", "10.0.0.4 d -"];
        Cell::of("zookeeper", Some(&service(&found)), &nodes(&["c 0 10.0.0.3 cannot connect"]), None)
    }

    #[test]
    fn the_list_has_exhibitors_bytes() {
        let list = List::of(&cell());
        let json = serde_json::to_string(&list).expect("it encodes");
        assert_eq!(json, r#"{"servers":["10.0.0.1","10.0.0.2"],"port":2181}"#);
        assert_eq!(list.form(), "count=2&server0=10.0.0.1&server1=10.0.0.2&port=2181");
        let nobody = List::of(&Cell::default());
        assert_eq!(nobody.form(), "count=0&port=2181");
        let six = Cell::of("zookeeper", Some(&service(&["fd00::1 a primary"])), &[], None);
        assert_eq!(List::of(&six).form(), "count=1&server0=%5Bfd00%3A%3A1%5D&port=2181");
    }

    #[test]
    fn all_are_told_with_their_codes() {
        let json = serde_json::to_string(&Status::of_all(&cell())).expect("it encodes");
        let expected = [
            r#"{"code":3,"description":"serving","hostname":"10.0.0.1","isLeader":false}"#,
            r#"{"code":3,"description":"serving","hostname":"10.0.0.2","isLeader":true}"#,
            r#"{"code":1,"description":"down","hostname":"10.0.0.3","isLeader":false}"#,
            r#"{"code":2,"description":"not serving","hostname":"10.0.0.4","isLeader":false}"#,
        ];
        assert_eq!(json, format!("[{}]", expected.join(",")));
    }

    #[test]
    fn a_host_has_the_state_of_its_own_member() {
        for (node, state, serves) in [("b", 3, true), ("a", 3, true), ("c", 1, false), ("d", 2, false), ("x", 0, false)]
        {
            let told = State::of(&cell(), node);
            assert_eq!((told.state, told.serves(), told.is_leader), (state, serves, node == "b"), "{node}");
        }
        let json = serde_json::to_string(&State::of(&cell(), "b")).expect("it encodes");
        let switches = r#"{"restarts":false,"cleanup":false,"backups":false}"#;
        assert_eq!(json, format!(r#"{{"switches":{switches},"state":3,"description":"serving","isLeader":true}}"#));
    }
}
