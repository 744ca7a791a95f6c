//! An operation's connections: one to each server, opened and fenced before its first commit, never opened again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;

use crate::model::steer::command::{Command, Mark};
use crate::model::steer::late::is_held;
use crate::model::steer::roster::Listed;
use crate::model::steer::server::{Follows, Hindrance, Position, ServerState, Sight, Upstream};
use crate::model::steer::told::Sights;
use crate::model::steer::topology::Server;
use crate::wire::redis::Login;
use crate::wire::redis::operator::{Info, NAME, OperatorConnection, OperatorError};

/// How an operation logs in.
#[derive(Clone, Debug, Default)]
pub(super) struct Access {
    pub(super) service: String,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) tls: bool,
}

/// The name of a connection that only looks.
const LOOKER: &str = "wharf-look";

/// The connections that still are of use.

#[derive(Debug, Default)]
pub(super) struct Connections(BTreeMap<String, OperatorConnection>);

/// What became of one server when it was fenced.
type Fenced = (Listed, Result<(OperatorConnection, ServerState), OperatorError>);

impl Access {
    fn login(&self) -> Option<Login<'_>> {
        self.password.as_deref().map(|password| Login { user: self.user.as_deref(), password })
    }

    fn name(&self, number: u64) -> String {
        format!("{NAME}{}:{number}", self.service)
    }

    /// Ends every other connection of this service's operations to the server, then looks at it.
    async fn fence(&self, server: Listed, number: u64) -> Fenced {
        let result = async {
            let target = SocketAddr::new(server.host, server.port);
            let mut own = OperatorConnection::open(target, self.tls, self.login(), &self.name(number)).await?;
            let mut hindrances = vec![];
            for other in own.others().await? {
                match other.name.strip_prefix(NAME).and_then(|rest| rest.rsplit_once(':')) {
                    Some((service, _)) if service == self.service => own.kill(other.id).await?,
                    Some((service, _)) => hindrances.push(Hindrance::Operator(service.to_owned())),
                    None if other.name.starts_with("sentinel-") => hindrances.push(Hindrance::Sentinel),
                    None if is_held(&other.flags, &other.command) => hindrances.push(Hindrance::Paused),
                    None => {}
                }
            }
            if let Some(user) = &self.user {
                hindrances.extend(own.lacks(user).await?.map(Hindrance::Login));
            }
            let (upstream, untold) = self.upstream(&mut own).await?;
            hindrances.extend(untold);
            let info = own.info().await?;
            hindrances.extend(hindrances_of(&info));
            hindrances.sort();
            hindrances.dedup();
            // The agent saw this process begin, so its host has not rebooted since. Nothing else proves it, or the
            // contrary.
            let seen_to_begin = server.agent.zip(process_start(&info)).is_some_and(|(agent, began)| agent < began);
            let rebooted = seen_to_begin.then_some(false);
            let state = ServerState { hindrances, rebooted, upstream, ..state(&info) };
            Ok((own, state))
        };
        let result = result.await;
        (server, result)
    }

    /// What it takes to follow this server, and what it has to follow another; or that this login may not ask it. Asked
    /// only where a replica needs more than an address.
    async fn upstream(&self, own: &mut OperatorConnection) -> Result<(Upstream, Option<Hindrance>), OperatorError> {
        let asks_login = own.asks_login();
        if !asks_login && !self.tls {
            return Ok((Upstream::default(), None));
        }
        match own.replica_setup().await {
            Ok(setup) => {
                let lacks_tls = self.tls && !setup.speaks_tls;
                Ok((Upstream { asks_login, has_login: setup.has_login, lacks_tls }, None))
            }
            Err(OperatorError::Refused { .. }) => {
                let untold = Hindrance::Login("config|get".to_owned());
                Ok((Upstream { asks_login, ..Upstream::default() }, Some(untold)))
            }
            Err(error) => Err(error),
        }
    }

    /// Looks at the servers without fencing them, as one who is not going to tell them anything.
    pub(super) async fn look(&self, servers: Vec<Listed>) -> Sights {
        let looks = servers.into_iter().map(|server| async move {
            let target = SocketAddr::new(server.host, server.port);
            let looked = async {
                let mut own = OperatorConnection::open(target, self.tls, self.login(), LOOKER).await?;
                own.info().await
            };
            let sight = match looked.await {
                Ok(info) => Sight::Answers(Box::new(ServerState { hindrances: hindrances_of(&info), ..state(&info) })),
                Err(error) => Sight::Unreached(error.to_string()),
            };
            let host = server.host.to_string();
            (server.name.clone(), (Server { name: server.name, host, port: server.port, ..Server::default() }, sight))
        });
        join_all(looks).await.into_iter().collect()
    }
}

impl Connections {
    /// Fences every server; each with the address the registry has, and what it says.
    pub(super) async fn open(
        access: &Access,
        servers: Vec<Listed>,
        number: u64,
    ) -> (Self, BTreeMap<String, (Server, Sight)>) {
        let fenced = join_all(servers.into_iter().map(|server| access.fence(server, number))).await;
        let (mut connections, mut seen) = (BTreeMap::new(), BTreeMap::new());
        for (listed, result) in fenced {
            let name = listed.name.clone();
            let sight = match result {
                Ok((connection, state)) => {
                    connections.insert(name.clone(), connection);
                    Sight::Answers(Box::new(state))
                }
                Err(error) => Sight::Unreached(error.to_string()),
            };
            let host = listed.host.to_string();
            let server = Server { name: name.clone(), host, port: listed.port, ..Server::default() };
            seen.insert(name, (server, sight));
        }
        (Self(connections), seen)
    }

