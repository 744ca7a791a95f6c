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

use super::lines::OnLine;
use super::metrics::Refused;
use super::pump::pump;
use super::room::Room;
use crate::catalog::proxy::{Aim, header};
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
enum Failed {
    Refused(Refused),
    /// Its client has gone.
    Gone,
}

/// Serves one connection to its end.
pub(super) async fn serve(visitor: Visitor, room: Arc<Room>) {
    if prepare(&visitor.stream).is_err() {
        return reset(&visitor.stream); // it has gone already
    }
    let (server, on_line) = match reach(&visitor, &room).await {
        Ok(reached) => reached,
        Err(failed) => {
            if let Failed::Refused(why) = failed {
                room.refused(why);
            }
            return reset(&visitor.stream);
        }
    };
    let _running = Counted::new(room.board.counts.connections.clone());
    if run(&visitor, &server, &on_line, &room).await.is_err() {
        reset(&visitor.stream);
        reset(&server);
    }
}

async fn run(visitor: &Visitor, server: &TcpStream, on_line: &OnLine<'_>, room: &Room) -> io::Result<()> {
    let idle = room.table.idle;
    let ended = || io::Error::from(io::ErrorKind::ConnectionAborted);
    tokio::select! {
        // Whoever is told to end moves nothing more. What a direction holds then is lost with the connection.
        biased;
        () = on_line.cut.cancelled() => Err(ended()),
        () = room.closing.cancelled() => Err(ended()),
        () = visitor.leave.cancelled() => {
            room.refused(Refused::Room);
            Err(ended())
        }
        ended = pump(&visitor.stream, server, &room.board.counts.meter, &room.pipes, idle) => ended,
    }
}

/// Opens a connection to an endpoint that is right now; waits while there is none.
async fn reach<'r>(visitor: &Visitor, room: &'r Room) -> Result<(TcpStream, OnLine<'r>), Failed> {
    let until = Instant::now() + room.table.wait;
    let mut aims = room.aim.clone();
    let mut tried: Vec<SocketAddr> = Vec::new();
    let mut parked = None;
    loop {
        let aim = Arc::clone(&aims.borrow_and_update());
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
    match open(visitor, address, room).await {
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
