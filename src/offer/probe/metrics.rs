//! What the fleet counts.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::question::Answer;
use crate::model::health::Verdict;
use crate::model::health::standing::State;
use crate::model::offer::instance::CheckKind;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProbeLabels {
    check: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

/// How a probe ended, for counting.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// It serves, perhaps to the last slot.
    Serves,
    /// It answered otherwise, or not at all.
    Fails,
    /// This host could not even ask.
    Unasked,
    /// The probe panicked.
    Panic,
}

impl End {
    /// How the probe that got `answer` ended; without one it panicked.
    pub(super) fn of(answer: Option<&Answer>) -> Self {
        match answer {
            Some(Answer::Heard(outcome)) if outcome.verdict == Verdict::Fails => Self::Fails,
            Some(Answer::Heard(_)) => Self::Serves,
            Some(Answer::Unasked(_)) => Self::Unasked,
            None => Self::Panic,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Serves => "serves",
            Self::Fails => "fails",
            Self::Unasked => "unasked",
            Self::Panic => "panic",
        }
    }
}

/// The fleet's metrics.
#[derive(Debug)]
pub(super) struct Metrics {
    probes: Family<ProbeLabels, Counter>,
    in_flight: Gauge,
    instances: Vec<(State, Gauge)>,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let probes = Family::<ProbeLabels, Counter>::default();
        registry.register("wharf_probes", "Probes made, by check and outcome", probes.clone());
        let in_flight = Gauge::default();
        registry.register("wharf_probes_in_flight", "Probes under way", in_flight.clone());
        let states = Family::<StateLabels, Gauge>::default();
        registry.register("wharf_probed_instances", "Probed instances by what their probes say", states.clone());
        let instances = State::ALL
            .into_iter()
            .map(|state| (state, states.get_or_create(&StateLabels { state: state.as_str() }).clone()))
            .collect();
        Self { probes, in_flight, instances }
    }

    pub(super) fn landed(&self, kind: CheckKind, end: End) {
        self.probes.get_or_create(&ProbeLabels { check: kind.as_str(), outcome: end.as_str() }).inc();
    }

    pub(super) fn in_flight(&self, count: usize) {
        self.in_flight.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// An instance went from one state to another; `None` is not being there.
    pub(super) fn moved(&self, from: Option<State>, to: Option<State>) {
        for (state, gauge) in &self.instances {
            if from == Some(*state) {
                gauge.dec();
            }
            if to == Some(*state) {
                gauge.inc();
            }
        }
    }
}
