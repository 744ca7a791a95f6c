//! Where a command's facts come from: the local agent, or the store itself. Both are asked and followed alike.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tokio::time::sleep;

use super::client::{Client, ClientError, escaped};
use super::direct::{Direct, StoreArgs, Tree};
use super::events::{Event, Events};
use super::exit::Exit;
use super::place::ConnectArgs;
use super::terminal::Terminal;
use crate::catalog::facade::api::{Change, Nodes, Service, Services};
use crate::model::words::record::Text;

/// Pause before one that did not answer is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// Who is asked.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct SourceArgs {
    #[command(flatten)]
    #[allow(missing_docs)] // a doc comment would become the command's own help
    pub agent: ConnectArgs,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub store: StoreArgs,
}

/// An agent, or the store itself.
#[derive(Clone, Debug)]
pub enum Source {
    /// An agent.
    Agent(Client),
    /// The store itself.
    Store(Direct),
}

impl SourceArgs {
    /// The source asked for; wrong use is told and ends the command.
    pub fn source(&self, terminal: &mut Terminal) -> Result<Source, Exit> {
        match self.store.direct() {
            Ok(Some(direct)) => Ok(Source::Store(direct)),
            Ok(None) => Ok(Source::Agent(self.agent.client_from_env())),
            Err(what) => {
                terminal.fail(&what, "see --help");
                Err(Exit::Usage)
            }
        }
    }
}

impl Source {
    /// All services, or the one asked for in the same shape.
    pub async fn services(&self, name: Option<&str>) -> Result<Services, ClientError> {
        let client = match self {
            Self::Agent(client) => client,
            Self::Store(direct) => return direct.services(name).await,
        };
        let Some(name) = name else { return client.get("/v1/services").await };
        let service: Service = client.get(&format!("/v1/services/{}", escaped(name))).await?;
        Ok(Services {
            revision: service.revision.unwrap_or_default(),
            stale: service.stale.unwrap_or_default(),
            services: vec![service],
        })
    }

    /// Who is asked, in words.
    pub fn place(&self) -> String {
        match self {
            Self::Agent(client) => client.place(),
            Self::Store(direct) => direct.place().to_owned(),
        }
    }

    /// What every agent tells of its host.
    pub async fn nodes(&self) -> Result<Nodes, ClientError> {
        match self {
            Self::Agent(client) => client.get("/v1/nodes").await,
            Self::Store(direct) => direct.nodes().await,
        }
    }

    /// Follows all services, or the one of this name.
    pub fn follow(self, name: Option<String>) -> Follow {
        Follow { source: self, name, under_way: None, failed: false }
    }
}

/// Services as they change.
pub struct Follow {
    source: Source,
    name: Option<String>,
    under_way: Option<UnderWay>,
    failed: bool,
}

enum UnderWay {
    Agent(Box<Events>, Known),
    Store(Box<Tree>),
}

impl Follow {
    /// The services after the next change, or why they cannot be told now; either way, ask again.
    pub async fn next(&mut self) -> Result<Services, ClientError> {
        if std::mem::take(&mut self.failed) {
            sleep(AGAIN).await;
        }
        let told = self.try_next().await;
        if told.is_err() {
            self.failed = true;
            self.under_way = None;
        }
        told
    }

    async fn try_next(&mut self) -> Result<Services, ClientError> {
        if self.under_way.is_none() {
            match &self.source {
                Source::Agent(client) => {
                    let only = self.name.as_deref().map(|name| format!("&service={}", escaped(name)));
                    let path = format!("/v1/watch?changes=endpoints{}", only.unwrap_or_default());
                    let events = Events::open(client, &path).await?;
                    self.under_way = Some(UnderWay::Agent(Box::new(events), Known::default()));
                }
                Source::Store(direct) => {
                    let tree = direct.tree().await?;
                    let services = tree.services(self.name.as_deref());
                    self.under_way = Some(UnderWay::Store(Box::new(tree)));
                    return Ok(services);
                }
            }
        }
        match (&mut self.under_way, &self.source) {
            (Some(UnderWay::Agent(events, known)), Source::Agent(client)) => loop {
                let ended = || ClientError::Unreachable { tried: client.place(), why: "it has gone away".to_owned() };
                let event = events.next().await.ok_or_else(ended)?;
                let strange =
                    |error: serde_json::Error| ClientError::Strange { place: client.place(), why: error.to_string() };
                if known.take(&event).map_err(strange)? {
                    return Ok(known.services());
                }
            },
            (Some(UnderWay::Store(tree)), Source::Store(direct)) => {
                tree.next().await.map_err(|error| direct.trouble(&error))?;
                Ok(tree.services(self.name.as_deref()))
            }
            _ => unreachable!("what is under way was begun from this source just above"),
        }
    }
}

/// The services as an agent's events have told them.
#[derive(Debug, Default)]
struct Known {
    revision: i64,
    stale: bool,
    services: BTreeMap<Text, Service>,
}

impl Known {
    /// Takes an event in; tells whether it was about services.
    fn take(&mut self, event: &Event) -> Result<bool, serde_json::Error> {
        match event.kind.as_str() {
            "snapshot" => {
                let all: Services = serde_json::from_str(&event.data)?;
                (self.revision, self.stale) = (all.revision, all.stale);
                self.services = all.services.into_iter().map(|service| (service.name.clone(), service)).collect();
            }
            "change" => {
                let change: Change = serde_json::from_str(&event.data)?;
                (self.revision, self.stale) = (change.revision, change.stale);
                for name in &change.removed {
                    self.services.remove(name);
                }
                for service in change.changed {
                    self.change(service);
                }
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Takes in what is new, changed or gone of one service.
    fn change(&mut self, by: Service) {
        let known =
            self.services.entry(by.name.clone()).or_insert_with(|| Service { name: by.name, ..Service::default() });
        known.contested = by.contested;
        let fresh = by.endpoints.iter().map(|endpoint| &endpoint.key);
        let out: HashSet<&Text> = by.gone.iter().chain(fresh).collect();
        known.endpoints.retain(|endpoint| !out.contains(&endpoint.key));
        known.endpoints.extend(by.endpoints);
        known.endpoints.sort_by(|one, other| one.key.cmp(&other.key));
    }

    fn services(&self) -> Services {
        Services { revision: self.revision, stale: self.stale, services: self.services.values().cloned().collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_by_endpoint_lead_to_what_the_agent_has() {
        let mut known = Known::default();
        for (kind, data) in [
            ("snapshot", r#"{"services":[{"name":"redis","endpoints":[{"key":"a","port":1},{"key":"c","port":3}]}]}"#),
            ("local", "{}"),
            (
                "change",
                r#"{"changed":[{"name":"redis","contested":true,"gone":["c"],"endpoints":[{"key":"b","port":2}]}]}"#,
            ),
            (
                "change",
                r#"{"changed":[{"name":"redis","endpoints":[{"key":"a","port":9}]},{"name":"new","endpoints":[]}]}"#,
            ),
            ("change", r#"{"removed":["new"]}"#),
        ] {
            let event = Event { kind: kind.into(), data: data.into() };
            assert_eq!(known.take(&event).expect("it reads"), kind != "local");
        }
        let [redis] = &known.services().services[..] else { panic!("{known:?}") };
        let ports: Vec<u16> = redis.endpoints.iter().map(|endpoint| endpoint.record.port).collect();
        assert_eq!((ports, redis.contested), (vec![9, 2], false));
    }
}
