//! One client's connection: its commands one after the other, events in between, each within its time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BufMut, BytesMut};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::desk::Shown;
use super::metrics::SentinelMetrics;
use crate::catalog::facade::sentinel::{
    Ground, HOLD, Masters, Resp, RespValue, Said, SentinelEvent, SentinelFacts, Talk, master_fields,
};
use crate::host::clients::{Guest, Impatient, Link};
use crate::view::CatalogView;
use crate::wire::redis::request::{self, LONGEST, Words};

/// Time for the first command, and for the rest of each one that has begun.
const BEGIN: Duration = Duration::from_secs(10);
/// Time that one may say nothing. Clients keep a connection for their next question, and open another one when it is
/// gone.
const IDLE: Duration = Duration::from_secs(300);
/// Time that a client may leave what it was sent unread.
const UNREAD: Duration = Duration::from_secs(20);
/// Who waits for events says nothing for days; his host is asked so often whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Replies are sent in pieces of about this size.
const PIECE: usize = 64 * 1024;
/// Bytes that are made room for at a time.
const ROOM: usize = 512;

/// What every conversation goes by.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    pub(super) shown: Shown,
    pub(super) facts: Arc<SentinelFacts>,
    pub(super) view: CatalogView,
    pub(super) metrics: SentinelMetrics,
}

/// Talks with a client until it leaves, is too slow, says what is no command, or the agent stops.
pub(super) async fn serve(link: Link, guest: Guest, number: i64, around: Surroundings, stop: CancellationToken) {
    match link {
        Link::Tcp(stream) => {
            prepare(&stream);
            converse(stream, guest, number, around, stop).await;
        }
        Link::Unix(stream) => converse(stream, guest, number, around, stop).await,
        Link::Inside(stream) => converse(stream, guest, number, around, stop).await,
    }
}

async fn converse<S>(stream: S, guest: Guest, number: i64, around: Surroundings, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let stream = Impatient::new(stream, guest.clone(), UNREAD);
    let talk = Talk::new(number, &around.facts);
    let (masters, events) = (around.shown.masters.clone(), around.shown.events());
    let (buffer, out) = (BytesMut::new(), Vec::new());
    let (since, is_greeted) = (Instant::now(), false);
    let mut conversation =
        Conversation { stream, guest, talk, around, masters, events, buffer, out, since, is_greeted };
    // What fails here is the client's doing.
    let _ = stop.run_until_cancelled(conversation.run()).await;
}

fn prepare(stream: &TcpStream) {
    // Neither is needed to talk: a socket that takes none of it is one that is closed already.
    let _ = stream.set_nodelay(true);
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE / 4);
    let _ = SockRef::from(stream).set_tcp_keepalive(&keepalive);
}

struct Conversation<S> {
    stream: S,
    guest: Guest,
    talk: Talk,
    around: Surroundings,
    masters: watch::Receiver<Arc<Masters>>,
    events: broadcast::Receiver<SentinelEvent>,
    buffer: BytesMut,
    out: Vec<u8>,
    /// Since when the client owes us a command, or the rest of one.
    since: Instant,
    is_greeted: bool,
}

