//! Connections: one per endpoint, made when needed, dropped when broken, and made anew when a certificate, key or
//! password file has changed on disk.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::{error, why};
use crate::store::StoreError;

/// Where distributions keep the authorities they trust.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];
const TCP_KEEPALIVE: Duration = Duration::from_secs(10);

/// A connection to one endpoint.
pub(super) struct Link {
    pub(super) name: String,
    place: usize,
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
    /// One connects at a time; the others then find what it made.
    connecting: Semaphore,
}

#[derive(Debug)]
struct Slots {
    current: usize,
    links: Vec<Option<Arc<Link>>>,
}

impl Pool {
    pub(super) fn new(settings: Settings, attempt: Duration) -> Self {
        let links = settings.endpoints.iter().map(|_| None).collect();
        // Hosts begin at different endpoints, so that not all of them hang on the first.
        let current = rand::random_range(0..settings.endpoints.len().max(1));
        Self { settings, attempt, slots: Mutex::new(Slots { current, links }), connecting: Semaphore::new(1) }
    }

    pub(super) fn size(&self) -> usize {
        self.settings.endpoints.len()
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
        let place = self.slots().current;
        match self.connect(place).await {
            Ok(link) => {
                let link = Arc::new(link);
                self.slots().links[place] = Some(Arc::clone(&link));
                Ok(link)
            }
            Err(error) => {
                self.pass(place);
                let endpoint = self.settings.endpoints.get(place).cloned().unwrap_or_default();
                let why = why::of_store(&error, &endpoint);
                Err(Unlinked { endpoint, why, error })
            }
        }
    }

    /// The endpoint that is asked now.
    pub(super) fn current(&self) -> String {
        let place = self.slots().current;
        self.settings.endpoints.get(place).cloned().unwrap_or_default()
    }

    /// The current endpoint's connection, unless files have changed since it was made.
    async fn ready(&self) -> Option<Arc<Link>> {
        let link = {
            let slots = self.slots();
            slots.links.get(slots.current).cloned().flatten()?
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
        let place = self.slots().current;
        self.pass(place);
    }

    /// Gives up a connection and passes on to the next endpoint.
    pub(super) fn broken(&self, link: &Arc<Link>) {
        link.gone.cancel();
        self.forget(link);
        self.pass(link.place);
    }

    /// Gives up a connection, to be made anew at the same endpoint.
    pub(super) fn renew(&self, link: &Arc<Link>) {
        self.forget(link);
    }

    fn forget(&self, link: &Arc<Link>) {
        let mut slots = self.slots();
        if let Some(slot) = slots.links.get_mut(link.place)
            && slot.as_ref().is_some_and(|held| Arc::ptr_eq(held, link))
        {
            *slot = None;
        }
    }

    fn pass(&self, from: usize) {
        let mut slots = self.slots();
        if slots.current == from {
            slots.current = (from + 1) % self.size().max(1);
        }
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn connect(&self, place: usize) -> Result<Link, StoreError> {
        let Some(endpoint) = self.settings.endpoints.get(place) else {
            return Err(StoreError::Away { tried: "no endpoint is given".to_owned(), source: None });
        };
        let tried = "to connect";
        // The stamp is older than what is read after it, so a change in between is noticed.
        let files = self.stamp().await;
        let options = self.options(endpoint).await?;
        let client = Client::connect([endpoint], Some(options)).await.map_err(|error| match error::judge(&error) {
            error::Verdict::Broken => error::into_away(error, tried, endpoint),
            error::Verdict::Final | error::Verdict::Login => error::into_store(error, tried, endpoint),
        })?;
        Ok(Link { name: endpoint.clone(), place, client, gone: CancellationToken::new(), files })
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
