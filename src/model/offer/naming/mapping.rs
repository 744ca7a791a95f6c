//! One container or table to its instances: names, ids, tags and attributes, and the bounds of each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::super::container::{Container, Health, RunState};
use super::super::instance::{DockerStanding, Instance, InstanceKey, Source, Withheld};
use super::address::{self, NoWay, Reach, shorten};
use super::bounds::{Aside, Room, allowed, claims};
use super::check::{self, Asked};
use super::metadata::{Metadata, Said};
use super::ports::{self, Candidate, Transport, Way};
use super::words::{image_base, parse_duration, speaks_of_secrets, split_tags};
use super::{MAX_ATTRS, MAX_NAMES, MAX_SAID, MAX_TAGS, Offered, Others, Settings, StaticService, TTL_BOUNDS, kind};
use crate::model::offer::advertise::unfit;
use crate::model::words::name::{Label, MAX_NAME, ServiceName};
use crate::model::words::presence;
use crate::model::words::record::{MAX_RECORD, Proto, Record, Role, Text};
use crate::model::words::site::{MOST_NEAR, NEAR, NEAR_MIN, said_near, said_near_min};

/// Names of a list that are looked at, good ones or not.
const MAX_LOOKED_AT: usize = 4 * MAX_NAMES;

/// What this host means to offer of one container; `others` finds the container whose network it may share.
pub fn instances(container: &Container, others: &Others<'_>, settings: &Settings) -> Offered {
    if !container.runs() {
        return Offered::default();
    }
    let mut mapping = Mapping::new(container.shown(), settings);
    let (candidates, bad) = ports::candidates(container, settings.internal);
    if candidates.is_empty() && bad.is_empty() {
        mapping.skip("", kind::NO_PORTS, "the container has no ports".to_owned());
    }
    for (text, kind, reason) in bad {
        mapping.skip(shorten(text), kind, reason);
    }
    let said = Said::by(container);
    if said.left_out > 0 {
        let kib = MAX_SAID / 1024;
        let reason =
            format!("more than {kib} KiB of SERVICE_ text: the {} longest entries are left out", said.left_out);
        mapping.skip("", kind::TOO_MUCH_TEXT, reason);
    }
    let service_ports = candidates.iter().filter(|port| port.way.counts()).count();
    let of = Of { container, said: &said, service_ports, others };
    for port in &candidates {
        match mapping.port(&of, port) {
            Ok(instance) => mapping.instances.push(instance),
            Err((kind, reason)) => mapping.skip(port.text, kind, reason),
        }
    }
    tell_udp_apart(&mut mapping.instances);
    mapping.offered()
}

/// What this host means to offer of the `number`th table of the config file.
pub fn static_instances(service: &StaticService, number: usize, settings: &Settings) -> Offered {
    let mut mapping = Mapping::new(service.name.clone(), settings);
    match mapping.table(service, number) {
        Ok(instance) => mapping.instances.push(instance),
        Err((kind, reason)) => mapping.skip(&format!("{}/{}", service.port, service.proto), kind, reason),
    }
    mapping.offered()
}

struct Mapping<'s> {
    shown: Text,
    instances: Vec<Instance>,
    aside: Aside,
    room: Room,
    settings: &'s Settings,
}

/// A container whose ports are looked at, and what is the same for all of them.
struct Of<'o> {
    container: &'o Container,
    said: &'o Said<'o>,
    service_ports: usize,
    others: &'o Others<'o>,
}

/// What of an instance does not depend on where it comes from.
struct Common<'m> {
    metadata: Metadata<'m, 'm>,
    proto: Proto,
    names: Vec<ServiceName>,
    id: Text,
    reach: Reach,
    /// The port is one of another container's network.
    shared: bool,
}

impl<'s> Mapping<'s> {
    fn new(shown: Text, settings: &'s Settings) -> Self {
        let (aside, room) = (Aside::default(), Room::default());
        Self { shown, instances: Vec::new(), aside, room, settings }
    }

    fn offered(self) -> Offered {
        let (skipped, further, withheld) = self.aside.told(&self.shown);
        Offered { instances: self.instances, skipped, further, withheld }
    }

    fn skip(&mut self, port: &str, kind: &'static str, reason: String) {
        self.aside.skip(&self.shown, port, kind, reason);
    }

