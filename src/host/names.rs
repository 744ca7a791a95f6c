//! Names that this host's own resolver knows: what `/etc/hosts` and the servers of `/etc/resolv.conf` say now.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::net::NetError;
use hickory_resolver::proto::rr::RData;
use tokio::time::timeout;

/// How long one server is waited for, once.
const SERVER: Duration = Duration::from_secs(1);
/// How long a name is looked for in all.
const NAME: Duration = Duration::from_secs(3);
/// Of so many targets the addresses are looked for: nobody means more by one name.
const TARGETS: usize = 8;

/// Why a name leads nowhere.
#[derive(Debug, thiserror::Error)]
pub enum NameError {
    /// The resolver cannot be set up, or found nothing.
    #[error("DNS does not find {name}")]
    Unfound {
        /// The name.
        name: String,
        /// What it said.
        source: Box<NetError>,
    },
    /// Nobody has answered in time.
    #[error("DNS does not answer about {0}")]
    Silent(String),
}

/// The places that a name leads to: by its SRV records where it has some, else its addresses with `port`.
pub async fn look_up(name: &str, port: u16) -> Result<Vec<SocketAddr>, NameError> {
    let found = timeout(NAME, found(name, port)).await.map_err(|_| NameError::Silent(name.to_owned()))?;
    found.map_err(|source| NameError::Unfound { name: name.to_owned(), source: Box::new(source) })
}

async fn found(name: &str, port: u16) -> Result<Vec<SocketAddr>, NetError> {
    let mut builder = TokioResolver::builder_tokio()?;
    let options = builder.options_mut();
    (options.timeout, options.attempts) = (SERVER, 1);
    let resolver = builder.build()?;
    let (services, own) = tokio::join!(resolver.srv_lookup(name), addresses(&resolver, name));
    let targets = services.iter().flat_map(|lookup| lookup.answers()).filter_map(|record| match &record.data {
        RData::SRV(service) => Some((service.target.to_utf8(), service.port)),
        _ => None,
    });
    let mut places = Vec::new();
    for (target, port) in targets.take(TARGETS) {
        let addresses = addresses(&resolver, &target).await.unwrap_or_default();
        places.extend(addresses.into_iter().map(|address| SocketAddr::new(address, port)));
    }
    if places.is_empty() {
        places.extend(own?.into_iter().map(|address| SocketAddr::new(address, port)));
    }
    places.sort_unstable();
    places.dedup();
    Ok(places)
}

async fn addresses(resolver: &TokioResolver, name: &str) -> Result<Vec<IpAddr>, NetError> {
    Ok(resolver.lookup_ip(name).await?.iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn this_host_is_found_by_its_own_file_and_nobody_by_no_name() {
        let found = look_up("localhost", 7).await.expect("every host knows itself");
        assert!(found.contains(&SocketAddr::from(([127, 0, 0, 1], 7))), "{found:?}");
        assert!(look_up("no-such-name.invalid", 7).await.is_err());
    }
}
