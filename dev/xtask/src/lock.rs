//! Keeps the dependency graph to one of everything that matters: one HTTP stack, one TLS stack, nothing unmaintained.
//!
//! Works offline on `Cargo.lock` alone; `deny.toml` says the same for `cargo deny`, which also knows advisories.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use crate::run::root;

/// Crates of which exactly one version may be locked.
const ONE_OF: [&str; 13] = [
    "aws-lc-rs",
    "axum",
    "h2",
    "http",
    "http-body",
    "hyper",
    "prost",
    "rustls",
    "rustls-webpki",
    "tokio",
    "tokio-rustls",
    "tonic",
    "tower",
];
/// Crates that may not be locked at all: unmaintained, unsound, or a second TLS stack.
const NONE_OF: [&str; 9] = [
    "chrono",
    "native-tls",
    "openssl-sys",
    "reqwest",
    "rsa",
    "rustls-pemfile",
    "serde_yml",
    "sqlx",
    "unsafe-libyaml",
];

/// Fails with everything that is locked twice or should not be.
pub(crate) fn check() -> Result<()> {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).context("Cargo.lock")?;
    let wrong = faults(&lock);
    if wrong.is_empty() {
        Ok(())
    } else {
        bail!("Cargo.lock:\n  {}", wrong.join("\n  "))
    }
}

fn faults(lock: &str) -> Vec<String> {
    let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for line in lock.lines() {
        if let Some(found) = line.strip_prefix("name = ") {
            name = found.trim_matches('"');
        } else if let Some(version) = line.strip_prefix("version = ") {
            versions
                .entry(name)
                .or_default()
                .push(version.trim_matches('"'));
        } else if let Some(source) = line.strip_prefix("source = ")
            && !source.contains("crates.io")
        {
            versions
                .entry("(not from crates.io)")
                .or_default()
                .push(name);
        }
    }
    let twice = ONE_OF.iter().filter_map(|name| {
        let found = versions.get(name)?;
        (found.len() > 1).then(|| {
            format!(
                "{name} is locked in {} versions: {}",
                found.len(),
                found.join(", ")
            )
        })
    });
    let banned = NONE_OF
        .iter()
        .filter(|name| versions.contains_key(*name))
        .map(|name| format!("{name} must not be used"));
    let foreign = versions
        .get("(not from crates.io)")
        .into_iter()
        .flatten()
        .map(|name| format!("{name} is not from crates.io"));
    twice.chain(banned).chain(foreign).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_versions_and_banned_crates_are_faults() {
        let lock = "name = \"hyper\"\nversion = \"1.0.0\"\nname = \"hyper\"\nversion = \"0.14.0\"\nname = \"rsa\"\nversion = \"0.9.0\"\n";
        assert_eq!(
            faults(lock),
            [
                "hyper is locked in 2 versions: 1.0.0, 0.14.0",
                "rsa must not be used"
            ]
        );
        assert!(faults("name = \"hyper\"\nversion = \"1.0.0\"\n").is_empty());
    }
}
