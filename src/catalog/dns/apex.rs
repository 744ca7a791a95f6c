//! What a zone says of itself: its name servers and its start of authority.
//!
//! As with SkyDNS, name servers are records at or below `ns.dns.<zone>`. A zone without them has none to name.

use hickory_server::proto::rr::rdata::NS;

use super::work::Work;
use super::{Name, Outcome, RData};
use crate::catalog::index::WINDOW;
use crate::catalog::select::Hit;
use crate::catalog::steps::TOLD;

/// What a record takes beside its target: owner (compressed), type, class, TTL and length.
const NS_SIZE: usize = 12;

impl Work<'_> {
    /// The answer for NS at the apex.
    pub(super) fn name_servers(mut self, place: usize, owner: &Name) -> Outcome {
        let found = self.find_in_tree(place, &["ns", "dns"], WINDOW).unwrap_or_default();
        self.steps.until(TOLD);
        let data = |_: &Hit<'_>, _: u16, target| RData::NS(NS(target));
        self.leading(place, owner, found, NS_SIZE, data)
    }

    /// The answer for SOA at the apex.
    pub(super) fn start_of_authority(self, place: usize, owner: &Name) -> Outcome {
        let mut soa = self.soa(place, owner.clone());
        soa.ttl = self.context.dns_ttl;
        Outcome::Answer(self.finish(place, Some(vec![soa]), Vec::new()))
    }
}
