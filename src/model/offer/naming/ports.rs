//! Which ports of a container are service ports, and which way leads to each.

use std::collections::BTreeSet;

use super::super::container::{Binding, Container};
use super::kind;
use crate::model::words::record::Proto;

/// A port that may be offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate<'c> {
    /// As the engine writes it: `6379/tcp`.
    pub(super) text: &'c str,
    /// The container's own port.
    pub(super) number: u16,
    /// `tcp`, `udp`, or what a record cannot say.
    pub(super) proto: Transport,
    /// How clients reach it.
    pub(super) way: Way<'c>,
}

/// What a port speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Transport {
    Known(Proto),
    Other,
}

/// How clients reach a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way<'c> {
    /// It is published on the host.
    Bound(&'c [Binding]),
    /// It is the host's own port.
    Host,
    /// It is a port of the container with this id.
    Shared(&'c str),
    /// The engine publishes nothing of this network: it may be one that routes to the container (macvlan, ipvlan).
    Direct,
    /// `--internal`: the container's address.
    Internal,
    /// Exposed, and not published.
    Unpublished,
    /// The container has no network.
    Nowhere,
}

impl Way<'_> {
    /// Whether registrator would have called it a service port, which decides about the `-<port>` of names.
    pub(super) fn counts(self) -> bool {
        match self {
            Self::Bound(bindings) => bindings.first().is_some_and(|binding| !binding.host_port.is_empty()),
            Self::Unpublished | Self::Nowhere => false,
            Self::Host | Self::Shared(_) | Self::Direct | Self::Internal => true,
        }
    }
}

/// A port text that is no port, and why.
pub(super) type BadPort<'c> = (&'c str, &'static str, String);

/// Every port of a container in order, and what could not be read.
pub(super) fn candidates(container: &Container, internal: bool) -> (Vec<Candidate<'_>>, Vec<BadPort<'_>>) {
    let texts: BTreeSet<&str> = container.exposed.iter().chain(container.ports.keys()).map(|text| &**text).collect();
    let mut good = Vec::with_capacity(texts.len());
    let mut bad = Vec::new();
    for text in texts {
        let (number, proto) = text.split_once('/').unwrap_or((text, "tcp"));
        let Some(number) = number.parse::<u16>().ok().filter(|number| *number > 0) else {
            bad.push((text, kind::BAD_PORT, format!("{text:?} is no port")));
            continue;
        };
        let proto = match proto.to_ascii_lowercase().as_str() {
            "tcp" | "" => Transport::Known(Proto::Tcp),
            "udp" => Transport::Known(Proto::Udp),
            _ => Transport::Other,
        };
        good.push(Candidate { text, number, proto, way: way(container, text, internal) });
    }
    good.sort_by_key(|candidate| (candidate.number, candidate.proto));
    good.dedup_by_key(|candidate| (candidate.number, candidate.proto));
    (good, bad)
}

fn way<'c>(container: &'c Container, text: &str, internal: bool) -> Way<'c> {
    let mode = &*container.network_mode;
    if let Some(other) = mode.strip_prefix("container:") {
        return Way::Shared(other);
    }
    match mode {
        "host" => return Way::Host,
        "none" => return Way::Nowhere,
        _ if internal => return Way::Internal,
        _ => {}
    }
    match container.ports.get(text) {
        Some(bindings) if bindings.is_empty() => Way::Unpublished,
        Some(bindings) => Way::Bound(bindings),
        None if matches!(mode, "" | "default" | "bridge") => Way::Unpublished,
        None => Way::Direct,
    }
}
