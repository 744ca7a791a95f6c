//! The journal of an operation: what whoever goes on after a crash goes by.
//!
//! It is one key, and each commit of it hangs on the operator's hold and on the journal's own revision. Fields that
//! this build does not know are ignored; a stage that it does not know is an error, and then it keeps its hands off.

use serde::{Deserialize, Serialize};

use super::topology::{Applied, Server};

/// What an operation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Another server is to be master.
    Switch,
    /// No server takes writes since one was restarted: one of them is to be master again.
    Restart,
    /// There was no topology so far.
    First,
    /// Replicas are to follow the master that there is.
    Attach,
}

/// How far an operation has come. See the diagram of the [folder](super).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Writes are about to be held. No decision: whoever takes over gives up.
    Intent,
    /// Decided: the target becomes master, whoever goes on.
    Promote,
    /// Decided: the old master stays.
    Abort,
    /// The target is master and named as such; the others are to follow.
    Publish,
    /// Over.
    Done,
    /// Over: the servers were not as this journal implies, so it told them nothing.
    Stale,
}

/// One operation, as it is kept in the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    /// Its number, which the freeze of a server shows.
    pub number: u64,
    /// How often it was taken over.
    #[serde(default)]
    pub turn: u64,
    /// Who is at it.
    #[serde(default)]
    pub operator: String,
    /// The store's revision when its operator took the hold.
    #[serde(default)]
    pub held: i64,
    /// What it is for.
    pub kind: Kind,
    /// How far it has come.
    pub stage: Stage,
    /// The epoch that it began from.
    #[serde(default)]
    pub epoch: u64,
    /// The master there was, where one is to give way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<Server>,
    /// The master there is to be.
    pub target: Server,
    /// All others that have nothing that the old master has not.
    #[serde(default)]
    pub rest: Vec<Server>,
    /// With `promote`: where the target must stand, and nobody is further.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// Whether it was read from a store that had gone back since it was written.
    #[serde(default)]
    pub doubtful: bool,
    /// How long writes may be held, in milliseconds.
    #[serde(default)]
    pub max_pause: u64,
    /// Why it was given up, or is stale.
    #[serde(default)]
    pub why: String,
    /// RFC 3339 time at which this was written.
    #[serde(default)]
    pub at: String,
    /// For how long no write was taken, in milliseconds, where its first operator saw it to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gap: Option<u64>,
}

impl Stage {
    /// Its name, as it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intent => "intent",
            Self::Promote => "promote",
            Self::Abort => "abort",
            Self::Publish => "publish",
            Self::Done => "done",
            Self::Stale => "stale",
        }
    }
}

impl Journal {
    /// Reads a stored value; what is none says why.
    pub fn decode(value: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(value)
    }

    /// Writes the value that is stored.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("text and numbers always encode")
    }

    /// Whether nothing more is to be done for it.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Done | Stage::Stale)
    }

    /// The same at another stage.
    #[must_use]
    pub fn in_stage(&self, stage: Stage) -> Self {
        Self { stage, ..self.clone() }
    }

    /// The same, given up or stale, and why.
    #[must_use]
    pub fn closing(&self, stage: Stage, why: impl Into<String>) -> Self {
        Self { stage, why: why.into(), ..self.clone() }
    }

    /// Who has the last word on which server is master: this operation where it decided so, else `applied`.
    pub fn head<'a>(journal: Option<&'a Self>, applied: Option<&'a Applied>) -> Option<&'a Server> {
        let newer = |journal: &&Self| journal.epoch >= applied.map_or(0, |applied| applied.epoch);
        let decided = journal.filter(newer).filter(|journal| journal.last.is_some());
        decided.map(|journal| &journal.target).or(applied.map(|applied| &applied.master))
    }

    /// Everybody it speaks of.
    pub fn servers(&self) -> impl Iterator<Item = &Server> {
        self.old.iter().chain([&self.target]).chain(&self.rest)
    }
}

/// The number of the next operation: one that no freeze in sight shows, and never one that would pass for a start.
pub fn next_number(last: u64, marks: &[u16]) -> u64 {
    // Among 64 servers there are at most 64 marks, so this ends soon.
    (last + 1..)
        .find(|number| {
            let mark = (number % 65_536) as u16;
            mark != 0 && !marks.contains(&mark)
        })
        .unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(stage: Stage) -> Journal {
        Journal {
            number: 7,
            turn: 0,
            operator: "op".to_owned(),
            held: 0,
            kind: Kind::Switch,
            stage,
            epoch: 3,
            old: None,
            target: Server { name: "b".to_owned(), ..Server::default() },
            rest: vec![],
            last: None,
            doubtful: false,
            max_pause: 200,
            why: String::new(),
            at: String::new(),
            gap: None,
        }
    }

    #[test]
    fn a_journal_is_what_was_written() {
        for stage in [Stage::Intent, Stage::Promote, Stage::Abort, Stage::Publish, Stage::Done, Stage::Stale] {
            let journal = journal(stage);
            assert_eq!(Journal::decode(&journal.encode()).expect("a journal"), journal);
        }
    }

    #[test]
    fn fields_of_other_builds_are_ignored_and_their_stages_are_not_guessed() {
        let plain = r#"{"number":1,"kind":"switch","stage":"STAGE","target":{"name":"b","rack":4},"weather":"fine"}"#;
        assert!(Journal::decode(plain.replace("STAGE", "promote").as_bytes()).is_ok());
        assert!(Journal::decode(plain.replace("STAGE", "ponder").as_bytes()).is_err());
        assert!(Journal::decode(b"1").is_err());
    }

    #[test]
    fn a_number_is_nobodys_mark() {
        assert_eq!(next_number(4, &[]), 5);
        assert_eq!(next_number(4, &[5, 6]), 7);
        assert_eq!(next_number(65_535, &[]), 65_537);
    }

    #[test]
    fn a_decision_that_was_not_published_has_the_last_word() {
        let applied = Applied { epoch: 3, ..Applied::default() };
        let decided = Journal { last: Some(9), ..journal(Stage::Stale) };
        assert_eq!(Journal::head(Some(&decided), Some(&applied)), Some(&decided.target));
        let later = Applied { epoch: 4, ..Applied::default() };
        assert_eq!(Journal::head(Some(&decided), Some(&later)), Some(&later.master));
        assert_eq!(Journal::head(Some(&journal(Stage::Intent)), Some(&applied)), Some(&applied.master));
        assert_eq!(Journal::head(None, None), None);
    }
}
