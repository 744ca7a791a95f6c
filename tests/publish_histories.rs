//! Whatever the order of events, losses and returns, the store ends equal to what is offered.
//!
//! Each history is a seed: random steps over one host, another owner's hand in the same tree, and a store that goes
//! away, forgets answers, loses leases and is wiped. Time is the test's own, so thousands of histories take seconds.
//! `WHARF_HISTORIES=10000 cargo test --test publish_histories` runs more of them, `WHARF_SEED=n` one again.
#![allow(clippy::unwrap_used, missing_docs)]

mod faulty;
mod harness;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use faulty::Faulty;
use harness::{Host, Setup, instance, items, named, standing};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use wharf::model::instance::Instance;
use wharf::model::record::Record;
use wharf::model::standing::State;
use wharf::store::{Commit, Condition, Item, Store, Write};

/// What is offered, and how it stands.
type Offered = BTreeMap<u16, (Instance, State)>;

struct Story {
    seed: u64,
    random: StdRng,
    store: Arc<Faulty>,
    directory: tempfile::TempDir,
    host: Option<Host>,
    offered: Offered,
    drained: bool,
    /// What the other owner holds.
    foreign: BTreeMap<String, Vec<u8>>,
    told: Vec<String>,
}

impl Story {
    fn new(seed: u64) -> Self {
        let shm = std::path::Path::new("/dev/shm");
        let directory = if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() };
        let mut story = Self {
            seed,
            random: StdRng::seed_from_u64(seed),
            store: Arc::new(Faulty::new(seed)),
            directory: directory.unwrap(),
            host: None,
            offered: Offered::new(),
            drained: false,
            foreign: BTreeMap::new(),
            told: Vec::new(),
        };
        story.start();
        story
    }

    fn start(&mut self) {
        self.host = Some(Host::start(Arc::clone(&self.store) as _, self.directory.path(), Setup::default()));
    }

    fn host(&self) -> &Host {
        self.host.as_ref().unwrap()
    }

    fn tell(&self) {
        for (instance, state) in self.offered.values() {
            self.host().stands(instance, standing(*state));
        }
        self.host().offer(self.offered.values().map(|(instance, _)| instance.clone()));
    }

    fn any_key(&mut self) -> String {
        let number = self.random.random_range(1..6);
        match self.random.random_bool(0.5) {
            true => format!("/services/redis/core-01-redis-{number}-6379"),
            false => "/services/redis/cache".to_owned(),
        }
    }

    async fn step(&mut self) {
        let step = self.random.random_range(0..100);
        self.told.push(format!("step {step}"));
        match step {
            0..35 => self.change(),
            35..45 => self.tamper().await,
            45..55 => self.meddle().await,
            55..63 => self.store.set_away(true),
            63..75 => self.store.set_away(false),
            75..80 => {
                let lease = self.host().outputs.local.borrow().lease;
                drop(self.store.inner().revoke(lease).await);
            }
            80..84 => {
                self.store.wipe();
                self.foreign.clear();
            }
            84..92 => self.restart().await,
            92..96 => {
                self.drained = !self.drained;
                let drain = &self.host().drain;
                if self.drained {
                    drain.drain(std::time::SystemTime::UNIX_EPOCH).unwrap();
                } else {
                    drain.undrain().unwrap();
                }
            }
            _ => tokio::time::sleep(Duration::from_secs(self.random.random_range(1..5))).await,
        }
        if self.random.random_bool(0.6) {
            let wait = self.random.random_range(0..300);
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
    }

    /// Something of this host comes, goes, or changes its standing.
    fn change(&mut self) {
        let number = self.random.random_range(1..6);
        let state =
            *[State::Ready, State::Ready, State::Down, State::Saturated].get(self.random.random_range(0..4)).unwrap();
        if self.random.random_bool(0.3) {
            self.offered.remove(&number);
        } else {
            let instance = if number % 2 == 0 { named("redis", number, "cache") } else { instance("redis", number) };
            self.offered.insert(number, (instance, state));
        }
        self.tell();
    }

    /// Someone deletes or spoils one of our keys by hand.
    async fn tamper(&mut self) {
        let keys: Vec<Item> = items(&self.store.inner(), "/services").await;
        let ours: Vec<&Item> = keys.iter().filter(|item| !self.foreign.contains_key(&item.key)).collect();
        let Some(item) = ours.get(self.random.random_range(0..ours.len().max(1))) else { return };
        let write = match self.random.random_bool(0.5) {
            true => Write::Delete(item.key.clone()),
            false => Write::Put { key: item.key.clone(), value: "spoiled".into(), lease: 0 },
        };
        self.store.inner().commit(&[], &[write]).await.unwrap();
    }

    /// Another owner takes a free key, or lets one go.
    async fn meddle(&mut self) {
        let key = self.any_key();
        let inner = self.store.inner();
        if self.foreign.remove(&key).is_some() {
            inner.commit(&[], &[Write::Delete(key)]).await.unwrap();
            return;
        }
        let record = Record { host: "10.7.7.7".into(), owner: Some("someone-else".into()), ..Record::default() };
        let value = record.encode();
        let write = Write::Put { key: key.clone(), value: value.clone().into(), lease: 0 };
        if matches!(inner.commit(&[Condition::Absent(key.clone())], &[write]).await, Ok(Commit::Done(_))) {
            self.foreign.insert(key, value);
        }
    }

    async fn restart(&mut self) {
        let host = self.host.take().unwrap();
        match self.random.random_bool(0.5) {
            true => host.kill().await,
            false => host.stop().await,
        }
        self.start();
        if self.random.random_bool(0.5) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.tell();
    }

    /// What keeps the store from being as it should; `None` when nothing does.
    async fn fault(&self) -> Option<String> {
        let serving = |state: &State| state.serves() && !self.drained;
        let mut expected: Vec<u16> =
            self.offered.values().filter(|(_, state)| serving(state)).map(|(instance, _)| instance.port).collect();
        let lease = self.host().outputs.local.borrow().lease;
        let mut foreign = BTreeMap::new();
        let mut ports = Vec::new();
        let mut plain = Vec::new();
        for item in items(&self.store.inner(), "/services").await {
            match Record::decode(&item.value) {
                Ok(record) if record.owner.as_deref() == Some(&*self.host().owner) => {
                    if item.lease != lease {
                        return Some(format!("{} is not on our lease", item.key));
                    }
                    ports.push(record.port);
                    plain.push(item.key);
                }
                Ok(_) => drop(foreign.insert(item.key, item.value.to_vec())),
                // Spoiled by hand where we want nothing (any more): nobody's.
                Err(_) => {}
            }
        }
        expected.sort_unstable();
        ports.sort_unstable();
        if foreign != self.foreign {
            return Some(format!("another owner's records were touched: {foreign:?} is not {:?}", self.foreign));
        }
        if ports != expected {
            return Some(format!("published are {ports:?}, offered {expected:?}"));
        }
        let hashed = |(instance, state): &(Instance, State)| {
            let key = format!("/services/redis/{}", instance.label);
            serving(state) && !self.foreign.contains_key(&key) && !plain.contains(&key)
        };
        self.offered.values().any(hashed).then(|| "a plain key is free and not taken".to_owned())
    }

    async fn end(&mut self) {
        self.store.set_away(false);
        self.tell();
        let mut fault = None;
        for _ in 0..400 {
            fault = self.fault().await;
            if fault.is_none() && self.host().outputs.local.borrow().unconfirmed == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let local = self.host().outputs.local.borrow().clone();
        let shown: Vec<_> =
            local.instances.iter().map(|it| (it.instance.port, it.state, it.published, &it.keys)).collect();
        let link = (local.session, local.lease, local.unconfirmed, local.records);
        let held = items(&self.store.inner(), "/services").await;
        assert_eq!(fault, None, "WHARF_SEED={}: {shown:?} {link:?} {held:?} {:?}", self.seed, self.told);
        // And then it is quiet: nothing more is written but the node record.
        tokio::time::sleep(Duration::from_secs(10)).await;
        let quiet = self.store.inner().get(&[]).await.unwrap().revision;
        tokio::time::sleep(Duration::from_secs(120)).await;
        let later = self.store.inner().get(&[]).await.unwrap().revision;
        assert_eq!(quiet, later, "WHARF_SEED={}: writes with nothing to write", self.seed);
        let (local, overlay) =
            (self.host().outputs.local.borrow().clone(), self.host().outputs.overlay.borrow().clone());
        assert!(!overlay.active, "WHARF_SEED={}: overlay stays: {overlay:?} {local:?} {:?}", self.seed, self.told);
    }
}

async fn history(seed: u64) {
    let mut story = Story::new(seed);
    for _ in 0..30 {
        story.step().await;
    }
    story.end().await;
    story.host.take().unwrap().stop().await;
}

#[test]
fn the_store_ends_equal_to_what_is_offered() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("WHARF_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("WHARF_HISTORIES").unwrap_or(200),
    };
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(history(seed));
    }
}
