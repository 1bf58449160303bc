//! `tg`: for people who use databases.
//!
//! `tg login` gets a certificate from the cluster and keeps it in a profile; everything else uses that. The program
//! never sees a database password, and what it hands to `psql` is names of files.

mod args;
mod db;
mod login;
mod profile;

use std::process::ExitCode;

use clap::Parser;
use tidegate_console::{Failure, output, program};

use args::{Command, DbCommand, Tg};

fn main() -> ExitCode {
    let args = Tg::parse();
    program::run(run(args))
}

async fn run(args: Tg) -> Result<(), Failure> {
    let proxy = args.proxy.as_ref();
    match args.command {
        Command::Db(command) => match command {
            DbCommand::Connect(connect) => db::connect(proxy, connect).await,
            DbCommand::Env(env) => db::env(proxy, env).await,
            DbCommand::Login(login) => db::login(proxy, login).await,
            DbCommand::Logout(logout) => db::logout(proxy, logout.name.as_deref()),
            DbCommand::Ls(ls) => db::ls(proxy, ls).await,
        },
        Command::Login(login) => login::login(proxy, login).await,
        Command::Logout => profile::logout(proxy),
        Command::Status(status) => profile::status(proxy, status.format),
        Command::Version => output::print(&program::version("tg")),
    }
}
