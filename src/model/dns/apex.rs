//! What a zone says of itself: its name servers and its start of authority.
//!
//! As with SkyDNS, name servers are records at or below `ns.dns.<zone>`. A zone without them has none to name.

use hickory_server::proto::rr::rdata::NS;

use super::work::Work;
use super::{Name, Outcome, RData, Rr};

impl Work<'_> {
    /// The answer for NS at the apex.
    pub(super) fn name_servers(mut self, place: usize, owner: &Name) -> Outcome {
        let found = self.find_in_tree(place, &["ns", "dns"]).unwrap_or_default();
        let ttl = found.hits.iter().map(|hit| self.ttl(hit.entry)).min().unwrap_or(0);
        let (mut answers, mut targets) = (Vec::<Rr>::new(), Vec::new());
        for hit in found.hits {
            let Some(target) = self.target(place, hit) else { continue };
            let record = Rr::from_rdata(owner.clone(), ttl, RData::NS(NS(target.clone())));
            if !answers.contains(&record) {
                answers.push(record);
            }
            targets.push((target, hit));
        }
        let targets = targets.iter().map(|(target, hit)| (target, *hit));
        let additional = self.glue(targets, self.context.room);
        Outcome::Answer(self.finish(place, Some(answers), additional))
    }

    /// The answer for SOA at the apex.
    pub(super) fn start_of_authority(self, place: usize, owner: &Name) -> Outcome {
        let mut soa = self.soa(place, owner.clone());
        soa.ttl = self.context.dns_ttl;
        Outcome::Answer(self.finish(place, Some(vec![soa]), Vec::new()))
    }
}
