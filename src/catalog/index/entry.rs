//! One record as the catalog keeps it: what an answer needs is parsed, repeated texts are shared, the rest is as small
//! as it can be. [`Endpoint`] is how it is shown.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::intern::Interner;
use super::path;
use super::short::Short;
use crate::catalog::steps::{Steps, compared};
use crate::model::words::name::Label;
use crate::model::words::record::{Proto, Record, Role, Text};
use crate::model::words::site::{self, NEAR, NEAR_MIN, said_near, said_near_min};

/// The identity of a lease; 0 is none.
pub type LeaseId = i64;

/// What is known of a lease that records hang on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// The time it was granted.
    pub granted: Duration,
    /// When it ends unless it is kept alive, on the clock of [`crate::catalog::dns::Context::now`].
    pub until: Duration,
}

/// A record in the catalog.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) key: Text,
    /// Its place in the tree, where that is not its key: the path that the key reads as (it has dots or capitals in a
    /// segment), NUL, and the key.
    alias: Option<Text>,
    /// The host as written, unless it is written as `address` is.
    pub(crate) host: Option<Text>,
    pub(crate) address: Option<IpAddr>,
    /// The second address of a dual-stack instance.
    pub(crate) other: Option<IpAddr>,
    pub(crate) port: u16,
    pub(crate) priority: Option<u16>,
    pub(crate) weight: Option<u16>,
    pub(crate) ttl: Option<u32>,
    pub(crate) targetstrip: Option<u8>,
    pub(crate) mail: bool,
    pub(crate) held: bool,
    pub(crate) proto: Option<Proto>,
    pub(crate) role: Option<Role>,
    pub(crate) text: Option<Text>,
    pub(crate) group: Option<Text>,
    pub(crate) node: Option<Text>,
    pub(crate) owner: Option<Text>,
    pub(crate) site: Option<Text>,
    /// Its service's SRV answers shall prefer what is near.
    pub(crate) prefers_near: bool,
    /// So many endpoints shall be near, if it is one of them.
    pub(crate) near_min: u8,
    pub(crate) tags: Arc<[Text]>,
    pub(crate) lease: LeaseId,
    pub(crate) revision: i64,
    host6: Option<Text>,
    id: Short,
    service: Option<Text>,
    container: Short,
    image: Option<Text>,
    since: Short,
    attrs: Arc<[Text]>,
}

impl Entry {
    /// A record under a key, of which the first text is the prefix.
    pub(super) fn new(
        (prefix, key): (&str, &str),
        record: &Record,
        lease: LeaseId,
        revision: i64,
        pool: &mut Interner,
    ) -> Self {
        let address: Option<IpAddr> = record.host.parse().ok();
        let other: Option<IpAddr> = record.host6.as_deref().and_then(|host| host.parse().ok());
        let as_written = |text: &Text, address: Option<IpAddr>| {
            let plain = address.is_some_and(|address| address.to_string() == **text) || text.is_empty();
            (!plain).then(|| text.clone())
        };
        let host = as_written(&record.host, address).map(|host| pool.text(&host));
        let host6 = record.host6.as_ref().and_then(|host| as_written(host, other)).map(|host| pool.text(&host));
        Self {
            alias: path::alias(prefix, key).map(|path| format!("{path}\0{key}").into()),
            key: key.into(),
            host,
            address,
            other,
            port: record.port,
            priority: record.priority,
            weight: record.weight,
            ttl: record.ttl,
            targetstrip: record.targetstrip,
            mail: record.mail,
            held: false,
            proto: record.proto,
            role: record.role,
            text: pool.option(record.text.as_ref()),
            group: pool.option(record.group.as_ref()),
            node: pool.option(record.node.as_ref()),
            owner: pool.option(record.owner.as_ref()),
            site: pool.option(record.site.as_ref()),
            prefers_near: record.attrs.get(NEAR).is_some_and(|said| said_near(said) == Some(true)),
            near_min: record.attrs.get(NEAR_MIN).and_then(|said| said_near_min(said)).unwrap_or(1),
            tags: pool.list(record.tags.iter()),
            lease,
            revision,
            host6,
            id: Short::new(record.id.as_ref()),
            service: pool.option(record.service.as_ref()),
            container: Short::new(record.container.as_ref()),
            image: pool.option(record.image.as_ref()),
            since: Short::new(record.since.as_ref()),
            attrs: pool.list(record.attrs.iter().flat_map(|(name, value)| [name, value])),
        }
    }

