//! What an import tells: how much was written, what was not and why, and SkyDNS's settings as flags.

use serde::Serialize;

use crate::model::words::key::shown;

use super::config::{Advice, zone};
use super::plan::{LeftOut, root};
use crate::model::words::key::Prefix;

/// So many keys that are left out are named.
const MOST_NAMED: usize = 1_000;

/// The whole of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Told {
    /// The tree.
    pub from: String,
    /// Nothing was written.
    pub dry_run: bool,
    /// Keys that the tree has.
    pub read: usize,
    /// Keys that were written, or would be.
    pub written: usize,
    /// Of those, the ones that said something else before, or had another time.
    pub overwritten: usize,
    /// Of those, the ones that end with a lease.
    pub leased: usize,
    /// The shortest and the longest of these leases, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease_seconds: Option<(u64, u64)>,
    /// Keys that were there already.
    pub there: usize,
    /// How many were left out.
    pub left_out: usize,
    /// Those, a thousand at most.
    pub reasons: Vec<LeftOut>,
    /// SkyDNS's settings.
    pub settings: Vec<Advice>,
    /// What else there is to know.
    pub notes: Vec<String>,
}

impl Told {
    /// Notes a key that is not written.
    pub fn leave_out(&mut self, mut left: LeftOut) {
        self.left_out += 1;
        if self.reasons.len() < MOST_NAMED {
            left.key = shown(&left.key).into_owned();
            self.reasons.push(left);
        }
    }

    /// Notes a key that is written.
    pub fn write(&mut self, over: bool, lease: Option<u64>) {
        self.written += 1;
        self.overwritten += usize::from(over);
        if let Some(lease) = lease {
            self.leased += 1;
            let (least, most) = self.lease_seconds.unwrap_or((lease, lease));
            self.lease_seconds = Some((least.min(lease), most.max(lease)));
        }
    }

    /// Every flag that the settings come to.
    pub fn flags(&self) -> Vec<&str> {
        self.settings.iter().flat_map(|advice| advice.flags.iter().map(String::as_str)).collect()
    }
}

/// Where in SkyDNS's tree records are that its own domain does not serve.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere {
    reverse: [bool; 2],
    inside: usize,
    outside: usize,
    example: Option<String>,
    stubs: usize,
}

/// The trees of addresses, by zone.
const REVERSE: [&str; 2] = ["in-addr.arpa", "ip6.arpa"];

impl Elsewhere {
    /// Takes note of a record's key; `domain` is SkyDNS's.
    pub fn see(&mut self, key: &str, from: &Prefix, domain: &str) {
        let prefix = root(from);
        let within = |zone: &str| {
            let path = zone.split('.').rev().fold(prefix.to_owned(), |path, label| format!("{path}/{label}"));
            key.strip_prefix(path.as_str()).map(str::to_owned)
        };
        if let Some(rest) = within(domain).filter(|rest| rest.is_empty() || rest.starts_with('/')) {
            self.inside += 1;
            self.stubs += usize::from(rest.starts_with("/dns/stub/"));
            return;
        }
        for (seen, zone) in self.reverse.iter_mut().zip(REVERSE) {
            if within(zone).is_some_and(|rest| rest.starts_with('/')) {
                *seen = true;
                return;
            }
        }
        self.outside += 1;
        self.example.get_or_insert_with(|| shown(key).into_owned());
    }

    /// Whether any of it is SkyDNS's: the tree may be another program's, such as registrator's.
    pub fn is_skydns(&self) -> bool {
        self.inside > 0 || self.reverse.contains(&true)
    }

    /// The trees of addresses as a setting that SkyDNS has not.
    pub fn advice(&self, from: &Prefix) -> Option<Advice> {
        let zones = self.reverse.iter().zip(REVERSE).filter(|(seen, _)| **seen);
        let flags: Vec<String> = zones.map(|(_, name)| zone(name, root(from))).collect();
        let says = "in the tree".to_owned();
        (!flags.is_empty()).then(|| Advice { setting: "PTR records".to_owned(), says, flags, note: "" })
    }

    /// What SkyDNS does with records, and a copy of them does not do by itself.
    pub fn notes(&self, domain: &str) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(example) = &self.example {
            notes.push(format!(
                "{} of them lie outside {domain}, such as {example}: SkyDNS does not serve these, wharf does with a --zone",
                self.outside
            ));
        }
        if self.stubs > 0 {
            notes.push(format!(
                "{} of them are stub zones (dns.stub.{domain}): wharf has none, they are names like others",
                self.stubs
            ));
        }
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_elsewhere_is_told() {
        let from = Prefix::parse("/skydns").expect("a prefix");
        let mut elsewhere = Elsewhere::default();
        for key in [
            "/skydns/local/skydns/web/1",
            "/skydns/local/skydns",
            "/skydns/local/skydnsx/web",
            "/skydns/arpa/in-addr/10/0/0/1",
            "/skydns/com/example/www",
            "/skydns/local/skydns/dns/stub/example.com/1",
        ] {
            elsewhere.see(key, &from, "skydns.local");
        }
        let advice = elsewhere.advice(&from).expect("a reverse tree");
        assert_eq!(advice.flags, ["--zone in-addr.arpa=/skydns/arpa/in-addr"]);
        let notes = elsewhere.notes("skydns.local");
        assert!(notes[0].starts_with("2 of them") && notes[0].contains("/skydns/local/skydnsx/web"), "{notes:?}");
        assert!(notes[1].starts_with("1 of them"), "{notes:?}");
    }

    #[test]
    fn counts_are_whole_and_names_are_bounded() {
        let mut told = Told::default();
        for number in 0..5_000 {
            told.leave_out(LeftOut {
                key: format!("/skydns/{number}/{}", "x".repeat(10_000)),
                reason: "bad".to_owned(),
            });
        }
        assert_eq!((told.left_out, told.reasons.len()), (5_000, MOST_NAMED));
        assert!(told.reasons.iter().all(|left| left.key.len() <= 256));
        for lease in [Some(40), None, Some(20)] {
            told.write(false, lease);
        }
        assert_eq!((told.written, told.leased, told.lease_seconds), (3, 2, Some((20, 40))));
    }
}
