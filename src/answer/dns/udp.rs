//! Questions that come as datagrams: one thread for each socket, which answers what it reads before it reads on.
//!
//! A thread of its own, because an answer from memory takes less time than a task's way through a runtime. It waits for
//! its socket or the sign to stop, and for nothing else. An answer that must wait for another server is finished by a
//! task ([`super::late`]).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::ResponseCode;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::sync::mpsc;

use super::late::Late;
use super::limit::{RateLimit, Share};
use super::message::HEADER;
use super::metrics::{Dropped, TRUNCATED, outcome};
use super::packet::{self, Handled};
use super::ready::Ready;
use super::serving::Serving;
use super::socket::{Peer, Udp};

/// The largest question that is read whole.
const LARGEST: usize = 4_096;
/// Questions answered before the sign to stop is looked for.
const BURST: usize = 64;

/// Answers datagrams of one socket.
pub(super) struct Thread {
    pub(super) serving: Arc<Serving>,
    pub(super) socket: Arc<Udp>,
    pub(super) limit: Arc<RateLimit>,
    /// Takes answers that must wait for another server.
    pub(super) late: mpsc::Sender<Late>,
    /// Readable when it is time to stop.
    pub(super) stop: Arc<OwnedFd>,
    /// Bytes that ready-made replies may take here.
    pub(super) room: usize,
}

impl Thread {
    /// Answers until told to stop. What waits in the socket then is left there.
    pub(super) fn run(self) -> io::Result<()> {
        let mut question = vec![0; LARGEST];
        let mut reply = Vec::with_capacity(LARGEST);
        let mut ready = Ready::new(&self.serving, self.room);
        let mut burst = 1;
        loop {
            let mut waits = [
                PollFd::from_borrowed_fd(self.socket.socket.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN),
            ];
            match poll(&mut waits, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if !waits[1].revents().is_empty() {
                return Ok(());
            }
            // A look at an empty socket costs as much as a wait: look again only as often as it was worth it.
            let expected = std::mem::replace(&mut burst, 1);
            for got in 1..=expected {
                match self.socket.receive(&mut question) {
                    Ok((length, peer)) => {
                        self.handle_safely(&question[..length], peer, &mut ready, &mut reply);
                        burst = if got == expected { (2 * got).min(BURST) } else { got };
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // An answer that could not be delivered comes back as an error of the next read.
                    Err(error) => {
                        tracing::debug!(%error, "datagram not read");
                        break;
                    }
                }
            }
        }
    }

    /// A panic costs the packet that caused it.
    fn handle_safely(&self, question: &[u8], peer: Peer, ready: &mut Ready, reply: &mut Vec<u8>) {
        let handled = catch_unwind(AssertUnwindSafe(|| self.handle(question, peer, ready, reply)));
        if handled.is_err() {
            tracing::error!(packet = ?question.get(..300).unwrap_or(question), client = %peer.from, "panicked over a packet");
            self.serving.metrics.dropped(Dropped::Panic);
            *ready = Ready::new(&self.serving, self.room);
        }
    }

    fn handle(&self, question: &[u8], peer: Peer, ready: &mut Ready, reply: &mut Vec<u8>) {
        let begun = Instant::now();
        let serving = &*self.serving;
        let client = peer.from.ip();
        if peer.from.port() == 0 {
            return serving.metrics.dropped(Dropped::Short);
        }
        if !serving.rules.is_trusted(client) && !self.share(question, peer, begun, reply) {
            return;
        }
        if let Some(place) = ready.answer(question, serving, client, reply) {
            let _ = self.socket.send(reply, peer);
            serving.metrics.ready_made.fetch_add(1, Ordering::Relaxed);
            return serving.metrics.answered(place, begun.elapsed());
        }
        let packet = question.to_vec();
        let handling = packet::handle(self.serving.clone(), packet, peer.from, Protocol::Udp);
        let mut handling: BoxFuture<'static, Handled> = Box::pin(handling);
        match (&mut handling).now_or_never() {
            Some(Handled { reply: Some(reply), rests }) => {
                let _ = self.socket.send(&reply, peer);
                if let Some((rests, place)) = rests {
                    ready.remember(&reply, rests, place);
                }
            }
            Some(Handled { reply: None, .. }) => {}
            // There is room for as many as may wait for an answer from elsewhere.
            None => {
                let late = Late { socket: self.socket.clone(), peer, handling };
                if self.late.try_send(late).is_err() {
                    serving.metrics.dropped(Dropped::Overload);
                }
            }
        }
    }

    /// Whether the client's network has answers left; if not, it has got what it gets.
    fn share(&self, question: &[u8], peer: Peer, begun: Instant, reply: &mut Vec<u8>) -> bool {
        let second = self.serving.view.now().as_secs();
        let share = self.limit.count(peer.from.ip(), second);
        if share == Share::Answer {
            return true;
        }
        let is_question = question.len() >= HEADER && question[2] & 0x80 == 0;
        let cut = (share == Share::Truncated && is_question).then(|| packet::truncated(question, reply)).flatten();
        let metrics = &self.serving.metrics;
        if let Some(rcode) = cut {
            let _ = self.socket.send(reply, peer);
            let kind = if rcode == ResponseCode::NoError { TRUNCATED } else { outcome(rcode) };
            metrics.answered(metrics.place(metrics.foreign(), None, kind), begun.elapsed());
        } else {
            metrics.dropped(Dropped::Rate);
        }
        false
    }
}
