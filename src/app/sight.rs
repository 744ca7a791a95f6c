//! What renderers see: the agent's snapshot or the store's, keys and member lists of the store, and what endpoints of
//! auto-discovery tell. Each comes by a worker of its own, and one that is away takes nothing from the others.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::catalog::facade::api;
use crate::catalog::facade::autodiscovery::MemberList;
use crate::catalog::render::{DISCOVERY, Seen, Sight, place};
use crate::cli::client::{Client, ClientError};
use crate::cli::events::{Event, Events};
use crate::host::names;
use crate::model::words::key::Prefix;
use crate::model::words::record::Text;
use crate::model::words::zone::Zones;
use crate::render::Asked;
use crate::store::{self, Store, StoreError, watch_since};
use crate::view::{CatalogView, Progress};
use crate::wire::{Connection, discovery};

/// Pause before one that did not answer is asked again.
const AGAIN: Duration = Duration::from_millis(500);
/// A watch of the store that is silent for longer is not in step any more.
const SILENCE: Duration = Duration::from_secs(10);
/// The longest value of a key that templates are told, in bytes.
const LONGEST_VALUE: usize = 256 * 1024;
/// How often endpoints of auto-discovery are asked; sooner after one that did not answer.
const DISCOVER: Duration = Duration::from_secs(60);
const DISCOVER_AGAIN: Duration = Duration::from_secs(5);
/// How long one may take to answer.
const DISCOVERY_PATIENCE: Duration = Duration::from_secs(5);
/// A store that changes all the time is looked at so often.
const GLANCE: Duration = Duration::from_millis(10);

/// Where the picture is kept; every worker changes its own part.
pub(super) type Picture = watch::Sender<Arc<Sight>>;

fn change(picture: &Picture, change: impl FnOnce(&mut Sight)) {
    picture.send_modify(|sight| change(Arc::make_mut(sight)));
}

/// Sees what an agent sees.
pub(super) struct AgentEyes {
    pub(super) agent: Client,
    pub(super) picture: Picture,
}

impl AgentEyes {
    /// Works until told to stop.
    pub(super) async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let seeing = async {
            loop {
                if let Err(error) = self.follow().await {
                    tracing::debug!(%error, "the agent tells nothing");
                }
                change(&self.picture, Sight::lost);
                sleep(AGAIN).await;
            }
        };
        stop.run_until_cancelled(seeing).await;
        Ok(())
    }

    async fn follow(&self) -> Result<(), ClientError> {
        let mut events = Events::open(&self.agent, "/v1/watch?changes=endpoints&with=nodes").await?;
        while let Some(event) = events.next().await {
            let strange =
                |why: serde_json::Error| ClientError::Strange { place: self.agent.place(), why: why.to_string() };
            self.take(&event).map_err(strange)?;
        }
        Ok(())
    }

    fn take(&self, event: &Event) -> Result<(), serde_json::Error> {
        match event.kind.as_str() {
            "snapshot" => {
                let all: api::Services = serde_json::from_str(&event.data)?;
                change(&self.picture, |sight| sight.snapshot(all));
            }
            "change" => {
                let by: api::Change = serde_json::from_str(&event.data)?;
                change(&self.picture, |sight| sight.change(by));
            }
            "nodes" => {
                let nodes: api::Nodes = serde_json::from_str(&event.data)?;
                change(&self.picture, |sight| sight.nodes = Some(Arc::new(nodes.nodes)));
            }
            _ => {}
        }
        Ok(())
    }
}

/// Sees what stands in the store.
pub(super) struct StoreEyes {
    pub(super) view: CatalogView,
    pub(super) zones: Zones,
    pub(super) nodes: watch::Receiver<Arc<api::Nodes>>,
    pub(super) picture: Picture,
}

impl StoreEyes {
    /// Works until told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut changed = self.view.changed();
        loop {
            changed.borrow_and_update();
            self.glance();
            let next = async {
                tokio::select! {
                    Ok(()) = changed.changed() => {}
                    Ok(()) = self.nodes.changed() => {}
                    else => std::future::pending().await,
                }
                sleep(GLANCE).await;
            };
            if stop.run_until_cancelled(next).await.is_none() {
                return Ok(());
            }
        }
    }

    fn glance(&mut self) {
        let nodes = Arc::clone(&self.nodes.borrow_and_update());
        let catalog = self.view.load();
        if self.view.progress() == Progress::Nothing {
            return;
        }
        let services = catalog.each_service(&Arc::new(self.zones.clone())).map(|found| api::Service::from(&found));
        let stale = catalog.is_stale() || self.view.progress() != Progress::Read;
        let all = api::Services { revision: catalog.revision(), stale, services: services.collect() };
        change(&self.picture, |sight| {
            sight.snapshot(all);
            if !nodes.stale || !nodes.nodes.is_empty() {
                sight.nodes = Some(Arc::new(nodes.nodes.clone()));
            }
        });
    }
}

