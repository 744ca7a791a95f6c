//! How an instance's readiness is found out: what a label asks for, else what the image's name tells.
//!
//! A guess is made only for the protocol's own port or the container's only port; a number alone is no guess. A check
//! of registrator's that wharf lacks counts as none and says so; a name that is no check at all is a slip, which never
//! makes an instance less safe than saying nothing would. Credentials come from the environment where the official
//! image defines them, or from labels with a file of `--check-secrets` that a `[[secret]]` table lets the container
//! have.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use super::super::container::Container;
use super::super::instance::{Check, CheckDetail, CheckKind, Confidant, FirstProcess, Secret};
use super::address::{NoWay, shorten};
use super::metadata::Metadata;
use super::secrets::is_bare;
use super::words::{image_base, parse_duration};
use super::{ChecksMode, INTERVAL_BOUNDS, MAX_CHECK_TIMEOUT, Settings, kind};
use crate::model::words::record::Proto;

/// What is known of the port whose check is decided.
pub(super) struct Asked<'a> {
    pub(super) metadata: Metadata<'a, 'a>,
    /// The container, absent for a table of the config file.
    pub(super) container: Option<&'a Container>,
    pub(super) port: u16,
    pub(super) proto: Proto,
    /// The container's only service port.
    pub(super) only_port: bool,
    pub(super) target: Option<SocketAddr>,
    pub(super) own: Option<SocketAddr>,
    /// It is a port of another container's network.
    pub(super) shared: bool,
}

/// The check of one port, and whether `none` was asked for in so many words.
pub(super) fn check(asked: &Asked<'_>, settings: &Settings) -> Result<(Check, bool), NoWay> {
    let interval = bounded(asked.metadata, "check_interval", *INTERVAL_BOUNDS.start(), *INTERVAL_BOUNDS.end())?;
    let timeout = bounded(asked.metadata, "check_timeout", Duration::from_millis(1), MAX_CHECK_TIMEOUT)?;
    if settings.checks == ChecksMode::Off {
        return Ok((Check::default(), false));
    }
    let Wanted { kind, guessed, mut warning, none_asked } = wanted(asked, settings.checks)?;
    if kind == CheckKind::None {
        return Ok((Check { warning, ..Check::default() }, none_asked));
    }
    if asked.proto == Proto::Udp {
        let warning = Some(format!("a {kind} check needs TCP: not checked"));
        return Ok((Check { warning, ..Check::default() }, false));
    }
    let target = if kind == CheckKind::Tcp { asked.own.or(asked.target) } else { asked.target };
    if target.is_none() {
        let warning = Some(format!("the {kind} check is not made: no address of this host is known for it"));
        return Ok((Check { warning, ..Check::default() }, false));
    }
    let detail = detail(asked, kind, settings, &mut warning)?;
    let confidant = if detail.password.is_some() { confidant(asked) } else { Confidant::default() };
    let own = asked.own;
    Ok((Check { kind, guessed, target, own, confidant, interval, timeout, detail, warning }, false))
}

/// Who may be told the password.
fn confidant(asked: &Asked<'_>) -> Confidant {
    let Some(container) = asked.container else { return Confidant::Table };
    let Some(pid) = container.pid else { return Confidant::Nobody("the engine tells no process of it") };
    let process = FirstProcess { container: container.id.clone(), pid };
    match asked.own {
        // At that address others serve too, and which of them is not to be told from outside.
        Some(_) if asked.shared => Confidant::Nobody("it shares another container's network"),
        Some(own) => Confidant::Own(own, process),
        None => Confidant::OnHost(process),
    }
}

/// Keys that ask for a check by being there.
const BY_KEY: [(&str, CheckKind); 3] =
    [("check_http", CheckKind::Http), ("check_https", CheckKind::Http), ("check_tcp", CheckKind::Tcp)];

/// Whether a key asks for a check, without `check` itself.
pub(super) fn is_asked_by(key: &str) -> bool {
    let lacks = key.strip_prefix("check_").is_some_and(|name| LACKING.contains(&name));
    lacks || BY_KEY.iter().any(|(known, _)| *known == key)
}

struct Wanted {
    kind: CheckKind,
    guessed: bool,
    warning: Option<String>,
    none_asked: bool,
}

fn wanted(asked: &Asked<'_>, mode: ChecksMode) -> Result<Wanted, NoWay> {
    let found = |kind, guessed| Wanted { kind, guessed, warning: None, none_asked: false };
    if let Some(name) = asked.metadata.get("check").filter(|name| !name.trim().is_empty()) {
        return match by_name(name) {
            Some(kind) => Ok(Wanted { none_asked: kind == CheckKind::None, ..found(kind, false) }),
            None if LACKING.contains(&name.trim().to_ascii_lowercase().as_str()) => Ok(lacking(name)),
            None => slip(name, asked),
        };
    }
    let lacks = LACKING.into_iter().find(|name| asked.metadata.get(&format!("check_{name}")).is_some());
    for (key, kind) in BY_KEY {
        let given = asked.metadata.get(key).filter(|value| !matches!(*value, "false" | "0" | "no"));
        if given.is_some() {
            let warning = lacks.map(|name| format!("there is no check {name:?}: only the {kind} check is made"));
            return Ok(Wanted { warning, ..found(kind, false) });
        }
    }
    Ok(match (lacks, mode) {
        (Some(name), _) => lacking(name),
        (None, ChecksMode::Auto) => found(guess(asked), true),
        (None, ChecksMode::Asked | ChecksMode::Off) => found(CheckKind::None, false),
    })
}

