//! Why an endpoint is of no use, in words for whoever looks after it.

use std::error::Error as StdError;
use std::io;

use etcd_client::Error;

use crate::store::StoreError;

/// What a failed call says of its endpoint.
pub(super) fn why(error: &Error, endpoint: &str) -> String {
    if let Error::GRpcStatus(status) = error
        && let Some(known) = of_etcd(status.message())
    {
        return known;
    }
    let first: &(dyn StdError + 'static) = match error {
        Error::GRpcStatus(status) => status,
        Error::TransportError(error) => error,
        Error::IoError(error) => error,
        error => error,
    };
    let causes: Vec<&(dyn StdError + 'static)> = chain(first).collect();
    let kind = causes.iter().find_map(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    let said = causes.last().map(ToString::to_string).unwrap_or_default();
    let all = causes.iter().map(ToString::to_string).collect::<Vec<_>>().join(": ").to_ascii_lowercase();
    if let Some(known) = of_tls(&all, endpoint) {
        return known;
    }
    match kind {
        Some(io::ErrorKind::ConnectionRefused) => "connection refused, nobody listens there".to_owned(),
        Some(io::ErrorKind::TimedOut) => "no connection in time".to_owned(),
        Some(io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => "no route to it".to_owned(),
        _ if all.contains("dns") || all.contains("lookup") => format!("the name is not found ({said})"),
        _ if all.contains("timed out") || all.contains("deadline") => "no answer in time".to_owned(),
        _ if is_no_grpc(&all) => not_etcd(endpoint),
        _ => said,
    }
}

/// The same of a call that did not come so far.
pub(super) fn of_store(error: &StoreError, endpoint: &str) -> String {
    match error {
        StoreError::Refused { why, .. } => of_etcd(why).unwrap_or_else(|| why.clone()),
        StoreError::Away { tried, source: Some(source) } => match source.downcast_ref::<Error>() {
            Some(error) => why(error, endpoint),
            None => format!("{tried}: {source}"),
        },
        other => other.to_string(),
    }
}

/// What etcd itself says.
fn of_etcd(message: &str) -> Option<String> {
    let known = [
        ("no leader", "etcd has no leader: too few of its members are up"),
        ("authentication failed", "etcd refuses the user or the password"),
        ("user name is empty", "etcd wants a user: see --etcd-user"),
        ("permission denied", "the user may not do this: see the roles in docs/operations.md"),
        ("invalid auth token", "etcd refuses the user's token"),
        ("authentication is not enabled", "a user is given and etcd has no authentication: leave out --etcd-user"),
        ("request timed out", "etcd does not answer in time: it may have no leader"),
        ("database space exceeded", "etcd's database is full: see `etcdctl alarm list`"),
    ];
    known.into_iter().find_map(|(part, told)| message.contains(part).then(|| told.to_owned()))
}

/// What a handshake that failed was about.
fn of_tls(all: &str, endpoint: &str) -> Option<String> {
    let is_tls = endpoint.starts_with("https://");
    let any = |parts: &[&str]| parts.iter().any(|part| all.contains(part));
    // etcd without TLS ends the connection at the first bytes of a handshake.
    if is_tls && any(&["invalidcontenttype", "corrupt message", "wrong version number", "handshake eof"]) {
        return Some("the TLS handshake failed, as if no TLS were spoken there: is it http://?".to_owned());
    }
    if any(&["certificaterequired", "certificate required"]) {
        return Some("the TLS handshake failed: etcd wants a client certificate, see --etcd-cert".to_owned());
    }
    if any(&["unknownissuer", "notvalidforname", "invalid peer certificate", "unknownca", "badcertificate", "expired"])
    {
        return Some(format!("the TLS handshake failed: {}", last_part(all)));
    }
    (is_tls && any(&["handshake", "unexpected eof", "close_notify"]))
        .then(|| format!("the TLS handshake failed: {}", last_part(all)))
}

fn last_part(all: &str) -> &str {
    all.rsplit(": ").next().unwrap_or(all)
}

/// Who listens there speaks something else.
fn is_no_grpc(all: &str) -> bool {
    ["http2 error", "broken pipe", "connection reset", "frame with invalid size", "stream closed", "goaway"]
        .iter()
        .any(|part| all.contains(part))
}

fn not_etcd(endpoint: &str) -> String {
    let scheme = if endpoint.starts_with("http://") { ", or is it https://?" } else { "" };
    format!("what answers there is no etcd{scheme}")
}

fn chain<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let error = next?;
        next = error.source();
        Some(error)
    })
}
