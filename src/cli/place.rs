//! Which agent is asked: flags before the environment, the client's own variable before the agent's, a socket before an
//! address.

use std::path::{Path, PathBuf};

use super::client::Client;

/// Where an agent listens when nothing else is said.
pub const DEFAULT_ADDRESS: &str = "127.0.0.1:5380";

/// Which agent to ask.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConnectArgs {
    /// Agent to ask, by address [env: WHARF_AGENT] [default: 127.0.0.1:5380]
    #[arg(long = "http", value_name = "ADDR", help_heading = "Agent")]
    pub address: Option<String>,

    /// Agent to ask, by its unix socket [env: WHARF_AGENT=unix:PATH]
    #[arg(long = "http-socket", value_name = "PATH", help_heading = "Agent")]
    pub socket: Option<PathBuf>,
}

/// One way to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Tcp(String),
    Unix(PathBuf),
}

impl ConnectArgs {
    /// The client for this agent; `environment` looks a variable up.
    pub fn client(&self, environment: impl Fn(&str) -> Option<String>) -> Client {
        let given = |name: &str| environment(name).filter(|value| !value.is_empty());
        let places = match (&self.socket, &self.address) {
            (Some(socket), _) => vec![Place::Unix(socket.clone())],
            (None, Some(address)) => vec![Place::of(address)],
            (None, None) => {
                if let Some(agent) = given("WHARF_AGENT") {
                    return Client::new(vec![Place::of(&agent)]).told_by("WHARF_AGENT");
                }
                // The agent's own settings, where its environment is ours: `docker exec`, its unit.
                let socket = given("WHARF_HTTP_SOCKET").map(|path| Place::Unix(path.into()));
                let address = given("WHARF_HTTP").map_or_else(|| Place::of(DEFAULT_ADDRESS), |text| Place::of(&text));
                socket.into_iter().chain([address]).collect()
            }
        };
        Client::new(places)
    }

    /// The client for this agent, by the process's own environment.
    pub fn client_from_env(&self) -> Client {
        self.client(|name| std::env::var(name).ok())
    }
}

impl Place {
    /// Reads an address as the agent's own `--http` takes it, a URL, or `unix:PATH`.
    fn of(text: &str) -> Self {
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.strip_prefix("unix:")) {
            return Self::Unix(path.into());
        }
        let text = text.strip_prefix("http://").unwrap_or(text).trim_end_matches('/');
        let text = if text.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok()) {
            text.to_owned()
        } else {
            format!("{text}:5380")
        };
        // An agent that listens on every address is asked by loopback, so that it knows us for this host.
        let text = text.strip_prefix("0.0.0.0:").map(|port| format!("127.0.0.1:{port}")).unwrap_or(text);
        Self::Tcp(text.strip_prefix("[::]:").map(|port| format!("[::1]:{port}")).unwrap_or(text))
    }

    /// What the request names as its Host.
    pub(super) fn host(&self) -> &str {
        match self {
            Self::Tcp(address) => address,
            Self::Unix(_) => "localhost",
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "{}", Path::display(path)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(address: Option<&str>, socket: Option<&str>, environment: &[(&str, &str)]) -> String {
        let args = ConnectArgs { address: address.map(Into::into), socket: socket.map(Into::into) };
        let look = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        args.client(look).place()
    }

    #[test]
    fn flags_win_over_the_environment_and_sockets_over_addresses() {
        let environment = [("WHARF_HTTP", "10.0.0.1:80"), ("WHARF_HTTP_SOCKET", "/run/wharf/http.sock")];
        assert_eq!(places(None, None, &[]), "127.0.0.1:5380");
        assert_eq!(places(Some("10.0.0.2:99"), None, &environment), "10.0.0.2:99");
        assert_eq!(places(None, Some("/x.sock"), &environment), "/x.sock");
        assert_eq!(places(None, None, &environment), "/run/wharf/http.sock or 10.0.0.1:80");
        assert_eq!(places(None, None, &[("WHARF_HTTP", "")]), "127.0.0.1:5380");
        let own = [("WHARF_AGENT", "unix:/run/a.sock"), ("WHARF_HTTP", "10.0.0.1:80")];
        assert_eq!(places(None, None, &own), "/run/a.sock (from WHARF_AGENT)");
        assert_eq!(places(Some("10.0.0.2:99"), None, &own), "10.0.0.2:99");
    }

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (written, meant) in [
            ("core-01", "core-01:5380"),
            ("http://core-01:80/", "core-01:80"),
            ("0.0.0.0:5380", "127.0.0.1:5380"),
            ("[::]:5380", "[::1]:5380"),
            ("[::1]", "[::1]:5380"),
            ("unix:/run/x", "/run/x"),
        ] {
            assert_eq!(places(Some(written), None, &[]), meant);
        }
    }
}
