//! The calls that are made to the engine, through bollard, each with a deadline.
//!
//! What bollard reads becomes JSON again and what it cannot read is taken as it came, so that one tolerant reader has
//! the last word on both: one odd field must not cost a whole container or list.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use bollard::{BollardRequest, ClientVersion, Docker};
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use hyper::StatusCode;
use serde::Serialize;
use serde_json::Value;

use super::endpoint::Endpoint;
use super::events::{FILTERS, Since};
use super::link::{self, Link};

const MAX_SMALL: usize = 1024 * 1024;
const MAX_INSPECT: usize = 32 * 1024 * 1024;
const MAX_LIST: usize = 256 * 1024 * 1024;

/// Why the engine gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    /// No answer within the deadline.
    #[error("GET {0}: no answer within {1:?}")]
    Deadline(String, Duration),
    /// No connection, or it broke.
    #[error("GET {0}")]
    Broken(String, #[source] Error),
    /// Another status than a good one.
    #[error("GET {0}: {1}: {2:?}")]
    Status(String, StatusCode, String),
    /// The answer is not what it should be.
    #[error("GET {0}: {1}")]
    Unreadable(String, String),
    /// The event stream ended.
    #[error("the engine closed the event stream")]
    StreamEnded,
}

/// An engine, spoken to in one version; in none before one is negotiated.
#[derive(Clone, Debug)]
pub(super) struct Engine {
    endpoint: Endpoint,
    version: Option<ClientVersion>,
}

impl Engine {
    pub(super) fn new(endpoint: Endpoint, version: Option<ClientVersion>) -> Self {
        Self { endpoint, version }
    }

    fn client(&self, deadline: Duration, limit: Option<usize>) -> Result<(Docker, Link), Error> {
        let link = Link::default();
        let (engine, carrier) = (self.clone(), link.clone());
        let transport = move |request: BollardRequest| {
            link::carry(engine.endpoint.clone(), engine.version, limit, carrier.clone(), request)
        };
        let version = self.version.unwrap_or(*bollard::API_DEFAULT_VERSION);
        // The deadline itself is kept by whoever calls, to the millisecond.
        let seconds = deadline.as_secs().saturating_add(1);
        Ok((Docker::connect_with_custom_transport(transport, Some("http://docker"), seconds, &version)?, link))
    }

    /// One call within its deadline.
    async fn call<T, F>(
        &self,
        what: &str,
        deadline: Duration,
        limit: usize,
        work: impl FnOnce(Docker) -> F,
    ) -> Result<(Result<T, Error>, Link), EngineError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let broken = |error| EngineError::Broken(what.to_owned(), error);
        let (docker, link) = self.client(deadline, Some(limit)).map_err(broken)?;
        let answer = tokio::time::timeout(deadline, link.driving(work(docker)));
        let answer = answer.await.map_err(|_| EngineError::Deadline(what.to_owned(), deadline))?;
        Ok((refused(what, &link, answer)?, link))
    }

    /// The version that the engine names in its answer to a ping, if it names one.
    pub(super) async fn ping(&self, deadline: Duration) -> Result<Option<ClientVersion>, EngineError> {
        let what = "/_ping";
        let work = |docker: Docker| async move { docker.ping().await };
        let (answer, link) = self.call(what, deadline, MAX_SMALL, work).await?;
        answer.map_err(|error| EngineError::Broken(what.to_owned(), error))?;
        let head = link.head();
        Ok(head.and_then(|head| version(head.headers.get("api-version")?.to_str().ok()?)))
    }

    /// The version that the engine names when asked for it.
    pub(super) async fn version(&self, deadline: Duration) -> Result<ClientVersion, EngineError> {
        let what = "/version";
        let work = |docker: Docker| async move { docker.version().await };
        let (answer, _) = self.call(what, deadline, MAX_SMALL, work).await?;
        let value: Value = serde_json::from_str(&text_of(what, answer)?).unwrap_or_default();
        let unreadable = || EngineError::Unreadable(what.to_owned(), "no ApiVersion".to_owned());
        value["ApiVersion"].as_str().and_then(version).ok_or_else(unreadable)
    }

    /// What the engine says of the containers that run.
    pub(super) async fn list(&self, deadline: Duration) -> Result<String, EngineError> {
        let what = "/containers/json";
        let work = |docker: Docker| async move { docker.list_containers(None).await };
        let (answer, _) = self.call(what, deadline, MAX_LIST, work).await?;
        text_of(what, answer)
    }

    /// What the engine says of one container.
    pub(super) async fn inspect(&self, id: &str, deadline: Duration) -> Result<String, EngineError> {
        let id = percent(id);
        let what = format!("/containers/{id}/json");
        let work = |docker: Docker| async move { docker.inspect_container(&id, None).await };
        let (answer, _) = self.call(&what, deadline, MAX_INSPECT, work).await?;
        text_of(&what, answer)
    }

    /// What the engine says of one network.
    pub(super) async fn network(&self, id: &str, deadline: Duration) -> Result<String, EngineError> {
        let id = percent(id);
        let what = format!("/networks/{id}");
        let work = |docker: Docker| async move { docker.inspect_network(&id, None).await };
        let (answer, _) = self.call(&what, deadline, MAX_INSPECT, work).await?;
        text_of(&what, answer)
    }

    /// Opens the event stream; returns once the engine has answered, that is once it is subscribed.
    pub(super) async fn events(&self, since: Option<Since>, deadline: Duration) -> Result<Events, EngineError> {
        let what = "/events";
        let broken = |error| EngineError::Broken(what.to_owned(), error);
        let filters: HashMap<_, _> = FILTERS.iter().map(|(key, values)| (*key, values.to_vec())).collect();
        let mut options = EventsOptionsBuilder::default().filters(&filters);
        if let Some(since) = since {
            options = options.since(&since.to_string());
        }
        let (docker, link) = self.client(deadline, None).map_err(broken)?;
        let mut stream: BoxStream<'static, _> = docker.events(Some(options.build())).boxed();
        let opened = std::future::poll_fn(|cx| poll_open(&mut stream, &link, cx));
        let opened = tokio::time::timeout(deadline, opened).await;
        let first = match opened.map_err(|_| EngineError::Deadline(what.to_owned(), deadline))? {
            Some(item) => Some(refused(what, &link, item)?),
            None => None,
        };
        Ok(Events { stream, link, first })
    }
}

