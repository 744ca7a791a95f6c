//! No protocol: a connection that stays open. All that it proves is that something accepts and does not hang up.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::time::sleep;

use super::WireError;
use super::connection::connect;

/// Connects to `target` and sees whether the connection is still open after `hold`.
pub async fn stays_open(target: SocketAddr, hold: Duration) -> Result<(), WireError> {
    let stream = connect(target).await.map_err(WireError::Connect)?;
    sleep(hold).await;
    // Asked of the kernel rather than read: what the server sends in the meantime is of no interest, however much.
    let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
    let mut fds = [PollFd::new(&stream, gone)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut fds, Some(&now)).map_err(|errno| WireError::Broken(errno.into()))?;
    if fds[0].revents().intersects(gone) { Err(WireError::Closed) } else { Ok(()) }
}
