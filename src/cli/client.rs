//! A small HTTP client for the local agent, over TCP or its unix socket.
//!
//! One connection per request, every wait with a deadline. Which agent is asked is decided once, by [`ConnectArgs`]: flags
//! before the environment, a socket before an address.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::exit::Exit;
use super::terminal::Terminal;
use crate::model::api::Refusal;

/// Where an agent listens when nothing else is said.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:5380";
const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(10);
const MAX_BODY: usize = 256 * 1024 * 1024;

/// Which agent to ask.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConnectArgs {
    /// Agent to ask, by address [env: WHARF_HTTP] [default: 127.0.0.1:5380]
    #[arg(long = "http", value_name = "ADDR", help_heading = "Agent")]
    pub address: Option<String>,

    /// Agent to ask, by its unix socket [env: WHARF_HTTP_SOCKET]
    #[arg(long = "http-socket", value_name = "PATH", help_heading = "Agent")]
    pub socket: Option<PathBuf>,
}

/// One way to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Tcp(String),
    Unix(PathBuf),
}

/// Asks one agent.
#[derive(Clone, Debug)]
pub struct Client {
    places: Vec<Place>,
    token: Option<String>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody answers there.
    #[error("no agent answers at {tried}: {why}")]
    Unreachable {
        /// Every place tried.
        tried: String,
        /// What happened.
        why: String,
    },
    /// The agent says no.
    #[error("{}", .refusal.error)]
    Refused {
        /// HTTP's status.
        status: u16,
        /// What it said.
        refusal: Refusal,
    },
    /// What answers is no agent.
    #[error("what answers at {place} is no wharf agent: {why}")]
    Strange {
        /// Who was asked.
        place: String,
        /// What was odd.
        why: String,
    },
}

impl ClientError {
    /// How a command ends that met this.
    pub fn exit(&self) -> Exit {
        match self {
            Self::Refused { status: 400..=499, .. } => Exit::NotMet,
            Self::Refused { .. } | Self::Unreachable { .. } | Self::Strange { .. } => Exit::Unreachable,
        }
    }

    /// Tells it, with what to do.
    pub fn report(&self, terminal: &mut Terminal) -> Exit {
        let todo = match self {
            Self::Refused { refusal, .. } => refusal.hint.as_str(),
            Self::Unreachable { .. } => "start it with `wharf agent`, or name another one by --http ADDR",
            Self::Strange { .. } => "name the agent by --http ADDR",
        };
        terminal.fail(&self.to_string(), todo);
        self.exit()
    }
}

impl ConnectArgs {
    /// The client for this agent; `environment` looks a variable up.
    pub fn client(&self, environment: impl Fn(&str) -> Option<String>) -> Client {
        let given = |name: &str| environment(name).filter(|value| !value.is_empty());
        let places = match (&self.socket, &self.address) {
            (Some(socket), _) => vec![Place::Unix(socket.clone())],
            (None, Some(address)) => vec![Place::of(address)],
            (None, None) => {
                let socket = given("WHARF_HTTP_SOCKET").map(|path| Place::Unix(path.into()));
                let address = given("WHARF_HTTP").map_or_else(|| Place::of(DEFAULT_ADDRESS), |text| Place::of(&text));
                socket.into_iter().chain([address]).collect()
            }
        };
        Client { places, token: None }
    }

    /// The client for this agent, by the process's own environment.
    pub fn client_from_env(&self) -> Client {
        self.client(|name| std::env::var(name).ok())
    }
}

impl Place {
    /// Reads an address as the agent's own `--http` takes it, a URL, or `unix:PATH`.
    fn of(text: &str) -> Self {
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
            return Self::Unix(path.into());
        }
        let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let text = if text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            text.to_owned()
        } else {
            format!("{text}:5380")
        };
        // An agent that listens on every address is asked by loopback, so that it knows us for this host.
        let text = text.strip_prefix("0.0.0.0:").map(|port| format!("127.0.0.1:{port}")).unwrap_or(text);
        Self::Tcp(text.strip_prefix("[::]:").map(|port| format!("[::1]:{port}")).unwrap_or(text))
    }

    fn host(&self) -> &str {
        match self {
            Self::Tcp(address) => address,
            Self::Unix(_) => "localhost",
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "{}", Path::display(path)),
        }
    }
}

/// An answer under way; its connection ends with it.
pub struct Answer {
    response: Response<Incoming>,
    place: String,
    /// Moves the bytes, and ends with the answer.
    _connection: JoinSet<hyper::Result<()>>,
}

impl Client {
    /// The same client with a token for drain.
    #[must_use]
    pub fn with_token(mut self, token: Option<String>) -> Self {
        self.token = token;
        self
    }

    /// Who is asked, in words.
    pub fn place(&self) -> String {
        self.places.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
    }

