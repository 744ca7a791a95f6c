//! What is said to one client: a state, and from a command to a reply.

use std::fmt;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::info::info;
use super::listing::{master_fields, replica_fields, sentinel_fields};
use super::masters::{Masters, SeenMaster};
use super::reply::{Resp, RespValue};
use super::subscriptions::{By, Subscriptions};
use crate::model::words::record::Text;

/// Unknown words are quoted up to this length, as by Redis.
const QUOTED: usize = 128;

/// The password that clients have to know.
#[derive(Clone)]
pub struct SentinelPassword([u8; 32]);

impl SentinelPassword {
    /// A password, as its file has it without the end of its line; `None` when nothing is left.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim_end_matches(['\r', '\n']);
        (!text.is_empty()).then(|| Self(Sha256::digest(text).into()))
    }

    /// Compares digests, so that the time taken tells nothing of the password.
    fn is(&self, offered: &[u8]) -> bool {
        <[u8; 32]>::from(Sha256::digest(offered)) == self.0
    }
}

impl fmt::Debug for SentinelPassword {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SentinelPassword(…)")
    }
}

/// What this Sentinel is.
#[derive(Clone, Debug)]
pub struct SentinelFacts {
    /// Its id among the others.
    pub id: Text,
    /// The agent's version.
    pub version: Text,
    /// The port that it serves on.
    pub port: u16,
    /// What clients have to know.
    pub password: Option<SentinelPassword>,
}

impl SentinelFacts {
    /// The version of Redis whose Sentinel this is like: clients ask newer ones for more than there is here.
    pub(super) const REDIS: &'static str = "7.2.0";

    /// Those of an agent.
    pub fn new(owner: &str, version: &str, port: u16, password: Option<SentinelPassword>) -> Self {
        Self { id: super::masters::hex_id(&[owner]), version: version.into(), port, password }
    }
}

/// What replies are made from.
#[derive(Clone, Copy, Debug)]
pub struct Ground<'g> {
    /// The masters.
    pub masters: &'g Masters,
    /// The Sentinel itself.
    pub facts: &'g SentinelFacts,
    /// Clients that are connected.
    pub clients: i64,
    /// The time since the agent started.
    pub now: Duration,
}

/// What is said to a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// These replies: one, but to those who subscribe.
    Replies(Vec<RespValue>),
    /// The fields of every master, one after the other: a long list need not be in memory at once.
    Masters,
    /// This, and then the connection ends.
    Last(RespValue),
}

impl From<RespValue> for Said {
    fn from(value: RespValue) -> Self {
        Self::Replies(vec![value])
    }
}

/// The conversation with one client.
#[derive(Clone, Debug)]
pub struct Talk {
    number: i64,
    resp: Resp,
    is_in: bool,
    name: Vec<u8>,
    subscriptions: Subscriptions,
}

/// A reply, or the error that is one.
type Outcome<T> = Result<T, RespValue>;

impl Talk {
    /// A conversation with a client of this number, who has to log in first if there is a password.
    pub fn new(number: i64, facts: &SentinelFacts) -> Self {
        let is_in = facts.password.is_none();
        Self { number, resp: Resp::Two, is_in, name: Vec::new(), subscriptions: Subscriptions::default() }
    }

    /// The protocol that it goes on in.
    pub fn resp(&self) -> Resp {
        self.resp
    }

    /// Whether it may ask anything.
    pub fn is_in(&self) -> bool {
        self.is_in
    }

    /// Whether it waits for events.
    pub fn is_subscribed(&self) -> bool {
        self.subscriptions.count() > 0
    }

