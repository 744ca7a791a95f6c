//! Clients of a master that has given way who must not stay: those who came after it closed all others.
//!
//! A name or a facade that was late sent them there. They are closed once more, so that they ask again; replicas, the
//! master's own link and what operators and agents hold are left alone.

/// What is left alone by its name.
const OURS: &str = "wharf-";
const SENTINEL: &str = "sentinel-";

/// Whether a client of this name and with these flags is closed: a normal one, or a subscriber.
pub fn is_closed(name: &str, flags: &str) -> bool {
    let is_client = !flags.contains(['S', 'M', 'O']);
    is_client && !name.starts_with(OURS) && !name.starts_with(SENTINEL)
}

/// Whether a client waits although its command never does so by itself: then somebody holds the writes. Servers before
/// Redis 7.2 tell it in no other way.
pub fn is_held(flags: &str, command: &str) -> bool {
    const WAIT: [&str; 15] = [
        "blpop",
        "brpop",
        "brpoplpush",
        "blmove",
        "blmpop",
        "bzpopmin",
        "bzpopmax",
        "bzmpop",
        "xread",
        "xreadgroup",
        "wait",
        "waitaof",
        "fcall",
        "module",
        "shutdown",
    ];
    flags.contains('b') && !WAIT.contains(&command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_closed_and_servers_and_operators_are_not() {
        for (name, flags, closed) in [
            ("", "N", true),
            ("app", "P", true),
            ("app", "b", true),
            ("", "S", false),
            ("", "M", false),
            ("", "O", false),
            ("wharf-topology:redis-1:7", "N", false),
            ("sentinel-1a2b-cmd", "N", false),
        ] {
            assert_eq!(is_closed(name, flags), closed, "{name} {flags}");
        }
    }

    #[test]
    fn one_who_waits_with_a_command_that_never_waits_is_held() {
        for (flags, command, held) in [
            ("b", "set", true),
            ("b", "blpop", false),
            ("N", "set", false),
            ("xb", "exec", true),
            ("b", "xread", false),
        ] {
            assert_eq!(is_held(flags, command), held, "{flags} {command}");
        }
    }
}
