//! One table at work: it listens, lets connections in, and cuts those that are not right any more.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Table;
use super::hall::Hall;
use super::handed::Legacy;
use super::listen::Listeners;
use super::metrics::Refused;
use super::room::Room;
use super::session;
use crate::catalog::proxy::OnChange;
use crate::host::clients::{Failing, is_of_client};

/// How long it is before an address that cannot be listened on is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// One table.
pub(super) struct AtWork {
    tables: watch::Receiver<Arc<Table>>,
    room: Arc<Room>,
    listeners: Listeners,
    hall: Hall,
    failing: Failing,
    problem: Option<String>,
}

impl AtWork {
    /// A table with its sockets bound, as far as they can be, that goes on with what the process before has left.
    pub(super) fn new(tables: watch::Receiver<Arc<Table>>, room: Room, left: Legacy) -> Self {
        let mut hall = Hall::new(room.table.max_connections);
        let (listeners, room) = (Listeners::of(left.listeners), Arc::new(room));
        for handed in left.connections {
            hall.take_up(handed, &room);
        }
        let mut at_work = Self { tables, room, listeners, hall, failing: Failing::default(), problem: None };
        let problem = at_work.listeners.want(&at_work.room.table.listen);
        at_work.listens(problem);
        at_work.judge();
        at_work
    }

    /// Serves until `stop`, and gives those that are there then their time; or until it leaves all to the next process.
    pub(super) async fn run(mut self, stop: CancellationToken) -> Legacy {
        let mut aim = self.room.aim.clone();
        let leaving = self.room.leaving.clone();
        loop {
            // Nothing is lost with a branch that is dropped: an accept that is not done has taken nobody, and what
            // changed stays so.
            tokio::select! {
                () = stop.cancelled() => break,
                () = leaving.cancelled() => return self.leave().await,
                Ok(()) = aim.changed() => self.judge(),
                Ok(()) = self.tables.changed() => self.adopt(),
                Some(()) = self.hall.next_end() => {}
                () = sleep(AGAIN), if self.listeners.is_incomplete() => self.bind(),
                () = self.failing.over(), if self.failing.is_pausing() => self.failing.go_on(),
                accepted = self.listeners.accept(), if !self.failing.is_pausing() => match accepted {
                    Ok((stream, from)) => {
                        self.failing.passed(Instant::now());
                        self.let_in(stream, from);
                    }
                    Err(error) if is_of_client(&error) => {}
                    Err(error) => {
                        self.failing.pause(&error, Instant::now());
                        self.hall.make_room();
                    }
                },
            }
        }
        self.end().await;
        Legacy::default()
    }

    async fn leave(self) -> Legacy {
        Legacy { listeners: self.listeners.into_left(), connections: self.hall.leave().await }
    }

    /// Lets in nobody any more; those that are there have their time, unless they are cut, and are reset then.
    async fn end(mut self) {
        self.listeners = Listeners::default();
        self.listens(None);
        let until = Instant::now() + self.tables.borrow().drain;
        let mut aim = self.room.aim.clone();
        loop {
            tokio::select! {
                ended = self.hall.next_end() => if ended.is_none() { break },
                Ok(()) = aim.changed() => self.judge(),
                () = sleep_until(until) => break,
            }
        }
        self.room.closing.cancel();
        self.hall.close().await;
    }

    fn let_in(&mut self, stream: TcpStream, from: std::net::SocketAddr) {
        let ip = from.ip().to_canonical();
        if self.room.table.allow.iter().any(|network| network.contains(&ip)) {
            return self.hall.let_in(stream, from, &self.room);
        }
        self.room.refused(Refused::Allow);
        session::reset(&stream);
    }

    /// Takes other settings: those that come go by them, those that are there by the old ones.
    fn adopt(&mut self) {
        let table = Arc::clone(&self.tables.borrow_and_update());
        self.hall.set_limit(table.max_connections);
        let problem = self.listeners.want(&table.listen);
        self.room = Arc::new(Room { table, ..Room::clone(&self.room) });
        self.listens(problem);
    }

    fn bind(&mut self) {
        let problem = self.listeners.bind();
        self.listens(problem);
    }

    fn listens(&mut self, problem: Option<String>) {
        let addresses = self.listeners.addresses();
        if self.problem != problem {
            match &problem {
                Some(problem) => tracing::warn!(problem, "an ambassador does not listen everywhere, trying again"),
                None => tracing::info!(?addresses, "the ambassador listens everywhere again"),
            }
            self.problem.clone_from(&problem);
        }
        self.room.board.listens(&addresses, problem);
    }

    /// Goes by what is known now.
    fn judge(&mut self) {
        let aim = Arc::clone(&self.room.aim.borrow());
        self.room.board.aims(&aim);
        if self.room.table.on_change == OnChange::Keep {
            return;
        }
        for (server, why, connections) in self.room.lines.judge(&aim) {
            self.room.board.counts.cut(why, connections);
            tracing::info!(%server, why = why.as_str(), connections, "connections cut");
        }
    }
}
