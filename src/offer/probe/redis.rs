//! What a Redis server says, and what that means for those who want to use it.

use tokio::time::timeout;

use super::confide::{Withheld, confide, refusal};
use super::question::{Dialect, Memo, Question};
use crate::model::health::Outcome;
use crate::model::words::record::Role;
use crate::wire::WireError;
use crate::wire::redis::{self, Login, Reply, Word};

/// Asks in one dialect: without TLS, or over it. A password is told only to a server that does not say enough without.
pub(super) async fn ask(question: &Question, memo: &mut Memo, dialect: Dialect) -> Result<Outcome, WireError> {
    let reply = match knock(question, dialect).await {
        // Only a server whose loop turns asks for one.
        Err(WireError::WantsCertificate) => {
            let words = "wants a client certificate: role unknown";
            return Ok(Outcome::serves().with_role(None).with_words(words));
        }
        reply => reply?,
    };
    let outcome = judge(&reply);
    if question.detail().password.is_none() || !wants_login(&reply) {
        return Ok(outcome);
    }
    if let Some(withheld) = refusal(question) {
        return Ok(withheld.outcome());
    }
    let (password, unread) = memo.keyring.password(question.detail(), &question.secrets).await;
    let Some(password) = password else {
        return Ok(unread.map_or(outcome.clone(), |words| outcome.with_words(words)));
    };
    Ok(match timeout(question.timeout / 2, log_in(question, dialect, &password)).await {
        Ok(Ok(reply)) => judge(&reply),
        Ok(Err(withheld)) => withheld.outcome(),
        Err(_) => Withheld::Late.outcome(),
    })
}

/// Whether a login might tell more.
fn wants_login(reply: &Reply) -> bool {
    let untold = reply.replication.replica.is_none();
    reply.word == Word::NoAuth || (untold && matches!(reply.word, Word::Pong | Word::ReadOnly))
}

async fn knock(question: &Question, dialect: Dialect) -> Result<Reply, WireError> {
    let mut connection = question.connect(dialect == Dialect::Other).await?;
    let reply = redis::ask(&mut connection, None).await?;
    connection.leave_at_once();
    Ok(reply)
}

async fn log_in(question: &Question, dialect: Dialect, password: &str) -> Result<Reply, Withheld> {
    let plain = confide(question).await?;
    let mut connection = if dialect == Dialect::Other { plain.into_tls().await? } else { plain };
    let login = Login { user: question.detail().user.as_deref(), password };
    let reply = redis::ask(&mut connection, Some(login)).await?;
    connection.leave_at_once();
    Ok(reply)
}

fn judge(reply: &Reply) -> Outcome {
    let state = reply.replication;
    let role = match state.replica {
        _ if state.cluster => None,
        Some(true) => Some(Role::Replica),
        Some(false) => Some(Role::Primary),
        None => None,
    };
    let outcome = match &reply.word {
        Word::Loading => return Outcome::fails("loading its data"),
        Word::MasterDown => return Outcome::fails("a replica whose primary is gone").with_role(role),
        Word::Refused(code) => return Outcome::fails(format!("refused: {code}")),
        Word::Full => return Outcome::full("max number of clients reached"),
        Word::NoAuth if reply.login_refused => Outcome::serves().with_words("login refused: role unknown"),
        Word::NoAuth => Outcome::serves().with_words("wants a login: role unknown"),
        Word::ReadOnly => Outcome::serves().with_words("refuses writes: it cannot save"),
        Word::Pong if reply.login_refused => Outcome::serves().with_words("login refused"),
        Word::Pong => Outcome::serves(),
    };
    match state.replica {
        Some(true) if state.syncing => Outcome::fails("a replica that is syncing").with_role(role),
        Some(true) if state.link_down => Outcome::fails("a replica whose link to its primary is down").with_role(role),
        _ => outcome.with_role(role),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::health::{RoleWord, Verdict};
    use crate::wire::redis::Replication;

    #[test]
    fn words_and_replication_make_an_outcome() {
        let primary = Replication { replica: Some(false), ..Replication::default() };
        let replica = Replication { replica: Some(true), ..Replication::default() };
        let (told, unasked) = (RoleWord::Told, RoleWord::Unasked);
        let cases = [
            (Word::Pong, primary, Verdict::Serves, told(Some(Role::Primary))),
            (Word::Pong, replica, Verdict::Serves, told(Some(Role::Replica))),
            (Word::Pong, Replication { cluster: true, ..primary }, Verdict::Serves, told(None)),
            (Word::Pong, Replication { link_down: true, ..replica }, Verdict::Fails, told(Some(Role::Replica))),
            (Word::Pong, Replication { syncing: true, ..replica }, Verdict::Fails, told(Some(Role::Replica))),
            (Word::MasterDown, replica, Verdict::Fails, told(Some(Role::Replica))),
            (Word::Loading, primary, Verdict::Fails, unasked),
            (Word::NoAuth, Replication::default(), Verdict::Serves, told(None)),
            (Word::ReadOnly, primary, Verdict::Serves, told(Some(Role::Primary))),
            (Word::Full, Replication::default(), Verdict::Full, unasked),
            (Word::Refused("DENIED".to_owned()), Replication::default(), Verdict::Fails, unasked),
        ];
        for (word, replication, verdict, role) in cases {
            let outcome = judge(&Reply { word: word.clone(), replication, login_refused: false });
            assert_eq!((outcome.verdict, outcome.role), (verdict, role), "{word:?} {replication:?}");
        }
    }
}
