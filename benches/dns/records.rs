//! The records that every server serves.

use std::time::Duration;

use wharf::store::{Session, Store, Write as Put};

/// Leases that the records hang on.
const LEASES: usize = 100;

/// Endpoint `number` of the cluster: the service it belongs to, its label, its address.
pub(crate) fn services(count: usize, each: usize) -> Vec<(String, String, String)> {
    (0..count * each).map(|number| endpoint(number, each)).collect()
}

fn endpoint(number: usize, each: usize) -> (String, String, String) {
    let host = format!("10.{}.{}.{}", number >> 16, (number >> 8) & 0xff, number & 0xff);
    (format!("s{}", number / each), format!("core-{number}"), host)
}

/// The key and value of one endpoint: what an agent writes of a container without labels beyond two tags and one
/// attribute.
pub(crate) fn plain(number: usize) -> (String, String) {
    let (service, label, host) = endpoint(number, 3);
    let node = number % 1_000;
    let value = format!(
        r#"{{"host":"{host}","port":{port},"id":"core-{node}:{service}-{number}:6379","service":"{service}","node":"core-{node}","owner":"{node:032x}","proto":"tcp","tags":["blue","zone-{zone}"],"attrs":{{"version":"7.2"}},"container":"{number:012x}","image":"registry.internal/team/{service}:7.2","since":"2026-11-21T11:42:33Z"}}"#,
        port = 20_000 + number % 10_000,
        zone = node % 4,
    );
    (format!("/services/{service}/{label}"), value)
}

/// The same with every field that a record may have.
pub(crate) fn full(number: usize) -> (String, String) {
    let (key, value) = plain(number);
    let role = if number.is_multiple_of(3) { "primary" } else { "replica" };
    let more = format!(
        r#","host6":"2001:db8::{high:x}:{low:x}","priority":20,"weight":50,"ttl":30,"text":"build {number}","group":"g1","targetstrip":1,"mail":true,"role":"{role}"}}"#,
        high = number >> 16,
        low = number & 0xffff,
    );
    let open = value.strip_suffix('}').unwrap();
    (key, format!("{open}{more}"))
}

/// Endpoint `number` of a service of many.
pub(crate) fn of_many(service: &str, number: usize) -> (String, String) {
    let host = format!("10.200.{}.{}", number >> 8, number & 0xff);
    (format!("/services/{service}/core-{number}"), format!(r#"{{"host":"{host}","port":11211}}"#))
}

/// Puts `count` full records on leases that last as long as what is returned.
pub(crate) async fn load(store: &dyn Store, count: usize) -> Vec<Session> {
    let mut sessions = Vec::new();
    for _ in 0..LEASES {
        sessions.push(store.session(Duration::from_secs(36_000), None).await.unwrap());
    }
    let numbers: Vec<usize> = (0..count).collect();
    for chunk in numbers.chunks(100) {
        let put = |number: &usize| {
            let (key, value) = full(*number);
            Put::Put { key, value: value.into(), lease: sessions[number % LEASES].lease() }
        };
        let writes: Vec<Put> = chunk.iter().map(put).collect();
        // A machine that is busy with other things may let a deadline pass.
        let mut tries = 0;
        while let Err(error) = store.commit(&[], &writes).await {
            tries += 1;
            assert!(tries < 50, "{error}");
        }
    }
    sessions
}
