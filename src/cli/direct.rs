//! Straight to the store, without an agent: for `--etcd-endpoints`.
//!
//! It only reads. What no record is says nothing here; the agents count and log those.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;

use super::client::ClientError;
use crate::catalog::facade::api;
use crate::catalog::index::Catalog;
use crate::catalog::select::near::near;
use crate::config::parse;
use crate::model::words::advertised::Advertised;
use crate::model::words::key::Prefix;
use crate::model::words::known::{Known, KnownHost};
use crate::model::words::node::NodeRecord;
use crate::model::words::zone::Zones;
use crate::store::etcd::{Etcd, Settings};
use crate::store::{Batch, Event, Item, Revision, Store, StoreError, Watch};

/// What bounds how long one call may try; no lease is made.
const PATIENCE: Duration = Duration::from_secs(15);

/// How the store is reached without an agent.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct StoreArgs {
    /// Ask etcd itself, not an agent
    #[arg(long, value_name = "URL", value_delimiter = ',', help_heading = "Store")]
    pub etcd_endpoints: Vec<String>,

    /// Authorities that may have signed etcd's certificate, as PEM
    #[arg(long, env = "WHARF_ETCD_CA", value_name = "FILE", help_heading = "Store", hide_env_values = true)]
    pub etcd_ca: Option<PathBuf>,

    /// Client certificate for etcd, as PEM
    #[arg(long, env = "WHARF_ETCD_CERT", value_name = "FILE", help_heading = "Store", hide_env_values = true)]
    pub etcd_cert: Option<PathBuf>,

    /// Key of the client certificate, as PEM
    #[arg(long, env = "WHARF_ETCD_KEY", value_name = "FILE", help_heading = "Store", hide_env_values = true)]
    pub etcd_key: Option<PathBuf>,

    /// User to log in to etcd as
    #[arg(long, env = "WHARF_ETCD_USER", value_name = "NAME", help_heading = "Store", hide_env_values = true)]
    pub etcd_user: Option<String>,

    /// File with that user's password
    #[arg(long, env = "WHARF_ETCD_PASSWORD_FILE", value_name = "FILE", help_heading = "Store", hide_env_values = true)]
    pub etcd_password_file: Option<PathBuf>,

    /// Root of the tree of records in etcd
    #[arg(long, env = "WHARF_PREFIX", value_name = "KEY", default_value = "/services", help_heading = "Store")]
    pub prefix: String,

    /// DNS name of the prefix
    #[arg(
        long,
        env = "WHARF_DOMAIN",
        value_name = "NAME",
        default_value = "services.internal",
        help_heading = "Store"
    )]
    pub domain: String,

    /// Further zone and the prefix it shows
    #[arg(long, env = "WHARF_ZONE", value_name = "NAME=PREFIX", value_delimiter = ',', help_heading = "Store")]
    pub zone: Vec<String>,
}

/// Reads the store itself.
#[derive(Clone, Debug)]
pub struct Direct {
    store: Arc<dyn Store>,
    prefix: Prefix,
    zones: Arc<Zones>,
    place: String,
}

impl StoreArgs {
    /// The store asked for, if one is; or what is wrong with how it is asked for.
    pub fn direct(&self) -> Result<Option<Direct>, String> {
        if self.etcd_endpoints.is_empty() {
            return Ok(None);
        }
        let at = |flag: &'static str| move |what: String| format!("{flag}: {what}");
        let prefix = parse::prefix(&self.prefix).map_err(at("--prefix"))?;
        let domain = parse::domain(&self.domain).map_err(at("--domain"))?;
        let others = self.zone.iter().map(|zone| parse::zone(zone)).collect::<Result<Vec<_>, _>>();
        let zones = Zones::new(&domain, prefix.clone(), others.map_err(at("--zone"))?);
        let zones = zones.map_err(|error| error.to_string()).map_err(at("--zone"))?;
        let endpoints = self.etcd_endpoints.iter().map(|endpoint| parse::endpoint(endpoint));
        let endpoints = endpoints.collect::<Result<Vec<_>, _>>().map_err(at("--etcd-endpoints"))?;
        let both = |one: &Option<_>, other: &Option<_>| one.is_some() == other.is_some();
        if !both(&self.etcd_cert, &self.etcd_key) {
            return Err("--etcd-cert and --etcd-key go together".to_owned());
        }
        if self.etcd_user.is_some() != self.etcd_password_file.is_some() {
            return Err("--etcd-user and --etcd-password-file go together".to_owned());
        }
        let place = format!("etcd at {}", endpoints.join(", "));
        let settings = Settings {
            endpoints,
            ca: self.etcd_ca.clone(),
            identity: self.etcd_cert.clone().zip(self.etcd_key.clone()),
            user: self.etcd_user.clone().zip(self.etcd_password_file.clone()),
            lease_ttl: PATIENCE,
            probe: prefix.below(),
        };
        Ok(Some(Direct { store: Arc::new(Etcd::new(settings)), prefix, zones: Arc::new(zones), place }))
    }
}

