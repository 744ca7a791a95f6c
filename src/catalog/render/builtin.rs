//! Templates that come with the program, and what their tables may give them.

use std::sync::Arc;

use toml::Value;

use super::engine::Source;
use crate::model::words::name::is_host;

/// What central servers are read from, when it is no list.
pub(crate) const DISCOVERY: &str = "discovery://";

/// A template that comes with the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Builtin {
    /// A whole configuration of HAProxy.
    Haproxy,
    /// Upstreams for nginx.
    Nginx,
    /// `/etc/hosts`.
    Hosts,
    /// mcrouter's pools and routes: each host's memcached as a near cache of central ones.
    Mcrouter,
}

impl Builtin {
    const ALL: [Self; 4] = [Self::Haproxy, Self::Nginx, Self::Hosts, Self::Mcrouter];

    /// The one of this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|builtin| builtin.name() == name)
    }

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Haproxy => "haproxy",
            Self::Nginx => "nginx",
            Self::Hosts => "hosts",
            Self::Mcrouter => "mcrouter",
        }
    }

    /// It, with what its table gives it.
    pub(crate) fn source(self, with: &Arc<toml::Table>) -> Source {
        let text = match self {
            Self::Haproxy => include_str!("builtin/haproxy.cfg.j2"),
            Self::Nginx => include_str!("builtin/nginx.conf.j2"),
            Self::Hosts => include_str!("builtin/hosts.j2"),
            Self::Mcrouter => include_str!("builtin/mcrouter.json.j2"),
        };
        Source { name: format!("builtin {}", self.name()), text: text.into(), with: Arc::clone(with) }
    }

    /// What is wrong with what its table gives it, by key.
    pub(crate) fn problems(self, with: &toml::Table) -> Vec<(String, String)> {
        let (known, needed) = self.keys();
        let mut problems = Vec::new();
        for (key, value) in with {
            match known.iter().find(|(name, ..)| name == key) {
                None => problems.push((key.clone(), "no such setting of this built-in".to_owned())),
                Some((_, wanted, fits)) if !fits(value) => problems.push((key.clone(), format!("is not {wanted}"))),
                Some(_) => {}
            }
        }
        let missing = needed.iter().filter(|key| !with.contains_key(**key));
        problems.extend(missing.map(|key| ((*key).to_owned(), "is needed".to_owned())));
        problems
    }

    /// Its keys, and those that it cannot do without.
    fn keys(self) -> (&'static [Key], &'static [&'static str]) {
        match self {
            Self::Haproxy => (
                &[
                    ("listen", "a table of services, each with an address or a table with `bind`", is_listen),
                    ("stats", "a path", is_word),
                    ("maxconn", "a whole number above 0", is_number),
                ],
                &["listen"],
            ),
            Self::Nginx => (
                &[("services", "a list of services", is_names), ("keepalive", "a whole number above 0", is_number)],
                &[],
            ),
            Self::Hosts => (
                &[
                    ("services", "a list of services", is_names),
                    ("nodes", "true or false", Value::is_bool),
                    ("domain", "a domain", is_name),
                    ("lines", "a list of lines", is_lines),
                ],
                &[],
            ),
            Self::Mcrouter => (
                &[
                    ("service", "a service", is_name),
                    ("local", "an address with a port", is_place),
                    ("central", "a list of addresses with ports, or discovery://HOST:PORT", is_central),
                ],
                &["service", "local", "central"],
            ),
        }
    }
}

/// A key, what it takes in words, and whether a value is that.
type Key = (&'static str, &'static str, fn(&Value) -> bool);

fn is_word(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control()))
}

fn is_name(value: &Value) -> bool {
    value.as_str().is_some_and(is_host)
}

fn is_names(value: &Value) -> bool {
    value.as_array().is_some_and(|all| all.iter().all(is_name))
}

fn is_lines(value: &Value) -> bool {
    let is_line = |line: &Value| line.as_str().is_some_and(|line| !line.contains(char::is_control));
    value.as_array().is_some_and(|all| all.iter().all(is_line))
}

fn is_number(value: &Value) -> bool {
    value.as_integer().is_some_and(|number| number > 0)
}

fn is_listen(value: &Value) -> bool {
    let words = ["bind", "mode", "balance", "role", "tag"];
    let is_choice = |choice: &Value| match choice {
        Value::Table(table) => {
            let fits = |(key, value): (&String, &Value)| {
                if key == "options" { is_lines(value) } else { words.contains(&key.as_str()) && is_word(value) }
            };
            table.contains_key("bind") && table.iter().all(fits)
        }
        other => is_word(other),
    };
    value.as_table().is_some_and(|all| all.iter().all(|(name, choice)| is_host(name) && is_choice(choice)))
}

/// `HOST:PORT`, an IPv6 address in brackets.
fn is_place(value: &Value) -> bool {
    value.as_str().is_some_and(|text| place(text).is_some())
}

fn is_central(value: &Value) -> bool {
    match value {
        Value::Array(all) => !all.is_empty() && all.iter().all(is_place),
        Value::String(text) => text.strip_prefix(DISCOVERY).is_some_and(|text| place(text).is_some()),
        _ => false,
    }
}

/// Host and port as they are written.
pub(crate) fn place(text: &str) -> Option<(&str, u16)> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    let inside = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let fits = match inside {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.contains(':') && is_host(host),
    };
    fits.then_some((inside.unwrap_or(host), port))
}
