//! What a PostgreSQL server says, and what that means for those who want to use it.
//!
//! Every probe knocks, which decides. With a password, one in many then logs in to learn the role: every ten seconds,
//! and whenever the server was not well the last time. A login that is refused is not tried again soon, since every try
//! is a line in the server's log; one that takes too long leaves what the knock has told.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::confide::{Withheld, confide, refusal};
use super::question::{self, Dialect, Heard, Question};
use crate::model::health::Outcome;
use crate::model::words::record::Role;
use crate::wire::WireError;
use crate::wire::connection::Connection;
use crate::wire::postgres::{self, Refusal, Reply, SaltedKey, Session};

/// From one question for the role to the next.
const ROLE_INTERVAL: Duration = Duration::from_secs(10);

/// From a refused login to the next with the same password.
const AFTER_REFUSAL: Duration = Duration::from_secs(300);

/// A database that every server has, for users who have none of their own name.
const DATABASE: &str = "postgres";

/// Nobody vouches for the certificates of probed servers, so there is no TLS that it could be told over either.
const CLEAR_TEXT: &str = "wants the password in clear text, which is not told: role unknown";

/// What is remembered of a server.
#[derive(Default)]
pub(super) struct Memo {
    key: Option<SaltedKey>,
    role_due: Option<Instant>,
    /// The password that was of no use the last time.
    refused: Option<Arc<str>>,
    /// What the last login met.
    words: Option<Arc<str>>,
}

impl std::fmt::Debug for Memo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Memo").field("words", &self.words).finish_non_exhaustive()
    }
}

/// Asks in one dialect: without TLS, or over it.
pub(super) async fn ask(question: &Question, memo: &mut question::Memo, dialect: Dialect) -> Result<Heard, WireError> {
    let session = session(question);
    // Whatever goes wrong from here on, the role is asked for again as soon as the server answers.
    let due = memo.postgres.role_due.take();
    let reply = match knock(question, dialect, session).await {
        // Only a server that serves asks for one.
        Err(WireError::WantsCertificate) => {
            let words = "wants a client certificate: role unknown";
            return Ok(Heard::Plainly(Outcome::serves().with_role(None).with_words(words)));
        }
        reply => reply?,
    };
    if reply != Reply::WantsLogin {
        return Ok(memo.postgres.heard(question, dialect, &reply));
    }
    memo.postgres.role_due = due;
    Ok(Heard::Plainly(ask_for_role(question, memo, dialect).await))
}

async fn knock(question: &Question, dialect: Dialect, session: Session<'_>) -> Result<Reply, WireError> {
    let mut connection = over(question.connect(false).await?, dialect).await?;
    postgres::knock(&mut connection, session).await
}

fn session(question: &Question) -> Session<'_> {
    let detail = question.detail();
    Session {
        user: detail.user.as_deref().unwrap_or("postgres"),
        database: detail.database.as_deref().unwrap_or(DATABASE),
    }
}

/// Logs in to a server that wants it, when that is due and it may be told the password.
async fn ask_for_role(question: &Question, memo: &mut question::Memo, dialect: Dialect) -> Outcome {
    if question.detail().password.is_none() {
        return Outcome::serves();
    }
    if let Some(withheld) = refusal(question) {
        return withheld.outcome();
    }
    let (password, unread) = memo.keyring.password(question.detail(), &question.secrets).await;
    let memo = &mut memo.postgres;
    let Some(password) = password else { return Outcome { words: unread.map(Into::into), ..Outcome::serves() } };
    if !memo.is_role_due(&password) {
        return Outcome { words: memo.words.clone(), ..Outcome::serves() };
    }
    memo.role_due = Some(Instant::now() + ROLE_INTERVAL);
    let login = log_in(question, dialect, &password, &mut memo.key);
    let outcome = match timeout(question.timeout.mul_f64(0.6), login).await {
        Ok(Ok(reply)) => memo.logged_in(&reply, &password),
        Ok(Err(withheld)) => withheld.outcome(),
        Err(_) => Withheld::Late.outcome(),
    };
    memo.words.clone_from(&outcome.words);
    outcome
}

async fn log_in(
    question: &Question,
    dialect: Dialect,
    password: &Arc<str>,
    key: &mut Option<SaltedKey>,
) -> Result<Reply, Withheld> {
    let mut connection = over(confide(question).await?, dialect).await?;
    Ok(postgres::log_in(&mut connection, session(question), password, key).await?)
}

/// The connection in its dialect.
async fn over(mut connection: Connection, dialect: Dialect) -> Result<Connection, WireError> {
    if dialect == Dialect::Usual {
        return Ok(connection);
    }
    if !postgres::ask_for_tls(&mut connection).await? {
        return Err(WireError::Tls("the server speaks none".to_owned()));
    }
    connection.into_tls().await
}

impl Memo {
    /// Whether a login with `password` is called for.
    fn is_role_due(&self, password: &Arc<str>) -> bool {
        let other_password = self.refused.as_ref().is_some_and(|refused| *refused != *password);
        other_password || self.role_due.is_none_or(|due| due <= Instant::now())
    }

