//! One connection: it waits for an endpoint, is opened to it, runs, and ends.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::handed::Handed;
use super::lines::OnLine;
use super::metrics::Refused;
use super::pump::{Both, pump};
use super::redis;
use super::room::Room;
use crate::catalog::proxy::redis::Identity;
use crate::catalog::proxy::{Aim, Line, OnChange, Protocol, header, verdict};
use crate::host::clients::Counted;

/// How long one try of opening a connection may take: one lost packet is sent again after a second, and the next
/// endpoint is likely to be faster than that.
const CONNECT: Duration = Duration::from_secs(1);
/// How long it is before endpoints that could not be reached are tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// A peer that is silent for so long is asked whether it is there, and again so often.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(60), Duration::from_secs(15));
/// Bytes that a peer has not taken for so long end its connection. It is long, since it also counts for a peer that
/// pauses on purpose, as a pager does.
const UNTAKEN: Duration = Duration::from_secs(300);

/// Who comes, and how it is told to leave.
#[derive(Debug)]
pub(super) struct Visitor {
    pub(super) stream: TcpStream,
    pub(super) from: SocketAddr,
    /// Cancelled when it has to make room.
    pub(super) leave: CancellationToken,
}

/// Why a connection got no endpoint.
pub(super) enum Failed {
    Refused(Refused),
    /// Its client has gone.
    Gone,
    /// The next process is to find one.
    Left,
}

/// How a connection that ran has ended.
#[derive(Clone, Copy)]
enum Ended {
    /// Both sides have.
    Whole,
    /// It is to be reset.
    Reset,
    /// The next process goes on with it.
    Left,
}

/// Serves one connection to its end, or until it is left to the next process.
pub(super) async fn serve(visitor: Visitor, room: Arc<Room>) -> Option<Handed> {
    if prepare(&visitor.stream).is_err() {
        reset(&visitor.stream); // it has gone already
        return None;
    }
    meet(visitor, &room).await
}

/// Goes on with a connection of the process before, once it is known that its server is right still.
pub(super) async fn go_on(handed: Handed, leave: CancellationToken, room: Arc<Room>) -> Option<Handed> {
    let Handed { client, from, server, held, redis } = handed;
    let visitor = Visitor { stream: client, from, leave };
    keep(&visitor.stream);
    let Some((server, line)) = server else {
        return match redis {
            Some(identity) => redis::serve(visitor, None, identity, &room).await,
            None => meet(visitor, &room).await,
        };
    };
    keep(&server);
    let _running = Counted::new(room.board.counts.connections.clone());
    let ended = match confirm(&line, &visitor, &room).await {
        Ok(on_line) if redis.is_some() => {
            return redis::serve(visitor, Some((server, on_line)), redis.unwrap_or_default(), &room).await;
        }
        Ok(on_line) => return accompany(visitor, server, on_line, held, &room).await,
        Err(ended) => ended,
    };
    end(ended, visitor, (server, line), held).map(|handed| Handed { redis, ..handed })
}

/// Finds a server for who comes, and moves bytes.
async fn meet(visitor: Visitor, room: &Room) -> Option<Handed> {
    match reach(&visitor, room).await {
        Ok((server, on_line)) => {
            let _running = Counted::new(room.board.counts.connections.clone());
            if room.table.protocol == Protocol::Redis {
                return redis::serve(visitor, Some((server, on_line)), Identity::default(), room).await;
            }
            accompany(visitor, server, on_line, Both::default(), room).await
        }
        Err(Failed::Left) => {
            let (client, from) = (visitor.stream, visitor.from);
            // It has said nothing yet, so it is as one that comes to the next process.
            Some(Handed { client, from, server: None, held: Both::default(), redis: None })
        }
        Err(failed) => {
            if let Failed::Refused(why) = failed {
                room.refused(why);
            }
            reset(&visitor.stream);
            None
        }
    }
}

