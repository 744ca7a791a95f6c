//! The engine's description of a container to plain facts, believing nothing.
//!
//! Engines, their versions and their imitations differ in what is null, missing, a string or a number. Only the id is
//! required. Of networks only `NetworkSettings.Networks` is read: newer engines drop the top-level fields.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Map, Value};

use crate::model::offer::container::{Binding, Container, Health, Network, RunState};
use crate::model::offer::naming::is_wanted_env;
use crate::model::words::record::Text;

/// Why an answer describes no container.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAContainer {
    /// It is no JSON.
    #[error("no JSON: {0}")]
    Json(String),
    /// It is JSON without an id.
    #[error("no container: Id is missing")]
    NoId,
}

/// Reads the answer to `GET /containers/ID/json`.
pub fn container_of(body: &[u8]) -> Result<Container, NotAContainer> {
    let text = String::from_utf8_lossy(body);
    let value: Value = serde_json::from_str(&text).map_err(|error| NotAContainer::Json(error.to_string()))?;
    let id = text_at(&value, "/Id").filter(|id| !id.is_empty()).ok_or(NotAContainer::NoId)?;
    let state = &value["State"];
    Ok(Container {
        id: id.into(),
        name: text_at(&value, "/Name").unwrap_or_default().trim_start_matches('/').into(),
        image: text_at(&value, "/Config/Image").unwrap_or_default().into(),
        image_id: text_at(&value, "/Image").unwrap_or_default().into(),
        env: env(&value["Config"]["Env"]),
        labels: entries(&value["Config"]["Labels"])
            .filter_map(|(key, label)| Some((key.into(), scalar(label)?)))
            .collect(),
        exposed: entries(&value["Config"]["ExposedPorts"]).map(|(key, _)| key.into()).collect(),
        ports: entries(&value["NetworkSettings"]["Ports"]).map(|(key, list)| (key.into(), bindings(list))).collect(),
        network_mode: text_at(&value, "/HostConfig/NetworkMode").unwrap_or_default().into(),
        networks: entries(&value["NetworkSettings"]["Networks"]).map(|(key, one)| (key.into(), network(one))).collect(),
        state: run_state(state),
        health: health(state),
        pid: state["Pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).filter(|pid| *pid > 0),
        started_at: text_at(state, "/StartedAt").unwrap_or_default().into(),
        stop_signal: text_at(&value, "/Config/StopSignal").and_then(signal_number),
        stop_timeout: value["Config"]["StopTimeout"].as_u64().map(|seconds| Duration::from_secs(seconds.min(86_400))),
    })
}

fn text_at<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer)?.as_str()
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter).map(|(key, value)| (key.as_str(), value))
}

fn scalar(value: &Value) -> Option<Text> {
    match value {
        Value::String(text) => Some(text.as_str().into()),
        Value::Number(number) => Some(number.to_string().into()),
        Value::Bool(flag) => Some(flag.to_string().into()),
        Value::Null => Some("".into()),
        _ => None,
    }
}

fn env(value: &Value) -> Vec<Text> {
    let entries = value.as_array().into_iter().flatten().filter_map(Value::as_str);
    entries.filter(|entry| is_wanted_env(entry)).map(Into::into).collect()
}

fn bindings(value: &Value) -> Vec<Binding> {
    let list = value.as_array().into_iter().flatten().filter(|one| one.is_object());
    let of = |one: &Value, key: &str| scalar(&one[key]).unwrap_or_default();
    list.map(|one| Binding { host_ip: of(one, "HostIp"), host_port: of(one, "HostPort") }).collect()
}

fn network(value: &Value) -> Network {
    let address = |key: &str| value[key].as_str().and_then(|text| text.trim().parse::<IpAddr>().ok());
    let addresses = [address("IPAddress"), address("GlobalIPv6Address")].into_iter().flatten().collect();
    Network { id: value["NetworkID"].as_str().unwrap_or_default().into(), addresses, ..Network::default() }
}