    /// What the client is sent of an event.
    pub fn messages<'s>(&'s self, channel: &'static str, payload: &'s str) -> impl Iterator<Item = RespValue> + 's {
        self.subscriptions.messages(channel, payload)
    }

    /// Whether the reply is to wait until a master is known again.
    pub fn is_held(&self, words: &[Vec<u8>], ground: &Ground<'_>) -> bool {
        let [command, subcommand, rest @ ..] = words else { return false };
        if !self.is_in || lower(command) != "sentinel" {
            return false;
        }
        match (lower(subcommand).as_str(), rest) {
            ("masters" | "primaries", []) => ground.masters.is_held(None, ground.now),
            (
                "get-master-addr-by-name" | "get-primary-addr-by-name" | "master" | "primary" | "replicas" | "slaves",
                [name],
            ) => ground.masters.is_held(Some(name), ground.now),
            _ => false,
        }
    }

    /// Says something to a command.
    pub fn answer(&mut self, words: &[Vec<u8>], ground: &Ground<'_>) -> Said {
        let Some((command, rest)) = words.split_first() else { return Said::Replies(Vec::new()) };
        self.told(&lower(command), rest, words, ground).unwrap_or_else(Said::from)
    }

    fn told(&mut self, command: &str, rest: &[Vec<u8>], words: &[Vec<u8>], ground: &Ground<'_>) -> Outcome<Said> {
        if !self.is_in && !["auth", "hello", "quit", "reset"].contains(&command) {
            return Err(RespValue::Error("NOAUTH Authentication required.".to_owned()));
        }
        let known = COMMANDS.iter().find(|(name, _)| *name == command);
        let (_, least) = known.ok_or_else(|| unknown(words))?;
        if words.len() < *least {
            return Err(wrong_number(command));
        }
        self.may_now(command)?;
        Ok(match command {
            "subscribe" => Said::Replies(self.subscriptions.add(By::Channel, rest)),
            "psubscribe" => Said::Replies(self.subscriptions.add(By::Pattern, rest)),
            "unsubscribe" => Said::Replies(self.subscriptions.remove(By::Channel, rest)),
            "punsubscribe" => Said::Replies(self.subscriptions.remove(By::Pattern, rest)),
            "quit" => Said::Last(RespValue::Simple("OK")),
            "reset" => {
                *self = Self::new(self.number, ground.facts);
                RespValue::Simple("RESET").into()
            }
            "ping" => self.ping(rest)?.into(),
            "auth" => self.auth(rest, ground.facts)?.into(),
            "hello" => self.hello(rest, ground.facts)?.into(),
            "client" => self.client(rest)?.into(),
            "command" => commands(rest)?.into(),
            "info" => {
                let sections: Vec<String> = rest.iter().map(|word| lower(word)).collect();
                RespValue::text(info(&sections, ground)).into()
            }
            "role" => role(ground.masters).into(),
            _ => sentinel(rest, ground)?,
        })
    }

    /// With RESP2 one that waits for events cannot be told anything else.
    fn may_now(&self, command: &str) -> Outcome<()> {
        let goes = ["subscribe", "psubscribe", "unsubscribe", "punsubscribe", "ping", "quit", "reset"];
        if self.resp == Resp::Three || !self.is_subscribed() || goes.contains(&command) {
            return Ok(());
        }
        Err(RespValue::err(format_args!(
            "Can't execute '{command}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
        )))
    }

    fn ping(&self, rest: &[Vec<u8>]) -> Outcome<RespValue> {
        let echo = match rest {
            [] => None,
            [text] => Some(RespValue::Bytes(text.clone())),
            _ => return Err(wrong_number("ping")),
        };
        if self.resp == Resp::Two && self.is_subscribed() {
            let echo = echo.unwrap_or_else(|| RespValue::text(""));
            return Ok(RespValue::Array(vec![RespValue::text("pong"), echo]));
        }
        Ok(echo.unwrap_or(RespValue::Simple("PONG")))
    }

    fn auth(&mut self, rest: &[Vec<u8>], facts: &SentinelFacts) -> Outcome<RespValue> {
        match rest {
            [_] if facts.password.is_none() => Err(RespValue::err(
                "AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
            )),
            [password] => self.log_in(b"default", password, facts),
            [user, password] => self.log_in(user, password, facts),
            _ => Err(RespValue::err("syntax error")),
        }?;
        Ok(RespValue::Simple("OK"))
    }

    fn log_in(&mut self, user: &[u8], password: &[u8], facts: &SentinelFacts) -> Outcome<()> {
        let is_right = facts.password.as_ref().is_none_or(|right| right.is(password));
        if user != b"default" || !is_right {
            let words = "WRONGPASS invalid username-password pair or user is disabled.";
            return Err(RespValue::Error(words.to_owned()));
        }
        self.is_in = true;
        Ok(())
    }

    fn hello(&mut self, rest: &[Vec<u8>], facts: &SentinelFacts) -> Outcome<RespValue> {
        let resp = match rest.first().map(|version| version.as_slice()) {
            None => self.resp,
            Some(b"2") => Resp::Two,
            Some(b"3") => Resp::Three,
            Some(other) if std::str::from_utf8(other).is_ok_and(|text| text.parse::<i64>().is_ok()) => {
                return Err(RespValue::Error("NOPROTO unsupported protocol version".to_owned()));
            }
            Some(_) => return Err(RespValue::err("Protocol version is not an integer or out of range")),
        };
        let (mut options, mut name) = (rest.get(1..).unwrap_or_default(), None);
        while let Some(option) = options.first() {
            (name, options) = match (lower(option).as_str(), options) {
                ("auth", [_, user, password, more @ ..]) => {
                    self.log_in(user, password, facts)?;
                    (name, more)
                }
                ("setname", [_, name, more @ ..]) => (Some(client_name(name)?), more),
                _ => return Err(RespValue::err(format_args!("Syntax error in HELLO option '{}'", shown(option)))),
            };
        }
        if !self.is_in {
            let words = "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> \
                         AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol \
                         version at the same time";
            return Err(RespValue::Error(words.to_owned()));
        }
        self.resp = resp;
        self.name = name.unwrap_or_else(|| std::mem::take(&mut self.name));
        Ok(RespValue::Map(vec![
            ("server", RespValue::text("redis")),
            ("version", RespValue::text(SentinelFacts::REDIS)),
            ("proto", RespValue::Number(if resp == Resp::Three { 3 } else { 2 })),
            ("id", RespValue::Number(self.number)),
            ("mode", RespValue::text("sentinel")),
            ("modules", RespValue::Array(Vec::new())),
        ]))
    }

    fn client(&mut self, rest: &[Vec<u8>]) -> Outcome<RespValue> {
        let (subcommand, rest) = rest.split_first().ok_or_else(|| wrong_number("client"))?;
        let ok = Ok(RespValue::Simple("OK"));
        match (lower(subcommand).as_str(), rest) {
            ("setname", [name]) => {
                self.name = client_name(name)?;
                ok
            }
            ("setinfo", [option, value]) => match lower(option).as_str() {
                "lib-name" | "lib-ver" => client_name(value).and(ok),
                _ => Err(RespValue::err(format_args!("Unrecognized option '{}'", shown(option)))),
            },
            ("getname", []) if self.name.is_empty() => Ok(RespValue::NoText),
            ("getname", []) => Ok(RespValue::Bytes(self.name.clone())),
            ("id", []) => Ok(RespValue::Number(self.number)),
            ("info", []) | ("list", _) => Ok(RespValue::text(self.line())),
            ("no-evict" | "no-touch", [_]) => ok,
            (known @ ("setname" | "setinfo" | "getname" | "id" | "info" | "no-evict" | "no-touch"), _) => {
                Err(wrong_number(&format!("client|{known}")))
            }
            _ => Err(RespValue::err(format_args!("unknown subcommand '{}'. Try CLIENT HELP.", shown(subcommand)))),
        }
    }

    /// What is told of clients: of each only himself.
    fn line(&self) -> String {
        let resp = if self.resp == Resp::Three { 3 } else { 2 };
        let (name, count) = (shown(&self.name), self.subscriptions.count());
        format!("id={} name={name} db=0 sub={count} user=default resp={resp}\n", self.number)
    }
}

