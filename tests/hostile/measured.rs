//! What an attack costs those who only ask: how long a DNS answer takes and what memory stays, beside the same town in
//! peace.
//!
//! A claim of speed is nothing for `make test`: `make drill` runs this (`WHARF_DRILL`), and its table is printed. An
//! attack goes on for as long as is measured; the attackers share the machine's cores, so each rests between two blows.
#![allow(clippy::print_stdout)] // the table of what each attack cost

use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hickory_server::proto::op::{Message, MessageType, OpCode, Query};
use hickory_server::proto::rr::{Name, RecordType};
use serde_json::{Map, Value, json};

use crate::engine::container;
use crate::town::{Charter, Town};

/// Five hundred questions a second: what a busy host asks, far from what a server can take.
const PACE: Duration = Duration::from_millis(2);
/// Enough questions that the slowest hundredth is more than twenty.
const MEASURED: usize = 2_500;
/// How much slower the slowest hundredth may be.
const SLOWER: u32 = 3;
/// What a heap keeps of what it once needed.
const SLACK: u64 = 48 * 1024 * 1024;

/// What one kind of attacker does again and again; the number tells its blows apart.
type Blow = fn(&Town, usize);

fn packet(name: &str, kind: RecordType, id: u16) -> Vec<u8> {
    let mut question = Message::new(id, MessageType::Query, OpCode::Query);
    question.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    question.to_vec().unwrap()
}

fn socket(town: &Town, from: u8) -> UdpSocket {
    let socket = UdpSocket::bind((Ipv4Addr::new(127, 0, 0, from), 0)).unwrap();
    socket.connect(town.dns).unwrap();
    socket
}

/// The slowest hundredth of the answers about a neighbour; one that never comes counts for a second.
fn slowest_hundredth(town: &Town) -> Duration {
    let socket = socket(town, 2);
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut reply = [0; 4096];
    let mut took: Vec<Duration> = (0..MEASURED)
        .map(|number| {
            let question = packet("neighbour-0.services.internal.", RecordType::SRV, number as u16);
            let asked = Instant::now();
            socket.send(&question).unwrap();
            while let Ok(length) = socket.recv(&mut reply) {
                if length > 2 && reply[..2] == question[..2] {
                    break;
                }
            }
            let took = asked.elapsed();
            std::thread::sleep(PACE.saturating_sub(took));
            took
        })
        .collect();
    took.sort_unstable();
    took[MEASURED - MEASURED / 100]
}

fn costly_questions(town: &Town, _: usize) {
    let socket = socket(town, 3);
    for form in ["_tcp.".repeat(37), "*.".repeat(60), "primary.replicas.".repeat(3), "any.*.x.".repeat(10)] {
        for kind in [RecordType::SRV, RecordType::A, RecordType::NS, RecordType::ANY] {
            let _ = socket.send(&packet(&format!("____a.{form}services.internal."), kind, 7));
        }
    }
}

fn streams_of(at: SocketAddr, bytes: &[u8]) {
    let crowd: Vec<TcpStream> = (0..50).filter_map(|_| TcpStream::connect(at).ok()).collect();
    for mut stream in &crowd {
        let _ = std::io::Write::write_all(&mut stream, bytes);
    }
}

fn half_questions(town: &Town, _: usize) {
    streams_of(town.dns, &[0, 200, 1, 2, 3]);
}

fn http_crowd(town: &Town, _: usize) {
    streams_of(
        town.http,
        b"GET /sd/prometheus HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /v1/services/nobody-of-this-name HTTP/1.1\r\n",
    );
}

/// Each blow is the same few containers, started anew.
fn greedy_tenant(town: &Town, blow: usize) {
    let number = 1 + blow % 3;
    let mut facts = container(number, "greedy", 1, 1);
    facts["HostConfig"]["NetworkMode"] = "host".into();
    facts["NetworkSettings"] = json!({"Ports": {}, "Networks": {}});
    let exposed = (1..=20_000).map(|port| (format!("{port}/tcp"), json!({}))).collect::<Map<_, _>>();
    facts["Config"]["ExposedPorts"] = exposed.into();
    let labels = (0..4_000).map(|label| (format!("SERVICE_ATTR_{label}"), Value::from("value")));
    facts["Config"]["Labels"] = labels.collect::<Map<_, _>>().into();
    town.run(facts);
}

/// Keys that cannot be names, values over the bounds, and records whose hosts lead from one to the next.
fn key_writer(town: &Town, blow: usize) {
    let endpoints = town.etcd.as_ref().unwrap().endpoints();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut client = etcd_client::Client::connect(endpoints, None).await.unwrap();
        for number in 0..20 {
            let number = number + 20 * (blow % 10);
            let deep = format!("/services{}/{number}", "/a".repeat(2_000));
            let next = (number + 1) % 200;
            let record =
                format!(r#"{{"host":"x{next}.loop.services.internal","port":1,"targetstrip":{}}}"#, number % 9);
            client.put(deep, r#"{"host":"10.9.9.9","port":1}"#, None).await.unwrap();
            client.put(format!("/services/long/{number}"), "x".repeat(8_200) + ":1", None).await.unwrap();
            client.put(format!("/services/loop/x{number}"), record, None).await.unwrap();
        }
    });
}

/// One attack: prints what it cost, and says what was too much.
fn attack(town: &Town, name: &str, rest: Duration, blow: Blow) -> Option<String> {
    let (peace, before) = (slowest_hundredth(town), town.rss());
    let over = AtomicBool::new(false);
    let attacked = std::thread::scope(|threads| {
        threads.spawn(|| {
            let mut blows = 0;
            while !over.load(Ordering::Relaxed) {
                blow(town, blows);
                blows += 1;
                std::thread::sleep(rest);
            }
        });
        let attacked = slowest_hundredth(town);
        over.store(true, Ordering::Relaxed);
        attacked
    });
    town.neighbours_are_offered();
    town.beats_never_missed();
    let grown = town.rss().saturating_sub(before);
    println!("{name:<20} p99 {peace:>10.1?} in peace, {attacked:>10.1?} attacked, {:>6} KiB more", grown / 1024);
    let slow = attacked > SLOWER * peace;
    (slow || grown > SLACK).then(|| format!("{name}: {peace:?} became {attacked:?}, {grown} bytes more"))
}

#[test]
fn answers_are_as_quick_and_memory_comes_back_under_each_attack() {
    if std::env::var_os("WHARF_DRILL").is_none() {
        return;
    }
    let one_host: [(&str, u64, Blow); 4] = [
        ("costly questions", 5, costly_questions),
        ("half questions", 50, half_questions),
        ("a crowd by HTTP", 50, http_crowd),
        ("a greedy tenant", 500, greedy_tenant),
    ];
    let cluster: [(&str, u64, Blow); 1] = [("a writer of keys", 100, key_writer)];
    let mut worse = Vec::new();
    for (etcd, attacks) in [(false, &one_host[..]), (true, &cluster[..])] {
        let town = Town::found_with(&Charter { etcd, ..Charter::default() });
        worse.extend(
            attacks.iter().filter_map(|(name, rest, blow)| attack(&town, name, Duration::from_millis(*rest), *blow)),
        );
    }
    assert!(worse.is_empty(), "{worse:#?}");
}
