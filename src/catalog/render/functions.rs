//! What templates may call, each call noted with its answer.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use minijinja::value::{Enumerator, Kwargs, Object};
use minijinja::{Environment, Error, ErrorKind, Value};

use super::needs::{Need, Needs, Wanted};
use super::sight::{Seen, Sight, alike};
use super::values::{self, ServiceValue};
use crate::catalog::facade::api;
use crate::catalog::facade::autodiscovery::{MOST_MEMBERS, Member};
use crate::model::words::node::NodeRecord;
use crate::model::words::record::Role;

/// Where the keys are that templates may read.
const READABLE: &str = "/config/";
/// Which variables of the environment they may read.
const VARIABLE: &str = "WHARF_RENDER_";

/// One rendering: what may be seen, and what was called so far.
#[derive(Debug)]
pub(super) struct Scene {
    sight: Sight,
    environment: BTreeMap<String, String>,
    with: Value,
    noted: Mutex<Noted>,
}

/// What was called.
#[derive(Debug, Default)]
struct Noted {
    needs: Needs,
    /// An answer is not there yet, so that whatever comes out is of no use.
    unread: bool,
}

impl Scene {
    pub(super) fn new(sight: &Sight, environment: &BTreeMap<String, String>, with: Value) -> Arc<Self> {
        let (sight, environment) = (sight.clone(), environment.clone());
        Arc::new(Self { sight, environment, with, noted: Mutex::default() })
    }

    /// What was called, and whether an answer is still missing.
    pub(super) fn noted(&self) -> (Needs, bool) {
        let noted = self.lock();
        (noted.needs.clone(), noted.unread)
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn need(&self, need: Need) {
        self.lock().needs.add(need, &self.sight);
    }

    /// What was told of something, or nothing while it is unread.
    fn told<T: Clone>(&self, seen: Option<&Seen<T>>) -> Option<T> {
        self.lock().unread |= seen.is_none();
        seen.map(|seen| seen.last().clone())
    }

    fn service(&self, name: &str, arguments: &Kwargs) -> Result<Value, Error> {
        let text = |key: &str| arguments.get::<Option<String>>(key).map(|text| text.filter(|text| !text.is_empty()));
        let role = text("role")?.map(|role| Role::parse(&role).ok_or_else(|| no_role(&role))).transpose()?;
        let near = arguments.get::<Option<bool>>("near")?.unwrap_or(false);
        let wanted = Wanted { service: name.to_owned(), role, tag: text("tag")?, node: text("node")?, near };
        arguments.assert_all_used()?;
        let value = Value::from_object(ServiceValue::new(&wanted, &self.sight));
        self.need(Need::Service(wanted));
        Ok(value)
    }

    fn names(&self) -> Value {
        self.need(Need::Names);
        self.sight.services.keys().map(|name| values::text(name)).collect()
    }

    fn nodes(&self) -> Value {
        self.need(Need::Nodes);
        let nodes = self.sight.nodes.as_ref();
        self.lock().unread |= nodes.is_none();
        nodes.into_iter().flat_map(|nodes| nodes.iter()).map(|node| values::node(node, &self.sight)).collect()
    }

    /// This host's number in a role.
    fn ordinal(&self, role: &str) -> Value {
        self.need(Need::Nodes);
        let nodes = self.sight.nodes.as_ref();
        self.lock().unread |= nodes.is_none();
        let is_own = |node: &&NodeRecord| self.sight.standpoint.node().is_some_and(|own| alike(&node.node, own));
        let own = nodes.into_iter().flat_map(|nodes| nodes.iter()).find(is_own);
        own.and_then(|node| node.ordinals.get(role)).map_or(Value::UNDEFINED, |number| Value::from(*number))
    }

    fn key(&self, key: &str) -> Result<Value, Error> {
        if !key.starts_with(READABLE) || key.contains('\0') {
            return Err(refused(format!("kv({key:?}): only keys below {READABLE} are read")));
        }
        if !self.sight.has_keys {
            return Err(refused(format!("kv({key:?}): keys are read from etcd, and none is named in the settings")));
        }
        let value = self.told(self.sight.keys.get(key)).flatten();
        self.need(Need::Key(key.to_owned()));
        Ok(value.map_or(Value::UNDEFINED, |value| values::text(&value)))
    }

    /// As auto-discovery counts them, by id. Where no agent keeps a list, those that are found are the members.
    fn members(&self, service: &str) -> Value {
        let found = || {
            let wanted = Wanted::all(service);
            let service = self.sight.services.get(service).map(|service| &**service);
            let members: Vec<Member> = wanted.of(service).filter_map(as_member).take(MOST_MEMBERS).collect();
            self.need(Need::Service(wanted));
            members
        };
        let mut members = if self.sight.has_keys {
            let list = self.told(self.sight.members.get(service)).flatten();
            self.need(Need::Members(service.to_owned()));
            list.map_or_else(found, |list| list.members)
        } else {
            found()
        };
        members.sort_by(|one, other| (&one.id, one.place()).cmp(&(&other.id, other.place())));
        members.iter().map(values::member).collect()
    }

    fn discover(&self, from: &str) -> Value {
        let servers = self.told(self.sight.discovered.get(from));
        self.need(Need::Discovered(from.to_owned()));
        servers.iter().flat_map(|servers| servers.iter()).map(|server| values::text(server)).collect()
    }

    fn variable(&self, name: &str) -> Value {
        let short = name.strip_prefix(VARIABLE).unwrap_or(name);
        let value = self.environment.get(&format!("{VARIABLE}{short}"));
        value.map_or(Value::UNDEFINED, Value::from)
    }
}

fn as_member(endpoint: &api::Endpoint) -> Option<Member> {
    let record = &endpoint.record;
    let addresses = [Some(&record.host), record.host6.as_ref()].into_iter().flatten();
    let address = addresses.filter_map(|host| host.parse().ok()).next()?;
    let is_usable = record.port > 0 && record.proto != Some(crate::model::words::record::Proto::Udp);
    let id = record.id.as_ref().filter(|id| !id.is_empty()).unwrap_or(&endpoint.key).clone();
    is_usable.then(|| Member { id, node: record.node.clone(), address, port: record.port })
}

fn refused(what: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

fn no_role(role: &str) -> Error {
    refused(format!("role={role:?} is neither primary nor replica"))
}

/// What stands in a template without being called: `services`, `nodes`, `with`.
#[derive(Debug)]
pub(super) struct Names(pub(super) Arc<Scene>);

impl Object for Names {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match key.as_str()? {
            "services" => Some(self.0.names()),
            "nodes" => Some(self.0.nodes()),
            "with" => Some(self.0.with.clone()),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&["services", "nodes", "with"])
    }
}

/// Lets templates call all of it.
pub(super) fn add(to: &mut Environment<'_>, scene: &Arc<Scene>) {
    let of = || Arc::clone(scene);
    let scene = of();
    to.add_function("service", move |name: String, arguments: Kwargs| scene.service(&name, &arguments));
    let scene = of();
    to.add_function("kv", move |key: String| scene.key(&key));
    let scene = of();
    to.add_function("ordinal", move |role: String| scene.ordinal(&role));
    let scene = of();
    to.add_function("env", move |name: String| scene.variable(&name));
    let scene = of();
    to.add_function("members", move |service: String| scene.members(&service));
    let scene = of();
    to.add_function("discover", move |from: String| scene.discover(&from));
}
