//! Running other programs, and reading what a test runner says.

use std::{
    env, fmt,
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// How many tests did what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Tests that passed.
    pub(crate) passed: u64,
    /// Tests that failed.
    pub(crate) failed: u64,
    /// Tests that were left out.
    pub(crate) skipped: u64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} passed, {} failed, {} skipped",
            self.passed, self.failed, self.skipped
        )
    }
}

/// The workspace's folder.
pub(crate) fn root() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).map(PathBuf::from).unwrap_or(here)
}

/// A cargo call in the workspace.
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Where cargo puts what it builds.
pub(crate) fn target() -> PathBuf {
    let target =
        env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    root().join(target)
}

/// A program that this workspace has built.
pub(crate) fn built(profile: &str, program: &str) -> Command {
    let mut command = Command::new(target().join(profile).join(program));
    command.current_dir(root());
    command
}

/// Runs one step to its end.
pub(crate) fn step(name: &str, mut command: impl AsMutCommand) -> Result<()> {
    let command = command.as_mut_command();
    let status = command
        .status()
        .with_context(|| format!("{name}: could not start {:?}", command.get_program()))?;
    if status.success() {
        Ok(())
    } else {
        bail!("{name}: {status}")
    }
}

/// An owned or borrowed command.
pub(crate) trait AsMutCommand {
    /// The command.
    fn as_mut_command(&mut self) -> &mut Command;
}

impl AsMutCommand for Command {
    fn as_mut_command(&mut self) -> &mut Command {
        self
    }
}

impl AsMutCommand for &mut Command {
    fn as_mut_command(&mut self) -> &mut Command {
        self
    }
}

/// Runs the tests with cargo-nextest where it is installed, with `cargo test` otherwise, and counts.
pub(crate) fn tests(args: &[&str]) -> Result<Summary> {
    let has_nextest = cargo(&["nextest", "--version"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let mut command = if has_nextest {
        cargo(&[
            "nextest",
            "run",
            "--workspace",
            "--all-targets",
            "--locked",
            "--no-fail-fast",
            "--status-level",
            "fail",
            "--final-status-level",
            "fail",
        ])
    } else {
        cargo(&[
            "test",
            "--workspace",
            "--all-targets",
            "--locked",
            "--no-fail-fast",
        ])
    };
    let mut child = command
        .args(args)
        .stdout(Stdio::inherit())
        .stderr(Stdio::piped());
    if !has_nextest {
        child = child.stdout(Stdio::piped()).stderr(Stdio::inherit());
    }
    let mut child = child.spawn().context("could not start the test runner")?;
    let mut summary = Summary::default();
    let mut read = |line: &str| {
        eprintln!("{line}");
        if let Some(found) = parse(line, has_nextest) {
            summary.passed += found.passed;
            summary.failed += found.failed;
            summary.skipped += found.skipped;
        }
    };
    if let Some(output) = child.stderr.take() {
        BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .for_each(|line| read(&line));
    }
    if let Some(output) = child.stdout.take() {
        BufReader::new(output)
            .lines()
            .map_while(Result::ok)
            .for_each(|line| read(&line));
    }
    let status = child.wait()?;
    if !status.success() && summary.failed == 0 {
        bail!("the test runner ended with {status}");
    }
    Ok(summary)
}

/// Reads one line of either runner's summary: `Summary [ 1.2s] 90 tests run: 89 passed (1 slow), 1 failed, 2 skipped`
/// or `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
///
/// Each runner's own line alone counts: nextest repeats what a failed test binary said.
fn parse(line: &str, nextest: bool) -> Option<Summary> {
    let line = line.trim();
    let counts = if nextest {
        line.starts_with("Summary") && (line.contains("tests run:") || line.contains("test run:"))
    } else {
        line.starts_with("test result:")
    };
    if !counts {
        return None;
    }
    let before = |word: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words
            .iter()
            .position(|found| found.trim_end_matches([',', ';']) == word)?;
        words.get(at.checked_sub(1)?)?.parse::<u64>().ok()
    };
    Some(Summary {
        passed: before("passed").unwrap_or(0),
        failed: before("failed").unwrap_or(0) + before("timed").unwrap_or(0),
        skipped: before("skipped").or_else(|| before("ignored")).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_runners_summaries_are_read() {
        let nextest =
            "     Summary [   1.3s] 90 tests run: 88 passed (1 slow), 2 failed, 3 skipped";
        assert_eq!(
            parse(nextest, true),
            Some(Summary {
                passed: 88,
                failed: 2,
                skipped: 3
            })
        );
        let libtest = "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s";
        assert_eq!(
            parse(libtest, false),
            Some(Summary {
                passed: 5,
                failed: 0,
                skipped: 1
            })
        );
        assert_eq!(parse("test a ... ok", false), None);
        assert_eq!(parse(libtest, true), None);
    }
}
