//! Where the drills happen: agents on the lab's hosts, servers in containers, and the way in for those who ask. A drill
//! is watched from here: `watched` runs a piece of it and brings back everything that was seen meanwhile.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use crate::bounds::TTL;
use crate::judge::{Answer, Endpoint, Record, Said};
use crate::lab::host::{Host, lock};
use crate::lab::process::{run, try_run};
use crate::lab::wait::{pause, poll_for};
use crate::lab::wharf::Wharf;
use crate::lab::{Lab, memcached, postgres, redis};
use crate::query::{self, Kind};
use crate::quorum::{self, Told};
use crate::trouble::{Pace, Trouble, Troubles};
use crate::truth::{Act, Deed, Life, Look, Moment, Span};

/// The services that are asked for, by number.
pub const KINDS: [Kind; 3] = [Kind::Memcached, Kind::Redis, Kind::Postgres];
/// What each host runs.
const ON_EACH_HOST: [(Kind, u16, u16); 4] = [
    (Kind::Memcached, 11211, 11211),
    (Kind::Memcached, 11212, 11211),
    (Kind::Redis, 6379, 6379),
    (Kind::Postgres, 5432, 5432),
];
/// Between two questions to one agent.
const ASK: Duration = Duration::from_millis(40);
/// Between two questions to one member of etcd, to the machine, and to the kernel.
const FEEL: Duration = Duration::from_millis(150);
/// Where members of etcd are reached.
const ETCD: u16 = 2379;

/// For how long what was broken is remembered.
const LATELY: Duration = Duration::from_secs(30);

/// A server in a container on a host, and a lock for whoever does something to it.
#[derive(Debug)]
pub struct Slot {
    pub host: usize,
    pub kind: Kind,
    pub at: SocketAddrV4,
    inside: u16,
    pub name: Mutex<String>,
    pub hands: Mutex<()>,
    acts: Mutex<Vec<Act>>,
}

/// The cluster under drill.
#[derive(Debug)]
pub struct Field<'lab> {
    pub lab: &'lab Lab,
    pub agents: Vec<Mutex<Wharf<'lab>>>,
    pub slots: Vec<Slot>,
    start: Instant,
    troubles: Mutex<Vec<Trouble>>,
    settled: Mutex<Moment>,
    /// What etcd's members last said, for the next who asks.
    last: Mutex<Option<quorum::Last>>,
}

impl<'lab> Field<'lab> {
    /// Sets everything up and waits until every host finds all of it.
    pub fn lay(lab: &'lab Lab, faketime: Option<&str>) -> Self {
        for host in lab.hosts() {
            host.open_side_door();
            small_disk(host);
        }
        let agents = lab.hosts().iter().map(|host| Mutex::new(agent(host, faketime))).collect();
        let numbered = lab.hosts().iter().enumerate();
        let slots = numbered.flat_map(|(n, host)| ON_EACH_HOST.map(|what| Slot::new(n, host, what))).collect();
        let (troubles, settled, last) = Default::default();
        let field = Self { lab, agents, slots, start: Instant::now(), troubles, settled, last };
        thread::scope(|scope| {
            for n in 0..lab.hosts().len() {
                let field = &field;
                scope.spawn(move || {
                    for (_, slot) in field.slots_of(n) {
                        slot.run(field.host(n)).expect("a new host runs its containers");
                    }
                });
            }
        });
        field
    }

