//! Passwords for probes: from the container's own environment, or from a file in the one directory given for that.
//!
//! What a file holds is kept for some seconds; it is in no error and no Debug output.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::host::{SecretError, Secrets};
use crate::model::offer::instance::{CheckDetail, Secret};

/// How long what a file held is good.
const KEPT: Duration = Duration::from_secs(10);

/// The password of one instance, as last read.
#[derive(Default)]
pub(super) struct Keyring {
    last: Option<(Instant, Result<Arc<str>, SecretError>)>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(…)")
    }
}

impl Keyring {
    /// The password that `detail` names, if any; when it cannot be had, why.
    pub(super) async fn password(
        &mut self,
        detail: &CheckDetail,
        secrets: &Secrets,
    ) -> (Option<Arc<str>>, Option<String>) {
        let name = match &detail.password {
            None => return (None, None),
            Some(Secret::Value(password)) => return (Some(Arc::clone(password)), None),
            Some(Secret::File(name)) => name,
        };
        let now = Instant::now();
        let read = match &self.last {
            Some((at, read)) if now.duration_since(*at) < KEPT => read.clone(),
            _ => {
                let read = secrets.read(name).await;
                self.last = Some((now, read.clone()));
                read
            }
        };
        match read {
            Ok(password) => (Some(password), None),
            Err(error) => (None, Some(error.to_string())),
        }
    }
}
