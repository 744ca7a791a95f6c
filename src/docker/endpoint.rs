//! Where the engine listens: `--docker` or DOCKER_HOST.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The engine's socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A unix socket.
    Unix(PathBuf),
    /// Host and port, without TLS.
    Tcp(String),
}

/// Why a text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no engine that can be reached: unix:///path or tcp://host:port")]
pub struct BadEndpoint(String);

impl FromStr for Endpoint {
    type Err = BadEndpoint;

    fn from_str(text: &str) -> Result<Self, BadEndpoint> {
        let bad = || BadEndpoint(text.to_owned());
        if let Some(path) = text.strip_prefix("unix://").or_else(|| text.starts_with('/').then_some(text)) {
            return if path.is_empty() { Err(bad()) } else { Ok(Self::Unix(path.into())) };
        }
        let address = text.strip_prefix("tcp://").or_else(|| text.strip_prefix("http://")).ok_or_else(bad)?;
        let address = address.trim_end_matches('/');
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && !port.contains(']') => (host, port),
            _ => (address, "2375"),
        };
        let fits = !host.is_empty() && !host.contains(['/', '@', ' ']) && port.parse::<u16>().is_ok_and(|p| p > 0);
        if fits { Ok(Self::Tcp(format!("{host}:{port}"))) } else { Err(bad()) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_as_docker_writes_them() {
        for (text, expected) in [
            ("unix:///var/run/docker.sock", Some("unix:///var/run/docker.sock")),
            ("/run/docker.sock", Some("unix:///run/docker.sock")),
            ("tcp://10.0.0.1:2375", Some("tcp://10.0.0.1:2375")),
            ("tcp://proxy", Some("tcp://proxy:2375")),
            ("tcp://[::1]:2375", Some("tcp://[::1]:2375")),
            ("http://proxy:80/", Some("tcp://proxy:80")),
            ("ssh://host", None),
            ("unix://", None),
            ("tcp://", None),
            ("tcp://host:0", None),
            ("", None),
        ] {
            let parsed = text.parse::<Endpoint>().ok().map(|endpoint| endpoint.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text:?}");
        }
    }
}
