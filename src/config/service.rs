//! One `[[service]]` table: what runs outside Docker.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::parse::{self, Parsed};
use super::text::{list, scalar};
use crate::model::offer::naming::{StaticService, problem_of_check};
use crate::model::words::name::ServiceName;
use crate::model::words::presence;
use crate::model::words::record::{Proto, Role};

/// One `[[service]]` table of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawService {
    /// The service's name.
    #[serde(deserialize_with = "scalar")]
    pub name: Option<String>,
    /// Its port.
    #[serde(deserialize_with = "scalar")]
    pub port: Option<String>,
    /// Its address, when it is not the advertised one.
    #[serde(deserialize_with = "scalar")]
    pub address: Option<String>,
    /// Its id, instead of `<node>:<name>:<port>`.
    #[serde(deserialize_with = "scalar")]
    pub id: Option<String>,
    /// `tcp` or `udp`.
    #[serde(deserialize_with = "scalar")]
    pub proto: Option<String>,
    /// Its tags.
    #[serde(deserialize_with = "list")]
    pub tags: Option<Vec<String>>,
    /// `primary` or `replica`.
    #[serde(deserialize_with = "scalar")]
    pub role: Option<String>,
    /// SRV weight.
    #[serde(deserialize_with = "scalar")]
    pub weight: Option<String>,
    /// SRV priority.
    #[serde(deserialize_with = "scalar")]
    pub priority: Option<String>,
    /// Seconds that an answer may be kept.
    #[serde(deserialize_with = "scalar")]
    pub ttl: Option<String>,
    /// What SERVICE_CHECK would say.
    #[serde(deserialize_with = "scalar")]
    pub check: Option<String>,
    /// What SERVICE_CHECK_HTTP would say.
    #[serde(deserialize_with = "scalar")]
    pub check_http: Option<String>,
    /// What SERVICE_CHECK_INTERVAL would say.
    #[serde(deserialize_with = "scalar")]
    pub check_interval: Option<String>,
    /// What SERVICE_CHECK_TIMEOUT would say.
    #[serde(deserialize_with = "scalar")]
    pub check_timeout: Option<String>,
    /// What SERVICE_CHECK_USER would say.
    #[serde(deserialize_with = "scalar")]
    pub check_user: Option<String>,
    /// What SERVICE_CHECK_PASSWORD_FILE would say.
    #[serde(deserialize_with = "scalar")]
    pub check_password_file: Option<String>,
    /// `instances`: published in the older layout, too.
    #[serde(deserialize_with = "scalar")]
    pub layout: Option<String>,
    /// Further attributes, as of `SERVICE_<KEY>`.
    pub attrs: BTreeMap<String, String>,
}

type Problems = Vec<(&'static str, String)>;

/// The service of one table, and what is wrong with it by key; `None` only with at least one problem.
pub(super) fn read(table: &RawService) -> (Option<StaticService>, Problems) {
    let mut problems = Problems::new();
    let service = fields(table, &mut problems);
    (service.filter(|_| problems.is_empty()), problems)
}

fn fields(table: &RawService, problems: &mut Problems) -> Option<StaticService> {
    let name = needed("name", table.name.as_deref(), name, problems);
    let port = needed("port", table.port.as_deref(), port, problems);
    let proto = given("proto", table.proto.as_deref(), proto, problems);
    let role = given("role", table.role.as_deref(), role, problems);
    let address = given("address", table.address.as_deref(), address, problems);
    let weight = given("weight", table.weight.as_deref(), small, problems);
    let priority = given("priority", table.priority.as_deref(), small, problems);
    let ttl = given("ttl", table.ttl.as_deref(), ttl, problems);
    let check = given("check", table.check.as_deref(), check, problems);
    let layout = table.layout.as_ref().or_else(|| table.attrs.get(presence::LAYOUT));
    given(presence::LAYOUT, layout.map(String::as_str), self::layout, problems);
    Some(StaticService {
        name: name?.into(),
        port: port?,
        address,
        id: table.id.as_deref().map(Into::into),
        proto: proto.unwrap_or_default(),
        tags: table.tags.iter().flatten().map(|tag| tag.as_str().into()).collect(),
        role,
        weight,
        priority,
        ttl,
        check: check.map(Into::into),
        attrs: attrs(table),
    })
}

/// What `SERVICE_<KEY>` would say on a container.
fn attrs(table: &RawService) -> BTreeMap<crate::model::words::record::Text, crate::model::words::record::Text> {
    let given = [
        (presence::LAYOUT, &table.layout),
        ("check_http", &table.check_http),
        ("check_interval", &table.check_interval),
        ("check_timeout", &table.check_timeout),
        ("check_user", &table.check_user),
        ("check_password_file", &table.check_password_file),
    ];
    let checks = given.into_iter().filter_map(|(key, value)| Some((key.into(), value.as_deref()?.into())));
    let own = table.attrs.iter().map(|(key, value)| (key.to_ascii_lowercase().into(), value.as_str().into()));
    own.chain(checks).collect()
}

fn needed<T>(key: &'static str, text: Option<&str>, read: fn(&str) -> Parsed<T>, problems: &mut Problems) -> Option<T> {
    if text.is_none() {
        problems.push((key, "is needed".to_owned()));
    }
    given(key, text, read, problems)
}

fn given<T>(key: &'static str, text: Option<&str>, read: fn(&str) -> Parsed<T>, problems: &mut Problems) -> Option<T> {
    read(text?).map_err(|what| problems.push((key, what))).ok()
}

fn name(text: &str) -> Parsed<String> {
    let names = text.split(',').all(|name| ServiceName::slug(name).is_some());
    if names { Ok(text.to_owned()) } else { Err(format!("{text:?} is no service name")) }
}

fn port(text: &str) -> Parsed<u16> {
    let port = text.parse::<u16>().ok().filter(|port| *port > 0);
    port.ok_or_else(|| format!("{text:?} is no port between 1 and 65535"))
}

fn small(text: &str) -> Parsed<u16> {
    text.parse().map_err(|_| format!("{text:?} is no whole number between 0 and 65535"))
}

fn proto(text: &str) -> Parsed<Proto> {
    match text {
        "tcp" => Ok(Proto::Tcp),
        "udp" => Ok(Proto::Udp),
        _ => Err(format!("{text:?} is neither tcp nor udp")),
    }
}

fn role(text: &str) -> Parsed<Role> {
    Role::parse(text).ok_or_else(|| format!("{text:?} is neither primary nor replica"))
}

fn check(text: &str) -> Parsed<String> {
    problem_of_check(text).map_or_else(|| Ok(text.to_owned()), Err)
}

fn layout(text: &str) -> Parsed<()> {
    presence::flaw(text).map_or(Ok(()), |flaw| Err(format!("{text:?}: {flaw}")))
}

fn address(text: &str) -> Parsed<IpAddr> {
    text.parse().map_err(|_| format!("{text:?} is no address"))
}

fn ttl(text: &str) -> Parsed<Duration> {
    parse::duration(text, Duration::from_secs(1), Duration::from_secs(3600))
}
