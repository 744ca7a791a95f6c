//! `/`: the status page, and `/openapi.json`: the description of all this.

use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::json;
use super::router::Context;

const PAGE: &str = include_str!("page.html");
const OPENAPI: &str = include_str!("openapi.json");

/// The page may run its own script and style, known by their digests, and talk to where it came from: nothing else.
fn policy() -> String {
    let digest = |open: &str, close: &str| {
        use base64::Engine;
        use sha2::Digest;
        let inside =
            PAGE.split_once(open).and_then(|(_, rest)| rest.split_once(close)).map_or("", |(inside, _)| inside);
        base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(inside.as_bytes()))
    };
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
        digest("<script>", "</script>"),
        digest("<style>", "</style>"),
    )
}

pub(super) async fn page(State(context): State<Context>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (header::CONTENT_SECURITY_POLICY, context.policy.clone()),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ];
    (headers, PAGE).into_response()
}

/// The policy as a header, made once.
pub(super) fn policy_header() -> HeaderValue {
    HeaderValue::from_str(&policy()).expect("the policy is plain ASCII: fixed words and base64")
}

pub(super) async fn openapi() -> Response {
    json::raw(StatusCode::OK, OPENAPI.into())
}
