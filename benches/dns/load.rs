//! Questions, as fast as they are answered or at a given rate.

use std::io::{Read as _, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use hickory_server::proto::op::{Message, ResponseCode};

use super::process::Child;

/// Microseconds of the server's CPU per question, under dnsperf.
pub(crate) fn cpu_per_query(child: &Child, port: u16, names: &[String], run: Duration) -> f64 {
    let before = child.cpu();
    let asked = dnsperf(port, names, &["-l", &run.as_secs().to_string()]);
    (child.cpu() - before).as_secs_f64() * 1e6 / asked
}

/// Asks so many questions.
pub(crate) fn questions(port: u16, names: &[String], count: usize) {
    let rounds = count.div_ceil(names.len()).to_string();
    let asked = dnsperf(port, names, &["-n", &rounds]);
    assert!(asked >= count as f64 * 0.999, "{asked} of {count} questions answered");
}

fn dnsperf(port: u16, names: &[String], args: &[&str]) -> f64 {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{}", names.join("\n")).unwrap();
    let output = Command::new("dnsperf")
        .args(["-s", "127.0.0.1", "-p", &port.to_string(), "-c", "8", "-q", "64"])
        .arg("-d")
        .arg(file.path())
        .args(args)
        .output()
        .expect("dnsperf is installed (Debian's dnsperf)");
    let text = String::from_utf8_lossy(&output.stdout);
    let completed = text.lines().find_map(|line| line.trim().strip_prefix("Queries completed:")).expect("a report");
    let completed: f64 = completed.split_whitespace().next().unwrap().parse().unwrap();
    let good = text.lines().find_map(|line| line.trim().strip_prefix("Response codes:")).unwrap_or_default();
    assert!(good.contains("NOERROR") && good.contains("100.00%"), "not every question was answered: {text}");
    completed
}

/// The 99th percentile of the time to an answer, in microseconds, at so many questions a second.
pub(crate) fn latency(port: u16, names: &[String], rate: u32, run: Duration) -> f64 {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut buffer = [0; 1_500];
    let mut times = Vec::new();
    let pace = Duration::from_secs(1) / rate;
    let begun = Instant::now();
    let mut number = 0_u32;
    while begun.elapsed() < run {
        let due = begun + pace * number;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let name = &names[number as usize % names.len()];
        let packet = packet(name.split(' ').next().unwrap(), 33);
        let sent = Instant::now();
        socket.send(&packet).unwrap();
        socket.recv(&mut buffer).expect("an answer");
        times.push(sent.elapsed().as_secs_f64() * 1e6);
        number += 1;
    }
    times.sort_by(f64::total_cmp);
    times[times.len() * 99 / 100]
}

/// One question by a stream: the answers' data, as text that tells them apart.
pub(crate) fn by_stream(port: u16, name: &str, qtype: u16) -> Vec<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let packet = packet(name, qtype);
    let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length[..], &packet].concat()).unwrap();
    let mut length = [0; 2];
    stream.read_exact(&mut length).unwrap();
    let mut reply = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut reply).unwrap();
    let message = Message::from_vec(&reply).unwrap();
    assert!(message.metadata.response_code == ResponseCode::NoError && !message.metadata.truncation);
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

/// One question.
pub(crate) fn packet(name: &str, qtype: u16) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        packet.push(u8::try_from(label.len()).unwrap());
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    packet.extend_from_slice(&qtype.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    packet
}
