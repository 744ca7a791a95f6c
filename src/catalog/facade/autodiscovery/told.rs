//! What is told of auto-discovery to people: `GET /v1/autodiscovery`, the page, `wharf explain`.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::join::Absences;
use super::member::{Member, MemberList};
use crate::model::words::record::Text;

/// `GET /v1/autodiscovery`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Autodiscoveries {
    /// Every table, in the order of the settings.
    pub autodiscoveries: Vec<Autodiscovery>,
}

/// How one table stands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Autodiscovery {
    /// The service whose members are told.
    pub service: Text,
    /// Where clients ask, with the port that was chosen.
    pub listen: Text,
    /// Whether TLS is spoken there.
    pub tls: bool,
    /// Why nobody can ask there; absent while they can.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Text>,
    /// The store is away or not read yet: this is the list that was seen last.
    pub stale: bool,
    /// The version of the list; absent before the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// After so many seconds without a record a member leaves.
    pub leave_after_s: u64,
    /// Clients that are connected now.
    pub connections: u64,
    /// Who is in the list, in its order.
    pub members: Vec<Listed>,
}

/// One member of the list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Listed {
    /// What it is known by.
    pub id: Text,
    /// Its host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<Text>,
    /// Its address.
    pub host: Text,
    /// Its port.
    pub port: u16,
    /// For how many seconds it has had no record, as far as could be seen; absent while it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub away_s: Option<u64>,
}

impl Autodiscovery {
    /// Members that have no record now.
    pub fn away(&self) -> impl Iterator<Item = &Listed> {
        self.members.iter().filter(|member| member.away_s.is_some())
    }
}

/// The members of a list, and for how long who is away has been so.
pub fn listed(list: &MemberList, absences: &Absences) -> Vec<Listed> {
    let one = |member: &Member| Listed {
        id: member.id.clone(),
        node: member.node.clone(),
        host: member.address.to_string().into(),
        port: member.port,
        away_s: absences.noted(member).map(|away: Duration| away.as_secs()),
    };
    list.members.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_away_is_told_apart() {
        let member = |id: &str, last: u8| Member {
            id: id.into(),
            node: Some(format!("host-{id}").into()),
            address: [10, 0, 0, last].into(),
            port: 11211,
        };
        let list = MemberList { version: 7, members: vec![member("a", 1), member("b", 2)] };
        let mut absences = Absences::default();
        for _ in 0..3 {
            absences.pass(Duration::from_millis(1_500), &list.members, &[member("a", 1)]);
        }
        let told: Vec<_> = listed(&list, &absences).iter().map(|one| (one.id.to_string(), one.away_s)).collect();
        assert_eq!(told, [("a".to_owned(), None), ("b".to_owned(), Some(3))]);
    }
}
