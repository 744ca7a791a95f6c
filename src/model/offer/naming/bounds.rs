//! What one container may have at most, and which names none may have. Whatever is beyond a bound is left out with a
//! reason; what stays is offered.

use std::collections::BTreeMap;

use super::super::instance::{Skipped, Withheld};
use super::address::NoWay;
use super::{AllowNames, MAX_RECORDS, MAX_SHOWN, MAX_UNNAMED_PORTS, kind};
use crate::model::words::name::{Label, ServiceName};
use crate::model::words::record::Text;

/// Names that those who look others up read something into: SkyDNS's settings, its name servers and its apex.
const RESERVED: [&str; 3] = ["cfg", "ns.dns", "apex.dns"];

/// The reserved name that `name` is, or is below.
pub fn reserved(name: &str) -> Option<&'static str> {
    let is = |reserved: &&str| name.strip_suffix(*reserved).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    RESERVED.into_iter().find(is)
}

/// The name, when a container of this host may have it.
pub(super) fn allowed(name: ServiceName, allow: &AllowNames) -> Result<ServiceName, NoWay> {
    let text = name.to_string();
    if !allow.allows(&text) {
        return Err((kind::NAME_NOT_ALLOWED, format!("--allow-name does not allow {name}")));
    }
    match reserved(&text) {
        Some(word) if !allow.spells_out(&text, word) => {
            Err((kind::RESERVED_NAME, format!("{name} is no container's to claim, unless by --allow-name {word}")))
        }
        _ => Ok(name),
    }
}

/// Whether an instance of this label makes a reserved name of one that is none: `ns` of a service `dns`.
pub(super) fn claims(label: &Label, name: &ServiceName, allow: &AllowNames) -> bool {
    let full = format!("{label}.{name}");
    reserved(&name.to_string()).is_none() && reserved(&full).is_some_and(|word| !allow.spells_out(&full, word))
}

/// What a container has used of its bounds so far.
#[derive(Debug, Default)]
pub(super) struct Room {
    unnamed: usize,
    records: usize,
}

impl Room {
    /// Whether there is room for another port. One without a NAME of its own counts as soon as it is looked at: what a
    /// container says for all of its ports alike may be costly to refuse.
    pub(super) fn enter(&mut self, named: bool) -> Result<(), NoWay> {
        if self.records >= MAX_RECORDS {
            return Err(too_many_records());
        }
        if !named {
            if self.unnamed >= MAX_UNNAMED_PORTS {
                let reason = format!("more than {MAX_UNNAMED_PORTS} ports without a NAME of their own");
                return Err((kind::TOO_MANY_PORTS, reason));
            }
            self.unnamed += 1;
        }
        Ok(())
    }

    /// Cuts a port's names to the records that are left.
    pub(super) fn cut(&self, names: &mut Vec<ServiceName>) -> Option<NoWay> {
        let left = MAX_RECORDS - self.records;
        let over = names.len() > left;
        names.truncate(left);
        over.then(too_many_records)
    }

    /// So many records are taken.
    pub(super) fn take(&mut self, records: usize) {
        self.records += records;
    }
}

fn too_many_records() -> NoWay {
    (kind::TOO_MANY_RECORDS, format!("more than {MAX_RECORDS} records of one container; further ones are left out"))
}

/// What of one container is not offered: the first of it in full, of the rest the number.
#[derive(Debug, Default)]
pub(super) struct Aside {
    skipped: Vec<Skipped>,
    further: BTreeMap<&'static str, (usize, String)>,
    pub(super) withheld: Vec<Withheld>,
}

impl Aside {
    pub(super) fn skip(&mut self, container: &Text, port: &str, kind: &'static str, reason: String) {
        if self.skipped.len() < MAX_SHOWN {
            return self.skipped.push(Skipped { container: container.clone(), port: port.to_owned(), kind, reason });
        }
        self.further.entry(kind).or_insert((0, reason)).0 += 1;
    }

    pub(super) fn withhold(&mut self, withheld: Withheld) {
        if self.withheld.len() < MAX_SHOWN {
            self.withheld.push(withheld);
        }
    }

    /// All of it, and how many are not shown by themselves.
    pub(super) fn told(self, container: &Text) -> (Vec<Skipped>, BTreeMap<&'static str, usize>, Vec<Withheld>) {
        let Self { mut skipped, further, withheld } = self;
        let counts = further.iter().map(|(kind, (count, _))| (*kind, count - 1)).collect();
        skipped.extend(further.into_iter().map(|(kind, (count, reason))| Skipped {
            container: container.clone(),
            port: String::new(),
            kind,
            reason: format!("{count} further ones, such as: {reason}"),
        }));
        (skipped, counts, withheld)
    }
}