/// Checks that registrator's users may ask for and that are not made here.
const LACKING: [&str; 5] = ["script", "cmd", "grpc", "ttl", "docker"];

fn lacking(name: &str) -> Wanted {
    let warning = Some(format!("there is no check {:?}: not checked", shorten(name)));
    Wanted { kind: CheckKind::None, guessed: false, warning, none_asked: false }
}

/// Who names a check wants one: the image's own is made, and without one the port is not offered.
fn slip(name: &str, asked: &Asked<'_>) -> Result<Wanted, NoWay> {
    let what = unknown_check(name);
    match guess(asked) {
        CheckKind::None => Err((kind::UNKNOWN_CHECK, format!("SERVICE_CHECK: {what}"))),
        guess => {
            let warning = Some(format!("{what}; the {guess} check is made, as the image's name tells"));
            Ok(Wanted { kind: guess, guessed: true, warning, none_asked: false })
        }
    }
}

/// What is wrong with a check's name, and what may have been meant.
fn unknown_check(name: &str) -> String {
    let meant = NAMES.map(|(known, _)| known).into_iter().min_by_key(|known| distance(known, name.trim()));
    let meant = meant.filter(|known| distance(known, name.trim()) <= 2).map(|known| format!("; did you mean {known}?"));
    format!("there is no check {:?}{}", shorten(name), meant.unwrap_or_default())
}

/// What is wrong with the check of a table, which is the operator's own word: there a slip is refused.
pub fn problem_of_check(name: &str) -> Option<String> {
    let is_known = by_name(name).is_some() || LACKING.contains(&name.trim().to_ascii_lowercase().as_str());
    (!is_known).then(|| unknown_check(name))
}