/// What happened next.
enum Next {
    Bytes(usize),
    Event(SentinelEvent),
    Over,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Conversation<S> {
    async fn run(&mut self) -> io::Result<()> {
        loop {
            if !self.commands().await? {
                return self.flush().await;
            }
            self.flush().await?;
            match self.next().await? {
                Next::Bytes(0) | Next::Over => return Ok(()),
                Next::Bytes(_) => {}
                Next::Event(event) => self.tell(&event),
            }
        }
    }

    /// Waits for bytes or for an event. A dropped read has taken no byte, and a dropped wait no event.
    async fn next(&mut self) -> io::Result<Next> {
        let (deadline, listens) = (self.deadline(), self.talk.is_subscribed());
        let room = LONGEST - self.buffer.len();
        self.buffer.reserve(room.min(ROOM));
        let was_empty = self.buffer.is_empty();
        let mut into = (&mut self.buffer).limit(room);
        let next = tokio::select! {
            read = self.stream.read_buf(&mut into) => Next::Bytes(read?),
            event = self.events.recv(), if listens => match event {
                Ok(event) => Next::Event(event),
                Err(_) => {
                    self.around.metrics.slow.inc();
                    Next::Over
                }
            },
            () = over(deadline) => Next::Over,
        };
        if was_empty && matches!(next, Next::Bytes(_)) {
            self.since = Instant::now();
        }
        Ok(next)
    }

    /// By when the client has to say something. One who waits for events need not.
    fn deadline(&self) -> Option<Instant> {
        match (self.buffer.is_empty(), self.talk.is_subscribed()) {
            (true, true) => None,
            (true, false) if self.is_greeted => Some(self.since + IDLE),
            _ => Some(self.since + BEGIN),
        }
    }

    /// Answers every whole command that has come in; false when the conversation is over.
    async fn commands(&mut self) -> io::Result<bool> {
        loop {
            match request::parse(&self.buffer) {
                Ok(None) => return Ok(true),
                Ok(Some((words, length))) => {
                    self.buffer.advance(length);
                    if !self.command(&words).await? {
                        return Ok(false);
                    }
                }
                Err(flaw) => {
                    self.say(&RespValue::err(flaw));
                    return Ok(false);
                }
            }
        }
    }

    /// Answers one command; false when it was the last.
    async fn command(&mut self, words: &Words) -> io::Result<bool> {
        self.since = Instant::now();
        if words.is_empty() {
            return Ok(true);
        }
        self.guest.asked();
        self.wait_for_a_switch(words).await?;
        // The more of one peer's connections want something at once, the longer they wait.
        let turns = Arc::clone(&self.guest.turns.question);
        let _turn = turns.acquire_owned().await.map_err(io::Error::other)?;
        self.around.metrics.commands.inc();
        let masters = Arc::clone(&self.masters.borrow_and_update());
        let was_subscribed = self.talk.is_subscribed();
        let ground = ground(&masters, &self.around);
        let said = self.talk.answer(words, &ground);
        self.is_greeted |= self.talk.is_in();
        if self.talk.is_subscribed() && !was_subscribed {
            self.events = self.around.shown.events();
        }
        match said {
            Said::Replies(values) => values.iter().for_each(|value| self.say(value)),
            Said::Masters => self.list(&masters).await?,
            Said::Last(value) => {
                self.say(&value);
                return Ok(false);
            }
        }
        if self.out.len() >= PIECE {
            self.flush().await?;
        }
        Ok(true)
    }

    /// Waits until the master that is asked for is known again. What was said before is sent meanwhile.
    async fn wait_for_a_switch(&mut self, words: &Words) -> io::Result<()> {
        let (talk, around) = (&self.talk, &self.around);
        let is_known = |masters: &Arc<Masters>| !talk.is_held(words, &ground(masters, around));
        if is_known(&self.masters.borrow()) {
            return Ok(());
        }
        self.stream.write_all(&self.out).await?;
        self.out.clear();
        // Afterwards it is told what is known.
        let _ = timeout(HOLD, self.masters.wait_for(is_known)).await;
        Ok(())
    }

    async fn list(&mut self, masters: &Masters) -> io::Result<()> {
        let known = masters.all().filter(|master| master.server.is_some()).count();
        self.out.extend(format!("*{known}\r\n").bytes());
        for master in masters.all() {
            if let Some(fields) = master_fields(master, masters) {
                self.say(&fields);
            }
            if self.out.len() >= PIECE {
                self.flush().await?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, event: &SentinelEvent) {
        let resp: Resp = self.talk.resp();
        let out = &mut self.out;
        self.talk.messages(event.channel, &event.payload).for_each(|value| value.write(resp, out));
    }

    fn say(&mut self, value: &RespValue) {
        value.write(self.talk.resp(), &mut self.out);
    }

    /// Sends what was said, and keeps no room for it: thousands of clients say nothing most of the time.
    async fn flush(&mut self) -> io::Result<()> {
        if !self.out.is_empty() {
            self.stream.write_all(&self.out).await?;
            self.out = Vec::new();
        }
        if self.buffer.is_empty() {
            self.buffer = BytesMut::new();
        }
        Ok(())
    }
}

async fn over(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn ground<'g>(masters: &'g Masters, around: &'g Surroundings) -> Ground<'g> {
    Ground { masters, facts: &around.facts, clients: around.metrics.clients.open.get(), now: around.view.now() }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::io::DuplexStream;

    use super::*;
    use crate::answer::sentinel::desk::Desk;
    use crate::catalog::index::Catalog;
    use crate::host::clients::{Bounds, Clients, Door, Listener};
    use crate::model::words::key::Prefix;
    use crate::model::words::zone::Zones;

    /// A way in to a server that sees nothing, and what its conversations go by.
    async fn stage() -> (Door, Surroundings) {
        let view = CatalogView::fixed(Catalog::default());
        let zones = Zones::new("services.internal", Prefix::parse("/services").expect("a prefix"), Vec::new());
        let (_nodes, seen) = watch::channel(Arc::default());
        let (_desk, shown) = Desk::new(view.clone(), zones.expect("a zone"), seen, BTreeMap::new(), "owner".into());
        let facts = Arc::new(SentinelFacts::new("owner", "1.0.0", 26379, None));
        let around = Surroundings { shown, facts, view, metrics: SentinelMetrics::default() };
        let seen = around.clone();
        let listener = Listener::tcp(([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let bounds = Bounds { clients: 8, drain: Duration::from_secs(1) };
        let (clients, door) = Clients::new(listener, bounds, around.metrics.clients.clone());
        let stop = CancellationToken::new();
        let serving = move |link, guest| serve(link, guest, 1, around.clone(), CancellationToken::new());
        tokio::spawn(clients.serve(stop, serving));
        (door, seen)
    }

    async fn say(stream: &mut DuplexStream, line: &str) {
        stream.write_all(line.as_bytes()).await.expect("it listens");
    }

    /// The time until the other side closes.
    async fn closed(stream: &mut DuplexStream) -> Duration {
        let (begun, mut rest) = (Instant::now(), Vec::new());
        let _ = stream.read_to_end(&mut rest).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn who_owes_a_command_or_the_rest_of_one_is_waited_for_so_long_and_no_longer() {
        let (door, _around) = stage().await;
        let cases =
            [("", BEGIN), ("PI", BEGIN), ("PING\r\n", IDLE), ("PING\r\nPI", BEGIN), ("SUBSCRIBE a\r\nPI", BEGIN)];
        for (said, patience) in cases {
            let mut stream = door.enter().await.expect("it serves");
            say(&mut stream, said).await;
            let waited = closed(&mut stream).await;
            assert!(waited >= patience && waited < patience + BEGIN, "{said:?}: {waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_subscriber_that_takes_none_of_its_events_is_closed_and_one_that_does_has_them_all() {
        let (door, around) = stage().await;
        let mut streams = [door.enter().await.expect("it serves"), door.enter().await.expect("it serves")];
        for stream in &mut streams {
            say(stream, "SUBSCRIBE +switch-master\r\n").await;
            let mut told = [0; 64];
            assert!(stream.read(&mut told).await.expect("it answers") > 0);
        }
        let [slow, mut quick] = streams;
        const EVENTS: usize = 20_000;
        let reading = tokio::spawn(async move {
            let (mut told, mut count) = (vec![0; 8_192], 0);
            while count < EVENTS {
                let read = quick.read(&mut told).await.expect("it is told");
                assert!(read > 0, "closed after {count}");
                count += told[..read].iter().filter(|byte| **byte == b'!').count();
            }
        });
        for number in 0..EVENTS {
            let payload = format!("!{number} {}", "x".repeat(200)).into();
            around.shown.tell(SentinelEvent { channel: "+switch-master", payload });
            if number % 100 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        reading.await.expect("it has had all");
        tokio::time::sleep(UNREAD + Duration::from_secs(1)).await;
        assert_eq!(around.metrics.clients.open.get(), 0, "nobody is left: one was closed, one has gone");
        drop(slow);
    }
}
