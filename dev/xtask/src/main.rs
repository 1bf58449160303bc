//! `cargo xtask`: the demo, the tests, what CI runs, benchmarks, and code generation.
//!
//! It stays small, so that it builds in seconds on a fresh machine: what it starts (the demo, the benchmarks, the
//! generator) are programs of their own in `dev/`.

mod arrows;
mod drivers;
mod fuzz;
mod lock;
mod needs;
mod run;

use std::{env, process::ExitCode};

use anyhow::{Result, bail};

use crate::run::{cargo, step};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo [--check]          start everything against a simulated AWS and run a query through it;
                          with --check: prove it, stop everything, exit
  test [FILTER]           run the tests; checks for PostgreSQL, etcd, libnss-wrapper and a C compiler first, and for `drivers`
  drivers                 install the drivers of other languages that whole-system tests use
  ci                      format, lints, dependency arrows, generated code, fuzz targets for seconds, then `test`
  bench NAME [--json]     measure ours beside the reference (NAME: session, discovery, inventory, agent)
  fuzz [TARGET] [--seconds N]
                          feed parsers with what strangers may send; a minute each when nothing is said
  gen [--check]           generate code from proto/, and reference pages from code
";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let outcome = match args.as_slice() {
        ["demo", rest @ ..] => demo(rest),
        ["test", rest @ ..] => test(rest),
        ["drivers"] => needs::check_all().and_then(|()| drivers::install()),
        ["ci"] => ci(),
        ["bench", name, rest @ ..] => bench(name, rest),
        ["fuzz", rest @ ..] => needs::check_all().and_then(|()| fuzz::run(rest)),
        ["gen", rest @ ..] => generate(rest),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn demo(args: &[&str]) -> Result<()> {
    needs::check_all()?;
    step(
        "build",
        cargo(&["build", "--workspace", "--locked", "--bins"]),
    )?;
    step("demo", run::built("debug", "demo").args(args))
}

fn test(args: &[&str]) -> Result<()> {
    needs::check_all()?;
    drivers::install()?;
    // The programs that the whole-system tests start are not all dependencies of the test binaries.
    step(
        "build",
        cargo(&["build", "--workspace", "--locked", "--all-targets"]),
    )?;
    let summary = run::tests(args)?;
    println!("{summary}");
    if summary.failed > 0 || summary.passed == 0 {
        bail!("tests failed or did not run")
    } else {
        Ok(())
    }
}

fn ci() -> Result<()> {
    step("format", cargo(&["fmt", "--all", "--check"]))?;
    step(
        "format of the fuzz targets",
        cargo(&["fmt", "--check", "--manifest-path", "fuzz/Cargo.toml"]),
    )?;
    arrows::check()?;
    lock::check()?;
    generate(&["--check"])?;
    step(
        "lints",
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]),
    )?;
    needs::check_all()?;
    fuzz::all(fuzz::SMOKE)?;
    test(&[])
}

fn bench(name: &str, args: &[&str]) -> Result<()> {
    if !["session", "discovery", "inventory", "agent"].contains(&name) {
        bail!("there is no benchmark `{name}`: try `session`, `discovery`, `inventory` or `agent`");
    }
    needs::check_all()?;
    if name == "session" {
        needs::check_peers()?;
    }
    step(
        "build",
        cargo(&["build", "--release", "--locked", "--workspace", "--bins"]),
    )?;
    step("bench", run::built("release", "bench").arg(name).args(args))
}

fn generate(args: &[&str]) -> Result<()> {
    let mut all = vec!["run", "--quiet", "--locked", "--package", "protogen", "--"];
    all.extend(args);
    step("generate", cargo(&all))
}
