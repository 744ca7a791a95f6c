//! An operator's connection to a Redis server: named, alone of its name's service, and told to do things.
//!
//! Every exchange has a deadline, after which the connection is of no use any more: a reply that comes late would be
//! taken for another's. Whoever uses it opens no other one under the same operation.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use super::reply::{Value, parse};
use super::{Login, command};
use crate::model::steer::command::{Command, FREEZE_PORT, PAUSE_MS};
use crate::wire::{Connection, WireError, quote};

/// How long connecting, or one exchange, may take.
const PATIENCE: Duration = Duration::from_millis(1_000);
/// The longest reply, which is that of `CLIENT LIST`.
const MAX_REPLY: usize = 16 << 20;
/// What the name of an operation's connection begins with.
pub const NAME: &str = "wharf-topology:";

/// What went wrong with a server.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The connection, which is of no use any more.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// No answer in time; neither is it of use then.
    #[error("no answer within {PATIENCE:?}")]
    Late,
    /// The server said no.
    #[error("refused {command}: {words}")]
    Refused {
        /// What it was asked.
        command: String,
        /// What it said, escaped.
        words: String,
    },
}

/// A connection of one operation.
#[derive(Debug)]
pub struct OperatorConnection {
    connection: Connection,
    id: i64,
    asks_login: bool,
}

/// Another client, as `CLIENT LIST` has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// Its id.
    pub id: i64,
    /// The name that it gave itself.
    pub name: String,
    /// What it is, a letter each: `N` normal, `S` a replica, `M` the master, `P` a subscriber, `b` waiting.
    pub flags: String,
    /// Its last command.
    pub command: String,
}

/// What a server is set up with to follow another one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplicaSetup {
    /// It has a `masterauth`.
    pub has_login: bool,
    /// `tls-replication yes`.
    pub speaks_tls: bool,
}

impl OperatorConnection {
    /// Connects, logs in, and takes the name of this operation.
    pub async fn open(
        target: SocketAddr,
        tls: bool,
        login: Option<Login<'_>>,
        name: &str,
    ) -> Result<Self, OperatorError> {
        let deadline = Instant::now() + PATIENCE;
        let opened = async { if tls { Connection::open_tls(target).await } else { Connection::open(target).await } };
        let connection = timeout_at(deadline, opened).await.map_err(|_| OperatorError::Late)??;
        let mut own = Self { connection, id: 0, asks_login: false };
        if let Some(login) = login {
            let [knock] = own.ask([&["PING"]]).await?;
            own.asks_login = knock.refusal().is_some_and(|words| words.starts_with("NOAUTH"));
            let mut request = vec![];
            match login.user {
                Some(user) => command(&mut request, &["AUTH", user, login.password]),
                None => command(&mut request, &["AUTH", login.password]),
            }
            let sent = timeout_at(deadline, own.connection.send_secret(&request)).await;
            sent.map_err(|_| OperatorError::Late)??;
            let reply = own.reply(deadline).await?;
            accepted("auth", &reply)?;
        }
        let [named, id] = own.ask([&["CLIENT", "SETNAME", name], &["CLIENT", "ID"]]).await?;
        accepted("client|setname", &named)?;
        accepted("client|id", &id)?;
        if let Value::Number(id) = id {
            own.id = id;
        }
        Ok(own)
    }

    /// Whether it answers nobody who has not logged in: a replica of it must do so, too. Not known of one that was
    /// opened without a login.
    pub fn asks_login(&self) -> bool {
        self.asks_login
    }

    /// What it is set up with to follow another server. Its password goes no further than this.
    pub async fn replica_setup(&mut self) -> Result<ReplicaSetup, OperatorError> {
        let [login, tls] = self.ask([&["CONFIG", "GET", "masterauth"], &["CONFIG", "GET", "tls-replication"]]).await?;
        accepted("config|get", &login)?;
        accepted("config|get", &tls)?;
        let value = |reply: &Value| reply.items().last().and_then(Value::text).map(str::to_owned).unwrap_or_default();
        Ok(ReplicaSetup { has_login: !value(&login).is_empty(), speaks_tls: value(&tls) == "yes" })
    }

    /// Every other client.
    pub async fn others(&mut self) -> Result<Vec<Client>, OperatorError> {
        let [list] = self.ask([&["CLIENT", "LIST"]]).await?;
        accepted("client|list", &list)?;
        let clients = list.text().unwrap_or_default().lines().filter_map(client);
        Ok(clients.filter(|client| client.id != self.id).collect())
    }

