//! `tgctl`: for administrators of a cluster.
//!
//! On an auth host it talks over the service's local socket; elsewhere as the person who ran `tg login`. Results are on
//! standard output, as a table or as JSON or YAML; everything else is on standard error.

mod access;
mod args;
mod audit;
mod connect;
mod create;
mod databases;
mod discovery;
#[cfg(test)]
mod guides;
mod locks;
mod resources;
mod status;
mod tokens;
mod users;

use std::process::ExitCode;

use clap::Parser;
use tidegate_console::{Failure, output, program};

use args::{
    AccessCommand, AuditCommand, Command, DbCommand, DiscoveryCommand, Tgctl, TokensCommand,
    UsersCommand,
};

fn main() -> ExitCode {
    let args = Tgctl::parse();
    program::run(run(args))
}

async fn run(args: Tgctl) -> Result<(), Failure> {
    if matches!(args.command, Command::Version) {
        return output::print(&program::version("tgctl"));
    }
    let resources = match &args.command {
        Command::Create(create) => create::read(create)?,
        _ => Vec::new(),
    };
    let client = connect::client(&args.connection)?;
    match args.command {
        Command::Access(AccessCommand::Explain(explain)) => access::explain(&client, explain).await,
        Command::Audit(AuditCommand::Ls(ls)) => audit::ls(&client, ls).await,
        Command::Create(create) => create::create(&client, resources, create.force).await,
        Command::Db(DbCommand::Ls(ls)) => databases::ls(&client, ls).await,
        Command::Discovery(command) => match command {
            DiscoveryCommand::Adopt(adopt) => discovery::adopt(&client, adopt).await,
            DiscoveryCommand::Explain(explain) => discovery::explain(&client, explain).await,
            DiscoveryCommand::Plan(plan) => discovery::plan::plan(&client, plan).await,
            DiscoveryCommand::Rescan(rescan) => discovery::rescan(&client, rescan).await,
            DiscoveryCommand::Status(status) => discovery::status(&client, status).await,
        },
        Command::Get(get) => resources::get(&client, get.resource, get.format).await,
        Command::Lock(lock) => locks::lock(&client, lock).await,
        Command::Rm(rm) => resources::rm(&client, rm.resource).await,
        Command::Status(status) => status::status(&client, status.format).await,
        Command::Tokens(TokensCommand::Add(add)) => tokens::add(&client, add).await,
        Command::Tokens(TokensCommand::Ls(ls)) => tokens::ls(&client, ls.format).await,
        Command::Tokens(TokensCommand::Rm(rm)) => tokens::rm(&client, &rm.token).await,
        Command::Users(UsersCommand::Add(add)) => users::add(&client, add).await,
        Command::Users(UsersCommand::Ls(ls)) => users::ls(&client, ls.format).await,
        Command::Users(UsersCommand::Reset(reset)) => users::reset(&client, reset).await,
        Command::Users(UsersCommand::Rm(rm)) => users::rm(&client, &rm.users).await,
        Command::Users(UsersCommand::Update(update)) => users::update(&client, update).await,
        Command::Version => Ok(()),
    }
}
