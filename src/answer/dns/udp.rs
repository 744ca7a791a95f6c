//! Questions that come as datagrams: one thread for each socket.
//!
//! What is ready is answered as soon as it is read, and what takes work waits for its turn ([`super::waiting`]): a
//! crowd of costly questions keeps nobody from an answer that is ready.
//!
//! A thread of its own, because an answer from memory takes less time than a task's way through a runtime. It waits for
//! its socket or the sign to stop, and for nothing else. An answer that must wait for another server is finished by a
//! task ([`super::late`]).

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::op::ResponseCode;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::sync::mpsc;

use super::late::Late;
use super::limit::{RateLimit, Share};
use super::message::HEADER;
use super::metrics::{Dropped, TRUNCATED, outcome};
use super::packet::{self, Handled};
use super::ready::{Ready, Remembered};
use super::serving::Serving;
use super::socket::{Peer, Udp};
use super::waiting::Waiting;

/// The largest question that is read whole.
const LARGEST: usize = 4_096;
/// Questions answered before the sign to stop is looked for.
const BURST: usize = 64;
/// For so long those who wait are answered before a look at who has come: one answer takes no more than a millisecond.
const SLICE: Duration = Duration::from_micros(50);

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

/// What a thread works with.
struct Desk {
    question: Vec<u8>,
    reply: Vec<u8>,
    ready: Ready,
    waiting: Waiting,
    /// How many reads were worth it.
    burst: usize,
}

impl Thread {
    /// Answers until told to stop. What waits in the socket then is left there.
    pub(super) fn run(self) -> io::Result<()> {
        let mut desk = Desk {
            question: vec![0; LARGEST],
            reply: Vec::with_capacity(LARGEST),
            ready: Ready::new(&self.serving, self.room),
            waiting: Waiting::default(),
            burst: 1,
        };
        while self.wait(desk.waiting.is_empty())? {
            self.read(&mut desk);
            self.answer_some(&mut desk);
        }
        while !desk.waiting.is_empty() {
            self.answer_some(&mut desk);
        }
        Ok(())
    }

