//! What to ask: from a check to an exchange with its server, and from what that said to an outcome.
//!
//! Where a protocol has two dialects (text and binary, plain and TLS), the one that answered last is asked first, and
//! alone while the server is known to be well. One deadline holds for all of it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout, timeout_at};

use super::confide::confide;
use super::secret::Keyring;
use super::{postgres, redis};
use crate::host::{Secrets, Whereabouts, whereabouts};
use crate::model::health::{Outcome, Verdict};
use crate::model::offer::instance::{CheckDetail, CheckKind, Instance};
use crate::model::words::node::NO_QUORUM;
use crate::model::words::record::Role;
use crate::wire::connection::Connection;
use crate::wire::{WireError, http, memcached, mongodb, mysql, tcp, zookeeper};

/// How long a connection to this very host may take while its server is about to come up.
const QUICK_CONNECT: Duration = Duration::from_millis(100);

/// How long the first of two dialects may stay silent while a server is about to come up.
const QUICK_DIALECT: Duration = Duration::from_millis(100);

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
    /// Where password files are.
    pub(super) secrets: Arc<Secrets>,
    /// The engine answers, so what it says of containers holds.
    pub(super) engine: bool,
}

/// What is remembered of a server from one probe to the next.
#[derive(Debug, Default)]
pub(super) struct Memo {
    dialect: Option<Dialect>,
    pub(super) keyring: Keyring,
    pub(super) postgres: postgres::Memo,
}

/// One of the two ways to speak a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
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

/// What was heard in one dialect.
#[derive(Debug)]
pub(super) enum Heard {
    /// An answer.
    Plainly(Outcome),
    /// An answer that may be a better one in the other dialect.
    Perhaps(Outcome),
}

impl Question {
    /// What the check says beyond its kind.
    pub(super) fn detail(&self) -> &CheckDetail {
        &self.instance.check.detail
    }

    /// How long the first of two dialects may stay silent before the other one is tried. Only memcached meets what it
    /// does not understand with silence.
    fn patience(&self) -> Duration {
        match self.instance.check.kind {
            CheckKind::Memcached if self.first => QUICK_DIALECT.min(self.timeout / 2),
            CheckKind::Memcached => self.timeout / 2,
            _ => self.timeout,
        }
    }

    /// A connection to the server, at the address that is asked without a password.
    pub(super) async fn connect(&self, tls: bool) -> Result<Connection, WireError> {
        let connection = self.connect_to(self.target, self.expected()).await?;
        if tls { connection.into_tls().await } else { Ok(connection) }
    }

    /// A connection to an address that is where it was meant to be.
    pub(super) async fn connect_to(&self, at: SocketAddr, expected: Whereabouts) -> Result<Connection, WireError> {
        stay_here(at.ip(), expected)?;
        let patience = if self.first { QUICK_CONNECT.min(self.timeout) } else { self.timeout };
        let opened = timeout(patience, Connection::open(at)).await;
        opened.map_err(|_| WireError::Connect(std::io::ErrorKind::TimedOut.into()))?
    }

    /// The target is the container's own address, or the host's.
    fn expected(&self) -> Whereabouts {
        let own = self.instance.check.own == Some(self.target);
        if own { Whereabouts::Attached } else { Whereabouts::Here }
    }
}

/// Lets no probe leave this host: an address of its own, or a container's on a network that it is attached to.
fn stay_here(address: IpAddr, expected: Whereabouts) -> Result<(), WireError> {
    let found = whereabouts(address).map_err(WireError::Connect)?;
    if found == Whereabouts::Here || found == expected { Ok(()) } else { Err(WireError::NotHere(address)) }
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
        CheckKind::None => Err(WireError::Unaskable("there is nothing to ask")),
        CheckKind::Tcp => {
            let hold = Duration::from_millis(50).min(question.timeout / 2);
            stay_here(question.target.ip(), question.expected())?;
            tcp::stays_open(question.target, hold).await.map(|()| Outcome::serves())
        }
        CheckKind::Memcached | CheckKind::Redis | CheckKind::Postgres => in_dialects(question, memo).await,
        CheckKind::Http => ask_http(question).await,
        CheckKind::Zookeeper => ask_zookeeper(question).await,
        CheckKind::Mysql => ask_mysql(question, memo).await,
        CheckKind::Mongodb => ask_mongodb(question).await,
    }
}

