//! How etcd is named to the commands that write to it: as to the agent, by flags, variables or its file.

use std::path::PathBuf;

use super::terminal::Terminal;
use crate::config::Raw;
use crate::model::words::key::Prefix;
use crate::store::StoreError;
use crate::store::etcd::Etcd;

/// Where etcd is.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct EtcdArgs {
    /// File with the agent's settings, as TOML
    #[arg(long, env = "WHARF_CONFIG", value_name = "FILE", help_heading = "Store", hide_env_values = true)]
    pub config: Option<PathBuf>,

    /// etcd endpoints, such as http://10.0.0.1:2379
    #[arg(
        long,
        env = "WHARF_ETCD_ENDPOINTS",
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Store",
        hide_env_values = true
    )]
    pub etcd_endpoints: Option<Vec<String>>,

    /// Authorities that may have signed etcd's certificate, as PEM
    #[arg(long, env = "WHARF_ETCD_CA", value_name = "FILE", help_heading = "Store", hide_env_values = true)]
    pub etcd_ca: Option<String>,

    /// Client certificate for etcd, as PEM
    #[arg(long, env = "WHARF_ETCD_CERT", value_name = "FILE", help_heading = "Store", hide_env_values = true)]
    pub etcd_cert: Option<String>,

    /// Key of the client certificate, as PEM
    #[arg(long, env = "WHARF_ETCD_KEY", value_name = "FILE", help_heading = "Store", hide_env_values = true)]
    pub etcd_key: Option<String>,

    /// User to log in to etcd as
    #[arg(long, env = "WHARF_ETCD_USER", value_name = "NAME", help_heading = "Store", hide_env_values = true)]
    pub etcd_user: Option<String>,

    /// File with that user's password
    #[arg(long, env = "WHARF_ETCD_PASSWORD_FILE", value_name = "FILE", help_heading = "Store", hide_env_values = true)]
    pub etcd_password_file: Option<String>,

    /// Root of the tree of records in etcd [default: /services]
    #[arg(long, env = "WHARF_PREFIX", value_name = "KEY", help_heading = "Store", hide_env_values = true)]
    pub prefix: Option<String>,

    /// Name of this host among the nodes [default: the hostname]
    #[arg(long, env = "WHARF_NODE", value_name = "NAME", help_heading = "Store", hide_env_values = true)]
    pub node: Option<String>,
}

impl EtcdArgs {
    /// The same as settings of an agent.
    pub fn settings(&self) -> Raw {
        Raw {
            node: self.node.clone(),
            etcd_endpoints: self.etcd_endpoints.clone(),
            etcd_ca: self.etcd_ca.clone(),
            etcd_cert: self.etcd_cert.clone(),
            etcd_key: self.etcd_key.clone(),
            etcd_user: self.etcd_user.clone(),
            etcd_password_file: self.etcd_password_file.clone(),
            prefix: self.prefix.clone(),
            // These commands offer nothing: in a container, where an agent has to be told its address, they need none.
            advertise: Some(vec!["auto".to_owned()]),
            ..Raw::default()
        }
    }
}

/// etcd, and how this host is called there.
#[derive(Debug)]
pub struct Reached {
    /// The store.
    pub store: Etcd,
    /// The root of its records.
    pub prefix: Prefix,
    /// This host.
    pub node: String,
    /// Where its agent keeps what it remembers.
    pub state_dir: PathBuf,
}

/// Tells what the store said, and with what a command ends by it.
pub fn trouble(error: &StoreError, terminal: &mut Terminal) -> super::exit::Exit {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let text = format!("{error}{cause}");
    match error {
        StoreError::Refused { .. } => {
            terminal.fail(&text, "etcd's own rights and limits");
            super::exit::Exit::NotMet
        }
        _ => {
            terminal.fail(&text, "--etcd-endpoints of an etcd that answers");
            super::exit::Exit::Unreachable
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Surroundings};

    #[test]
    fn a_container_with_a_network_of_its_own_need_not_say_where_it_is_to_ask_etcd() {
        let surroundings = Surroundings { contained: true, ..Surroundings::default() };
        let asks = EtcdArgs { node: Some("core-01".to_owned()), ..EtcdArgs::default() };
        let file = Some(("wharf.toml", "etcd-endpoints = 'http://10.0.0.1:2379'"));
        assert!(Config::load(&asks.settings(), file, &surroundings).is_ok());
        // Who it is has to be said: a container's own name says nothing to others.
        assert!(Config::load(&EtcdArgs::default().settings(), file, &surroundings).is_err());
    }
}
