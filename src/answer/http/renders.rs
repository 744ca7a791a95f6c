//! `/v1/renders`: how the files that follow the cluster stand. A process of their own writes them, tells it, and is
//! forgotten when it does so no more.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use tokio::time::Instant;

use super::error::Problem;
use super::router::Context;
use super::{guard, json};
use crate::catalog::render::told::{Render, Renders};
use crate::host::clients::Guest;

/// The largest report: some hundred tables, each with a reason.
pub(super) const MAX_BODY: usize = 512 * 1024;
/// Tables that are shown and counted of one report.
const MOST: usize = 256;
/// How long a report counts: three times as long as it is until the next one.
const COUNTS: Duration = Duration::from_secs(6);

/// Who tells how they stand.
#[derive(Clone, Default)]
pub struct RenderSource(Arc<Mutex<Option<(Instant, Renders)>>>);

impl RenderSource {
    /// One that also shows in the metrics what it was told.
    pub fn register(registry: &mut Registry) -> Self {
        let source = Self::default();
        registry.register_collector(Box::new(source.clone()));
        source
    }

    /// Takes what the process that renders tells.
    pub fn take(&self, mut told: Renders) {
        told.renders.truncate(MOST);
        *self.reported() = Some((Instant::now(), told));
    }

    /// What was told last, by one who still tells it.
    pub fn told(&self) -> Renders {
        let reported = self.reported();
        let fresh = reported.as_ref().filter(|(at, _)| at.elapsed() < COUNTS);
        fresh.map(|(_, told)| told.clone()).unwrap_or_default()
    }

    fn reported(&self) -> MutexGuard<'_, Option<(Instant, Renders)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RenderSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RenderSource")
    }
}

/// A gauge of each table.
type Gauge = (&'static str, &'static str, fn(&Render) -> u64);
const GAUGES: [Gauge; 2] = [
    ("wharf_render_current", "Whether a file is as it should be, and loaded", |render| {
        u64::from(*render.state == *"current" && !render.reload_owed)
    }),
    ("wharf_render_reload_owed", "Whether a file is written and not loaded", |render| u64::from(render.reload_owed)),
];
const COUNTERS: [Gauge; 4] = [
    ("wharf_render_writes", "Times that a file was written", |render| render.writes),
    ("wharf_render_refusals", "Times that a new file did not pass its check", |render| render.refusals),
    ("wharf_render_reloads", "Reloads that went well", |render| render.reloads),
    ("wharf_render_reload_failures", "Reloads that failed", |render| render.failures),
];

impl Collector for RenderSource {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let told = self.told().renders;
        if told.is_empty() {
            return Ok(()); // a name without a value says nothing
        }
        let none: Option<&Unit> = None;
        for (name, help, of) in GAUGES {
            let first = ConstGauge::new(0_u64);
            let mut family = encoder.encode_descriptor(name, help, none, first.metric_type())?;
            for render in &told {
                ConstGauge::new(of(render)).encode(family.encode_family(&[("render", &*render.name)])?)?;
            }
        }
        for (name, help, of) in COUNTERS {
            let first = ConstCounter::new(0_u64);
            let mut family = encoder.encode_descriptor(name, help, none, first.metric_type())?;
            for render in &told {
                ConstCounter::new(of(render)).encode(family.encode_family(&[("render", &*render.name)])?)?;
            }
        }
        Ok(())
    }
}

pub(super) async fn renders(State(context): State<Context>) -> Response {
    json::reply(StatusCode::OK, &context.sources.renders.told())
}

/// Takes what the process that renders tells.
pub(super) async fn report(
    State(context): State<Context>,
    Extension(guest): Extension<Guest>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    guard::check_deed(guest.peer, &headers, &uri, context.settings.token.as_ref(), guard::RENDERED)?;
    let told: Renders = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad_request(format!("that is no report of files: {error}"), "it is what GET /v1/renders tells")
    })?;
    context.sources.renders.take(told);
    Ok(json::reply(StatusCode::OK, &context.sources.renders.told()))
}
