//! A small HTTP client for the local agent, over TCP or its unix socket.
//!
//! One connection per request, every wait with a deadline. Which agent is asked is decided once, by
//! [`ConnectArgs`](super::place::ConnectArgs).

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
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
use super::place::Place;
use super::terminal::Terminal;
use crate::catalog::facade::api::Refusal;
use crate::model::steer::told;

const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(10);
/// What an operation may take, as the agent has it, and a little more.
const WORK: Duration = Duration::from_secs(35);
const MAX_BODY: usize = 256 * 1024 * 1024;

/// Asks one agent.
#[derive(Clone, Debug)]
pub struct Client {
    places: Vec<Place>,
    /// The variable that names them.
    variable: Option<&'static str>,
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

/// An answer under way; its connection ends with it.
pub struct Answer {
    response: Response<Incoming>,
    place: String,
    /// Moves the bytes, and ends with the answer.
    _connection: JoinSet<hyper::Result<()>>,
}

impl Client {
    /// One that tries these places in turn.
    pub(super) fn new(places: Vec<Place>) -> Self {
        Self { places, variable: None, token: None }
    }

    /// The same client, which says that this variable names its agent.
    #[must_use]
    pub(super) fn told_by(mut self, variable: &'static str) -> Self {
        self.variable = Some(variable);
        self
    }

    /// The same client with a token for drain.
    #[must_use]
    pub fn with_token(mut self, token: Option<String>) -> Self {
        self.token = token;
        self
    }

    /// Who is asked, in words.
    pub fn place(&self) -> String {
        let places = self.places.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
        self.variable.map(|variable| format!("{places} (from {variable})")).unwrap_or(places)
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

    /// Asks for something to be done, which takes its time, and reads the JSON answer.
    pub async fn work<T: DeserializeOwned>(&self, method: Method, path: &str) -> Result<T, ClientError> {
        let answer = self.reach(method, path, Bytes::new(), WORK).await?.accepted().await?;
        let place = answer.place.clone();
        let body = answer.collect().await?;
        serde_json::from_slice(&body).map_err(|error| ClientError::Strange { place, why: error.to_string() })
    }

    /// Asks for a topology to be changed; what the agent says against it is an answer, too.
    pub async fn change(&self, method: Method, path: &str, body: Bytes) -> Result<told::Answer, ClientError> {
        let answer = self.reach(method, path, body, WORK).await?;
        let (place, status) = (answer.place.clone(), answer.response.status());
        let body = answer.collect().await?;
        let strange = |why| ClientError::Strange { place: place.clone(), why };
        let told: told::Answer = serde_json::from_slice(&body).map_err(|error| strange(error.to_string()))?;
        match &told.error {
            None if !status.is_success() => Err(strange(format!("status {}", status.as_u16()))),
            _ => Ok(told),
        }
    }

    /// Sends a body; only a refusal says anything.
    pub async fn tell(&self, method: Method, path: &str, body: Bytes) -> Result<(), ClientError> {
        self.reach(method, path, body, ANSWER).await?.accepted().await.map(|_| ())
    }

    /// Sends a request and waits for the head of its answer; a refusal is an error.
    pub async fn open(&self, method: Method, path: &str) -> Result<Answer, ClientError> {
        self.reach(method, path, Bytes::new(), ANSWER).await?.accepted().await
    }

    /// The answer of the first place that gives one.
    async fn reach(&self, method: Method, path: &str, body: Bytes, patience: Duration) -> Result<Answer, ClientError> {
        let mut failures = Vec::new();
        for place in &self.places {
            match self.ask(place, method.clone(), path, body.clone(), patience).await {
                Ok(answer) => return Ok(answer),
                Err(why) => failures.push(why),
            }
        }
        Err(ClientError::Unreachable { tried: self.place(), why: failures.join("; ") })
    }

    async fn ask(
        &self,
        place: &Place,
        method: Method,
        path: &str,
        body: Bytes,
        patience: Duration,
    ) -> Result<Answer, String> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, place.host());
        request = request.header(ACCEPT, "application/json, text/event-stream");
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::new(body)).map_err(|error| error.to_string())?;
        let late = |what: &str, limit: Duration| format!("{what} within {}", humantime::format_duration(limit));
        match place {
            Place::Tcp(address) => {
                let stream = timeout(CONNECT, TcpStream::connect(address)).await;
                let stream = stream.map_err(|_| late("no connection", CONNECT))?.map_err(|error| error.to_string())?;
                timeout(patience, exchange(stream, request, place)).await.map_err(|_| late("no answer", patience))?
            }
            Place::Unix(path) => {
                let stream = timeout(CONNECT, UnixStream::connect(path)).await;
                let stream = stream.map_err(|_| late("no connection", CONNECT))?.map_err(|error| error.to_string())?;
                timeout(patience, exchange(stream, request, place)).await.map_err(|_| late("no answer", patience))?
            }
        }
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>, place: &Place) -> Result<Answer, String>
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
