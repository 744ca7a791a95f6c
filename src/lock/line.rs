//! What `wharf lock` and its guardian tell each other: a line of JSON each, over a socket that both hold.
//!
//! The guardian's own standard input is this socket; the one that the program is to have comes over it first.

use std::io::{self, IoSlice, IoSliceMut, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};

/// The longest line: an environment of our own making.
const LONGEST: usize = 64 * 1024;

/// What the guardian is told. Times are of CLOCK_BOOTTIME.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Order {
    /// Until when the program may run, and when it is asked to end.
    Hold { deadline: Duration, term: Duration },
    /// The program starts, with this added to its environment.
    Go { environment: Vec<(String, String)> },
    /// The program gets this signal.
    Signal(i32),
    /// All that the program has started is ended now.
    Kill,
}

/// What the guardian tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The program's process is there, and waits: its id, and the control group of its own, if there is one.
    Held { child: i32, group: Option<PathBuf> },
    /// Nothing of it is left.
    Ended { how: How, killed: bool },
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum How {
    Exited(i32),
    Signalled(i32),
}

impl How {
    /// As a shell tells it.
    pub(super) fn code(self) -> u8 {
        let code = match self {
            Self::Exited(code) => code,
            Self::Signalled(signal) => 128 + signal,
        };
        u8::try_from(code).unwrap_or(u8::MAX)
    }
}

/// One line, as it goes over the socket.
pub(super) fn encode(word: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(word).expect("its keys are text");
    line.push(b'\n');
    line
}

/// Takes whole lines out of what was read so far; one that cannot be read ends the conversation.
pub(super) fn decode<T: for<'d> Deserialize<'d>>(read: &mut Vec<u8>) -> io::Result<Option<T>> {
    let Some(end) = read.iter().position(|byte| *byte == b'\n') else {
        return if read.len() > LONGEST { Err(io::ErrorKind::InvalidData.into()) } else { Ok(None) };
    };
    let line: Vec<u8> = read.drain(..=end).collect();
    Ok(Some(serde_json::from_slice(&line)?))
}

/// Sends a descriptor ahead of everything else.
pub(super) fn send_descriptor(line: &UnixStream, descriptor: impl AsFd) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = [descriptor.as_fd()];
    ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
    sendmsg(line, &[IoSlice::new(b"\n")], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Gets it.
pub(super) fn receive_descriptor(line: &UnixStream) -> io::Result<OwnedFd> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(line, &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    descriptors.flatten().next().ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// The socket that this process was given for its standard input.
pub(super) fn inherited() -> io::Result<UnixStream> {
    Ok(UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// Reads what is there; false when the other side is gone.
pub(super) fn take(line: &mut UnixStream, read: &mut Vec<u8>) -> bool {
    let mut buffer = [0; 4096];
    match line.read(&mut buffer) {
        Ok(0) => false,
        Ok(length) => {
            read.extend_from_slice(&buffer[..length]);
            true
        }
        Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive_whole() {
        let go = Order::Go { environment: vec![("A".into(), "x\ny".into())] };
        let mut bytes = encode(&go);
        bytes.extend(encode(&Order::Kill));
        let rest = bytes.split_off(5);
        assert_eq!(decode::<Order>(&mut bytes).expect("a part"), None);
        bytes.extend(rest);
        assert_eq!(decode(&mut bytes).expect("it reads"), Some(go));
        assert_eq!(decode(&mut bytes).expect("it reads"), Some(Order::Kill));
        assert_eq!(decode::<Order>(&mut bytes).expect("nothing"), None);
        assert!(decode::<Order>(&mut vec![b'x'; LONGEST + 1]).is_err());
    }

    #[test]
    fn a_descriptor_goes_over() {
        let (one, other) = UnixStream::pair().expect("a pair");
        let (read, write) = std::io::pipe().expect("a pipe");
        send_descriptor(&one, &write).expect("sent");
        drop(write);
        let got = receive_descriptor(&other).expect("received");
        drop(got);
        let mut all = vec![];
        std::fs::File::from(OwnedFd::from(read)).read_to_end(&mut all).expect("closed with what went over");
    }

    #[test]
    fn codes_are_a_shells() {
        assert_eq!((How::Exited(3).code(), How::Signalled(9).code(), How::Exited(-1).code()), (3, 137, 255));
    }
}
