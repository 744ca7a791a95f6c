//! What nobody may write through v2: records that an agent owns.

use serde_json::Value;

use crate::model::words::plain::plain;

/// Whose a value is, in words, if it is an agent's: an object with an owner.
pub fn owner(value: &[u8]) -> Option<String> {
    // Most values are no objects, and need no reading.
    if !value.trim_ascii_start().starts_with(b"{") {
        return None;
    }
    let Ok(Value::Object(fields)) = serde_json::from_slice(value) else { return None };
    let owner = fields.get("owner").filter(|owner| !owner.is_null())?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let node = fields.get("node").map(text).unwrap_or_default();
    Some(plain(&format!("the record of an agent on node {node:?}, owner {:?}", text(owner))).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_with_an_owner_is_an_agents() {
        let told = owner(br#" {"host":"10.0.0.1","port":1,"owner":"ab12","node":"core-01"}"#);
        assert_eq!(told.as_deref(), Some("the record of an agent on node \"core-01\", owner \"ab12\""));
        assert!(owner(br#"{"owner":7}"#).is_some());
        for free in
            [&b""[..], b"10.0.0.1:6379", br#"{"host":"a"}"#, br#"{"owner":null}"#, br#"["owner"]"#, b"{\"owner\""]
        {
            assert_eq!(owner(free), None, "{}", String::from_utf8_lossy(free));
        }
    }
}
