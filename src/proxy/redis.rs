//! A session of Redis, which is moved to another server when its own gives way.
//!
//! ```text
//! talking ──switch, cut, leaving──▶ parking ──nothing is due──▶ parked ──a server is right──▶ introduced ──▶ talking
//!                                      └─ cannot be moved ─▶ reset (or left as plain bytes)
//! ```
//!
//! While it parks, its client is read to the end of a command and no further, and replies that are due are awaited.
//! What the client sends meanwhile waits in its socket, [`HOLD`] at most: longer, and clients ask again elsewhere, and
//! would find it done twice.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::handed::Handed;
use super::lines::OnLine;
use super::metrics::Refused;
use super::pump::{Both, Held, read, write};
use super::room::Room;
use super::session::{Failed, Visitor, reach, reset};
use super::{Table, Upstream};
use crate::catalog::proxy::redis::{Identity, Ledger, Replies, Reply, Requests};
use crate::catalog::proxy::{Aim, Closed};
use crate::model::words::record::Role;

/// What a client may be kept waiting for another server.
const HOLD: Duration = Duration::from_millis(200);
/// A server that goes may be given way to by a switch whose word is on its way still: so long for who waits for a
/// reply, and so long for who waits for nothing.
const LATE: Duration = Duration::from_millis(100);
const LATEST: Duration = Duration::from_secs(2);
/// What another server may take to be told who speaks.
const INTRODUCTION: Duration = Duration::from_secs(1);
/// How long a process that stops waits for replies that are due.
const LEAVING: Duration = Duration::from_secs(1);
const BUFFER: usize = 16 * 1024;

/// How it ended.
enum End {
    Whole,
    Reset,
}

/// One session.
struct Talk<'r> {
    visitor: Visitor,
    room: &'r Room,
    aims: watch::Receiver<Arc<Aim>>,
    server: Option<(TcpStream, OnLine<'r>)>,
    ledger: Ledger,
    requests: Requests,
    replies: Replies,
    /// To be written to the server, and to the client.
    up: Vec<u8>,
    down: Vec<u8>,
    /// The server has closed.
    is_gone: bool,
    is_client_over: bool,
    /// Its line was cut, and since when.
    cut: Option<Instant>,
    /// Its master was about to be another one while it ran here.
    is_steered: bool,
    /// Since when it parks for the next process.
    leaving: Option<Instant>,
    last: Instant,
}