impl Direct {
    /// One that reads this store.
    pub(crate) fn of(store: Arc<dyn Store>, prefix: Prefix, zones: Arc<Zones>, place: String) -> Self {
        Self { store, prefix, zones, place }
    }

    /// What is asked, in words.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Every service, or the one of this name, in the same shape.
    pub async fn services(&self, name: Option<&str>) -> Result<api::Services, ClientError> {
        let tree = self.tree().await?;
        let services = tree.services(name);
        match name {
            Some(name) if services.services.is_empty() => {
                let refusal = api::Refusal { error: format!("no service {name:?}"), hint: tree.hint(name) };
                Err(ClientError::Refused { status: 404, refusal })
            }
            _ => Ok(services),
        }
    }

    /// What every agent tells of its host.
    pub async fn nodes(&self) -> Result<api::Nodes, ClientError> {
        let nodes = self.node_records().await?;
        let (items, _) = self.read(&self.prefix.known()).await?;
        let known: Vec<Known> = items.iter().filter_map(known).collect();
        Ok(api::Nodes::of(false, nodes, &known))
    }

    async fn node_records(&self) -> Result<Vec<NodeRecord>, ClientError> {
        let (items, _) = self.read(&self.prefix.nodes()).await?;
        Ok(items.iter().filter_map(|item| NodeRecord::decode(&item.value).ok()).collect())
    }

    /// The records as they stand, ready to be followed.
    pub async fn tree(&self) -> Result<Tree, ClientError> {
        let prefixes: Vec<_> = self.zones.prefixes().into_iter().cloned().collect();
        let mut catalog = Catalog::bounded(&prefixes, usize::MAX);
        catalog.set_advertised(&Arc::new(Advertised::of(&self.node_records().await?)));
        let mut tree = Tree { catalog, zones: Arc::clone(&self.zones), watches: Vec::new() };
        for prefix in prefixes {
            let below = prefix.below();
            let (items, revision) = self.read(&below).await?;
            let watch = self.store.watch(&below, revision + 1).await.map_err(|error| self.trouble(&error))?;
            tree.watches.push(watch);
            for item in items {
                tree.put(&item);
            }
            tree.catalog.set_revision(revision);
        }
        Ok(tree)
    }

    async fn read(&self, prefix: &str) -> Result<(Vec<Item>, Revision), ClientError> {
        let mut items = BTreeMap::new();
        let (mut after, mut at) = (None::<String>, None);
        loop {
            let page = self.store.read(prefix, after.as_deref(), at).await.map_err(|error| self.trouble(&error))?;
            at = Some(page.revision);
            after = page.items.last().map(|item| item.key.clone());
            items.extend(page.items.into_iter().map(|item| (item.key.clone(), item)));
            if !page.more {
                return Ok((items.into_values().collect(), page.revision));
            }
        }
    }

    /// A failed call as a command tells it.
    pub fn trouble(&self, error: &StoreError) -> ClientError {
        let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
        ClientError::Unreachable { tried: self.place.clone(), why: format!("{error}{cause}") }
    }
}

/// The records of a store, kept as they change.
pub struct Tree {
    catalog: Catalog,
    zones: Arc<Zones>,
    /// One for each tree.
    watches: Vec<Box<dyn Watch>>,
}

impl Tree {
    /// Every service, or the one of this name, in the same shape.
    pub fn services(&self, name: Option<&str>) -> api::Services {
        let found = match name {
            None => self.catalog.services(&self.zones),
            Some(name) => self.catalog.service(&self.zones, name).into_iter().collect(),
        };
        api::Services {
            revision: self.catalog.revision(),
            stale: false,
            services: found.iter().map(api::Service::from).collect(),
        }
    }

    /// Waits for a change and takes it in; also returns when the watch only says that it is in step.
    pub async fn next(&mut self) -> Result<(), StoreError> {
        // A watch that is not the first to tell loses nothing.
        let (told, ..) = select_all(self.watches.iter_mut().map(|watch| watch.next())).await;
        let Batch { events, revision } = told?;
        for event in events {
            match event {
                Event::Put(item) => self.put(&item),
                Event::Delete { key, .. } => self.catalog.delete(&key),
            }
        }
        self.catalog.set_revision(revision);
        Ok(())
    }

    /// What may have been meant by a name that is not there.
    fn hint(&self, name: &str) -> String {
        match near(&self.catalog, &self.zones, name).as_slice() {
            [] => "wharf services lists all; names are exact here".to_owned(),
            names => format!("did you mean {}? names are exact here, unlike in DNS", names.join(" or ")),
        }
    }

    fn put(&mut self, item: &Item) {
        // A bad value is left out, as every agent does, and is theirs to tell.
        let _ = self.catalog.put(&item.key, &item.value, item.lease, item.revision);
    }
}
fn known(item: &Item) -> Option<Known> {
    let host = KnownHost::decode(&item.value).ok()?;
    Some(Known { key: item.key.as_str().into(), revision: item.revision, host })
}