/// Asks in the dialect that answered last; in the other one too where none has, or where the server is not well.
async fn in_dialects(question: &Question, memo: &mut Memo) -> Result<Outcome, WireError> {
    // TLS asked for by name: then it is not tried without. memcached's dialects are others.
    let over_tls = question.detail().tls && question.instance.check.kind != CheckKind::Memcached;
    let only = over_tls.then_some(Dialect::Other);
    let first = only.or(memo.dialect).unwrap_or(Dialect::Usual);
    if only.is_some() || (memo.dialect.is_some() && !question.unsure) {
        return match in_dialect(question, memo, first).await? {
            Heard::Plainly(outcome) | Heard::Perhaps(outcome) => Ok(outcome),
        };
    }
    let heard = timeout(question.patience(), in_dialect(question, memo, first)).await;
    match heard {
        Ok(Ok(Heard::Plainly(outcome))) => {
            memo.dialect = Some(first);
            return Ok(outcome);
        }
        Ok(Err(error)) if !error.is_misunderstanding() => return Err(error),
        _ => {}
    }
    match (in_dialect(question, memo, first.another()).await, heard) {
        (Ok(Heard::Plainly(outcome)), _) => {
            memo.dialect = Some(first.another());
            Ok(outcome)
        }
        (_, Ok(Ok(Heard::Plainly(outcome) | Heard::Perhaps(outcome)))) => {
            memo.dialect = memo.dialect.or((outcome.verdict != Verdict::Full).then_some(first));
            Ok(outcome)
        }
        (Ok(Heard::Perhaps(outcome)), _) => Ok(outcome),
        (Err(_), Ok(Err(error))) | (Err(error), Err(_)) => Err(error),
    }
}

async fn in_dialect(question: &Question, memo: &mut Memo, dialect: Dialect) -> Result<Heard, WireError> {
    match question.instance.check.kind {
        CheckKind::Memcached => ask_memcached(question, dialect).await,
        CheckKind::Redis => redis::ask(question, memo, dialect).await.map(Heard::Plainly),
        _ => postgres::ask(question, memo, dialect).await,
    }
}

async fn ask_memcached(question: &Question, dialect: Dialect) -> Result<Heard, WireError> {
    let mut connection = question.connect(question.detail().tls).await?;
    let reply = match dialect {
        Dialect::Usual => memcached::version_by_text(&mut connection).await?,
        Dialect::Other => memcached::version_by_binary(&mut connection).await?,
    };
    connection.leave_at_once();
    Ok(Heard::Plainly(match reply {
        memcached::Reply::Version => Outcome::serves(),
        memcached::Reply::WantsLogin => Outcome::serves().with_words("wants a login"),
        // Said before it has heard a word: it tells nothing of the dialect.
        memcached::Reply::Full => return Ok(Heard::Perhaps(Outcome::full("too many open connections"))),
        memcached::Reply::Refused(words) => Outcome::fails(format!("refused: {words}")),
    }))
}

async fn ask_http(question: &Question) -> Result<Outcome, WireError> {
    let detail = question.detail();
    let mut connection = question.connect(detail.tls).await?;
    let status = http::get(&mut connection, question.target, detail.path.as_deref().unwrap_or("/")).await?;
    let good = (200..400).contains(&status);
    Ok(if good { Outcome::serves() } else { Outcome::fails(format!("HTTP status {status}")) })
}