/// How many letters have to be changed, put in or left out to come from one word to another; of long ones not less than
/// their lengths differ by.
fn distance(one: &str, other: &str) -> usize {
    if other.len() > 2 * MAX_CHECK_NAME {
        return other.len();
    }
    let other = other.to_ascii_lowercase();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (place, letter) in one.bytes().enumerate() {
        let mut before = row[0];
        row[0] = place + 1;
        for (column, of_other) in other.bytes().enumerate() {
            let change = before + usize::from(letter != of_other);
            before = row[column + 1];
            row[column + 1] = change.min(before + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

/// The longest name of a check.
const MAX_CHECK_NAME: usize = 10;

/// Every name that a check has.
const NAMES: [(&str, CheckKind); 14] = [
    ("none", CheckKind::None),
    ("off", CheckKind::None),
    ("tcp", CheckKind::Tcp),
    ("memcached", CheckKind::Memcached),
    ("redis", CheckKind::Redis),
    ("valkey", CheckKind::Redis),
    ("postgres", CheckKind::Postgres),
    ("postgresql", CheckKind::Postgres),
    ("http", CheckKind::Http),
    ("https", CheckKind::Http),
    ("zookeeper", CheckKind::Zookeeper),
    ("mysql", CheckKind::Mysql),
    ("mariadb", CheckKind::Mysql),
    ("mongodb", CheckKind::Mongodb),
];

fn by_name(name: &str) -> Option<CheckKind> {
    let name = name.trim().to_ascii_lowercase();
    let name = if name == "mongo" { "mongodb" } else { &name };
    NAMES.into_iter().find_map(|(known, kind)| (known == name).then_some(kind))
}

/// The protocol that an image's base name tells, with its own port.
fn of_image(base: &str) -> Option<(CheckKind, u16)> {
    Some(match base {
        "memcached" => (CheckKind::Memcached, 11211),
        "redis" | "valkey" | "redis-stack" | "redis-stack-server" => (CheckKind::Redis, 6379),
        "postgres" | "postgresql" | "postgis" | "timescaledb" | "pgvector" => (CheckKind::Postgres, 5432),
        "zookeeper" => (CheckKind::Zookeeper, 2181),
        "mysql" | "mariadb" | "percona" => (CheckKind::Mysql, 3306),
        "mongo" | "mongodb" => (CheckKind::Mongodb, 27017),
        _ => return None,
    })
}

fn guess(asked: &Asked<'_>) -> CheckKind {
    let base = asked.container.and_then(|container| image_base(&container.image, &container.image_id));
    match base.and_then(of_image) {
        Some((kind, own)) if asked.proto == Proto::Tcp && (own == asked.port || asked.only_port) => kind,
        _ => CheckKind::None,
    }
}

/// A duration label within its bounds.
fn bounded(metadata: Metadata<'_, '_>, key: &str, least: Duration, most: Duration) -> Result<Option<Duration>, NoWay> {
    let Some(text) = metadata.get(key) else { return Ok(None) };
    let bad = |why: String| (kind::BAD_LABEL, format!("SERVICE_{}={:?}: {why}", key.to_uppercase(), shorten(text)));
    let duration = parse_duration(text).ok_or_else(|| bad("no duration".to_owned()))?;
    if duration < least || duration > most {
        let (least, most) = (humantime::format_duration(least), humantime::format_duration(most));
        return Err(bad(format!("outside of {least} to {most}")));
    }
    Ok(Some(duration))
}

fn detail(
    asked: &Asked<'_>,
    kind: CheckKind,
    settings: &Settings,
    warning: &mut Option<String>,
) -> Result<CheckDetail, NoWay> {
    let metadata = asked.metadata;
    let mut detail = CheckDetail::default();
    if kind == CheckKind::Http {
        let secure = metadata.get("check_https").filter(|_| metadata.get("check_http").is_none());
        let path = secure.or(metadata.get("check_http")).unwrap_or("/");
        detail.path = Some(http_path(path)?.into());
        detail.tls = secure.is_some() || metadata.get("check").is_some_and(|name| name.eq_ignore_ascii_case("https"));
    }
    if let Some(container) = asked.container {
        from_environment(container, kind, &mut detail);
    }
    if let Some(user) = metadata.get("check_user") {
        detail.user = Some(user.into());
        detail.password = None;
    }
    if let Some(name) = metadata.get("check_password_file") {
        let name = secret_name(name)?;
        match permitted(name, asked.container, settings) {
            Ok(dir) => detail.password = Some(Secret::File(dir.join(name))),
            Err(why) => {
                *warning = Some(why);
                (detail.user, detail.password) = (None, None);
            }
        }
    }
    if let Some(database) = metadata.get("check_database") {
        detail.database = Some(database.into());
    }
    Ok(detail)
}

/// A request target: it begins with a slash, and nothing in it ends the request's first line.
fn http_path(path: &str) -> Result<String, NoWay> {
    let path = if path == "true" { "/" } else { path };
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let fits = path.len() <= 2048 && path.bytes().all(|byte| byte.is_ascii_graphic());
    let bad = || (kind::BAD_LABEL, format!("SERVICE_CHECK_HTTP={:?} is no path", shorten(&path)));
    if fits { Ok(path) } else { Err(bad()) }
}

/// A bare file name.
fn secret_name(name: &str) -> Result<&str, NoWay> {
    let bad = || (kind::BAD_LABEL, format!("SERVICE_CHECK_PASSWORD_FILE={:?} is no bare file name", shorten(name)));
    if is_bare(name) { Ok(name) } else { Err(bad()) }
}

/// The directory to read the file from, if it may be read for this container; the configuration's own tables may name
/// any.
fn permitted<'s>(file: &str, container: Option<&Container>, settings: &'s Settings) -> Result<&'s Path, String> {
    let Some(dir) = &settings.secrets_dir else {
        return Err("SERVICE_CHECK_PASSWORD_FILE is refused without --check-secrets".to_owned());
    };
    match container {
        Some(container) if !settings.secrets.iter().any(|rule| rule.lets(&container.name, file)) => Err(format!(
            "SERVICE_CHECK_PASSWORD_FILE={file:?} is refused: no [[secret]] table lets a container called {:?} have it",
            shorten(&container.name)
        )),
        _ => Ok(dir),
    }
}

/// What the official image of a protocol reads from its environment.
fn from_environment(container: &Container, kind: CheckKind, detail: &mut CheckDetail) {
    let official = image_base(&container.image, &container.image_id);
    let env = |key: &str| container.env(key).filter(|value| !value.is_empty());
    match (kind, official) {
        (CheckKind::Postgres, Some("postgres" | "postgis" | "timescaledb" | "pgvector")) => {
            let trusted = env("POSTGRES_HOST_AUTH_METHOD") == Some("trust");
            let password = env("POSTGRES_PASSWORD");
            if password.is_none() && !trusted {
                return;
            }
            let user = env("POSTGRES_USER").unwrap_or("postgres");
            detail.user = Some(user.into());
            detail.password = password.map(|password| Secret::Value(password.into()));
            detail.database = Some(env("POSTGRES_DB").unwrap_or(user).into());
        }
        (CheckKind::Mysql, Some("mysql" | "mariadb" | "percona")) => {
            let either = |name: &str| env(&format!("MYSQL_{name}")).or(env(&format!("MARIADB_{name}")));
            let (user, password) = match (either("USER"), either("PASSWORD")) {
                (Some(user), Some(password)) => (user, password),
                _ => match either("ROOT_PASSWORD") {
                    Some(password) => ("root", password),
                    None => return,
                },
            };
            detail.user = Some(user.into());
            detail.password = Some(Secret::Value(password.into()));
            detail.database = either("DATABASE").map(Into::into);
        }
        _ => {}
    }
}

/// Environment entries that naming may ask for; an engine adapter need keep no others.
pub fn is_wanted_env(entry: &str) -> bool {
    let prefixes = ["SERVICE_", "POSTGRES_", "MYSQL_", "MARIADB_"];
    prefixes.iter().any(|prefix| entry.starts_with(prefix))
}
