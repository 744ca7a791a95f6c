//! Three hosts on one machine, for tests that need a cluster: each a network namespace with a Docker engine, an etcd
//! member and room for a wharf agent. One lab serves a whole run; nothing of it is left when the run is over, however
//! it ends (`sweep.sh`).
//!
//! ```ignore
//! let lab = lab::alone();                       // nobody else uses it meanwhile, and it is as new
//! let agents = lab.wharves();                   // an agent on every host
//! let cache = lab.host(1).run(memcached().name("core-01").publish(11211));
//! eventually("host 2 finds it", || lab.host(2).dig("memcached.services.internal", "SRV").is(&[lab.host(1).at(11211)]));
//! lab.host(1).cut();
//! ```
//!
//! A test that cuts, kills or hangs anything takes the lab `alone`; one that only runs containers may `share` it: the
//! agents are there already, it brings service names of its own and publishes on free ports (`publish_anywhere`).
#![allow(dead_code, unused_imports, unreachable_pub, clippy::print_stderr, clippy::needless_pass_by_value)] // a library that is compiled into each of its users

pub mod container;
pub mod counter;
pub mod dns;
pub mod etcd;
pub mod ground;
pub mod host;
pub mod image;
pub mod process;
pub mod steered;
pub mod wait;
pub mod wharf;

use std::fs;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub use container::{busybox, memcached, postgres, redis};
pub use wait::{eventually, throughout, within};

use etcd::Etcd;
use ground::Ground;
use host::Host;
use wharf::Wharf;

const HOSTS: u8 = 3;

/// The hosts and the ground under them.
#[derive(Debug)]
pub struct Lab {
    // Hosts go first: their processes end before the ground is swept.
    hosts: Vec<Host>,
    ground: Arc<Ground>,
}

impl Lab {
    /// Brings a lab up: engines and etcd answer when this returns.
    ///
    /// # Panics
    /// When this machine cannot carry one, with what it lacks.
    pub fn start() -> Self {
        if let Err(why) = ground::machine_can() {
            panic!("{why}");
        }
        let ground = Arc::new(Ground::lay());
        let hosts: Vec<Host> = (1..=HOSTS).map(|n| Host::start(&ground, n, HOSTS)).collect();
        let lab = Self { hosts, ground };
        for host in &lab.hosts {
            host.engine_answers();
        }
        lab.etcd().wait_healthy();
        lab
    }

    /// A host, from 1 on.
    pub fn host(&self, n: usize) -> &Host {
        &self.hosts[n - 1]
    }

    /// All of them.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// A further host, with an engine but no member of etcd, for one test; its processes end with its handle.
    ///
    /// # Panics
    /// When its number is one of the lab's own.
    pub fn guest(&self, n: u8) -> Host {
        assert!(n > HOSTS, "host {n} is there already");
        self.ground.unplug(&format!("h{n}"));
        let host = Host::start(&self.ground, n, HOSTS);
        host.engine_answers();
        host
    }

    /// A client of the etcd cluster.
    pub fn etcd(&self) -> Etcd {
        Etcd::at(self.hosts.iter().map(Host::etcd_endpoint).collect())
    }

