//! Moves the bytes of one connection, both ways, until both have ended.
//!
//! A few bytes are copied through a buffer that all connections of a thread share, so an idle connection holds none.
//! A direction that fills its buffer several times in a row is in full flow, and goes on through a pipe ([`splice`]).
//! An end of one side is passed on once all before it is; an error of either side ends both.
//!
//! What a direction holds at a time lies in [`Held`], beside the future that moves it: a pump that is dropped between
//! two turns has lost no byte and doubled none, and another process can go on with it.

mod pipe;
mod splice;

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::Shutdown;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::sleep;

use pipe::Lent;
pub(super) use pipe::Pipes;

/// A read of this size costs little more than a small one, and is what HAProxy and the kernel's own copy take.
const BUFFER: usize = 16 * 1024;
/// So many full reads in a row are a stream in full flow, for which a pipe is worth its four calls.
const FULL_FLOW: u32 = 4;
/// An idle connection is looked at so often within its time.
const LOOKS: u32 = 4;

thread_local! {
    static SHARED: RefCell<Box<[u8; BUFFER]>> = RefCell::new(Box::new([0; BUFFER]));
}

/// What is counted of a connection's bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    /// From the client to the server.
    pub(super) up: Counter,
    /// From the server to the client.
    pub(super) down: Counter,
}

/// What one direction has read and not written yet, and whether it has ended.
#[derive(Debug, Default)]
pub(super) struct Held {
    rest: Vec<u8>,
    pipe: Option<Lent>,
    is_over: bool,
}

/// What both directions hold.
#[derive(Debug, Default)]
pub(super) struct Both {
    /// From the client to the server.
    pub(super) up: Held,
    /// From the server to the client.
    pub(super) down: Held,
}

impl Held {
    /// One that another process has left.
    pub(super) fn left(rest: Vec<u8>, is_over: bool) -> Self {
        Self { rest, pipe: None, is_over }
    }

    /// The bytes that are not written yet, and whether the end has been passed on.
    pub(super) fn into_rest(self) -> io::Result<(Vec<u8>, bool)> {
        let rest = match self.pipe {
            Some(mut pipe) => pipe.read_out()?,
            None => self.rest,
        };
        Ok((rest, self.is_over))
    }
}

/// Moves bytes until both directions have ended, one side fails, or nothing has moved for `idle`.
pub(super) async fn pump(
    (client, server): (&TcpStream, &TcpStream),
    held: &mut Both,
    meter: &Meter,
    pipes: &Pipes,
    idle: Duration,
) -> io::Result<()> {
    let moved = AtomicU64::new(0);
    let up = Flow { from: client, to: server, held: &mut held.up, total: &meter.up, moved: &moved, pipes };
    let down = Flow { from: server, to: client, held: &mut held.down, total: &meter.down, moved: &moved, pipes };
    // What a dropped direction holds stays in `held`.
    tokio::select! {
        ended = async { tokio::try_join!(up.run(), down.run()) } => ended.map(|_| ()),
        () = standstill(&moved, idle) => Err(io::ErrorKind::TimedOut.into()),
    }
}

/// Comes back once nothing has moved for `idle`, or a quarter of it longer.
async fn standstill(moved: &AtomicU64, idle: Duration) {
    let (mut seen, mut still) = (moved.load(Ordering::Relaxed), 0);
    while still <= LOOKS {
        sleep(idle / LOOKS).await;
        let now = moved.load(Ordering::Relaxed);
        still = if now == seen { still + 1 } else { 1 };
        seen = now;
    }
}

/// One direction.
struct Flow<'a> {
    from: &'a TcpStream,
    to: &'a TcpStream,
    held: &'a mut Held,
    total: &'a Counter,
    moved: &'a AtomicU64,
    pipes: &'a Pipes,
}

/// What one turn of copying did.
enum Copied {
    /// There is nothing to be read.
    Nothing,
    /// The sender has ended.
    End,
    /// So many were read; what could not be written is held.
    Bytes(usize),
}

impl Flow<'_> {
    async fn run(mut self) -> io::Result<()> {
        if self.held.is_over {
            return Ok(());
        }
        self.write_rest().await?;
        let mut full = 0;
        loop {
            self.readable().await?;
            let read = match self.copy()? {
                Copied::Nothing => continue,
                Copied::End => break,
                Copied::Bytes(read) => read,
            };
            self.write_rest().await?;
            full = if read == BUFFER { full + 1 } else { 0 };
            if full >= FULL_FLOW {
                full = 0;
                if self.flow_through_pipes().await? {
                    break;
                }
            }
        }
        // Whatever was read has been written: the end comes after it.
        self.held.is_over = true;
        match SockRef::from(self.to).shutdown(Shutdown::Write) {
            // That side has gone altogether; the direction from it tells how.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            done => done,
        }
    }

    /// Each side of a socket has one task that waits for it, so the one place that tokio has for such a task will do.
    async fn readable(&self) -> io::Result<()> {
        poll_fn(|context| self.from.poll_read_ready(context)).await
    }

    async fn writable(&self) -> io::Result<()> {
        poll_fn(|context| self.to.poll_write_ready(context)).await
    }

    fn count(&self, bytes: usize) {
        self.total.inc_by(bytes as u64);
        self.moved.fetch_add(1, Ordering::Relaxed);
    }

    fn copy(&mut self) -> io::Result<Copied> {
        SHARED.with_borrow_mut(|buffer| {
            let read = match read(self.from, &mut buffer[..]) {
                Ok(0) => return Ok(Copied::End),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Copied::Nothing),
                Err(error) => return Err(error),
            };
            self.count(read);
            let written = match write(self.to, &buffer[..read]) {
                Ok(written) => written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            self.held.rest.extend_from_slice(&buffer[written..read]);
            Ok(Copied::Bytes(read))
        })
    }

    async fn write_rest(&mut self) -> io::Result<()> {
        while !self.held.rest.is_empty() {
            self.writable().await?;
            match write(self.to, &self.held.rest) {
                Ok(written) => {
                    self.held.rest.drain(..written);
                    self.moved.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        // An idle connection holds no memory for what it once could not write.
        self.held.rest = Vec::new();
        Ok(())
    }
}

/// Reads what is there. A short read has emptied the socket, so the next one waits to be told instead of asking: the
/// readiness that is cleared is the one from before the read, so what comes meanwhile is not missed.
pub(super) fn read(from: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut short = None;
    let whole = from.try_io(Interest::READABLE, || {
        let (read, _) = again(|| rustix::net::recv(from, &mut *buffer, RecvFlags::DONTWAIT))?;
        if read > 0 && read < buffer.len() {
            short = Some(read);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(read)
    });
    short.map_or(whole, Ok)
}

pub(super) fn write(to: &TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    to.try_io(Interest::WRITABLE, || again(|| rustix::net::send(to, bytes, flags)))
}

/// Repeats a call that a signal has interrupted.
fn again<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            done => return done.map_err(io::Error::from),
        }
    }
}
