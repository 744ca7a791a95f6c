//! What cannot be run under a lock, because its end does not end what it has started.

/// Programs that ask an engine for a container and go away from it without ending it.
const CLIENTS: [&str; 3] = ["docker", "podman", "nerdctl"];

/// Why a command is refused, if it is.
pub fn refusal(command: &[String]) -> Option<String> {
    let (program, arguments) = command.split_first()?;
    let name = program.rsplit('/').next().unwrap_or(program);
    // Whatever flags and their values come first: neither word names a flag's value that anybody has.
    let starts = arguments.iter().take_while(|word| *word != "--").any(|word| word == "run" || word == "start");
    (CLIENTS.contains(&name) && starts).then(|| {
        format!("the end of `{name}` does not end the container that it has started: make wharf lock its entry point")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_of_an_engine_is_refused() {
        for (line, refused) in [
            ("docker run --rm postgres", true),
            ("/usr/bin/docker -H unix:///x start -a pg", true),
            ("podman container run x", true),
            ("docker ps", false),
            ("/main run", false),
            ("", false),
        ] {
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert_eq!(refusal(&words).is_some(), refused, "{line}");
        }
    }
}
