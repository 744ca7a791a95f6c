//! Open sockets that outlast this process: they are left with the service manager and come back to the next one.
//!
//! The manager compares each descriptor that it is given with all that it has, so thousands of them would keep it busy
//! for a minute. It is given one end of a few pairs of unix sockets instead (all named [`NAME`]), in whose queues the
//! descriptors lie, at most [`PORTION`] a message. Before them lies a memfd that tells what they are. Whoever closes
//! the pair closes all that lies in it.

use std::io::{self, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::time::Duration;
use std::{env, fs::File};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};
use tokio::time::{Instant, sleep, timeout};

/// The name that marks what was left.
pub(crate) const NAME: &str = "p";
/// The kernel takes 253 descriptors in one message.
const PORTION: usize = 250;
/// How long the manager may take to be told. It has other units to care for, and a stop has its own limit.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a full queue is left alone.
const AGAIN: Duration = Duration::from_millis(1);
/// What a message begins with: the memfd, or sockets.
const MEMO: u8 = b'm';
const SOCKETS: u8 = b's';

/// What came back from the process before.
#[derive(Debug, Default)]
pub(crate) struct Left {
    /// What was written of the sockets.
    pub(crate) memo: Vec<u8>,
    /// The sockets, in the order in which they were left.
    pub(crate) sockets: Vec<OwnedFd>,
}

/// Whether the manager keeps descriptors for us (`FileDescriptorStoreMax=`). From version 254 on it says so by itself;
/// before that the unit does.
pub(crate) fn is_offered() -> bool {
    let offered = env::var("FDSTORE").ok().and_then(|most| most.parse::<u64>().ok());
    env::var_os("NOTIFY_SOCKET").is_some() && offered.is_some_and(|most| most > 0)
}

/// Leaves sockets to the next process, and what is to be known of them. They must stay open until this has come back.
pub(crate) async fn leave(memo: &[u8], sockets: &[BorrowedFd<'_>]) -> io::Result<()> {
    let manager = Manager::connect()?;
    let until = Instant::now() + PATIENCE;
    let file = written(memo)?;
    let (mut into, out) = UnixStream::pair()?;
    send(&into, MEMO, &[file.as_fd()])?;
    let mut outs = vec![out];
    for portion in sockets.chunks(PORTION) {
        if let Err(error) = send(&into, SOCKETS, portion) {
            if error.kind() != io::ErrorKind::WouldBlock {
                return Err(error);
            }
            // The queue of this pair is full.
            let (another, out) = UnixStream::pair()?;
            send(&another, SOCKETS, portion)?;
            outs.push(out);
            into = another;
        }
    }
    // The manager gives back what it has in the order in which it got it, or in any other.
    for out in &outs {
        manager.tell(&format!("FDSTORE=1\nFDNAME={NAME}\nFDPOLL=0"), &[out.as_fd()], until).await?;
    }
    manager.barrier(until).await
}

/// Takes up what was left; none where it is not whole.
pub(crate) fn take(pairs: Vec<OwnedFd>) -> Option<Left> {
    let mut left = Left::default();
    let mut memo = None;
    for pair in pairs {
        let pair = UnixStream::from(pair);
        while let Ok(Some((kind, fds))) = receive(&pair) {
            match kind {
                MEMO => memo = fds.into_iter().next(),
                _ => left.sockets.extend(fds),
            }
        }
    }
    let mut file = File::from(memo?);
    file.rewind().ok()?;
    file.read_to_end(&mut left.memo).ok()?;
    Some(left)
}

/// Tells the manager that nothing of it is needed any more: what runs on is ours alone, and ends with us.
pub(crate) fn forget() {
    let told = Manager::connect()
        .and_then(|manager| manager.0.send(format!("FDSTOREREMOVE=1\nFDNAME={NAME}").as_bytes()).map(drop));
    if let Err(error) = told {
        tracing::warn!(%error, "the service manager does not let go of sockets");
    }
}

fn written(memo: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("wharf-proxies", MemfdFlags::CLOEXEC)?);
    file.write_all(memo)?;
    Ok(file)
}

