//! What a Redis server says, and what that means for those who want to use it.

use super::question::{Dialect, Memo, Question};
use crate::model::health::Outcome;
use crate::model::record::Role;
use crate::wire::WireError;
use crate::wire::redis::{self, Login, Reply, Word};

/// Asks in one dialect: without TLS, or over it.
pub(super) async fn ask(question: &Question, memo: &mut Memo, dialect: Dialect) -> Result<Outcome, WireError> {
    let detail = question.detail();
    let (password, unread) = memo.keyring.password(detail, &question.secrets).await;
    let login = password.as_deref().map(|password| Login { user: detail.user.as_deref(), password });
    let outcome = match converse(question, dialect, login).await {
        // Only a server whose loop turns asks for one.
        Err(WireError::WantsCertificate) => {
            Outcome::serves().with_role(None).with_words("wants a client certificate: role unknown")
        }
        other => other?,
    };
    Ok(match unread {
        Some(words) => outcome.with_words(words),
        None => outcome,
    })
}

async fn converse(question: &Question, dialect: Dialect, login: Option<Login<'_>>) -> Result<Outcome, WireError> {
    let mut connection = question.connect(dialect == Dialect::Other).await?;
    let reply = redis::ask(&mut connection, login).await?;
    connection.leave_at_once();
    Ok(judge(&reply))
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
