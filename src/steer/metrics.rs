//! What steering counts. Services come from the settings, so the labels are a closed set.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::Outcome;
use crate::model::steer::told::Shown;

/// Gaps, in seconds: a few milliseconds are usual, and `max-pause` is 5 s at most.
const GAPS: [f64; 11] = [0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 5.0];
const PHASES: [&str; 5] = ["none", "intent", "promote", "abort", "publish"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    service: String,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    service: String,
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServiceLabels {
    service: String,
}

/// The metrics of every topology; clones are the same ones.
#[derive(Clone, Debug)]
pub struct Metrics {
    operations: Family<ResultLabels, Counter>,
    gaps: Family<ServiceLabels, Histogram, fn() -> Histogram>,
    phases: Family<PhaseLabels, Gauge>,
}

impl Metrics {
    /// Registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let gaps: fn() -> Histogram = || Histogram::new(GAPS);
        let own =
            Self { operations: Family::default(), gaps: Family::new_with_constructor(gaps), phases: Family::default() };
        registry.register(
            "wharf_topology_operations",
            "Operations on topologies that this agent carried out, by service and result",
            own.operations.clone(),
        );
        registry.register_with_unit(
            "wharf_topology_gap",
            "For how long no write was taken in a switch, by service",
            Unit::Seconds,
            own.gaps.clone(),
        );
        registry.register(
            "wharf_topology_phase",
            "1 for the phase that a service's operation is in, by anybody, and 0 for the others",
            own.phases.clone(),
        );
        own
    }

    /// Counts what came of an operation.
    pub(super) fn count(&self, service: &str, outcome: &Outcome) {
        let result = match outcome {
            Outcome::Done { .. } => "done",
            Outcome::Planned(_) => "planned",
            Outcome::Unfound(_) => "unfound",
            Outcome::Refused(_) => "refused",
            Outcome::Busy => "busy",
            Outcome::Paused(_) => "paused",
            Outcome::Unchanged(_) => "unchanged",
            Outcome::Failed(_) => "failed",
        };
        self.operations.get_or_create(&ResultLabels { service: service.to_owned(), result }).inc();
        if let Outcome::Done { gap: Some(gap) } = outcome {
            let seconds = std::time::Duration::from_millis(*gap).as_secs_f64();
            self.gaps.get_or_create(&ServiceLabels { service: service.to_owned() }).observe(seconds);
        }
    }

    /// Shows how far the operation under way is.
    pub(super) fn show(&self, service: &str, shown: &Shown) {
        let under_way = shown.journal.as_ref().filter(|journal| !journal.is_over());
        let now = under_way.map_or("none", |journal| journal.stage.as_str());
        for phase in PHASES {
            let labels = PhaseLabels { service: service.to_owned(), phase };
            self.phases.get_or_create(&labels).set(i64::from(phase == now));
        }
    }
}
