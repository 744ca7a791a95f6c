//! One `[[render]]` table: a file that follows the cluster.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::parse::{self, Parsed, Problems, given};
use super::text::{scalar, words};
use crate::catalog::render::{self, Builtin, Wait};
use crate::model::words::name::Label;

const MINUTE: Duration = Duration::from_secs(60);
/// Quiet for so long after the last change, at most so long after the first: a deployment is one change, and nobody
/// waits longer than a person would for a page.
const USUAL_WAIT: Wait = Wait { least: Duration::from_millis(200), most: Duration::from_secs(5) };
/// Where only the quiet time is given, the longest wait is so many times as long.
const MOST_BY_LEAST: u32 = 4;
/// How long a check or a reload may take.
const USUAL_TIMEOUT: Duration = Duration::from_secs(30);
/// Arguments of a command, and bytes of each.
const MAX_ARGUMENTS: usize = 64;
const MAX_ARGUMENT: usize = 4096;

/// One `[[render]]` table of the file.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawRender {
    /// Its name.
    #[serde(deserialize_with = "scalar")]
    pub name: Option<String>,
    /// The template's file.
    #[serde(deserialize_with = "scalar")]
    pub template: Option<String>,
    /// A template that comes with the program, instead.
    #[serde(deserialize_with = "scalar")]
    pub builtin: Option<String>,
    /// The file that is written.
    #[serde(deserialize_with = "scalar")]
    pub destination: Option<String>,
    /// Its mode, in octal digits.
    #[serde(deserialize_with = "scalar")]
    pub mode: Option<String>,
    /// Its owner.
    #[serde(deserialize_with = "scalar")]
    pub owner: Option<String>,
    /// Its group.
    #[serde(deserialize_with = "scalar")]
    pub group: Option<String>,
    /// The command that a new file must pass.
    #[serde(deserialize_with = "words")]
    pub check: Option<Vec<String>>,
    /// The command that has it loaded.
    #[serde(deserialize_with = "words")]
    pub reload: Option<Vec<String>>,
    /// How long changes are waited for: the quiet time, and the longest.
    #[serde(deserialize_with = "scalar")]
    pub wait: Option<String>,
    /// With fewer endpoints of a service the last good file stays.
    #[serde(skip_serializing_if = "toml::Table::is_empty")]
    pub min: toml::Table,
    /// From one reload to the next.
    #[serde(deserialize_with = "scalar")]
    pub min_interval: Option<String>,
    /// How long a command may take.
    #[serde(deserialize_with = "scalar")]
    pub timeout: Option<String>,
    /// Whether it is written in place.
    #[serde(deserialize_with = "scalar")]
    pub inplace: Option<String>,
    /// Whether it is checked where it belongs.
    #[serde(deserialize_with = "scalar")]
    pub check_in_place: Option<String>,
    /// Whether the old file comes back when a reload fails.
    #[serde(deserialize_with = "scalar")]
    pub rollback: Option<String>,
    /// What the template is given.
    #[serde(skip_serializing_if = "toml::Table::is_empty")]
    pub with: toml::Table,
}

/// A `[[render]]` table, valid.
#[derive(Clone, Debug, PartialEq)]
pub struct RenderConfig {
    /// Its name.
    pub name: String,
    /// What it is made from.
    pub from: RenderFrom,
    /// What the template is given.
    pub with: Arc<toml::Table>,
    /// The file that is written.
    pub destination: PathBuf,
    /// Its mode; where none is given, the old file's.
    pub mode: Option<u32>,
    /// Its owner, by name or number.
    pub owner: Option<String>,
    /// Its group, by name or number.
    pub group: Option<String>,
    /// The command that a new file must pass; empty is none.
    pub check: Vec<String>,
    /// The command that has it loaded; empty is none.
    pub reload: Vec<String>,
    /// How long changes are waited for.
    pub(crate) wait: Wait,
    /// With fewer endpoints of a service the last good file stays.
    pub min: BTreeMap<String, usize>,
    /// From one reload to the next.
    pub min_interval: Duration,
    /// How long a command may take.
    pub timeout: Duration,
    /// It is written in place, not renamed.
    pub inplace: bool,
    /// It is checked where it belongs.
    pub check_in_place: bool,
    /// The old file comes back when a reload fails.
    pub rollback: bool,
}

/// What a file is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RenderFrom {
    /// A template's file.
    File(PathBuf),
    /// A template that comes with the program.
    Builtin(&'static str),
}

/// One table, and what is wrong with it by key; `None` only with at least one problem.
pub(super) fn read(table: &RawRender) -> (Option<RenderConfig>, Problems) {
    let mut problems = Problems::new();
    let config = fields(table, &mut problems);
    (config.filter(|_| problems.is_empty()), problems)
}

/// What more than one table has: a name, a destination.
pub(super) fn twins(tables: &[RenderConfig]) -> Vec<String> {
    let mut found = Vec::new();
    for (place, table) in tables.iter().enumerate() {
        let before = &tables[..place];
        if before.iter().any(|other| other.name == table.name) {
            found.push(format!("{} is the name of more than one table", table.name));
        }
        if before.iter().any(|other| other.destination == table.destination) {
            found.push(format!("{} is the destination of more than one table", table.destination.display()));
        }
    }
    found
}