async fn accompany(
    visitor: Visitor,
    server: TcpStream,
    on_line: OnLine<'_>,
    mut held: Both,
    room: &Room,
) -> Option<Handed> {
    let ended = run(&visitor, &server, &on_line, &mut held, room).await;
    end(ended, visitor, (server, room.lines.line(&on_line)), held)
}

/// Resets a connection, or leaves it to the next process.
fn end(ended: Ended, visitor: Visitor, server: (TcpStream, Line), held: Both) -> Option<Handed> {
    match ended {
        Ended::Whole => {}
        Ended::Reset => {
            reset(&visitor.stream);
            reset(&server.0);
        }
        Ended::Left => {
            return Some(Handed {
                client: visitor.stream,
                from: visitor.from,
                server: Some(server),
                held,
                redis: None,
            });
        }
    }
    None
}

async fn run(visitor: &Visitor, server: &TcpStream, on_line: &OnLine<'_>, held: &mut Both, room: &Room) -> Ended {
    let counts = &room.board.counts;
    let moving = pump((&visitor.stream, server), held, &counts.meter, &room.pipes, room.table.idle);
    tokio::select! {
        // Whoever is told to end moves nothing more. What a direction holds then is lost with the connection.
        biased;
        () = on_line.cut.cancelled() => Ended::Reset,
        () = room.closing.cancelled() => Ended::Reset,
        () = visitor.leave.cancelled() => {
            room.refused(Refused::Room);
            Ended::Reset
        }
        () = room.leaving.cancelled() => Ended::Left,
        ended = moving => if ended.is_ok() { Ended::Whole } else { Ended::Reset },
    }
}

/// Waits until it is known whether a server is right still; how a connection ends for which it is not.
async fn confirm<'r>(line: &Line, visitor: &Visitor, room: &'r Room) -> Result<OnLine<'r>, Ended> {
    let is_kept = room.table.on_change == OnChange::Keep;
    let mut aims = room.aim.clone();
    tokio::select! {
        biased;
        () = room.closing.cancelled() => return Err(Ended::Reset),
        () = visitor.leave.cancelled() => {
            room.refused(Refused::Room);
            return Err(Ended::Reset);
        }
        () = room.leaving.cancelled() => return Err(Ended::Left),
        // Without anybody who could tell, the table is at its end.
        _ = aims.wait_for(|aim| is_kept || aim.is_known) => {}
    }
    room.lines.take_up(line, |line| verdict(line, &room.aim.borrow()).filter(|_| !is_kept)).map_err(|why| {
        room.board.counts.cut(why, 1);
        Ended::Reset
    })
}

/// Opens a connection to an endpoint that is right now; waits while there is none.
pub(super) async fn reach<'r>(visitor: &Visitor, room: &'r Room) -> Result<(TcpStream, OnLine<'r>), Failed> {
    let until = Instant::now() + room.table.wait;
    let mut aims = room.aim.clone();
    let mut tried: Vec<SocketAddr> = Vec::new();
    let mut parked = None;
    loop {
        let aim = Arc::clone(&aims.borrow_and_update());
        if room.leaving.is_cancelled() {
            return Err(Failed::Left);
        }
        while let Some(on_line) = room.lines.take(&aim, room.table.balance, &tried) {
            let address = on_line.address;
            match try_line(visitor, on_line, room).await? {
                Some(reached) => return Ok(reached),
                None if !is_right(&room.aim, address) => break, // the word has come meanwhile
                None => tried.push(address),
            }
        }
        if Instant::now() >= until {
            return Err(Failed::Refused(Refused::Wait));
        }
        let parked = parked.get_or_insert_with(|| room.park(visitor.from));
        // Where there is nothing to be tried, only a word helps.
        let again = if aim.open.is_empty() { until } else { until.min(Instant::now() + AGAIN) };
        wait(visitor, room, &parked.leave, &mut aims, again).await?;
        tried.clear();
    }
}

