//! Connections: one per endpoint, made when needed, dropped when broken, and made anew when a certificate, key or
//! password file has changed on disk.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::srv::{self, SCHEME};
use super::{error, why};
use crate::store::StoreError;

/// Where distributions keep the authorities they trust.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
const TCP_KEEPALIVE: Duration = Duration::from_secs(10);
/// Names are looked up no more often: DNS may be what is broken.
const LOOK_UP: Duration = Duration::from_secs(1);
/// As many members a cluster usually has.
const USUAL: usize = 3;

/// A connection to one endpoint.
pub(super) struct Link {
    pub(super) name: String,
    client: Client,
    /// Cancelled when the connection is given up; its streams end by it.
    pub(super) gone: CancellationToken,
    /// What the files were when it was made.
    files: Stamp,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Link {
    pub(super) fn client(&self) -> Client {
        self.client.clone()
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) struct Unlinked {
    pub(super) endpoint: String,
    /// In words for whoever looks after it.
    pub(super) why: String,
    pub(super) error: StoreError,
}

/// When each file was last changed, and its length.
type Stamp = Vec<Option<(SystemTime, u64)>>;

/// Every endpoint, and which of them is asked now.
#[derive(Debug)]
pub(super) struct Pool {
    settings: Settings,
    attempt: Duration,
    slots: Mutex<Slots>,
    /// When the names of endpoints were looked up last, and why none were found.
    looked_up: Mutex<Option<(Instant, String)>>,
    /// One connects at a time; the others then find what it made.
    connecting: Semaphore,
}

#[derive(Debug)]
struct Slots {
    current: usize,
    links: Vec<(String, Option<Arc<Link>>)>,
}

impl Slots {
    fn endpoint(&self) -> Option<String> {
        self.links.get(self.current).map(|(endpoint, _)| endpoint.clone())
    }

    /// Has these endpoints and no others; connections to those that stay are kept.
    fn set(&mut self, endpoints: Vec<String>) {
        let current = self.endpoint();
        let mut before = std::mem::take(&mut self.links);
        let mut kept =
            |endpoint: &String| before.iter_mut().find(|(it, _)| it == endpoint).and_then(|(_, it)| it.take());
        self.links = endpoints.into_iter().map(|endpoint| (endpoint.clone(), kept(&endpoint))).collect();
        let stays = self.links.iter().position(|(endpoint, _)| Some(endpoint) == current.as_ref());
        self.current = stays.unwrap_or_else(|| rand::random_range(0..self.links.len().max(1)));
    }
}

impl Pool {
    pub(super) fn new(settings: Settings, attempt: Duration) -> Self {
        let fixed = settings.endpoints.iter().filter(|endpoint| !endpoint.starts_with(SCHEME));
        let links: Vec<_> = fixed.map(|endpoint| (endpoint.clone(), None)).collect();
        // Hosts begin at different endpoints, so that not all of them hang on the first.
        let current = rand::random_range(0..links.len().max(1));
        let slots = Mutex::new(Slots { current, links });
        Self { settings, attempt, slots, looked_up: Mutex::default(), connecting: Semaphore::new(1) }
    }

    /// How many endpoints there are, or may be.
    pub(super) fn size(&self) -> usize {
        count(&self.settings.endpoints).max(self.slots().links.len())
    }

    /// Looks up the endpoints that are found by name. This is done before a connection is made, so again when one is
    /// broken; what was found last stays while DNS does not answer.
    async fn look_up(&self) -> Result<(), String> {
        let (names, fixed): (Vec<&String>, Vec<&String>) =
            self.settings.endpoints.iter().partition(|endpoint| endpoint.starts_with(SCHEME));
        if names.is_empty() {
            return Ok(());
        }
        self.may_look_up()?;
        let only_tls = self.settings.ca.is_some() || self.settings.identity.is_some();
        let mut endpoints: Vec<String> = fixed.into_iter().cloned().collect();
        for name in names {
            let found = srv::look_up(name.trim_start_matches(SCHEME), only_tls).await;
            endpoints.extend(found.inspect_err(|why| *self.looked_up() = Some((Instant::now(), why.clone())))?);
        }
        let mut seen = HashSet::new();
        endpoints.retain(|endpoint| seen.insert(endpoint.clone()));
        self.slots().set(endpoints);
        Ok(())
    }

    /// Notes that it is done now; if it was just done, what came of that stands.
    fn may_look_up(&self) -> Result<(), String> {
        let mut looked_up = self.looked_up();
        if let Some((_, why)) = looked_up.as_ref().filter(|(at, _)| at.elapsed() < LOOK_UP) {
            return Err(why.clone());
        }
        *looked_up = Some((Instant::now(), "not found out yet".to_owned()));
        Ok(())
    }

    fn looked_up(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.looked_up.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection to the current endpoint, made if there is none.
    pub(super) async fn link(&self) -> Result<Arc<Link>, Unlinked> {
        if let Some(link) = self.ready().await {
            return Ok(link);
        }
        let _turn = self.connecting.acquire().await.expect("the semaphore is never closed");
        if let Some(link) = self.ready().await {
            return Ok(link);
        }
        let looked_up = self.look_up().await;
        let Some(endpoint) = self.slots().endpoint() else {
            let why = looked_up.err().unwrap_or_else(|| "it names no endpoint".to_owned());
            let endpoint = self.current();
            let error = StoreError::Away { tried: format!("to find etcd by {endpoint}: {why}"), source: None };
            return Err(Unlinked { endpoint, why, error });
        };
        match self.connect(&endpoint).await {
            Ok(link) => {
                let link = Arc::new(link);
                let mut slots = self.slots();
                if let Some((_, slot)) = slots.links.iter_mut().find(|(it, _)| *it == endpoint) {
                    *slot = Some(Arc::clone(&link));
                }
                Ok(link)
            }
            Err(error) => {
                self.pass(&endpoint);
                let why = why::of_store(&error, &endpoint);
                Err(Unlinked { endpoint, why, error })
            }
        }
    }

    /// The endpoint that is asked now.
    pub(super) fn current(&self) -> String {
        let found = self.slots().endpoint();
        found.or_else(|| self.settings.endpoints.first().cloned()).unwrap_or_default()
    }

    /// The current endpoint's connection, unless files have changed since it was made.
    async fn ready(&self) -> Option<Arc<Link>> {
        let link = {
            let slots = self.slots();
            slots.links.get(slots.current).and_then(|(_, link)| link.clone())?
        };
        if link.files == self.stamp().await {
            return Some(link);
        }
        tracing::info!(endpoint = link.name, "certificate or password changed on disk, connecting anew");
        self.forget(&link);
        None
    }

    /// The current endpoint did not connect in time.
    pub(super) fn skip(&self) {
        self.pass(&self.current());
    }

    /// Gives up a connection and passes on to the next endpoint.
    pub(super) fn broken(&self, link: &Arc<Link>) {
        link.gone.cancel();
        self.forget(link);
        self.pass(&link.name);
    }

    /// Gives up a connection, to be made anew at the same endpoint.
    pub(super) fn renew(&self, link: &Arc<Link>) {
        self.forget(link);
    }

    fn forget(&self, link: &Arc<Link>) {
        let mut slots = self.slots();
        for (_, slot) in &mut slots.links {
            slot.take_if(|held| Arc::ptr_eq(held, link));
        }
    }

    fn pass(&self, from: &str) {
        let mut slots = self.slots();
        if slots.endpoint().is_some_and(|current| current == from) {
            slots.current = (slots.current + 1) % slots.links.len().max(1);
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self, endpoint: &str) -> Result<Link, StoreError> {
        let tried = "to connect";
        // The stamp is older than what is read after it, so a change in between is noticed.
        let files = self.stamp().await;
        let options = self.options(endpoint).await?;
        let client = Client::connect([endpoint], Some(options)).await.map_err(|error| match error::judge(&error) {
            error::Verdict::Broken => error::into_away(error, tried, endpoint),
            error::Verdict::Final | error::Verdict::Login => error::into_store(error, tried, endpoint),
        })?;
        Ok(Link { name: endpoint.to_owned(), client, gone: CancellationToken::new(), files })
    }

    async fn options(&self, endpoint: &str) -> Result<ConnectOptions, StoreError> {
        let mut options = ConnectOptions::new()
            .with_connect_timeout(self.attempt)
            .with_tcp_keepalive(TCP_KEEPALIVE)
            .with_require_leader(true);
        if endpoint.starts_with("https://") {
            let roots = match &self.settings.ca {
                Some(path) => read(path).await?,
                None => system_roots().await?,
            };
            let mut tls = TlsOptions::new().ca_certificate(Certificate::from_pem(roots));
            if let Some((certificate, key)) = &self.settings.identity {
                tls = tls.identity(Identity::from_pem(read(certificate).await?, read(key).await?));
            }
            options = options.with_tls(tls);
        }
        if let Some((user, path)) = &self.settings.user {
            let password = read(path).await?;
            let password = String::from_utf8_lossy(&password);
            options =
                options.with_user(user.as_str(), password.trim_end_matches(['\n', '\r'])).with_auto_token_refresh(true);
        }
        Ok(options)
    }

    async fn stamp(&self) -> Stamp {
        let Settings { ca, identity, user, .. } = &self.settings;
        let identity = identity.iter().flat_map(|(certificate, key)| [certificate, key]);
        let paths: Vec<&PathBuf> = ca.iter().chain(identity).chain(user.iter().map(|(_, path)| path)).collect();
        let mut stamp = Vec::with_capacity(paths.len());
        for path in paths {
            let metadata = tokio::fs::metadata(path).await.ok();
            stamp.push(metadata.and_then(|metadata| Some((metadata.modified().ok()?, metadata.len()))));
        }
        stamp
    }
}

/// How many endpoints these are; one that is looked up stands for as many as a cluster usually has.
pub(super) fn count(endpoints: &[String]) -> usize {
    endpoints.iter().map(|endpoint| if endpoint.starts_with(SCHEME) { USUAL } else { 1 }).sum()
}

pub(super) async fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    tokio::fs::read(path).await.map_err(|error| StoreError::Away {
        tried: format!("to read {}", path.display()),
        source: Some(Box::new(error)),
    })
}

pub(super) async fn system_roots() -> Result<Vec<u8>, StoreError> {
    for path in SYSTEM_ROOTS {
        if let Ok(roots) = tokio::fs::read(path).await {
            return Ok(roots);
        }
    }
    let tried = "to find the system's certificate authorities; give --etcd-ca".to_owned();
    Err(StoreError::Away { tried, source: None })
}
