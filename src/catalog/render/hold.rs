//! Why nothing new is made of what there is to be seen now. A file waits only for what its template lists.

use std::collections::BTreeMap;
use std::fmt;

use super::needs::{Need, Needs, Wanted};
use super::sight::{Seen, Sight};

/// Why the last good file stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    /// Something has not been told yet.
    Unread(String),
    /// Something is only known from before.
    Stale(String),
    /// The store has lost records whose owners may publish them again.
    Held(String),
    /// A service has fewer endpoints than the table asks for.
    Few {
        /// Its name.
        service: String,
        /// How many there are.
        there: usize,
        /// How many there must be.
        least: usize,
    },
}

impl Hold {
    /// Whether there is at least something to make a file of where none is.
    pub(crate) fn has_something(&self) -> bool {
        matches!(self, Self::Stale(_) | Self::Held(_))
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unread(what) => write!(f, "{what} not read yet"),
            Self::Stale(what) => write!(f, "{what} only known from before: the store is away, or nobody answers"),
            Self::Held(service) => {
                write!(f, "records of {service} that the store has lost are held until their owners publish again")
            }
            Self::Few { service, there, least } => {
                write!(f, "{service} has {there} endpoint{}, min is {least}", if *there == 1 { "" } else { "s" })
            }
        }
    }
}

/// What a table waits for, by what its template called and by its `min`.
pub(crate) fn hold(needs: &Needs, min: &BTreeMap<String, usize>, sight: &Sight) -> Option<Hold> {
    let services = min.keys().map(|service| Need::Service(Wanted::all(service)));
    let all: Vec<Need> = needs.iter().cloned().chain(services).collect();
    let standings = all.iter().filter_map(|need| standing(need, sight)).collect::<Vec<_>>();
    let unread = standings.iter().find(|hold| matches!(hold, Hold::Unread(_))).cloned();
    // What is too little already is not waited for; it stays away even where there is no file yet.
    unread.or_else(|| few(min, sight)).or_else(|| standings.into_iter().next())
}

fn few(min: &BTreeMap<String, usize>, sight: &Sight) -> Option<Hold> {
    min.iter().find_map(|(service, least)| {
        let wanted = Wanted::all(service);
        let there = wanted.of(sight.services.get(service.as_str()).map(|service| &**service)).count();
        (there < *least).then(|| Hold::Few { service: service.clone(), there, least: *least })
    })
}

fn standing(need: &Need, sight: &Sight) -> Option<Hold> {
    match need {
        Need::Names | Need::Service(_) if !sight.read => Some(Hold::Unread("services are".to_owned())),
        Need::Names | Need::Service(_) if sight.stale => Some(Hold::Stale("services are".to_owned())),
        Need::Names => None,
        Need::Service(wanted) => {
            let service = sight.services.get(wanted.service.as_str())?;
            let is_held = service.endpoints.iter().any(|endpoint| endpoint.held);
            is_held.then(|| Hold::Held(wanted.service.clone()))
        }
        Need::Nodes if sight.nodes.is_none() => Some(Hold::Unread("nodes are".to_owned())),
        Need::Nodes => sight.stale.then(|| Hold::Stale("nodes are".to_owned())),
        Need::Key(key) => of_seen(sight.keys.get(key), &format!("the key {key} is")),
        Need::Members(service) => of_seen(sight.members.get(service), &format!("the members of {service} are")),
        // Who tells them may be away for as long as it likes: what it told last is the best that there is.
        Need::Discovered(from) => {
            sight.discovered.get(from).is_none().then(|| Hold::Unread(format!("what {from} tells is")))
        }
    }
}

fn of_seen<T>(seen: Option<&Seen<T>>, what: &str) -> Option<Hold> {
    match seen {
        None => Some(Hold::Unread(what.to_owned())),
        Some(Seen::Stale(_)) => Some(Hold::Stale(what.to_owned())),
        Some(Seen::Known(_)) => None,
    }
}
