//! Questions and answers over real sockets, from a store in this process.
#![allow(clippy::unwrap_used)]

mod desk;

use std::collections::BTreeMap;
use std::sync::Arc;

use desk::{Desk, Setup, delete, eventually, put, query, with_edns};
use hickory_server::proto::op::{Message, ResponseCode};
use hickory_server::proto::rr::RecordType;
use wharf::store::embedded::Embedded;

const MEMCACHED: [(&str, &str); 2] = [
    ("/services/memcached/core-01", r#"{"host":"10.0.0.1","port":11211}"#),
    ("/services/memcached/core-02", r#"{"host":"10.0.0.2","port":11211}"#),
];

async fn served(setup: Setup) -> Desk {
    let store = Arc::new(Embedded::new());
    put(&*store, &MEMCACHED).await;
    let desk = Desk::start(store, setup);
    eventually("the catalog is read", || async { desk.view.load().counts().records == 2 }).await;
    desk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_is_answered_by_udp_and_tcp() {
    let desk = served(Setup::default()).await;
    for reply in [
        desk.udp("memcached.services.internal.", RecordType::SRV).await,
        desk.tcp("memcached.services.internal.", RecordType::SRV).await,
    ] {
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert!(reply.metadata.authoritative && !reply.metadata.truncation);
        assert_eq!((reply.answers.len(), reply.additionals.len()), (2, 2));
    }
    assert_eq!(desk.answers("core-02.memcached.services.internal.", RecordType::A).await, ["10.0.0.2"]);
    let reply = desk.udp("nothing.services.internal.", RecordType::A).await;
    assert_eq!((reply.metadata.response_code, reply.authorities.len()), (ResponseCode::NXDomain, 1));
    let reply = desk.udp("example.org.", RecordType::A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_answered() {
    let desk = served(Setup::default()).await;
    put(&*desk.store, &[("/services/memcached/core-03", r#"{"host":"10.0.0.3","port":11211}"#)]).await;
    eventually("the third is answered", || async {
        desk.answers("memcached.services.internal.", RecordType::A).await == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]
    })
    .await;
    delete(&*desk.store, &["/services/memcached/core-01", "/services/memcached/core-03"]).await;
    eventually("one is left", || async {
        desk.answers("memcached.services.internal.", RecordType::A).await == ["10.0.0.2"]
    })
    .await;
    desk.stop().await;
}

/// How often each of these answers came first, over questions of several clients.
async fn firsts(desk: &Desk, message: &Message, times: usize) -> BTreeMap<String, usize> {
    let mut firsts = BTreeMap::new();
    let mut clients = Vec::new();
    for _ in 0..8 {
        clients.push(desk::udp_from(desk::another(1), desk.address).await);
    }
    let packet = message.to_vec().unwrap();
    let mut buffer = [0; 2_048];
    for number in 0..times {
        // As resolvers do, each asks for the other family too.
        for packet in [&packet, &query("many.services.internal.", RecordType::AAAA).to_vec().unwrap()] {
            let client = &clients[number % clients.len()];
            client.send(packet).await.unwrap();
            let received = tokio::time::timeout(desk::PATIENCE, client.recv(&mut buffer)).await;
            let reply = Message::from_vec(&buffer[..received.expect("an answer").unwrap()]).unwrap();
            if let Some(first) = reply.answers.first() {
                *firsts.entry(first.data.to_string()).or_default() += 1;
            }
        }
    }
    firsts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_endpoint_comes_first_equally_often() {
    const TIMES: usize = 16;
    for many in [2_usize, 7, 20, 33, 100] {
        let desk = Desk::start(Arc::new(Embedded::new()), Setup::default());
        // Weights and priorities are for the client to see: they do not change who comes first.
        let value = |n: usize| {
            let (priority, weight) = (1 + n % 3, 1 + n % 50);
            format!(r#"{{"host":"10.0.1.{n}","port":80,"priority":{priority},"weight":{weight}}}"#)
        };
        let all: Vec<(String, String)> = (0..many).map(|n| (format!("/services/many/a{n}"), value(n))).collect();
        let all: Vec<(&str, &str)> = all.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        put(&*desk.store, &all).await;
        eventually("all are read", || async { desk.view.load().counts().records == many }).await;
        for kind in [RecordType::A, RecordType::SRV] {
            let plain = query("many.services.internal.", kind);
            for message in [plain.clone(), with_edns(plain, 1232)] {
                let firsts = firsts(&desk, &message, TIMES * many).await;
                assert_eq!(firsts.len(), many, "{kind}: some never come first");
                let (least, most) = (firsts.values().min().unwrap(), firsts.values().max().unwrap());
                // Each thread takes its own turns.
                assert!(least + 8 >= TIMES && *most <= TIMES + 8, "{kind} of {many}: {least} to {most} times");
            }
        }
        desk.stop().await;
    }
}
