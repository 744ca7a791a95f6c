//! A question as it is searched for: labels below a zone, a type, and what else an answer depends on.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use wharf::catalog::dns::{self, Answer, Context, DNSClass, Name, Outcome, Question, RecordType};
use wharf::catalog::index::Catalog;
use wharf::model::words::site::{Site, Standpoint};
use wharf::model::words::zone::Zones;

use super::chance::Chance;
use super::world::{World, ZONES};

const LABELS: [&str; 30] = [
    "web", "web", "a", "a", "b", "large", "large", "i7", "x1", "n1", "any", "*", "*", "_tcp", "_tcp", "_udp", "_web",
    "_large", "primary", "replicas", "blue", "green", "core-1", "nobody", "dns", "ns", "near", "near", "near", "local",
];
const TYPES: [RecordType; 12] = [
    RecordType::A,
    RecordType::A,
    RecordType::AAAA,
    RecordType::SRV,
    RecordType::SRV,
    RecordType::TXT,
    RecordType::MX,
    RecordType::NS,
    RecordType::CNAME,
    RecordType::PTR,
    RecordType::ANY,
    RecordType::HTTPS,
];

/// Where it is asked: near to some, and far from others.
static STANDPOINT: LazyLock<Standpoint> =
    LazyLock::new(|| Standpoint::new("core-1", Some(Site::parse("eu/z1/k1").unwrap()), false));

/// A question.
#[derive(Clone, Debug)]
pub struct Asked {
    pub labels: Vec<String>,
    pub zone: usize,
    pub qtype: RecordType,
    pub seed: u64,
    pub room: usize,
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} seed {} room {}", self.name(), self.qtype, self.seed, self.room)
    }
}

impl Asked {
    /// Reads `NAME TYPE`.
    pub fn read(text: &str) -> Self {
        let mut words = text.split(' ');
        let (name, qtype) = (words.next().unwrap(), words.next().unwrap());
        let seed = words.nth(1).map_or(0, |seed| seed.parse().unwrap());
        let zone = ZONES.iter().position(|(zone, _)| name == *zone || name.ends_with(&format!(".{zone}"))).unwrap();
        let below = name.strip_suffix(ZONES[zone].0).unwrap().trim_end_matches('.');
        let labels = below.split('.').filter(|label| !label.is_empty()).map(str::to_owned).collect();
        Self { labels, zone, qtype: qtype.parse().unwrap(), seed, room: 65_535 }
    }

    pub fn any(chance: &mut Chance, world: &World) -> Self {
        let mut asked = Self {
            labels: Vec::new(),
            zone: *chance.of(&[0, 0, 0, 3, 6]),
            qtype: *chance.of(&TYPES),
            seed: chance.next(),
            room: *chance.of(&[65_535, 65_535, 65_535, 1_232, 512]),
        };
        if let Some(line) = world.lines.get(chance.below(world.lines.len() + 1)) {
            asked.lead_to(&line.folder(), chance);
        }
        for _ in 0..chance.below(3) {
            asked.labels.insert(0, (*chance.of(&LABELS)).to_owned());
        }
        asked
    }

    /// Asks for a folder, or some of the way there.
    fn lead_to(&mut self, folder: &str, chance: &mut Chance) {
        let zones = ZONES.iter().enumerate().filter(|(_, (_, prefix))| folder.starts_with(&format!("{prefix}/")));
        let zones: Vec<_> = zones.collect();
        let Some((zone, (_, prefix))) = zones.get(chance.below(zones.len())) else { return };
        self.zone = *zone;
        let segments: Vec<&str> = folder[prefix.len() + 1..].split('/').collect();
        let depth = if chance.one_in(3) { chance.below(segments.len() + 1) } else { segments.len() };
        let labels = segments[..depth].iter().flat_map(|segment| segment.rsplit('.'));
        self.labels = labels.map(str::to_ascii_lowercase).collect();
        self.labels.reverse();
    }

    pub fn mutated(&self, chance: &mut Chance) -> Self {
        let mut asked = self.clone();
        let place = chance.below(asked.labels.len() + 1);
        match chance.below(9) {
            0 => asked.qtype = *chance.of(&TYPES),
            1 => asked.labels.insert(place, (*chance.of(&LABELS)).to_owned()),
            2 if place < asked.labels.len() => drop(asked.labels.remove(place)),
            3 if place < asked.labels.len() => (*chance.of(&LABELS)).clone_into(&mut asked.labels[place]),
            4 => {
                let label = *chance.of(&LABELS);
                (0..*chance.of(&[2, 10, 40])).for_each(|_| asked.labels.insert(0, label.to_owned()));
            }
            5 => {
                let service = chance.of(&LABELS).trim_start_matches('_').to_owned();
                asked.labels.insert(0, (*chance.of(&["_tcp", "_udp"])).to_owned());
                asked.labels.insert(0, format!("{}{service}", "_".repeat(1 + chance.below(4))));
            }
            6 => asked.room = *chance.of(&[65_535, 1_232, 512]),
            7 => asked.zone = *chance.of(&[0, 3, 6]),
            _ => asked.seed = chance.next(),
        }
        while asked.name().len() > 253 {
            asked.labels.remove(0);
        }
        asked
    }

    pub fn name(&self) -> String {
        let zone = ZONES[self.zone].0.to_owned();
        self.labels.iter().cloned().chain([zone]).collect::<Vec<_>>().join(".")
    }

    /// The answer; `None` for a name that is not ours.
    pub fn answer(&self, catalog: &Catalog, zones: &Zones) -> Option<Answer> {
        let name = Name::from_labels(self.name().split('.').map(str::as_bytes)).ok()?;
        let question = Question { name, qtype: self.qtype, qclass: DNSClass::IN };
        let context = Context {
            dns_ttl: 5,
            negative_ttl: 5,
            seed: self.seed,
            now: Duration::ZERO,
            room: self.room,
            standpoint: &STANDPOINT,
        };
        match dns::answer(catalog, zones, &question, &context) {
            Outcome::Answer(answer) | Outcome::Chase { answer, .. } => Some(answer),
            Outcome::Foreign => None,
        }
    }
}
