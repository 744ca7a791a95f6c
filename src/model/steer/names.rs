//! Who is named: of a service with a topology, the master that was brought about, whatever fresh servers claim.
//!
//! What was brought about is believed until its server says otherwise in a record that was written later. Where a known
//! replica has become master by hand, that one is named, as it would be without a topology; nothing reverts it.

use std::collections::BTreeMap;
use std::time::Duration;

use super::journal::{Journal, Stage};
use super::topology::Applied;
use crate::model::words::record::Role;

/// What the store has of the topologies of all services, by service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heads(pub BTreeMap<String, Head>);

/// What names of one service are given by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// What was brought about.
    pub applied: Option<Applied>,
    /// The revision at which that was written.
    pub revision: i64,
    /// Whether the master is about to be another one, and is not named yet.
    pub switching: bool,
}

/// How a role's name stands in a catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steered {
    /// The service has a topology.
    Named,
    /// Its master is about to be another one, since this time.
    Switching(Duration),
}

/// What a record of the service says.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The instance's name within the service.
    pub name: &'a str,
    /// The role that it claims.
    pub role: Option<Role>,
    /// The revision at which it was written; 0 is now.
    pub revision: i64,
}

impl Head {
    /// The same with what a journal says.
    pub fn at_work(&mut self, journal: &Journal) {
        self.switching = matches!(journal.stage, Stage::Intent | Stage::Promote);
    }

    /// The roles that the records are found by, in their order.
    pub fn roles(&self, claims: &[Claim<'_>]) -> Vec<Option<Role>> {
        let Some(applied) = &self.applied else { return claims.iter().map(|claim| claim.role).collect() };
        let named = self.named(applied, claims);
        let role = |claim: &Claim<'_>| match claim.role {
            _ if named == Some(claim.name) => Some(Role::Primary),
            Some(Role::Replica) if applied.role_of(claim.name).is_some() => Some(Role::Replica),
            _ => None,
        };
        claims.iter().map(role).collect()
    }

    fn named<'c>(&self, applied: &Applied, claims: &[Claim<'c>]) -> Option<&'c str> {
        let is_later = |claim: &Claim<'_>| claim.revision == 0 || claim.revision > self.revision;
        let master = claims.iter().find(|claim| claim.name == applied.master.name);
        if let Some(master) = master
            && (master.role == Some(Role::Primary) || !is_later(master))
        {
            return Some(master.name);
        }
        let follows = master.is_some_and(|master| master.role == Some(Role::Replica));
        let is_foreign = |claim: &&Claim<'_>| {
            claim.role == Some(Role::Primary) && is_later(claim) && (follows || applied.has_replica(claim.name))
        };
        let mut foreign = claims.iter().filter(is_foreign);
        foreign.next().filter(|_| foreign.next().is_none()).map(|claim| claim.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::steer::topology::Server;

    /// `claims` as `name:role@revision`, where `applied` (master a, replicas b) was written at 10.
    #[track_caller]
    fn check(claims: &str, expected: &str) {
        let head = Head {
            applied: Some(Applied {
                master: Server { name: "a".to_owned(), ..Server::default() },
                replicas: vec!["b".to_owned()],
                ..Applied::default()
            }),
            revision: 10,
            switching: false,
        };
        let claims: Vec<Claim<'_>> = claims
            .split(' ')
            .map(|text| {
                let (name, rest) = text.split_once(':').expect("a name");
                let (role, revision) = rest.split_once('@').expect("a revision");
                Claim { name, role: Role::parse(role), revision: revision.parse().expect("a number") }
            })
            .collect();
        let roles = head.roles(&claims).into_iter().map(|role| role.map_or("-", |role| role.as_str()));
        assert_eq!(roles.collect::<Vec<_>>().join(" "), expected, "{claims:?}");
    }

    #[test]
    fn the_master_that_was_brought_about_is_named() {
        check("a:primary@12 b:replica@12", "primary replica");
        check("a:replica@8 b:primary@8", "primary -");
        check("a:primary@12 b:primary@8", "primary -");
    }

    #[test]
    fn fresh_servers_are_found_by_their_own_names_only() {
        check("a:primary@12 c:primary@14 d:replica@14", "primary - -");
        check("b:replica@12 c:primary@14", "replica -");
    }

    #[test]
    fn a_master_that_somebody_made_by_hand_is_named_as_ever() {
        check("a:replica@14 b:primary@13", "replica primary");
        check("b:primary@13", "primary");
        check("a:replica@14 c:primary@13", "replica primary");
        check("a:replica@14 b:primary@13 c:primary@13", "replica - -");
        check("a:replica@0 b:primary@0", "replica primary");
    }

    #[test]
    fn without_a_topology_claims_are_roles() {
        let claims = [Claim { name: "a", role: Some(Role::Primary), revision: 3 }];
        assert_eq!(Head::default().roles(&claims), [Some(Role::Primary)]);
    }
}
