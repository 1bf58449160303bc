//! How a program starts and ends: a runtime, one command, an exit code.

use std::{io::Write, panic, process::ExitCode};

use crate::{Exit, Failure};

/// Runs one command to its end and tells how it went.
///
/// A failure is printed to standard error as `ERROR: …` with its hint; a fault of ours as one line too, never as a
/// backtrace.
pub fn run(command: impl Future<Output = Result<(), Failure>>) -> ExitCode {
    panic::set_hook(Box::new(|fault| {
        let _ = writeln!(
            std::io::stderr(),
            "ERROR: internal fault: {fault}\n  hint: please report this with the command that you ran"
        );
    }));
    let outcome = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(format!("cannot start: {error}")))
        .and_then(|runtime| runtime.block_on(command));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !matches!(
                failure.exit(),
                Exit::Quiet | Exit::Incomplete | Exit::Unwell
            ) {
                let _ = writeln!(std::io::stderr(), "{failure}");
            }
            ExitCode::from(failure.exit().code())
        }
    }
}

/// What `version` prints: the project's name and version, and the program.
#[must_use]
pub fn version(program: &str) -> String {
    format!("Tidegate v{} ({program})\n", env!("CARGO_PKG_VERSION"))
}
