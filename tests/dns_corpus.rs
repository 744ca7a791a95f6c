//! SkyDNS's behaviour as data, asked of the running server: records in a real etcd, questions over UDP and TCP, foreign
//! names from an upstream of our own. What is answered from ready-made replies is the same.
#![allow(clippy::unwrap_used)]

mod desk;
mod etcd;
#[path = "support/skydns/mod.rs"]
mod skydns;

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use desk::upstream::Fixture;
use desk::{Desk, Setup, eventually};
use hickory_server::proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_server::proto::rr::rdata::{A, AAAA, CNAME};
use hickory_server::proto::rr::{DNSClass, Name, RData, Record, RecordType};
use skydns::Suite;
use skydns::compare::{Expected, Reply, judge};
use wharf::answer::dns::Upstream;
use wharf::model::words::key::Prefix;
use wharf::model::words::zone::Zones;
use wharf::store::{Store, Write};

fn name(text: &str) -> Name {
    Name::from_labels(text.trim_end_matches('.').split('.').map(str::as_bytes)).unwrap()
}

fn outside() -> Vec<Record> {
    let record = |Expected { name: own, rtype, data, ttl, .. }: Expected| {
        let data = match rtype.as_str() {
            "CNAME" => RData::CNAME(CNAME(name(&data))),
            "A" => RData::A(A(data.parse().unwrap())),
            _ => RData::AAAA(AAAA(data.parse().unwrap())),
        };
        Record::from_rdata(name(&own), ttl.unwrap(), data)
    };
    skydns::upstream().into_iter().map(record).collect()
}

async fn load(store: &dyn Store, suite: &Suite) -> Vec<String> {
    let mut writes = Vec::new();
    for service in suite.services() {
        let lease = match service.lease {
            Some(seconds) => {
                // The lease runs out by itself: nobody keeps it.
                let session = store.session(Duration::from_secs(seconds), None).await.unwrap();
                session.lease()
            }
            None => 0,
        };
        writes.push(Write::Put { key: service.path, value: service.value.into(), lease });
    }
    for chunk in writes.chunks(100) {
        desk::commit(store, chunk).await;
    }
    writes.into_iter().map(|write| if let Write::Put { key, .. } = write { key } else { String::new() }).collect()
}

fn message(query: &skydns::Query) -> Message {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = !query.is_tagged("no-rec");
    let mut question = Query::query(name(query.qname()), RecordType::from_str(query.qtype()).unwrap());
    question.set_query_class(DNSClass::from_str(query.qclass()).unwrap());
    message.add_query(question);
    if query.edns() {
        let mut edns = Edns::new();
        edns.set_max_payload(query.bufsize().unwrap_or(1232)).set_dnssec_ok(query.wants_dnssec());
        message.set_edns(edns);
    }
    message
}

fn reply(message: Message, size: usize) -> Reply {
    Reply {
        rcode: message.metadata.response_code,
        authoritative: message.metadata.authoritative,
        truncated: Some(message.metadata.truncation),
        answers: message.answers,
        authority: message.authorities,
        additional: message.additionals,
        edns: Some(message.edns.is_some()),
        size: Some(size),
    }
}

/// Asks as the case says: over one transport, or UDP first and TCP when truncated.
async fn ask(server: SocketAddr, query: &skydns::Query, stream: bool) -> Reply {
    let message = message(query);
    let packet = message.to_vec().unwrap();
    if (stream && query.transport() != Some("udp")) || query.transport() == Some("tcp") {
        let answered = desk::tcp(server, &message).await;
        return reply(answered, 0);
    }
    let wire = desk::udp_raw(server, &packet).await.expect("an answer");
    let most = query.bufsize().unwrap_or(512).clamp(512, 1232);
    assert!(wire.len() <= usize::from(most), "{} bytes to {}", wire.len(), query.id());
    let answered = Message::from_vec(&wire).unwrap();
    if answered.metadata.truncation && query.transport().is_none() {
        return reply(desk::tcp(server, &message).await, 0);
    }
    let size = wire.len();
    reply(answered, size)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_suite_is_answered_over_udp_and_tcp_from_etcd() {
    let cluster = etcd::Cluster::start(1);
    let fixture = Fixture::start(outside()).await;
    let (mut asked, mut complaints, mut ready_made) = (0, Vec::new(), 0);
    for suite in skydns::suites().iter().filter(|suite| !suite.manual()) {
        let store: Arc<dyn Store> = Arc::new(cluster.store(Duration::from_secs(30)));
        let keys = load(&*store, suite).await;
        let mut zones = suite.zones().into_iter().map(|(name, prefix)| (name, Prefix::parse(&prefix).unwrap()));
        let (domain, prefix) = zones.next().unwrap();
        let setup = Setup {
            zones: Zones::new(&domain, prefix, zones).unwrap(),
            ttl: Duration::from_secs(u64::from(suite.default_ttl())),
            negative_ttl: Duration::from_secs(60),
            forward: vec![Upstream::Server(fixture.address)],
            ..Setup::default()
        };
        let desk = Desk::start(store.clone(), setup);
        let expected = keys.len();
        let items = store.read("/skydns/", None, None).await.unwrap().items;
        let leased: Vec<i64> = items.iter().map(|item| item.lease).filter(|lease| *lease != 0).collect();
        eventually("the suite is read", || async {
            let catalog = desk.view.load();
            let counts = catalog.counts();
            counts.records + counts.bad == expected && leased.iter().all(|lease| catalog.lease(*lease).is_some())
        })
        .await;
        for query in suite.queries().iter().filter(|query| !query.skipped()) {
            // Often enough by UDP that the last ones come from ready-made replies.
            for stream in [false, true, false, false, false, false, false, false, false, false, false, false] {
                asked += 1;
                let reply = ask(desk.address, query, stream).await;
                let wrong = judge(query, &reply, query.default_ttl());
                if !wrong.is_empty() {
                    let way = if stream { "tcp" } else { "udp" };
                    complaints.push(format!("{way} {} {}: {wrong:#?}", query.qname(), query.id()));
                }
            }
        }
        let metrics = desk.metrics();
        let counted = metrics.lines().find_map(|line| line.strip_prefix("wharf_dns_ready_made_total ")).unwrap();
        ready_made += counted.parse::<u64>().unwrap();
        desk.stop().await;
        for chunk in keys.chunks(100) {
            let keys: Vec<&str> = chunk.iter().map(String::as_str).collect();
            desk::delete(&*store, &keys).await;
        }
    }
    assert!(asked > 1_000, "only {asked} questions");
    assert!(ready_made > 300, "only {ready_made} of {asked} from ready-made replies");
    complaints.dedup();
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}
