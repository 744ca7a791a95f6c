//! What people and programs are told of a lock.

use serde::Serialize;

use super::certificate::{Certificate, Entry};
use super::queue::Place;

/// A lock as it stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Status {
    /// Its name or key.
    pub name: String,
    /// Who has it.
    pub holder: Option<Holder>,
    /// Whose program was started and is not known to be dead, when that is not the holder.
    pub certificate: Option<Certificate>,
    /// Who waits, in order.
    pub waiting: Vec<Waiting>,
}

/// Who has a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Its host; empty when it is not one of wharf's.
    pub node: String,
    /// Its token.
    pub token: i64,
    /// Since when it runs, in seconds since 1970; none while it waits for the one before to be dead for sure.
    pub since: Option<u64>,
    /// What its lease has left, in milliseconds.
    pub left: Option<u64>,
    /// Its queue key.
    pub key: String,
}

/// Who waits for a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Its host; empty when it is not one of wharf's.
    pub node: String,
    /// Since when, in seconds since 1970.
    pub since: u64,
    /// Its queue key.
    pub key: String,
}

impl Status {
    /// What queue and certificate say.
    pub fn new(name: &str, line: &[Place], certificate: Option<Certificate>, left: Option<u64>) -> Self {
        let mut places = line.iter();
        let holder = places.next().map(|place| {
            let own = certificate.as_ref().filter(|certificate| certificate.token == place.created);
            let entry = Entry::decode(&place.value);
            let since = own.map(|certificate| certificate.since);
            Holder { node: entry.node, token: place.created, since, left, key: place.key.clone() }
        });
        let waiting = places.map(|place| {
            let Entry { node, since, .. } = Entry::decode(&place.value);
            Waiting { node, since, key: place.key.clone() }
        });
        let waiting = waiting.collect();
        let own = holder.as_ref().map(|holder| holder.token);
        let certificate = certificate.filter(|certificate| Some(certificate.token) != own);
        Self { name: name.to_owned(), holder, certificate, waiting }
    }

    /// Whether nobody has it, waits for it or may still run.
    pub fn is_free(&self) -> bool {
        self.holder.is_none() && self.certificate.is_none()
    }
}