    /// Waits for a question unless some wait already; whether to go on.
    fn wait(&self, idle: bool) -> io::Result<bool> {
        let mut waits = [
            PollFd::from_borrowed_fd(self.socket.socket.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN),
        ];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        match poll(&mut waits, (!idle).then_some(&at_once)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(waits[1].revents().is_empty()),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what has come, and answers what is ready.
    fn read(&self, desk: &mut Desk) {
        // A look at an empty socket costs as much as a wait: look again only as often as it was worth it.
        let expected = if desk.waiting.is_empty() { desk.burst } else { BURST };
        desk.burst = 1;
        for got in 1..=expected.min(desk.waiting.room()) {
            match self.socket.receive(&mut desk.question) {
                Ok((length, peer)) => {
                    self.take(length, peer, desk);
                    desk.burst = if got == expected { (2 * got).min(BURST) } else { got };
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

    /// Answers those who wait, until it is time to look whether somebody has come for what is ready.
    fn answer_some(&self, desk: &mut Desk) {
        let begun = Instant::now();
        while let Some((question, peer)) = desk.waiting.next() {
            self.safely(&question, peer, &mut desk.ready, |ready| self.answer(&question, peer, ready));
            if begun.elapsed() >= SLICE {
                return;
            }
        }
    }

    /// Answers a question that has just been read if that takes no work, else lets it wait.
    fn take(&self, length: usize, peer: Peer, desk: &mut Desk) {
        let Desk { question, reply, ready, waiting, .. } = desk;
        let question = &question[..length];
        if self.safely(question, peer, ready, |ready| self.is_done_with(question, peer, ready, reply)) == Some(false) {
            waiting.push(question.into(), peer);
        }
    }

    /// A panic costs the packet that caused it.
    fn safely<T>(
        &self,
        question: &[u8],
        peer: Peer,
        ready: &mut Ready,
        handle: impl FnOnce(&mut Ready) -> T,
    ) -> Option<T> {
        let handled = catch_unwind(AssertUnwindSafe(|| handle(ready)));
        if handled.is_err() {
            tracing::error!(packet = ?question.get(..300).unwrap_or(question), client = %peer.from, "panicked over a packet");
            self.serving.metrics.dropped(Dropped::Panic);
            *ready = Ready::new(&self.serving, self.room);
        }
        handled.ok()
    }

    /// Whether a question has got what it gets: an answer that was ready, or nothing.
    fn is_done_with(&self, question: &[u8], peer: Peer, ready: &mut Ready, reply: &mut Vec<u8>) -> bool {
        let begun = Instant::now();
        let serving = &*self.serving;
        let client = peer.from.ip();
        if peer.from.port() == 0 {
            serving.metrics.dropped(Dropped::Short);
            return true;
        }
        if !serving.rules.is_trusted(client) && !self.share(question, peer, begun, reply) {
            return true;
        }
        let Some(place) = ready.answer(question, serving, client, reply) else { return false };
        let _ = self.socket.send(reply, peer);
        serving.metrics.ready_made.fetch_add(1, Ordering::Relaxed);
        serving.metrics.answered(place, begun.elapsed());
        true
    }

    fn answer(&self, question: &[u8], peer: Peer, ready: &mut Ready) {
        let handling = packet::handle(self.serving.clone(), question.to_vec(), peer.from, Protocol::Udp);
        let mut handling: BoxFuture<'static, Handled> = Box::pin(handling);
        match (&mut handling).now_or_never() {
            Some(Handled { reply: Some(reply), rests }) => {
                let _ = self.socket.send(&reply, peer);
                if let Some((rests, place)) = rests {
                    let said = Remembered { reply, rests, place };
                    ready.remember((question, peer.from.ip()), &self.serving, said);
                }
            }
            Some(Handled { reply: None, .. }) => {}
            // There is room for as many as may wait for an answer from elsewhere.
            None => {
                let late = Late { socket: self.socket.clone(), peer, handling };
                if self.late.try_send(late).is_err() {
                    self.serving.metrics.dropped(Dropped::Overload);
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

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, UdpSocket};
    use std::time::Duration;

    use super::*;
    use crate::answer::dns::dry::Dry;
    use crate::answer::dns::socket::Sockets;

    fn thread(dry: &Dry) -> (Thread, SocketAddr) {
        let mut sockets = Sockets::bind(&["127.0.0.1:0".parse().expect("an address")], 1).expect("a free port");
        let address = sockets.addresses()[0];
        let (stop, _) = io::pipe().expect("a pipe");
        let thread = Thread {
            serving: dry.serving.clone(),
            socket: Arc::new(sockets.udp.remove(0)),
            limit: Arc::new(RateLimit::new(0)),
            late: mpsc::channel(1).0,
            stop: Arc::new(stop.into()),
            room: 1 << 20,
        };
        (thread, address)
    }

    fn desk(thread: &Thread) -> Desk {
        Desk {
            question: vec![0; LARGEST],
            reply: Vec::new(),
            ready: Ready::new(&thread.serving, thread.room),
            waiting: Waiting::default(),
            burst: BURST,
        }
    }

    fn client(from: &str, server: SocketAddr) -> UdpSocket {
        let socket = UdpSocket::bind(from).expect("loopback");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("set");
        socket.connect(server).expect("an address");
        socket
    }

    #[test]
    fn an_answer_that_is_ready_waits_for_no_crowd() {
        let dry = Dry::new();
        let (thread, server) = thread(&dry);
        let mut desk = desk(&thread);
        let (crowd, neighbour) = (client("127.0.0.2:0", server), client("127.0.0.1:0", server));
        let mut reply = [0; 4_096];
        let (plain, costly) = (Dry::sample(0), Dry::sample(7));
        for _ in 0..4 {
            neighbour.send(&plain).expect("sent");
            assert!(thread.wait(true).is_ok());
            thread.read(&mut desk);
            thread.answer_some(&mut desk);
            assert!(neighbour.recv(&mut reply).expect("an answer") > HEADER);
        }
        for _ in 0..40 {
            crowd.send(&costly).expect("sent");
        }
        neighbour.send(&plain).expect("sent");
        desk.burst = BURST;
        thread.read(&mut desk);
        assert_eq!(desk.waiting.room(), Waiting::default().room() - 40, "not one of the crowd's");
        assert!(neighbour.recv(&mut reply).expect("an answer") > HEADER);
        while !desk.waiting.is_empty() {
            thread.answer_some(&mut desk);
        }
        (0..40).for_each(|_| assert!(crowd.recv(&mut reply).expect("an answer") > HEADER));
    }

    #[test]
    fn an_answer_is_remembered_for_its_own_question() {
        let dry = Dry::new();
        let (thread, server) = thread(&dry);
        let mut desk = desk(&thread);
        let client = client("127.0.0.1:0", server);
        let (known, unknown): (&[u8], &[u8]) = (&Dry::named("web", 1), &Dry::named("bew", 1));
        let ask = |desk: &mut Desk, questions: &[&[u8]]| -> Vec<u8> {
            questions.iter().for_each(|question| assert!(client.send(question).is_ok()));
            desk.burst = BURST;
            thread.read(desk);
            while !desk.waiting.is_empty() {
                thread.answer_some(desk);
            }
            let mut reply = [0; 4_096];
            questions.iter().map(|_| (client.recv(&mut reply).expect("an answer"), reply[3] & 0x0f).1).collect()
        };
        let (found, nothing) = (0, 3);
        assert_eq!(ask(&mut desk, &[known, unknown]), [found, nothing]);
        assert_eq!(ask(&mut desk, &[unknown]), [nothing]);
        assert_eq!(ask(&mut desk, &[known]), [found]);
        assert!(desk.ready.answer(known, &thread.serving, [127, 0, 0, 1].into(), &mut Vec::new()).is_some());
    }
}
