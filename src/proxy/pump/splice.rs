//! A direction in full flow: bytes go from socket to pipe to socket without being copied to this process.
//!
//! The pipe is filled only while it is empty, so "try again" of its filling always speaks of the socket, and that of
//! its emptying of the other socket; else one would wait for the wrong side, and spin.

use std::io;

use rustix::pipe::{SpliceFlags, splice};
use tokio::io::Interest;

use super::pipe::Lent;
use super::{BUFFER, Flow, again};

/// So many small portions in a row, and the stream is copied again.
const TRICKLE: u32 = 8;

/// What one turn brought.
enum Filled {
    Nothing,
    End,
    Bytes(usize),
}

impl Flow<'_> {
    /// Goes on through pipes as long as much comes; whether the sender has ended.
    pub(super) async fn flow_through_pipes(&mut self) -> io::Result<bool> {
        let mut small = 0;
        while small < TRICKLE {
            self.readable().await?;
            // A pipe is held while bytes move only: a stream that pauses leaves it to others.
            let Some(mut pipe) = self.pipes.lend() else { return Ok(false) };
            match self.fill(&mut pipe)? {
                Filled::Nothing => {}
                Filled::End => return Ok(true),
                Filled::Bytes(bytes) => {
                    small = if bytes < BUFFER { small + 1 } else { 0 };
                    self.held.pipe = Some(pipe);
                    self.empty().await?;
                }
            }
        }
        Ok(false)
    }

    fn fill(&self, pipe: &mut Lent) -> io::Result<Filled> {
        let (_, into, size) = pipe.ends();
        let flags = SpliceFlags::MOVE | SpliceFlags::NONBLOCK;
        let moved = self.from.try_io(Interest::READABLE, || again(|| splice(self.from, None, into, None, size, flags)));
        match moved {
            Ok(0) => Ok(Filled::End),
            Ok(bytes) => {
                pipe.inside = bytes;
                self.count(bytes);
                Ok(Filled::Bytes(bytes))
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Filled::Nothing),
            Err(error) => Err(error),
        }
    }

    /// Empties the pipe that is held, and gives it back.
    async fn empty(&mut self) -> io::Result<()> {
        while self.held.pipe.as_ref().is_some_and(|pipe| pipe.inside > 0) {
            self.writable().await?;
            self.empty_once()?;
        }
        self.held.pipe = None;
        Ok(())
    }

    fn empty_once(&mut self) -> io::Result<()> {
        let Some(pipe) = &mut self.held.pipe else { return Ok(()) };
        let (out, _, _) = pipe.ends();
        let (inside, flags) = (pipe.inside, SpliceFlags::MOVE | SpliceFlags::NONBLOCK);
        let moved = self.to.try_io(Interest::WRITABLE, || again(|| splice(out, None, self.to, None, inside, flags)));
        match moved {
            // A pipe that holds bytes and gives none is not one to go on with.
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => {
                pipe.inside -= bytes;
                self.moved.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) => Err(error),
        }
    }
}
