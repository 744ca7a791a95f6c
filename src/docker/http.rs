//! GET requests to the engine, each on a connection of its own and with a deadline.
//!
//! A connection per request keeps a hanging answer from holding up another one. Nothing is spawned: the connection is
//! driven by whoever waits for its answer.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::{Fuse, FusedFuture};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::endpoint::Endpoint;

/// Why the engine gave no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum EngineError {
    /// No connection.
    #[error("connecting to {0}")]
    Connect(Endpoint, #[source] std::io::Error),
    /// No answer within the deadline.
    #[error("GET {0}: no answer within {1:?}")]
    Deadline(String, Duration),
    /// The connection broke.
    #[error("GET {0}")]
    Broken(String, #[source] hyper::Error),
    /// An answer larger than anything sensible.
    #[error("GET {0}: an answer of more than {1} bytes")]
    TooLarge(String, usize),
    /// Another status than 200.
    #[error("GET {0}: {1}: {2:?}")]
    Status(String, StatusCode, String),
    /// The answer is not what it should be.
    #[error("GET {0}: {1}")]
    Unreadable(String, String),
    /// The event stream ended.
    #[error("the engine closed the event stream")]
    StreamEnded,
}

/// A whole answer.
pub(super) struct Answer {
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

type Driver = Fuse<Pin<Box<dyn Future<Output = ()> + Send>>>;

async fn connect(endpoint: &Endpoint) -> Result<Box<dyn Stream>, EngineError> {
    let failed = |error| EngineError::Connect(endpoint.clone(), error);
    match endpoint {
        Endpoint::Unix(path) => Ok(Box::new(UnixStream::connect(path).await.map_err(failed)?)),
        Endpoint::Tcp(address) => Ok(Box::new(TcpStream::connect(address.as_str()).await.map_err(failed)?)),
    }
}

/// Sends the request and waits for the answer's head; the driver must be polled for the body to come.
async fn send(endpoint: &Endpoint, path: &str) -> Result<(hyper::Response<Incoming>, Driver), EngineError> {
    let broken = |error| EngineError::Broken(path.to_owned(), error);
    let stream = connect(endpoint).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    let connection: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
        // How it ended is told by the answer's body.
        let _ = connection.await;
    });
    let mut driver = connection.fuse();
    let request = Request::get(path)
        .header("host", "docker")
        .header("user-agent", concat!("wharf/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|error| EngineError::Unreadable(path.to_owned(), error.to_string()))?;
    let response = drive(&mut driver, sender.send_request(request)).await.map_err(broken)?;
    Ok((response, driver))
}

/// Waits for `work` while the connection is kept moving.
async fn drive<T>(driver: &mut Driver, work: impl Future<Output = T>) -> T {
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = &mut *driver, if !driver.is_terminated() => {}
        }
    }
}

/// One GET, whole, within `deadline`.
pub(super) async fn get(
    endpoint: &Endpoint,
    path: &str,
    deadline: Duration,
    limit: usize,
) -> Result<Answer, EngineError> {
    let work = async {
        let (response, mut driver) = send(endpoint, path).await?;
        let (head, mut body) = response.into_parts();
        let body = drive(&mut driver, collect(&mut body, path, limit)).await?;
        if head.status != StatusCode::OK {
            let text: String = String::from_utf8_lossy(&body).chars().take(300).collect();
            return Err(EngineError::Status(path.to_owned(), head.status, text));
        }
        Ok(Answer { headers: head.headers, body })
    };
    let late = |_| EngineError::Deadline(path.to_owned(), deadline);
    tokio::time::timeout(deadline, work).await.map_err(late)?
}

async fn collect(body: &mut Incoming, path: &str, limit: usize) -> Result<Bytes, EngineError> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| EngineError::Broken(path.to_owned(), error))?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > limit {
                return Err(EngineError::TooLarge(path.to_owned(), limit));
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(bytes.freeze())
}

/// A body that comes piece by piece.
pub(super) struct Pieces {
    body: Incoming,
    driver: Driver,
    path: String,
}

/// Opens a stream; returns once the engine has answered, that is once it is subscribed.
pub(super) async fn stream(endpoint: &Endpoint, path: &str, deadline: Duration) -> Result<Pieces, EngineError> {
    let work = async {
        let (response, mut driver) = send(endpoint, path).await?;
        let status = response.status();
        let mut body = response.into_body();
        if status != StatusCode::OK {
            let text = drive(&mut driver, collect(&mut body, path, 64 * 1024)).await.unwrap_or_default();
            let text: String = String::from_utf8_lossy(&text).chars().take(300).collect();
            return Err(EngineError::Status(path.to_owned(), status, text));
        }
        Ok(Pieces { body, driver, path: path.to_owned() })
    };
    let late = |_| EngineError::Deadline(path.to_owned(), deadline);
    tokio::time::timeout(deadline, work).await.map_err(late)?
}

impl Pieces {
    /// The next piece; may be dropped and asked again without losing one.
    pub(super) async fn next(&mut self) -> Result<Bytes, EngineError> {
        loop {
            let frame = drive(&mut self.driver, self.body.frame()).await.ok_or(EngineError::StreamEnded)?;
            let frame = frame.map_err(|error| EngineError::Broken(self.path.clone(), error))?;
            if let Ok(data) = frame.into_data() {
                return Ok(data);
            }
        }
    }
}
