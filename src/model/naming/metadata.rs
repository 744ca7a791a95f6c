//! SERVICE_* of one port, from environment and labels.
//!
//! Per-port keys (`SERVICE_80_NAME`, `SERVICE_53_UDP_NAME`) overrule global ones, labels overrule the environment on
//! the same level, and the last of several counts. The surprising part is registrator's: an *empty* per-port value hides
//! the global one, and counts as "the port has a NAME of its own".

use std::collections::BTreeMap;

use super::super::container::Container;

/// How particular a key is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Global,
    Port,
    PortAndProto,
}

/// What is said of one port.
#[derive(Clone, Debug, Default)]
pub(super) struct Metadata<'c> {
    values: BTreeMap<String, (Level, &'c str)>,
}

impl<'c> Metadata<'c> {
    /// Reads what a container says of `port` with `proto` (`tcp`, `udp`, …).
    pub(super) fn of(container: &'c Container, port: u16, proto: &str) -> Self {
        let mut metadata = Self::default();
        let port = port.to_string();
        let env = container.env.iter().filter_map(|entry| entry.split_once('='));
        let labels = container.labels.iter().map(|(key, value)| (&**key, &**value));
        for (key, value) in env.chain(labels) {
            if let Some(key) = key.strip_prefix("SERVICE_") {
                metadata.read(&key.to_lowercase(), value, &port, proto);
            }
        }
        metadata
    }

    /// A global value, as a table of the config file gives it.
    pub(super) fn set(&mut self, key: &str, value: &'c str) {
        self.put(key, Level::Global, value);
    }

    fn read(&mut self, key: &str, value: &'c str, port: &str, proto: &str) {
        let Some((number, rest)) = key.split_once('_').filter(|(number, _)| number.parse::<i64>().is_ok()) else {
            return self.put(key, Level::Global, value);
        };
        if number != port {
            return;
        }
        match rest.split_once('_') {
            Some((of @ ("tcp" | "udp"), rest)) if !rest.is_empty() => {
                if of == proto {
                    self.put(rest, Level::PortAndProto, value);
                }
            }
            _ => self.put(rest, Level::Port, value),
        }
    }

    fn put(&mut self, key: &str, level: Level, value: &'c str) {
        match self.values.get_mut(key) {
            Some(slot) if slot.0 > level => {}
            Some(slot) => *slot = (level, value),
            None => _ = self.values.insert(key.to_owned(), (level, value)),
        }
    }

    /// A value; an empty one counts as unset.
    pub(super) fn get(&self, key: &str) -> Option<&'c str> {
        self.values.get(key).map(|(_, value)| *value).filter(|value| !value.is_empty())
    }

    /// Whether the port itself has this key, be its value empty.
    pub(super) fn is_of_port(&self, key: &str) -> bool {
        self.values.get(key).is_some_and(|(level, _)| *level > Level::Global)
    }

    /// Every key and value.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &'c str)> + '_ {
        self.values.iter().map(|(key, (_, value))| (key.as_str(), *value))
    }
}