    fn port(&mut self, of: &Of<'_>, port: &Candidate<'_>) -> Result<Instance, NoWay> {
        let (proto, word) = match port.proto {
            Transport::Known(proto) => (Some(proto), proto.as_str()),
            Transport::Other => (None, ""),
        };
        let metadata = of.said.of(port.number, word);
        if metadata.get("ignore").is_some() {
            return Err((kind::IGNORED, "SERVICE_IGNORE is set".to_owned()));
        }
        if self.settings.explicit && metadata.get("name").is_none() {
            return Err((kind::NOT_NAMED, "--explicit is set, and SERVICE_NAME is not".to_owned()));
        }
        let reach = address::reach(of.container, port, of.others, self.settings)?;
        if proto == Some(Proto::Tcp) {
            address::is_no_ambassador(&reach, &self.settings.ambassadors, &self.settings.place)?;
        }
        let proto = proto.ok_or_else(|| (kind::PROTOCOL, "neither TCP nor UDP".to_owned()))?;
        self.room.enter(metadata.is_of_port("name") && metadata.get("name").is_some())?;
        let (names, left_out) = self.names_of_port(of, port, metadata)?;
        let id = metadata
            .get("id")
            .map_or_else(|| default_id(&self.settings.node, &self.shown, port.number, proto), Text::from);
        let key = InstanceKey { source: Source::Container(of.container.id.clone()), port: port.number, proto };
        let shared = matches!(port.way, Way::Shared(_));
        let common = Common { metadata, proto, names, id, reach, shared };
        let instance = self.finish(key, port.text, Some(of), common)?;
        self.room.take(instance.services.len());
        for (kind, reason) in left_out {
            self.skip(port.text, kind, reason);
        }
        Ok(instance)
    }

    /// A port's names, and why there are not more of them.
    fn names_of_port(
        &self,
        of: &Of<'_>,
        port: &Candidate<'_>,
        metadata: Metadata<'_, '_>,
    ) -> Result<(Vec<ServiceName>, Vec<NoWay>), NoWay> {
        let bare = of.service_ports <= 1 || metadata.is_of_port("name");
        let suffix = if bare { String::new() } else { format!("-{}", port.number) };
        let (mut names, too_many) = match metadata.get("name") {
            Some(names) => self.names_of(names, &suffix, true)?,
            None => (vec![allowed(image_name(of.container, &suffix)?, &self.settings.allow_names)?], None),
        };
        let cut = self.room.cut(&mut names);
        Ok((names, too_many.into_iter().chain(cut).collect()))
    }

    fn table(&mut self, service: &StaticService, number: usize) -> Result<Instance, NoWay> {
        let text = format!("{}/{}", service.port, service.proto);
        // Nothing is guessed of a table; one that gives a path has asked all the same.
        let asks = service.attrs.keys().any(|key| check::is_asked_by(&key.to_lowercase()));
        let check = service.check.as_deref().or((!asks).then_some("none")).map(|check| ("check".to_owned(), check));
        let attrs = service.attrs.iter().map(|(key, value)| (key.to_lowercase(), &**value));
        let said = Said::of_table(attrs.chain(check));
        if service.port == 0 {
            return Err((kind::BAD_PORT, "port 0 is no port".to_owned()));
        }
        let reach = self.table_reach(service)?;
        let (names, too_many) = self.names_of(&service.name, "", false)?;
        let id = service.id.clone().filter(|id| !id.is_empty());
        let id = id.unwrap_or_else(|| default_id(&self.settings.node, &service.name, service.port, service.proto));
        let source = Source::Static(format!("{}#{number}", service.name).into());
        let key = InstanceKey { source, port: service.port, proto: service.proto };
        let metadata = said.of(service.port, service.proto.as_str());
        let common = Common { metadata, proto: service.proto, names, id, reach, shared: false };
        let instance = self.finish(key, &text, None, common)?;
        if let Some((kind, reason)) = too_many {
            self.skip(&text, kind, reason);
        }
        let mut tags = service.tags.clone();
        tags.extend(instance.tags);
        if tags.len() > MAX_TAGS {
            tags.truncate(MAX_TAGS);
            self.skip(&text, kind::TOO_MANY_TAGS, too_many_of_record("tags", MAX_TAGS));
        }
        let ttl = service.ttl.or(instance.ttl);
        in_bounds(ttl)?;
        Ok(Instance {
            tags,
            ttl,
            role: service.role.or(instance.role),
            weight: service.weight.or(instance.weight),
            priority: service.priority.or(instance.priority),
            ..instance
        })
    }

