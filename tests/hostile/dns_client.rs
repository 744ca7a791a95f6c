//! Whoever may ask DNS, and asks for more than is theirs: by datagrams and streams, many, slow, greedy, garbled.
//!
//! The attackers have addresses of loopback of their own; the neighbours are asked for from 127.0.0.1.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use hickory_server::proto::op::{Message, MessageType, OpCode, Query};
use hickory_server::proto::rr::{Name, RecordType};

use crate::town::{Charter, FAIR, Town};

/// How long an attack goes on before the neighbours are looked at, measured in what it did.
const WARM: u64 = 200;
/// An attacker rests so many times as long as it took for a blow: elsewhere it would not take this machine's
/// cores.
const REST: u32 = 4;

fn question(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.to_vec().unwrap()
}

fn framed(packet: &[u8]) -> Vec<u8> {
    [&u16::try_from(packet.len()).unwrap().to_be_bytes()[..], packet].concat()
}

/// An address of loopback that is an attacker's own.
fn attacker(number: usize) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, u8::try_from(2 + number % 200).unwrap()).into()
}

fn datagrams(number: usize, server: SocketAddr) -> UdpSocket {
    let socket = UdpSocket::bind((attacker(number), 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    socket.connect(server).unwrap();
    socket
}

fn stream(number: usize, server: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(attacker(number), 0).into())?;
    socket.connect_timeout(&server.into(), Duration::from_secs(2))?;
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_millis(100)))?;
    stream.set_write_timeout(Some(Duration::from_millis(100)))?;
    Ok(stream)
}

/// Attackers at work until dropped.
struct Attack {
    over: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Attack {
    /// So many threads, each doing this again and again with a rest; returns when it is well under way.
    fn begin(threads: usize, act: impl Fn(usize) + Clone + Send + 'static) -> Self {
        let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let work = |thread: usize| {
            let (act, over, done) = (act.clone(), over.clone(), done.clone());
            std::thread::spawn(move || {
                let mut number = thread;
                while !over.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    act(number);
                    std::thread::sleep(REST * begun.elapsed());
                    number += threads;
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        };
        let threads = (0..threads).map(work).collect();
        let attack = Self { over, done, threads };
        let begun = Instant::now();
        while attack.done.load(Ordering::Relaxed) < WARM && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(5));
        }
        attack
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| _ = thread.join());
    }
}

/// The longest that a polite client waits for an answer by a new stream.
fn polite_by_stream(town: &Town) -> Duration {
    let packet = framed(&question("neighbour-0.services.internal.", RecordType::SRV));
    let ask = |_| {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(town.dns).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        stream.write_all(&packet).unwrap();
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        begun.elapsed()
    };
    (0..5).map(ask).max().unwrap()
}

/// A town, and how long a polite client waits there in peace.
fn found_with(charter: &Charter<'_>) -> (Town, Duration) {
    let town = Town::found_with(charter);
    let usual = polite_by_stream(&town);
    (town, usual)
}

/// While it is attacked and afterwards.
#[track_caller]
fn nobody_notices_while(attack: Attack, town: &Town, usual: Duration) {
    nobody_notices(town, usual);
    drop(attack);
    nobody_notices(town, usual);
}

#[track_caller]
fn nobody_notices(town: &Town, usual: Duration) {
    let first = polite_by_stream(town);
    town.neighbours_are_offered();
    let took = first.max(polite_by_stream(town));
    assert!(took <= usual + FAIR, "answered after {took:?}, in peace {usual:?}\n{}", town.said());
    town.beats_never_missed();
    assert!(town.metric("wharf_dns_dropped_total{reason=\"panic\"}") < 1.0, "{}", town.said());
}

#[test]
fn many_idle_half_and_slow_streams() {
    let (town, usual) = found_with(&Charter::default());
    let server = town.dns;
    let mut open = Vec::new();
    for number in 0..1_500 {
        let Ok(mut stream) = stream(number, server) else { continue };
        let begins: &[u8] = [&[][..], &[0], &[0, 40, 1, 2, 3], &[255, 255, 0]][number % 4];
        let _ = stream.write_all(begins);
        open.push(stream);
    }
    nobody_notices(&town, usual);
    let attack = Attack::begin(4, move |number| {
        // A byte now and then keeps no place.
        let Ok(mut stream) = stream(number, server) else { return };
        framed(&question("web.services.internal.", RecordType::A))
            .iter()
            .all(|byte| stream.write_all(&[*byte]).is_ok());
    });
    nobody_notices_while(attack, &town, usual);
}