fn send(into: &UnixStream, kind: u8, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    send_with(into.as_fd(), &[kind], fds)
}

fn send_with(into: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PORTION))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::sendmsg(into, &[io::IoSlice::new(bytes)], &mut control, flags)?;
    Ok(())
}

/// The next message that lies in a pair; none at its end.
fn receive(pair: &UnixStream) -> io::Result<Option<(u8, Vec<OwnedFd>)>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PORTION))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut kind = [0];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let got = rustix::net::recvmsg(pair, &mut [io::IoSliceMut::new(&mut kind)], &mut control, flags)?;
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    let fds = rights.flatten().collect();
    Ok((got.bytes > 0).then_some((kind[0], fds)))
}

/// The line to the service manager.
struct Manager(UnixDatagram);

impl Manager {
    fn connect() -> io::Result<Self> {
        let path = env::var_os("NOTIFY_SOCKET").ok_or(io::ErrorKind::NotFound)?;
        let socket = UnixDatagram::unbound()?;
        match path.as_bytes().strip_prefix(b"@") {
            Some(name) => socket.connect_addr(&SocketAddr::from_abstract_name(name)?)?,
            None => socket.connect(&path)?,
        }
        Ok(Self(socket))
    }

    /// Tells it something; a queue that is full is waited for.
    async fn tell(&self, text: &str, fds: &[BorrowedFd<'_>], until: Instant) -> io::Result<()> {
        loop {
            match send_with(self.0.as_fd(), text.as_bytes(), fds) {
                // So many descriptors may be on their way at a time as one process may have.
                Err(error) if is_full(&error) && Instant::now() < until => sleep(AGAIN).await,
                done => return done,
            }
        }
    }

    /// Waits until it has read all that it was told: who is gone by then is not believed any more.
    async fn barrier(&self, until: Instant) -> io::Result<()> {
        let (read, write) = io::pipe()?;
        self.tell("BARRIER=1", &[write.as_fd()], until).await?;
        drop(write);
        let mut read = tokio::net::unix::pipe::Receiver::from_owned_fd(read.into())?;
        let closed = async { tokio::io::AsyncReadExt::read(&mut read, &mut [0]).await.map(drop) };
        timeout(until.saturating_duration_since(Instant::now()), closed).await?
    }
}

fn is_full(error: &io::Error) -> bool {
    let full = [Errno::AGAIN, Errno::NOBUFS, Errno::TOOMANYREFS];
    Errno::from_io_error(error).is_some_and(|errno| full.contains(&errno))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn what_lies_in_a_pair_comes_out_in_its_order() {
        let (into, out) = UnixStream::pair().unwrap();
        let file = written(b"memo").unwrap();
        let sockets: Vec<UdpSocket> = (0..3).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
        send(&into, MEMO, &[file.as_fd()]).unwrap();
        send(&into, SOCKETS, &[sockets[0].as_fd(), sockets[1].as_fd()]).unwrap();
        send(&into, SOCKETS, &[sockets[2].as_fd()]).unwrap();
        drop(into);
        let left = take(vec![out.into()]).unwrap();
        assert_eq!(left.memo, b"memo");
        let at: Vec<_> = left.sockets.into_iter().map(|fd| UdpSocket::from(fd).local_addr().unwrap()).collect();
        assert_eq!(at, sockets.iter().map(|socket| socket.local_addr().unwrap()).collect::<Vec<_>>());
    }

    #[test]
    fn sockets_without_a_memo_are_not_taken() {
        let (into, out) = UnixStream::pair().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        send(&into, SOCKETS, &[socket.as_fd()]).unwrap();
        drop(into);
        assert!(take(vec![out.into()]).is_none());
    }
}