/// Reads the keys and member lists that templates ask for.
pub(super) struct KeyEyes {
    pub(super) store: Arc<dyn Store>,
    pub(super) prefix: Prefix,
    pub(super) asked: watch::Receiver<Asked>,
    pub(super) picture: Picture,
}

impl KeyEyes {
    /// Works until told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let seeing = async {
            loop {
                if let Err(error) = self.follow().await {
                    tracing::debug!(%error, "keys are not in step with the store");
                    self.aged();
                    sleep(AGAIN).await;
                }
            }
        };
        stop.run_until_cancelled(seeing).await;
        Ok(())
    }

    /// Follows what is asked for now, until something else is.
    async fn follow(&mut self) -> Result<(), StoreError> {
        let asked = self.asked.borrow_and_update().clone();
        if asked.keys.is_empty() && asked.members.is_empty() {
            return changed(&mut self.asked).await;
        }
        let generation = self.store.history().borrow().generation;
        let (keys, members, revision) = read(&*self.store, &self.prefix, &asked).await?;
        change(&self.picture, |sight| (sight.keys, sight.members) = (Arc::new(keys), Arc::new(members)));
        let below = [("/config/".to_owned(), asked.keys.is_empty()), (self.prefix.members(), asked.members.is_empty())];
        let mut watches = Vec::new();
        for (prefix, _) in below.iter().filter(|(_, is_idle)| !is_idle) {
            watches.push(watch_since(&*self.store, generation, prefix, revision + 1).await?);
        }
        loop {
            let next = futures_util::future::select_all(watches.iter_mut().map(|watch| watch.next()));
            tokio::select! {
                told = timeout(SILENCE, next) => {
                    let silent = || StoreError::Away { tried: "a watch of keys".to_owned(), source: None };
                    let (batch, ..) = told.map_err(|_| silent())?;
                    for event in batch?.events {
                        self.take(&asked, event);
                    }
                }
                asked = changed(&mut self.asked) => return asked,
            }
        }
    }

    fn take(&self, asked: &Asked, event: store::Event) {
        let (key, value) = match event {
            store::Event::Put(item) => (item.key.clone(), Some(item.value)),
            store::Event::Delete { key, .. } => (key, None),
        };
        if asked.keys.contains(&key) {
            let value = Seen::Known(value.as_deref().and_then(text));
            change(&self.picture, |sight| drop(Arc::make_mut(&mut sight.keys).insert(key, value)));
        } else if let Some(service) = key.strip_prefix(&self.prefix.members())
            && asked.members.contains(service)
        {
            let list = Seen::Known(value.and_then(|value| MemberList::decode(&value).ok()));
            change(&self.picture, |sight| drop(Arc::make_mut(&mut sight.members).insert(service.to_owned(), list)));
        }
    }

    /// What is known is only known from before.
    fn aged(&self) {
        fn aged<T: Clone>(all: &BTreeMap<String, Seen<T>>) -> Arc<BTreeMap<String, Seen<T>>> {
            Arc::new(all.iter().map(|(key, seen)| (key.clone(), Seen::Stale(seen.last().clone()))).collect())
        }
        change(&self.picture, |sight| (sight.keys, sight.members) = (aged(&sight.keys), aged(&sight.members)));
    }
}

async fn changed(asked: &mut watch::Receiver<Asked>) -> Result<(), StoreError> {
    match asked.changed().await {
        Ok(()) => Ok(()),
        Err(_) => std::future::pending().await, // nobody asks any more
    }
}

/// Keys and member lists, as far as they were asked for, and the revision that they were read at.
type Read = (BTreeMap<String, Seen<Option<Text>>>, BTreeMap<String, Seen<Option<MemberList>>>, i64);

