//! Reads the settings from where they are: the file, the environment, the host's name.

use std::fs;
use std::path::Path;

use crate::cli::AgentArgs;
use crate::config::{Config, Problem, Problems, Surroundings};

/// Reads everything anew and joins it; all problems at once.
pub(super) fn read(args: &AgentArgs) -> Result<Config, Problems> {
    let file = args.config.as_deref().map(|path| (path.display().to_string(), fs::read_to_string(path)));
    match file {
        None => Config::load(&args.settings, None, &surroundings()),
        Some((name, Ok(text))) => Config::load(&args.settings, Some((&name, &text)), &surroundings()),
        Some((name, Err(error))) => {
            let mut problems = vec![Problem { at: name, what: error.to_string() }];
            let flags = Config::load(&args.settings, None, &surroundings());
            problems.extend(flags.err().map_or_else(Vec::new, |more| more.0));
            Err(Problems(problems))
        }
    }
}

/// The host as the defaults see it.
fn surroundings() -> Surroundings {
    Surroundings {
        hostname: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        contained: contained(),
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
    }
}

/// In a container, and on a network of its own: its uplink is one end of a pair whose other end is elsewhere.
fn contained() -> bool {
    let marked = ["/.dockerenv", "/run/.containerenv"].iter().any(|mark| Path::new(mark).exists());
    marked && uplink().is_some_and(|interface| is_pair(&interface))
}

/// The interface of the default route.
fn uplink() -> Option<String> {
    let routes = fs::read_to_string("/proc/net/route").ok()?;
    let default = routes.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    default
        .filter(|fields| fields.get(1) == Some(&"00000000"))
        .find_map(|fields| fields.first().map(ToString::to_string))
}

fn is_pair(interface: &str) -> bool {
    let number = |name: &str| fs::read_to_string(format!("/sys/class/net/{interface}/{name}")).ok();
    matches!((number("iflink"), number("ifindex")), (Some(peer), Some(own)) if peer.trim() != own.trim())
}
