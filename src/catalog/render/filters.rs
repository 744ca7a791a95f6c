//! Filters: how text that others wrote is quoted for what reads the file, and what makes lists handy.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::net::IpAddr;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

use super::marks::whole;
use super::quote;
use crate::model::words::name::is_host;

/// How deep a value may be that is written as JSON or TOML.
const DEEPEST: usize = 64;

/// Adds all of them.
pub(super) fn add(to: &mut Environment<'_>) {
    to.add_filter("raw", |value: Value| as_text(&value).map(|text| text.into_owned()));
    to.add_filter("sh", |value: Value| as_text(&value).map(|text| quote::sh(&text)));
    to.add_filter("haproxy", |value: Value| as_text(&value).map(|text| quote::haproxy(&text)));
    to.add_filter("nginx", |value: Value| as_text(&value).map(|text| quote::nginx(&text)));
    to.add_filter("json", json);
    to.add_filter("tojson", json);
    to.add_filter("toml", toml);
    to.add_filter("hostport", hostport);
    to.add_filter("sort_by", sort_by);
    to.add_test("address", |value: &Value| value.as_str().is_some_and(|text| text.parse::<IpAddr>().is_ok()));
    to.add_test("hostname", |value: &Value| value.as_str().is_some_and(is_host));
}

fn refused(what: impl Into<Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// A value's text without its marks.
fn as_text(value: &Value) -> Result<Cow<'_, str>, Error> {
    match value.kind() {
        ValueKind::Undefined => Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::None => Err(refused("none cannot be written: `default` has no hold on it, `if … is not none` does")),
        ValueKind::String => Ok(whole(value.as_str().unwrap_or_default())),
        ValueKind::Number | ValueKind::Bool => Ok(Cow::Owned(value.to_string())),
        kind => Err(refused(format!("this filter takes text, not {kind}"))),
    }
}

#[allow(clippy::needless_pass_by_value)] // the engine hands arguments over
fn json(value: &Value, arguments: Kwargs) -> Result<String, Error> {
    let indent = arguments.get::<Option<usize>>("indent")?;
    arguments.assert_all_used()?;
    let value = as_json(value, DEEPEST)?;
    let written = if indent.is_some_and(|indent| indent > 0) {
        serde_json::to_string_pretty(&value)
    } else {
        serde_json::to_string(&value)
    };
    written.map_err(|error| refused(error.to_string()))
}

fn toml(value: &Value) -> Result<String, Error> {
    as_toml(&as_json(value, DEEPEST)?)
}

/// A value as JSON's, without marks.
fn as_json(value: &Value, depth: usize) -> Result<serde_json::Value, Error> {
    use serde_json::Value as Json;
    let within = depth.checked_sub(1).ok_or_else(|| refused(format!("deeper than {DEEPEST} levels")))?;
    Ok(match value.kind() {
        ValueKind::Undefined => return Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::None => Json::Null,
        ValueKind::Bool => Json::Bool(value.is_true()),
        ValueKind::Number => number(value)?,
        ValueKind::String => Json::String(whole(value.as_str().unwrap_or_default()).into_owned()),
        ValueKind::Seq | ValueKind::Iterable => {
            Json::Array(value.try_iter()?.map(|item| as_json(&item, within)).collect::<Result<_, _>>()?)
        }
        ValueKind::Map => {
            let mut map = serde_json::Map::new();
            for key in value.try_iter()? {
                map.insert(as_text(&key)?.into_owned(), as_json(&value.get_item(&key)?, within)?);
            }
            Json::Object(map)
        }
        kind => return Err(refused(format!("{kind} cannot be written"))),
    })
}

fn number(value: &Value) -> Result<serde_json::Value, Error> {
    let text = value.to_string();
    let number = text.parse::<serde_json::Number>();
    number.map(serde_json::Value::Number).map_err(|_| refused(format!("{text} is no number that can be written")))
}

fn as_toml(value: &serde_json::Value) -> Result<String, Error> {
    use serde_json::Value as Json;
    let all =
        |parts: Vec<Result<String, Error>>| parts.into_iter().collect::<Result<Vec<_>, _>>().map(|all| all.join(", "));
    Ok(match value {
        Json::Null => return Err(refused("TOML has no none")),
        Json::Bool(truth) => truth.to_string(),
        Json::Number(number) => number.to_string(),
        Json::String(text) => quote::toml(text),
        Json::Array(items) => format!("[{}]", all(items.iter().map(as_toml).collect())?),
        Json::Object(map) => {
            let pair = |(key, value): (&String, &Json)| Ok(format!("{} = {}", quote::toml(key), as_toml(value)?));
            format!("{{{}}}", all(map.iter().map(pair).collect())?)
        }
    })
}

/// `host:port` of an endpoint, a node's member or anything else that has both; IPv6 in brackets.
fn hostport(value: &Value) -> Result<String, Error> {
    let part = |name: &str| {
        let part = value.get_attr(name)?;
        if part.is_undefined() || part.is_none() { Err(refused(format!("it has no {name}"))) } else { Ok(part) }
    };
    let (host, port) = (part("host")?.to_string(), part("port")?);
    Ok(if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") })
}

/// Sorted by one or more attributes, `"node"` or `"node,port"`; what has none comes last.
#[allow(clippy::needless_pass_by_value)] // the engine hands arguments over
fn sort_by(value: &Value, by: &str, arguments: Kwargs) -> Result<Value, Error> {
    let reverse = arguments.get::<Option<bool>>("reverse")?.unwrap_or(false);
    arguments.assert_all_used()?;
    let mut items = Vec::new();
    for item in value.try_iter()? {
        let keys = by.split(',').map(|name| attribute(&item, name.trim())).collect::<Result<Vec<_>, _>>()?;
        items.push((keys, item));
    }
    let order = |one: &[Value], other: &[Value]| {
        let pairs = one.iter().zip(other).map(|(one, other)| (is_unset(one), one).cmp(&(is_unset(other), other)));
        pairs.fold(Ordering::Equal, Ordering::then)
    };
    items.sort_by(|(one, _), (other, _)| if reverse { order(other, one) } else { order(one, other) });
    Ok(items.into_iter().map(|(_, item)| item).collect())
}

fn attribute(item: &Value, path: &str) -> Result<Value, Error> {
    path.split('.').try_fold(item.clone(), |value, name| {
        if value.is_undefined() || value.is_none() { Ok(Value::UNDEFINED) } else { value.get_attr(name) }
    })
}

fn is_unset(value: &Value) -> bool {
    value.is_undefined() || value.is_none()
}
