//! The text of INFO, by sections.

use std::fmt::Write as _;

use super::masters::Masters;
use super::talk::{Ground, SentinelFacts};

/// Masters that INFO lists: the number of all of them is told, too.
const LISTED: usize = 1_000;

/// The sections that are asked for; all of them, when none is named.
pub(super) fn info(sections: &[String], ground: &Ground<'_>) -> String {
    let is_all = sections.is_empty() || sections.iter().any(|name| ["default", "all", "everything"].contains(&&**name));
    let wanted = |name: &str| is_all || sections.iter().any(|section| section == name);
    let mut texts = Vec::new();
    if wanted("server") {
        texts.push(server(ground.facts, ground.now.as_secs()));
    }
    if wanted("clients") {
        texts.push(format!("# Clients\r\nconnected_clients:{}\r\nmaxclients:10000\r\n", ground.clients));
    }
    if wanted("sentinel") {
        texts.push(sentinel(ground.masters));
    }
    texts.join("\r\n")
}

fn server(facts: &SentinelFacts, uptime: u64) -> String {
    format!(
        "# Server\r\nredis_version:{}\r\nredis_mode:sentinel\r\nwharf_version:{}\r\nrun_id:{}\r\ntcp_port:{}\r\n\
         uptime_in_seconds:{uptime}\r\nuptime_in_days:{}\r\n",
        SentinelFacts::REDIS,
        facts.version,
        facts.id,
        facts.port,
        uptime / 86_400
    )
}

fn sentinel(masters: &Masters) -> String {
    let mut text = format!(
        "# Sentinel\r\nsentinel_masters:{}\r\nsentinel_tilt:0\r\nsentinel_tilt_since_seconds:-1\r\n\
         sentinel_running_scripts:0\r\nsentinel_scripts_queue_length:0\r\nsentinel_simulate_failure_flags:0\r\n",
        masters.all().len()
    );
    let known = masters.all().filter_map(|master| Some((master, master.server.as_ref()?)));
    for (number, (master, server)) in known.take(LISTED).enumerate() {
        let status = if master.switching.is_some() { "odown" } else { "ok" };
        let (replicas, sentinels) = (master.replicas.len(), masters.sentinels.len() + 1);
        let name = &master.name;
        // A String takes all.
        let _ = write!(
            text,
            "master{number}:name={name},status={status},address={server},slaves={replicas},sentinels={sentinels}\r\n"
        );
    }
    text
}
