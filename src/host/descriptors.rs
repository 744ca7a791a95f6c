//! How many descriptors this process may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Takes all that the host allows: a shell's usual 1,024 are for programs that still call select(2).
pub(crate) fn raise_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let raised = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    if let Err(error) = raised {
        // Then it has as many as it was started with, as under the unit's sandbox.
        tracing::debug!(%error, "the limit of descriptors stays as it is");
    }
}