type Item = Result<EventMessage, Error>;

/// Ready once a good answer has begun, or with whatever the stream says first.
fn poll_open(
    stream: &mut (impl Stream<Item = Item> + Unpin),
    link: &Link,
    cx: &mut std::task::Context<'_>,
) -> std::task::Poll<Option<Item>> {
    if let std::task::Poll::Ready(item) = Pin::new(stream).poll_next(cx) {
        return std::task::Poll::Ready(item);
    }
    link.drive(cx);
    match link.head() {
        Some(head) if head.status.is_success() => std::task::Poll::Ready(None),
        _ => std::task::Poll::Pending,
    }
}

/// The engine's events.
pub(super) struct Events {
    stream: BoxStream<'static, Item>,
    link: Link,
    first: Option<Item>,
}

impl Events {
    /// The next event; may be dropped and asked again without losing one. After one that bollard cannot read the stream
    /// is over, since bollard drops what came with it.
    pub(super) async fn next(&mut self) -> Result<EventMessage, EngineError> {
        let what = "/events";
        let item = match self.first.take() {
            Some(item) => Some(item),
            None => self.link.driving(self.stream.next()).await,
        };
        item.ok_or(EngineError::StreamEnded)?.map_err(|error| match error {
            Error::JsonDataError { .. } | Error::JsonSerdeError { .. } => {
                EngineError::Unreadable(what.to_owned(), error.to_string())
            }
            error => EngineError::Broken(what.to_owned(), error),
        })
    }
}

/// Sorts out the answers with a bad status, whatever bollard made of their bodies.
fn refused<T>(what: &str, link: &Link, answer: Result<T, Error>) -> Result<Result<T, Error>, EngineError> {
    match (link.head(), answer) {
        (Some(head), Err(error)) if !head.status.is_success() => {
            let text = match error {
                Error::DockerResponseServerError { message, .. } => message,
                error => error.to_string(),
            };
            Err(EngineError::Status(what.to_owned(), head.status, text.chars().take(300).collect()))
        }
        (_, answer) => Ok(answer),
    }
}

/// The JSON of an answer: what bollard read, or the body as it came where bollard could not.
fn text_of<T: Serialize>(what: &str, answer: Result<T, Error>) -> Result<String, EngineError> {
    match answer {
        Ok(answer) => {
            serde_json::to_string(&answer).map_err(|error| EngineError::Unreadable(what.to_owned(), error.to_string()))
        }
        Err(Error::JsonDataError { contents, .. }) => Ok(contents),
        Err(Error::JsonSerdeError { err }) => Err(EngineError::Unreadable(what.to_owned(), err.to_string())),
        Err(error) => Err(EngineError::Broken(what.to_owned(), error)),
    }
}

fn version(text: &str) -> Option<ClientVersion> {
    let (major, minor) = text.trim().split_once('.')?;
    Some(ClientVersion { major_version: major.parse().ok()?, minor_version: minor.parse().ok()? })
}

fn percent(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use bollard::models::ContainerInspectResponse;

    use super::*;
    use crate::docker::container_of;

    fn typed(body: &str) -> Result<ContainerInspectResponse, Error> {
        serde_json::from_str(body).map_err(Error::from)
    }

    /// What went through bollard's types says the same as what the engine sent.
    #[test]
    fn bollards_types_lose_no_fact() {
        let body = r#"{"Id":"x","Name":"/n","Image":"sha256:1","State":{"Status":"running","Running":true,"Paused":false,
            "Restarting":false,"Dead":false,"Pid":77,"StartedAt":"2026-01-01T00:00:00.000000001Z","Health":{"Status":"starting"}},
            "Config":{"Image":"redis","Env":["SERVICE_NAME=a","SERVICE_TAGS=b"],"Labels":{"SERVICE_TTL":"30"},
            "ExposedPorts":{"6379/tcp":{},"53/udp":{}},"StopSignal":"SIGQUIT","StopTimeout":7},
            "HostConfig":{"NetworkMode":"container:y"},"NetworkSettings":{"Ports":{"6379/tcp":[{"HostIp":"::","HostPort":"1"},
            {"HostPort":"2"}],"53/udp":null},"Networks":{"b":{"NetworkID":"i","IPAddress":"10.0.0.1","GlobalIPv6Address":"fd00::1"}}}}"#;
        let through = text_of("", typed(body)).expect("JSON");
        let (through, plain) = (container_of(through.as_bytes()), container_of(body.as_bytes()));
        assert_eq!(through.expect("a container"), plain.expect("a container"));
    }

    #[test]
    fn what_bollard_cannot_read_is_taken_as_it_came() {
        let contents = r#"{"Id":"x","State":7}"#.to_owned();
        let answer =
            Err::<Value, _>(Error::JsonDataError { message: String::new(), contents: contents.clone(), column: 1 });
        assert_eq!(text_of("", answer).expect("the body"), contents);
    }
}