/// While it waits for its next start the engine calls a container running too. Only running ones are looked at, so one
/// without a state is believed to run.
fn run_state(state: &Value) -> RunState {
    if !state.is_object() {
        return RunState::Running;
    }
    let is = |key: &str| state[key].as_bool() == Some(true);
    let status = state["Status"].as_str().unwrap_or_default();
    if is("Restarting") || is("Dead") || matches!(status, "restarting" | "dead" | "removing" | "exited" | "created") {
        return RunState::Stopped;
    }
    if is("Paused") || status == "paused" {
        return RunState::Paused;
    }
    let runs = state["Running"].as_bool().unwrap_or(status == "running");
    if runs { RunState::Running } else { RunState::Stopped }
}

fn health(state: &Value) -> Option<Health> {
    match state.pointer("/Health/Status")?.as_str()? {
        "starting" => Some(Health::Starting),
        "healthy" => Some(Health::Healthy),
        "unhealthy" => Some(Health::Unhealthy),
        _ => None,
    }
}

/// The number of a signal given as number or name, with or without `SIG`.
pub(super) fn signal_number(text: &str) -> Option<u32> {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    let text = text.trim().to_ascii_uppercase();
    if let Ok(number) = text.parse::<u32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    if let Some(above) = name.strip_prefix("RTMIN") {
        let above = above.strip_prefix('+').map_or(Some(0), |number| number.parse::<u32>().ok())?;
        return Some(34 + above).filter(|number| *number <= 64);
    }
    if let Some(below) = name.strip_prefix("RTMAX") {
        let below = below.strip_prefix('-').map_or(Some(0), |number| number.parse::<u32>().ok())?;
        return 64_u32.checked_sub(below).filter(|number| *number >= 34);
    }
    NAMES.iter().position(|known| *known == name).and_then(|place| u32::try_from(place + 1).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn anything_with_an_id_is_a_container() {
        for body in [
            r#"{"Id":"x","State":{}}"#,
            r#"{"Id":"x","Name":null,"Config":null,"State":{"Status":7,"Running":"yes"},"NetworkSettings":7,"HostConfig":"no"}"#,
            r#"{"Id":"x","State":{"Health":[]},"Config":{"Env":null,"Labels":{"a":null,"b":1,"c":[]},"ExposedPorts":null,"StopTimeout":-1}}"#,
            r#"{"Id":"x","State":{"Running":null},"NetworkSettings":{"Ports":{"1/tcp":null,"2/tcp":[null,{"HostPort":5}]},"Networks":{"n":null}}}"#,
        ] {
            let container = container_of(body.as_bytes()).expect(body);
            assert_eq!((&*container.id, container.runs()), ("x", false), "{body}");
        }
        for body in ["", "{", "null", "[]", r#"{"Id":7}"#, r#"{"Id":""}"#] {
            assert!(container_of(body.as_bytes()).is_err(), "{body:?}");
        }
    }

    #[test]
    fn a_container_between_two_starts_does_not_run() {
        for (state, expected) in [
            (r#"{"Running":true,"Status":"running"}"#, RunState::Running),
            (r#"{"Running":true}"#, RunState::Running),
            (r#"{"Running":true,"Restarting":true,"Status":"restarting"}"#, RunState::Stopped),
            (r#"{"Running":true,"Paused":true,"Status":"paused"}"#, RunState::Paused),
            (r#"{"Running":false,"Status":"exited"}"#, RunState::Stopped),
            (r#"{}"#, RunState::Stopped),
        ] {
            let body = format!(r#"{{"Id":"x","State":{state}}}"#);
            assert_eq!(container_of(body.as_bytes()).expect("a container").state, expected, "{state}");
        }
    }

    #[test]
    fn signals_by_number_and_name() {
        for (text, expected) in [
            ("15", Some(15)),
            ("SIGTERM", Some(15)),
            ("quit", Some(3)),
            ("SIGKILL", Some(9)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX", Some(64)),
            ("SIGNONE", None),
            ("0", None),
            ("65", None),
            ("", None),
        ] {
            assert_eq!(signal_number(text), expected, "{text:?}");
        }
    }
}
