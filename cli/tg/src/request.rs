//! `tg request`: ask for roles, decide about what others ask for, and use what was approved.
//!
//! Not here: waiting for an outcome ([`wait`]); what is kept of roles in use (`tidegate_console::profile`).

mod args;
mod assumed;
mod wait;

use jiff::Timestamp;
use tidegate_console::{
    Failure, Format, Output, Table,
    client::Client,
    output,
    profile::{Home, Profile, ProxyAddr},
    request, resource, rpc,
    table::visible,
};
use tidegate_proto::v1::{
    self, AccessRequestScope, AccessRequestState, CreateAccessRequestRequest,
    DeleteAccessRequestRequest, ListRequestableRolesRequest, ReviewAccessRequestRequest,
    ReviewVerdict,
};

use crate::args::LoginArgs;
pub(crate) use args::RequestCommand;
use args::{CreateArgs, LsArgs, ReviewArgs};

/// What to do about a refused review.
const REVIEW_HINT: &str = "`tg request ls --reviewable` lists what you may decide about";

pub(crate) async fn run(proxy: Option<&ProxyAddr>, command: RequestCommand) -> Result<(), Failure> {
    let profile = Home::locate()?.profile(proxy)?;
    match command {
        RequestCommand::Assume(args) => {
            assumed::add(&profile, args.ids).await?;
            crate::profile::print_status(&profile, Format::Text)
        }
        RequestCommand::Create(args) => create(&profile, args).await,
        RequestCommand::Drop(args) => {
            assumed::drop(&profile, &args.ids).await?;
            crate::profile::print_status(&profile, Format::Text)
        }
        RequestCommand::Ls(args) => ls(&profile, args).await,
        RequestCommand::Review(args) => review(&profile, args).await,
        RequestCommand::Rm(args) => rm(&profile, &args.id).await,
        RequestCommand::Roles(args) => roles(&profile, args.format).await,
        RequestCommand::Show(args) => show(&profile, &args.id, args.format).await,
    }
}

/// `tg login --request-id`: logs in if need be, and uses the roles of the requests.
pub(crate) async fn login(proxy: Option<&ProxyAddr>, mut args: LoginArgs) -> Result<(), Failure> {
    let ids = std::mem::take(&mut args.request_id);
    let home = Home::locate()?;
    let is_logged_in = home.profile(proxy).is_ok_and(|profile| {
        let own = profile.own_credentials(Timestamp::now());
        own.is_ok_and(|own| args.user.is_none() || args.user == Some(own.user.name))
    });
    if !is_logged_in {
        crate::login::login(proxy, args).await?;
    }
    let profile = home.profile(proxy)?;
    assumed::add(&profile, ids).await?;
    crate::profile::print_status(&profile, Format::Text)
}

async fn create(profile: &Profile, args: CreateArgs) -> Result<(), Failure> {
    // What may be asked for is by the account; the login outlives roles that were had by asking.
    let client = Client::of_login(profile)?;
    let asked = CreateAccessRequestRequest {
        roles: args.roles,
        reason: args.reason,
        max_duration: args
            .max_duration
            .map(prost_types::Duration::try_from)
            .transpose()
            .map_err(|_| Failure::usage("--max-duration is too long"))?,
        user: String::new(),
    };
    let made = rpc::call_refusable(
        "ask for roles",
        client.requests().create_access_request(asked),
        Some("an administrator can give you a role whose `allow.request.roles` names it"),
    )
    .await?;
    if args.nowait {
        print(&made, args.format)?;
        if args.format == Format::Text {
            output::remark(&format!(
                "When it is approved: tg request assume {}",
                made.id
            ));
        }
        return Ok(());
    }
    // The result is how it came out; until then this is a remark.
    let shown = resource::AccessRequest::from(&made);
    output::remark(request::text(&shown, Timestamp::now()).trim_end());
    output::remark("Waiting for reviewers…");
    let decided = wait::decided(&client, made).await?;
    refuse_undecided(&decided)?;
    assumed::add(profile, vec![decided.id.clone()]).await?;
    match args.format {
        Format::Text => crate::profile::print_status(profile, Format::Text),
        format => print(&decided, format),
    }
}

/// Fails unless the request was approved.
fn refuse_undecided(request: &v1::AccessRequest) -> Result<(), Failure> {
    let why = request.reviews.last().map(|review| {
        let by = visible(&review.reviewer);
        match review.reason.as_str() {
            "" => format!(" by {by}"),
            reason => format!(" by {by}: {}", visible(reason)),
        }
    });
    match request.state() {
        AccessRequestState::Approved => Ok(()),
        AccessRequestState::Denied => Err(Failure::new(format!(
            "access request {} was denied{}",
            request.id,
            why.unwrap_or_default()
        ))),
        AccessRequestState::Expired => Err(Failure::new(format!(
            "nobody decided about access request {} in time",
            request.id
        ))
        .hint("ask again, and tell a reviewer: `tg request ls --reviewable` shows it to them")),
        AccessRequestState::Pending | AccessRequestState::Unspecified => Err(Failure::new(
            format!("access request {} is not decided", request.id),
        )),
    }
}

fn print(request: &v1::AccessRequest, format: Format) -> Result<(), Failure> {
    let shown = resource::AccessRequest::from(request);
    Output::new(format).value(&shown, || request::text(&shown, Timestamp::now()))
}

async fn ls(profile: &Profile, args: LsArgs) -> Result<(), Failure> {
    let client = Client::of_profile(profile)?;
    let scope = match (args.mine, args.reviewable) {
        (true, _) => AccessRequestScope::Mine,
        (_, true) => AccessRequestScope::Reviewable,
        _ => AccessRequestScope::Unspecified,
    };
    let found = request::list(&client, scope, &[]).await?;
    Output::new(args.format).list(&found, || request::table(&found, Timestamp::now()))
}

async fn show(profile: &Profile, id: &str, format: Format) -> Result<(), Failure> {
    let client = Client::of_profile(profile)?;
    print(&request::get(&client, id).await?, format)
}

async fn review(profile: &Profile, args: ReviewArgs) -> Result<(), Failure> {
    let client = Client::of_profile(profile)?;
    let verdict = if args.approve {
        ReviewVerdict::Approve
    } else {
        ReviewVerdict::Deny
    };
    let asked = ReviewAccessRequestRequest {
        id: args.id,
        verdict: verdict.into(),
        reason: args.reason,
    };
    let reviewed = rpc::call_refusable(
        "review the request",
        client.requests().review_access_request(asked),
        Some(REVIEW_HINT),
    )
    .await?;
    print(&reviewed, args.format)
}

async fn rm(profile: &Profile, id: &str) -> Result<(), Failure> {
    let client = Client::of_login(profile)?;
    let asked = DeleteAccessRequestRequest { id: id.to_owned() };
    let _: v1::DeleteAccessRequestResponse = rpc::call(
        "withdraw the request",
        client.requests().delete_access_request(asked),
    )
    .await?;
    assumed::forget(profile, id).await?;
    output::print(&format!(
        "Access request \"{}\" has been removed.\n",
        visible(id)
    ))
}

async fn roles(profile: &Profile, format: Format) -> Result<(), Failure> {
    let client = Client::of_login(profile)?;
    let listed = rpc::call(
        "list the roles that you may ask for",
        client
            .requests()
            .list_requestable_roles(ListRequestableRolesRequest {}),
    )
    .await?;
    Output::new(format).list(&listed.roles, || {
        let mut table = Table::new(["Role"]);
        for role in &listed.roles {
            table.row([role]);
        }
        table
    })
}
