//! `tg`: for people who use databases.
//!
//! `tg login` gets a certificate from the cluster and keeps it in a profile; everything else uses that. The program
//! never sees a database password, and what it hands to `psql` is names of files.

mod args;
mod db;
mod login;
mod mfa;
mod passwd;
mod profile;
mod proof;
mod request;
mod sessions;
mod trust;

use std::process::ExitCode;

use clap::Parser;
use tidegate_console::{Failure, output, program};

use args::{Command, DbCommand, MfaCommand, ProxyCommand, Tg};

fn main() -> ExitCode {
    let args = Tg::parse();
    program::run(run(args))
}

async fn run(args: Tg) -> Result<(), Failure> {
    let proxy = args.proxy.as_ref();
    match args.command {
        Command::Db(command) => match command {
            DbCommand::Config(config) => db::config(proxy, config).await,
            DbCommand::Connect(connect) => db::connect(proxy, connect).await,
            DbCommand::Env(env) => db::env(proxy, env).await,
            DbCommand::Exec(exec) => db::exec(proxy, exec).await,
            DbCommand::Login(login) => db::login(proxy, login).await,
            DbCommand::Logout(logout) => db::logout(proxy, logout.name.as_deref()),
            DbCommand::Ls(ls) => db::ls(proxy, ls).await,
        },
        Command::Login(login) if login.request_id.is_empty() => login::login(proxy, login).await,
        Command::Login(login) => request::login(proxy, login).await,
        Command::Logout(logout) => sessions::logout(proxy, logout).await,
        Command::Mfa(MfaCommand::Add(add)) => mfa::add(proxy, add).await,
        Command::Mfa(MfaCommand::Ls(ls)) => mfa::ls(proxy, ls.format).await,
        Command::Mfa(MfaCommand::Rm(rm)) => mfa::rm(proxy, rm).await,
        Command::Passwd(passwd) => passwd::passwd(proxy, passwd).await,
        Command::Proxy(ProxyCommand::Db(door)) => db::proxy(proxy, door).await,
        Command::Sessions(sessions) => sessions::ls(proxy, sessions.format).await,
        Command::Request(command) => request::run(proxy, command).await,
        Command::Status(status) => profile::status(proxy, status.format),
        Command::Version => output::print(&program::version("tg")),
    }
}
