//! From what serves to what is to be written: `wanted x view -> assignment -> operations`.
//!
//! [`wanted`] turns serving instances into records, [`assign`] gives each its key, [`plan`] compares with what the
//! store holds. Nothing here overwrites or deletes what another owner holds: such a key is taken for occupied, ours
//! goes under the plain key plus a hash, and back to the plain one once that is free. The surprising part is the order
//! of a plan: containers take turns, and of each what no longer serves goes first, then come the puts, and last go the
//! keys that an instance has moved away from, so that a moving instance is never without a record.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::op::{Change, Expect, Identity, Op, identity};
use super::view::{Held, Holder, View};
use crate::model::health::standing::Serving;
use crate::model::offer::instance::{Instance, InstanceKey};
use crate::model::words::key::Prefix;
use crate::model::words::name::{Label, ServiceName, without_hash};
use crate::model::words::record::{MAX_RECORD, Record, Text};

/// A record that should be published.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// The instance it is for.
    pub instance: InstanceKey,
    /// The service it is found under.
    pub service: ServiceName,
    /// The key's last label, unless that is occupied.
    pub label: Label,
    /// The key when nobody stands in the way.
    pub plain: String,
    /// What is published.
    pub record: Arc<Record>,
}

/// Who publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publisher {
    /// The host's name.
    pub node: Text,
    /// The agent's identity.
    pub owner: Text,
    /// The root of the tree.
    pub prefix: Prefix,
    /// Where the host is.
    pub site: Option<Text>,
}

/// The records wanted for one serving instance, one a service; or, where they would be too large, the reason.
pub fn wanted(instance: &Instance, serving: &Serving, publisher: &Publisher) -> Result<Vec<Wanted>, String> {
    let services: BTreeSet<&ServiceName> = instance.services.iter().collect();
    let mut wanted = Vec::with_capacity(services.len());
    for service in services {
        let record = record(instance, service, serving, publisher);
        let length = record.encode().len();
        if length > MAX_RECORD {
            return Err(format!("a record of {length} bytes, more than {MAX_RECORD}"));
        }
        wanted.push(Wanted {
            instance: instance.key.clone(),
            plain: publisher.prefix.record_key(service, &instance.label),
            service: service.clone(),
            label: instance.label.clone(),
            record: Arc::new(record),
        });
    }
    Ok(wanted)
}

fn record(instance: &Instance, service: &ServiceName, serving: &Serving, publisher: &Publisher) -> Record {
    let text = |text: &Text| (!text.is_empty()).then(|| text.clone());
    Record {
        host: instance.host.to_string().into(),
        host6: instance.host6.map(|host| host.to_string().into()),
        port: instance.port,
        priority: instance.priority,
        weight: instance.weight,
        ttl: instance.ttl.map(|ttl| u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX).max(1)),
        id: Some(instance.id.clone()),
        service: Some(service.to_string().into()),
        node: Some(publisher.node.clone()),
        site: publisher.site.clone(),
        owner: Some(publisher.owner.clone()),
        proto: Some(instance.key.proto),
        role: instance.role.or(serving.role),
        tags: instance.tags.clone(),
        attrs: instance.attrs.clone(),
        container: instance.key.container().map(Into::into),
        image: text(&instance.image),
        since: Some(humantime::format_rfc3339_seconds(serving.since).to_string().into()),
        ..Record::default()
    }
}

/// A record with the key it is to be published under.
#[derive(Clone, Debug, PartialEq)]
pub struct Assigned {
    /// The instance it is for.
    pub instance: InstanceKey,
    /// What is published.
    pub record: Arc<Record>,
}

/// Every key that is to be published, with its record.
pub type Assignment = BTreeMap<String, Assigned>;

/// The keys whose holders matter to [`assign`]: those that are wanted, and those that it may turn to instead.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    plain: BTreeSet<String>,
    /// What hashed keys begin with where that is not the plain key: long labels are cut.
    stems: BTreeSet<String>,
}

