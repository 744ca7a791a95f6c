//! A redis service whose master the agents move: a frozen server on each host, and a counter that must not notice.

use super::Lab;
use super::container::{Container, redis};
use super::wait::eventually;
use super::wharf::Wharf;

/// The service.
pub const SERVICE: &str = "counted";
/// The name that its master is found by.
pub const MASTER: &str = "primary.counted.services.internal";
const PORT: u16 = 6380;

impl Lab {
    /// What agents that may move its master are told.
    pub fn steering(&self) -> String {
        let servers: Vec<String> = self.hosts().iter().map(|host| format!("\"{}/32\"", host.address())).collect();
        format!("[[topology]]\nservice = \"{SERVICE}\"\nservers = [{}]\n", servers.join(", "))
    }

    /// A server on every host. Each starts frozen, as servers of a topology do.
    pub fn frozen_servers(&self) -> Vec<Container<'_>> {
        let port = PORT.to_string();
        let server = |host: &super::host::Host| {
            let address = host.address().to_string();
            let arguments = ["--replicaof", "127.87.0.0", "1", "--replica-announce-ip", &address];
            redis()
                .name(&format!("{SERVICE}-{}", host.name()))
                .env("SERVICE_NAME", SERVICE)
                .publish_as(PORT, 6379)
                .arguments(&[&arguments[..], &["--replica-announce-port", &port]].concat())
        };
        self.hosts().iter().map(|host| host.run(server(host))).collect()
    }
}

/// Makes the server of this host the master, by the agent that is asked, and says what the command said.
#[track_caller]
pub fn make_master(agent: &Wharf<'_>, host: &str) -> String {
    eventually(&format!("{host} has the master"), || agent.command(&["topology", "switch", SERVICE, "--to", host]))
}