    /// Gets one JSON document.
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.call(Method::GET, path).await
    }

    /// Calls a method without a body and reads the JSON answer.
    pub async fn call<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, ClientError> {
        let answer = self.open(method, path).await?;
        let place = answer.place.clone();
        let body = answer.collect().await?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Strange { place, why: error.to_string() })
    }

    /// Sends a request and waits for the head of its answer; a refusal is an error.
    pub async fn open(&self, method: Method, path: &str) -> Result<Answer, ClientError> {
        let mut failures = Vec::new();
        for place in &self.places {
            match self.ask(place, method.clone(), path).await {
                Ok(answer) => return answer.accepted().await,
                Err(why) => failures.push(why),
            }
        }
        Err(ClientError::Unreachable { tried: self.place(), why: failures.join("; ") })
    }

    async fn ask(&self, place: &Place, method: Method, path: &str) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, place.host());
        request = request.header(ACCEPT, "application/json, text/event-stream");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        let late = |what: &str, limit: Duration| format!("{what} within {}", humantime::format_duration(limit));
        match place {
            Place::Tcp(address) => {
                let stream = timeout(CONNECT, TcpStream::connect(address)).await;
                let stream = stream.map_err(|_| late("no connection", CONNECT))?.map_err(|error| error.to_string())?;
                timeout(ANSWER, exchange(stream, request, place)).await.map_err(|_| late("no answer", ANSWER))?
            }
            Place::Unix(path) => {
                let stream = timeout(CONNECT, UnixStream::connect(path)).await;
                let stream = stream.map_err(|_| late("no connection", CONNECT))?.map_err(|error| error.to_string())?;
                timeout(ANSWER, exchange(stream, request, place)).await.map_err(|_| late("no answer", ANSWER))?
            }
        }
    }
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>, place: &Place) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let mut connections = JoinSet::new();
    connections.spawn(connection);
    let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
    Ok(Answer { response, place: place.to_string(), _connection: connections })
}

impl Answer {
    /// The answer, or what the agent said against it.
    async fn accepted(self) -> Result<Self, ClientError> {
        let status = self.response.status();
        if status.is_success() {
            return Ok(self);
        }
        let place = self.place.clone();
        let body = self.collect().await?;
        match serde_json::from_slice::<Refusal>(&body) {
            Ok(refusal) if !refusal.error.is_empty() => Err(ClientError::Refused { status: status.as_u16(), refusal }),
            _ => Err(ClientError::Strange { place, why: format!("status {}", status.as_u16()) }),
        }
    }

    /// The whole body.
    async fn collect(self) -> Result<Bytes, ClientError> {
        let Self { response, place, _connection } = self;
        let expected =
            response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
        if !expected && response.status() == StatusCode::OK {
            return Err(ClientError::Strange { place, why: "its answer is no JSON".to_owned() });
        }
        let body = timeout(ANSWER, Limited::new(response.into_body(), MAX_BODY).collect()).await;
        match body {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) => {
                Err(ClientError::Unreachable { tried: place, why: format!("the answer broke off: {error}") })
            }
            Err(_) => Err(ClientError::Unreachable { tried: place, why: "the answer stopped half way".to_owned() }),
        }
    }

    /// The next piece of a body that goes on; `None` at its end.
    pub async fn piece(&mut self) -> Option<Bytes> {
        loop {
            let frame = self.response.body_mut().frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                return Some(data);
            }
        }
    }
}

/// Escapes what a path segment or a query value may not hold.
pub fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(address: Option<&str>, socket: Option<&str>, environment: &[(&str, &str)]) -> String {
        let args = ConnectArgs { address: address.map(Into::into), socket: socket.map(Into::into) };
        let look = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        args.client(look).place()
    }

    #[test]
    fn flags_win_over_the_environment_and_sockets_over_addresses() {
        let environment = [("WHARF_HTTP", "10.0.0.1:80"), ("WHARF_HTTP_SOCKET", "/run/wharf/http.sock")];
        assert_eq!(places(None, None, &[]), "127.0.0.1:5380");
        assert_eq!(places(Some("10.0.0.2:99"), None, &environment), "10.0.0.2:99");
        assert_eq!(places(None, Some("/x.sock"), &environment), "/x.sock");
        assert_eq!(places(None, None, &environment), "/run/wharf/http.sock or 10.0.0.1:80");
        assert_eq!(places(None, None, &[("WHARF_HTTP", "")]), "127.0.0.1:5380");
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (written, meant) in [
            ("core-01", "core-01:5380"),
            ("http://core-01:80/", "core-01:80"),
            ("0.0.0.0:5380", "127.0.0.1:5380"),
            ("[::]:5380", "[::1]:5380"),
            ("[::1]", "[::1]:5380"),
            ("unix:/run/x", "/run/x"),
        ] {
            assert_eq!(places(Some(written), None, &[]), meant);
        }
    }
}