    /// Its address as given, else the advertised one; a probe only if that is this host's.
    fn table_reach(&self, service: &StaticService) -> Result<Reach, NoWay> {
        let place = &self.settings.place;
        let unknown = || (kind::NO_ADDRESS, "no address to advertise is known yet".to_owned());
        let Some(address) = service.address.map(|address| address.to_canonical()) else {
            let mut told = place.addresses();
            let host = told.next().ok_or_else(unknown)?;
            let target = Some((place.probe_address(host.is_ipv6()), service.port).into());
            return Ok(Reach { host, host6: told.next(), port: service.port, target, own: None });
        };
        match unfit(address) {
            Some(_) if address.is_loopback() && place.allows_loopback() => {}
            Some(_) if address.is_loopback() => {
                return Err((kind::LOOPBACK, format!("{address}: no other host could connect to it")));
            }
            Some(why) => return Err((kind::NO_ADDRESS, format!("{address} is {why}"))),
            None => {}
        }
        let target = place.is_own(address).then(|| (address, service.port).into());
        Ok(Reach { host: address, host6: None, port: service.port, target, own: None })
    }

    /// The names that a list gives, and why there are not more of them. A name that is no name costs the port.
    fn names_of(&self, text: &str, suffix: &str, bound: bool) -> Result<(Vec<ServiceName>, Option<NoWay>), NoWay> {
        let mut names: Vec<ServiceName> = Vec::new();
        let mut problem = None;
        let allow = |name| if bound { allowed(name, &self.settings.allow_names) } else { Ok(name) };
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        // A list of names that are none has an end too.
        for part in parts.take(MAX_LOOKED_AT) {
            let name = match slugged(part, suffix).and_then(allow) {
                Ok(name) => name,
                Err(why) => {
                    problem.get_or_insert(why);
                    continue;
                }
            };
            if names.contains(&name) {
                continue;
            }
            if names.len() == MAX_NAMES {
                let reason = format!("more than {MAX_NAMES} names; further ones are left out");
                problem = Some((kind::TOO_MANY_NAMES, reason));
                break;
            }
            names.push(name);
        }
        if names.is_empty() {
            let none = || (kind::BAD_NAME, format!("SERVICE_NAME={:?} holds no name", shorten(text)));
            return Err(problem.unwrap_or_else(none));
        }
        Ok((names, problem))
    }

    fn finish(
        &mut self,
        key: InstanceKey,
        text: &str,
        of: Option<&Of<'_>>,
        common: Common<'_>,
    ) -> Result<Instance, NoWay> {
        let Common { metadata, proto, names, id, reach, shared } = common;
        nearness(metadata)?;
        layout(metadata)?;
        let mut label = label(&id, &names)?;
        if of.is_some() && names.iter().any(|name| claims(&label, name, &self.settings.allow_names)) {
            label = label.with_hash(&id);
        }
        let container = of.map(|of| of.container);
        let only_port = of.is_none_or(|of| of.service_ports == 1);
        let (target, own) = (reach.target, reach.own);
        let asked = Asked { metadata, container, port: key.port, proto, only_port, target, own, shared };
        let (check, none_asked) = check::check(&asked, self.settings)?;
        let instance = Instance {
            host: reach.host,
            host6: reach.host6,
            port: reach.port,
            role: role(metadata)?,
            priority: number(metadata, "priority")?,
            weight: number(metadata, "weight")?,
            ttl: ttl(metadata)?,
            tags: self.tags(metadata, proto, text),
            attrs: self.attrs(metadata, &key, text),
            container_name: container.map(|container| container.name.clone()).unwrap_or_default(),
            image: container.map(|container| container.image.clone()).unwrap_or_default(),
            docker: container.map_or(DockerStanding::Running, |container| docker(container, none_asked)),
            started: container.map(|container| container.started_at.clone()).unwrap_or_default(),
            key,
            services: names,
            id,
            label,
            check,
        };
        fits_record(&instance, &self.settings.node)?;
        Ok(instance)
    }

