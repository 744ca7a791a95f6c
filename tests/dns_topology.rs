//! Role names of a service that has a topology: who is named, for how long, and what is said during a switch.
#![allow(clippy::unwrap_used)]

mod desk;

use std::sync::Arc;
use std::time::{Duration, Instant};

use desk::{Desk, Setup, eventually, put};
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::RecordType;
use wharf::store::embedded::Embedded;

const RECORDS: [(&str, &str); 3] = [
    ("/services/redis-1/a", r#"{"host":"10.0.0.1","port":6379,"role":"primary"}"#),
    ("/services/redis-1/b", r#"{"host":"10.0.0.2","port":6379,"role":"replica"}"#),
    ("/services/redis-1/c", r#"{"host":"10.0.0.3","port":6379,"role":"primary"}"#),
];
const PRIMARY: &str = "primary.redis-1.services.internal.";

async fn applied(desk: &Desk, master: &str, replica: &str) {
    let value = format!(r#"{{"epoch":2,"master":{{"name":"{master}"}},"replicas":["{replica}"]}}"#);
    put(&*desk.store, &[("/wharf/services/topology/redis-1/applied", &value)]).await;
}

async fn journal(desk: &Desk, stage: &str) {
    let value = format!(r#"{{"number":4,"kind":"switch","stage":"{stage}","target":{{"name":"b"}}}}"#);
    put(&*desk.store, &[("/wharf/services/topology/redis-1/journal", &value)]).await;
}

async fn named(desk: &Desk, address: &str) {
    eventually("the master is named", || async { desk.answers(PRIMARY, RecordType::A).await == [address] }).await;
}

async fn served() -> Desk {
    let store = Arc::new(Embedded::new());
    put(&*store, &RECORDS).await;
    let desk = Desk::start(store, Setup::default());
    eventually("the catalog is read", || async { desk.view.load().counts().records == 3 }).await;
    desk
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_master_is_the_one_that_was_brought_about() {
    let desk = served().await;
    assert!(desk.answers(PRIMARY, RecordType::A).await.is_empty(), "two claim it");
    applied(&desk, "a", "b").await;
    named(&desk, "10.0.0.1").await;
    assert_eq!(desk.answers("slaves.redis-1.services.internal.", RecordType::A).await, ["10.0.0.2"]);
    assert_eq!(desk.answers("c.redis-1.services.internal.", RecordType::A).await, ["10.0.0.3"], "by its own name");
    let reply = desk.udp(PRIMARY, RecordType::SRV).await;
    assert!(reply.answers.iter().chain(&reply.additionals).all(|record| record.ttl <= 1), "{reply}");
    let reply = desk.udp("redis-1.services.internal.", RecordType::SRV).await;
    assert!(reply.answers.iter().all(|record| record.ttl > 1), "other names are as ever: {reply}");
    applied(&desk, "b", "a").await;
    named(&desk, "10.0.0.2").await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_question_during_a_switch_is_answered_with_the_new_master() {
    let desk = served().await;
    applied(&desk, "a", "b").await;
    named(&desk, "10.0.0.1").await;
    journal(&desk, "intent").await;
    eventually("questions wait", || async {
        let reply = tokio::time::timeout(Duration::from_millis(100), desk.udp(PRIMARY, RecordType::A)).await;
        reply.is_err() || reply_is_kept_for_nothing(&desk).await
    })
    .await;
    applied(&desk, "b", "a").await;
    journal(&desk, "publish").await;
    named(&desk, "10.0.0.2").await;
    desk.stop().await;
}

async fn reply_is_kept_for_nothing(desk: &Desk) -> bool {
    let reply = desk.udp(PRIMARY, RecordType::A).await;
    !reply.answers.is_empty() && reply.answers.iter().all(|record| record.ttl == 0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switch_that_takes_long_keeps_nobody_waiting_and_names_the_last_master() {
    let desk = served().await;
    applied(&desk, "a", "b").await;
    named(&desk, "10.0.0.1").await;
    journal(&desk, "promote").await;
    eventually("questions wait no more", || async {
        let asked = Instant::now();
        reply_is_kept_for_nothing(&desk).await && asked.elapsed() < Duration::from_millis(450)
    })
    .await;
    for _ in 0..20 {
        let asked = Instant::now();
        let reply = desk.udp(PRIMARY, RecordType::A).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert_eq!(reply.answers[0].data.to_string(), "10.0.0.1");
        assert!(asked.elapsed() < Duration::from_millis(450), "who asks again is answered: {:?}", asked.elapsed());
    }
    desk.stop().await;
}
