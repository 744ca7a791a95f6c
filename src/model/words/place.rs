//! Where a client connects to, written as it types it.

/// `host:port`; an IPv6 address stands in brackets.
pub fn place(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_the_other_family_stands_in_brackets() {
        assert_eq!(place("10.0.0.1", 6379), "10.0.0.1:6379");
        assert_eq!(place("fd00::1", 6379), "[fd00::1]:6379");
    }
}
