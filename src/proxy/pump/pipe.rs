//! Pipes to move bytes through, shared by all connections of a process.
//!
//! Their number is bounded: who finds none copies instead. Only an empty pipe comes back; one that still holds bytes
//! when its stream ends is closed, or another stream would be sent them.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::again;
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

/// What unprivileged users may have at their full size by default (`fs.pipe-user-pages-soft`): 64 MiB.
const MOST: usize = 64;
/// Pipes that are kept open while nobody needs them.
const SPARE: usize = 8;
/// What one holds at most: larger ones were not faster, and smaller ones cost more calls.
const SIZES: [usize; 2] = [1024 * 1024, 256 * 1024];
/// One that the kernel has made smaller, as beyond the user's bound, is slower than copying.
const SMALLEST: usize = 64 * 1024;

/// A pipe with nothing in it.
#[derive(Debug)]
struct Pipe {
    out: OwnedFd,
    into: OwnedFd,
    size: usize,
}

#[derive(Debug, Default)]
struct Stock {
    spare: Vec<Pipe>,
    lent: usize,
}

/// The pipes of a process.
#[derive(Clone, Debug, Default)]
pub(in crate::proxy) struct Pipes(Arc<Mutex<Stock>>);

/// A pipe that is lent.
#[derive(Debug)]
pub(super) struct Lent {
    pipe: Option<Pipe>,
    pipes: Pipes,
    /// Bytes in it.
    pub(super) inside: usize,
}

impl Pipes {
    /// Lends one; none where all are in use or none can be made.
    pub(super) fn lend(&self) -> Option<Lent> {
        let mut stock = self.stock();
        let pipe = match stock.spare.pop() {
            Some(pipe) => pipe,
            None if stock.lent < MOST => Pipe::open().ok()?,
            None => return None,
        };
        stock.lent += 1;
        Some(Lent { pipe: Some(pipe), pipes: self.clone(), inside: 0 })
    }

    fn stock(&self) -> MutexGuard<'_, Stock> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are lent, and how many are kept.
    #[cfg(test)]
    fn counts(&self) -> (usize, usize) {
        let stock = self.stock();
        (stock.lent, stock.spare.len())
    }
}

impl Pipe {
    fn open() -> io::Result<Self> {
        let (out, into) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        let sized = SIZES.iter().any(|size| fcntl_setpipe_size(&into, *size).is_ok());
        let size = fcntl_getpipe_size(&into)?;
        if !sized && size < SMALLEST {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        Ok(Self { out, into, size })
    }
}

impl Lent {
    /// The end that bytes come out of, the one that they go into, and how many fit.
    pub(super) fn ends(&self) -> (&OwnedFd, &OwnedFd, usize) {
        let pipe = self.pipe.as_ref().expect("it is taken out when this is dropped, and not before");
        (&pipe.out, &pipe.into, pipe.size)
    }

    /// Takes out what is in it.
    pub(super) fn read_out(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.inside];
        let mut read = 0;
        while read < bytes.len() {
            match again(|| rustix::io::read(self.ends().0, &mut bytes[read..]))? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                some => read += some,
            }
        }
        self.inside = 0;
        Ok(bytes)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut stock = self.pipes.stock();
        stock.lent -= 1;
        if self.inside == 0 && stock.spare.len() < SPARE {
            stock.spare.extend(self.pipe.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_empty_pipes_come_back_and_their_number_is_bounded() {
        let pipes = Pipes::default();
        let mut used = pipes.lend().expect("a pipe");
        let out = used.ends().2;
        assert!(out >= SMALLEST);
        used.inside = 1;
        drop(used);
        assert_eq!(pipes.counts(), (0, 0), "one that holds bytes is closed");
        drop(pipes.lend().expect("a pipe"));
        assert_eq!(pipes.counts(), (0, 1));
        let lent: Vec<Lent> = std::iter::from_fn(|| pipes.lend()).collect();
        assert!(!lent.is_empty() && lent.len() <= MOST);
        drop(lent);
        assert_eq!(pipes.counts().0, 0);
        assert!(pipes.counts().1 <= SPARE);
    }
}