    /// Its own tags as far as there is room beside the host's.
    fn tags(&mut self, metadata: Metadata<'_, '_>, proto: Proto, text: &str) -> Vec<Text> {
        let of_host = self.settings.tags.iter().cloned().chain((proto == Proto::Udp).then(|| "udp".into()));
        let of_host: Vec<Text> = of_host.take(MAX_TAGS).collect();
        let (own, more) = split_tags(metadata.get("tags").unwrap_or_default(), MAX_TAGS - of_host.len());
        if more {
            self.skip(text, kind::TOO_MANY_TAGS, too_many_of_record("tags", MAX_TAGS));
        }
        own.into_iter().map(Text::from).chain(of_host).collect()
    }

    fn attrs(&mut self, metadata: Metadata<'_, '_>, key: &InstanceKey, text: &str) -> BTreeMap<Text, Text> {
        let mut attrs = BTreeMap::new();
        let mut more = false;
        for (name, value) in metadata.iter().filter(|(name, _)| !has_place(name)) {
            if speaks_of_secrets(name) {
                let (container, port) = (self.shown.clone(), format!("{}/{}", key.port, key.proto));
                self.aside.withhold(Withheld { container, port, attr: shorten(name).to_owned() });
            } else if attrs.len() < MAX_ATTRS {
                attrs.insert(name.into(), value.into());
            } else {
                more = true;
            }
        }
        if more {
            self.skip(text, kind::TOO_MANY_ATTRS, too_many_of_record("attributes", MAX_ATTRS));
        }
        attrs
    }
}

fn too_many_of_record(what: &str, most: usize) -> String {
    format!("more than {most} {what} of one record; further ones are left out")
}

/// The key's last label.
fn label(id: &Text, names: &[ServiceName]) -> Result<Label, NoWay> {
    if id.len() > MAX_RECORD {
        return Err((kind::RECORD_TOO_LARGE, format!("its id alone is {} bytes, more than {MAX_RECORD}", id.len())));
    }
    let none = || (kind::BAD_NAME, format!("id {:?} holds nothing that a label may hold", shorten(id)));
    let label = Label::of_instance(id).ok_or_else(none)?;
    match names.iter().find(|name| name.to_string().len() + 1 + label.as_str().len() > MAX_NAME) {
        Some(name) => Err((kind::BAD_NAME, format!("{label}.{name} is longer than {MAX_NAME} bytes"))),
        None => Ok(label),
    }
}

/// Keys that are no attributes.
fn has_place(key: &str) -> bool {
    matches!(key, "id" | "name" | "tags" | "role" | "priority" | "weight" | "ttl" | "check")
        || key.starts_with("check_")
}

fn default_id(node: &str, container: &str, port: u16, proto: Proto) -> Text {
    let udp = if proto == Proto::Udp { ":udp" } else { "" };
    format!("{node}:{container}:{port}{udp}").into()
}

/// The name that an image gives: its base name as one label; without one, the container's.
fn image_name(container: &Container, suffix: &str) -> Result<ServiceName, NoWay> {
    let base = image_base(&container.image, &container.image_id).unwrap_or(&container.name);
    let label = Label::slug(base).and_then(|_| Label::slug(&format!("{base}{suffix}")));
    label.map(ServiceName::single).ok_or_else(|| {
        let image = shorten(&container.image);
        (kind::BAD_NAME, format!("neither image {image:?} nor the container's name gives a name"))
    })
}

fn slugged(part: &str, suffix: &str) -> Result<ServiceName, NoWay> {
    let bad = |why| (kind::BAD_NAME, format!("name {:?} {why}", shorten(part)));
    if !part.bytes().any(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Err(bad("holds nothing that a label may hold"));
    }
    ServiceName::slug(&format!("{part}{suffix}")).ok_or_else(|| bad("is longer than 253 bytes"))
}

fn docker(container: &Container, none_asked: bool) -> DockerStanding {
    match (container.state, container.health) {
        (RunState::Paused, _) => DockerStanding::Paused,
        _ if none_asked => DockerStanding::Running,
        (_, None) => DockerStanding::Running,
        (_, Some(Health::Healthy)) => DockerStanding::Healthy,
        (_, Some(Health::Starting)) => DockerStanding::Starting,
        (_, Some(Health::Unhealthy)) => DockerStanding::Unhealthy,
    }
}

fn bad_label(key: &str, value: &str, why: &str) -> NoWay {
    (kind::BAD_LABEL, format!("SERVICE_{}={:?}: {why}", key.to_uppercase(), shorten(value)))
}

