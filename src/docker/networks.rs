//! Which networks reach beyond this host: asked once a network, and only for containers of which it matters.
//!
//! A container's own description names its networks, but neither their driver nor whether they are internal.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use serde_json::Value;

use super::engine::{Engine, EngineError};
use crate::model::offer::container::{Container, Scope};
use crate::model::words::record::Text;

/// Networks that are remembered; an engine that has had more is asked again.
const MAX_KNOWN: usize = 4096;
/// Networks of one container that are asked for.
const MAX_ASKED: usize = 64;

/// What is known of the engine's networks, by id. Neither driver nor kind of a network ever change.
#[derive(Clone, Debug, Default)]
pub(super) struct Networks(Arc<BTreeMap<Text, Scope>>);

impl Networks {
    /// Takes in what looks have brought.
    pub(super) fn learn(&mut self, news: Vec<(Text, Scope)>) {
        if news.is_empty() {
            return;
        }
        let known = Arc::make_mut(&mut self.0);
        if known.len() + news.len() > MAX_KNOWN {
            known.clear();
        }
        known.extend(news);
    }

    /// Fills in how far the networks of a container reach; what had to be asked for is told for [`Self::learn`]. An
    /// engine that does not answer fails the look, one that refuses (a proxy may) is a fact.
    pub(super) async fn fill_in(
        &self,
        container: &mut Container,
        engine: &Engine,
        deadline: Duration,
    ) -> Result<Vec<(Text, Scope)>, EngineError> {
        let mut news = Vec::new();
        if !container.asks_for_networks() {
            return Ok(news);
        }
        for network in container.networks.values_mut().filter(|network| !network.id.is_empty()).take(MAX_ASKED) {
            if let Some(known) = self.0.get(&network.id) {
                network.scope = known.clone();
                continue;
            }
            network.scope = ask(&network.id, engine, deadline).await?;
            if !matches!(network.scope, Scope::Untold(_)) {
                news.push((network.id.clone(), network.scope.clone()));
            }
        }
        Ok(news)
    }
}

async fn ask(id: &str, engine: &Engine, deadline: Duration) -> Result<Scope, EngineError> {
    match engine.network(id, deadline).await {
        Ok(body) => Ok(scope_of(&body)),
        Err(EngineError::Status(what, status, _))
            if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS =>
        {
            Ok(Scope::Untold(format!("GET {what}: {status}").into()))
        }
        Err(error) => Err(error),
    }
}

/// What the answer to `GET /networks/ID` says. An internal network has no way out, whatever its driver.
fn scope_of(body: &str) -> Scope {
    let network: Value = serde_json::from_str(body).unwrap_or_default();
    let internal = network["Internal"].as_bool() == Some(true);
    match network["Driver"].as_str().unwrap_or_default() {
        "macvlan" | "ipvlan" if !internal => Scope::Beyond,
        _ => Scope::Host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_macvlan_and_ipvlan_reach_beyond_the_host() {
        for (body, expected) in [
            (r#"{"Driver":"macvlan"}"#, Scope::Beyond),
            (r#"{"Driver":"ipvlan","Internal":false}"#, Scope::Beyond),
            (r#"{"Driver":"macvlan","Internal":true}"#, Scope::Host),
            (r#"{"Driver":"bridge","Internal":true}"#, Scope::Host),
            (r#"{"Driver":"overlay"}"#, Scope::Host),
            (r#"{"Driver":7,"Internal":"yes"}"#, Scope::Host),
            ("nonsense", Scope::Host),
        ] {
            assert_eq!(scope_of(body), expected, "{body}");
        }
    }
}