    pub(super) fn with_held(&self, held: bool) -> Self {
        self.but(held, self.role)
    }

    pub(super) fn with_role(&self, role: Option<Role>) -> Self {
        self.but(self.held, role)
    }

    fn but(&self, held: bool, role: Option<Role>) -> Self {
        Self {
            key: self.key.clone(),
            alias: self.alias.clone(),
            host: self.host.clone(),
            text: self.text.clone(),
            group: self.group.clone(),
            node: self.node.clone(),
            owner: self.owner.clone(),
            site: self.site.clone(),
            tags: self.tags.clone(),
            host6: self.host6.clone(),
            id: self.id.clone(),
            service: self.service.clone(),
            container: self.container.clone(),
            image: self.image.clone(),
            since: self.since.clone(),
            attrs: self.attrs.clone(),
            held,
            role,
            ..*self
        }
    }

    /// The record as it was read.
    pub(super) fn record(&self) -> Record {
        Record {
            host: self.host().into(),
            host6: self.host6.clone().or_else(|| self.other.map(|other| other.to_string().into())),
            port: self.port,
            priority: self.priority,
            weight: self.weight,
            ttl: self.ttl,
            text: self.text.clone(),
            group: self.group.clone(),
            targetstrip: self.targetstrip,
            mail: self.mail,
            id: self.id.text(),
            service: self.service.clone(),
            node: self.node.clone(),
            site: self.site.clone(),
            owner: self.owner.clone(),
            proto: self.proto,
            role: self.role,
            tags: self.tags.to_vec(),
            attrs: self.attrs.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect(),
            container: self.container.text(),
            image: self.image.clone(),
            since: self.since.text(),
        }
    }

    /// The host as it was written.
    pub(crate) fn host(&self) -> Cow<'_, str> {
        match (&self.host, self.address) {
            (Some(host), _) => Cow::Borrowed(host),
            (None, Some(address)) => Cow::Owned(address.to_string()),
            (None, None) => Cow::Borrowed(""),
        }
    }

    /// The host, when it is a name.
    pub(crate) fn host_name(&self) -> Option<&Text> {
        self.host.as_ref().filter(|_| self.address.is_none())
    }

    /// Whether there is a host at all: a record may be only text.
    pub(crate) fn has_host(&self) -> bool {
        self.address.is_some() || self.host.is_some()
    }

    /// The path that its DNS name has in the tree.
    pub(crate) fn path(&self) -> &str {
        let place = self.alias.as_deref().and_then(|alias| alias.split_once('\0'));
        place.map_or(&self.key, |(path, _)| path)
    }

    /// Where it stands in the tree.
    pub(super) fn place(&self) -> &Text {
        self.alias.as_ref().unwrap_or(&self.key)
    }

    /// Whether it stands elsewhere than under its key.
    pub(crate) fn is_renamed(&self) -> bool {
        self.alias.is_some()
    }

    /// Who it counts for where there are too many: its owner, or the path of its service.
    pub(super) fn counts_for(&self) -> (bool, &str) {
        match &self.owner {
            Some(owner) => (true, owner),
            None => (false, path::parent(self.path()).unwrap_or_default()),
        }
    }

    /// How many shared texts it may hold.
    pub(super) fn texts(&self) -> usize {
        9 + self.tags.len() + self.attrs.len()
    }

    /// What it speaks; a record that does not say so is a stream.
    pub(crate) fn proto(&self) -> Proto {
        self.proto.unwrap_or_default()
    }

    /// Whether the node's name reads as `slug`.
    pub(crate) fn is_on(&self, slug: &str) -> bool {
        self.node.as_deref().is_some_and(|node| reads_as(node, slug))
    }

    /// Whether one of the tags reads as `slug`.
    pub(crate) fn is_tagged(&self, slug: &str) -> bool {
        self.tags.iter().any(|tag| reads_as(tag, slug))
    }

    /// Whether the node's name reads as `slug`; `None` when there are no steps left to know.
    pub(crate) fn is_on_within(&self, slug: &str, steps: &Steps) -> Option<bool> {
        self.node.as_deref().map_or(Some(false), |node| reads_as_within(node, slug, steps))
    }

    /// Whether one of the tags reads as `slug`; `None` when there are no steps left to know.
    pub(crate) fn is_tagged_within(&self, slug: &str, steps: &Steps) -> Option<bool> {
        for tag in &*self.tags {
            if reads_as_within(tag, slug, steps)? {
                return Some(true);
            }
        }
        Some(false)
    }

    /// Whether its host is within a site; `None` when there are no steps left to know.
    pub(crate) fn is_within(&self, outer: &str, steps: &Steps) -> Option<bool> {
        let Some(site) = &self.site else { return Some(false) };
        steps.may(compared(outer)).then(|| site::is_within(site, outer))
    }

    /// Whether it has an address of a family.
    pub(crate) fn has_family(&self, is_v4: bool) -> bool {
        self.addresses().any(|address| address.is_ipv4() == is_v4)
    }

    /// Every address it is published under.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.address.into_iter().chain(self.other.filter(|other| Some(*other) != self.address))
    }
}

