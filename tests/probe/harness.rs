//! A fleet that follows an offer made by the test, and waiting for states instead of times.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use wharf::model::health::Rules;
use wharf::model::health::adopted::Adopted;
use wharf::model::health::standing::{Standing, Standings, State};
use wharf::model::offer::instance::{
    Check, CheckDetail, CheckKind, Confidant, DockerStanding, Instance, InstanceKey, Offer, Secret, Source,
};
use wharf::model::words::name::{Label, ServiceName};
use wharf::model::words::record::{Proto, Role};
use wharf::offer::probe::{Fleet, FleetError, Settings};

/// How long a test waits for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A host with a fleet of its own.
pub struct Host {
    offer: watch::Sender<Arc<Offer>>,
    pub adopted: watch::Sender<Arc<Adopted>>,
    pub standings: watch::Receiver<Arc<Standings>>,
    pub registry: Registry,
    worker: JoinHandle<Result<(), FleetError>>,
    _stop: DropGuard,
}

/// Settings that let a test end soon: the default rules at a tenth of the interval.
pub fn quick() -> Settings {
    Settings { interval: Duration::from_millis(200), ..Settings::default() }
}

impl Host {
    pub fn new(settings: Settings) -> Self {
        Self::with_adopted(settings, Adopted::default())
    }

    pub fn with_adopted(settings: Settings, adopted: Adopted) -> Self {
        let (offer, offer_receiver) = watch::channel(Arc::new(Offer { engine: true, ..Offer::default() }));
        let (adopted, adopted_receiver) = watch::channel(Arc::new(adopted));
        let (standings_in, standings) = watch::channel(Arc::default());
        let mut registry = Registry::default();
        let fleet = Fleet::new(settings, offer_receiver, adopted_receiver, standings_in, &mut registry);
        let stop = CancellationToken::new();
        let worker = tokio::spawn(fleet.run(stop.clone()));
        Self { offer, adopted, standings, registry, worker, _stop: stop.drop_guard() }
    }

    /// Changes the offer.
    pub fn offer(&self, change: impl FnOnce(&mut Offer)) {
        self.offer.send_modify(|offer| change(Arc::make_mut(offer)));
    }

    /// Offers `instance`, in place of what had its key.
    pub fn put(&self, instance: Instance) -> InstanceKey {
        let key = instance.key.clone();
        self.offer(|offer| {
            offer.instances.insert(instance.key.clone(), Arc::new(instance));
        });
        key
    }

    pub fn remove(&self, key: &InstanceKey) {
        self.offer(|offer| {
            offer.instances.remove(key);
        });
    }

    pub fn standing(&self, key: &InstanceKey) -> Option<Standing> {
        self.standings.borrow().get(key).map(|standing| (**standing).clone())
    }

    /// Waits until the standing of `key` is as wanted, and yields it and how long that took.
    pub async fn until(&self, key: &InstanceKey, wanted: impl Fn(&Standing) -> bool) -> (Standing, Duration) {
        let (began, mut standings) = (Instant::now(), self.standings.clone());
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let found = standings.borrow_and_update().get(key).map(|standing| (**standing).clone());
                match found {
                    Some(standing) if wanted(&standing) => return standing,
                    _ => standings.changed().await.unwrap(),
                }
            }
        });
        let standing = waited.await.unwrap_or_else(|_| panic!("still {:?} after {PATIENCE:?}", self.standing(key)));
        (standing, began.elapsed())
    }

    pub async fn until_state(&self, key: &InstanceKey, state: State) -> Standing {
        self.until(key, |standing| standing.state == state).await.0
    }

    pub async fn until_role(&self, key: &InstanceKey, role: Option<Role>) -> Standing {
        self.until(key, |standing| standing.state == State::Ready && standing.role == role).await.0
    }

    /// Watches for `length` that `key` is never offered as serving.
    pub async fn never_serves(&self, key: &InstanceKey, length: Duration) {
        let mut standings = self.standings.clone();
        let watching = async {
            loop {
                if let Some(standing) = standings.borrow_and_update().get(key) {
                    assert!(!standing.state.serves(), "{standing:?}");
                }
                standings.changed().await.unwrap();
            }
        };
        tokio::time::timeout(length, watching).await.unwrap_err();
    }

    /// Watches for `length` that `key` stays in `state`.
    pub async fn stays(&self, key: &InstanceKey, state: State, length: Duration) {
        let mut standings = self.standings.clone();
        let watching = async {
            loop {
                let standing = standings.borrow_and_update().get(key).cloned();
                assert_eq!(standing.as_ref().map(|standing| standing.state), Some(state), "{standing:?}");
                standings.changed().await.unwrap();
            }
        };
        tokio::time::timeout(length, watching).await.unwrap_err();
    }

    /// Says that nothing will be offered any more.
    pub async fn end_offer(self) -> Result<(), FleetError> {
        let Self { offer, worker, _stop, .. } = self;
        drop(offer);
        worker.await.unwrap()
    }

    pub fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }
}

/// An instance of a container of its own (named by its port) with a check.
pub fn instance(kind: CheckKind, target: SocketAddr) -> Instance {
    Instance {
        key: InstanceKey {
            source: Source::Container(format!("{:064x}", target.port()).chars().rev().collect::<String>().into()),
            port: target.port(),
            proto: Proto::Tcp,
        },
        services: vec![ServiceName::parse("service").unwrap()],
        id: format!("node:container:{}", target.port()).into(),
        label: Label::parse("node-container").unwrap(),
        host: target.ip(),
        host6: None,
        port: target.port(),
        role: None,
        priority: None,
        weight: None,
        ttl: None,
        tags: Vec::new(),
        attrs: std::collections::BTreeMap::new(),
        container_name: "container".into(),
        image: "image".into(),
        check: Check { kind, target: Some(target), ..Check::default() },
        docker: DockerStanding::Running,
        started: "".into(),
    }
}

/// The same with a login, which a table of the configuration may tell to whatever serves there.
pub fn with_login(mut instance: Instance, user: Option<&str>, password: &str) -> Instance {
    instance.check.detail = CheckDetail {
        user: user.map(Into::into),
        password: Some(Secret::Value(password.into())),
        ..CheckDetail::default()
    };
    instance.check.confidant = Confidant::Table;
    instance
}

/// Waits until `done` yields something.
pub async fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = done() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what} has not come about");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn rules() -> Rules {
    Rules::default()
}

pub fn long_ago() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000)
}
