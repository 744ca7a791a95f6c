//! What a PostgreSQL server says, and what that means for those who want to use it.
//!
//! Most probes only knock. With a password, one in many logs in to learn the role: every ten seconds, and whenever the
//! server was not well the last time. A login that is refused is not tried again soon, since every try is a line in
//! the server's log; one that takes too long gives way to knocking.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::question::{self, Dialect, Heard, Question};
use crate::model::health::Outcome;
use crate::model::record::Role;
use crate::wire::WireError;
use crate::wire::connection::Connection;
use crate::wire::postgres::{self, Refusal, Reply, SaltedKey, Session};

/// From one question for the role to the next.
const ROLE_INTERVAL: Duration = Duration::from_secs(10);

/// From a refused login to the next with the same password.
const AFTER_REFUSAL: Duration = Duration::from_secs(300);

/// A database that every server has, for users who have none of their own name.
const DATABASE: &str = "postgres";

/// What is remembered of a server.
#[derive(Debug, Default)]
pub(super) struct Memo {
    key: Option<SaltedKey>,
    role_due: Option<Instant>,
    refused: Option<Refused>,
}

/// A login that was refused.
struct Refused {
    password: Arc<str>,
    words: Arc<str>,
}

impl std::fmt::Debug for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Refused").field("words", &self.words).finish_non_exhaustive()
    }
}

/// Asks in one dialect: without TLS, or over it.
pub(super) async fn ask(question: &Question, memo: &mut question::Memo, dialect: Dialect) -> Result<Heard, WireError> {
    let detail = question.detail();
    let (password, unread) = memo.keyring.password(detail, &question.secrets).await;
    let memo = &mut memo.postgres;
    let session = Session {
        user: detail.user.as_deref().unwrap_or("postgres"),
        database: detail.database.as_deref().unwrap_or(DATABASE),
    };
    let password = password.filter(|password| memo.is_role_due(password));
    // Whatever goes wrong from here on, the role is asked for again as soon as the server answers.
    let due = memo.role_due.take();
    if let Some(password) = &password {
        let login = memo.log_in(question, dialect, session, password);
        match timeout(question.timeout.mul_f64(0.6), login).await {
            Ok(Err(error @ WireError::Connect(_))) => return Err(error),
            Ok(Ok(reply)) => return Ok(memo.heard(question, dialect, &reply, Some(password))),
            Ok(Err(_)) | Err(_) => memo.role_due = Some(Instant::now() + ROLE_INTERVAL),
        }
    }
    let mut connection = connect(question, dialect).await?;
    let reply = postgres::knock(&mut connection, session).await?;
    if reply == Reply::WantsLogin && password.is_none() {
        memo.role_due = due;
    }
    Ok(match (memo.heard(question, dialect, &reply, None), unread) {
        (Heard::Plainly(outcome), Some(words)) if outcome.words.is_none() => Heard::Plainly(outcome.with_words(words)),
        (Heard::Plainly(outcome), None) if password.is_some() && outcome.words.is_none() => {
            Heard::Plainly(outcome.with_words("the login did not come to an end"))
        }
        (heard, _) => heard,
    })
}

async fn connect(question: &Question, dialect: Dialect) -> Result<Connection, WireError> {
    let mut connection = question.connect(false).await?;
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
        let other_password = self.refused.as_ref().is_some_and(|refused| refused.password != *password);
        other_password || self.role_due.is_none_or(|due| due <= Instant::now())
    }

    async fn log_in(
        &mut self,
        question: &Question,
        dialect: Dialect,
        session: Session<'_>,
        password: &Arc<str>,
    ) -> Result<Reply, WireError> {
        let mut connection = connect(question, dialect).await?;
        postgres::log_in(&mut connection, session, password, &mut self.key).await
    }

    /// Takes what was said, after a login or only a knock.
    fn heard(&mut self, question: &Question, dialect: Dialect, reply: &Reply, login: Option<&Arc<str>>) -> Heard {
        match reply {
            Reply::WantsLogin => {
                let words = self.refused.as_ref().map(|refused| Arc::clone(&refused.words));
                Heard::Plainly(Outcome { words, ..Outcome::serves() })
            }
            Reply::LetIn { standby } => {
                self.role_due = Some(Instant::now() + ROLE_INTERVAL);
                self.refused = None;
                Heard::Plainly(let_in(*standby))
            }
            Reply::Refused(refusal) => {
                let outcome = refused(refusal);
                // Perhaps only connections over TLS are let in.
                let perhaps = dialect == Dialect::Usual && refusal.code == "28000";
                if perhaps && question.unsure {
                    return Heard::Perhaps(outcome);
                }
                if let (Some(password), Some(words)) = (login, is_about_login(refusal).then_some(&outcome.words)) {
                    let words = words.clone().unwrap_or_default();
                    self.refused = Some(Refused { password: Arc::clone(password), words });
                    self.role_due = Some(Instant::now() + AFTER_REFUSAL);
                }
                Heard::Plainly(outcome)
            }
        }
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
        // It knows who may come in, and this one may not.
        _ if is_about_login(refusal) => Outcome::serves().with_role(None).with_words(format!("login refused: {code}")),
        _ => Outcome::fails(format!("refused: {code} {message}")),
    }
}

/// Class 28 (who), 3D (which database) and 42501 (no right to it): said by a server that serves.
fn is_about_login(refusal: &Refusal) -> bool {
    let code = refusal.code.as_str();
    code.starts_with("28") || code.starts_with("3D") || code == "42501"
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
            ("", Verdict::Fails),
        ];
        for (code, expected) in cases {
            let refusal = Refusal { code: code.to_owned(), message: "\"x\"".to_owned() };
            assert_eq!(refused(&refusal).verdict, expected, "{code}");
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
        memo.refused = Some(Refused { password: Arc::clone(&old), words: "login refused".into() });
        assert!(!memo.is_role_due(&old));
        assert!(memo.is_role_due(&new));
        assert!(!format!("{memo:?}").contains("old"));
    }
}
