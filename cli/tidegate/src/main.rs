//! `tidegate`: runs the services that a configuration file enables, and checks such files.
//!
//! Parses the command line, prints, and gives the exit code: 0 when all is well, 1 otherwise; the doctor has 2 as well. A mistake in the
//! command line or in the file is found before anything is touched.
//!
//! Not here: reading the file (`tidegate_service::settings`) and the services themselves (their own crates);
//! [`run`] wires them.

mod beside;
mod caller;
mod check;
mod db;
mod ending;
mod notify;
mod reload;
mod run;
mod wiring;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use clap::{Parser, Subcommand};
use tidegate_service::settings::{self, Settings};

use db::DbCommand;
use reload::Source;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The exit code of the doctor when it took no step.
const USAGE: u8 = 2;
const CONFIG_DEFAULT: &str = "/etc/tidegate.yaml";
/// What `-d` logs: our own crates in detail, everybody else's as usual.
const DEBUG_FILTER: &str = "info,tidegate=debug";

/// Access to databases in many AWS accounts: finds them, serves them, connects people to them.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  Check a file, then run what it enables:
    tidegate config check /etc/tidegate.yaml
    tidegate start -c /etc/tidegate.yaml

  The same with detailed logs:
    tidegate start -d -c /etc/tidegate.yaml

Exit codes: 0 when all is well, 1 otherwise.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the services that a configuration file enables, until SIGTERM or SIGINT. SIGHUP reads the file again; SIGUSR2 hands a proxy over to a new process.
    #[command(after_help = "Example:\n  tidegate start -c /etc/tidegate.yaml")]
    Start {
        /// The configuration file.
        #[arg(short, long, value_name = "FILE", default_value = CONFIG_DEFAULT)]
        config: PathBuf,
        /// Log in detail, whatever the file says.
        #[arg(short, long)]
        debug: bool,
    },
    /// Work with configuration files.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Serve a database, and find out what keeps sessions from one.
    #[command(subcommand)]
    Db(DbCommand),
    /// Print the version.
    Version,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Read a file as `start` would, and tell everything that is wrong in it.
    #[command(after_help = "Example:\n  tidegate config check /etc/tidegate.yaml")]
    Check {
        /// The configuration file.
        #[arg(value_name = "FILE", default_value = CONFIG_DEFAULT)]
        file: PathBuf,
    },
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        // Help and version come this way too. Printing can only fail when nobody reads.
        Err(answer) => {
            let _ = answer.print();
            return match answer.use_stderr() {
                true if asks_the_doctor() => ExitCode::from(USAGE),
                is_error => exit_code(!is_error),
            };
        }
    };
    let outcome = match arguments.command {
        Command::Start { config, debug } => start(&config, debug),
        Command::Config(ConfigCommand::Check { file }) => check::check(&file),
        Command::Db(DbCommand::Doctor(args)) => return db::doctor::run(&args),
        Command::Db(DbCommand::Start(args)) => {
            let (debug, is_flags) = (args.debug, args.has_no_file());
            run_from(move || db::start_settings(&args), is_flags, debug)
        }
        Command::Version => {
            print(&format!("tidegate {}", env!("CARGO_PKG_VERSION")));
            Ok(())
        }
    };
    if let Err(error) = &outcome {
        complain(&format!("{error:#}"));
    }
    exit_code(outcome.is_ok())
}

fn start(config: &Path, debug: bool) -> anyhow::Result<()> {
    let config = config.to_owned();
    let read = move || {
        let settings = settings::load(&config)?;
        settings.check_startable()?;
        Ok(settings)
    };
    run_from(read, false, debug)
}

/// Runs what is read now, and may be read again.
fn run_from(
    read: impl Fn() -> anyhow::Result<Settings> + Send + Sync + 'static,
    is_flags: bool,
    debug: bool,
) -> anyhow::Result<()> {
    let mut settings = read()?;
    if debug {
        DEBUG_FILTER.clone_into(&mut settings.process.log.filter);
    }
    let source = Source {
        read: Arc::new(read),
        is_flags,
    };
    run::run(settings, source, debug)
}

/// Whether the command line is for the doctor, whose exit codes tell a step that failed from a question that is wrong.
fn asks_the_doctor() -> bool {
    std::env::args().skip(1).take(2).eq(["db", "doctor"])
}

fn exit_code(well: bool) -> ExitCode {
    if well {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Writes a line for whoever reads; nobody reading is no error.
fn print(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

fn complain(line: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
