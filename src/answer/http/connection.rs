//! One client's connection: who it is, how long it may take, and how it ends when the agent does.

use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

use crate::host::clients::{Guest, Impatient, Link};

/// Time to send a request's head, and time that an idle connection is kept.
const HEAD: Duration = Duration::from_secs(10);
/// Time that a client may leave what it was sent unread.
const UNREAD: Duration = Duration::from_secs(20);
/// Time that answers under way have when the agent stops.
pub(in crate::answer) const FINISH: Duration = Duration::from_secs(2);
/// The longest head of a request.
const MAX_HEAD: usize = 16 * 1024;

/// Serves a client until it leaves, is too slow, or the agent stops.
pub(in crate::answer) async fn serve(link: Link, guest: Guest, router: Router, stop: CancellationToken) {
    match link {
        Link::Tcp(stream) => {
            let _ = stream.set_nodelay(true); // an answer is one write; without it a small one waits for an ack
            serve_stream(stream, guest, router, stop).await;
        }
        Link::Unix(stream) => serve_stream(stream, guest, router, stop).await,
        Link::Inside(stream) => serve_stream(stream, guest, router, stop).await,
    }
}

async fn serve_stream<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    guest: Guest,
    router: Router,
    stop: CancellationToken,
) {
    let stream = Impatient::new(stream, guest.clone(), UNREAD);
    let service = TowerToHyperService::new(router.layer(Extension(guest)));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        // What fails here is the client's doing: it left, was too slow, or spoke no HTTP.
        _ = connection.as_mut() => return,
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    let _ = tokio::time::timeout(FINISH, connection).await;
}