/// Serves a session to its end, or until it is left to the next process.
pub(super) async fn serve(
    visitor: Visitor,
    server: Option<(TcpStream, OnLine<'_>)>,
    identity: Identity,
    room: &Room,
) -> Option<Handed> {
    let mut talk = Talk {
        visitor,
        room,
        aims: room.aim.clone(),
        server,
        ledger: Ledger::of(identity),
        requests: Requests::default(),
        replies: Replies::default(),
        up: Vec::new(),
        down: Vec::new(),
        is_gone: false,
        is_client_over: false,
        cut: None,
        is_steered: false,
        leaving: None,
        last: Instant::now(),
    };
    match talk.run().await {
        Ok(None) => Some(talk.leave()),
        Ok(Some(End::Whole)) => None,
        Ok(Some(End::Reset)) | Err(_) => {
            reset(&talk.visitor.stream);
            if let Some((server, _)) = &talk.server {
                reset(server);
            }
            None
        }
    }
}

impl<'r> Talk<'r> {
    /// Nothing where it is left to the next process.
    async fn run(&mut self) -> io::Result<Option<End>> {
        loop {
            let is_leaving = self.room.leaving.is_cancelled();
            self.is_steered = self.is_switching() || (self.is_steered && (self.is_gone || self.cut.is_some()));
            if is_leaving {
                let since = *self.leaving.get_or_insert_with(Instant::now);
                if self.is_quiet() || !self.ledger.is_movable() || since.elapsed() > LEAVING {
                    return Ok(None);
                }
            } else if self.must_move() {
                match self.moved().await? {
                    Some(end) => return Ok(Some(end)),
                    None => continue,
                }
            } else if self.is_gone && self.down.is_empty() {
                match self.parted().await {
                    Some(end) => return Ok(Some(end)),
                    None => continue,
                }
            } else if self.cut.is_some() && !self.may_end_here() {
                return Ok(Some(End::Reset));
            }
            if self.is_client_over && self.up.is_empty() && !self.ledger.is_due() && self.down.is_empty() {
                return Ok(Some(End::Whole));
            }
            if let Some(end) = self.turn().await? {
                return Ok(Some(end));
            }
        }
    }

    /// Between two commands, with nothing due and nothing under way.
    fn is_quiet(&self) -> bool {
        let is_between = self.requests.is_between() && self.replies.is_between();
        is_between && self.up.is_empty() && self.down.is_empty() && !self.ledger.is_due()
    }

    fn is_switching(&self) -> bool {
        self.aims.borrow().closed == Some(Closed::Switching)
    }

    /// Whether one that is cut may wait for what is due to it: nothing more is sent to a server that is not right.
    fn may_end_here(&self) -> bool {
        self.ledger.is_movable() && self.requests.is_between() && self.up.is_empty()
    }

    fn is_parking(&self) -> bool {
        self.cut.is_some() || self.is_gone || self.room.leaving.is_cancelled() || self.is_switching()
    }

    /// Whether it has to be moved and can be: nothing is due, or the one thing that is was not carried out. While a
    /// master is switched its writes are held before its clients are closed, so what had no reply by then was not done.
    fn must_move(&self) -> bool {
        if !self.ledger.is_movable() || self.is_client_over {
            return false;
        }
        let is_between = self.requests.is_between() && self.replies.is_between() && self.down.is_empty();
        let is_undone = self.is_gone && self.is_steered && self.ledger.to_repeat().is_some();
        let is_done = !self.ledger.is_due() && self.up.is_empty();
        let is_to = self.server.is_none() || self.cut.is_some() || (self.is_gone && self.is_steered);
        is_between && (is_done || is_undone) && is_to
    }

    /// Moves what can be moved now, or waits until something can be.
    async fn turn(&mut self) -> io::Result<Option<End>> {
        let may_read =
            self.up.is_empty() && !self.is_client_over && (!self.is_parking() || !self.requests.is_between());
        let Some((server, on_line)) = &self.server else { return Ok(Some(End::Reset)) };
        let client = &self.visitor.stream;
        let cut = self.cut.map(|since| since + HOLD);
        let leaving = self.leaving.map(|since| since + LEAVING);
        let patience = leaving.or(cut).unwrap_or(self.last + self.room.table.idle);
        tokio::select! {
            biased;
            () = self.room.closing.cancelled() => return Ok(Some(End::Reset)),
            () = self.visitor.leave.cancelled() => {
                self.room.refused(Refused::Room);
                return Ok(Some(End::Reset));
            }
            () = on_line.cut.cancelled(), if self.cut.is_none() => self.cut = Some(Instant::now()),
            () = self.room.leaving.cancelled(), if self.leaving.is_none() => {}
            changed = self.aims.changed() => changed.map_err(|_| io::ErrorKind::ConnectionAborted)?,
            ready = client.writable(), if !self.down.is_empty() => {
                ready?;
                wrote(write(client, &self.down), &mut self.down)?;
            }
            ready = server.writable(), if !self.up.is_empty() && !self.is_gone => {
                ready?;
                match wrote(write(server, &self.up), &mut self.up) {
                    Err(_) => self.is_gone = true,
                    Ok(()) if self.up.is_empty() && self.is_client_over => shut(server),
                    Ok(()) => {}
                }
            }
            ready = server.readable(), if self.down.is_empty() && !self.is_gone => {
                ready?;
                self.hear_server();
            }
            ready = client.readable(), if may_read => {
                ready?;
                self.hear_client()?;
            }
            () = sleep_until(patience) => {
                if self.leaving.is_none() {
                    return Ok(Some(End::Reset));
                }
            }
        }
        Ok(None)
    }

    fn hear_client(&mut self) -> io::Result<()> {
        let mut buffer = [0; BUFFER];
        let room = if self.is_parking() { self.requests.within().min(BUFFER) } else { BUFFER };
        // While it parks, no byte behind the command's end may be taken.
        let got = match read(&self.visitor.stream, &mut buffer[..room]) {
            Ok(0) => {
                self.is_client_over = true;
                if let Some((server, _)) = &self.server {
                    shut(server);
                }
                return Ok(());
            }
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        self.last = Instant::now();
        self.room.board.counts.meter.up.inc_by(got as u64);
        self.up.extend_from_slice(&buffer[..got]);
        let mut rest = &buffer[..got];
        while !rest.is_empty() && self.ledger.is_counted() {
            match self.requests.read(rest) {
                Ok((used, request)) => {
                    rest = &rest[used..];
                    if let Some(request) = request {
                        self.ledger.asked(request);
                    }
                }
                Err(_) => {
                    self.ledger.is_lost();
                    break;
                }
            }
        }
        Ok(())
    }

    fn hear_server(&mut self) {
        let Some((server, _)) = &self.server else { return };
        let mut buffer = [0; BUFFER];
        let got = match read(server, &mut buffer) {
            Ok(0) => 0,
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => 0,
        };
        if got == 0 {
            self.is_gone = true;
            return;
        }
        self.last = Instant::now();
        self.room.board.counts.meter.down.inc_by(got as u64);
        let bytes = &buffer[..got];
        if self.replies.is_between() && self.ledger.is_unblocked(bytes) {
            // It closes now, and nothing of the command was done.
            (self.is_gone, self.is_steered) = (true, true);
            return;
        }
        self.down.extend_from_slice(bytes);
        let mut rest = bytes;
        while !rest.is_empty() && self.ledger.is_counted() {
            match self.replies.read(rest) {
                Ok((used, reply)) => {
                    rest = &rest[used..];
                    if let Some(reply) = reply {
                        self.ledger.answered(&reply);
                    }
                }
                Err(_) => {
                    self.ledger.is_lost();
                    break;
                }
            }
        }
    }

    /// Its server has closed. Where that is a switch's doing, the word comes; else the client is told.
    async fn parted(&mut self) -> Option<End> {
        let is_due = self.ledger.is_due();
        if self.is_client_over
            || self.ledger.is_ending()
            || !self.ledger.is_movable()
            || (is_due && self.ledger.to_repeat().is_none())
        {
            return Some(if is_due { End::Reset } else { End::Whole });
        }
        let Some((_, on_line)) = &self.server else { return Some(End::Reset) };
        let mut aims = self.aims.clone();
        let late = async {
            if !is_due {
                // How its client waits: once that has said something, it is to be told soon.
                let _said = timeout(LATEST, self.visitor.stream.readable()).await;
            }
            sleep(LATE).await;
        };
        tokio::select! {
            switching = aims.wait_for(|aim| aim.closed == Some(Closed::Switching)) => {
                self.is_steered = switching.is_ok();
            }
            () = on_line.cut.cancelled(), if !is_due => self.cut = Some(Instant::now()),
            () = late => {}
        }
        if self.must_move() { None } else { Some(if is_due { End::Reset } else { End::Whole }) }
    }

    /// Goes on with another server, which nobody but the client's patience is to notice.
    async fn moved(&mut self) -> io::Result<Option<End>> {
        let repeated = if self.ledger.is_due() { self.ledger.to_repeat() } else { None };
        self.server = None;
        let reached = {
            let waits = async {
                if repeated.is_none() {
                    let _gone = self.visitor.stream.readable().await;
                }
                sleep(HOLD).await;
            };
            tokio::select! {
                reached = introduced(&self.visitor, self.ledger.identity(), self.room) => Some(reached),
                () = waits => None,
            }
        };
        match reached {
            Some(Ok(reached)) => self.server = Some(reached),
            Some(Err(Failed::Left)) => return Ok(None),
            Some(Err(Failed::Refused(why))) => {
                self.room.refused(why);
                return Ok(Some(End::Reset));
            }
            Some(Err(Failed::Gone)) => return Ok(Some(End::Reset)),
            None => {
                self.room.refused(Refused::Wait);
                return Ok(Some(End::Reset));
            }
        }
        (self.is_gone, self.is_steered, self.cut, self.replies) = (false, false, None, Replies::default());
        self.up = repeated.unwrap_or_default();
        self.room.board.counts.moved.inc();
        Ok(None)
    }

    /// What the next process goes on with: a session where it is quiet, else bytes.
    fn leave(self) -> Handed {
        let is_whole = self.ledger.is_movable() && self.is_quiet();
        let identity = is_whole.then(|| self.ledger.identity().clone());
        let held = Both { up: Held::left(self.up, self.is_client_over), down: Held::left(self.down, false) };
        let server = self.server.map(|(server, on_line)| {
            let line = self.room.lines.line(&on_line);
            (server, line)
        });
        Handed { client: self.visitor.stream, from: self.visitor.from, server, held, redis: identity }
    }
}

/// Reaches a server and tells it who speaks. One that is not what the table wants is left alone.
async fn introduced<'r>(
    visitor: &Visitor,
    identity: &Identity,
    room: &'r Room,
) -> Result<(TcpStream, OnLine<'r>), Failed> {
    loop {
        let (server, on_line) = reach(visitor, room).await?;
        match timeout(INTRODUCTION, introduce(&server, identity, &room.table)).await {
            Ok(Ok(true)) => return Ok((server, on_line)),
            Ok(Ok(false)) => {
                reset(&server);
                drop(on_line);
                // Its record tells of another moment than its server.
                sleep(Duration::from_millis(2)).await;
            }
            _ => {
                reset(&server);
                return Err(Failed::Gone);
            }
        }
    }
}

/// Whether the server took all of it, and has the role.
async fn introduce(server: &TcpStream, identity: &Identity, table: &Table) -> io::Result<bool> {
    let said = identity.introduction();
    let mut out = said.concat();
    while !out.is_empty() {
        server.writable().await?;
        wrote(write(server, &out), &mut out)?;
    }
    let (mut replies, mut left, mut text) = (Replies::default(), said.len(), Vec::new());
    let mut buffer = [0; 4096];
    let is_right_role = |text: &[u8]| {
        let role = match &table.upstream {
            Upstream::Service(wanted) => wanted.role,
            Upstream::Fixed(_) | Upstream::Members(..) => None,
        };
        let wanted: &[u8] = match role {
            Some(Role::Primary) => b"\r\nmaster\r\n",
            Some(Role::Replica) => b"\r\nslave\r\n",
            None => return true,
        };
        text.windows(wanted.len()).any(|window| window == wanted)
    };
    while left > 0 {
        server.readable().await?;
        let got = match read(server, &mut buffer) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(got) => got,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        text.extend_from_slice(&buffer[..got]);
        let mut rest = &buffer[..got];
        while !rest.is_empty() {
            let (used, reply) = replies.read(rest).map_err(|_| io::ErrorKind::InvalidData)?;
            rest = &rest[used..];
            match reply {
                None | Some(Reply::Push) => {}
                Some(Reply::Good) => left = left.saturating_sub(1),
                Some(Reply::Error(_)) => return Err(io::ErrorKind::PermissionDenied.into()),
            }
        }
    }
    Ok(is_right_role(&text))
}

fn wrote(written: io::Result<usize>, bytes: &mut Vec<u8>) -> io::Result<()> {
    match written {
        Ok(written) => {
            bytes.drain(..written);
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}

fn shut(stream: &TcpStream) {
    // Where it has gone altogether, the other direction tells.
    let _gone = socket2::SockRef::from(stream).shutdown(std::net::Shutdown::Write);
}
