//! Foreign names: for whom they are looked up, where, and what becomes of them when nobody answers.
#![allow(clippy::unwrap_used)]

mod desk;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use desk::upstream::Fixture;
use desk::{Desk, Setup, eventually, put, query, with_edns};
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::rdata::{A, CNAME};
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use wharf::answer::dns::Upstream;
use wharf::model::words::key::Prefix;
use wharf::model::words::zone::Zones;
use wharf::store::embedded::Embedded;
use wharf::view::Progress;

fn outside() -> Vec<Record> {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    vec![
        Record::from_rdata(name("example.org."), 300, RData::A(A::new(192, 0, 2, 1))),
        Record::from_rdata(name("www.example.org."), 300, RData::CNAME(CNAME(name("example.org.")))),
    ]
}

async fn desk(forward: Vec<SocketAddr>, change: impl FnOnce(&mut Setup)) -> Desk {
    let store = Arc::new(Embedded::new());
    put(&*store, &[("/services/out/a", r#"{"host":"www.example.org"}"#)]).await;
    let mut setup = Setup { forward: forward.into_iter().map(Upstream::Server).collect(), ..Setup::default() };
    change(&mut setup);
    let desk = Desk::start(store, setup);
    eventually("read", || async { desk.view.progress() == Progress::Read }).await;
    desk
}

/// An address that takes datagrams and says nothing.
async fn silence() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_names_are_looked_up_over_both_transports() {
    let fixture = Fixture::start(outside()).await;
    let desk = desk(vec![fixture.address], |_| {}).await;
    for reply in [desk.udp("www.Example.org.", RecordType::A).await, desk.tcp("www.Example.org.", RecordType::A).await]
    {
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 2));
        assert!(reply.metadata.recursion_available && !reply.metadata.authoritative);
        assert!(reply.edns.is_none());
        assert_eq!(reply.queries[0].name().to_ascii(), "www.Example.org.");
    }
    let reply = desk.udp("nothing.example.org.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_names_a_foreign_host_is_followed() {
    let fixture = Fixture::start(outside()).await;
    let desk = desk(vec![fixture.address], |_| {}).await;
    let reply = desk.udp("out.services.internal.", RecordType::A).await;
    let kinds: Vec<RecordType> = reply.answers.iter().map(Record::record_type).collect();
    assert_eq!(kinds, [RecordType::CNAME, RecordType::CNAME, RecordType::A]);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_a_served_zone_are_never_forwarded() {
    let fixture = Fixture::start(outside()).await;
    let desk = desk(vec![fixture.address], |_| {}).await;
    let reply = desk.udp("nothing.services.internal.", RecordType::A).await;
    assert_eq!((reply.metadata.response_code, fixture.asked()), (ResponseCode::NXDomain, 0));
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn addresses_of_a_served_reverse_zone_are_never_forwarded() {
    let fixture = Fixture::start(outside()).await;
    let reverse = ("0.0.10.in-addr.arpa".to_owned(), Prefix::parse("/reverse").unwrap());
    let zones = Zones::new("services.internal", Prefix::parse("/services").unwrap(), [reverse]).unwrap();
    let desk = desk(vec![fixture.address], |setup| setup.zones = zones).await;
    for kind in [RecordType::PTR, RecordType::A, RecordType::TXT] {
        let reply = desk.udp("7.0.0.10.in-addr.arpa.", kind).await;
        assert_ne!(reply.metadata.response_code, ResponseCode::ServFail);
        assert_eq!((reply.answers.len(), fixture.asked()), (0, 0));
    }
    // Of a zone that is not served it is.
    desk.udp("7.0.1.10.in-addr.arpa.", RecordType::PTR).await;
    assert!(fixture.asked() > 0);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_ask_for_recursion_gets_none() {
    let fixture = Fixture::start(outside()).await;
    let desk = desk(vec![fixture.address], |_| {}).await;
    let ask = |name| {
        let mut message = query(name, RecordType::A);
        message.metadata.recursion_desired = false;
        async move { (desk::udp(desk.address, &message).await, desk::tcp(desk.address, &message).await) }
    };
    let (one, two) = ask("out.services.internal.").await;
    for reply in [one, two] {
        let kinds: Vec<RecordType> = reply.answers.iter().map(Record::record_type).collect();
        assert_eq!((kinds, fixture.asked()), (vec![RecordType::CNAME], 0), "the alias, and no more");
    }
    let (reply, _) = ask("example.org.").await;
    assert_eq!((reply.metadata.response_code, fixture.asked()), (ResponseCode::Refused, 0));
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_are_spelled_as_the_client_wrote_them() {
    let fixture = Fixture::start(outside()).await;
    let desk = desk(vec![fixture.address], |_| {}).await;
    let names = |reply: &hickory_server::proto::op::Message| -> Vec<String> {
        let owners = reply.answers.iter().map(|record| record.name.to_ascii());
        let targets = reply.answers.iter().filter_map(|record| match &record.data {
            RData::CNAME(target) => Some(target.0.to_ascii()),
            _ => None,
        });
        owners.chain(targets).collect()
    };
    // The second one comes from the cache.
    for [www, org] in [["www.Example.ORG.", "Example.ORG."], ["WWW.example.oRg.", "example.oRg."]] {
        assert_eq!(names(&desk.udp(www, RecordType::A).await), [www, org, org]);
        assert_eq!(names(&desk.tcp(www, RecordType::A).await), [www, org, org]);
    }
    assert_eq!(fixture.asked(), 2, "once by each transport");
    // Behind an alias of ours they are spelled as that one leads there.
    let reply = desk.udp("OUT.services.internal.", RecordType::A).await;
    let (out, www, org) = ("OUT.services.internal.", "www.example.org.", "example.org.");
    assert_eq!(names(&reply), [out, www, org, www, org]);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_questions_that_nobody_answers_leaves_others_theirs() {
    let fixture = Fixture::start(outside()).await;
    let desk = desk(vec![fixture.address], |_| {}).await;
    // More than each may have waiting, of several clients: what is let through waits for seconds. Not so many that a
    // program that is not optimized is busy with them for as long.
    for client in 2..6 {
        let socket = desk::udp_from(desk::another(client), desk.address).await;
        for number in 0..150 {
            let packet = query(&format!("never{number}.of{client}.example.org."), RecordType::A).to_vec().unwrap();
            socket.send(&packet).await.unwrap();
        }
    }
    let refused = || {
        desk.metrics().lines().any(|line| {
            line.strip_prefix("wharf_dns_dropped_total{reason=\"overload\"} ").is_some_and(|count| count != "0")
        })
    };
    eventually("some have more than their share", || async { refused() }).await;
    for number in 0..20 {
        let socket = desk::udp_from(desk::another(1), desk.address).await;
        socket.send(&query(&format!("n{number}.example.org."), RecordType::A).to_vec().unwrap()).await.unwrap();
        let mut buffer = [0; 512];
        tokio::time::timeout(desk::PATIENCE, socket.recv(&mut buffer)).await.expect("an answer").unwrap();
        assert_eq!(buffer[3] & 0x0f, 3, "NXDOMAIN as the upstream said, not SERVFAIL");
    }
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_who_may_not_is_refused() {
    let fixture = Fixture::start(outside()).await;
    let desk = desk(vec![fixture.address], |setup| setup.forward_allow = vec!["10.0.0.0/8"]).await;
    let reply = desk.udp("example.org.", RecordType::A).await;
    assert_eq!((reply.metadata.response_code, fixture.asked()), (ResponseCode::Refused, 0));
    assert!(!reply.metadata.recursion_available);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_asked_for_once() {
    let fixture = Fixture::start(outside()).await;
    let desk = desk(vec![fixture.address], |_| {}).await;
    for _ in 0..20 {
        assert_eq!(desk.udp("example.org.", RecordType::A).await.answers.len(), 1);
    }
    assert_eq!(fixture.asked(), 1);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_upstream_is_left_for_the_next() {
    let (_socket, silent) = silence().await;
    let fixture = Fixture::start(outside()).await;
    let desk = desk(vec![silent, fixture.address], |_| {}).await;
    assert_eq!(desk.udp("example.org.", RecordType::A).await.answers.len(), 1);
    // From then on the one that answers is asked first.
    let begun = Instant::now();
    assert_eq!(desk.udp("www.example.org.", RecordType::A).await.answers.len(), 2);
    assert!(begun.elapsed() < Duration::from_millis(1_000), "{:?}", begun.elapsed());
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_nobody_answers_it_is_servfail_and_never_silence() {
    let (_socket, silent) = silence().await;
    let desk = desk(vec![silent], |_| {}).await;
    let begun = Instant::now();
    let asking = (0..50).map(|number| {
        let name = format!("n{}.example.org.", number % 10);
        let server = desk.address;
        async move { desk::udp(server, &with_edns(query(&name, RecordType::A), 1232)).await }
    });
    for reply in futures_util::future::join_all(asking).await {
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // Our own names are answered all the while.
    assert_eq!(desk.udp("out.services.internal.", RecordType::SRV).await.metadata.response_code, ResponseCode::NoError);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn truncation_is_passed_on_and_the_stream_brings_it_all() {
    let fixture = Fixture::start(outside()).await;
    fixture.state.truncating.store(true, Ordering::Relaxed);
    let desk = desk(vec![fixture.address], |_| {}).await;
    assert!(desk.udp("example.org.", RecordType::A).await.metadata.truncation);
    let reply = desk.tcp("example.org.", RecordType::A).await;
    assert!(!reply.metadata.truncation && reply.answers.len() == 1);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refusal_of_one_is_not_the_last_word() {
    let (refuser, fixture) = (Fixture::start(outside()).await, Fixture::start(outside()).await);
    refuser.state.refusing.store(true, Ordering::Relaxed);
    let desk = desk(vec![refuser.address, fixture.address], |_| {}).await;
    assert_eq!(desk.udp("example.org.", RecordType::A).await.answers.len(), 1);
    desk.stop().await;
}

/// An address to bind later: of an IP that no other test's sockets have, so that its port stays free.
fn free_address(ip: &str) -> SocketAddr {
    let free = || {
        let at = std::net::UdpSocket::bind((ip, 0)).unwrap().local_addr().unwrap();
        // Streams have ports of their own, which others on this machine take.
        std::net::TcpListener::bind(at).is_ok().then_some(at)
    };
    (0..100).find_map(|_| free()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_circle_of_forwarders_ends() {
    // Two desks that name each other.
    let first = free_address("127.77.0.1");
    let one = desk(vec![SocketAddr::from(([127, 0, 0, 1], 9))], |setup| setup.listen = first).await;
    one.stop().await;
    let two = desk(vec![first], |_| {}).await;
    let one = desk(vec![two.address], |setup| setup.listen = first).await;
    let reply = desk::udp(one.address, &query("example.org.", RecordType::A)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
    let metrics = (one.metrics(), two.metrics());
    let asked = |text: &str| -> u64 {
        let lines = text.lines().filter(|line| line.starts_with("wharf_dns_queries_total{zone=\"foreign\""));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    assert!(asked(&metrics.0) + asked(&metrics.1) < 20, "{} and {}", asked(&metrics.0), asked(&metrics.1));
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn we_are_not_our_own_upstream() {
    // What we listen on, and what we are told to ask at that port.
    for (own, asked) in [("127.77.0.2", "127.77.0.2"), ("0.0.0.0", "127.77.0.3"), ("127.0.0.1", "0.0.0.0")] {
        let own = free_address(own);
        let asked = SocketAddr::new(asked.parse().unwrap(), own.port());
        let desk = desk(vec![asked], |setup| setup.listen = own).await;
        let to = SocketAddr::from(([127, 0, 0, 1], own.port()));
        let to = if own.ip().is_unspecified() { to } else { own };
        let begun = Instant::now();
        let reply = desk::udp(to, &query("example.org.", RecordType::A)).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::ServFail);
        assert!(begun.elapsed() < Duration::from_secs(1), "{own} asks {asked}: {:?}", begun.elapsed());
        let metrics = desk.metrics();
        let foreign = metrics.lines().find(|line| line.starts_with("wharf_dns_queries_total{zone=\"foreign\""));
        assert!(foreign.is_some_and(|line| line.ends_with(" 1")), "{own} asked itself: {foreign:?}");
        desk.stop().await;
    }
}
