//! The engine's list: which containers run, and what of each entry tells that something has happened to it.
//!
//! dockerd drops events of a reader that falls some thousand behind, and says nothing of it. Two entries that differ
//! are all that is left of such an event, so whatever of an entry changes with its container counts, and nothing that
//! changes by itself.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::Value;

use crate::model::words::record::Text;

/// The parts of an entry that change only with their container.
const PARTS: [&str; 8] = ["State", "Names", "Ports", "NetworkSettings", "HostConfig", "Image", "ImageID", "Labels"];

/// One container of the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    /// A digest of what counts.
    digest: u64,
    /// For how many seconds it has been up, as coarse as the engine says it.
    up: Option<u64>,
}

impl Entry {
    /// Reads one entry of the list.
    pub(super) fn of(entry: &Value) -> Self {
        let status = entry["Status"].as_str().unwrap_or_default();
        let (up, remark) = status.split_once('(').unwrap_or((status, ""));
        let mut hasher = DefaultHasher::new();
        PARTS.iter().for_each(|part| digest(&entry[part], &mut hasher));
        // Paused, unhealthy and the like; how often a check has failed changes by itself.
        (remark, entry["Health"]["Status"].as_str()).hash(&mut hasher);
        Self { digest: hasher.finish(), up: seconds(up) }
    }

    /// Whether something has happened since `before` was told of the same container. Who has been up for less long has
    /// been started again.
    pub(super) fn is_news_after(self, before: Self) -> bool {
        self.digest != before.digest || self.up < before.up
    }
}

/// The entries of a list by id; one without an id is left out.
pub(super) fn entries(body: &str) -> Result<BTreeMap<Text, Entry>, String> {
    let value: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let list = value.as_array().ok_or("no list")?;
    let id = |one: &Value| one["Id"].as_str().filter(|id| !id.is_empty()).map(Text::from);
    Ok(list.iter().filter_map(|one| Some((id(one)?, Entry::of(one)))).collect())
}

/// The same for equal values, whatever the order of their members and elements: engines walk maps at random.
fn digest(value: &Value, into: &mut DefaultHasher) {
    let alone = |work: &dyn Fn(&mut DefaultHasher)| {
        let mut hasher = DefaultHasher::new();
        work(&mut hasher);
        hasher.finish()
    };
    let mut parts: Vec<u64> = match value {
        Value::Array(elements) => elements.iter().map(|one| alone(&|hasher| digest(one, hasher))).collect(),
        Value::Object(members) => members
            .iter()
            .map(|(key, one)| {
                alone(&|hasher| {
                    key.hash(hasher);
                    digest(one, hasher);
                })
            })
            .collect(),
        plain => vec![alone(&|hasher| plain.to_string().hash(hasher))],
    };
    parts.sort_unstable();
    parts.hash(into);
}

/// The seconds of `Up 5 minutes`, as `docker ps` shows them.
fn seconds(status: &str) -> Option<u64> {
    let words: Vec<&str> = status.strip_prefix("Up ")?.split_whitespace().collect();
    let (count, unit) = match words[..] {
        ["Less", "than", ..] => return Some(0),
        ["About", "a" | "an", unit] => (1, unit),
        [count, unit] => (count.parse::<u64>().ok()?, unit),
        _ => return None,
    };
    let each = match unit.trim_end_matches('s') {
        "second" => 1,
        "minute" => 60,
        "hour" => 3600,
        "day" => 86_400,
        "week" => 7 * 86_400,
        "month" => 30 * 86_400,
        "year" => 365 * 86_400,
        _ => return None,
    };
    count.checked_mul(each)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry() -> Value {
        json!({
            "Id": "a", "Names": ["/a"], "State": "running", "Status": "Up 2 hours (healthy)",
            "Ports": [{"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080}, {"PrivatePort": 81}],
            "NetworkSettings": {"Networks": {"b": {"EndpointID": "1"}, "c": {"EndpointID": "2"}}},
            "Health": {"Status": "healthy", "FailingStreak": 0},
        })
    }

    fn check(change: impl FnOnce(&mut Value), news: bool) {
        let (before, mut after) = (entry(), entry());
        change(&mut after);
        assert_eq!(Entry::of(&after).is_news_after(Entry::of(&before)), news, "{after}");
    }

    #[test]
    fn whatever_happens_to_a_container_shows_in_its_entry() {
        check(|one| one["State"] = json!("paused"), true);
        check(|one| one["Names"] = json!(["/b"]), true);
        check(|one| one["Ports"][0]["PublicPort"] = json!(8081), true);
        check(|one| one["NetworkSettings"]["Networks"]["b"]["EndpointID"] = json!("3"), true);
        check(|one| one["NetworkSettings"]["Networks"] = json!({"b": {"EndpointID": "1"}}), true);
        check(|one| one["Status"] = json!("Up 2 hours (unhealthy)"), true);
        check(|one| one["Health"]["Status"] = json!("unhealthy"), true);
        check(|one| one["Status"] = json!("Up 3 seconds (healthy)"), true);
        check(|one| one["Status"] = json!("Up About a minute (healthy)"), true);
    }

    #[test]
    fn what_changes_by_itself_is_no_news() {
        check(|_| (), false);
        check(|one| one["Status"] = json!("Up 3 hours (healthy)"), false);
        check(|one| one["Status"] = json!("Up 2 days (healthy)"), false);
        check(|one| one["Ports"].as_array_mut().expect("ports").reverse(), false);
        check(|one| one["Health"]["FailingStreak"] = json!(2), false);
        check(|one| one["SizeRw"] = json!(7), false);
    }

    #[test]
    fn a_list_of_anything_is_read_as_far_as_it_goes() {
        for bad in ["", "{}", "null", "[", "7"] {
            assert!(entries(bad).is_err(), "{bad:?}");
        }
        let odd =
            entries(r#"[7, null, {}, {"Id":""}, {"Id":"x","Status":7,"Ports":"no","Names":{}}]"#).expect("a list");
        assert_eq!(odd.keys().map(|id| &**id).collect::<Vec<_>>(), ["x"]);
        assert_eq!(seconds("Up 99999999999999999999 years"), None);
    }
}
