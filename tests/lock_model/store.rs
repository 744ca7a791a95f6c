//! A model of etcd: leases by its own clock, a queue, a certificate; it hangs, changes leaders, is emptied and
//! restored.

use std::collections::BTreeMap;
use std::time::Duration;

use wharf::model::steer::lock::certificate::{Certificate, Entry};
use wharf::model::steer::lock::queue::{Keys, Place};

use crate::dice::Dice;

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl: Duration,
    ends: Duration,
}

#[derive(Clone, Debug, Default)]
struct State {
    revision: i64,
    leases: BTreeMap<i64, Lease>,
    /// Lease, and the revision that created its key.
    queue: BTreeMap<i64, i64>,
    certificate: Option<(Certificate, i64)>,
}

#[derive(Clone, Debug)]
pub struct Store {
    now: State,
    copy: State,
    pub history: u64,
    last_lease: i64,
}

/// What a program asks.
#[derive(Clone, Debug)]
pub enum Request {
    Grant(Duration),
    Queue(i64),
    /// A renewal, and a look whether the key is there under this token.
    Renew(i64, Option<i64>),
    Look,
    Ask(i64),
    Start {
        lease: i64,
        token: i64,
        last: Option<i64>,
        certificate: Certificate,
    },
    Finish {
        lease: i64,
        token: i64,
    },
}

/// What it is told; with each goes the number of the store's history.
#[derive(Clone, Debug)]
pub enum Reply {
    Granted(i64, Duration),
    Queued(i64),
    Renewed,
    NoLease,
    Line(Vec<Place>, Option<(Certificate, i64)>),
    Left { lease: i64, granted: Duration, left: Duration },
    Started(bool),
    Finished,
}

impl Store {
    pub fn new() -> Self {
        Self { now: State { revision: 1, ..State::default() }, copy: State::default(), history: 0, last_lease: 0 }
    }

    /// Leases end when they are due or a little later, as etcd looks at them only now and then.
    pub fn expire(&mut self, clock: Duration, dice: &mut Dice) {
        let due: Vec<i64> =
            self.now.leases.iter().filter(|(_, lease)| lease.ends <= clock).map(|(id, _)| *id).collect();
        for id in due {
            if dice.chance(50) {
                self.revoke(id);
            }
        }
    }

    pub fn revoke(&mut self, id: i64) {
        self.now.leases.remove(&id);
        self.delete(id);
    }

    pub fn delete(&mut self, id: i64) {
        if self.now.queue.remove(&id).is_some() {
            self.now.revision += 1;
        }
    }

    /// The lease of the first in the queue.
    pub fn head(&self) -> Option<i64> {
        self.now.queue.iter().min_by_key(|(_, created)| **created).map(|(id, _)| *id)
    }

    /// A new leader gives every lease its whole time.
    pub fn change_leader(&mut self, clock: Duration) {
        for lease in self.now.leases.values_mut() {
            lease.ends = clock + lease.ttl;
        }
    }

    pub fn save(&mut self) {
        self.copy = self.now.clone();
    }

    pub fn wipe(&mut self) {
        self.now = State { revision: 1, ..State::default() };
        self.history += 1;
    }

    pub fn restore(&mut self, clock: Duration) {
        self.now = self.copy.clone();
        self.now.revision = self.now.revision.max(1);
        self.history += 1;
        self.change_leader(clock);
    }

    pub fn answer(&mut self, request: Request, clock: Duration, keys: &Keys) -> Reply {
        match request {
            Request::Grant(ttl) => {
                self.last_lease += 1;
                self.now.leases.insert(self.last_lease, Lease { ttl, ends: clock + ttl });
                Reply::Granted(self.last_lease, ttl)
            }
            Request::Queue(id) if self.now.leases.contains_key(&id) => {
                let created = *self.now.queue.entry(id).or_insert_with(|| {
                    self.now.revision += 1;
                    self.now.revision
                });
                Reply::Queued(created)
            }
            Request::Renew(id, token) => match self.now.leases.get_mut(&id) {
                // One that is over, and not yet ended, is not renewed any more.
                Some(lease) if lease.ends > clock => {
                    lease.ends = clock + lease.ttl;
                    let is_there = token.is_none() || self.now.queue.get(&id).copied() == token;
                    if is_there { Reply::Renewed } else { Reply::NoLease }
                }
                _ => Reply::NoLease,
            },
            Request::Ask(id) => match self.now.leases.get(&id) {
                Some(lease) => {
                    let left = Duration::from_secs(lease.ends.saturating_sub(clock).as_secs());
                    Reply::Left { lease: id, granted: lease.ttl, left }
                }
                None => Reply::NoLease,
            },
            Request::Queue(_) => Reply::NoLease,
            Request::Look => Reply::Line(self.places(keys), self.now.certificate.clone()),
            Request::Start { lease, token, last, certificate } => {
                let own = self.now.queue.get(&lease) == Some(&token);
                let same = self.now.certificate.as_ref().map(|(_, revision)| *revision) == last;
                if own && same {
                    self.now.revision += 1;
                    self.now.certificate = Some((certificate, self.now.revision));
                }
                Reply::Started(own && same)
            }
            Request::Finish { lease, token } => {
                let own = |certificate: &Certificate| certificate.lease == lease && certificate.token == token;
                self.now.certificate.take_if(|(certificate, _)| own(certificate));
                self.revoke(lease);
                Reply::Finished
            }
        }
    }

    fn places(&self, keys: &Keys) -> Vec<Place> {
        let place = |(id, created): (&i64, &i64)| {
            let ttl = self.now.leases.get(id).map_or(0, |lease| lease.ttl.as_millis() as u64);
            let entry = Entry { ttl, ..Entry::default() };
            Place::new(keys.of_lease(*id).into_bytes(), *created, *id, entry.encode().into_bytes())
        };
        self.now.queue.iter().map(place).collect()
    }
}