    /// A host, from 0 on.
    pub fn host(&self, n: usize) -> &'lab Host {
        self.lab.host(n + 1)
    }

    /// The servers of a host, with their numbers.
    pub fn slots_of(&self, host: usize) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots.iter().enumerate().filter(move |(_, slot)| slot.host == host)
    }

    /// The time of the drills.
    pub fn now(&self) -> Moment {
        self.start.elapsed()
    }

    /// Does something to a server, and notes it.
    pub fn act<T>(&self, slot: usize, deed: Deed, doing: impl FnOnce(&Slot, &Host) -> T) -> T {
        let slot = &self.slots[slot];
        let from = self.now();
        let done = doing(slot, self.host(slot.host));
        slot.note(deed, Span { from, to: self.now() });
        done
    }

    /// Notes that something is broken.
    pub fn note(&self, trouble: Trouble) {
        lock(&self.troubles).push(trouble);
    }

    /// Waits until every host's agent names every server, and says whether it came to that.
    pub fn settle(&self, limit: Duration) -> Result<(), String> {
        let mut seen = String::new();
        let well = poll_for(limit, || match self.all_named() {
            Ok(()) => true,
            Err(why) => {
                seen = why;
                false
            }
        });
        *lock(&self.settled) = self.now();
        if well { Ok(()) } else { Err(seen) }
    }

    fn all_named(&self) -> Result<(), String> {
        for (n, host) in self.lab.hosts().iter().enumerate() {
            for kind in KINDS {
                let expected: BTreeSet<SocketAddrV4> =
                    self.slots.iter().filter(|slot| slot.kind == kind).map(|slot| slot.at).collect();
                let found = query::endpoints(self.agent(n), &name_of(kind))?;
                if found != expected {
                    return Err(format!("{} says of {}: {found:?}", host.name(), kind.service()));
                }
            }
        }
        Ok(())
    }

    /// Since when nothing has changed, after `settle`.
    pub fn settled(&self) -> Moment {
        *lock(&self.settled)
    }

    fn agent(&self, host: usize) -> SocketAddrV4 {
        SocketAddrV4::new(self.host(host).address(), 5300)
    }

    /// Runs `part` while everybody asks, and returns what they saw, and when `part` said that all was whole again.
    pub fn watched(&self, part: impl FnOnce() -> Moment) -> Record {
        // What was broken lately still shows.
        lock(&self.troubles).retain(|trouble| trouble.span.to + LATELY > self.now());
        self.slots.iter().for_each(|slot| lock(&slot.acts).clear());
        let (stop, settled) = (AtomicBool::new(false), self.settled());
        let stop = &stop;
        thread::scope(|scope| {
            let _stop = StopAtEnd(stop);
            let hosts = 0..self.lab.hosts().len();
            let askers: Vec<_> = hosts.clone().map(|n| scope.spawn(move || self.ask_agent(n, stop))).collect();
            let lookers: Vec<_> = self.slots.iter().map(|slot| scope.spawn(move || self.look_at(slot, stop))).collect();
            let members: Vec<_> = hosts.clone().map(|n| scope.spawn(move || self.ask_member(n, stop))).collect();
            let moored: Vec<_> = hosts.map(|n| scope.spawn(move || self.look_where_moored(n, stop))).collect();
            let canary = scope.spawn(move || self.feel(stop));
            let healed = part();
            stop.store(true, Ordering::SeqCst);
            let joined = "an asker does not panic";
            let looks: Vec<_> = lookers.into_iter().map(|looker| looker.join().expect(joined)).collect();
            let answers = askers.into_iter().flat_map(|asker| asker.join().expect(joined)).collect();
            let members = members.into_iter().map(|member| member.join().expect(joined)).collect();
            let moored = moored.into_iter().map(|looker| looker.join().expect(joined)).collect();
            self.note_store(members, moored);
            let list = lock(&self.troubles).clone();
            let troubles = Troubles { list, pace: canary.join().expect(joined) };
            Record { endpoints: self.endpoints(looks), answers, troubles, settled, healed }
        })
    }

    fn endpoints(&self, looks: Vec<Vec<Look>>) -> Vec<Endpoint> {
        let with_looks = self.slots.iter().zip(looks);
        with_looks
            .map(|(slot, looks)| Endpoint {
                host: slot.host,
                service: service_of(slot.kind),
                label: format!("{} {}", slot.kind.service(), slot.at),
                life: Life { looks, acts: lock(&slot.acts).clone() },
            })
            .collect()
    }

    fn ask_agent(&self, viewer: usize, stop: &AtomicBool) -> Vec<Answer> {
        self.repeat(ASK, stop, |nth| {
            let service = nth % KINDS.len();
            let (span, found) = self.timed(|| query::endpoints(self.agent(viewer), &name_of(KINDS[service])));
            let said = found.and_then(|found| {
                let number = |at: &SocketAddrV4| self.slots.iter().position(|slot| slot.at == *at);
                found.iter().map(|at| number(at).ok_or_else(|| format!("names {at}, where nothing ever ran"))).collect()
            });
            let said = said.map_or_else(Said::Failed, Said::Found);
            Answer { viewer, service, span, said }
        })
    }

    fn look_at(&self, slot: &Slot, stop: &AtomicBool) -> Vec<Look> {
        self.repeat(slot.kind.interval(), stop, |_| {
            let (span, seen) = self.timed(|| query::serves(slot.kind, slot.at));
            Look { span, seen }
        })
    }

    /// Notes what the members' answers, and the agents' connections to them, tell of the store.
    fn note_store(&self, members: Vec<Vec<Told>>, moored: Vec<Vec<(Span, BTreeSet<usize>)>>) {
        let end = self.now();
        let links = lock(&self.troubles).clone();
        let silences: Vec<_> =
            members.iter().enumerate().flat_map(|(n, told)| quorum::silences(n, told, end)).collect();
        let stranded = moored
            .into_iter()
            .enumerate()
            .flat_map(|(host, looks)| quorum::stranded(host, &quorum::moorings(looks, end), &silences, &links));
        stranded.for_each(|trouble| self.note(trouble));
        let told = members.into_iter().flatten().collect();
        quorum::store_troubles(&mut lock(&self.last), told, end).into_iter().for_each(|trouble| self.note(trouble));
    }

    fn ask_member(&self, host: usize, stop: &AtomicBool) -> Vec<Told> {
        let member = SocketAddrV4::new(self.host(host).address(), ETCD);
        self.repeat(FEEL, stop, |_| {
            let (span, term) = self.timed(|| query::store_term(member));
            Told { span, term }
        })
    }

    /// Which members an agent has connections to.
    fn look_where_moored(&self, host: usize, stop: &AtomicBool) -> Vec<(Span, BTreeSet<usize>)> {
        self.repeat(FEEL, stop, |_| {
            self.timed(|| {
                let pid = lock(&self.agents[host]).process().pid();
                let members = pid.map(|pid| query::connected(pid, ETCD)).unwrap_or_default();
                let number = |address| self.lab.hosts().iter().position(|host| host.address() == address);
                members.into_iter().filter_map(number).collect()
            })
        })
    }

    fn feel(&self, stop: &AtomicBool) -> Vec<Pace> {
        self.repeat(FEEL, stop, |_| {
            let (span, late) = self.timed(|| query::lateness(self.lab.ground().dir()));
            Pace { span, late }
        })
    }

    fn timed<T>(&self, doing: impl FnOnce() -> T) -> (Span, T) {
        let from = self.now();
        let value = doing();
        (Span { from, to: self.now() }, value)
    }

    fn repeat<T>(&self, every: Duration, stop: &AtomicBool, mut doing: impl FnMut(usize) -> T) -> Vec<T> {
        let mut seen = vec![];
        while !stop.load(Ordering::SeqCst) {
            let next = self.now() + every;
            seen.push(doing(seen.len()));
            pause(next.saturating_sub(self.now()).max(Duration::from_millis(5)));
        }
        seen
    }
}