    /// Takes what was said to a knock.
    fn heard(&mut self, question: &Question, dialect: Dialect, reply: &Reply) -> Heard {
        let outcome = match reply {
            Reply::WantsLogin | Reply::WantsClearText => Outcome::serves(),
            Reply::LetIn { standby } => let_in(*standby),
            Reply::Refused(refusal) => refused(refusal),
        };
        // Perhaps only connections over TLS are let in: PostgreSQL says the one, PgBouncer the other.
        let over_tls = |refusal: &Refusal| matches!(refusal.code.as_str(), "28000" | "08P01");
        match reply {
            Reply::Refused(refusal) if dialect == Dialect::Usual && question.unsure && over_tls(refusal) => {
                Heard::Perhaps(outcome)
            }
            _ => Heard::Plainly(outcome),
        }
    }

    /// Takes what was said to a login.
    fn logged_in(&mut self, reply: &Reply, password: &Arc<str>) -> Outcome {
        let (outcome, final_word) = match reply {
            Reply::WantsLogin => (Outcome::serves(), false),
            Reply::WantsClearText => (Outcome::serves().with_role(None).with_words(CLEAR_TEXT), true),
            Reply::LetIn { standby } => (let_in(*standby), false),
            Reply::Refused(refusal) => (refused(refusal), is_about_login(refusal)),
        };
        self.refused = final_word.then(|| Arc::clone(password));
        if final_word {
            self.role_due = Some(Instant::now() + AFTER_REFUSAL);
        }
        outcome
    }
}

fn let_in(standby: Option<bool>) -> Outcome {
    match standby {
        Some(true) => Outcome::serves().with_role(Some(Role::Replica)),
        Some(false) => Outcome::serves().with_role(Some(Role::Primary)),
        None => Outcome::serves(),
    }
}

/// What a refusal means for others.
fn refused(refusal: &Refusal) -> Outcome {
    let Refusal { code, message } = refusal;
    match code.as_str() {
        "57P03" => Outcome::fails(message.as_str()),
        "53300" => Outcome::full("too many connections"),
        "08P01" if message.contains("no more connections allowed") => Outcome::full("too many connections"),
        // It knows who may come in, and this one may not.
        _ if is_about_login(refusal) => Outcome::serves().with_role(None).with_words(format!("login refused: {code}")),
        _ => Outcome::fails(format!("refused: {code} {message}").trim_end()),
    }
}

/// Class 28 (who), 3D (which database) and 42501 (no right to it): said by a server that serves. PgBouncer says all of
/// them with one code.
fn is_about_login(refusal: &Refusal) -> bool {
    let code = refusal.code.as_str();
    let pooled = code == "08P01" && refusal.message.contains("no such ");
    pooled || code.starts_with("28") || code.starts_with("3D") || code == "42501"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::health::{RoleWord, Verdict};

    #[test]
    fn refusals_have_their_meanings() {
        let cases = [
            ("57P03", Verdict::Fails),
            ("57P01", Verdict::Fails),
            ("53300", Verdict::Full),
            ("28000", Verdict::Serves),
            ("28P01", Verdict::Serves),
            ("3D000", Verdict::Serves),
            ("XX000", Verdict::Fails),
            ("08P01", Verdict::Fails),
            ("", Verdict::Fails),
        ];
        for (code, expected) in cases {
            let refusal = Refusal { code: code.to_owned(), message: "\"x\"".to_owned() };
            assert_eq!(refused(&refusal).verdict, expected, "{code}");
        }
    }

    #[test]
    fn pgbouncer_says_in_words_what_it_has_no_code_for() {
        for (message, expected) in [
            ("\"SSL required\"", Verdict::Fails),
            ("\"no such database: postgres\"", Verdict::Serves),
            ("\"no such user: postgres\"", Verdict::Serves),
            ("\"no more connections allowed (max_client_conn)\"", Verdict::Full),
        ] {
            let refusal = Refusal { code: "08P01".to_owned(), message: message.to_owned() };
            assert_eq!(refused(&refusal).verdict, expected, "{message}");
        }
    }

    #[test]
    fn recovery_is_the_role() {
        for (standby, role) in [(true, Role::Replica), (false, Role::Primary)] {
            assert_eq!(let_in(Some(standby)).role, RoleWord::Told(Some(role)));
        }
        assert_eq!(let_in(None).role, RoleWord::Unasked);
    }

    #[test]
    fn a_refused_login_waits_unless_the_password_changes() {
        let (old, new): (Arc<str>, Arc<str>) = ("old".into(), "new".into());
        let mut memo = Memo::default();
        assert!(memo.is_role_due(&old));
        memo.role_due = Some(Instant::now() + AFTER_REFUSAL);
        memo.refused = Some(Arc::clone(&old));
        assert!(!memo.is_role_due(&old));
        assert!(memo.is_role_due(&new));
        assert!(!format!("{memo:?}").contains("old"));
    }
}
