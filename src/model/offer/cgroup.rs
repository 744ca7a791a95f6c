//! Control groups as their paths tell whose they are.
//!
//! A container's group is named by its full id: `/docker/ID`, `/system.slice/docker-ID.scope`, `…/libpod-ID.scope`.
//! Processes of it may sit deeper, where it divides its group further.

/// Whether a process with this `/proc/PID/cgroup` is of the container, in any hierarchy.
pub fn is_of(groups: &str, container: &str) -> bool {
    groups.lines().filter_map(path).any(|path| root(path, container).is_some())
}

/// The path of the container's own group in the unified hierarchy, if a process with this `/proc/PID/cgroup` is of it.
pub fn unified<'g>(groups: &'g str, container: &str) -> Option<&'g str> {
    let unified = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    root(unified, container)
}

/// Where the unified hierarchy is mounted whole, by `/proc/self/mountinfo`.
pub fn mount(mounts: &str) -> Option<String> {
    let of = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let mut fields = place.split(' ').skip(3);
        let (root, at) = (fields.next()?, fields.next()?);
        (kind.split(' ').next() == Some("cgroup2") && root == "/").then(|| at.replace("\\040", " "))
    };
    mounts.lines().find_map(of)
}

fn path(line: &str) -> Option<&str> {
    line.splitn(3, ':').nth(2)
}

/// The path up to the segment that names the container.
fn root<'p>(path: &'p str, container: &str) -> Option<&'p str> {
    // Shorter ones are no engine's, and might be anything.
    if container.len() < 12 || !path.starts_with('/') || path.contains("/..") {
        return None;
    }
    let mut end = 0;
    for segment in path.split_inclusive('/') {
        end += segment.len();
        if names(segment.trim_end_matches('/'), container) {
            return Some(path[..end].trim_end_matches('/'));
        }
    }
    None
}

fn names(segment: &str, container: &str) -> bool {
    let segment = segment.strip_suffix(".scope").unwrap_or(segment);
    segment == container || segment.rsplit_once('-').is_some_and(|(_, id)| id == container)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_of_the_container_that_its_path_names() {
        let id = "ab".repeat(32);
        let other = "cd".repeat(32);
        for (groups, root) in [
            (format!("0::/docker/{id}"), Some(format!("/docker/{id}"))),
            (format!("0::/system.slice/docker-{id}.scope"), Some(format!("/system.slice/docker-{id}.scope"))),
            (
                format!("0::/machine.slice/libpod-{id}.scope/container"),
                Some(format!("/machine.slice/libpod-{id}.scope")),
            ),
            (format!("1:name=x:/\n0::/docker/{id}/init.scope"), Some(format!("/docker/{id}"))),
            (format!("0::/docker/{other}"), None),
            (format!("0::/docker/{other}/x{id}"), None),
            (format!("0::/../docker/{id}"), None),
            (format!("0::/docker/{id}x"), None),
            (String::new(), None),
            ("0::/".to_owned(), None),
        ] {
            assert_eq!(unified(&groups, &id), root.as_deref(), "{groups}");
            assert_eq!(is_of(&groups, &id), root.is_some(), "{groups}");
        }
        let older = format!("9:name=systemd:/docker/{id}\n0::/system.slice/docker.service");
        assert!(is_of(&older, &id), "in an older hierarchy");
        assert_eq!(unified(&older, &id), None);
        for id in ["", "ab", "/"] {
            assert!(!is_of("0::/docker/ab", id), "{id:?}");
        }
    }

    #[test]
    fn the_unified_hierarchy_is_found_where_it_is_mounted_whole() {
        let line = |root: &str, at: &str, kind: &str| {
            format!("31 23 0:26 {root} {at} rw,nosuid shared:4 - {kind} cgroup rw\n")
        };
        let mounts = line("/", "/sys/fs/cgroup/pids", "cgroup")
            + &line("/docker", "/x", "cgroup2")
            + &line("/", "/sys/fs/cgroup", "cgroup2");
        assert_eq!(mount(&mounts).as_deref(), Some("/sys/fs/cgroup"));
        assert_eq!(mount("garbage\n"), None);
    }
}
