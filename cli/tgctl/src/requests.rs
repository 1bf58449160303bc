//! `tgctl requests`: who asked for which roles, and deciding about it as an administrator.

mod args;

use jiff::Timestamp;
use tidegate_console::{
    Failure, Format, Output, Table, client::Client, output, request, resource::AccessRequest, rpc,
    table::visible,
};
use tidegate_proto::v1::{
    AccessRequestScope, AccessRequestState, CreateAccessRequestRequest, DecideAccessRequestRequest,
    DeleteAccessRequestRequest, ReviewVerdict,
};

use crate::users::duration;
pub(crate) use args::RequestsCommand;
use args::{CreateArgs, DecideArgs, GetArgs, LsArgs, State};

pub(crate) async fn run(client: &Client, command: RequestsCommand) -> Result<(), Failure> {
    match command {
        RequestsCommand::Approve(args) => decide(client, args, ReviewVerdict::Approve).await,
        RequestsCommand::Create(args) => create(client, args).await,
        RequestsCommand::Deny(args) => decide(client, args, ReviewVerdict::Deny).await,
        RequestsCommand::Get(args) => get(client, args).await,
        RequestsCommand::Ls(args) => ls(client, args).await,
        RequestsCommand::Rm(args) => rm(client, &args.ids).await,
    }
}

async fn decide(client: &Client, args: DecideArgs, verdict: ReviewVerdict) -> Result<(), Failure> {
    let (doing, done) = match verdict {
        ReviewVerdict::Approve => ("approve", "approved"),
        ReviewVerdict::Deny | ReviewVerdict::Unspecified => ("deny", "denied"),
    };
    for id in args.ids {
        let asked = DecideAccessRequestRequest {
            id: id.clone(),
            verdict: verdict.into(),
            reason: args.reason.clone(),
        };
        let doing = format!("{doing} access request `{}`", visible(&id));
        rpc::call(&doing, client.requests().decide_access_request(asked)).await?;
        output::print(&format!(
            "Access request \"{}\" has been {done}.\n",
            visible(&id)
        ))?;
    }
    Ok(())
}

async fn create(client: &Client, args: CreateArgs) -> Result<(), Failure> {
    let asked = CreateAccessRequestRequest {
        roles: args.roles,
        reason: args.reason,
        max_duration: args.max_duration.map(duration),
        user: args.user,
    };
    let made = rpc::call(
        "create the access request",
        client.requests().create_access_request(asked),
    )
    .await?;
    let made = AccessRequest::from(&made);
    Output::new(args.format).value(&made, || request::text(&made, Timestamp::now()))
}

async fn get(client: &Client, args: GetArgs) -> Result<(), Failure> {
    let mut found = Vec::with_capacity(args.ids.len());
    for id in &args.ids {
        found.push(AccessRequest::from(&request::get(client, id).await?));
    }
    if args.format == Format::Text {
        let now = Timestamp::now();
        let texts: Vec<String> = found
            .iter()
            .map(|found| request::text(found, now))
            .collect();
        return output::print(&texts.join("\n"));
    }
    Output::new(args.format).list(&found, || table(&found))
}

async fn ls(client: &Client, args: LsArgs) -> Result<(), Failure> {
    let states: Vec<AccessRequestState> = args
        .state
        .into_iter()
        .map(|state| match state {
            State::Pending => AccessRequestState::Pending,
            State::Approved => AccessRequestState::Approved,
            State::Denied => AccessRequestState::Denied,
            State::Expired => AccessRequestState::Expired,
        })
        .collect();
    let found = request::list(client, AccessRequestScope::Unspecified, &states).await?;
    Output::new(args.format).list(&found, || table(&found))
}

/// Those of a name, which is an id, or all.
pub(crate) async fn list(
    client: &Client,
    name: Option<&str>,
) -> Result<Vec<AccessRequest>, Failure> {
    match name {
        Some(id) => Ok(vec![AccessRequest::from(&request::get(client, id).await?)]),
        None => request::list(client, AccessRequestScope::Unspecified, &[]).await,
    }
}

pub(crate) fn table(requests: &[AccessRequest]) -> Table {
    request::table(requests, Timestamp::now())
}

pub(crate) async fn rm(client: &Client, ids: &[String]) -> Result<(), Failure> {
    for id in ids {
        let asked = DeleteAccessRequestRequest { id: id.clone() };
        let doing = format!("remove access request `{}`", visible(id));
        let removed = rpc::call(&doing, client.requests().delete_access_request(asked)).await?;
        let mut told = format!("Access request \"{}\" has been removed.\n", visible(id));
        if !removed.lock.is_empty() {
            told.push_str(&format!(
                "Lock \"{}\" keeps its roles from being used.\n",
                visible(&removed.lock)
            ));
        }
        output::print(&told)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser as _;

    use crate::{
        args::Tgctl,
        create,
        guides::{blocks, words},
    };

    fn guide() -> String {
        let file = "../../docs/guides/access-requests.md";
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
    }

    #[test]
    fn the_roles_of_the_guide_can_be_created() {
        let [roles] = &blocks(&guide(), "yaml")[..] else {
            panic!("the guide shows its roles in one place")
        };
        let (wanted, warnings) = create::parse(roles, Path::new("guide")).unwrap();
        assert_eq!((wanted.len(), warnings.len()), (2, 0));
    }

    #[test]
    fn the_commands_of_the_guide_are_understood() {
        let blocks = blocks(&guide(), "sh");
        let lines = blocks.iter().flat_map(|block| block.lines());
        let lines: Vec<&str> = lines.filter(|line| line.starts_with("tgctl ")).collect();
        assert_eq!(lines.len(), 5, "{lines:?}");
        for line in lines {
            let parsed = Tgctl::try_parse_from(words(line));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
    }
}
