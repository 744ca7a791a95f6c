//! What a person has withdrawn of this host although it may serve: all of it, a service, or one instance; since when,
//! by whose word, and why. Kept over restarts.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::model::offer::instance::Instance;
use crate::model::words::record::Text;

/// Entries that are kept; a host has fewer services that somebody works on at a time.
const MOST: usize = 64;
/// Characters of a reason that are kept.
const MAX_REASON: usize = 200;
/// Characters of any other text.
const MAX_TEXT: usize = 255;

/// One thing that is withdrawn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawn {
    /// A service, an instance's id or a container's name; none is the whole host.
    pub what: Option<Text>,
    /// Since when.
    pub since: SystemTime,
    /// By whose word.
    pub who: Text,
    /// Why.
    pub reason: Text,
}

impl Withdrawn {
    /// Something withdrawn just now; long texts are cut.
    pub fn new(what: Option<&str>, who: &str, reason: &str, since: SystemTime) -> Self {
        Self {
            what: what.map(|what| cut(what, MAX_TEXT)),
            since,
            who: cut(who, MAX_TEXT),
            reason: cut(reason, MAX_REASON),
        }
    }

    /// Whether it means this instance.
    pub fn means(&self, instance: &Instance) -> bool {
        let Some(what) = &self.what else { return true };
        let name = instance.container_name.trim_start_matches('/');
        let what = what.trim_start_matches('/');
        *instance.id == *what
            || (!name.is_empty() && name == what)
            || instance.services.iter().any(|service| service.to_string().eq_ignore_ascii_case(what))
    }

    /// By whom and why, in words.
    pub fn words(&self) -> String {
        let who = if self.who.is_empty() { "somebody" } else { &self.who };
        if self.reason.is_empty() { format!("drained by {who}") } else { format!("drained by {who}: {}", self.reason) }
    }

    fn encode(&self) -> Value {
        let since = humantime::format_rfc3339_seconds(self.since).to_string();
        json!({"what": self.what, "since": since, "who": self.who, "reason": self.reason})
    }

    fn decode(value: &Value) -> Option<Self> {
        let fields: &Map<String, Value> = value.as_object()?;
        let text = |name: &str| fields.get(name).and_then(Value::as_str);
        let since = humantime::parse_rfc3339(text("since")?).ok()?;
        let (who, reason) = (text("who").unwrap_or_default(), text("reason").unwrap_or_default());
        Some(Self::new(text("what"), who, reason, since))
    }
}

fn cut(text: &str, most: usize) -> Text {
    text.chars().take(most).collect::<String>().into()
}

/// All of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Maintenance(Vec<Withdrawn>);

impl Maintenance {
    /// Each, in the order of their time.
    pub fn all(&self) -> impl Iterator<Item = &Withdrawn> {
        self.0.iter()
    }

    /// What has this instance withdrawn, apart from the whole host.
    pub fn of(&self, instance: &Instance) -> Option<&Withdrawn> {
        self.0.iter().find(|one| one.what.is_some() && one.means(instance))
    }

    /// By whose word and why the whole host is.
    pub fn host(&self) -> Option<&Withdrawn> {
        self.0.iter().find(|one| one.what.is_none())
    }

    /// Adds one, or gives another reason for one that is there since before; `false` when there is no room.
    pub fn add(&mut self, one: Withdrawn) -> bool {
        if let Some(there) = self.0.iter_mut().find(|there| there.what == one.what) {
            *there = Withdrawn { since: there.since, ..one };
            return true;
        }
        let fits = self.0.len() < MOST;
        if fits {
            self.0.push(one);
        }
        fits
    }

    /// Takes one away; whether it was there.
    pub fn remove(&mut self, what: Option<&str>) -> bool {
        let before = self.0.len();
        self.0.retain(|one| one.what.as_deref() != what);
        self.0.len() < before
    }

    /// As it is remembered.
    pub fn encode(&self) -> Value {
        self.0.iter().map(Withdrawn::encode).collect()
    }

    /// What was remembered; what cannot be read of it is left out.
    pub fn decode(value: &Value) -> Self {
        let entries = value.as_array().into_iter().flatten().take(MOST);
        Self(entries.filter_map(Withdrawn::decode).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(what: Option<&str>, reason: &str) -> Withdrawn {
        Withdrawn::new(what, "root", reason, SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn it_is_remembered_as_it_was() {
        let mut maintenance = Maintenance::default();
        assert!(maintenance.add(one(Some("web"), "new kernel")));
        assert!(maintenance.add(one(None, "")));
        assert_eq!(Maintenance::decode(&maintenance.encode()), maintenance);
        assert_eq!(maintenance.host().map(Withdrawn::words).as_deref(), Some("drained by root"));
        assert!(maintenance.remove(Some("web")) && !maintenance.remove(Some("web")));
        assert_eq!(Maintenance::decode(&json!([7, {"what": "x"}, null])), Maintenance::default());
    }

    #[test]
    fn a_second_word_keeps_the_time_and_takes_the_new_reason() {
        let mut maintenance = Maintenance::default();
        maintenance.add(one(Some("web"), "old"));
        let later = Withdrawn { since: SystemTime::now(), ..one(Some("web"), "new") };
        maintenance.add(later);
        let all: Vec<_> = maintenance.all().collect();
        assert_eq!((all.len(), &*all[0].reason, all[0].since), (1, "new", SystemTime::UNIX_EPOCH));
    }

    #[test]
    fn texts_and_entries_are_bounded() {
        let mut maintenance = Maintenance::default();
        let added =
            (0..100).filter(|number| maintenance.add(one(Some(&number.to_string()), &"r".repeat(9_000)))).count();
        assert_eq!((added, maintenance.0[0].reason.len()), (64, 200));
    }
}
