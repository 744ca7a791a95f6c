//! What carries bollard's calls: a connection per call, driven by whoever waits for its answer.
//!
//! bollard's own transports say nothing of an answer before its first piece, and send no version with a path. The watch
//! needs both: it lists only once the subscription stands, and asks in the version that was negotiated. A connection
//! per call keeps a hanging answer from holding up another one, and lets each be bounded. Nothing is spawned.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bollard::errors::Error;
use bollard::{BollardRequest, ClientVersion};
use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use super::endpoint::Endpoint;

/// The head of an answer.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
}

type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One call's connection once its answer has begun.
#[derive(Clone, Default)]
pub(super) struct Link(Arc<Mutex<Begun>>);

#[derive(Default)]
struct Begun {
    head: Option<Head>,
    driver: Option<Driver>,
}

impl Link {
    /// The answer's head, once it has come.
    pub(super) fn head(&self) -> Option<Head> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).head.clone()
    }

    fn begin(&self, head: Head, driver: Driver) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Begun { head: Some(head), driver: Some(driver) };
    }

    /// Lets the connection move on; how it ended is told by the answer's body.
    pub(super) fn drive(&self, cx: &mut Context<'_>) {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if begun.driver.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready()) {
            begun.driver = None;
        }
    }

    /// Waits for `work` while the connection is kept moving.
    pub(super) async fn driving<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        std::future::poll_fn(|cx| {
            let done = work.as_mut().poll(cx);
            if done.is_pending() {
                self.drive(cx);
            }
            done
        })
        .await
    }
}

/// Carries one request: GET alone is let through, in `version` if there is one, for an answer of at most `limit` bytes.
pub(super) async fn carry(
    endpoint: Endpoint,
    version: Option<ClientVersion>,
    limit: Option<usize>,
    link: Link,
    request: BollardRequest,
) -> Result<Response<Incoming>, Error> {
    if request.method() != Method::GET {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "only GET is ever asked").into());
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let path = match version.map(|version| format!("/v{version}")) {
        Some(version) if !path.starts_with(&format!("{version}/")) => format!("{version}{path}"),
        _ => path.to_owned(),
    };
    let plain = Request::get(path)
        .header("host", "docker")
        .header("user-agent", concat!("wharf/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())?;
    let stream = connect(&endpoint, limit).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let mut driver: Option<Driver> = Some(Box::pin(async move {
        let _ = connection.await;
    }));
    let answer = sender.send_request(plain);
    tokio::pin!(answer);
    let response = std::future::poll_fn(|cx| {
        if driver.as_mut().is_some_and(|driver| driver.as_mut().poll(cx).is_ready()) {
            driver = None;
        }
        answer.as_mut().poll(cx)
    })
    .await?;
    let head = Head { status: response.status(), headers: response.headers().clone() };
    link.begin(head, driver.unwrap_or_else(|| Box::pin(std::future::ready(()))));
    Ok(response)
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(endpoint: &Endpoint, limit: Option<usize>) -> io::Result<Bounded> {
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("connecting to {endpoint}: {error}"));
    let stream: Box<dyn Stream> = match endpoint {
        Endpoint::Unix(path) => Box::new(UnixStream::connect(path).await.map_err(failed)?),
        Endpoint::Tcp(address) => Box::new(TcpStream::connect(address.as_str()).await.map_err(failed)?),
    };
    Ok(Bounded { stream, left: limit })
}

/// A connection that breaks when more comes than anything sensible.
struct Bounded {
    stream: Box<dyn Stream>,
    left: Option<usize>,
}

impl AsyncRead for Bounded {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if let (Poll::Ready(Ok(())), Some(left)) = (&read, self.left) {
            match left.checked_sub(buffer.filled().len() - before) {
                Some(left) => self.left = Some(left),
                None => return Poll::Ready(Err(io::Error::other("the answer is too large"))),
            }
        }
        read
    }
}

impl AsyncWrite for Bounded {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
