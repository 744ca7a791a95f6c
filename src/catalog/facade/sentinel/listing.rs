//! The fields that Sentinel tells of masters, replicas and other Sentinels, under its own names and in its own order.

use std::fmt;

use super::masters::{Masters, SeenMaster, SeenSentinel, SeenServer};
use super::reply::RespValue;

/// Nobody here waits for a server to be down: who is not ready has no record. It is Sentinel's usual setting.
const DOWN_AFTER: &str = "30000";
/// Likewise.
const FAILOVER_TIMEOUT: &str = "180000";

/// Fields under construction.
struct Fields(Vec<(&'static str, RespValue)>);

impl Fields {
    fn text(mut self, name: &'static str, value: &dyn fmt::Display) -> Self {
        self.0.push((name, RespValue::text(value.to_string())));
        self
    }

    fn reached(self, name: &str, (ip, port): (&str, u16), run_id: &str, flags: &str) -> Self {
        self.text("name", &name)
            .text("ip", &ip)
            .text("port", &port)
            .text("runid", &run_id)
            .text("flags", &flags)
            .text("link-pending-commands", &0)
            .text("link-refcount", &1)
            .text("last-ping-sent", &0)
            .text("last-ok-ping-reply", &0)
            .text("last-ping-reply", &0)
            .text("down-after-milliseconds", &DOWN_AFTER)
    }

    fn role(self, role: &str) -> Self {
        self.text("info-refresh", &0).text("role-reported", &role).text("role-reported-time", &0)
    }
}

/// A master; nothing, when nobody knows where it is. While another one is being made master, its flags say that it is
/// down, so that clients which ask for a list take it for none.
pub fn master_fields(master: &SeenMaster, masters: &Masters) -> Option<RespValue> {
    let server = master.server.as_ref()?;
    let flags = if master.switching.is_some() { "s_down,o_down,master,failover_in_progress" } else { "master" };
    let fields = Fields(Vec::with_capacity(20))
        .reached(&master.name, (&server.host, server.port), &server.run_id, flags)
        .role("master")
        .text("config-epoch", &server.revision)
        .text("num-slaves", &master.replicas.len())
        .text("num-other-sentinels", &masters.sentinels.len())
        .text("quorum", &1)
        .text("failover-timeout", &FAILOVER_TIMEOUT)
        .text("parallel-syncs", &1);
    Some(RespValue::Map(fields.0))
}

/// A replica of this master. Only those whose link is up have a record.
pub(super) fn replica_fields(replica: &SeenServer, master: &SeenMaster) -> RespValue {
    let (host, port) = master.server.as_ref().map_or(("?", 0), |server| (&server.host, server.port));
    let fields = Fields(Vec::with_capacity(21))
        .reached(&replica.to_string(), (&replica.host, replica.port), &replica.run_id, "slave")
        .role("slave")
        .text("master-link-down-time", &0)
        .text("master-link-status", &"ok")
        .text("master-host", &host)
        .text("master-port", &port)
        .text("slave-priority", &100)
        .text("slave-repl-offset", &0)
        .text("replica-announced", &1);
    RespValue::Map(fields.0)
}

/// Another Sentinel.
pub(super) fn sentinel_fields(other: &SeenSentinel) -> RespValue {
    let ip = other.at.ip().to_string();
    let fields = Fields(Vec::with_capacity(14))
        .reached(&other.id, (&ip, other.at.port()), &other.id, "sentinel")
        .text("last-hello-message", &0)
        .text("voted-leader", &"?")
        .text("voted-leader-epoch", &0);
    RespValue::Map(fields.0)
}