    /// Where it keeps its files.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// Starts an agent on every host and waits until all are ready.
    pub fn wharves(&self) -> Vec<Wharf<'_>> {
        self.wharves_told("")
    }

    /// The same, with this in their settings file.
    pub fn wharves_told(&self, settings: &str) -> Vec<Wharf<'_>> {
        let written = |host: &Host| {
            let file = host.dir().join("wharf.toml");
            fs::write(&file, settings).expect("the lab's folder can be written");
            file.display().to_string()
        };
        let files: Vec<String> = self.hosts.iter().map(written).collect();
        let specs = self.hosts.iter().zip(&files).map(|(host, file)| host.wharf().flag("--config", file));
        let agents: Vec<Wharf<'_>> = specs.map(wharf::WharfSpec::start_only).collect();
        for agent in &agents {
            agent.wait_ready();
        }
        agents
    }

    /// Makes it as new: nothing cut, hung or dead, no containers, etcd empty, no agent's state.
    fn restore(&self) {
        for host in &self.hosts {
            host.restore();
            let _ = fs::remove_dir_all(host.dir().join("wharf"));
            host.forget_logs();
        }
        let etcd = self.etcd();
        let well = wait::poll_for(std::time::Duration::from_secs(10), || etcd.healthy().is_ok());
        if !well {
            self.new_etcd();
        }
        etcd.empty();
    }

    /// Makes a host's etcd member the leader.
    pub fn lead_etcd_from(&self, n: usize) {
        let of = |n: usize, what: &str| {
            let member = Etcd::at(vec![self.host(n).etcd_endpoint()]);
            let status: serde_json::Value =
                serde_json::from_str(&member.ctl(&["endpoint", "status", "-w", "json"])).expect("JSON");
            let status = &status[0]["Status"];
            if what == "leader" { status["leader"].as_u64() } else { status["header"]["member_id"].as_u64() }
        };
        eventually(&format!("etcd is led from host {n}"), || {
            let (wanted, leader) = (of(n, "member")?, of(n, "leader")?);
            if wanted == leader {
                return Some(());
            }
            let now = (1..=self.hosts.len()).find(|n| of(*n, "member") == Some(leader))?;
            let leading = Etcd::at(vec![self.host(now).etcd_endpoint()]);
            let _ = leading.try_ctl(&["move-leader", &format!("{wanted:x}")]);
            None
        });
    }

    /// Makes the etcd cluster anew, with nothing in it.
    pub fn new_etcd(&self) {
        for host in &self.hosts {
            host.wipe_etcd();
        }
        for host in &self.hosts {
            host.etcd().start_again();
        }
        self.etcd().wait_healthy();
    }

    /// Says on standard error what every host logged last.
    fn tell(&self) {
        for host in &self.hosts {
            eprintln!("{}", host.tell());
        }
    }
}

/// The run's lab. It is never dropped: the sweeper sees the end of this process.
static LAB: OnceLock<Lab> = OnceLock::new();
static GATE: RwLock<()> = RwLock::new(());
/// Whether the lab is as new.
static NEW: AtomicBool = AtomicBool::new(true);
/// The agents of the tests that share the lab.
static STANDING: Mutex<Vec<Wharf<'static>>> = Mutex::new(Vec::new());

fn the_lab() -> &'static Lab {
    LAB.get_or_init(Lab::start)
}

/// The lab, with an agent on every host, among other tests.
#[derive(Debug)]
pub struct Shared {
    lab: &'static Lab,
    _gate: RwLockReadGuard<'static, ()>,
}

/// Takes the lab together with other tests that share it.
pub fn share() -> Shared {
    let gate = GATE.read().unwrap_or_else(PoisonError::into_inner);
    let lab = the_lab();
    let mut standing = host::lock(&STANDING);
    NEW.store(false, Ordering::SeqCst);
    if standing.is_empty() {
        *standing = lab.wharves();
    }
    Shared { lab, _gate: gate }
}

impl Deref for Shared {
    type Target = Lab;
    fn deref(&self) -> &Lab {
        self.lab
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.lab.tell();
        }
    }
}

/// The lab, as new and without agents, for one test alone.
#[derive(Debug)]
pub struct Alone {
    lab: &'static Lab,
    _gate: RwLockWriteGuard<'static, ()>,
}

/// Takes the lab alone.
pub fn alone() -> Alone {
    let gate = GATE.write().unwrap_or_else(PoisonError::into_inner);
    let lab = the_lab();
    host::lock(&STANDING).clear();
    if !NEW.swap(false, Ordering::SeqCst) {
        lab.restore();
    }
    Alone { lab, _gate: gate }
}

impl Deref for Alone {
    type Target = Lab;
    fn deref(&self) -> &Lab {
        self.lab
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.lab.tell();
        }
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.lab.restore()));
        match outcome {
            Ok(()) => NEW.store(true, Ordering::SeqCst),
            Err(_) => eprintln!("the lab could not be made as new; the next test tries again"),
        }
    }
}
