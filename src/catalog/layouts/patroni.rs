//! Patroni's scopes: each is a service, its members are endpoints, and whom the leader key names is the primary.
//!
//! The leader key is the truth. What a member says of its own role is not: it says `primary` while it bootstraps with
//! no leader, and after a switchover for a while still what it was. Between the key's end and the next one nobody is
//! the primary. While the cluster is paused, or may run on without etcd (failsafe), the key can end though nothing has
//! changed: then the last one stays primary for as long as a host that offers the same server finds that it takes
//! writes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::MOST;
use crate::catalog::index::{Foreign, LeaseId};
use crate::model::words::key::Prefix;
use crate::model::words::name::{Label, ServiceName};
use crate::model::words::record::{MAX_HOST, Proto, Record, Role, Text};

/// The longest value that is read; a member's has some hundred bytes.
const MAX_VALUE: usize = 64 * 1024;
/// The longest name of a member or scope.
const MAX_NAME: usize = 255;
/// So many of a member's tags are shown.
const MAX_TAGS: usize = 16;
/// The port of a member whose address names none.
const POSTGRES: u16 = 5432;

/// What one key of Patroni's says.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// Who leads.
    Leader(Text),
    /// How a member is.
    Member(Member),
    /// Whether the leader key may end though nothing has changed.
    MayRunOn(bool),
    /// Nothing that matters here.
    Else,
}

/// A member, as it says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    host: Text,
    port: u16,
    runs: bool,
    /// It only follows another cluster, and takes no writes even where it leads.
    only_reads: bool,
    /// It follows, and reads may be led to it.
    follows: bool,
    attrs: BTreeMap<Text, Text>,
    lease: LeaseId,
    revision: i64,
}

/// Where a key of Patroni's stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Scope<'k> {
    name: &'k str,
    /// Of a cluster of several (Citus), which one.
    group: Option<&'k str>,
}

impl Said {
    /// Reads a key below Patroni's namespace; why not, if it says nothing that can be read.
    pub fn read(key: &str, value: &[u8], (lease, revision): (LeaseId, i64)) -> Result<Self, String> {
        if value.len() > MAX_VALUE {
            return Err(format!("{} bytes, more than {MAX_VALUE}", value.len()));
        }
        let mut from_the_end = key.rsplit('/');
        match (from_the_end.next(), from_the_end.next()) {
            (_, Some("members")) => Member::read(value, lease, revision).map(Self::Member),
            (Some("leader"), _) => {
                let name = std::str::from_utf8(value).ok().filter(|name| !name.is_empty() && name.len() <= MAX_NAME);
                name.map(|name| Self::Leader(name.into())).ok_or_else(|| "no member's name".to_owned())
            }
            (Some("config"), _) => {
                let config: Value = serde_json::from_slice(value).map_err(|error| error.to_string())?;
                Ok(Self::MayRunOn(["pause", "failsafe_mode"].iter().any(|key| config[*key] == Value::Bool(true))))
            }
            _ => Ok(Self::Else),
        }
    }
}

impl Member {
    fn read(value: &[u8], lease: LeaseId, revision: i64) -> Result<Self, String> {
        let said: Value = serde_json::from_slice(value).map_err(|error| error.to_string())?;
        let text = |key: &str| said[key].as_str().unwrap_or_default();
        let (host, port) = address(text("conn_url")).ok_or("its conn_url names no address")?;
        let runs = text("state") == "running";
        let tag = |key: &str| said["tags"][key] == Value::Bool(true);
        // Before 3.0.3 nothing is said of the replication.
        let streams = matches!(said["replication_state"].as_str(), None | Some("streaming" | "in archive recovery"));
        Ok(Self {
            host,
            port,
            runs,
            only_reads: text("role") == "standby_leader",
            follows: runs && text("role") == "replica" && streams && !tag("noloadbalance"),
            attrs: attrs(&said["tags"]),
            lease,
            revision,
        })
    }

    fn record(&self, name: &str, service: &ServiceName, role: Option<Role>) -> Record {
        Record {
            host: self.host.clone(),
            port: self.port,
            id: Some(name.into()),
            service: Some(service.to_string().into()),
            proto: Some(Proto::Tcp),
            role,
            attrs: self.attrs.clone(),
            ..Record::default()
        }
    }
}

/// The first address of `postgres://[user@]host[:port][,host…]/…`.
fn address(url: &str) -> Option<(Text, u16)> {
    let (_, rest) = url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "postgres" | "postgresql"))?;
    let authority = rest.split(['/', '?']).next()?;
    let hosts = authority.rsplit('@').next()?;
    let first = hosts.split(',').next()?;
    let (host, port) = match first.strip_prefix('[') {
        Some(six) => {
            let (host, port) = six.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => first.split_once(':').map_or((first, None), |(host, port)| (host, Some(port))),
    };
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(&byte);
    let fits = !host.is_empty() && host.len() <= MAX_HOST && host.bytes().all(is_plain);
    let port = port.map_or(Some(POSTGRES), |port| port.parse().ok().filter(|port| *port > 0))?;
    fits.then(|| (host.into(), port))
}

fn attrs(tags: &Value) -> BTreeMap<Text, Text> {
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.as_str().into()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string().into()),
        _ => None,
    };
    let all =
        tags.as_object().into_iter().flatten().filter_map(|(key, value)| Some((key.as_str().into(), text(value)?)));
    all.filter(|(key, value): &(Text, Text)| key.len().max(value.len()) <= MAX_NAME).take(MAX_TAGS).collect()
}