async fn ask_zookeeper(question: &Question) -> Result<Outcome, WireError> {
    let mut connection = question.connect(question.detail().tls).await?;
    let reply = zookeeper::srvr(&mut connection).await?;
    Ok(match reply {
        // One that stands alone has no role: it may be one that has not joined.
        zookeeper::Reply::Serves(mode) => Outcome::serves().with_role(match mode {
            zookeeper::Mode::Leader => Some(Role::Primary),
            zookeeper::Mode::Follower | zookeeper::Mode::Observer => Some(Role::Replica),
            zookeeper::Mode::Standalone => None,
        }),
        zookeeper::Reply::NotServing => Outcome::fails(NO_QUORUM),
        zookeeper::Reply::NotAllowed => Outcome::fails("may not tell: srvr is not in its 4lw.commands.whitelist"),
    })
}

/// With a password that may be told, the handshake is a login at the container's own address: each one without is a
/// line in the server's log.
async fn ask_mysql(question: &Question, memo: &mut Memo) -> Result<Outcome, WireError> {
    let detail = question.detail();
    let user = detail.user.as_deref().unwrap_or("wharf");
    let (password, mut untold) = memo.keyring.password(detail, &question.secrets).await;
    if let Some(password) = password {
        match timeout(question.timeout / 2, confide(question)).await {
            Ok(Ok(mut connection)) => {
                let login = mysql::Login { user, password: &password };
                return Ok(judge_mysql(mysql::shake_hands(&mut connection, login).await?));
            }
            Ok(Err(withheld)) => untold = Some(withheld.to_string()),
            Err(_) => untold = Some("nobody logs in: no connection in time".to_owned()),
        }
    }
    let mut connection = question.connect(false).await?;
    let outcome = judge_mysql(mysql::shake_hands(&mut connection, mysql::Login { user, password: "" }).await?);
    Ok(match untold {
        Some(words) if outcome.verdict == Verdict::Serves => outcome.with_words(words),
        _ => outcome,
    })
}

fn judge_mysql(reply: mysql::Reply) -> Outcome {
    const NO_ROOM: [u16; 3] = [1040, 1203, 1226];
    /// Access denied in all its forms, unknown databases and plugins, locked accounts, TLS wanted: said by a server
    /// that serves.
    const LOGIN_REFUSED: [u16; 14] =
        [1044, 1045, 1049, 1130, 1251, 1524, 1698, 1862, 2059, 3118, 3159, 3955, 4150, 4151];
    match reply {
        // It serves those whose handshakes were whole; the block is for this address, and people can end it.
        mysql::Reply::Refused { code: 1129, .. } => {
            Outcome::serves().with_words("error 1129: this host is blocked there; `mysqladmin flush-hosts` ends it")
        }
        mysql::Reply::LetIn => Outcome::serves(),
        mysql::Reply::Refused { code, .. } if NO_ROOM.contains(&code) => Outcome::full("too many connections"),
        mysql::Reply::Refused { code, .. } if LOGIN_REFUSED.contains(&code) => {
            Outcome::serves().with_words(format!("login refused: error {code}"))
        }
        mysql::Reply::Refused { code, message } => {
            Outcome::fails(format!("refused: error {code} {message}").trim_end())
        }
    }
}

async fn ask_mongodb(question: &Question) -> Result<Outcome, WireError> {
    let mut connection = question.connect(question.detail().tls).await?;
    Ok(judge_mongodb(mongodb::hello(&mut connection).await?))
}

fn judge_mongodb(hello: mongodb::Hello) -> Outcome {
    match hello {
        mongodb::Hello { ok: false, .. } => Outcome::fails("refused to say hello"),
        mongodb::Hello { writable: true, in_set, .. } => Outcome::serves().with_role(in_set.then_some(Role::Primary)),
        mongodb::Hello { secondary: true, .. } => Outcome::serves().with_role(Some(Role::Replica)),
        _ => Outcome::fails("neither primary nor secondary").with_role(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mysqls_refusals_have_their_meanings() {
        for (code, expected) in [
            (1040, Verdict::Full),
            (1045, Verdict::Serves),
            (1129, Verdict::Serves),
            (3159, Verdict::Serves),
            (4151, Verdict::Serves),
            (1053, Verdict::Fails),
        ] {
            let reply = mysql::Reply::Refused { code, message: String::new() };
            assert_eq!(judge_mysql(reply).verdict, expected, "{code}");
        }
    }
}
