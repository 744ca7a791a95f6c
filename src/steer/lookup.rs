//! Addresses of a topology that only DNS knows.
//!
//! The registry comes first, so a name of an instance never leaves this host. What DNS leads to is taken where it is
//! one of the table's `servers`, and is one place.

use std::collections::BTreeMap;

use futures_util::future::try_join_all;

use super::Settings;
use crate::host::names;
use crate::model::steer::roster::{Roster, USUAL_PORT};
use crate::model::steer::told::Shown;
use crate::model::steer::topology::{Address, Desired};

/// Names, and the places that DNS has for them.
pub(crate) type Places = BTreeMap<Address, Address>;

/// Looks up what no server of the registry is called; the first one that cannot be had ends it, with its reason.
pub(crate) async fn places(
    settings: &Settings,
    shown: &Shown,
    roster: &Roster,
    desired: &Desired,
) -> Result<Places, String> {
    let known = shown.applied.iter().map(|applied| &applied.master);
    let known = known.chain(shown.journal.iter().flat_map(|journal| journal.servers()));
    let roster = roster.clone().with_known(known);
    let strangers = roster.strangers(&settings.service, desired);
    let found = try_join_all(strangers.iter().map(|address| place(address, settings))).await?;
    Ok(strangers.into_iter().cloned().zip(found).collect())
}

async fn place(address: &Address, settings: &Settings) -> Result<Address, String> {
    let (name, service) = (&address.address, &settings.service);
    let found = names::look_up(name, address.port.unwrap_or(USUAL_PORT)).await;
    let unfound = |error| format!("{name} cannot be found: no server of {service} is called so, and {error}");
    let mut found = found.map_err(unfound)?;
    found.retain(|place| settings.servers.iter().any(|net| net.contains(&place.ip())));
    match found[..] {
        [one] => {
            let port = address.port.unwrap_or(one.port());
            Ok(Address { address: one.ip().to_string(), port: Some(port) })
        }
        [] => Err(format!("{name} leads to no address that `servers` has")),
        _ => {
            let all: Vec<String> = found.iter().map(ToString::to_string).collect();
            Err(format!("{name} may be {}", all.join(" or ")))
        }
    }
}