/// Tries one endpoint; none where it cannot be reached, or is not right any more.
async fn try_line<'r>(
    visitor: &Visitor,
    mut on_line: OnLine<'r>,
    room: &'r Room,
) -> Result<Option<(TcpStream, OnLine<'r>)>, Failed> {
    let address = on_line.address;
    let mut opened = open(visitor, address, room).await;
    if let (Err(error), Some(also)) = (&opened, on_line.also)
        && !is_of_host(error)
    {
        opened = open(visitor, also, room).await;
    }
    match opened {
        Ok(server) if is_right(&room.aim, address) && on_line.opened() => Ok(Some((server, on_line))),
        Ok(server) => {
            reset(&server);
            Ok(None)
        }
        Err(error) if is_of_host(&error) => Err(Failed::Refused(Refused::Host)),
        Err(_) => {
            room.lines.failed(address);
            room.board.counts.unreached.inc();
            Ok(None)
        }
    }
}

/// Waits for another word, for room on a line, or until it is time to try again.
async fn wait(
    visitor: &Visitor,
    room: &Room,
    leave: &CancellationToken,
    aims: &mut watch::Receiver<Arc<Aim>>,
    again: Instant,
) -> Result<(), Failed> {
    // Nothing is lost with a branch that is dropped: each only tells.
    tokio::select! {
        changed = aims.changed() => changed.map_err(|_| Failed::Gone),
        () = room.lines.freed.notified() => Ok(()),
        () = room.closing.cancelled() => Err(Failed::Gone),
        () = room.leaving.cancelled() => Err(Failed::Left),
        () = visitor.leave.cancelled() => Err(Failed::Refused(Refused::Room)),
        () = leave.cancelled() => Err(Failed::Refused(Refused::Room)),
        _ = visitor.stream.ready(Interest::ERROR) => Err(Failed::Gone),
        () = sleep_until(again) => Ok(()),
    }
}

/// Whether new connections may take this endpoint now.
fn is_right(aim: &watch::Receiver<Arc<Aim>>, address: SocketAddr) -> bool {
    aim.borrow().open.iter().any(|found| found.address == address)
}

async fn open(visitor: &Visitor, address: SocketAddr, room: &Room) -> io::Result<TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    let mut server = timeout(CONNECT, socket.connect(address)).await??;
    // Where nothing listens, a port of the ephemeral range can be given to this very socket, which then meets itself.
    if server.local_addr()? == address {
        reset(&server);
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    prepare(&server)?;
    let here = visitor.stream.local_addr()?;
    let header = header(room.table.send_proxy, visitor.from, here);
    if !header.is_empty() {
        timeout(CONNECT, server.write_all(&header)).await??;
    }
    Ok(server)
}

/// What both sides get: no delay, a question to a silent peer, an end for one that takes nothing.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE.0).with_interval(KEEPALIVE.1))?;
    socket.set_tcp_user_timeout(Some(UNTAKEN))
}

/// Ends a connection so that its peer learns of it at once, whatever is under way.
pub(super) fn reset(stream: &TcpStream) {
    // Where even this fails the connection has gone, or ends with its descriptor.
    let _gone = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// Takes back that a connection is reset when it is closed.
fn keep(stream: &TcpStream) {
    // Where even this fails the connection has gone.
    let _gone = SockRef::from(stream).set_linger(None);
}

/// Whether this host has run out of something, which no other endpoint would mend.
fn is_of_host(error: &io::Error) -> bool {
    let run_out = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL];
    Errno::from_io_error(error).is_some_and(|errno| run_out.contains(&errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_run_out_here_is_no_fault_of_an_endpoint() {
        assert!(is_of_host(&Errno::MFILE.into()) && is_of_host(&Errno::ADDRNOTAVAIL.into()));
        assert!(!is_of_host(&Errno::CONNREFUSED.into()) && !is_of_host(&io::ErrorKind::TimedOut.into()));
    }
}
