//! The whole of what this host shows: every instance with what became of it, and how its publication stands.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use super::maintenance::Maintenance;
use super::plan::Assignment;
use crate::model::health::standing::{ServingMap, Standings, State};
use crate::model::offer::instance::{DockerStanding, Instance, InstanceKey, Offer, Skipped, Withheld};
use crate::model::words::record::{Record, Role, Text};
use crate::model::words::trouble::Trouble;

/// Whether this host withdraws what it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DrainState {
    /// It offers what serves.
    #[default]
    Offering,
    /// It was asked to withdraw, and stays so through restarts.
    Drained {
        /// When it was asked.
        since: SystemTime,
    },
    /// It shuts down; nothing of this is remembered.
    ShuttingDown {
        /// When that began.
        since: SystemTime,
    },
}

impl DrainState {
    /// Since when nothing is offered.
    pub fn since(self) -> Option<SystemTime> {
        match self {
            Self::Offering => None,
            Self::Drained { since } | Self::ShuttingDown { since } => Some(since),
        }
    }
}

/// How the lease stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SessionState {
    /// There is none yet.
    #[default]
    None,
    /// It is kept alive.
    Alive,
    /// The store is away; the lease may live or not.
    Doubtful,
}

impl SessionState {
    /// The word shown.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Alive => "alive",
            Self::Doubtful => "doubtful",
        }
    }
}

/// One instance as it is shown.
#[derive(Clone, Debug, PartialEq)]
pub struct LocalInstance {
    /// What is offered, with its check.
    pub instance: Arc<Instance>,
    /// Its state.
    pub state: State,
    /// What it is among its kind.
    pub role: Option<Role>,
    /// Since when it has been in this state; unknown before anyone has looked.
    pub since: Option<SystemTime>,
    /// What the last probe met, or why it cannot be published.
    pub error: Option<Arc<str>>,
    /// Whether its records stand in the store, each under its lease.
    pub published: bool,
    /// What whoever looks after it should know: what was asked for and cannot be had, who else is offered at its
    /// address.
    pub warning: Option<Arc<str>>,
    /// The keys of its records, as far as they have some.
    pub keys: Vec<String>,
}

/// All that this host shows of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Local {
    /// The host's name.
    pub node: Text,
    /// The agent's identity.
    pub owner: Text,
    /// Every instance, in order.
    pub instances: Vec<LocalInstance>,
    /// Every port not offered, with its reason.
    pub skipped: Vec<Skipped>,
    /// Every attribute that is kept from leaving it.
    pub withheld: Vec<Withheld>,
    /// Since when the node has been drained.
    pub drained: Option<SystemTime>,
    /// What is withdrawn, by whose word and why.
    pub maintenance: Arc<Maintenance>,
    /// Docker has been listed.
    pub listed: bool,
    /// Docker answers.
    pub engine: bool,
    /// Since when the host's addresses could not be read again: what was known of them stands.
    pub addresses_unread: Option<SystemTime>,
    /// Addresses advertised that no route has told since before a restart.
    pub addresses_remembered: Vec<IpAddr>,
    /// Why the store does not answer, while it does not.
    pub trouble: Option<Trouble>,
    /// How the lease stands.
    pub session: SessionState,
    /// The lease, 0 without one.
    pub lease: i64,
    /// The time that the lease was granted.
    pub granted: std::time::Duration,
    /// Keys whose change the store has not confirmed yet.
    pub unconfirmed: usize,
    /// Keys of this owner in the store.
    pub records: usize,
    /// Whether these are known: the store has been read for them, and tells when they change.
    pub known: bool,
}

/// What a withdrawal still waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Awaited {
    /// The switch has just been thrown.
    #[error("the withdrawal has not begun")]
    Begin,
    /// The store has not been read, so nobody knows what it holds of this host.
    #[error("the store does not tell what it holds of this host")]
    Store,
    /// Records stand in the store, so many.
    #[error("{0} records of this host still stand in the store")]
    Records(usize),
    /// The store has been asked to change so many keys, and has not said that it did.
    #[error("the store has not confirmed {0} changes")]
    Confirmation(usize),
}

