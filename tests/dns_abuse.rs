//! Clients that mean no good, or know no better.
#![allow(clippy::unwrap_used)]

mod desk;

use std::sync::Arc;
use std::time::Duration;

use desk::{Desk, Setup, eventually, put, query, udp_raw};
use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::RecordType;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use wharf::store::embedded::Embedded;
use wharf::view::Progress;

const WEB: &str = "web.services.internal.";

async fn desk(setup: Setup) -> Desk {
    let store = Arc::new(Embedded::new());
    put(&*store, &[("/services/web/a", "10.0.0.1:80"), ("/services/web/b", "10.0.0.2:80")]).await;
    let desk = Desk::start(store, setup);
    eventually("read", || async { desk.view.progress() == Progress::Read }).await;
    desk
}

async fn serves(desk: &Desk) {
    assert_eq!(desk.answers(WEB, RecordType::A).await, ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(desk.tcp(WEB, RecordType::A).await.answers.len(), 2);
}

/// A value of a metric, 0 when it is not there.
fn metric(desk: &Desk, name: &str) -> u64 {
    let metrics = desk.metrics();
    let line = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.map_or(0, |value| value.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_sent_as_questions_are_not_answered() {
    let desk = desk(Setup::default()).await;
    let mut packet = query(WEB, RecordType::A).to_vec().unwrap();
    packet[2] |= 0x80;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.send_to(&packet, desk.address).await.unwrap();
    eventually("counted", || async { metric(&desk, "wharf_dns_dropped_total{reason=\"response\"}") == 1 }).await;
    let mut buffer = [0; 512];
    assert!(client.try_recv(&mut buffer).is_err());
    serves(&desk).await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_not_allowed_is_refused() {
    let desk = desk(Setup { allow: vec!["10.0.0.0/8"], ..Setup::default() }).await;
    for reply in [desk.udp(WEB, RecordType::A).await, desk.tcp(WEB, RecordType::A).await] {
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::Refused, 0));
    }
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_has_its_share_of_answers_by_udp_and_all_by_tcp() {
    let desk = desk(Setup { forward_allow: vec!["10.0.0.0/8"], rate_limit: 20, ..Setup::default() }).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(desk.address).await.unwrap();
    let packet = query(WEB, RecordType::A).to_vec().unwrap();
    let begun = std::time::Instant::now();
    for _ in 0..300 {
        client.send(&packet).await.unwrap();
    }
    let dropped = || metric(&desk, "wharf_dns_dropped_total{reason=\"rate\"}");
    eventually("some are dropped", || async { dropped() > 50 }).await;
    let (mut whole, mut truncated) = (0_u64, 0_u64);
    let mut buffer = [0; 512];
    while let Ok(Ok(length)) = tokio::time::timeout(Duration::from_millis(300), client.recv(&mut buffer)).await {
        assert!(length >= 12);
        if buffer[2] & 2 == 0 { whole += 1 } else { truncated += 1 }
    }
    // The share is counted by the second: so many began in the meantime, at most.
    let most = 20 * (begun.elapsed().as_secs() + 2);
    assert!(whole >= 20 && whole <= most, "{whole} whole answers of {most}");
    assert!(truncated > 50 && truncated + whole < 250, "{truncated} truncated");
    assert_eq!(desk.tcp(WEB, RecordType::A).await.answers.len(), 2);
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_networks_are_not_limited() {
    let desk = desk(Setup { rate_limit: 20, ..Setup::default() }).await;
    for _ in 0..200 {
        assert_eq!(desk.udp(WEB, RecordType::A).await.answers.len(), 2);
    }
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_questions_of_one_stream_are_answered_in_order() {
    let desk = desk(Setup::default()).await;
    let mut stream = TcpStream::connect(desk.address).await.unwrap();
    let mut all = Vec::new();
    for id in 0..50_u16 {
        let mut message = query(WEB, RecordType::SRV);
        message.metadata.id = id;
        let packet = message.to_vec().unwrap();
        all.extend_from_slice(&u16::try_from(packet.len()).unwrap().to_be_bytes());
        all.extend_from_slice(&packet);
    }
    stream.write_all(&all).await.unwrap();
    for id in 0..50_u16 {
        let length = stream.read_u16().await.unwrap();
        let mut reply = vec![0; usize::from(length)];
        stream.read_exact(&mut reply).await.unwrap();
        assert_eq!(u16::from_be_bytes([reply[0], reply[1]]), id);
    }
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_noise_is_an_error_or_an_end() {
    let desk = desk(Setup::default()).await;
    for length in [0_u16, 1, 11, 12, 512, 65_535] {
        let mut stream = TcpStream::connect(desk.address).await.unwrap();
        stream.write_u16(length).await.unwrap();
        let noise = vec![0x55; usize::from(length)];
        stream.write_all(&noise).await.unwrap();
        let mut reply = Vec::new();
        let _ = tokio::time::timeout(Duration::from_millis(500), stream.read_to_end(&mut reply)).await;
        assert!(reply.len() < 64, "{} bytes", reply.len());
    }
    serves(&desk).await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_stream_is_closed() {
    let desk = desk(Setup::default()).await;
    let mut stream = TcpStream::connect(desk.address).await.unwrap();
    stream.write_u16(40).await.unwrap();
    stream.write_all(&[0; 10]).await.unwrap();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(desk::PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "still open");
    serves(&desk).await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_does_not_read_costs_itself() {
    let desk = desk(Setup::default()).await;
    let stream = TcpStream::connect(desk.address).await.unwrap();
    let packet = query(WEB, RecordType::SRV).to_vec().unwrap();
    let framed = [&u16::try_from(packet.len()).unwrap().to_be_bytes()[..], &packet].concat();
    let many = framed.repeat(10_000);
    let mut sent = 0;
    while sent < 200 * many.len() {
        match stream.try_write(&many) {
            Ok(written) => sent += written,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                let writable = tokio::time::timeout(Duration::from_millis(300), stream.writable()).await;
                if writable.is_err() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    serves(&desk).await;
    eventually("it is closed", || async { metric(&desk, "wharf_dns_streams") == 0 }).await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_of_idle_streams_does_not_keep_others_out() {
    let desk = desk(Setup::default()).await;
    let mut idle = Vec::new();
    for _ in 0..600 {
        idle.push(TcpStream::connect(desk.address).await.unwrap());
    }
    eventually("bounded", || async { metric(&desk, "wharf_dns_streams_evicted_total") >= 400 }).await;
    assert!(metric(&desk, "wharf_dns_streams") <= 512);
    serves(&desk).await;
    drop(idle);
    eventually("all are gone", || async { metric(&desk, "wharf_dns_streams") == 0 }).await;
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_garbage_leaves_answers() {
    let desk = desk(Setup::default()).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for number in 0..5_000_u32 {
        let noise: Vec<u8> = (0..number % 600).map(|_| rand::random()).collect();
        let _ = client.try_send_to(&noise, desk.address);
    }
    serves(&desk).await;
    assert!(udp_raw(desk.address, &query(WEB, RecordType::A).to_vec().unwrap()).await.is_some());
    assert_eq!(metric(&desk, "wharf_dns_dropped_total{reason=\"panic\"}"), 0);
    desk.stop().await;
}

/// A question as a stream takes it.
fn framed(name: &str, kind: RecordType) -> Vec<u8> {
    let packet = query(name, kind).to_vec().unwrap();
    [&u16::try_from(packet.len()).unwrap().to_be_bytes()[..], &packet].concat()
}

/// Clients that take all that they can get, in a runtime of their own, until dropped.
struct Greedy(Option<tokio::runtime::Runtime>);

impl Greedy {
    /// So many addresses, each with so many streams, all open before they are filled with questions; half of them take
    /// no answers. What is closed is opened again.
    async fn begin(
        server: std::net::SocketAddr,
        clients: std::ops::Range<u8>,
        streams: usize,
        question: &[u8],
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let mut open = Vec::new();
        for client in clients.flat_map(|client| std::iter::repeat_n(client, streams)) {
            open.push((client, desk::stream_from(desk::another(client), server).await));
        }
        for (number, (client, mut stream)) in open.into_iter().enumerate() {
            let question = question.repeat(50);
            runtime.spawn(async move {
                loop {
                    if let Ok(stream) = stream {
                        let (mut reader, mut writer) = stream.into_split();
                        let asking = async { while writer.write_all(&question).await.is_ok() {} };
                        let taking = async {
                            let mut buffer = vec![0; 1 << 16];
                            while number % 2 == 0 && reader.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
                        };
                        tokio::join!(asking, taking);
                    }
                    stream = desk::stream_from(desk::another(client), server).await;
                }
            });
        }
        Self(Some(runtime))
    }
}

impl Drop for Greedy {
    fn drop(&mut self) {
        self.0.take().into_iter().for_each(tokio::runtime::Runtime::shutdown_background);
    }
}

/// How long a polite client waits for an answer by a new stream, and one by its own if it has one.
async fn ask_twice(desk: &Desk, own: Option<&mut TcpStream>) -> Duration {
    let begun = std::time::Instant::now();
    let mut new = desk::stream_from(desk::another(1), desk.address).await.unwrap();
    for stream in [Some(&mut new), own].into_iter().flatten() {
        assert_eq!(desk::ask(stream, &query(WEB, RecordType::A)).await.answers.len(), 2);
    }
    begun.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn greedy_clients_of_many_streams_leave_a_polite_one_its_answers() {
    let desk = desk(Setup::default()).await;
    let many: Vec<(String, String)> =
        (0..60).map(|n| (format!("/services/many/a{n}"), format!("10.0.1.{n}:80"))).collect();
    let many: Vec<(&str, &str)> = many.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    put(&*desk.store, &many).await;
    let name = "many.services.internal.";
    eventually("all are there", || async { desk.tcp(name, RecordType::A).await.answers.len() == 60 }).await;
    let usual = ask_twice(&desk, None).await;
    let _greedy = Greedy::begin(desk.address, 2..10, 100, &framed(name, RecordType::SRV)).await;
    eventually("crowded", || async { metric(&desk, "wharf_dns_streams_evicted_total") > 100 }).await;
    // Its one stream keeps its place, although it is silent for longer than others.
    let mut own = desk::stream_from(desk::another(1), desk.address).await.unwrap();
    for _ in 0..10 {
        let took = ask_twice(&desk, Some(&mut own)).await;
        assert!(took < usual + Duration::from_secs(1), "{took:?}, without the others {usual:?}");
        assert_eq!(desk.answers(WEB, RecordType::A).await, ["10.0.0.1", "10.0.0.2"]);
    }
    desk.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_network_beyond_its_share_is_told_so_with_an_opt_when_it_had_one() {
    let desk = desk(Setup { forward_allow: vec!["10.0.0.0/8"], rate_limit: 1, ..Setup::default() }).await;
    let client = desk::udp_from(desk::another(1), desk.address).await;
    let mut buffer = [0; 512];
    // 16 is BADVERS.
    for (version, rcode) in [(None, 0), (Some(0), 0), (Some(1), 16)] {
        let mut message = query(WEB, RecordType::A);
        if let Some(version) = version {
            message = desk::with_edns(message, 1232);
            message.edns.as_mut().unwrap().set_version(version);
        }
        let packet = message.to_vec().unwrap();
        // Some are answered whole, one in each second; of the others every second one is told to come by TCP.
        let cut = async {
            loop {
                client.send(&packet).await.unwrap();
                let received = tokio::time::timeout(Duration::from_millis(100), client.recv(&mut buffer)).await;
                let Ok(Ok(length)) = received else { continue };
                let reply = hickory_server::proto::op::Message::from_vec(&buffer[..length]).unwrap();
                if reply.metadata.truncation || u16::from(reply.metadata.response_code) == rcode && rcode > 0 {
                    return reply;
                }
            }
        };
        let reply = tokio::time::timeout(desk::PATIENCE, cut).await.expect("told");
        assert_eq!((u16::from(reply.metadata.response_code), reply.edns.is_some()), (rcode, version.is_some()));
        assert!(reply.edns.is_none_or(|edns| edns.version() == 0));
    }
    desk.stop().await;
}