fn fields(table: &RawRender, problems: &mut Problems) -> Option<RenderConfig> {
    let with = Arc::new(table.with.clone());
    let from = from(table, &with, problems);
    if table.destination.is_none() {
        problems.push(("destination", "is needed".to_owned()));
    }
    let destination = given("destination", table.destination.as_deref(), destination, problems);
    let usual = usual_name(from.as_ref(), destination.as_deref());
    let name = match table.name.as_deref() {
        Some(text) => given("name", Some(text), name, problems),
        None => usual,
    };
    let time = |least, most| move |text: &str| parse::duration(text, least, most);
    let most = 60 * MINUTE;
    let min_interval = given("min-interval", table.min_interval.as_deref(), time(Duration::ZERO, most), problems);
    let timeout = given("timeout", table.timeout.as_deref(), time(Duration::from_millis(1), most), problems);
    let wait = given("wait", table.wait.as_deref(), wait, problems);
    let mode = given("mode", table.mode.as_deref(), mode, problems);
    let owner = given("owner", table.owner.as_deref(), account, problems);
    let group = given("group", table.group.as_deref(), account, problems);
    let check = command("check", table.check.as_ref(), problems);
    check_arguments(&check, problems);
    let reload = command("reload", table.reload.as_ref(), problems);
    let truth = |key, text: Option<&String>, problems: &mut Problems| {
        given(key, text.map(String::as_str), parse::truth, problems).unwrap_or(false)
    };
    let inplace = truth("inplace", table.inplace.as_ref(), problems);
    let check_in_place = truth("check-in-place", table.check_in_place.as_ref(), problems);
    let rollback = truth("rollback", table.rollback.as_ref(), problems);
    if check_in_place && check.is_empty() {
        problems.push(("check-in-place", "there is no check".to_owned()));
    }
    if rollback && reload.is_empty() {
        problems.push(("rollback", "there is no reload that may fail".to_owned()));
    }
    let min = min(table, problems);
    Some(RenderConfig {
        name: name?,
        from: from?,
        with,
        destination: destination?,
        mode,
        owner,
        group,
        check,
        reload,
        wait: wait.unwrap_or(USUAL_WAIT),
        min,
        min_interval: min_interval.unwrap_or_default(),
        timeout: timeout.unwrap_or(USUAL_TIMEOUT),
        inplace,
        check_in_place,
        rollback,
    })
}

/// A template's file or a built-in, one of both.
fn from(table: &RawRender, with: &toml::Table, problems: &mut Problems) -> Option<RenderFrom> {
    match (&table.template, &table.builtin) {
        (Some(text), None) => given("template", Some(text), absolute, problems).map(RenderFrom::File),
        (None, Some(text)) => {
            let builtin = given("builtin", Some(text), builtin, problems)?;
            for (key, what) in builtin.problems(with) {
                problems.push(("with", format!("{key} {what}")));
            }
            Some(RenderFrom::Builtin(builtin.name()))
        }
        (Some(_), Some(_)) => {
            problems.push(("builtin", "is given beside a template: one of both".to_owned()));
            None
        }
        (None, None) => {
            problems.push(("template", "is needed, or a builtin".to_owned()));
            None
        }
    }
}

/// A table without a name is called as its built-in, or as its file.
fn usual_name(from: Option<&RenderFrom>, destination: Option<&Path>) -> Option<String> {
    if let Some(RenderFrom::Builtin(name)) = from {
        return Some((*name).to_owned());
    }
    let file = destination?.file_name()?.to_string_lossy().into_owned();
    Label::slug(&file).map(|label| label.as_str().to_owned())
}

fn builtin(text: &str) -> Parsed<Builtin> {
    Builtin::parse(text).ok_or_else(|| format!("{text:?} is neither haproxy, nginx, hosts nor mcrouter"))
}

fn name(text: &str) -> Parsed<String> {
    let is_label = Label::slug(text).is_some_and(|label| label.as_str() == text);
    if is_label { Ok(text.to_owned()) } else { Err(format!("{text:?} is no name such as haproxy or hosts-1")) }
}

fn absolute(text: &str) -> Parsed<PathBuf> {
    let path = parse::path(text)?;
    if path.is_absolute() { Ok(path) } else { Err(format!("{text:?} is no path that begins with /")) }
}

/// A file's path, without the ways round that would make one file look like two.
fn destination(text: &str) -> Parsed<PathBuf> {
    let path = absolute(text)?;
    if text.ends_with('/') || path.file_name().is_none() || path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("{text:?} is no path of a file"));
    }
    Ok(path.components().collect())
}

/// Three or four octal digits.
fn mode(text: &str) -> Parsed<u32> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let mode = u32::from_str_radix(digits, 8).ok().filter(|mode| *mode <= 0o7777 && (3..=5).contains(&digits.len()));
    mode.ok_or_else(|| format!("{text:?} is no mode such as \"0644\""))
}

