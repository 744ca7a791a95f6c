//! Hands what the registrar found published to the probes, which count it as ready until they know better.

use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::model::adopted::Adopted;
use crate::model::record::Text;
use crate::offer::probe;

/// Follows `found` until told to stop.
pub(super) async fn hand_on(
    mut found: watch::Receiver<Arc<Adopted>>,
    to: watch::Sender<Arc<probe::Adoptions>>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    found.mark_changed();
    while let Some(Ok(())) = stop.run_until_cancelled(found.changed()).await {
        let adoptions = found.borrow_and_update().iter().map(adoption).collect();
        to.send_replace(Arc::new(adoptions));
    }
    stop.cancelled().await;
    Ok(())
}

fn adoption((id, container, serving): (&Text, &Text, &crate::model::plan::Serving)) -> (Text, probe::Adopted) {
    let container = (!container.is_empty()).then(|| container.clone());
    (id.clone(), probe::Adopted { container, since: serving.since, role: serving.role })
}
