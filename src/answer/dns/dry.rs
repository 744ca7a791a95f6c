//! Packets answered without sockets, over a small catalog: for fuzzing, and for the laws that every packet must keep.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use futures_util::FutureExt;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::Message;
use hickory_server::proto::rr::Record as Rr;
use prometheus_client::registry::Registry;

use super::message::UDP_MOST;
use super::metrics::Metrics;
use super::packet::{Handled, handle};
use super::ready::{MOST, Ready, Remembered};
use super::rules::Rules;
use super::serving::Serving;
use crate::catalog::index::Catalog;
use crate::model::words::key::Prefix;
use crate::model::words::site::{Site, Standpoint};
use crate::model::words::zone::Zones;
use crate::view::CatalogView;

const CLIENT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 53_000);
const RECORDS: [(&str, &str); 13] = [
    ("web/core-01", r#"{"host":"10.0.0.1","port":80,"node":"core-01","owner":"one","tags":["blue"]}"#),
    ("web/core-02", r#"{"host":"10.0.0.2","host6":"2001:db8::2","port":80,"node":"core-02","owner":"two"}"#),
    ("redis/core-01", r#"{"host":"10.0.0.1","port":6379,"role":"primary","owner":"one","proto":"tcp"}"#),
    ("redis/core-02", r#"{"host":"10.0.0.2","port":6379,"role":"replica","owner":"two","proto":"tcp"}"#),
    ("prod/cache/a", r#"{"host":"cache.example.org","port":1,"text":"one","mail":true}"#),
    ("alias/a", r#"{"host":"web.services.internal"}"#),
    ("loop/a", r#"{"host":"loop.services.internal"}"#),
    ("six/a", r#"{"host":"2001:db8::6","ttl":1,"group":"g"}"#),
    ("plain/a", "192.0.2.7:9000"),
    ("shop/core-01", r#"{"host":"10.0.1.1","port":80,"node":"core-01","owner":"one","attrs":{"near":"true"}}"#),
    ("shop/core-02", r#"{"host":"10.0.1.2","port":80,"node":"core-02","owner":"two","site":"eu/a"}"#),
    ("shop/core-03", r#"{"host":"10.0.1.3","port":80,"node":"core-03","owner":"two","site":"eu/b"}"#),
    ("shop/core-04", r#"{"host":"10.0.1.4","port":80,"node":"core-04","owner":"two","site":"eu/b"}"#),
];

/// A server without sockets.
pub struct Dry {
    pub(super) serving: Arc<Serving>,
    pub(super) ready: Ready,
}

impl Default for Dry {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for Dry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dry").finish_non_exhaustive()
    }
}

impl Dry {
    /// A server of a few records of every kind.
    pub fn new() -> Self {
        Self::with_room(MOST)
    }

    /// One whose ready-made replies may take so many bytes.
    pub(super) fn with_room(bytes: usize) -> Self {
        Self::of(catalog(), 5, bytes)
    }

    fn of(catalog: Catalog, negative_ttl: u32, bytes: usize) -> Self {
        let prefix = Prefix::parse("/services").expect("it is one");
        let zones = Zones::new("services.internal", prefix, []).expect("it is one");
        let site = Site::parse("eu/a").expect("it is one");
        let rules = Rules {
            zones,
            standpoint: Standpoint::new("core-01", Some(site), false),
            dns_ttl: 5,
            negative_ttl,
            forward: false,
            forward_allow: Vec::new(),
            allow: Vec::new(),
        };
        let metrics = Metrics::register(vec!["services.internal.".to_owned()], &mut Registry::default());
        let (serving, _nothing_is_forwarded) = Serving::new(rules, metrics, CatalogView::fixed(catalog));
        let ready = Ready::new(&serving, bytes);
        Self { serving, ready }
    }

    /// A question of some kind, by number, with an OPT or without.
    pub fn sample(number: usize) -> Vec<u8> {
        const KINDS: [(&str, u16); 10] = [
            ("web", 33),
            ("_web._tcp", 33),
            ("*.web", 1),
            ("primary.redis", 1),
            ("core-02.web", 28),
            ("cache.prod", 15),
            ("alias", 255),
            ("nothing", 16),
            ("shop", 33),
            ("near.shop", 33),
        ];
        let (name, qtype) = KINDS[number % KINDS.len()];
        let mut packet = Self::named(name, qtype);
        if number / KINDS.len() % 2 == 1 {
            packet[11] = 1;
            packet.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        }
        packet
    }

    /// A question for a name of the zone, plainly.
    pub(super) fn named(name: &str, qtype: u16) -> Vec<u8> {
        let mut packet = vec![0, 77, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.').chain(["services", "internal"]) {
            packet.push(u8::try_from(label.len()).expect("labels are short"));
            packet.extend_from_slice(label.as_bytes());
        }
        packet.push(0);
        packet.extend_from_slice(&qtype.to_be_bytes());
        packet.extend_from_slice(&[0, 1]);
        packet
    }

    /// Answers a packet as a datagram and as a stream's, twice each way, so that ready-made replies come to their turn.
    /// Returns the datagram's reply.
    ///
    /// # Panics
    /// When a reply breaks a law: too large, not a response, another number, or ready-made unlike the handler's.
    pub fn answer(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        self.handled(packet, Protocol::Tcp);
        let plain = self.handled(packet, Protocol::Udp).reply;
        for _ in 0..2 {
            let ready = self.ready_made(packet);
            if let (Some(ready), Some(plain)) = (&ready, &plain) {
                assert!(same_but_for_order(ready, plain), "ready-made {ready:02x?} unlike {plain:02x?}");
            }
        }
        plain
    }

    fn handled(&self, packet: &[u8], protocol: Protocol) -> Handled {
        let panics = self.serving.metrics.panics();
        let handling = handle(self.serving.clone(), packet.to_vec(), CLIENT, protocol);
        let handled = handling.now_or_never().expect("nothing is asked elsewhere");
        assert_eq!(self.serving.metrics.panics(), panics, "panicked over {packet:02x?}");
        if let Some(reply) = &handled.reply {
            check(packet, reply, protocol);
        }
        handled
    }

    /// Whether the reply to this packet is ready.
    #[cfg(test)]
    pub(super) fn is_ready(&mut self, packet: &[u8]) -> bool {
        self.ready.answer(packet, &self.serving, CLIENT.ip(), &mut Vec::new()).is_some()
    }

    pub(super) fn ready_made(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let mut reply = Vec::new();
        if self.ready.answer(packet, &self.serving, CLIENT.ip(), &mut reply).is_some() {
            check(packet, &reply, Protocol::Udp);
            return Some(reply);
        }
        let handled = self.handled(packet, Protocol::Udp);
        if let Handled { reply: Some(reply), rests: Some((rests, place)) } = handled {
            self.ready.remember((packet, CLIENT.ip()), &self.serving, Remembered { reply, rests, place });
        }
        None
    }
}

fn catalog() -> Catalog {
    let mut catalog = Catalog::default();
    for (number, (path, value)) in (1..).zip(RECORDS) {
        let put = catalog.put(&format!("/services/{path}"), value.as_bytes(), 0, number);
        debug_assert!(put.is_ok(), "{path}: {put:?}");
    }
    catalog
}

fn check(packet: &[u8], reply: &[u8], protocol: Protocol) {
    let most = if protocol == Protocol::Udp { usize::from(UDP_MOST) } else { usize::from(u16::MAX) };
    assert!(reply.len() >= 12 && reply.len() <= most, "{} bytes", reply.len());
    assert!(reply[..2] == packet[..2] && reply[2] & 0x80 != 0, "no reply to this packet");
}

/// The same message, whatever the order of its records.
pub(super) fn same_but_for_order(one: &[u8], two: &[u8]) -> bool {
    let records = |reply: &[u8]| {
        let message = Message::from_vec(reply).ok()?;
        let text = |records: &[Rr]| {
            let mut texts: Vec<String> = records.iter().map(|record| record.to_string().to_lowercase()).collect();
            texts.sort();
            texts
        };
        Some([text(&message.answers), text(&message.authorities), text(&message.additionals)])
    };
    one[..12] == two[..12] && records(one).is_some_and(|known| Some(known) == records(two))
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use hickory_server::proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
    use hickory_server::proto::rr::rdata::opt::EdnsOption;
    use hickory_server::proto::rr::{Name, RData, RecordType};
    use proptest::prelude::*;

    use super::*;

    const NAMES: [&str; 14] = [
        "web",
        "*",
        "*.web",
        "_web._tcp",
        "primary.redis",
        "redis",
        "replicas.redis",
        "blue.web",
        "core-02.web",
        "alias",
        "loop",
        "six",
        "cache.prod",
        "nothing",
    ];
    const TYPES: [RecordType; 8] = [
        RecordType::SRV,
        RecordType::A,
        RecordType::AAAA,
        RecordType::TXT,
        RecordType::MX,
        RecordType::ANY,
        RecordType::SOA,
        RecordType::PTR,
    ];

    fn question(name: usize, qtype: usize, edns: Option<u16>) -> Vec<u8> {
        let name = Name::from_str(&format!("{}.services.internal.", NAMES[name % NAMES.len()])).expect("a name");
        let mut message = Message::new(77, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name, TYPES[qtype % TYPES.len()]));
        if let Some(size) = edns {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            message.set_edns(edns);
        }
        message.to_vec().expect("well formed")
    }

    fn rcode(packet: &[u8]) -> Option<ResponseCode> {
        let reply = Dry::new().answer(packet)?;
        Some(Message::from_vec(&reply).expect("well formed").metadata.response_code)
    }

    #[test]
    fn odd_packets_are_answered_by_the_rfc_or_dropped() {
        let plain = question(0, 0, None);
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut packet = question(0, 0, Some(1232));
            change(&mut packet);
            rcode(&packet)
        };
        assert_eq!(rcode(&plain), Some(ResponseCode::NoError));
        assert_eq!(rcode(&plain[..11]), None, "no header");
        assert_eq!(rcode(&[]), None);
        assert_eq!(with(&|packet| packet[2] |= 0x80), None, "a response");
        assert_eq!(with(&|packet| packet[2] |= 0x10), Some(ResponseCode::NotImp), "STATUS");
        assert_eq!(with(&|packet| packet[2] |= 0x28), Some(ResponseCode::NotImp), "UPDATE");
        assert_eq!(with(&|packet| packet[5] = 2), Some(ResponseCode::FormErr), "two questions, one there");
        assert_eq!(with(&|packet| packet[5] = 0), Some(ResponseCode::FormErr), "no question");
        assert_eq!(with(&|packet| packet.truncate(20)), Some(ResponseCode::FormErr), "cut");
        let version = |packet: &mut Vec<u8>| {
            let at = packet.len() - 5;
            packet[at] = 1;
        };
        assert_eq!(with(&version).map(u16::from), Some(16), "BADVERS");
        let class = |packet: &mut Vec<u8>| {
            let at = packet.len() - 12;
            packet[at] = 3;
        };
        assert_eq!(with(&class), Some(ResponseCode::Refused), "CHAOS");
        for transfer in [RecordType::AXFR, RecordType::IXFR] {
            let mut packet = plain.clone();
            let at = packet.len() - 3;
            packet[at] = u8::try_from(u16::from(transfer)).expect("small");
            packet[at - 1] = 0;
            assert_eq!(rcode(&packet), Some(ResponseCode::Refused), "{transfer}");
        }
    }

    #[test]
    fn what_does_not_exist_is_not_kept_long_while_the_store_is_away() {
        // The extended errors are "stale NXDOMAIN answer" and "stale answer" (RFC 8914).
        for (since, negative_ttl, ttl, codes) in [
            (None, 60, 60, [None, None]),
            (Some(std::time::Duration::ZERO), 60, 5, [Some(19), Some(3)]),
            (Some(std::time::Duration::ZERO), 2, 2, [Some(19), Some(3)]),
        ] {
            let mut catalog = catalog();
            catalog.set_stale(since);
            let mut dry = Dry::of(catalog, negative_ttl, MOST);
            for (name, code) in [13, 0].into_iter().zip(codes) {
                let reply = dry.answer(&question(name, 3, Some(1232))).expect("a reply");
                let reply = Message::from_vec(&reply).expect("well formed");
                let soa = &reply.authorities[0];
                let RData::SOA(data) = &soa.data else { panic!("{soa}") };
                assert_eq!((soa.ttl, data.minimum), (ttl, ttl), "{}", NAMES[name]);
                let edns = reply.edns.expect("an OPT");
                let told = edns.options().options.first().map(|(_, option)| match option {
                    EdnsOption::Unknown(15, data) => u16::from_be_bytes([data[0], data[1]]),
                    other => panic!("{other:?}"),
                });
                assert_eq!(told, code, "{}", NAMES[name]);
            }
        }
    }

    #[test]
    fn many_questions_are_one_error() {
        let mut message = Message::new(1, MessageType::Query, OpCode::Query);
        for number in 0..500 {
            message.add_query(Query::query(Name::from_str(&format!("q{number}.")).expect("a name"), RecordType::A));
        }
        assert_eq!(rcode(&message.to_vec().expect("well formed")), Some(ResponseCode::FormErr));
    }

    #[test]
    fn a_name_that_points_at_itself_is_an_error() {
        let packet = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1];
        assert_eq!(rcode(&packet), Some(ResponseCode::FormErr));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn no_packet_panics(
            name in 0..NAMES.len(),
            qtype in 0..TYPES.len(),
            edns in prop::option::of(any::<u16>()),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
            more in prop::collection::vec(any::<u8>(), 0..12),
        ) {
            let mut packet = question(name, qtype, edns);
            for (at, byte) in changes {
                let at = at.index(packet.len());
                packet[at] = byte;
            }
            packet.extend(more);
            if let Some(cut) = cut {
                packet.truncate(cut.index(packet.len()));
            }
            Dry::new().answer(&packet);
        }

        #[test]
        fn no_noise_panics(packet in prop::collection::vec(any::<u8>(), 0..600)) {
            Dry::new().answer(&packet);
        }

        #[test]
        fn a_question_in_any_case_has_the_same_answer(name in 0..NAMES.len(), qtype in 0..TYPES.len(), upper in any::<u64>()) {
            let packet = question(name, qtype, Some(1232));
            let mut mixed = packet.clone();
            for (place, byte) in mixed[12..].iter_mut().enumerate().take(NAMES[name].len() + 1) {
                if upper >> (place % 64) & 1 == 1 {
                    *byte = byte.to_ascii_uppercase();
                }
            }
            let mut dry = Dry::new();
            let (one, two) = (dry.answer(&packet), dry.answer(&mixed));
            let read = |reply: Option<Vec<u8>>| reply.map(|reply| Message::from_vec(&reply).expect("well formed"));
            let (one, two) = (read(one), read(two));
            prop_assert_eq!(one.as_ref().map(|m| m.answers.len()), two.as_ref().map(|m| m.answers.len()));
            prop_assert_eq!(one.map(|m| m.metadata.response_code), two.map(|m| m.metadata.response_code));
        }
    }
}
