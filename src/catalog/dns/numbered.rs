//! `2.nucleus.services.internal`: a host by its number among those of a role, while it is up. It comes before whatever
//! records stand at that name or below it: no container can take a host's name away. `core-01.node.services.internal`
//! is a host by its name, behind all else: a service may be called `node`, too, and then that name selects its
//! endpoints there.

use std::net::IpAddr;

use super::work::{Family, SHORT_TTL, Work, address_record};
use super::{Answer, Name, RecordType};
use crate::model::words::ordinal::number;

impl Work<'_> {
    /// The addresses of the numbered host that a name of the default domain means.
    pub(super) fn numbered(&self, place: usize, own: &[&str]) -> Option<Vec<IpAddr>> {
        let [first, role] = own else { return None };
        let addresses = self.catalog.numbered().addresses(role, number(first)?)?;
        (place == 0).then(|| addresses.to_vec())
    }

    /// The addresses of the host that a name means by the host's own: `core-01.node` in the default domain, `core-01`
    /// in a zone such as `node.consul`.
    pub(super) fn host(&self, place: usize, own: &[&str]) -> Option<Vec<IpAddr>> {
        let is_of_nodes =
            || self.zones.get(place).is_some_and(|zone| zone.labels().first().is_some_and(|it| it == "node"));
        let name = match own {
            [name, "node"] if place == 0 => name,
            [name] if is_of_nodes() => name,
            _ => return None,
        };
        self.catalog.numbered().host(name).map(<[_]>::to_vec)
    }

    /// The answer for it: its addresses, and nothing else.
    pub(super) fn numbered_host(self, place: usize, owner: &Name, addresses: &[IpAddr]) -> Answer {
        let qtype = self.question.qtype;
        let is_wanted = |address: &&IpAddr| match Family::of(**address) {
            Family::V4 => qtype == RecordType::A,
            Family::V6 => qtype == RecordType::AAAA,
        };
        let ttl = self.context.dns_ttl.min(SHORT_TTL);
        let record = |address: &IpAddr| address_record(owner, ttl, *address);
        if qtype == RecordType::ANY {
            return self.rfc8482(place, owner);
        }
        let answers = addresses.iter().filter(is_wanted).map(record).collect();
        self.finish(place, Some(answers), Vec::new())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::{Context, DNSClass, Outcome, Question, ResponseCode, answer};
    use super::*;
    use crate::catalog::index::Catalog;
    use crate::model::words::key::Prefix;
    use crate::model::words::node::NodeRecord;
    use crate::model::words::ordinal::Numbered;
    use crate::model::words::site::Standpoint;
    use crate::model::words::zone::Zones;

    fn catalog() -> Catalog {
        let node = |name: &str, address: &str, number| NodeRecord {
            node: name.into(),
            addresses: vec![address.parse().unwrap()],
            ordinals: BTreeMap::from([("nucleus".into(), number)]),
            ..NodeRecord::default()
        };
        let mut catalog = Catalog::default();
        catalog.put("/services/nucleus/2", b"10.9.9.9:80", 0, 1).unwrap();
        catalog.put("/services/nucleus/3", b"10.9.9.9:80", 0, 1).unwrap();
        catalog.put("/services/nucleus/1/below", b"10.9.9.9:80", 0, 1).unwrap();
        let nodes = [node("a", "10.0.0.1", 1), node("b", "10.0.0.2", 2)];
        catalog.lay_numbered(&Arc::new(Numbered::of(&nodes)));
        catalog
    }

    fn told(catalog: &Catalog, name: &str, qtype: RecordType) -> (ResponseCode, Vec<String>) {
        let others = [
            ("other.".to_owned(), Prefix::parse("/services").unwrap()),
            ("node.consul".to_owned(), Prefix::parse("/services/node").unwrap()),
        ];
        let zones = Zones::new("services.internal", Prefix::parse("/services").unwrap(), others).unwrap();
        let question = Question { name: Name::from_ascii(name).unwrap(), qtype, qclass: DNSClass::IN };
        let standpoint = Standpoint::default();
        let context = Context {
            dns_ttl: 60,
            negative_ttl: 5,
            seed: 0,
            now: Duration::ZERO,
            room: 65_000,
            standpoint: &standpoint,
        };
        let Outcome::Answer(answer) = answer(catalog, &zones, &question, &context) else { panic!("{name}") };
        assert!(answer.answers.iter().all(|record| record.ttl <= 60));
        (answer.rcode, answer.answers.iter().map(|record| record.data.to_string()).collect())
    }

    #[test]
    fn a_numbered_host_is_found_before_any_record() {
        let catalog = catalog();
        let of = |name: &str, qtype| told(&catalog, &format!("{name}.services.internal."), qtype);
        let addresses =
            |list: &[&str]| (ResponseCode::NoError, list.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(of("2.nucleus", RecordType::A), addresses(&["10.0.0.2"]));
        assert_eq!(of("1.NUCLEUS", RecordType::A), addresses(&["10.0.0.1"]));
        assert_eq!(of("2.nucleus", RecordType::AAAA), addresses(&[]));
        assert_eq!(of("2.nucleus", RecordType::SRV), addresses(&[]));
        assert_eq!(of("3.nucleus", RecordType::A), addresses(&["10.9.9.9"]), "nobody has that number");
        assert_eq!(of("02.nucleus", RecordType::A).0, ResponseCode::NXDomain);
        assert_eq!(told(&catalog, "2.nucleus.other.", RecordType::A), addresses(&["10.9.9.9"]));
    }

    #[test]
    fn a_host_is_found_by_its_name_behind_all_else() {
        let mut catalog = catalog();
        let of = |catalog: &Catalog, name: &str, qtype| told(catalog, &format!("{name}.services.internal."), qtype);
        assert_eq!(of(&catalog, "A.node", RecordType::A), (ResponseCode::NoError, vec!["10.0.0.1".to_owned()]));
        assert_eq!(of(&catalog, "a.node", RecordType::AAAA), (ResponseCode::NoError, vec![]));
        assert_eq!(of(&catalog, "z.node", RecordType::A).0, ResponseCode::NXDomain);
        assert_eq!(of(&catalog, "x.a.node", RecordType::A).0, ResponseCode::NXDomain);
        assert_eq!(told(&catalog, "a.node.other.", RecordType::A).0, ResponseCode::NXDomain);
        assert_eq!(told(&catalog, "b.node.consul.", RecordType::A).1, ["10.0.0.2"]);
        assert_eq!(told(&catalog, "x.b.node.consul.", RecordType::A).0, ResponseCode::NXDomain);
        catalog.put("/services/node/a", b"10.9.9.9:80", 0, 1).unwrap();
        assert_eq!(of(&catalog, "a.node", RecordType::A).1, ["10.9.9.9"], "a service that is called so");
    }

    #[test]
    fn a_role_is_a_name_with_names_below_it() {
        let mut bare = Catalog::default();
        assert_eq!(told(&bare, "nucleus.services.internal.", RecordType::A).0, ResponseCode::NXDomain);
        bare.lay_numbered(&Arc::new(catalog().numbered().clone()));
        assert_eq!(told(&bare, "nucleus.services.internal.", RecordType::A).0, ResponseCode::NoError);
        assert_eq!(told(&bare, "3.nucleus.services.internal.", RecordType::A).0, ResponseCode::NXDomain);
    }
}