fn reads_as(text: &str, slug: &str) -> bool {
    text == slug || (!is_plain(text) && Label::slug(text).is_some_and(|label| label.as_str() == slug))
}

fn reads_as_within(text: &str, slug: &str, steps: &Steps) -> Option<bool> {
    let cost = if text == slug || is_plain(text) { 1 } else { 8 + text.len() / 4 };
    steps.may(cost).then(|| reads_as(text, slug))
}

/// Whether a text is its own slug for sure.
fn is_plain(text: &str) -> bool {
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 63
        && text.bytes().all(|byte| lower(byte) || byte == b'-')
        && text.bytes().next().is_some_and(lower)
        && text.bytes().last().is_some_and(lower)
        && !matches!(text, "instances" | "master")
}

/// A record as found: cheap to clone, never changes.
#[derive(Clone, Debug)]
pub struct Endpoint(pub(super) Arc<Entry>);

impl Endpoint {
    /// Its key in the store.
    pub fn key(&self) -> &Text {
        &self.0.key
    }

    /// The whole record, put together on demand.
    pub fn record(&self) -> Record {
        self.0.record()
    }

    /// Address or name that a client connects to.
    pub fn host(&self) -> Cow<'_, str> {
        self.0.host()
    }

    /// The host as an address, when it is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.0.address
    }

    /// Its address of the other family, when it has one.
    pub fn other_address(&self) -> Option<IpAddr> {
        self.0.other
    }

    /// Port that a client connects to; 0 is none.
    pub fn port(&self) -> u16 {
        self.0.port
    }

    /// Stream or datagrams, when the record says so.
    pub fn proto(&self) -> Option<Proto> {
        self.0.proto
    }

    /// Primary, replica, or neither.
    pub fn role(&self) -> Option<Role> {
        self.0.role
    }

    /// Those with a smaller one are taken first; 0 where the record says nothing.
    pub fn priority(&self) -> u16 {
        self.0.priority.unwrap_or_default()
    }

    /// The host that offers it.
    pub fn node(&self) -> Option<&Text> {
        self.0.node.as_ref()
    }

    /// The agent that published it; `None` for what other programs write.
    pub fn owner(&self) -> Option<&Text> {
        self.0.owner.as_ref()
    }

    /// Where that host is.
    pub fn site(&self) -> Option<&Text> {
        self.0.site.as_ref()
    }

    /// Its tags, in the order given.
    pub fn tags(&self) -> &[Text] {
        &self.0.tags
    }

    /// The lease it hangs on; 0 is none.
    pub fn lease(&self) -> LeaseId {
        self.0.lease
    }

    /// The revision of its last put.
    pub fn revision(&self) -> i64 {
        self.0.revision
    }

    /// Still answered although the store lost it in its return.
    pub fn held(&self) -> bool {
        self.0.held
    }

    /// Whether its node's name, compared as slugs, is `node`.
    pub fn is_on(&self, node: &str) -> bool {
        let slug = Label::slug(node);
        slug.is_some_and(|slug| self.0.is_on(slug.as_str()))
    }

    /// Whether one of its tags, compared as slugs, is `tag`.
    pub fn is_tagged(&self, tag: &str) -> bool {
        let slug = Label::slug(tag);
        slug.is_some_and(|slug| self.0.is_tagged(slug.as_str()))
    }
}
