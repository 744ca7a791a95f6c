//! PostgreSQL: whether it lets anyone in, and with a login whether it is in recovery.
//!
//! Without a login the startup packet is all that is sent, and the connection is closed as psql closes one that asks
//! for a password: the server says nothing about that in its log. With one, the session is ended properly as soon as
//! the answer is there, so no connection slot is held.

mod message;
mod scram;

use std::sync::Arc;

use super::{Connection, WireError};
pub use message::{Message, Refusal, parse, parse_error, parse_tls};
pub use scram::{SaltedKey, ServerFirst, parse_server_first};

/// Whom a session is for.
#[derive(Clone, Copy, Debug)]
pub struct Session<'a> {
    /// The user.
    pub user: &'a str,
    /// The database.
    pub database: &'a str,
}

/// What the server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It asks for a login, so it takes connections.
    WantsLogin,
    /// It let us in, and is or is not a standby, or did not say.
    LetIn {
        /// In recovery, if that was told.
        standby: Option<bool>,
    },
    /// It asks for the password itself, which nobody is told.
    WantsClearText,
    /// It refused.
    Refused(Refusal),
}

/// Asks the server to go on in TLS. False means that it does not speak it.
pub async fn ask_for_tls(connection: &mut Connection) -> Result<bool, WireError> {
    connection.send(&message::SSL_REQUEST).await?;
    connection.reply(parse_tls).await
}

/// Sends a startup packet and leaves as soon as the server has answered.
pub async fn knock(connection: &mut Connection, session: Session<'_>) -> Result<Reply, WireError> {
    connection.send(&message::startup(session.user, session.database)).await?;
    let reply = match first_word(connection).await? {
        Message::LetIn => follow(connection).await?,
        Message::Error(refusal) => Reply::Refused(refusal),
        _ => Reply::WantsLogin,
    };
    leave(connection, &reply).await;
    Ok(reply)
}

/// Logs in, learns whether the server is in recovery, and leaves. `key` is kept from one login to the next: making it
/// costs thousands of hashes.
pub async fn log_in(
    connection: &mut Connection,
    session: Session<'_>,
    password: &Arc<str>,
    key: &mut Option<SaltedKey>,
) -> Result<Reply, WireError> {
    connection.send(&message::startup(session.user, session.database)).await?;
    let asked = first_word(connection).await?;
    let mut reply = match authenticate(connection, asked, session, password, key).await? {
        None => follow(connection).await?,
        Some(reply) => reply,
    };
    if reply == (Reply::LetIn { standby: None }) {
        // Before 14 the server does not tell by itself.
        connection.send(&message::query("SELECT pg_is_in_recovery()")).await?;
        reply = follow(connection).await?;
    }
    leave(connection, &reply).await;
    Ok(reply)
}

/// Does what the server asks to prove who we are, as long as that does not tell the password. `None` is being let in.
async fn authenticate(
    connection: &mut Connection,
    asked: Message,
    session: Session<'_>,
    password: &Arc<str>,
    key: &mut Option<SaltedKey>,
) -> Result<Option<Reply>, WireError> {
    let answer = match asked {
        Message::LetIn => return Ok(None),
        Message::Error(refusal) => return Ok(Some(Reply::Refused(refusal))),
        Message::WantsPassword => return Ok(Some(Reply::WantsClearText)),
        Message::WantsMd5(salt) => message::password(&scram::md5(session.user, password, salt)),
        Message::WantsSasl { scram: true } => {
            return Ok(scram::authenticate(connection, password, key).await?.map(Reply::Refused));
        }
        _ => return Err(unexpected("a way to log in that is known")),
    };
    connection.send_secret(&answer).await?;
    match next(connection).await? {
        Message::LetIn => Ok(None),
        Message::Error(refusal) => Ok(Some(Reply::Refused(refusal))),
        _ => Err(unexpected("the end of the login")),
    }
}

/// Reads on until the server waits for a query.
async fn follow(connection: &mut Connection) -> Result<Reply, WireError> {
    const MOST: usize = 200;
    let mut standby = None;
    for _ in 0..MOST {
        match next(connection).await? {
            Message::Ready => return Ok(Reply::LetIn { standby }),
            Message::Error(refusal) => return Ok(Reply::Refused(refusal)),
            Message::Standby(told) | Message::Truth(told) => standby = Some(told),
            _ => {}
        }
    }
    Err(unexpected("an end of the parameters"))
}

async fn first_word(connection: &mut Connection) -> Result<Message, WireError> {
    match next(connection).await? {
        word @ (Message::LetIn
        | Message::WantsPassword
        | Message::WantsMd5(_)
        | Message::WantsSasl { .. }
        | Message::WantsOther
        | Message::Error(_)) => Ok(word),
        _ => Err(unexpected("an answer to the startup packet")),
    }
}

/// The next message, but for notices. Once a secret went out the server's own words may be an echo.
async fn next(connection: &mut Connection) -> Result<Message, WireError> {
    const MOST: usize = 200;
    for _ in 0..MOST {
        match connection.reply(parse).await? {
            Message::Notice => {}
            Message::Error(refusal) if connection.told_a_secret() => {
                return Ok(Message::Error(Refusal { message: String::new(), ..refusal }));
            }
            message => return Ok(message),
        }
    }
    Err(unexpected("an end of the notices"))
}

/// Ends a session as the protocol wants it; a half-made one just by closing.
async fn leave(connection: &mut Connection, reply: &Reply) {
    if matches!(reply, Reply::LetIn { .. }) {
        // The server may be gone already.
        connection.send(&message::TERMINATE).await.ok();
    }
    connection.finish().await;
}

fn unexpected(expected: &'static str) -> WireError {
    WireError::Garbled { expected, got: "another message".to_owned() }
}
