//! Questions that come in streams: bounded in number, in time and in what one client may have of both.
//!
//! hickory frames the messages and times the silence; which streams are open, and which is answered next, is decided by
//! [`Places`], as hickory's own server takes any number of them. Questions of one stream are answered one after the
//! other.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use hickory_server::net::DnsStreamHandle;
use hickory_server::net::tcp::TcpStream as Messages;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::SerialMessage;
use hickory_server::server::TimeoutStream;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::task::{JoinSet, unconstrained};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::closing::Closing;
use super::packet::{self, Handled};
use super::places::{Places, Taken};
use super::serving::Serving;
use crate::model::words::plain::plain;

/// A stream from which no whole question comes for so long, or that does not take its answer, is closed.
const SILENT: Duration = Duration::from_secs(6);
/// Bytes that the kernel takes of answers which a client does not: without a bound, megabytes.
const UNSENT: usize = 1 << 16;
/// Answers of one stream that wait to be taken: its next question is read when they are.
const UNTAKEN: usize = 1;
/// What is left open when the server stops gets so long.
const DRAIN: Duration = Duration::from_secs(1);
/// After a failed accept, such as for want of file descriptors.
const BREATH: Duration = Duration::from_millis(50);
/// Streams accepted before those that are open go on: a few dozen only, and who comes behind a crowd would wait for as
/// many rounds of answers as the crowd has dozens.
const AT_ONCE: usize = 1_024;

/// Accepts streams of one listener and answers them.
pub(super) struct Streams {
    serving: Arc<Serving>,
    listener: tokio::net::TcpListener,
    places: Arc<Places>,
}

impl Streams {
    pub(super) fn new(serving: Arc<Serving>, listener: TcpListener, places: Arc<Places>) -> io::Result<Self> {
        Ok(Self { serving, listener: tokio::net::TcpListener::from_std(listener)?, places })
    }

    /// Accepts and answers until told to stop, then lets answers under way end.
    pub(super) async fn run(self, stop: CancellationToken) {
        let mut open = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = self.listener.accept() => match accepted {
                    Ok(first) => self.take_in(&mut open, first, &stop),
                    Err(error) => {
                        tracing::debug!(%error, "stream not accepted");
                        tokio::time::sleep(BREATH).await;
                    }
                },
                Some(_) = open.join_next() => {}
            }
            while open.try_join_next().is_some() {}
        }
        let drained = async { while open.join_next().await.is_some() {} };
        let _ = timeout(DRAIN, drained).await;
    }

    /// Begins with one and with those who wait behind it. What fails is told by the next accept.
    fn take_in(&self, open: &mut JoinSet<()>, first: (TcpStream, SocketAddr), stop: &CancellationToken) {
        let next = || unconstrained(self.listener.accept()).now_or_never()?.ok();
        for (stream, client) in std::iter::once(first).chain(std::iter::from_fn(next)).take(AT_ONCE) {
            self.begin(open, stream, client, stop);
        }
    }

    fn begin(&self, open: &mut JoinSet<()>, stream: TcpStream, client: SocketAddr, stop: &CancellationToken) {
        let taken = self.places.take(client);
        let (serving, stop) = (self.serving.clone(), stop.clone());
        open.spawn(async move {
            let leave = taken.leave();
            tokio::select! {
                () = leave.cancelled() => {}
                ended = converse(&serving, stream, client, &taken, stop) => {
                    if let Err(error) = ended {
                        tracing::debug!(error = %plain(&error.to_string()), %client, "stream ended");
                    }
                }
            }
        });
    }
}

/// Answers the questions of one stream until it ends, is silent, or slow.
async fn converse(
    serving: &Arc<Serving>,
    stream: TcpStream,
    client: SocketAddr,
    taken: &Taken,
    stop: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_send_buffer_size(UNSENT)?;
    let (messages, mut replies) = Messages::from_stream_with_buffer_size(Closing::new(stream, stop), client, UNTAKEN);
    let mut messages = TimeoutStream::new(messages, SILENT);
    while let Some(message) = messages.next().await {
        let (question, _) = message?.into_parts();
        taken.moved();
        let Some(reply) = answer(serving, question, client, taken).await.reply else { return Ok(()) };
        replies.send(SerialMessage::new(reply, client))?;
        // Others of this runtime go on between two questions, however many wait in the stream.
        tokio::task::yield_now().await;
    }
    Ok(())
}

/// Answers when it is this stream's turn. What is waited for elsewhere takes no turn.
async fn answer(serving: &Arc<Serving>, question: Vec<u8>, client: SocketAddr, taken: &Taken) -> Handled {
    let mut handling = Box::pin(packet::handle(serving.clone(), question, client, Protocol::Tcp));
    let turn = taken.turn().await;
    let handled = (&mut handling).now_or_never();
    drop(turn);
    match handled {
        Some(handled) => handled,
        None => handling.await,
    }
}