/// The commands that are known, each with its fewest words, itself among them.
const COMMANDS: [(&str, usize); 14] = [
    ("auth", 2),
    ("client", 2),
    ("command", 1),
    ("hello", 1),
    ("info", 1),
    ("ping", 1),
    ("psubscribe", 2),
    ("punsubscribe", 1),
    ("quit", 1),
    ("reset", 1),
    ("role", 1),
    ("sentinel", 2),
    ("subscribe", 2),
    ("unsubscribe", 1),
];

fn commands(rest: &[Vec<u8>]) -> Outcome<RespValue> {
    let Some((subcommand, names)) = rest.split_first() else { return Ok(RespValue::Array(Vec::new())) };
    match lower(subcommand).as_str() {
        "count" => Ok(RespValue::Number(COMMANDS.len() as i64)),
        "list" => Ok(RespValue::Array(COMMANDS.map(|(name, _)| RespValue::text(name)).to_vec())),
        "docs" => Ok(RespValue::Map(Vec::new())),
        "info" => Ok(RespValue::Array(names.iter().map(|_| RespValue::NoText).collect())),
        _ => Err(RespValue::err(format_args!("unknown subcommand '{}'. Try COMMAND HELP.", shown(subcommand)))),
    }
}

fn role(masters: &Masters) -> RespValue {
    let names = masters.all().map(|master| RespValue::Text(master.name.clone())).collect();
    RespValue::Array(vec![RespValue::text("sentinel"), RespValue::Array(names)])
}