impl Local {
    /// What a host that withdraws still waits for. That nothing is published is not enough: before the store has been
    /// read, or while it hangs, there may be records that nobody here knows of.
    pub fn awaits(&self) -> Option<Awaited> {
        match (self.drained, self.known, self.records, self.unconfirmed) {
            (None, ..) => Some(Awaited::Begin),
            (_, _, _, waiting @ 1..) => Some(Awaited::Confirmation(waiting)),
            (_, _, records @ 1.., _) => Some(Awaited::Records(records)),
            (_, false, ..) => Some(Awaited::Store),
            _ => None,
        }
    }

    /// Instances by state, for counting.
    pub fn states(&self) -> BTreeMap<State, usize> {
        let mut states = BTreeMap::new();
        for instance in &self.instances {
            *states.entry(instance.state).or_default() += 1;
        }
        states
    }
}

/// What the parts of [`Local`] are made from.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'f> {
    /// What is offered.
    pub offer: &'f Offer,
    /// What probes say.
    pub standings: &'f Standings,
    /// What serves.
    pub serving: &'f ServingMap,
    /// Whether it is withdrawn.
    pub drain: DrainState,
    /// What of it is withdrawn one by one.
    pub parts: &'f Maintenance,
    /// Why some are not published though they serve.
    pub refused: &'f [(InstanceKey, String)],
    /// Keys that each serving instance should have.
    pub assignment: &'f Assignment,
    /// Keys that hold what they should.
    pub confirmed: &'f BTreeSet<&'f str>,
}

/// Every instance as it is shown.
pub fn instances(facts: Facts<'_>) -> Vec<LocalInstance> {
    let mut keys: BTreeMap<&InstanceKey, Vec<String>> = BTreeMap::new();
    for (key, assigned) in facts.assignment {
        keys.entry(&assigned.instance).or_default().push(key.clone());
    }
    let refused: BTreeMap<&InstanceKey, &String> = facts.refused.iter().map(|(key, why)| (key, why)).collect();
    let rivals = rivals(facts.offer);
    let one = |instance: &Arc<Instance>| {
        let standing = facts.standings.get(&instance.key);
        let serving = facts.serving.get(&instance.key);
        let keys = keys.remove(&instance.key).unwrap_or_default();
        let refused = refused.get(&instance.key).map(|why| why.as_str().into());
        let part = facts.parts.of(instance);
        let state = match part {
            Some(_) => State::Drained,
            None => state(instance, standing.map(|standing| standing.state), serving.is_some(), facts.drain),
        };
        LocalInstance {
            state,
            role: instance.role.or(serving.map_or_else(|| standing.and_then(|s| s.role), |serving| serving.role)),
            since: facts
                .drain
                .since()
                .or(part.map(|part| part.since))
                .or_else(|| serving.map(|serving| serving.since))
                .or_else(|| standing.map(|standing| standing.since)),
            error: part
                .map(|part| part.words().into())
                .or(refused)
                .or_else(|| standing.and_then(|standing| standing.error.clone())),
            warning: warning(instance, rivals.get(&instance.key)),
            published: !keys.is_empty() && keys.iter().all(|key| facts.confirmed.contains(key.as_str())),
            keys,
            instance: Arc::clone(instance),
        }
    };
    facts.offer.instances.values().map(one).collect()
}

/// For each instance that another container (or table) is offered at the very address of, as two on the host's network
/// can be: one of the others.
fn rivals(offer: &Offer) -> BTreeMap<&InstanceKey, &Instance> {
    let mut first: BTreeMap<_, &Instance> = BTreeMap::new();
    let mut rivals = BTreeMap::new();
    for instance in offer.instances.values() {
        let there = *first.entry((instance.host, instance.port, instance.key.proto)).or_insert(instance);
        if there.key.source != instance.key.source {
            rivals.insert(&instance.key, there);
            rivals.entry(&there.key).or_insert(instance);
        }
    }
    rivals
}

fn warning(instance: &Instance, rival: Option<&&Instance>) -> Option<Arc<str>> {
    let shared = rival.map(|rival| {
        let at = SocketAddr::new(instance.host, instance.port);
        format!("{at} is also where {} is offered: whoever listens there answers for both", rival.id)
    });
    let all: Vec<String> = instance.check.warning.clone().into_iter().chain(shared).collect();
    (!all.is_empty()).then(|| all.join("; ").into())
}

