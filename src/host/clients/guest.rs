//! One client's connection as its server sees it: who it is, whether it moves, and how it is told to leave.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep, sleep};
use tokio_util::sync::CancellationToken;

use super::listener::Peer;

/// Questions of one peer that are answered at a time: each thread of a small host has one to go on with.
const QUESTIONS: usize = 2;

/// A client that was let in. Clones are the same client.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Who it is.
    pub peer: Peer,
    /// Cancelled when it has to make room; its connection is closed then.
    pub leave: CancellationToken,
    /// What all clients of its peer share.
    pub turns: Turns,
    moves: Arc<Moves>,
}

/// Whose turn it is among the clients of one peer: the more of them want something at once, the longer they wait, and
/// nobody else does.
#[derive(Clone, Debug)]
pub struct Turns {
    /// Held while a question is answered.
    pub question: Arc<Semaphore>,
    /// Held while something costly is done for an answer.
    pub work: Arc<Semaphore>,
}

impl Default for Turns {
    fn default() -> Self {
        Self { question: Arc::new(Semaphore::new(QUESTIONS)), work: Arc::new(Semaphore::new(1)) }
    }
}

/// What a connection has done so far.
#[derive(Debug, Default)]
struct Moves {
    asked: AtomicBool,
    last: AtomicU64,
    clock: Arc<AtomicU64>,
}

impl Guest {
    /// A client of this peer; `clock` counts the moves of all clients of one server.
    pub(super) fn new(peer: Peer, turns: Turns, clock: &Arc<AtomicU64>) -> Self {
        let moves = Moves { clock: clock.clone(), ..Moves::default() };
        let guest = Self { peer, leave: CancellationToken::new(), turns, moves: Arc::new(moves) };
        guest.moved();
        guest
    }

    /// Says that it has asked a whole question: it is no idler.
    pub fn asked(&self) {
        self.moves.asked.store(true, Ordering::Relaxed);
        self.moved();
    }

    /// Says that bytes went to it or came from it.
    pub fn moved(&self) {
        self.moves.last.store(self.moves.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// Who makes room first among the clients of one peer: those that never asked, then those that have not moved for
    /// longest.
    pub fn rank(&self) -> (bool, u64) {
        (self.moves.asked.load(Ordering::Relaxed), self.moves.last.load(Ordering::Relaxed))
    }
}

/// A stream that notes each move of its client, and whose writes fail once the client has read nothing for so long.
#[derive(Debug)]
pub struct Impatient<S> {
    stream: S,
    guest: Guest,
    patience: Duration,
    deadline: Pin<Box<Sleep>>,
    waiting: bool,
}

impl<S> Impatient<S> {
    /// The stream of this client, who may leave what it was sent unread for `patience`.
    pub fn new(stream: S, guest: Guest, patience: Duration) -> Self {
        Self { stream, guest, patience, deadline: Box::pin(sleep(patience)), waiting: false }
    }

    /// Lets a finished write through, and ends one that has waited too long.
    fn bounded<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = false;
            return written;
        }
        if !self.waiting {
            self.waiting = true;
            self.deadline.as_mut().reset(Instant::now() + self.patience);
        }
        ready!(self.deadline.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }

    fn noted(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(length)) if length > 0) {
            self.guest.moved();
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, into);
        if into.filled().len() > before {
            self.guest.moved();
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        let written = self.noted(written);
        self.bounded(written, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.bounded(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(context);
        self.bounded(shut, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        let written = self.noted(written);
        self.bounded(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_reads_is_let_go() {
        let (ours, _theirs) = tokio::io::duplex(16);
        let guest = Guest::new(Peer::Inside, Turns::default(), &Arc::default());
        let begun = Instant::now();
        let failed = Impatient::new(ours, guest, PATIENCE).write_all(&[0; 64]).await.expect_err("nobody reads");
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= PATIENCE);
    }
}
