//! What a plain name's addresses are, found by reading every record.

use std::collections::BTreeSet;
use std::net::IpAddr;

use wharf::catalog::dns::{Answer, RecordType, ResponseCode};
use wharf::catalog::index::Catalog;
use wharf::model::words::record::Record;

use super::asked::Asked;
use super::world::ZONES;

/// What stands at or below a name.
struct Below {
    addresses: BTreeSet<IpAddr>,
    records: usize,
    names: usize,
    groups: usize,
}

/// Whether a name asks for nothing but what stands at it or below it.
pub fn is_plain(asked: &Asked, catalog: &Catalog) -> bool {
    !is_wild(asked) && below(asked, catalog).records > 0
}

fn is_wild(asked: &Asked) -> bool {
    asked.labels.iter().any(|label| label == "*" || label == "any")
}

fn below(asked: &Asked, catalog: &Catalog) -> Below {
    let mut below = Below { addresses: BTreeSet::new(), records: 0, names: 0, groups: 0 };
    let prefixes = ZONES.iter().filter(|(zone, _)| *zone == ZONES[asked.zone].0).map(|(_, prefix)| *prefix);
    for prefix in prefixes {
        for endpoint in catalog.endpoints() {
            let Some(key) = endpoint.key().strip_prefix(prefix).and_then(|key| key.strip_prefix('/')) else { continue };
            let labels = key.split('/').flat_map(|segment| segment.rsplit('.')).map(str::to_ascii_lowercase);
            if labels.zip(asked.labels.iter().rev()).filter(|(own, label)| own == *label).count() == asked.labels.len()
            {
                below.add(&endpoint.record());
            }
        }
    }
    below
}

impl Below {
    fn add(&mut self, record: &Record) {
        self.records += 1;
        let hosts = [Some(&record.host), record.host6.as_ref()];
        self.addresses.extend(hosts.into_iter().flatten().filter_map(|host| host.parse::<IpAddr>().ok()));
        self.names += usize::from(!record.host.is_empty() && record.host.parse::<IpAddr>().is_err());
        self.groups += usize::from(record.group.is_some());
    }
}

/// Holds an answer about addresses of a plain name against what every record says.
pub fn compare(asked: &Asked, catalog: &Catalog, answer: &Answer) -> Result<(), String> {
    let is_wanted = |address: &IpAddr| match asked.qtype {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        _ => false,
    };
    let is_address = matches!(asked.qtype, RecordType::A | RecordType::AAAA);
    if !is_address || asked.labels.is_empty() || asked.zone > 5 || is_wild(asked) {
        return Ok(());
    }
    let below = below(asked, catalog);
    if below.records == 0 || below.groups > 0 {
        return Ok(());
    }
    let wanted: BTreeSet<IpAddr> = below.addresses.into_iter().filter(is_wanted).collect();
    let told: BTreeSet<IpAddr> = answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
    let right = match (answer.cut, below.names > 0) {
        (true, true) => true,
        (true, false) => told.is_subset(&wanted),
        (false, true) => wanted.is_subset(&told),
        (false, false) => wanted == told,
    };
    let rcode = below.names > 0 || answer.rcode == ResponseCode::NoError;
    let small = below.records > 1_000 || !answer.cut || asked.room < 65_535 || below.names > 0;
    match (right && rcode, small) {
        (false, _) => Err(format!("{:?}: {} addresses of {}", answer.rcode, told.len(), wanted.len())),
        (_, false) => Err(format!("{} records are cut", below.records)),
        _ => Ok(()),
    }
}
