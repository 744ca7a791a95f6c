//! `wharf resolve NAME [TYPE]`: asks the agent's DNS, as a program would.
//!
//! Names are taken as written when they end in a dot or in the domain; others lie below the domain, and where that does
//! not exist in another zone of the agent.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_server::proto::op::{Edns, Message, Query, ResponseCode};
use hickory_server::proto::rr::{Name, Record, RecordType};
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::client::escaped;
use super::exit::Exit;
use super::output::{self, JsonOutput};
use super::place::ConnectArgs;
use super::table::{Cell, Table};
use super::terminal::{Terminal, Tone};
use crate::catalog::facade::api::{Service, hostport};
use crate::model::words::plain::plain;
use crate::model::words::record::Role;

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

    /// Address of the agent's DNS [default: 127.0.0.1:5300]
    #[arg(long, env = "WHARF_RESOLVER", value_name = "ADDR")]
    pub dns: Option<SocketAddr>,

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
    let server = args.dns.or_else(agents_own).map_or(DEFAULT, reachable);
    match ask_either(server, &args, name.clone()).await {
        Ok((name, answer)) => show(&answer, &name, &args, terminal).await,
        Err(why) => {
            terminal.fail(
                &format!("no answer from DNS at {server} for {name} {}: {why}", args.record_type),
                "start the agent with `wharf agent`, or name its DNS by --dns ADDR",
            );
            Exit::Unreachable
        }
    }
}

/// Where an agent answers when nothing else is said.
const DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5300);

/// Where the agent answers, where its environment is ours.
fn agents_own() -> Option<SocketAddr> {
    std::env::var("WHARF_DNS").ok()?.split(',').next()?.trim().parse().ok()
}

/// Asks for the name below the domain, and when that does not exist for the name as it is written: names of other zones
/// are shown in full.
async fn ask_either(server: SocketAddr, args: &ResolveArgs, name: Name) -> Result<(Name, Message), String> {
    let answer = ask(server, &name, args.record_type).await?;
    let is_unknown = answer.metadata.response_code == ResponseCode::NXDomain;
    let written = Name::from_ascii(format!("{}.", args.name)).ok().filter(|written| written.num_labels() > 1);
    if let Some(written) = written.filter(|written| is_unknown && !args.name.ends_with('.') && *written != name) {
        let other = ask(server, &written, args.record_type).await?;
        if other.metadata.response_code == ResponseCode::NoError {
            return Ok((written, other));
        }
    }
    Ok((name, answer))
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

async fn show(answer: &Message, name: &Name, args: &ResolveArgs, terminal: &mut Terminal) -> Exit {
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
    let claims = if code == ResponseCode::NoError { claims(&args.name).await } else { None };
    let claims = claims.map(|claims| format!("; {claims}")).unwrap_or_default();
    terminal.fail(&format!("{name} {} {what} ({}){claims}", args.record_type, code.to_str()), todo);
    if code == ResponseCode::ServFail { Exit::Unreachable } else { Exit::NotMet }
}

/// Why a role has no record: who claims it, as the agent on this host knows.
async fn claims(name: &str) -> Option<String> {
    let (word, service) = name.trim_end_matches('.').split_once('.')?;
    let role = Role::parse(word)?;
    let path = format!("/v1/services/{}", escaped(service));
    let service: Service = ConnectArgs::default().client_from_env().get(&path).await.ok()?;
    Some(told_of(&service, role))
}

/// Who claims a role, in words.
fn told_of(service: &Service, role: Role) -> String {
    let claiming: Vec<String> =
        service.endpoints.iter().filter(|one| one.record.role == Some(role)).map(|one| hostport(&one.record)).collect();
    let others = service.with_role(if role == Role::Primary { Role::Replica } else { Role::Primary });
    match claiming.len() {
        0 => format!("none is {role} ({} endpoints, {others} {})", service.endpoints.len(), other_of(role)),
        count => format!("{count} claim to be {role}: {}", plain(&claiming.join(", "))),
    }
}

fn other_of(role: Role) -> &'static str {
    match role {
        Role::Primary => "replicas",
        Role::Replica => "primaries",
    }
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