impl Drop for Field<'_> {
    fn drop(&mut self) {
        self.agents.clear();
        for host in self.lab.hosts() {
            // The sweeper unmounts what is left.
            let _ = try_run(&["umount", "-l", &state_dir(host).display().to_string()]);
        }
    }
}

/// Tells others to stop when its holder ends, however it does: else they would never.
pub struct StopAtEnd<'a>(pub &'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Slot {
    fn new(n: usize, host: &Host, (kind, outside, inside): (Kind, u16, u16)) -> Self {
        let name = Mutex::new(format!("{}-{outside}", kind.service()));
        let at = SocketAddrV4::new(host.address(), outside);
        Self { host: n, kind, at, inside, name, hands: Mutex::default(), acts: Mutex::default() }
    }

    /// Its container, anew.
    pub fn run(&self, host: &Host) -> Result<(), String> {
        let name = lock(&self.name).clone();
        let spec = match self.kind {
            Kind::Memcached => memcached(),
            Kind::Redis => redis(),
            Kind::Postgres => postgres().env("POSTGRES_PASSWORD", "secret"),
        };
        let spec = spec.name(&name).option("--restart=unless-stopped").publish_as(self.at.port(), self.inside);
        host.try_run(&spec).map(drop)
    }

    /// A docker command on its container.
    pub fn docker(&self, host: &Host, command: &[&str]) -> Result<String, String> {
        let name = lock(&self.name).clone();
        host.try_docker(&command.iter().copied().chain([name.as_str()]).collect::<Vec<_>>())
    }

    pub fn note(&self, deed: Deed, span: Span) {
        lock(&self.acts).push(Act { deed, span });
    }
}

/// The name that a kind of server is asked for by.
fn name_of(kind: Kind) -> String {
    format!("{}.services.internal", kind.service())
}

fn service_of(kind: Kind) -> usize {
    KINDS.iter().position(|other| *other == kind).unwrap_or_default()
}

fn agent<'lab>(host: &'lab Host, faketime: Option<&str>) -> Wharf<'lab> {
    let mut spec = host.wharf().home(HOME).lease_ttl(TTL);
    if let Some(library) = faketime {
        fs::write(clock_file(host), "+0").expect("the lab's folder can be written");
        spec = spec
            .env("LD_PRELOAD", library)
            .env("FAKETIME_TIMESTAMP_FILE", &clock_file(host).display().to_string())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    }
    spec.start_only()
}

const HOME: &str = "drilled";

/// Where a host's agent reads how far its clock is off.
pub fn clock_file(host: &Host) -> PathBuf {
    host.dir().join("clock")
}

/// A host's agent keeps its state here, on a disk so small that it can be filled.
pub fn state_dir(host: &Host) -> PathBuf {
    host.dir().join(HOME).join("state")
}

fn small_disk(host: &Host) {
    let dir = state_dir(host);
    fs::create_dir_all(&dir).expect("the lab's folder can be written");
    run(&["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", &dir.display().to_string()]);
}

/// Holds a server for somebody who does something to it.
pub fn hold(slot: &Slot) -> Option<MutexGuard<'_, ()>> {
    slot.hands.try_lock().ok()
}
