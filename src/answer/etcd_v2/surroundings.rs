//! What clients ask besides keys: who is a member, which version, whether it is well. This agent is the one member.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::store::Store;

/// What v2's last own release said of itself: it knew no v3.
const VERSION: &str = r#"{"etcdserver":"2.3.8","etcdcluster":"2.3.0"}"#;

/// What is told of this agent.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    node: String,
    id: String,
    store: Arc<dyn Store>,
    began: (Instant, SystemTime),
}

impl Surroundings {
    pub(super) fn new(node: String, store: Arc<dyn Store>) -> Self {
        let digest = Sha256::digest(node.as_bytes());
        let id = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        Self { node, id, store, began: (Instant::now(), SystemTime::now()) }
    }

    /// The cluster's identity; this host's own where the store is embedded.
    pub(super) fn cluster(&self) -> String {
        let known = self.store.history().borrow().cluster;
        known.map_or_else(|| self.id.clone(), |cluster| format!("{cluster:x}"))
    }

    /// The reply to a question that is not for keys; none where there is nothing to be asked.
    pub(super) async fn reply(&self, path: &str, headers: &HeaderMap) -> Option<Response> {
        let url = asked(headers);
        Some(match path {
            "/version" => text("application/json", VERSION.to_owned()),
            "/health" => self.health().await,
            "/v2/machines" => text("text/plain; charset=utf-8", url),
            "/v2/members" | "/v2/members/" => json(&json!({ "members": [self.member(&url)] })),
            "/v2/members/leader" => json(&self.member(&url)),
            "/v2/stats/self" => json(&self.stats()),
            "/v2/stats/leader" => json(&json!({ "leader": self.id, "followers": {} })),
            _ => return None,
        })
    }

    fn member(&self, url: &str) -> serde_json::Value {
        json!({ "id": self.id, "name": self.node, "peerURLs": [url], "clientURLs": [url] })
    }

    fn stats(&self) -> serde_json::Value {
        let (began, at) = self.began;
        let at = humantime::format_rfc3339_nanos(at).to_string();
        let uptime = format!("{:.9}s", began.elapsed().as_secs_f64());
        json!({
            "name": self.node,
            "id": self.id,
            "state": "StateLeader",
            "startTime": at,
            "leaderInfo": { "leader": self.id, "uptime": uptime, "startTime": at },
        })
    }

    async fn health(&self) -> Response {
        let kind = "text/plain; charset=utf-8";
        match self.store.get(&[]).await {
            Ok(_) => text(kind, r#"{"health":"true"}"#.to_owned()),
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, text(kind, r#"{"health":"false"}"#.to_owned())).into_response(),
        }
    }
}

/// The address that was asked: whoever asked reaches this agent by it.
fn asked(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    format!("http://{host}")
}

fn json(value: &serde_json::Value) -> Response {
    text("application/json", format!("{value}\n"))
}

fn text(kind: &'static str, text: String) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(kind))], text).into_response()
}
