//! Questions and answers over real sockets, from a store in this process.
#![allow(clippy::unwrap_used)]

mod desk;

use std::sync::Arc;

use desk::{Desk, Setup, delete, eventually, put};
use hickory_server::proto::op::ResponseCode;
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
