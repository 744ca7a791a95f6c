//! `srv://DOMAIN`: etcd's clients' endpoints by the SRV records that etcd itself uses, `_etcd-client-ssl._tcp` and
//! `_etcd-client._tcp`.
//!
//! What the first names is reached by TLS, and preferred as a whole. With a certificate or an authority given nothing
//! else is taken: whoever may answer for the name could otherwise have everything sent in the open.

use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::RData;
use hickory_resolver::proto::rr::rdata::SRV;

/// What an endpoint begins with that is looked up.
pub(super) const SCHEME: &str = "srv://";
/// How long one server of the resolver is waited for, once.
const SERVER: Duration = Duration::from_secs(1);
/// A cluster has fewer members; whoever answers for the name chooses how many there are.
const MOST: usize = 16;

/// The endpoints of a domain, as URLs; in words why there are none.
pub(super) async fn look_up(domain: &str, only_tls: bool) -> Result<Vec<String>, String> {
    let resolver = TokioResolver::builder_tokio().and_then(|mut builder| {
        let options = builder.options_mut();
        (options.timeout, options.attempts) = (SERVER, 1);
        builder.build()
    });
    let resolver = resolver.map_err(|error| error.to_string())?;
    let mut why = String::new();
    for (service, scheme) in [("_etcd-client-ssl._tcp", "https"), ("_etcd-client._tcp", "http")] {
        if only_tls && scheme == "http" {
            break;
        }
        match resolver.srv_lookup(format!("{service}.{domain}.")).await {
            Ok(found) => {
                let services = found.answers().iter().filter_map(|record| match &record.data {
                    RData::SRV(service) => Some(service),
                    _ => None,
                });
                let found = endpoints(scheme, services);
                if !found.is_empty() {
                    return Ok(found);
                }
            }
            Err(error) => why = error.to_string(),
        }
    }
    let name = if only_tls { "_etcd-client-ssl._tcp" } else { "_etcd-client._tcp" };
    Err(format!("{name}.{domain} has no SRV record{}{why}", if why.is_empty() { "" } else { ": " }))
}

/// The targets as URLs, those with the smallest priority first.
fn endpoints<'s>(scheme: &str, services: impl Iterator<Item = &'s SRV>) -> Vec<String> {
    let mut services: Vec<&SRV> = services.collect();
    services.sort_by_key(|service| (service.priority, service.target.to_ascii(), service.port));
    let urls = services.into_iter().filter_map(|service| {
        let target = service.target.to_ascii();
        let target = target.trim_end_matches('.');
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let fits = !target.is_empty() && target.bytes().all(is_plain) && service.port > 0;
        fits.then(|| format!("{scheme}://{target}:{}", service.port))
    });
    urls.take(MOST).collect()
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use hickory_resolver::proto::rr::Name;

    use super::*;

    #[test]
    fn targets_become_urls_in_order_of_priority_and_have_an_end() {
        let service =
            |priority, target: &str, port| SRV::new(priority, 0, port, Name::from_str(target).expect("a name"));
        let found = [service(20, "b.example.com.", 2379), service(10, "a.example.com.", 2380), service(0, ".", 0)];
        assert_eq!(endpoints("https", found.iter()), ["https://a.example.com:2380", "https://b.example.com:2379"]);
        let many: Vec<SRV> = (1..100).map(|port| service(1, "a.example.com.", port)).collect();
        assert_eq!(endpoints("http", many.iter()).len(), MOST);
    }
}