impl Interest {
    /// What matters to these.
    pub fn of<'w>(wanted: impl IntoIterator<Item = &'w Wanted>) -> Self {
        let mut interest = Self::default();
        for wanted in wanted {
            let (label, stem) = (wanted.label.as_str(), wanted.label.stem());
            if stem.len() < label.len() {
                interest.stems.insert(wanted.plain[..wanted.plain.len() - label.len() + stem.len()].to_owned());
            }
            interest.plain.insert(wanted.plain.clone());
        }
        interest
    }

    /// Whether it matters who holds this key.
    pub fn covers(&self, key: &str) -> bool {
        let stem = |stem| self.plain.contains(stem) || self.stems.contains(stem);
        self.plain.contains(key) || without_hash(key).is_some_and(stem)
    }

    /// The keys that are wanted when nobody stands in the way.
    pub fn plain(&self) -> impl Iterator<Item = &String> {
        self.plain.iter()
    }
}

/// How many hashed keys of an instance are looked through for the one that it has.
const LOOKED_THROUGH: usize = 8;

/// Gives every wanted record a key of its own, whatever is taken. Who has a key keeps it; else the plain one goes to
/// the first instance in order; the others, and those whose plain key another owner holds, get hashed ones.
pub fn assign<'w>(wanted: impl IntoIterator<Item = &'w Wanted>, view: &View, publisher: &Publisher) -> Assignment {
    let mut contenders: BTreeMap<&str, Vec<&Wanted>> = BTreeMap::new();
    for wanted in wanted {
        contenders.entry(&wanted.plain).or_default().push(wanted);
    }
    let mut assignment = Assignment::new();
    let mut displaced = Vec::new();
    for (key, mut group) in contenders {
        if !view.occupied(key) {
            let first = first_of(&mut group, key, view);
            assignment.insert(key.to_owned(), Assigned::of(first));
        }
        displaced.extend(group);
    }
    let free = |key: &String, given: &Assignment| !given.contains_key(key) && !view.occupied(key);
    displaced.retain(|wanted| {
        let has = |key: &String| view.holds_instance(key, &wanted.record) && free(key, &assignment);
        let Some(key) = hashed_keys(wanted, publisher).take(LOOKED_THROUGH).find(has) else { return true };
        assignment.insert(key, Assigned::of(wanted));
        false
    });
    for wanted in displaced {
        let key = hashed_keys(wanted, publisher).find(|key| free(key, &assignment));
        let key = key.expect("keys without end, of which few are taken");
        assignment.insert(key, Assigned::of(wanted));
    }
    assignment
}

/// Takes the one out that gets the plain key.
fn first_of<'w>(group: &mut Vec<&'w Wanted>, key: &str, view: &View) -> &'w Wanted {
    if group.len() > 1 {
        group.sort_by(|a, b| a.instance.cmp(&b.instance));
    }
    let holder = || group.iter().position(|wanted| view.holds_instance(key, &wanted.record));
    let first = if group.len() > 1 { holder().unwrap_or(0) } else { 0 };
    group.remove(first)
}

/// The keys for when the plain one is occupied: by owner and id; then, where two of one host have the same id, by the
/// instance too.
fn hashed_keys<'w>(wanted: &'w Wanted, publisher: &'w Publisher) -> impl Iterator<Item = String> + 'w {
    let of = owner_and_id(&wanted.record);
    (0_u64..).map(move |turn| {
        let of = if turn == 0 { of.clone() } else { format!("{of}/{}/{turn}", wanted.instance) };
        publisher.prefix.record_key(&wanted.service, &wanted.label.with_hash(&of))
    })
}