    /// Ends another client's connection: nothing that it has sent and the server has not read is executed.
    pub async fn kill(&mut self, id: i64) -> Result<(), OperatorError> {
        let [killed] = self.ask([&["CLIENT", "KILL", "ID", &id.to_string()]]).await?;
        match killed.refusal() {
            // It went by itself meanwhile.
            Some(words) if words.contains("No such client") => Ok(()),
            _ => accepted("client|kill", &killed),
        }
    }

    /// Takes another name.
    pub async fn rename(&mut self, name: &str) -> Result<(), OperatorError> {
        let [named] = self.ask([&["CLIENT", "SETNAME", name]]).await?;
        accepted("client|setname", &named)
    }

    /// Everything that `INFO` tells.
    pub async fn info(&mut self) -> Result<Info, OperatorError> {
        let [info] = self.ask([&["INFO"]]).await?;
        accepted("info", &info)?;
        Ok(Info::read(info.text().unwrap_or_default()))
    }

    /// Where it is in replication, now.
    pub async fn replication(&mut self) -> Result<Info, OperatorError> {
        let [info] = self.ask([&["INFO", "replication"]]).await?;
        accepted("info", &info)?;
        Ok(Info::read(info.text().unwrap_or_default()))
    }

    /// Whether this login may use what a switch needs; the first command that it may not. Servers before Redis 7 cannot
    /// be asked, and say so when it comes to it.
    pub async fn lacks(&mut self, user: &str) -> Result<Option<String>, OperatorError> {
        const NEEDED: [&[&str]; 7] = [
            &["REPLICAOF", "NO", "ONE"],
            &["MULTI"],
            &["EXEC"],
            &["CLIENT", "PAUSE", "1", "WRITE"],
            &["CLIENT", "UNPAUSE"],
            &["CLIENT", "KILL", "ID", "1"],
            &["ROLE"],
        ];
        for words in NEEDED {
            let mut question = vec!["ACL", "DRYRUN", user];
            question.extend(words);
            let [reply] = self.ask([&question]).await?;
            match reply {
                Value::Text(no) if no.contains("no permissions") => {
                    let parts = if words[0] == "CLIENT" { 2 } else { 1 };
                    return Ok(Some(words[..parts].join("|").to_lowercase()));
                }
                Value::Error(_) => return Ok(None),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Sends a command, and looks where the server is then. `CONFIG REWRITE` fails where there is no file: then what
    /// was told ends with the process, which starts frozen.
    pub async fn tell(&mut self, told: &Command) -> Result<Info, OperatorError> {
        const KILL: &[&str] = &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"];
        let pause = PAUSE_MS.to_string();
        match told {
            Command::Pause => self.sequence(&[&["CLIENT", "PAUSE", &pause, "WRITE"]]).await?,
            Command::Unpause => self.sequence(&[&["CLIENT", "UNPAUSE"]]).await?,
            Command::Promote => {
                // In one: with its first replica a master that has no backlog begins another history.
                let promote: &[&str] = &["REPLICAOF", "NO", "ONE"];
                let done = self.transaction(&[promote, &["INFO", "replication"]]).await?;
                return Ok(Info::read(done.text().unwrap_or_default()));
            }
            Command::Undo => {
                self.transaction(&[&["REPLICAOF", "NO", "ONE"], &["CLIENT", "UNPAUSE"]]).await?;
            }
            Command::Freeze(mark) => {
                let (host, port) = (mark.address().to_string(), FREEZE_PORT.to_string());
                self.transaction(&[&["REPLICAOF", &host, &port], KILL]).await?;
            }
            Command::Attach { host, port } => self.sequence(&[&["REPLICAOF", host, &port.to_string()]]).await?,
            Command::Release { host, port } => {
                let pubsub: &[&str] = &["CLIENT", "KILL", "TYPE", "pubsub"];
                let follow: &[&str] = &["REPLICAOF", host, &port.to_string()];
                self.transaction(&[follow, KILL, pubsub, &["CLIENT", "UNPAUSE"]]).await?;
            }
        }
        self.replication().await
    }

    /// Has it write its configuration, where it has a file for that.
    pub async fn rewrite(&mut self) -> Result<(), OperatorError> {
        self.ask([&["CONFIG", "REWRITE"]]).await.map(|_| ())
    }

    async fn sequence(&mut self, commands: &[&[&str]]) -> Result<(), OperatorError> {
        for words in commands {
            let [reply] = self.ask([words]).await?;
            accepted(&words.join(" "), &reply)?;
        }
        Ok(())
    }

    /// What `EXEC` answers.
    async fn transaction(&mut self, commands: &[&[&str]]) -> Result<Value, OperatorError> {
        let mut request = vec![];
        command(&mut request, &["MULTI"]);
        for words in commands {
            command(&mut request, words);
        }
        command(&mut request, &["EXEC"]);
        let deadline = Instant::now() + PATIENCE;
        let sent = timeout_at(deadline, self.connection.send(&request)).await;
        sent.map_err(|_| OperatorError::Late)??;
        // MULTI and each command are answered first; one that is refused there refuses the whole.
        for words in [&["MULTI"] as &[&str]].iter().chain(commands) {
            let reply = self.reply(deadline).await?;
            accepted(&words.join(" "), &reply)?;
        }
        let reply = self.reply(deadline).await?;
        match reply {
            Value::Array(_) => accepted("exec", &reply).map(|()| reply),
            _ => Err(OperatorError::Refused { command: "exec".to_owned(), words: "no transaction".to_owned() }),
        }
    }

    async fn ask<const N: usize>(&mut self, commands: [&[&str]; N]) -> Result<[Value; N], OperatorError> {
        let mut request = vec![];
        for words in commands {
            command(&mut request, words);
        }
        let deadline = Instant::now() + PATIENCE;
        let sent = timeout_at(deadline, self.connection.send(&request)).await;
        sent.map_err(|_| OperatorError::Late)??;
        let mut replies = [const { Value::Null }; N];
        for reply in &mut replies {
            *reply = self.reply(deadline).await?;
        }
        Ok(replies)
    }

    async fn reply(&mut self, deadline: Instant) -> Result<Value, OperatorError> {
        let reply = timeout_at(deadline, self.connection.reply_within(MAX_REPLY, parse)).await;
        Ok(reply.map_err(|_| OperatorError::Late)??)
    }
}

fn accepted(command: &str, reply: &Value) -> Result<(), OperatorError> {
    match reply.refusal() {
        None => Ok(()),
        Some(words) => Err(OperatorError::Refused { command: command.to_owned(), words: quote(words.as_bytes()) }),
    }
}

fn client(line: &str) -> Option<Client> {
    let field = |name: &str| line.split(' ').find_map(|field| field.strip_prefix(name));
    let text = |name| field(name).unwrap_or_default().to_owned();
    Some(Client { id: field("id=")?.parse().ok()?, name: text("name="), flags: text("flags="), command: text("cmd=") })
}

/// The fields of `INFO`.
#[derive(Clone, Debug, Default)]
pub struct Info(HashMap<String, String>);

impl Info {
    /// Most of its lines are of no interest, and a server that sends more than this is none.
    const MOST: usize = 2_000;

    fn read(text: &str) -> Self {
        let lines = text.lines().take(Self::MOST).filter_map(|line| line.split_once(':'));
        Self(lines.map(|(key, value)| (key.to_owned(), value.trim_end().to_owned())).collect())
    }

    /// A field's text; empty when it is not there.
    pub fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// A field's number, when it is one.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.text(key).parse().ok()
    }

    /// Whether a field is 1.
    pub fn is_on(&self, key: &str) -> bool {
        self.text(key) == "1"
    }

    /// The keys of all databases: `db0:keys=5,expires=0,…`.
    pub fn keys(&self) -> u64 {
        let databases = self.0.iter().filter(|(key, _)| {
            key.strip_prefix("db")
                .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
        });
        let counts = databases.filter_map(|(_, value)| value.split(',').find_map(|part| part.strip_prefix("keys=")));
        counts.filter_map(|count| count.parse::<u64>().ok()).fold(0, u64::saturating_add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_is_read_by_its_fields() {
        let text = "# Keyspace\r\nrole:slave\r\ndb0:keys=5,expires=0\r\ndb12:keys=7\r\ndbx:keys=9\r\nloading:1\r\n";
        let info = Info::read(text);
        assert_eq!((info.text("role"), info.keys(), info.is_on("loading")), ("slave", 12, true));
        assert_eq!(info.number("role"), None);
    }

    #[test]
    fn clients_are_read_by_id_and_name() {
        let line = "id=12 addr=127.0.0.1:5 name=wharf-topology:redis-1:7 age=1 flags=N cmd=client|list";
        let (name, flags, command) = ("wharf-topology:redis-1:7".to_owned(), "N".to_owned(), "client|list".to_owned());
        assert_eq!(client(line), Some(Client { id: 12, name, flags, command }));
        assert_eq!(client("addr=x name=y"), None);
    }
}
