//! What to ask: from a check to an exchange with its server, and from what that said to an outcome.
//!
//! Where a protocol has two dialects (text and binary, plain and TLS), the one that answered last is asked first, and
//! alone while the server is known to be well. One deadline holds for all of it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use crate::model::health::Outcome;
use crate::model::instance::{CheckKind, Instance};
use crate::model::record::Role;
use crate::wire::connection::Connection;
use crate::wire::{WireError, memcached, redis, tcp};

/// One probe to be made.
#[derive(Debug)]
pub(super) struct Question {
    /// Of which instance.
    pub(super) instance: Arc<Instance>,
    /// Where to.
    pub(super) target: SocketAddr,
    /// How long it may take.
    pub(super) timeout: Duration,
    /// It has never served: servers that are about to come up are asked with less patience, because they are asked
    /// again at once.
    pub(super) first: bool,
    /// It does not serve now: what is remembered of it may not hold any more.
    pub(super) unsure: bool,
}

/// What is remembered of a server from one probe to the next.
#[derive(Debug, Default)]
pub(super) struct Memo {
    dialect: Option<Dialect>,
}

/// One of the two ways to speak a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    /// Text, or without TLS.
    Usual,
    /// Binary, or over TLS.
    Other,
}

impl Dialect {
    fn another(self) -> Self {
        match self {
            Self::Usual => Self::Other,
            Self::Other => Self::Usual,
        }
    }
}

/// What became of a question.
#[derive(Debug)]
pub(super) enum Answer {
    /// The server's part.
    Heard(Outcome),
    /// This host could not ask; nothing follows for the server.
    Unasked(WireError),
}

/// Asks.
pub(super) async fn ask(question: &Question, memo: &mut Memo) -> Answer {
    let deadline = Instant::now() + question.timeout;
    match timeout_at(deadline, exchange(question, memo)).await {
        Ok(Ok(outcome)) => Answer::Heard(outcome),
        Ok(Err(error)) if error.is_local() => Answer::Unasked(error),
        Ok(Err(error)) => Answer::Heard(Outcome::fails(error.to_string())),
        Err(_) => Answer::Heard(Outcome::fails(format!("no answer within {:?}", question.timeout))),
    }
}

async fn exchange(question: &Question, memo: &mut Memo) -> Result<Outcome, WireError> {
    match question.instance.check.kind {
        CheckKind::Tcp => {
            let hold = Duration::from_millis(50).min(question.timeout / 2);
            tcp::stays_open(question.target, hold).await.map(|()| Outcome::serves())
        }
        CheckKind::Memcached | CheckKind::Redis => in_dialects(question, memo).await,
        CheckKind::None
        | CheckKind::Postgres
        | CheckKind::Http
        | CheckKind::Zookeeper
        | CheckKind::Mysql
        | CheckKind::Mongodb => Err(WireError::Unaskable("no such check yet")),
    }
}

async fn in_dialect(question: &Question, dialect: Dialect) -> Result<Outcome, WireError> {
    match question.instance.check.kind {
        CheckKind::Memcached => ask_memcached(question, dialect).await,
        _ => ask_redis(question, dialect).await,
    }
}

/// Asks in the dialect that answered last; in the other one too where none has, or where the server is not well.
async fn in_dialects(question: &Question, memo: &mut Memo) -> Result<Outcome, WireError> {
    let first = memo.dialect.unwrap_or(Dialect::Usual);
    if memo.dialect.is_some() && !question.unsure {
        return in_dialect(question, first).await;
    }
    let patience = if question.first { question.timeout.min(Duration::from_millis(200)) } else { question.timeout } / 2;
    let error = match timeout(patience, in_dialect(question, first)).await {
        Ok(Ok(outcome)) => {
            memo.dialect = Some(first);
            return Ok(outcome);
        }
        Ok(Err(error)) if !error.is_misunderstanding() => return Err(error),
        Ok(Err(error)) => Some(error),
        Err(_) => None,
    };
    match (in_dialect(question, first.another()).await, error) {
        (Ok(outcome), _) => {
            memo.dialect = Some(first.another());
            Ok(outcome)
        }
        (Err(_), Some(error)) | (Err(error), None) => Err(error),
    }
}

async fn ask_memcached(question: &Question, dialect: Dialect) -> Result<Outcome, WireError> {
    let mut connection = Connection::open(question.target).await?;
    let reply = match dialect {
        Dialect::Usual => memcached::version_by_text(&mut connection).await?,
        Dialect::Other => memcached::version_by_binary(&mut connection).await?,
    };
    connection.leave_at_once();
    Ok(match reply {
        memcached::Reply::Version => Outcome::serves(),
        memcached::Reply::WantsLogin => Outcome::serves().with_words("wants a login"),
        memcached::Reply::Full => Outcome::full("too many open connections"),
        memcached::Reply::Refused(words) => Outcome::fails(format!("refused: {words}")),
    })
}

async fn ask_redis(question: &Question, dialect: Dialect) -> Result<Outcome, WireError> {
    let mut connection = match dialect {
        Dialect::Usual => Connection::open(question.target).await?,
        Dialect::Other => Connection::open_tls(question.target).await?,
    };
    let reply = redis::ask(&mut connection, None).await?;
    connection.leave_at_once();
    Ok(judge_redis(reply))
}

/// What a Redis server's words mean for those who want to use it.
fn judge_redis(reply: redis::Reply) -> Outcome {
    let state = reply.replication;
    let role = match state.replica {
        _ if state.cluster => None,
        Some(true) => Some(Role::Replica),
        Some(false) => Some(Role::Primary),
        None => None,
    };
    let outcome = match reply.word {
        redis::Word::Loading => return Outcome::fails("loading its data"),
        redis::Word::MasterDown => {
            return Outcome::fails("a replica whose primary is gone").with_role(Some(Role::Replica));
        }
        redis::Word::Refused(code) => return Outcome::fails(format!("refused: {code}")),
        redis::Word::Full => return Outcome::full("max number of clients reached"),
        redis::Word::NoAuth => return Outcome::serves().with_role(None).with_words("wants a login: role unknown"),
        redis::Word::ReadOnly => Outcome::serves().with_words("refuses writes: it cannot save"),
        redis::Word::Pong if reply.login_refused => Outcome::serves().with_words("login refused"),
        redis::Word::Pong => Outcome::serves(),
    };
    match state.replica {
        Some(true) if state.syncing => Outcome::fails("a replica that is syncing").with_role(role),
        Some(true) if state.link_down => Outcome::fails("a replica whose link to its primary is down").with_role(role),
        _ => outcome.with_role(role),
    }
}
