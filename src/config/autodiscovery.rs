//! One `[[autodiscovery]]` table: a service whose members this agent tells to clients of ElastiCache.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::parse::{self, Problems, given};
use super::text::scalar;
use super::topology::service;

/// One `[[autodiscovery]]` table of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct RawAutodiscovery {
    /// The service.
    #[serde(deserialize_with = "scalar")]
    pub service: Option<String>,
    /// Where clients ask.
    #[serde(deserialize_with = "scalar")]
    pub listen: Option<String>,
    /// How long a member may be away before it leaves.
    #[serde(deserialize_with = "scalar")]
    pub leave_after: Option<String>,
    /// The certificate, where TLS is spoken.
    #[serde(deserialize_with = "scalar")]
    pub tls_cert: Option<String>,
    /// Its key.
    #[serde(deserialize_with = "scalar")]
    pub tls_key: Option<String>,
}

/// Where nobody says otherwise: beside memcached's own port, for this host.
const USUAL_PLACE: ([u8; 4], u16) = ([127, 0, 0, 1], 11_311);
/// How long a member may be away: a reboot takes less than the usual time, and a day is more than anybody waits.
const LEAVE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(24 * 3600));
const USUAL_LEAVE: Duration = Duration::from_secs(300);

/// An `[[autodiscovery]]` table, valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutodiscoveryConfig {
    /// The service.
    pub service: String,
    /// Where clients ask.
    pub listen: SocketAddr,
    /// How long a member may be away before it leaves the list.
    pub leave_after: Duration,
    /// PEM of the certificate and of its key: TLS is spoken.
    pub tls: Option<(PathBuf, PathBuf)>,
}

/// One table, and what is wrong with it by key; `None` only with at least one problem.
pub(super) fn read(table: &RawAutodiscovery) -> (Option<AutodiscoveryConfig>, Problems) {
    let mut problems = Problems::new();
    let config = fields(table, &mut problems);
    (config.filter(|_| problems.is_empty()), problems)
}

/// Services that more than one table names.
pub(super) fn twins(tables: &[AutodiscoveryConfig]) -> BTreeSet<&str> {
    let mut seen = BTreeSet::new();
    tables.iter().map(|table| table.service.as_str()).filter(|service| !seen.insert(*service)).collect()
}

fn fields(table: &RawAutodiscovery, problems: &mut Problems) -> Option<AutodiscoveryConfig> {
    if table.service.is_none() {
        problems.push(("service", "is needed".to_owned()));
    }
    let service = given("service", table.service.as_deref(), service, problems);
    let listen = given("listen", table.listen.as_deref(), parse::socket, problems);
    let leave = |text: &str| parse::duration(text, LEAVE.0, LEAVE.1);
    let leave_after = given("leave-after", table.leave_after.as_deref(), leave, problems).unwrap_or(USUAL_LEAVE);
    let certificate = given("tls-cert", table.tls_cert.as_deref(), parse::path, problems);
    let key = given("tls-key", table.tls_key.as_deref(), parse::path, problems);
    if table.tls_cert.is_some() != table.tls_key.is_some() {
        problems.push(("tls-cert", "a certificate needs its key, and a key its certificate".to_owned()));
    }
    Some(AutodiscoveryConfig {
        service: service?,
        listen: listen.unwrap_or_else(|| USUAL_PLACE.into()),
        leave_after,
        tls: certificate.zip(key),
    })
}