fn sentinel(rest: &[Vec<u8>], ground: &Ground<'_>) -> Outcome<Said> {
    let (subcommand, rest) = rest.split_first().ok_or_else(|| wrong_number("sentinel"))?;
    let masters = ground.masters;
    let of = |name: &[u8]| masters.get(name).ok_or_else(|| RespValue::err("No such master with that name"));
    let known = lower(subcommand);
    Ok(match (known.as_str(), rest) {
        ("masters" | "primaries", []) => Said::Masters,
        ("get-master-addr-by-name" | "get-primary-addr-by-name", [name]) => address(masters.get(name)).into(),
        ("master" | "primary", [name]) => {
            let fields = master_fields(of(name)?, masters);
            fields.ok_or_else(|| RespValue::err("No such master with that name"))?.into()
        }
        ("replicas" | "slaves", [name]) => {
            let master = of(name)?;
            RespValue::Array(master.replicas.iter().map(|replica| replica_fields(replica, master)).collect()).into()
        }
        ("sentinels", [name]) => {
            of(name)?;
            RespValue::Array(masters.sentinels.iter().map(sentinel_fields).collect()).into()
        }
        ("ckquorum", [name]) => {
            of(name)?;
            let usable = masters.sentinels.len() + 1;
            let words = format!("OK {usable} usable Sentinels. Quorum and failover authorization can be reached");
            RespValue::Status(words).into()
        }
        ("myid", []) => RespValue::Text(ground.facts.id.clone()).into(),
        ("pending-scripts", []) => RespValue::Array(Vec::new()).into(),
        ("is-master-down-by-addr", [_, _, _, _]) => {
            RespValue::Array(vec![RespValue::Number(0), RespValue::text("*"), RespValue::Number(0)]).into()
        }
        ("help", []) => help().into(),
        (
            "failover" | "monitor" | "remove" | "set" | "reset" | "config" | "flushconfig" | "simulate-failure"
            | "debug",
            _,
        ) => {
            return Err(RespValue::err(format_args!(
                "{known} is not for clients of this Sentinel: masters are those of the catalog, and wharf topology moves them"
            )));
        }
        (name, _) if SUBCOMMANDS.contains(&name) => return Err(wrong_number(&format!("sentinel|{name}"))),
        _ => {
            return Err(RespValue::err(format_args!("unknown subcommand '{}'. Try SENTINEL HELP.", shown(subcommand))));
        }
    })
}

/// Where a master is, unless another one is being made master.
fn address(master: Option<&SeenMaster>) -> RespValue {
    match master.and_then(SeenMaster::settled) {
        Some(server) => {
            RespValue::Array(vec![RespValue::Text(server.host.clone()), RespValue::text(server.port.to_string())])
        }
        None => RespValue::NoArray,
    }
}

const SUBCOMMANDS: [&str; 14] = [
    "ckquorum",
    "get-master-addr-by-name",
    "get-primary-addr-by-name",
    "help",
    "is-master-down-by-addr",
    "master",
    "masters",
    "myid",
    "pending-scripts",
    "primaries",
    "primary",
    "replicas",
    "sentinels",
    "slaves",
];

fn help() -> RespValue {
    let first = "SENTINEL <subcommand> [<arg> [value] [opt] ...]. Subcommands are:";
    RespValue::Array([first].into_iter().chain(SUBCOMMANDS).map(RespValue::text).collect())
}

fn client_name(name: &[u8]) -> Outcome<Vec<u8>> {
    if !name.iter().all(|byte| (b'!'..=b'~').contains(byte)) || name.len() > QUOTED {
        return Err(RespValue::err("Client names cannot contain spaces, newlines or special characters."));
    }
    Ok(name.to_vec())
}

/// A word as commands are compared.
fn lower(word: &[u8]) -> String {
    String::from_utf8_lossy(&word[..word.len().min(QUOTED)]).to_ascii_lowercase()
}

/// A word as it is shown to the one who sent it.
fn shown(word: &[u8]) -> String {
    String::from_utf8_lossy(&word[..word.len().min(QUOTED)]).into_owned()
}

fn unknown(words: &[Vec<u8>]) -> RespValue {
    let mut arguments = String::new();
    for word in &words[1.min(words.len())..] {
        if arguments.len() < QUOTED {
            arguments = format!("{arguments}'{}' ", shown(word));
        }
    }
    let command = words.first().map(|word| shown(word)).unwrap_or_default();
    RespValue::err(format_args!("unknown command '{command}', with args beginning with: {arguments}"))
}

fn wrong_number(command: &str) -> RespValue {
    RespValue::err(format_args!("wrong number of arguments for '{command}' command"))
}