fn state(instance: &Instance, standing: Option<State>, serving: bool, drain: DrainState) -> State {
    if drain != DrainState::Offering {
        return State::Drained;
    }
    match instance.docker {
        DockerStanding::Unhealthy => State::Unhealthy,
        DockerStanding::Paused => State::Paused,
        DockerStanding::Stopping => State::Stopping,
        DockerStanding::Running | DockerStanding::Healthy | DockerStanding::Starting => match standing {
            None | Some(State::Starting) if serving => State::Ready,
            None => State::Starting,
            Some(state) => state,
        },
    }
}

/// What answers from this host's own knowledge, laid over the catalog while the store cannot be asked or is slow to
/// confirm: every record of this owner out, these in. Where another owner holds the key of one, that one is answered
/// under its hashed key.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overlay {
    /// The newest revision that this host has written, or seen of its own: what is laid over stays so until the catalog
    /// has got there.
    pub written: i64,
    /// Whether it is to be laid over. When not, nothing is said of what goes out.
    pub active: bool,
    /// How many leases this host has lost.
    pub lost: u64,
    /// Whose records go out.
    pub owner: Text,
    /// Docker has not been listed yet: records of containers stay as the catalog has them.
    pub partial: bool,
    /// Keys of this owner as the store held them last: they go out too where the catalog names no owner.
    pub out: BTreeSet<String>,
    /// What this host means to have published, by key; what the store loses of it is answered on.
    pub records: BTreeMap<String, Arc<Record>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::offer::instance::{Check, Source};
    use crate::model::words::name::Label;
    use crate::model::words::record::Proto;

    #[test]
    fn withdrawn_means_that_the_store_has_nothing_and_has_said_so() {
        let drained = Local { drained: Some(SystemTime::UNIX_EPOCH), known: true, ..Local::default() };
        for (local, expected) in [
            (drained.clone(), None),
            (Local { drained: None, ..drained.clone() }, Some(Awaited::Begin)),
            (Local { known: false, ..drained.clone() }, Some(Awaited::Store)),
            (Local { records: 2, ..drained.clone() }, Some(Awaited::Records(2))),
            (Local { records: 2, unconfirmed: 1, ..drained.clone() }, Some(Awaited::Confirmation(1))),
            (Local { unconfirmed: 1, ..drained }, Some(Awaited::Confirmation(1))),
        ] {
            assert_eq!(local.awaits(), expected, "{local:?}");
        }
    }

    /// What is warned of when a container (by its letter) is offered at each of these ports.
    fn check_rivals(offered: &[(&str, u16, Proto)], expected: &[Option<&str>]) {
        let instance = |(container, port, proto): &(&str, u16, Proto)| Instance {
            key: InstanceKey { source: Source::Container((*container).into()), port: *port, proto: *proto },
            services: Vec::new(),
            label: Label::parse("a").expect("a label"),
            id: format!("core-01:{container}:{port}").into(),
            host: "10.0.0.1".parse().expect("an address"),
            host6: None,
            port: *port,
            role: None,
            priority: None,
            weight: None,
            ttl: None,
            tags: Vec::new(),
            attrs: BTreeMap::new(),
            container_name: "".into(),
            image: "".into(),
            check: Check::default(),
            docker: DockerStanding::Running,
            started: "".into(),
        };
        let all = offered.iter().map(instance).map(|instance| (instance.key.clone(), Arc::new(instance)));
        let offer = Offer { instances: all.collect(), ..Offer::default() };
        let rivals = rivals(&offer);
        let said: Vec<Option<Arc<str>>> =
            offer.instances.values().map(|instance| warning(instance, rivals.get(&instance.key))).collect();
        assert_eq!(said.len(), expected.len());
        for (said, expected) in said.iter().zip(expected) {
            let fits = said.as_deref().zip(*expected).is_some_and(|(said, other)| said.contains(other));
            assert!(fits || (said.is_none() && expected.is_none()), "{said:?}, expected {expected:?}");
        }
    }

    #[test]
    fn two_containers_at_one_address_are_each_told_of_the_other() {
        use Proto::{Tcp, Udp};
        check_rivals(&[("a", 80, Tcp), ("b", 80, Tcp)], &[Some("core-01:b:80 is"), Some("core-01:a:80 is")]);
        check_rivals(&[("a", 80, Tcp), ("b", 80, Udp), ("c", 81, Tcp)], &[None, None, None]);
        check_rivals(
            &[("a", 80, Tcp), ("a", 81, Tcp), ("b", 81, Tcp), ("c", 81, Tcp)],
            &[None, Some("core-01:b:81"), Some("core-01:a:81"), Some("core-01:a:81")],
        );
    }
}