fn account(text: &str) -> Parsed<String> {
    let is_sane = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.$".contains(c));
    if is_sane { Ok(text.to_owned()) } else { Err(format!("{text:?} is no name of a user or group")) }
}

/// `200ms:5s`; `200ms` alone waits at most four times as long.
fn wait(text: &str) -> Parsed<Wait> {
    let time = |text: &str| parse::duration(text.trim(), Duration::ZERO, 60 * MINUTE);
    let (least, most) = match text.split_once(':') {
        Some((least, most)) => (time(least)?, time(most)?),
        None => time(text).map(|least| (least, least * MOST_BY_LEAST))?,
    };
    if most < least {
        return Err(format!("{text:?}: the longest wait is shorter than the quiet time"));
    }
    Ok(Wait { least, most })
}

fn command(key: &'static str, argv: Option<&Vec<String>>, problems: &mut Problems) -> Vec<String> {
    let Some(argv) = argv else { return Vec::new() };
    if argv.first().is_none_or(String::is_empty) {
        problems.push((key, "names no program".to_owned()));
    }
    if argv.len() > MAX_ARGUMENTS || argv.iter().any(|part| part.len() > MAX_ARGUMENT || part.contains('\0')) {
        problems.push((key, format!("more than {MAX_ARGUMENTS} arguments, or one of more than {MAX_ARGUMENT} bytes")));
    }
    argv.clone()
}

/// The candidate's path may stand in them.
fn check_arguments(check: &[String], problems: &mut Problems) {
    for part in check {
        if let Err(what) = render::argument(part, &[("candidate", "/x"), ("destination", "/x")]) {
            problems.push(("check", format!("{what}; {{{{ candidate }}}} and {{{{ destination }}}} are known here")));
        }
    }
}

fn min(table: &RawRender, problems: &mut Problems) -> BTreeMap<String, usize> {
    let mut min = BTreeMap::new();
    for (service, value) in &table.min {
        let least = value.as_integer().and_then(|number| usize::try_from(number).ok());
        match (super::topology::service(service), least) {
            (Ok(service), Some(least)) => drop(min.insert(service, least)),
            (Err(what), _) => problems.push(("min", what)),
            (_, None) => problems.push(("min", format!("{service}: {value} is no whole number"))),
        }
    }
    min
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> (Option<RenderConfig>, Vec<String>) {
        let (config, problems) = read(&toml::from_str(text).expect("a table"));
        (config, problems.into_iter().map(|(key, what)| format!("{key}: {what}")).collect())
    }

    #[test]
    fn a_table_as_the_page_writes_it() {
        let (config, problems) = table(concat!(
            "name = 'haproxy'\ntemplate = '/etc/wharf/haproxy.cfg.j2'\ndestination = '/etc//haproxy/./haproxy.cfg'\n",
            "mode = '0644'\ncheck = ['haproxy', '-c', '-f', '{{ candidate }}']\nreload = ['systemctl', 'reload', 'x']\n",
            "wait = '200ms:5s'\nmin = { redis = 1 }\nmin-interval = '5s'\nrollback = true\n"
        ));
        let config = config.unwrap_or_else(|| panic!("{problems:?}"));
        assert_eq!(config.destination, Path::new("/etc/haproxy/haproxy.cfg"));
        assert_eq!((config.mode, config.wait, config.min["redis"]), (Some(0o644), USUAL_WAIT, 1));
        let bare = |text: &str| table(&format!("destination = '/etc/My Hosts'\n{text}")).0.expect("a table");
        assert_eq!(bare("builtin = 'hosts'").name, "hosts");
        assert_eq!(bare("template = '/x.j2'\nwait = '1s'").name, "my-hosts");
        let wait = bare("template = '/x.j2'\nwait = '1s'").wait;
        assert_eq!(wait.most, Duration::from_secs(4));
    }

    #[test]
    fn what_is_wrong_is_told_at_once() {
        let (config, problems) = table(concat!(
            "name = 'My File'\ntemplate = 'x.j2'\ndestination = '/etc/../x'\nmode = '9'\nowner = 'a b'\ngroup = ''\n",
            "check = ['x', '{{.src}}']\nreload = []\nwait = '5s:1s'\nmin = { redis = 'x' }\nmin-interval = '2h'\n",
            "timeout = '0s'\ninplace = 'x'\nrollback = true\n"
        ));
        assert_eq!(config, None);
        for key in [
            "name",
            "template",
            "destination",
            "mode",
            "owner",
            "group",
            "check",
            "reload",
            "wait",
            "min",
            "min-interval",
            "timeout",
            "inplace",
            "rollback",
        ] {
            assert!(problems.iter().any(|problem| problem.starts_with(&format!("{key}:"))), "{key}: {problems:?}");
        }
        for wrong in [
            "",
            "builtin = 'x'",
            "builtin = 'hosts'\ntemplate = '/x'",
            "builtin = 'mcrouter'",
            "builtin = 'hosts'\nwith = { x = 1 }",
            "builtin = 'hosts'\ncheck-in-place = true",
        ] {
            let (config, problems) = table(&format!("destination = '/x'\n{wrong}\n"));
            assert!(config.is_none() && !problems.is_empty(), "{wrong}");
        }
    }
}