fn role(metadata: Metadata<'_, '_>) -> Result<Option<Role>, NoWay> {
    let Some(text) = metadata.get("role") else { return Ok(None) };
    Role::parse(text.trim()).map(Some).ok_or_else(|| bad_label("role", text, "neither primary nor replica"))
}

fn number(metadata: Metadata<'_, '_>, key: &str) -> Result<Option<u16>, NoWay> {
    let Some(text) = metadata.get(key) else { return Ok(None) };
    text.trim().parse().map(Some).map_err(|_| bad_label(key, text, "no number from 0 to 65535"))
}

fn ttl(metadata: Metadata<'_, '_>) -> Result<Option<Duration>, NoWay> {
    let Some(text) = metadata.get("ttl") else { return Ok(None) };
    let ttl = parse_duration(text).ok_or_else(|| bad_label("ttl", text, "no duration"))?;
    in_bounds(Some(ttl))?;
    Ok(Some(ttl))
}

/// Whether what is said of nearness can be read: it leaves the host as attributes.
fn nearness(metadata: Metadata<'_, '_>) -> Result<(), NoWay> {
    if let Some(text) = metadata.get(NEAR).filter(|text| said_near(text).is_none()) {
        return Err(bad_label(NEAR, text, "neither true nor false"));
    }
    match metadata.get(NEAR_MIN).filter(|text| said_near_min(text).is_none()) {
        Some(text) => Err(bad_label(NEAR_MIN, text, &format!("no number from 1 to {MOST_NEAR}"))),
        None => Ok(()),
    }
}

/// Whether the layout that is asked for besides the record is one: it leaves the host as an attribute.
fn layout(metadata: Metadata<'_, '_>) -> Result<(), NoWay> {
    let flawed = metadata.get(presence::LAYOUT).and_then(|text| Some((text, presence::flaw(text)?)));
    flawed.map_or(Ok(()), |(text, flaw)| Err(bad_label(presence::LAYOUT, text, flaw)))
}

fn in_bounds(ttl: Option<Duration>) -> Result<(), NoWay> {
    match ttl {
        Some(ttl) if !TTL_BOUNDS.contains(&ttl) => {
            Err((kind::BAD_LABEL, format!("SERVICE_TTL of {}: outside of 1s to 1h", humantime::format_duration(ttl))))
        }
        _ => Ok(()),
    }
}

/// Whether the record, with the longest of everything that is filled in later, may be stored.
fn fits_record(instance: &Instance, node: &Text) -> Result<(), NoWay> {
    let text = |text: String| Some(Text::from(text));
    let longest = instance.services.iter().map(ToString::to_string).max_by_key(String::len);
    let record = Record {
        host: instance.host.to_string().into(),
        host6: instance.host6.and_then(|six| text(six.to_string())),
        port: instance.port,
        priority: Some(u16::MAX),
        weight: Some(u16::MAX),
        ttl: Some(3600),
        id: Some(instance.id.clone()),
        service: longest.and_then(text),
        node: Some(node.clone()),
        owner: text("0".repeat(64)),
        proto: Some(instance.key.proto),
        role: Some(Role::Primary),
        tags: instance.tags.clone(),
        attrs: instance.attrs.clone(),
        container: text("0".repeat(12)),
        image: Some(instance.image.clone()),
        since: text("0".repeat(40)),
        ..Record::default()
    };
    let bytes = record.encode().len();
    if bytes > MAX_RECORD {
        return Err((kind::RECORD_TOO_LARGE, format!("its record would be {bytes} bytes, more than {MAX_RECORD}")));
    }
    Ok(())
}

/// An id that a container gives to TCP and UDP of one service alike keeps `:udp` for the latter.
fn tell_udp_apart(instances: &mut [Instance]) {
    let taken: Vec<(Text, Vec<ServiceName>)> = instances
        .iter()
        .filter(|instance| instance.key.proto == Proto::Tcp)
        .map(|instance| (instance.id.clone(), instance.services.clone()))
        .collect();
    for instance in instances.iter_mut().filter(|instance| instance.key.proto == Proto::Udp) {
        let meets = |(id, services): &(Text, Vec<ServiceName>)| {
            *id == instance.id && services.iter().any(|service| instance.services.contains(service))
        };
        if taken.iter().any(meets) {
            let id: Arc<str> = format!("{}:udp", instance.id).into();
            if let Some(label) = Label::of_instance(&id) {
                (instance.id, instance.label) = (id, label);
            }
        }
    }
}
