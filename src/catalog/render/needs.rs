//! What a template called, and what it was answered: it is rendered again only when an answer is another one.

use std::sync::Arc;

use super::sight::{Seen, Sight, alike};
use crate::catalog::facade::api;
use crate::catalog::facade::autodiscovery::MemberList;
use crate::model::words::name::is_host;
use crate::model::words::node::NodeRecord;
use crate::model::words::record::{Role, Text};

/// Something that a template called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// `services`: the names of all.
    Names,
    /// `service(…)`.
    Service(Wanted),
    /// `nodes`.
    Nodes,
    /// `kv(…)`.
    Key(String),
    /// `members(…)`.
    Members(String),
    /// `discover(…)`.
    Discovered(String),
}

/// Which endpoints of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(super) service: String,
    pub(super) role: Option<Role>,
    pub(super) tag: Option<String>,
    pub(super) node: Option<String>,
    pub(super) near: bool,
}

impl Wanted {
    /// All of a service.
    pub(super) fn all(service: &str) -> Self {
        Self { service: service.to_owned(), ..Self::default() }
    }

    /// Those of its endpoints that are wanted and can be written into a file.
    pub(super) fn of<'s>(&'s self, service: Option<&'s api::Service>) -> impl Iterator<Item = &'s api::Endpoint> {
        // As in DNS, the role names nobody while several claim to be the primary.
        let is_contested = service.is_some_and(|service| service.contested) && self.role == Some(Role::Primary);
        let endpoints = service.filter(|_| !is_contested).map_or(&[][..], |service| &service.endpoints);
        endpoints.iter().filter(|endpoint| is_host(&endpoint.record.host) && self.takes(endpoint))
    }

    fn takes(&self, endpoint: &api::Endpoint) -> bool {
        let record = &endpoint.record;
        self.role.is_none_or(|role| record.role == Some(role))
            && self.tag.as_deref().is_none_or(|tag| record.tags.iter().any(|given| alike(given, tag)))
            && self.node.as_deref().is_none_or(|node| record.node.as_deref().is_some_and(|on| alike(on, node)))
    }
}

/// What a call was answered.
#[derive(Clone, Debug)]
enum Answer {
    Names(Vec<Text>),
    Service(Option<Arc<api::Service>>),
    Nodes(Option<Arc<Vec<NodeRecord>>>),
    Key(Option<Seen<Option<Text>>>),
    Members(Option<Seen<Option<MemberList>>>),
    Discovered(Option<Seen<Arc<[Text]>>>),
}

/// All that a template called, each with its answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs(Vec<(Need, Answer)>);

impl Needs {
    /// Adds a call.
    pub(super) fn add(&mut self, need: Need, sight: &Sight) {
        if self.0.iter().all(|(known, _)| *known != need) {
            let answer = answer(&need, sight);
            self.0.push((need, answer));
        }
    }

    /// Each call.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Need> {
        self.0.iter().map(|(need, _)| need)
    }

    /// Takes in what there is to be seen now; whether an answer is another one.
    pub(crate) fn look(&mut self, sight: &Sight) -> bool {
        let mut has_changed = false;
        for (need, before) in &mut self.0 {
            let now = answer(need, sight);
            has_changed |= !is_same(need, before, &now);
            *before = now;
        }
        has_changed
    }
}

fn answer(need: &Need, sight: &Sight) -> Answer {
    match need {
        Need::Names => Answer::Names(sight.services.keys().cloned().collect()),
        Need::Service(wanted) => Answer::Service(sight.services.get(wanted.service.as_str()).cloned()),
        Need::Nodes => Answer::Nodes(sight.nodes.clone()),
        Need::Key(key) => Answer::Key(sight.keys.get(key).cloned()),
        Need::Members(service) => Answer::Members(sight.members.get(service).cloned()),
        Need::Discovered(from) => Answer::Discovered(sight.discovered.get(from).cloned()),
    }
}

/// Whether a template would be told the same. That a value is stale now is not another value.
fn is_same(need: &Need, before: &Answer, now: &Answer) -> bool {
    match (before, now) {
        (Answer::Names(one), Answer::Names(other)) => one == other,
        (Answer::Service(one), Answer::Service(other)) => match need {
            Need::Service(wanted) => is_same_service(wanted, one.as_ref(), other.as_ref()),
            _ => false,
        },
        (Answer::Nodes(Some(one)), Answer::Nodes(Some(other))) => {
            Arc::ptr_eq(one, other) || one.iter().map(shown).eq(other.iter().map(shown))
        }
        (Answer::Nodes(None), Answer::Nodes(None)) => true,
        (Answer::Key(one), Answer::Key(other)) => one.as_ref().map(Seen::last) == other.as_ref().map(Seen::last),
        (Answer::Members(one), Answer::Members(other)) => {
            one.as_ref().map(Seen::last) == other.as_ref().map(Seen::last)
        }
        (Answer::Discovered(one), Answer::Discovered(other)) => {
            one.as_ref().map(Seen::last) == other.as_ref().map(Seen::last)
        }
        _ => false,
    }
}

fn is_same_service(wanted: &Wanted, one: Option<&Arc<api::Service>>, other: Option<&Arc<api::Service>>) -> bool {
    if let (Some(one), Some(other)) = (one, other)
        && Arc::ptr_eq(one, other)
    {
        return true;
    }
    let (one, other) = (one.map(|service| &**service), other.map(|service| &**service));
    let is_contested = |service: Option<&api::Service>| service.is_some_and(|service| service.contested);
    let differs = |(one, other): (&api::Endpoint, &api::Endpoint)| one.key != other.key || one.record != other.record;
    let (mut before, mut now) = (wanted.of(one), wanted.of(other));
    let is_same = loop {
        match (before.next(), now.next()) {
            (None, None) => break true,
            (Some(one), Some(other)) if !differs((one, other)) => {}
            _ => break false,
        }
    };
    is_same && is_contested(one) == is_contested(other)
}

/// What templates are told of a node; how many instances it has in which state is not a part of it.
fn shown(node: &NodeRecord) -> NodeRecord {
    let NodeRecord { node, owner, version, addresses, site, started, drained, ordinals, .. } = node.clone();
    NodeRecord { node, owner, version, addresses, site, started, drained, ordinals, ..NodeRecord::default() }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Names => f.write_str("services"),
            Self::Service(wanted) => write!(f, "service {}", wanted.service),
            Self::Nodes => f.write_str("nodes"),
            Self::Key(key) => write!(f, "key {key}"),
            Self::Members(service) => write!(f, "members {service}"),
            Self::Discovered(from) => f.write_str(from),
        }
    }
}
