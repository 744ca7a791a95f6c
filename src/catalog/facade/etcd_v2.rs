//! How etcd's v2 API stands on a host: what its clients met lately, as it is told.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::api;
use crate::model::words::record::Text;

/// What happened longer ago troubles nobody any more.
const LATELY: Duration = Duration::from_secs(600);
/// Of a text that a client wrote or caused, so many characters are told.
const SHOWN: usize = 300;

/// The last one of several that met the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// How many there were, since the agent began.
    pub count: u64,
    /// When the last one asked.
    pub at: SystemTime,
    /// Whose it was.
    pub client: Text,
    /// What was asked for.
    pub request: Text,
    /// What it was told.
    pub why: Text,
}

/// All that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Where it is served; nowhere unless asked for.
    pub listen: Option<Text>,
    /// The trees whose watch of the store does not run, since when and why.
    pub away: BTreeMap<Text, (SystemTime, Text)>,
    /// Requests of those who may not.
    pub refused: Option<Met>,
    /// Requests that could not be answered.
    pub failed: Option<Met>,
}

impl Standing {
    /// Notes one more that met this.
    pub fn note(met: &mut Option<Met>, at: SystemTime, client: &str, request: &str, why: &str) {
        let count = met.as_ref().map_or(0, |met| met.count) + 1;
        *met = Some(Met { count, at, client: shown(client), request: shown(request), why: shown(why) });
    }

    /// What is told of it at this time.
    pub fn told(&self, now: SystemTime) -> api::EtcdV2 {
        let away = self.away.iter().map(|(below, (since, why))| api::EtcdV2Trouble {
            kind: "away".into(),
            since: time(*since),
            why: format!("what happens below {below} is not in step with the store: {why}").into(),
            ..api::EtcdV2Trouble::default()
        });
        let lately = |met: &&Met| now.duration_since(met.at).is_ok_and(|ago| ago < LATELY) || met.at > now;
        let met = [("refused", &self.refused), ("failed", &self.failed)];
        let met = met.into_iter().filter_map(|(kind, met)| Some((kind, met.as_ref().filter(lately)?)));
        let met = met.map(|(kind, met)| api::EtcdV2Trouble {
            kind: kind.into(),
            since: time(met.at),
            count: met.count,
            client: Some(met.client.clone()),
            request: Some(met.request.clone()),
            why: met.why.clone(),
        });
        api::EtcdV2 { listen: self.listen.clone(), troubles: away.chain(met).collect() }
    }
}

fn shown(text: &str) -> Text {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

fn time(at: SystemTime) -> Text {
    humantime::format_rfc3339_seconds(at).to_string().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_long_over_is_not_told_and_what_is_long_is_cut() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut standing = Standing { listen: Some("127.0.0.1:4001".into()), ..Standing::default() };
        assert!(standing.told(at(0)).troubles.is_empty());
        Standing::note(&mut standing.refused, at(1_000), "10.0.0.1", "PUT /a", "outside");
        Standing::note(&mut standing.refused, at(1_001), "10.0.0.2", &"ß".repeat(1_000), "owned");
        standing.away.insert("/services".into(), (at(1_002), "nobody answers".into()));
        let told = standing.told(at(1_010));
        let kinds: Vec<(&str, u64)> = told.troubles.iter().map(|trouble| (&*trouble.kind, trouble.count)).collect();
        assert_eq!(kinds, [("away", 0), ("refused", 2)]);
        assert!(told.troubles[0].why.ends_with("below /services is not in step with the store: nobody answers"));
        assert_eq!(told.troubles[1].request.as_ref().map(|text| text.chars().count()), Some(SHOWN + 1));
        // A clock that was set back hides nothing.
        assert_eq!(standing.told(at(0)).troubles.len(), 2);
        assert_eq!(standing.told(at(1_601)).troubles.len(), 1, "who waits is troubled for as long as it lasts");
    }
}
