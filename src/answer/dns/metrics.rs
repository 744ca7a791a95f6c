//! What is counted of questions and answers. All of it is plain atomics, resolved once: no question waits for a lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::RecordType;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Registry;

const TYPES: [(RecordType, &str); 14] = [
    (RecordType::SRV, "SRV"),
    (RecordType::A, "A"),
    (RecordType::AAAA, "AAAA"),
    (RecordType::PTR, "PTR"),
    (RecordType::TXT, "TXT"),
    (RecordType::CNAME, "CNAME"),
    (RecordType::MX, "MX"),
    (RecordType::NS, "NS"),
    (RecordType::SOA, "SOA"),
    (RecordType::ANY, "ANY"),
    (RecordType::AXFR, "AXFR"),
    (RecordType::IXFR, "IXFR"),
    (RecordType::HTTPS, "HTTPS"),
    (RecordType::SVCB, "SVCB"),
];
const RCODES: [&str; 9] =
    ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED", "BADVERS", "TRUNCATED", "other"];
const OTHER_TYPE: usize = TYPES.len();
/// Upper bounds of the latency histogram, in seconds.
const BOUNDS: [f64; 11] = [1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 5e-3, 25e-3, 0.1, 1.0];
/// Why a packet was not answered.
const DROPS: [&str; 5] = ["short", "response", "rate", "panic", "overload"];

/// Why a packet was not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dropped {
    /// No header, or a source that cannot be answered.
    Short,
    /// It is no question but an answer.
    Response,
    /// Its network had its share.
    Rate,
    /// Answering it panicked.
    Panic,
    /// Too much is under way elsewhere: told with SERVFAIL.
    Overload,
}

/// Which zone a question was counted under: the number of a served zone, or foreign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ZoneIndex(pub(super) usize);

/// The counters.
#[derive(Debug)]
pub(super) struct Metrics {
    zones: Vec<String>,
    queries: Box<[AtomicU64]>,
    buckets: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
    dropped: [AtomicU64; DROPS.len()],
    /// Targets that cost too much to be followed.
    left_out: AtomicU64,
    /// Questions answered from ready-made replies, and bytes that these take.
    pub(super) ready_made: AtomicU64,
    pub(super) ready_bytes: AtomicU64,
    /// Bytes of answers from elsewhere that are kept, and questions that wait for one.
    pub(super) cached_bytes: Arc<AtomicU64>,
    pub(super) waiting: Arc<AtomicU64>,
    /// Streams open now.
    pub(super) streams: AtomicU64,
    /// Streams closed to make room.
    pub(super) evicted: AtomicU64,
}

impl Metrics {
    /// Counters for these zones, shown by the registry.
    pub(super) fn register(zones: Vec<String>, registry: &mut Registry) -> Arc<Self> {
        let cells = (zones.len() + 1) * (TYPES.len() + 1) * RCODES.len();
        let metrics = Arc::new(Self {
            zones,
            queries: (0..cells).map(|_| AtomicU64::new(0)).collect(),
            buckets: Default::default(),
            nanoseconds: AtomicU64::new(0),
            dropped: Default::default(),
            left_out: AtomicU64::new(0),
            ready_made: AtomicU64::new(0),
            ready_bytes: AtomicU64::new(0),
            cached_bytes: Arc::default(),
            waiting: Arc::default(),
            streams: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        });
        registry.register_collector(Box::new(Shown(metrics.clone())));
        metrics
    }

    /// The place of foreign names.
    pub(super) fn foreign(&self) -> ZoneIndex {
        ZoneIndex(self.zones.len())
    }

    /// The counter's place for one kind of reply.
    pub(super) fn place(&self, zone: ZoneIndex, asked: Option<RecordType>, rcode: usize) -> usize {
        let kind = asked.and_then(|asked| TYPES.iter().position(|(known, _)| *known == asked)).unwrap_or(OTHER_TYPE);
        (zone.0.min(self.zones.len()) * (TYPES.len() + 1) + kind) * RCODES.len() + rcode
    }