/// Reads what is asked for.
pub(super) async fn read(store: &dyn Store, prefix: &Prefix, asked: &Asked) -> Result<Read, StoreError> {
    let lists = asked.members.iter().map(|service| (prefix.member_list(service), service));
    let lists: BTreeMap<String, &String> = lists.collect();
    let wanted: Vec<String> = asked.keys.iter().chain(lists.keys()).cloned().collect();
    let page = store.get(&wanted).await?;
    let mut keys: BTreeMap<_, _> = asked.keys.iter().map(|key| (key.clone(), Seen::Known(None))).collect();
    let mut members: BTreeMap<_, _> = asked.members.iter().map(|name| (name.clone(), Seen::Known(None))).collect();
    for item in page.items {
        if let Some(service) = lists.get(&item.key) {
            members.insert((*service).clone(), Seen::Known(MemberList::decode(&item.value).ok()));
        } else {
            keys.insert(item.key, Seen::Known(text(&item.value)));
        }
    }
    Ok((keys, members, page.revision))
}

/// A key's value as text; one that is none, or is too long, is as one that is not there.
fn text(value: &[u8]) -> Option<Text> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= LONGEST_VALUE);
    text.map(Into::into)
}

/// Asks endpoints of auto-discovery.
pub(super) struct DiscoveryEyes {
    pub(super) asked: watch::Receiver<Asked>,
    pub(super) picture: Picture,
}

impl DiscoveryEyes {
    /// Works until told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        let seeing = async {
            let mut due: BTreeMap<String, Instant> = BTreeMap::new();
            loop {
                let asked = self.asked.borrow_and_update().discovered.clone();
                self.forget(&asked);
                due.retain(|from, _| asked.contains(from));
                for from in asked {
                    if due.get(&from).is_none_or(|due| *due <= Instant::now()) {
                        let pause = if self.ask(&from).await { DISCOVER } else { DISCOVER_AGAIN };
                        due.insert(from, Instant::now() + pause);
                    }
                }
                let next = due.values().min().copied();
                tokio::select! {
                    Ok(()) = self.asked.changed() => {}
                    () = async { match next { Some(next) => tokio::time::sleep_until(next).await, None => std::future::pending().await } } => {}
                }
            }
        };
        stop.run_until_cancelled(seeing).await;
        Ok(())
    }

    fn forget(&self, asked: &BTreeSet<String>) {
        self.picture.send_if_modified(|sight| {
            let is_over = sight.discovered.keys().any(|from| !asked.contains(from));
            if is_over {
                Arc::make_mut(&mut Arc::make_mut(sight).discovered).retain(|from, _| asked.contains(from));
            }
            is_over
        });
    }

    /// Whether it answered; what it told last stays when it does not.
    async fn ask(&self, from: &str) -> bool {
        let answer = servers(from).await;
        let is_told = answer.is_ok();
        if let Err(why) = &answer {
            tracing::warn!(from, why, "an endpoint of auto-discovery does not tell its servers");
        }
        self.picture.send_if_modified(|sight| {
            let known = sight.discovered.get(from).map(|seen| seen.last().clone());
            let now = match (answer, known) {
                (Ok(servers), _) => Seen::Known(servers),
                (Err(_), Some(known)) => Seen::Stale(known),
                (Err(_), None) => return false,
            };
            if sight.discovered.get(from) == Some(&now) {
                return false;
            }
            Arc::make_mut(&mut Arc::make_mut(sight).discovered).insert(from.to_owned(), now);
            true
        });
        is_told
    }
}

/// The servers that an endpoint of auto-discovery tells.
pub(super) async fn servers(from: &str) -> Result<Arc<[Text]>, String> {
    let (host, port) =
        from.strip_prefix(DISCOVERY).and_then(place).ok_or_else(|| format!("{from:?} is no such endpoint"))?;
    let asking = async {
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![SocketAddr::new(address, port)],
            Err(_) => names::look_up(host, port).await.map_err(|error| error.to_string())?,
        };
        let mut failure = "it has no address".to_owned();
        for address in addresses.into_iter().take(3) {
            let told = async { discovery::servers(&mut Connection::open(address).await?).await };
            match told.await {
                Ok(servers) => return Ok(servers.into_iter().map(Into::into).collect()),
                Err(error) => failure = format!("{address}: {error}"),
            }
        }
        Err(failure)
    };
    timeout(DISCOVERY_PATIENCE, asking).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
}
