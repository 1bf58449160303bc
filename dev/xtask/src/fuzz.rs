//! `cargo xtask fuzz`: the targets of `fuzz/`, built with coverage for libFuzzer by the compiler that is there.
//!
//! The flags are those of `cargo fuzz run --sanitizer none`, which works on the same folder; with forbidden `unsafe` a
//! sanitizer for memory has nothing to find here. What a run finds interesting is kept in the target folder and used by
//! the next one; a failure leaves its input there, with its path in the last lines.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result, bail};

use crate::run::{self, root, step};

/// The targets, which are binaries of `fuzz/Cargo.toml`.
const TARGETS: [&str; 7] = [
    "startup",
    "frames",
    "backend",
    "hello",
    "mysql",
    "proxy_header",
    "redaction",
];

/// How long each target runs in CI: enough for every seed and some hundred thousand inputs.
pub(crate) const SMOKE: Duration = Duration::from_secs(4);

/// The longest input in bytes: what is longer is longer in the same way.
const INPUT_BYTES_MAX: u32 = 4096;

/// Reads `[TARGET] [--seconds N]` and runs that; a minute for each target when nothing else is said.
pub(crate) fn run(args: &[&str]) -> Result<()> {
    let (names, rest) = match args {
        [name, rest @ ..] if !name.starts_with('-') => (vec![*name], rest),
        rest => (TARGETS.to_vec(), rest),
    };
    let seconds = match rest {
        [] => 60,
        ["--seconds", number] => number
            .parse()
            .with_context(|| format!("`--seconds {number}` is no number of seconds"))?,
        _ => bail!("usage: cargo xtask fuzz [TARGET] [--seconds N]"),
    };
    if let Some(name) = names.iter().find(|name| !TARGETS.contains(name)) {
        bail!(
            "there is no fuzz target `{name}`: try {}",
            TARGETS.join(", ")
        );
    }
    targets(&names, Duration::from_secs(seconds))
}

/// Runs every target for so long.
pub(crate) fn all(each: Duration) -> Result<()> {
    targets(&TARGETS, each)
}

fn targets(names: &[&str], each: Duration) -> Result<()> {
    let host = host()?;
    let folder = run::target().join("fuzz");
    let mut build = run::cargo(&["build", "--release", "--locked", "--target", &host]);
    build
        .args(["--manifest-path", "fuzz/Cargo.toml", "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", flags());
    step("build of the fuzz targets", build)?;
    for name in names {
        let corpus = folder.join("corpus").join(name);
        fs::create_dir_all(&corpus)
            .with_context(|| format!("could not make {}", corpus.display()))?;
        let mut found = folder.join("found").into_os_string();
        fs::create_dir_all(&found).context("could not make the folder for failures")?;
        found.push(format!("/{name}-"));
        let mut fuzz = std::process::Command::new(folder.join(&host).join("release").join(name));
        fuzz.arg(format!("-max_total_time={}", each.as_secs()))
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            .args(["-timeout=10", "-rss_limit_mb=1024", "-verbosity=0"])
            .arg("-print_final_stats=1")
            .arg(format!(
                "-artifact_prefix={}",
                PathBuf::from(found).display()
            ))
            .arg(corpus)
            .arg(root().join("fuzz/seeds").join(name));
        step(&format!("fuzz target {name}"), fuzz)?;
    }
    Ok(())
}

/// The triple of this machine. Naming it keeps build scripts, which run here too, without instruments.
fn host() -> Result<String> {
    let output = std::process::Command::new("rustc")
        .arg("-vV")
        .output()
        .context("could not ask rustc for its host")?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .find_map(|line| line.strip_prefix("host: ").map(str::to_owned))
        .context("rustc does not name its host")
}

fn flags() -> String {
    [
        "-Cpasses=sancov-module",
        "-Cllvm-args=-sanitizer-coverage-level=4",
        "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
        "-Cllvm-args=-sanitizer-coverage-pc-table",
        "-Cllvm-args=-sanitizer-coverage-trace-compares",
        "-Ccodegen-units=1",
        "--cfg=fuzzing",
    ]
    .join(" ")
}
