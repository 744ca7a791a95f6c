//! Which services several claim to be the primary of, as they come to be so and cease to.

use std::collections::BTreeSet;

use crate::catalog::index::Catalog;
use crate::model::words::record::Text;

/// Those that were told last.
#[derive(Debug, Default)]
pub(super) struct Contested(BTreeSet<Text>);

impl Contested {
    /// Logs which services have come to have several primaries, and which no longer do.
    pub(super) fn tell(&mut self, shown: &Catalog) {
        if self.0.is_empty() && shown.counts().contested == 0 {
            return;
        }
        let now: BTreeSet<Text> = shown.contested().cloned().collect();
        for service in now.difference(&self.0) {
            tracing::warn!(?service, "contested: several claim to be primary, so none is named");
        }
        for service in self.0.difference(&now) {
            tracing::info!(?service, "no longer contested");
        }
        self.0 = now;
    }
}
