//! `wharf resolve NAME [TYPE]`: asks the agent's DNS, as a program would.
//!
//! Names are taken as written when they end in a dot or in the domain; others lie below the domain.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_server::proto::op::{Edns, Message, Query, ResponseCode};
use hickory_server::proto::rr::{Name, Record, RecordType};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::exit::Exit;
use super::output::{self, JsonOutput};
use super::table::{Cell, Table};
use super::terminal::{Terminal, Tone};

const PATIENCE: Duration = Duration::from_secs(2);
const TRIES: usize = 3;
const BUFFER: u16 = 1232;

/// Ask this host's agent for a name by DNS
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "EXIT CODES:\n  0  there are records\n  1  there are none, or the agent refuses the name\n  2  wrong use\n  3  \
                  nothing answers\n\nEXAMPLES:\n  wharf resolve redis\n  wharf resolve primary.redis A\n  wharf resolve \
                  _memcached._tcp SRV"
)]
pub struct ResolveArgs {
    /// Name to ask for: below the domain, or in full with a dot at its end
    pub name: String,

    /// Type of the records
    #[arg(value_name = "TYPE", default_value = "SRV", value_parser = record_type)]
    pub record_type: RecordType,

    /// Address of the agent's DNS
    #[arg(long, env = "WHARF_DNS", value_name = "ADDR", value_delimiter = ',', default_value = "127.0.0.1:5300")]
    pub dns: Vec<SocketAddr>,

    /// The domain
    #[arg(long, env = "WHARF_DOMAIN", value_name = "NAME", default_value = "services.internal")]
    pub domain: String,

    /// Show it as JSON
    #[arg(short, long, value_enum)]
    pub output: Option<JsonOutput>,
}

fn record_type(text: &str) -> Result<RecordType, String> {
    let known = text.to_ascii_uppercase().parse();
    known.map_err(|_| "a record type such as SRV, A, AAAA, TXT, PTR".to_owned())
}

/// Runs the command.
pub async fn run(args: ResolveArgs, terminal: &mut Terminal) -> Exit {
    let name = match full_name(&args.name, &args.domain) {
        Ok(name) => name,
        Err(what) => {
            terminal.fail(&what, "labels of at most 63 letters, digits, - and _, with dots between");
            return Exit::Usage;
        }
    };
    let Some(server) = args.dns.first().copied().map(reachable) else {
        terminal.fail("no address of a DNS server was given", "--dns 127.0.0.1:5300");
        return Exit::Usage;
    };
    match ask(server, &name, args.record_type).await {
        Ok(answer) => show(&answer, &name, &args, terminal),
        Err(why) => {
            terminal.fail(
                &format!("no answer from DNS at {server} for {name} {}: {why}", args.record_type),
                "start the agent with `wharf agent`, or name its DNS by --dns ADDR",
            );
            Exit::Unreachable
        }
    }
}

/// The name to ask for.
fn full_name(name: &str, domain: &str) -> Result<Name, String> {
    let domain = domain.trim_end_matches('.');
    let lower = name.to_ascii_lowercase();
    let inside = lower == domain.to_ascii_lowercase() || lower.ends_with(&format!(".{}", domain.to_ascii_lowercase()));
    let text = if name.ends_with('.') {
        name.to_owned()
    } else if inside {
        format!("{name}.")
    } else {
        format!("{name}.{domain}.")
    };
    Name::from_ascii(&text).map_err(|error| format!("{name:?} is no DNS name: {error}"))
}

/// An agent that listens on every address is asked by loopback.
fn reachable(server: SocketAddr) -> SocketAddr {
    match server {
        SocketAddr::V4(four) if four.ip().is_unspecified() => SocketAddr::from(([127, 0, 0, 1], four.port())),
        SocketAddr::V6(six) if six.ip().is_unspecified() => {
            SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, six.port()))
        }
        other => other,
    }
}

