//! One client's connection: its commands one after the other, each within its time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::certificate::Certificate;
use super::desk::Told;
use super::metrics::OfTable;
use crate::catalog::facade::autodiscovery::{Discovery, LONGEST, Talk, Turn};
use crate::host::clients::{Guest, Impatient, Link};
use crate::view::CatalogView;

/// Time for the first command, and for the rest of each one that has begun.
const BEGIN: Duration = Duration::from_secs(10);
/// Time that one may say nothing: clients that keep a connection ask once a minute.
const IDLE: Duration = Duration::from_secs(300);
/// Time that a client may leave what it was sent unread.
const UNREAD: Duration = Duration::from_secs(20);
/// Replies are sent in pieces of about this size.
const PIECE: usize = 64 * 1024;

/// What every conversation of an endpoint goes by.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) told: watch::Receiver<Arc<Told>>,
    pub(super) metrics: OfTable,
    pub(super) view: CatalogView,
}

/// Talks with a client until it leaves, is too slow, says too much, or the agent stops.
pub(super) async fn serve(
    link: Link,
    guest: Guest,
    around: Surroundings,
    certificate: Option<Arc<Certificate>>,
    stop: CancellationToken,
) {
    let conversation = async move {
        match link {
            Link::Tcp(stream) => {
                // Not needed to talk: a socket that takes none of it is one that is closed already.
                let _ = stream.set_nodelay(true);
                match certificate.map(|certificate| certificate.acceptor()) {
                    None => converse(stream, guest, around).await,
                    Some(acceptor) => {
                        let stream = timeout(BEGIN, acceptor.accept(stream)).await??;
                        converse(stream, guest, around).await
                    }
                }
            }
            Link::Unix(stream) => converse(stream, guest, around).await,
            Link::Inside(stream) => converse(stream, guest, around).await,
        }
    };
    // What fails here is the client's doing.
    let _ = stop.run_until_cancelled(conversation).await;
}

async fn converse<S>(stream: S, guest: Guest, around: Surroundings) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = Impatient::new(stream, guest.clone(), UNREAD);
    let (talk, buffer, out) = (Talk::default(), BytesMut::new(), Vec::new());
    let mut conversation = Conversation { stream, guest, talk, around, buffer, out };
    conversation.run().await
}

struct Conversation<S> {
    stream: S,
    guest: Guest,
    talk: Talk,
    around: Surroundings,
    buffer: BytesMut,
    out: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    async fn run(&mut self) -> io::Result<()> {
        let mut deadline = Instant::now() + BEGIN;
        loop {
            let has_answered = self.commands().await?;
            self.flush().await?;
            let Some(has_answered) = has_answered else { return self.stream.shutdown().await };
            let is_between = self.buffer.is_empty() && !self.talk.is_amid();
            if has_answered {
                deadline = Instant::now() + if is_between { IDLE } else { BEGIN };
            }
            if timeout_at(deadline, self.read()).await?? == 0 {
                return Ok(());
            }
            if is_between {
                deadline = Instant::now() + BEGIN;
            }
        }
    }

    async fn read(&mut self) -> io::Result<usize> {
        let room = LONGEST - self.buffer.len();
        self.buffer.reserve(room);
        let mut into = (&mut self.buffer).limit(room);
        self.stream.read_buf(&mut into).await
    }

    /// Answers what has come in: whether anything was; none when the conversation is over.
    async fn commands(&mut self) -> io::Result<Option<bool>> {
        let mut has_answered = false;
        while !self.buffer.is_empty() {
            // The more of one peer's connections want something at once, the longer they wait.
            let turns = Arc::clone(&self.guest.turns.question);
            let turn = turns.acquire_owned().await.map_err(io::Error::other)?;
            let next = self.command();
            drop(turn);
            match next {
                Turn::Wait => break,
                Turn::Close => return Ok(None),
                Turn::Took(taken) => {
                    self.buffer.advance(taken);
                    has_answered |= !self.talk.is_amid();
                }
            }
            if self.out.len() >= PIECE {
                self.flush().await?;
            }
        }
        Ok(Some(has_answered))
    }

    fn command(&mut self) -> Turn {
        let told = Arc::clone(&self.around.told.borrow());
        let from = Discovery {
            list: told.list.as_ref(),
            connections: self.around.metrics.open(),
            uptime: self.around.view.now().as_secs(),
        };
        let next = self.talk.turn(&self.buffer, &from, &mut self.out);
        if next != Turn::Wait {
            self.guest.asked();
            self.around.metrics.answered();
        }
        next
    }

    /// Sends what was said, and keeps no room for it.
    async fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out).await?;
            self.stream.flush().await?;
            self.out = Vec::new();
        }
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }
}
