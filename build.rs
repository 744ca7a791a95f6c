//! Names the commit in the version, when the builder says which one it is.

fn main() {
    println!("cargo::rerun-if-env-changed=WHARF_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    let named = match std::env::var("WHARF_COMMIT") {
        Ok(commit) if !commit.is_empty() => format!("{version} ({commit})"),
        _ => version,
    };
    println!("cargo::rustc-env=WHARF_VERSION={named}");
}