/// Asks by UDP, and again by TCP when the answer does not fit.
async fn ask(server: SocketAddr, name: &Name, record_type: RecordType) -> Result<Message, String> {
    let mut question = Message::query();
    question.metadata.recursion_desired = true;
    question.add_query(Query::query(name.clone(), record_type));
    let mut edns = Edns::new();
    edns.set_max_payload(BUFFER);
    question.edns = Some(edns);
    let bytes = question.to_vec().map_err(|error| error.to_string())?;
    let mut last = format!("nothing within {} in {TRIES} tries", humantime::format_duration(PATIENCE));
    for _ in 0..TRIES {
        match timeout(PATIENCE, by_udp(server, &question, &bytes)).await {
            Ok(Ok(answer)) if answer.metadata.truncation => {
                let whole = timeout(PATIENCE, by_tcp(server, &bytes)).await;
                return whole.map_err(|_| "nothing by TCP in time".to_owned())?.map_err(|error| error.to_string());
            }
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => {}
        }
    }
    Err(last)
}

async fn by_udp(server: SocketAddr, question: &Message, bytes: &[u8]) -> std::io::Result<Message> {
    let any = if server.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0u16; 8], 0)) };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(bytes).await?;
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).await?;
        match Message::from_vec(&buffer[..length]) {
            Ok(answer) if answer.metadata.id == question.metadata.id => return Ok(answer),
            _ => {} // a late answer to an earlier question, or no DNS
        }
    }
}

async fn by_tcp(server: SocketAddr, bytes: &[u8]) -> std::io::Result<Message> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(bytes.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let length = usize::from(stream.read_u16().await?);
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).await?;
    Message::from_vec(&answer).map_err(std::io::Error::other)
}

/// One record as JSON has it.
#[derive(Debug, Serialize)]
struct Line {
    name: String,
    ttl: u32,
    #[serde(rename = "type")]
    kind: String,
    data: String,
}

impl Line {
    fn of(record: &Record) -> Self {
        Self {
            name: record.name.to_string(),
            ttl: record.ttl,
            kind: record.record_type().to_string(),
            data: record.data.to_string(),
        }
    }
}

fn show(answer: &Message, name: &Name, args: &ResolveArgs, terminal: &mut Terminal) -> Exit {
    let code = answer.metadata.response_code;
    let lines: Vec<Line> = answer.answers.iter().map(Line::of).collect();
    let glue: Vec<Line> = answer.additionals.iter().map(Line::of).collect();
    if args.output == Some(JsonOutput::Json) {
        let document =
            serde_json::json!({"name": name.to_string(), "code": code.to_str(), "answers": lines, "additional": glue});
        terminal.print(&output::json(&document));
    } else if !lines.is_empty() {
        let text = table(&lines, &glue).render(terminal);
        terminal.print(&text);
    }
    if !lines.is_empty() {
        return Exit::Done;
    }
    let (what, todo) = match code {
        ResponseCode::NoError => {
            ("exists, but has no such record", "another type, or `wharf services` for what is there")
        }
        ResponseCode::NXDomain => {
            ("does not exist", "`wharf services` for the names there are, `wharf explain` on the host that runs it")
        }
        ResponseCode::Refused => ("is refused: it lies in no zone of this agent", "a name below its --domain"),
        _ => ("could not be answered", "the agent's log"),
    };
    terminal.fail(&format!("{name} {} {what} ({})", args.record_type, code.to_str()), todo);
    if code == ResponseCode::ServFail { Exit::Unreachable } else { Exit::NotMet }
}

fn table(lines: &[Line], glue: &[Line]) -> Table {
    let mut table = Table::new(&["NAME", "TTL", "TYPE", "DATA"]);
    let mut rows = |lines: &[Line], tone: Tone| {
        for line in lines {
            let cells = [&*line.name, &line.ttl.to_string(), &line.kind, &line.data];
            table.row(cells.into_iter().map(|text| Cell::toned(text, tone)).collect());
        }
    };
    rows(lines, Tone::Normal);
    rows(glue, Tone::Dim);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lie_below_the_domain_unless_in_full() {
        for (name, full) in [
            ("redis", "redis.services.internal."),
            ("primary.redis", "primary.redis.services.internal."),
            ("redis.Services.internal", "redis.Services.internal."),
            ("services.internal", "services.internal."),
            ("rails.skydns.local.", "rails.skydns.local."),
        ] {
            assert_eq!(full_name(name, "services.internal").expect("a name").to_string(), full);
        }
        assert!(full_name(&"x".repeat(64), "services.internal").is_err());
        assert!(full_name("a..b", "services.internal").is_err());
    }
}