#[test]
fn greedy_pipelines_of_many_addresses_that_take_no_answers() {
    let (town, usual) = found_with(&Charter::default());
    let server = town.dns;
    // More answers than the kernel takes for one that reads none; what each costs is another test's matter.
    let all = framed(&question("neighbour-0.services.internal.", RecordType::SRV)).repeat(2_000);
    let attack = Attack::begin(8, move |number| {
        let Ok(mut stream) = stream(number, server) else { return };
        let _ = stream.write_all(&all);
        if number % 2 == 0 {
            let _ = stream.read(&mut [0; 4_096]);
        }
    });
    nobody_notices_while(attack, &town, usual);
}

#[test]
fn costly_forms_by_both_transports() {
    let (town, usual) = found_with(&Charter::default());
    let server = town.dns;
    let names = [
        format!("____a{}.services.internal.", "._tcp".repeat(37)),
        format!("{}services.internal.", "*.".repeat(100)),
        format!("{}neighbour-0.services.internal.", "any.".repeat(50)),
        format!("{}services.internal.", "primary.replicas.".repeat(10)),
        "_any._tcp.*.services.internal.".to_owned(),
        "services.internal.".to_owned(),
    ];
    let kinds = [RecordType::SRV, RecordType::A, RecordType::NS, RecordType::ANY, RecordType::MX, RecordType::TXT];
    let packets: Vec<Vec<u8>> =
        names.iter().flat_map(|name| kinds.iter().map(move |kind| question(name, *kind))).collect();
    let attack = Attack::begin(4, move |number| {
        let packet = &packets[number % packets.len()];
        let socket = datagrams(number, server);
        (0..8).for_each(|_| _ = socket.send(packet));
        if let Ok(mut stream) = stream(number, server) {
            let _ = stream.write_all(&framed(packet));
        }
    });
    nobody_notices_while(attack, &town, usual);
}

#[test]
fn garbage_by_both_transports() {
    let (town, usual) = found_with(&Charter::default());
    let server = town.dns;
    let whole = question("neighbour-0.services.internal.", RecordType::SRV);
    let attack = Attack::begin(4, move |number| {
        let socket = datagrams(number, server);
        let noise: Vec<u8> = (0..number % 700).map(|_| rand::random()).collect();
        let mut spoiled = whole.clone();
        spoiled[number % whole.len()] ^= rand::random::<u8>();
        for packet in [&[][..], &noise, &spoiled, &whole[..number % whole.len()]] {
            let _ = socket.send(packet);
        }
        if let Ok(mut stream) = stream(number, server) {
            let mut parts = [framed(&[]), framed(&spoiled), framed(&whole), noise, vec![255; 4_096]];
            // What cannot be read ends a stream: each comes first in some.
            parts.rotate_left(number % 5);
            let _ = stream.write_all(&parts.concat());
        }
    });
    nobody_notices_while(attack, &town, usual);
}

#[test]
fn floods_of_foreign_names_that_nobody_answers() {
    // An upstream that takes every question and says nothing, and clients that are trusted.
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let flags = vec!["--forward".to_owned(), silent.local_addr().unwrap().to_string()];
    let (town, usual) = found_with(&Charter { flags, ..Charter::default() });
    let server = town.dns;
    let attack = Attack::begin(4, move |number| {
        let socket = datagrams(number, server);
        for _ in 0..50 {
            let name = format!("{}.example.org.", rand::random::<u64>());
            let _ = socket.send(&question(&name, RecordType::A));
        }
    });
    nobody_notices_while(attack, &town, usual);
    assert!(town.metric("wharf_dns_forward_waiting") <= 1_024.0);
}

#[test]
fn replies_that_are_remembered_stay_few() {
    let (town, usual) = found_with(&Charter::default());
    let (server, before) = (town.dns, town.rss());
    let attack = Attack::begin(4, move |number| {
        let socket = datagrams(number, server);
        for more in 0..100 {
            let (size, any) = (512 + (number * 100 + more) % 720, (number + more) % 4);
            let name = [
                "*.services.internal.",
                "any.services.internal.",
                "*.neighbour-0.services.internal.",
                "any.neighbour-0.services.internal.",
            ][any];
            let mut packet =
                question(name, [RecordType::A, RecordType::SRV, RecordType::AAAA, RecordType::TXT][more % 4]);
            packet[11] = 1;
            packet.extend_from_slice(&[0, 0, 41]);
            packet.extend_from_slice(&u16::try_from(size).unwrap().to_be_bytes());
            packet.extend_from_slice(&[0; 6]);
            let _ = socket.send(&packet);
        }
    });
    nobody_notices_while(attack, &town, usual);
    assert!(town.metric("wharf_dns_ready_bytes") <= f64::from(8 << 20));
    assert!(town.rss() <= before + (40 << 20), "{} MB more", (town.rss() - before) >> 20);
}
