//! The TOML file, and how flags are laid over it.
//!
//! Each key is read by itself, so that one bad key does not hide the others. Keys may be written with `-` or `_`.

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::Problem;
use super::raw::Raw;

/// Knows which settings came from the file, to name the place of a problem.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Origins {
    file: String,
    keys: HashSet<String>,
    /// The variable that each setting came from.
    variables: HashMap<String, String>,
}

impl Origins {
    /// How a person finds the setting: its flag, with the variable that gave it, or its key in the file.
    pub(super) fn place(&self, key: &str) -> String {
        let top = key.split(['.', '[']).next().unwrap_or(key);
        match self.variables.get(top) {
            _ if self.keys.contains(top) => format!("{}: {key}", self.file),
            Some(variable) => format!("--{key} (from {variable})"),
            None => format!("--{key}"),
        }
    }
}

/// Lays flags over the file's settings. What cannot be read is a problem and otherwise left out.
pub(super) fn merge(
    flags: &Raw,
    file: Option<(&str, &str)>,
    environment: &HashMap<String, String>,
) -> (Raw, Origins, Vec<Problem>) {
    let mut problems = Vec::new();
    let mut table = Table::new();
    let mut origins = Origins::default();
    if let Some((name, text)) = file {
        name.clone_into(&mut origins.file);
        match text.parse::<Table>() {
            Ok(read) => table = dashed(read, name, &mut problems),
            Err(error) => problems.push(Problem { at: name.to_owned(), what: one_line(&error.to_string()) }),
        }
    }
    let services = tables(&mut table, "service", &origins.file, &mut problems);
    let secrets = tables(&mut table, "secret", &origins.file, &mut problems);
    let topologies = tables(&mut table, "topology", &origins.file, &mut problems);
    let proxies = tables(&mut table, "proxy", &origins.file, &mut problems);
    let renders = tables(&mut table, "render", &origins.file, &mut problems);
    let autodiscoveries = tables(&mut table, "autodiscovery", &origins.file, &mut problems);
    let ordinals = tables(&mut table, "ordinal", &origins.file, &mut problems);
    table.retain(|key, value| readable::<Raw>(key, value, &format!("{}: {key}", origins.file), &mut problems));
    origins.keys = table.keys().cloned().collect();
    let given = [
        ("service", !services.is_empty()),
        ("secret", !secrets.is_empty()),
        ("topology", !topologies.is_empty()),
        ("proxy", !proxies.is_empty()),
        ("autodiscovery", !autodiscoveries.is_empty()),
        ("ordinal", !ordinals.is_empty()),
        ("render", !renders.is_empty()),
    ];
    for (key, given) in given {
        if given {
            origins.keys.insert(key.to_owned());
        }
    }
    for (key, value) in Table::try_from(flags).unwrap_or_default() {
        origins.keys.remove(&key);
        if let Some(variable) = variable_of(&key, &value, environment) {
            origins.variables.insert(key.clone(), variable);
        }
        table.insert(key, value);
    }
    let mut merged: Raw = table.try_into().unwrap_or_default();
    (merged.service, merged.secret, merged.topology) = (services, secrets, topologies);
    merged.proxy = proxies;
    (merged.autodiscovery, merged.ordinal) = (autodiscoveries, ordinals);
    merged.render = renders;
    (merged, origins, problems)
}

/// The variable that a setting has its value from, if it has.
fn variable_of(key: &str, value: &Value, environment: &HashMap<String, String>) -> Option<String> {
    let variable = format!("WHARF_{}", key.replace('-', "_").to_ascii_uppercase());
    let written = environment.get(&variable)?;
    let is_it = match value {
        Value::Array(parts) => written.split(',').eq(parts.iter().map(|part| part.as_str().unwrap_or_default())),
        value => value.as_str() == Some(written),
    };
    is_it.then_some(variable)
}

/// The keys whose values differ.
pub(super) fn differing(one: &Raw, other: &Raw) -> Vec<String> {
    let [one, other] = [one, other].map(|raw| Table::try_from(raw).unwrap_or_default());
    let keys: BTreeSet<_> = one.keys().chain(other.keys()).cloned().collect();
    keys.into_iter().filter(|key| one.get(key) != other.get(key)).collect()
}

/// `old` with the values that `new` has under these keys.
pub(super) fn taking(old: &Raw, new: &Raw, keys: &[&str]) -> Raw {
    let [mut joined, mut new] = [old, new].map(|raw| Table::try_from(raw).unwrap_or_default());
    for key in keys {
        joined.remove(*key);
        joined.extend(new.remove_entry(*key));
    }
    joined.try_into().unwrap_or_default()
}

/// Every `[[name]]` table, each of its keys read by itself.
fn tables<T>(table: &mut Table, name: &str, file: &str, problems: &mut Vec<Problem>) -> Vec<T>
where
    T: DeserializeOwned + Default,
{
    let Some(value) = table.remove(name) else { return Vec::new() };
    let Value::Array(tables) = value else {
        problems.push(Problem { at: format!("{file}: {name}"), what: format!("write each one as a [[{name}]] table") });
        return Vec::new();
    };
    let mut read = Vec::new();
    for (position, value) in tables.into_iter().enumerate() {
        let at = format!("{file}: {name}[{}]", position + 1);
        let Value::Table(one) = value else {
            problems.push(Problem { at, what: format!("write it as a [[{name}]] table") });
            continue;
        };
        let mut one = dashed(one, &at, problems);
        one.retain(|key, value| readable::<T>(key, value, &format!("{at}.{key}"), problems));
        read.push(one.try_into().unwrap_or_default());
    }
    read
}

/// Whether one key with its value is a setting of `T`; says so when it is not.
fn readable<T: DeserializeOwned>(key: &str, value: &Value, at: &str, problems: &mut Vec<Problem>) -> bool {
    let alone = Table::from_iter([(key.to_owned(), value.clone())]);
    let Err(error) = alone.try_into::<T>() else { return true };
    let text = error.message();
    let what = if text.contains("unknown field") { "no such setting".to_owned() } else { one_line(text) };
    problems.push(Problem { at: at.to_owned(), what });
    false
}

/// The table with its keys as we write them. A key that is there in both spellings is given twice.
fn dashed(table: Table, at: &str, problems: &mut Vec<Problem>) -> Table {
    let mut dashed = Table::new();
    for (key, value) in table {
        let plain = key.replace('_', "-");
        if dashed.insert(plain.clone(), value).is_some() {
            problems
                .push(Problem { at: format!("{at}: {plain}"), what: "is given twice, with - and with _".to_owned() });
        }
    }
    dashed
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