impl<'k> Scope<'k> {
    /// The scope of a key below a namespace that matters, and of a member its name.
    fn of(below: &'k str) -> Option<(Self, Option<&'k str>)> {
        let (name, rest) = below.split_once('/')?;
        let is_group = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (group, rest) = match rest.split_once('/') {
            Some((group, rest)) if is_group(group) => (Some(group), rest),
            _ => (None, rest),
        };
        let scope = Self { name, group };
        match rest.split_once('/') {
            None => matches!(rest, "leader" | "config").then_some((scope, None)),
            Some(("members", member)) if !member.contains('/') => Some((scope, Some(member))),
            Some(_) => None,
        }
    }

    /// The service that it is.
    fn service(&self) -> Option<ServiceName> {
        let name = ServiceName::slug(self.name)?;
        self.group.map_or(Some(name.clone()), |group| ServiceName::parse(&format!("{group}.{name}")))
    }
}

/// What is known of one scope.
#[derive(Debug, Default)]
struct Cluster<'s> {
    leader: Option<&'s Text>,
    members: BTreeMap<&'s str, &'s Member>,
    may_run_on: bool,
}

/// All scopes of a namespace, and what is remembered of them.
#[derive(Debug, Default)]
pub struct Scopes {
    /// Who led last, by service.
    last: BTreeMap<String, Text>,
    found: Vec<Foreign>,
    /// What the store lost in its return, and until when it is shown.
    held: Vec<(Foreign, Duration)>,
}

impl Scopes {
    /// Takes in all that there is below `namespace` (which ends with a slash): its endpoints have their place below
    /// `prefix`. Where the store has just come back, what it lost is held `until` then.
    pub fn take<'s>(
        &mut self,
        (namespace, prefix): (&str, &Prefix),
        all: impl Iterator<Item = (&'s str, &'s Said)>,
        until: Option<Duration>,
    ) {
        let mut clusters: BTreeMap<Scope<'_>, Cluster<'_>> = BTreeMap::new();
        for (key, said) in all {
            let Some((scope, member)) = key.strip_prefix(namespace).and_then(Scope::of) else { continue };
            let cluster = clusters.entry(scope).or_default();
            match (said, member) {
                (Said::Leader(name), None) => cluster.leader = Some(name),
                (Said::MayRunOn(may), None) => cluster.may_run_on = *may,
                (Said::Member(member), Some(name)) => drop(cluster.members.insert(name, member)),
                _ => {}
            }
        }
        let before = std::mem::take(&mut self.found);
        let (mut taken, mut last) = (BTreeSet::new(), BTreeMap::new());
        for (scope, cluster) in clusters {
            // Two scopes may read as one name: the first in order has it.
            let Some(service) = scope.service().filter(|service| taken.insert(service.to_string())) else { continue };
            let name = service.to_string();
            let leads = cluster.leader.or_else(|| self.last.get(&name).filter(|_| cluster.may_run_on)).cloned();
            self.find(&service, prefix, &cluster, leads.as_deref());
            last.extend(leads.or_else(|| self.last.get(&name).cloned()).map(|leads| (name, leads)));
        }
        self.last = last;
        self.hold(before, until);
    }

    fn find(&mut self, service: &ServiceName, prefix: &Prefix, cluster: &Cluster<'_>, leads: Option<&str>) {
        let mut labels = BTreeSet::new();
        for (name, member) in cluster.members.iter().filter(|(_, member)| member.runs) {
            if self.found.len() >= MOST {
                return;
            }
            let Some(label) = Label::slug(name).filter(|label| labels.insert(label.to_string())) else { continue };
            let role = match leads == Some(*name) {
                true => (!member.only_reads).then_some(Role::Primary),
                false => member.follows.then_some(Role::Replica),
            };
            self.found.push(Foreign {
                key: prefix.record_key(service, &label).into(),
                record: Arc::new(member.record(name, service, role)),
                lease: member.lease,
                revision: member.revision,
                held: false,
                if_writable: role == Some(Role::Primary) && cluster.leader.is_none(),
            });
        }
    }

    fn hold(&mut self, before: Vec<Foreign>, until: Option<Duration>) {
        let there: BTreeSet<&Text> = self.found.iter().map(|found| &found.key).collect();
        self.held.retain(|(found, _)| !there.contains(&found.key));
        if let Some(until) = until {
            let lost = before.into_iter().filter(|found| !there.contains(&found.key));
            self.held.extend(lost.map(|found| (Foreign { held: true, ..found }, until)));
            self.held.truncate(MOST);
        }
    }

    /// When the next hold is over.
    pub fn next(&self) -> Option<Duration> {
        self.held.iter().map(|(_, until)| *until).min()
    }

    /// Lets go of what has been held long enough.
    pub fn expire(&mut self, now: Duration) {
        self.held.retain(|(_, until)| *until > now);
    }

    /// What is to be laid over the catalog.
    pub fn found(&self) -> impl Iterator<Item = &Foreign> {
        self.found.iter().chain(self.held.iter().map(|(found, _)| found))
    }
}

#[cfg(test)]
#[path = "patroni_tests.rs"]
mod tests;
