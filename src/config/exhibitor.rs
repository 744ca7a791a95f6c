//! `--exhibitor`: where Exhibitor's API is served, and of which ensemble it tells.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::parse::{self, Problems, given};
use super::raw::Raw;
use super::topology::service;
use crate::model::words::ordinal::RoleName;

/// How Exhibitor's API is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExhibitorConfig {
    /// Where.
    pub listen: SocketAddr,
    /// The service whose instances are the members.
    pub service: String,
    /// The role in whose order they are listed.
    pub ordinal: Option<RoleName>,
}

/// The settings, where they are given, and what is wrong with them by key. Where this host has a number in one role
/// alone, members are listed by that.
pub(super) fn read(raw: &Raw, roles: &BTreeSet<RoleName>) -> (Option<ExhibitorConfig>, Problems) {
    let mut problems = Problems::new();
    let listen = given("exhibitor", raw.exhibitor.as_deref(), parse::socket, &mut problems);
    let named = given("exhibitor-service", raw.exhibitor_service.as_deref(), service, &mut problems);
    let ordinal = given("exhibitor-ordinal", raw.exhibitor_ordinal.as_deref(), RoleName::parse, &mut problems);
    if raw.exhibitor.is_none() {
        for (key, value) in
            [("exhibitor-service", &raw.exhibitor_service), ("exhibitor-ordinal", &raw.exhibitor_ordinal)]
        {
            if value.is_some() {
                problems.push((key, "nobody is told: give --exhibitor too".to_owned()));
            }
        }
    }
    let only = roles.first().filter(|_| roles.len() == 1).cloned();
    let config = listen.map(|listen| ExhibitorConfig {
        listen,
        service: named.unwrap_or_else(|| "zookeeper".to_owned()),
        ordinal: ordinal.or(only),
    });
    (config, problems)
}