/// The keys to show a record under when its own, `key`, is another owner's now: first the one that its owner will turn
/// to, then some that nobody would take. None for a record without an owner: nobody will move it.
pub fn asides<'r>(key: &'r str, record: &'r Record) -> impl Iterator<Item = String> + 'r {
    let place = key.rsplit_once('/').filter(|_| record.owner.is_some());
    place.into_iter().flat_map(|(above, last)| {
        let (label, of) = (Label::slug(last), owner_and_id(record));
        (0..8).filter_map(move |turn| {
            let of = if turn == 0 { of.clone() } else { format!("{of}/{turn}") };
            Some(format!("{above}/{}", label.as_ref()?.with_hash(&of)))
        })
    })
}

fn owner_and_id(record: &Record) -> String {
    let text = |text: &Option<Text>| text.clone().unwrap_or_default();
    format!("{}/{}", text(&record.owner), text(&record.id))
}

impl Assigned {
    fn of(wanted: &Wanted) -> Self {
        Self { instance: wanted.instance.clone(), record: Arc::clone(&wanted.record) }
    }
}

/// What takes the store from what it holds to `assignment`, all on `lease`. With `retain`, what is held for
/// a container and no longer assigned stays (Docker has not been listed yet). Containers take turns, so that what one
/// of them has hundreds of keeps none of the others waiting.
pub fn plan(assignment: &Assignment, view: &View, lease: i64, retain: bool) -> Vec<Op> {
    let puts = assignment.iter().filter_map(|(key, assigned)| {
        let put = put(key, assigned, view, lease)?;
        Some((owner_of(&assigned.record), put))
    });
    let stays = |record: &Record| retain && record.container.is_some();
    let leftovers: Vec<_> =
        view.ours().filter(|(key, _, record)| !assignment.contains_key(*key) && !stays(record)).collect();
    if leftovers.is_empty() {
        return in_turns(puts);
    }
    let serving: BTreeSet<Identity<'_>> = assignment.values().map(|assigned| identity(&assigned.record)).collect();
    let (moved, over): (Vec<_>, Vec<_>) =
        leftovers.into_iter().partition(|(_, _, record)| serving.contains(&identity(record)));
    in_turns(over.into_iter().map(delete).chain(puts).chain(moved.into_iter().map(delete)))
}

fn delete<'v>((key, held, record): (&String, &Held, &'v Arc<Record>)) -> (&'v str, Op) {
    let expect = Expect::Holds(Arc::clone(&held.value));
    (owner_of(record), Op { key: key.clone(), expect, change: Change::Delete })
}

/// The container that a record is of, or the table by its id.
fn owner_of(record: &Record) -> &str {
    record.container.as_deref().or(record.id.as_deref()).unwrap_or_default()
}

/// The first operation of each container, then the second of each, and so on; those of one stay in their order.
fn in_turns<'r>(ops: impl Iterator<Item = (&'r str, Op)>) -> Vec<Op> {
    let mut turns: BTreeMap<&str, usize> = BTreeMap::new();
    let turn = |(of, op): (&'r str, Op)| {
        let turn = turns.entry(of).or_default();
        *turn += 1;
        (*turn, op)
    };
    let mut ops: Vec<(usize, Op)> = ops.map(turn).collect();
    ops.sort_by_key(|(turn, _)| *turn);
    ops.into_iter().map(|(_, op)| op).collect()
}

fn put(key: &str, assigned: &Assigned, view: &View, lease: i64) -> Option<Op> {
    let expect = match view.held(key) {
        None => Expect::Absent,
        Some(held) => match &held.holder {
            Holder::Ours { record, lease: on } if *record == assigned.record && *on == lease => {
                if !view.is_spoiled_beside(key) {
                    return None;
                }
                Expect::Holds(Arc::clone(&held.value))
            }
            Holder::Ours { .. } | Holder::Spoiled => Expect::Holds(Arc::clone(&held.value)),
            Holder::Other => return None,
        },
    };
    Some(Op { key: key.to_owned(), expect, change: Change::Put(Arc::clone(&assigned.record)) })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
