//! SERVICE_* of one container, from environment and labels: split once, then looked up for each of its ports.
//!
//! Per-port keys (`SERVICE_80_NAME`, `SERVICE_53_UDP_NAME`) overrule global ones, labels overrule the environment on
//! the same level, and the last of several counts. The surprising part is registrator's: an *empty* per-port value
//! hides the global one, and counts as "the port has a NAME of its own".

use std::collections::BTreeMap;

use super::super::container::Container;
use super::MAX_SAID;

/// Lower-case keys with their values, all of one level.
type Level<'c> = BTreeMap<String, &'c str>;

/// All that a container says.
#[derive(Clone, Debug, Default)]
pub(super) struct Said<'c> {
    global: Level<'c>,
    /// By the port's number as it is written: `080` is no port 80.
    ports: BTreeMap<String, OfPort<'c>>,
    /// How many labels and environment entries are beyond [`MAX_SAID`] and left out.
    pub(super) left_out: usize,
}

#[derive(Clone, Debug, Default)]
struct OfPort<'c> {
    either: Level<'c>,
    tcp: Level<'c>,
    udp: Level<'c>,
}

impl<'c> Said<'c> {
    /// Splits what a container says.
    pub(super) fn by(container: &'c Container) -> Self {
        let env = container.env.iter().filter_map(|entry| entry.split_once('='));
        let labels = container.labels.iter().map(|(key, value)| (&**key, &**value));
        let said = env.chain(labels).filter_map(|(key, value)| Some((key.strip_prefix("SERVICE_")?, value)));
        let mut said: Vec<(&str, &str)> = said.collect();
        let whole = said.len();
        leave_out_the_longest(&mut said);
        let mut split = Self { left_out: whole - said.len(), ..Self::default() };
        for (key, value) in said {
            split.put(&key.to_lowercase(), value);
        }
        split
    }

    /// What a table of the config file says of its only port.
    pub(super) fn of_table(attrs: impl Iterator<Item = (String, &'c str)>) -> Self {
        Self { global: attrs.collect(), ..Self::default() }
    }

    fn put(&mut self, key: &str, value: &'c str) {
        let numbered = key.split_once('_').filter(|(number, _)| number.parse::<i64>().is_ok());
        let (level, key) = match numbered {
            None => (&mut self.global, key),
            Some((number, rest)) => {
                let of = self.ports.entry(number.to_owned()).or_default();
                match rest.split_once('_').filter(|(_, key)| !key.is_empty()) {
                    Some(("tcp", key)) => (&mut of.tcp, key),
                    Some(("udp", key)) => (&mut of.udp, key),
                    _ => (&mut of.either, rest),
                }
            }
        };
        level.insert(key.to_owned(), value);
    }

    /// What is said of `port` with `proto` (`tcp`, `udp`, …).
    pub(super) fn of(&self, port: u16, proto: &str) -> Metadata<'_, 'c> {
        let of = self.ports.get(&port.to_string());
        let particular = of.and_then(|of| match proto {
            "tcp" => Some(&of.tcp),
            "udp" => Some(&of.udp),
            _ => None,
        });
        Metadata { of_port: [particular, of.map(|of| &of.either)], global: &self.global }
    }
}

/// Keeps what fits into [`MAX_SAID`], the shortest first: one endless label takes none of the others away.
fn leave_out_the_longest(said: &mut Vec<(&str, &str)>) {
    let length = |(key, value): &(&str, &str)| "SERVICE_".len() + key.len() + value.len();
    if said.iter().map(length).sum::<usize>() <= MAX_SAID {
        return;
    }
    let mut shortest_first: Vec<usize> = (0..said.len()).collect();
    shortest_first.sort_by_key(|place| length(&said[*place]));
    let mut room = MAX_SAID;
    let mut fits = vec![false; said.len()];
    for place in shortest_first {
        let Some(left) = room.checked_sub(length(&said[place])) else { break };
        (room, fits[place]) = (left, true);
    }
    let mut fits = fits.into_iter();
    said.retain(|_| fits.next().unwrap_or(false));
}

/// What is said of one port.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metadata<'s, 'c> {
    /// The most particular first.
    of_port: [Option<&'s Level<'c>>; 2],
    global: &'s Level<'c>,
}

impl<'s, 'c> Metadata<'s, 'c> {
    fn levels(&self) -> impl Iterator<Item = &'s Level<'c>> + Clone + use<'s, 'c> {
        self.of_port.into_iter().flatten().chain([self.global])
    }

    /// A value; an empty one counts as unset.
    pub(super) fn get(&self, key: &str) -> Option<&'c str> {
        self.levels().find_map(|level| level.get(key)).copied().filter(|value| !value.is_empty())
    }

    /// Whether the port itself has this key, be its value empty.
    pub(super) fn is_of_port(&self, key: &str) -> bool {
        self.of_port.iter().flatten().any(|level| level.contains_key(key))
    }

    /// Every key and value, the most particular first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&'s str, &'c str)> + use<'s, 'c> {
        let levels = self.levels();
        self.levels().enumerate().flat_map(move |(place, level)| {
            let particular = levels.clone().take(place);
            level
                .iter()
                .filter(move |(key, _)| !particular.clone().any(|level| level.contains_key(*key)))
                .map(|(key, value)| (key.as_str(), *value))
        })
    }
}