    /// Takes the operation's own number for a name, once it is known.
    pub(super) async fn rename(&mut self, access: &Access, number: u64) -> Vec<String> {
        let name = access.name(number);
        let renamed = self.0.iter_mut().map(|(server, connection)| {
            let name = name.clone();
            async move { connection.rename(&name).await.err().map(|_| server.clone()) }
        });
        let broken: Vec<String> = join_all(renamed).await.into_iter().flatten().collect();
        self.0.retain(|server, _| !broken.contains(server));
        broken
    }

    /// Sends `command`, or only looks. A failure ends this server's part.
    pub(super) async fn tell(&mut self, server: &str, command: Option<&Command>) -> Result<Info, String> {
        let Some(connection) = self.0.get_mut(server) else { return Err("its connection broke".to_owned()) };
        let told = match command {
            Some(command) => connection.tell(command).await,
            None => connection.replication().await,
        };
        told.map_err(|error| {
            self.0.remove(server);
            error.to_string()
        })
    }

    /// Takes one out, for what is left to do there.
    pub(super) fn take(&mut self, server: &str) -> Option<OperatorConnection> {
        self.0.remove(server)
    }

    /// Looks at several at once.
    pub(super) async fn look(&mut self, servers: &[String]) -> Vec<(String, Result<Info, String>)> {
        let wanted = self.0.iter_mut().filter(|(name, _)| servers.contains(name));
        let looks = wanted.map(|(name, connection)| async move { (name.clone(), connection.replication().await) });
        let mut seen: Vec<_> = join_all(looks)
            .await
            .into_iter()
            .map(|(name, info)| (name, info.map_err(|error| error.to_string())))
            .collect();
        for name in servers.iter().filter(|name| !self.0.contains_key(*name)) {
            seen.push((name.clone(), Err("its connection broke".to_owned())));
        }
        for (name, _) in seen.iter().filter(|(_, info)| info.is_err()) {
            self.0.remove(name);
        }
        seen
    }

    /// Has every server write its configuration, where it has a file.
    pub(super) async fn rewrite(&mut self) {
        for (server, connection) in &mut self.0 {
            if let Err(error) = connection.rewrite().await {
                tracing::debug!(server, %error, "a server's configuration was not written");
            }
        }
    }
}

fn hindrances_of(info: &Info) -> Vec<Hindrance> {
    let failover = !matches!(info.text("master_failover_state"), "" | "no-failover");
    let paused = !matches!(info.text("paused_reason"), "" | "none");
    let all = [
        (info.is_on("loading"), Hindrance::Loading),
        (info.is_on("master_sync_in_progress"), Hindrance::Syncing),
        (info.is_on("cluster_enabled"), Hindrance::Cluster),
        (failover, Hindrance::Failover),
        (paused, Hindrance::Paused),
    ];
    all.into_iter().filter(|(there, _)| *there).map(|(_, hindrance)| hindrance).collect()
}

fn state(info: &Info) -> ServerState {
    ServerState {
        run: info.text("run_id").to_owned(),
        follows: follows(info),
        position: position(info),
        keys: info.keys(),
        bytes: info.number("used_memory_dataset").unwrap_or_default(),
        append_only: info.is_on("aof_enabled"),
        rebooted: None,
        upstream: Upstream::default(),
        hindrances: vec![],
        paused: None,
        frozen: None,
        unpaused: false,
    }
}

/// When the server's process began, in milliseconds of its own host's clock.
fn process_start(info: &Info) -> Option<u64> {
    let now = info.number("server_time_usec")? / 1_000;
    now.checked_sub(info.number("uptime_in_seconds")? * 1_000)
}

fn follows(info: &Info) -> Follows {
    let host = info.text("master_host");
    match (info.text("role"), Mark::read(host)) {
        ("slave", Some(mark)) => Follows::Frozen(mark),
        ("slave", None) => Follows::At {
            host: host.to_owned(),
            port: info.number("master_port").and_then(|port| u16::try_from(port).ok()).unwrap_or_default(),
            up: info.text("master_link_status") == "up",
        },
        _ => Follows::NoOne,
    }
}

fn position(info: &Info) -> Position {
    // A replica that never had a master says 1 for its own offset, and 0 for the stream that a promotion goes on from.
    let is_fresh = info.number("master_repl_offset") == Some(0);
    let is_replica = info.text("role") == "slave" && !is_fresh;
    let offset = if is_replica { "slave_repl_offset" } else { "master_repl_offset" };
    let second = info.text("master_replid2");
    let end = info.number("second_repl_offset").filter(|_| second.bytes().any(|byte| byte != b'0'));
    Position {
        id: info.text("master_replid").to_owned(),
        offset: info.number(offset).unwrap_or_default(),
        second: end.map(|end| (second.to_owned(), end)),
    }
}

/// Takes in what a server said after `command`.
pub(super) fn hear(sight: &mut Sight, said: Result<Info, String>, command: Option<&Command>, now: Duration) {
    let (Sight::Answers(state), Ok(info)) = (&mut *sight, said) else {
        *sight = Sight::Broken;
        return;
    };
    (state.follows, state.position) = (follows(&info), position(&info));
    match command {
        Some(Command::Pause) => state.paused = Some((now, state.position.offset)),
        Some(Command::Freeze(_)) => state.frozen = Some(now),
        Some(Command::Undo | Command::Unpause) => state.unpaused = true,
        Some(Command::Promote | Command::Release { .. } | Command::Attach { .. }) | None => {}
    }
}
