//! `[[ordinal]]` tables: the roles in which this host has a number.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::parse::{Problems, given};
use super::text::scalar;
use crate::model::words::ordinal::RoleName;

/// More roles than this no node record tells.
const MOST: usize = 16;

/// One `[[ordinal]]` table of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawOrdinal {
    /// The role.
    #[serde(deserialize_with = "scalar")]
    pub role: Option<String>,
}

/// The roles, and what is wrong with the tables: with one by its place, or with all.
pub(super) fn read(tables: &[RawOrdinal]) -> (BTreeSet<RoleName>, Vec<(String, String)>) {
    let (mut roles, mut found) = (BTreeSet::new(), Vec::new());
    for (position, table) in tables.iter().enumerate() {
        let mut problems = Problems::new();
        if table.role.is_none() {
            problems.push(("role", "is needed".to_owned()));
        }
        let role = given("role", table.role.as_deref(), RoleName::parse, &mut problems);
        found.extend(problems.into_iter().map(|(key, what)| (format!("ordinal[{}].{key}", position + 1), what)));
        if let Some(twin) = role.and_then(|role| roles.replace(role)) {
            found.push(("ordinal".to_owned(), format!("{twin} has more than one table")));
        }
    }
    if roles.len() > MOST {
        found.push(("ordinal".to_owned(), format!("more than {MOST} roles")));
    }
    (roles, found)
}
