//! `tgctl`: for administrators of a cluster.
//!
//! On an auth host it talks over the service's local socket; elsewhere as the person who ran `tg login`. Results are on
//! standard output, as a table or as JSON or YAML; everything else is on standard error.

mod access;
mod args;
mod audit;
mod auth;
mod backup;
mod connect;
mod create;
mod databases;
mod discovery;
mod doctor;
mod edit;
mod get;
#[cfg(test)]
mod guides;
mod health;
mod locks;
mod requests;
mod resources;
mod status;
mod tokens;
mod users;

use std::process::ExitCode;

use clap::Parser;
use tidegate_console::{Failure, output, program};

use args::{
    AccessCommand, AuditCommand, AuthCommand, BackupCommand, Command, DbCommand, DiscoveryCommand,
    Tgctl, TokensCommand, UsersCommand,
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
    if let Command::Audit(AuditCommand::Verify(verify)) = &args.command
        && !verify.files.is_empty()
    {
        return audit::verify_files(verify);
    }
    if let Command::Auth(AuthCommand::Keyfile(keyfile)) = &args.command {
        return auth::keyfile(&keyfile.file);
    }
    if let Command::Backup(BackupCommand::Verify(verify)) = &args.command {
        return backup::verify(verify);
    }
    let client = connect::client(&args.connection)?;
    match args.command {
        Command::Access(AccessCommand::Explain(explain)) => access::explain(&client, explain).await,
        Command::Audit(command) => match command {
            AuditCommand::Export(export) => audit::export(&client, export).await,
            AuditCommand::Search(search) => audit::search(&client, search).await,
            AuditCommand::Verify(verify) => audit::verify(&client, verify).await,
        },
        Command::Auth(AuthCommand::Keyfile(_)) => Ok(()),
        Command::Auth(AuthCommand::Rotate(rotate)) => auth::rotate(&client, rotate).await,
        Command::Auth(AuthCommand::Status(status)) => auth::status(&client, status.format).await,
        Command::Backup(command) => match command {
            BackupCommand::Create(create) => backup::create(&client, create).await,
            BackupCommand::Restore(restore) => backup::restore(&client, restore).await,
            BackupCommand::Verify(verify) => backup::verify(&verify),
        },
        Command::Create(create) => create::create(&client, resources, create.force).await,
        Command::Db(DbCommand::Doctor(args)) => doctor::doctor(&client, args).await,
        Command::Db(DbCommand::Ls(ls)) => databases::ls(&client, ls).await,
        Command::Discovery(command) => match command {
            DiscoveryCommand::Adopt(adopt) => discovery::adopt(&client, adopt).await,
            DiscoveryCommand::Explain(explain) => discovery::explain(&client, explain).await,
            DiscoveryCommand::Plan(plan) => discovery::plan::plan(&client, plan).await,
            DiscoveryCommand::Rescan(rescan) => discovery::rescan(&client, rescan).await,
            DiscoveryCommand::Status(status) => discovery::status(&client, status).await,
        },
        Command::Edit(edit) => Box::pin(edit::edit(&client, edit.resource)).await,
        Command::Get(get) => Box::pin(get::get(&client, get.resource, get.query, get.format)).await,
        Command::Lock(lock) => locks::lock(&client, lock).await,
        Command::Requests(command) => requests::run(&client, command).await,
        Command::Rm(rm) => resources::rm(&client, rm.resource).await,
        Command::Status(status) => status::status(&client, status.format).await,
        Command::Tokens(TokensCommand::Add(add)) => tokens::add(&client, add).await,
        Command::Tokens(TokensCommand::Ls(ls)) => tokens::ls(&client, ls.format).await,
        Command::Tokens(TokensCommand::Rm(rm)) => tokens::rm(&client, &rm.token).await,
        Command::Users(UsersCommand::Add(add)) => users::add(&client, add).await,
        Command::Users(UsersCommand::Ls(ls)) => users::ls(&client, ls.format).await,
        Command::Users(UsersCommand::Reset(reset)) => users::reset(&client, reset).await,
        Command::Users(UsersCommand::Revoke(revoke)) => {
            users::logins::revoke(&client, revoke).await
        }
        Command::Users(UsersCommand::Sessions(sessions)) => {
            users::logins::sessions(&client, sessions).await
        }
        Command::Users(UsersCommand::Unlock(unlock)) => {
            users::logins::unlock(&client, &unlock.name).await
        }
        Command::Users(UsersCommand::Rm(rm)) => users::rm(&client, &rm.users).await,
        Command::Users(UsersCommand::Update(update)) => users::update(&client, update).await,
        Command::Version => Ok(()),
    }
}
