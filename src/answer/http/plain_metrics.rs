//! Metrics in Prometheus's plain text format (0.0.4), for those who do not ask for OpenMetrics.
//!
//! The formats differ in little: what is declared of a counter or an info is called as its samples are, and there is no
//! end mark.

use std::borrow::Cow;

/// The content type of what is written here.
pub(super) const PLAIN: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The same metrics, from OpenMetrics text.
pub(super) fn of_open_metrics(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut help: Option<(&str, &str)> = None;
    for line in text.lines() {
        let declared = line.strip_prefix("# ").and_then(|rest| rest.split_once(' '));
        match declared {
            None if line.starts_with('#') => {}
            None => {
                plain.push_str(line);
                plain.push('\n');
            }
            // What it helps with is called by its kind, which stands in the next line.
            Some(("HELP", rest)) => help = rest.split_once(' '),
            Some(("TYPE", rest)) => {
                let Some((name, kind)) = rest.split_once(' ') else { continue };
                let (name, kind) = declaration(name, kind);
                if let Some((_, help)) = help.take() {
                    plain.push_str(&format!("# HELP {name} {help}\n"));
                }
                plain.push_str(&format!("# TYPE {name} {kind}\n"));
            }
            Some(_) => {}
        }
    }
    plain
}

/// The name and kind of a family, as the plain format has them.
fn declaration<'t>(name: &'t str, kind: &'t str) -> (Cow<'t, str>, &'t str) {
    match kind {
        "counter" => (Cow::Owned(format!("{name}_total")), kind),
        "info" => (Cow::Owned(format!("{name}_info")), "gauge"),
        "unknown" => (Cow::Borrowed(name), "untyped"),
        _ => (Cow::Borrowed(name), kind),
    }
}

/// Whether a client that accepts this asks for OpenMetrics.
pub(super) fn wants_open_metrics(accept: &str) -> bool {
    accept.split(',').any(|kind| kind.trim_start().starts_with("application/openmetrics-text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_are_declared_as_their_samples_are_called() {
        let open = "# HELP a_b Things.\n# TYPE a_b counter\na_b_total{x=\"# TYPE\"} 1\n# HELP c Build.\n# TYPE c info\n\
                    c_info{version=\"1\"} 1\n# HELP d Now.\n# TYPE d gauge\n# UNIT d seconds\nd 2\n# EOF\n";
        let plain = "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total{x=\"# TYPE\"} 1\n# HELP c_info Build.\n\
                     # TYPE c_info gauge\nc_info{version=\"1\"} 1\n# HELP d Now.\n# TYPE d gauge\nd 2\n";
        assert_eq!(of_open_metrics(open), plain);
    }

    #[test]
    fn prometheus_asks_for_open_metrics_and_curl_does_not() {
        assert!(wants_open_metrics("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"));
        assert!(!wants_open_metrics("*/*") && !wants_open_metrics("text/plain"));
    }
}
