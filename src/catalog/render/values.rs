//! What templates see, as their engine's values. Texts that others wrote are marked here, all of them.

use std::sync::Arc;

use minijinja::Value;
use minijinja::value::{Enumerator, Object};

use super::marks::marked;
use super::needs::Wanted;
use super::sight::Sight;
use crate::catalog::facade::api;
use crate::catalog::facade::autodiscovery::Member;
use crate::model::words::name::is_host;
use crate::model::words::node::NodeRecord;
use crate::model::words::record::{Role, Text};

/// A text that others wrote.
pub(super) fn text(text: &str) -> Value {
    Value::from(marked(text))
}

fn maybe(given: Option<&Text>) -> Value {
    given.map_or_else(|| Value::from(()), |given| text(given))
}

/// `service(…)`.
#[derive(Debug)]
pub(super) struct ServiceValue {
    name: String,
    contested: bool,
    endpoints: Value,
    primary: Value,
    replicas: Value,
}

impl ServiceValue {
    /// What is wanted of a service, as it is seen.
    pub(super) fn new(wanted: &Wanted, sight: &Sight) -> Self {
        let service = sight.services.get(wanted.service.as_str());
        let mut found: Vec<(u8, Value, Option<Role>)> = wanted
            .of(service.map(|service| &**service))
            .map(|endpoint| {
                let distance = sight.distance(endpoint.record.node.as_deref(), endpoint.record.site.as_deref());
                let value = Value::from_object(EndpointValue { endpoint: endpoint.clone(), distance });
                (distance, value, endpoint.record.role)
            })
            .collect();
        if wanted.near {
            found.sort_by_key(|(distance, ..)| *distance);
        }
        let contested = service.is_some_and(|service| service.contested);
        let with = |role| found.iter().filter(move |(.., has)| *has == Some(role)).map(|(_, value, _)| value.clone());
        let mut primaries = with(Role::Primary);
        let primary = match (primaries.next(), primaries.next()) {
            (Some(one), None) if !contested => one,
            _ => Value::from(()),
        };
        let replicas = with(Role::Replica).collect::<Value>();
        let endpoints = found.iter().map(|(_, value, _)| value.clone()).collect::<Value>();
        Self { name: wanted.service.clone(), contested, endpoints, primary, replicas }
    }
}

impl Object for ServiceValue {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        Some(match key.as_str()? {
            "name" => text(&self.name),
            "contested" => self.contested.into(),
            "endpoints" => self.endpoints.clone(),
            "primary" => self.primary.clone(),
            "replicas" => self.replicas.clone(),
            _ => return None,
        })
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&["name", "contested", "endpoints", "primary", "replicas"])
    }
}

/// One endpoint: every field of its record, its key, and how far it is.
#[derive(Debug)]
pub(super) struct EndpointValue {
    endpoint: api::Endpoint,
    distance: u8,
}

impl Object for EndpointValue {
    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let record = &self.endpoint.record;
        Some(match key.as_str()? {
            "key" => text(&self.endpoint.key),
            "distance" => self.distance.into(),
            "host" => text(&record.host),
            "host6" => maybe(record.host6.as_ref().filter(|host| is_host(host))),
            "port" => record.port.into(),
            "priority" => record.priority.into(),
            "weight" => record.weight.into(),
            "ttl" => record.ttl.into(),
            "text" => maybe(record.text.as_ref()),
            "group" => maybe(record.group.as_ref()),
            "targetstrip" => record.targetstrip.into(),
            "mail" => record.mail.into(),
            "id" => maybe(record.id.as_ref()),
            "service" => maybe(record.service.as_ref()),
            "node" => maybe(record.node.as_ref()),
            "site" => maybe(record.site.as_ref()),
            "owner" => maybe(record.owner.as_ref()),
            "proto" => record.proto.map(crate::model::words::record::Proto::as_str).into(),
            "role" => record.role.map(Role::as_str).into(),
            "tags" => record.tags.iter().map(|tag| text(tag)).collect(),
            "attrs" => Value::from_pairs(record.attrs.iter().map(|(name, value)| (text(name), text(value)))),
            "container" => maybe(record.container.as_ref()),
            "image" => maybe(record.image.as_ref()),
            "since" => maybe(record.since.as_ref()),
            _ => return None,
        })
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Str(&[
            "key",
            "distance",
            "host",
            "host6",
            "port",
            "priority",
            "weight",
            "ttl",
            "text",
            "group",
            "targetstrip",
            "mail",
            "id",
            "service",
            "node",
            "site",
            "owner",
            "proto",
            "role",
            "tags",
            "attrs",
            "container",
            "image",
            "since",
        ])
    }
}

/// One of `nodes`.
pub(super) fn node(node: &NodeRecord, sight: &Sight) -> Value {
    let addresses: Value = node.addresses.iter().map(|address| Value::from(address.to_string())).collect();
    Value::from_pairs([
        ("node", text(&node.node)),
        ("owner", text(&node.owner)),
        ("version", text(&node.version)),
        ("addresses", addresses),
        ("site", maybe(node.site.as_ref())),
        ("started", text(&node.started)),
        ("drained", maybe(node.drained.as_ref())),
        ("ordinals", Value::from_pairs(node.ordinals.iter().map(|(role, number)| (role.to_string(), *number)))),
        ("distance", sight.distance(Some(&node.node), node.site.as_deref()).into()),
    ])
}

/// One of `members(…)`.
pub(super) fn member(member: &Member) -> Value {
    Value::from_pairs([
        ("id", text(&member.id)),
        ("node", maybe(member.node.as_ref())),
        ("host", Value::from(member.address.to_string())),
        ("port", member.port.into()),
    ])
}