    /// Counts a reply by its place.
    pub(super) fn answered(&self, place: usize, took: Duration) {
        self.queries[place].fetch_add(1, Ordering::Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let seconds = took.as_secs_f64();
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Counts a packet that got no reply.
    pub(super) fn dropped(&self, why: Dropped) {
        self.dropped[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts targets of one answer that cost too much to be followed.
    pub(super) fn left_out(&self, targets: usize) {
        if targets > 0 {
            self.left_out.fetch_add(targets as u64, Ordering::Relaxed);
        }
    }

    /// Packets that answering panicked over.
    pub(super) fn panics(&self) -> u64 {
        self.dropped[Dropped::Panic as usize].load(Ordering::Relaxed)
    }

    fn encode_queries(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "wharf_dns_queries",
            "Answers given, by zone, question type and outcome",
            None,
            MetricType::Counter,
        )?;
        for (place, cell) in self.queries.iter().enumerate() {
            let count = cell.load(Ordering::Relaxed);
            if count == 0 {
                continue;
            }
            let (rest, rcode) = (place / RCODES.len(), place % RCODES.len());
            let (zone, kind) = (rest / (TYPES.len() + 1), rest % (TYPES.len() + 1));
            let zone = self.zones.get(zone).map_or("foreign", String::as_str);
            let kind = TYPES.get(kind).map_or("other", |(_, name)| name);
            let labels = [("zone", zone), ("type", kind), ("rcode", RCODES[rcode])];
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn encode_latency(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let counts: Vec<u64> = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect();
        let bounds = BOUNDS.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts.iter().copied()).collect();
        #[allow(clippy::cast_precision_loss)] // A sum of times needs no more precision than a float has.
        let sum = self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9;
        let mut histogram = encoder.encode_descriptor(
            "wharf_dns_answer_seconds",
            "Time from a question's arrival in the agent to its answer",
            None,
            MetricType::Histogram,
        )?;
        histogram.encode_histogram::<NoLabelSet>(sum, counts.iter().sum(), &buckets, None)
    }

    fn encode_plain(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut dropped = encoder.encode_descriptor(
            "wharf_dns_dropped",
            "Packets that got no answer, by reason",
            None,
            MetricType::Counter,
        )?;
        for (why, count) in DROPS.iter().zip(&self.dropped) {
            let labels = [("reason", *why)];
            ConstCounter::new(count.load(Ordering::Relaxed)).encode(dropped.encode_family(&labels)?)?;
        }
        let counters = [
            ("wharf_dns_left_out", "Hosts of records that cost too much to be followed", &self.left_out),
            ("wharf_dns_ready_made", "Questions answered from ready-made replies", &self.ready_made),
            ("wharf_dns_streams_evicted", "Streams closed to make room for others", &self.evicted),
        ];
        for (name, help, count) in counters {
            let mut counter = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            counter.encode_counter::<NoLabelSet, _, f64>(&count.load(Ordering::Relaxed), None)?;
        }
        let gauges = [
            ("wharf_dns_ready_bytes", "Memory that ready-made replies take", &self.ready_bytes),
            ("wharf_dns_forward_cache_bytes", "Memory that answers from elsewhere take", &*self.cached_bytes),
            ("wharf_dns_forward_waiting", "Questions that wait for an answer from elsewhere", &*self.waiting),
            ("wharf_dns_streams", "Streams open now", &self.streams),
        ];
        for (name, help, value) in gauges {
            let value = i64::try_from(value.load(Ordering::Relaxed)).unwrap_or(i64::MAX);
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        Ok(())
    }
}

/// Whether a type is one of those that are counted by name.
pub(super) fn is_common(kind: u16) -> bool {
    TYPES.iter().any(|(known, _)| u16::from(*known) == kind)
}

/// The place of a response code among the outcomes counted.
pub(super) fn outcome(rcode: ResponseCode) -> usize {
    match rcode {
        ResponseCode::NoError => 0,
        ResponseCode::FormErr => 1,
        ResponseCode::ServFail => 2,
        ResponseCode::NXDomain => 3,
        ResponseCode::NotImp => 4,
        ResponseCode::Refused => 5,
        ResponseCode::BADVERS => 6,
        _ => RCODES.len() - 1,
    }
}

/// The outcome of an empty reply that bids the client to come by TCP.
pub(super) const TRUNCATED: usize = 7;

#[derive(Debug)]
struct Shown(Arc<Metrics>);

impl Collector for Shown {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.encode_queries(&mut encoder)?;
        self.0.encode_latency(&mut encoder)?;
        self.0.encode_plain(&mut encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_happened_is_shown_with_labels_of_closed_sets() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(vec!["services.internal.".to_owned()], &mut registry);
        let srv = metrics.place(ZoneIndex(0), Some(RecordType::SRV), outcome(ResponseCode::NoError));
        let odd = metrics.place(metrics.foreign(), Some(RecordType::Unknown(4711)), outcome(ResponseCode::Refused));
        metrics.answered(srv, Duration::from_micros(7));
        metrics.answered(srv, Duration::from_micros(30));
        metrics.answered(odd, Duration::from_secs(3));
        metrics.dropped(Dropped::Response);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).expect("text");
        for line in [
            r#"wharf_dns_queries_total{zone="services.internal.",type="SRV",rcode="NOERROR"} 2"#,
            r#"wharf_dns_queries_total{zone="foreign",type="other",rcode="REFUSED"} 1"#,
            r#"wharf_dns_answer_seconds_bucket{le="0.00001"} 1"#,
            r#"wharf_dns_answer_seconds_bucket{le="+Inf"} 3"#,
            r#"wharf_dns_dropped_total{reason="response"} 1"#,
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} is not in\n{text}");
        }
        assert_eq!(text.matches("wharf_dns_queries_total{").count(), 2);
    }
}
