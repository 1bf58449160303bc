//! `tgctl users sessions | revoke | unlock`, and second factors taken away: what stands because people proved who they
//! are.

use tidegate_console::{
    Failure, Format, Output, client::Client, login, output, resource, rpc, table::visible,
};
use tidegate_proto::v1::{
    EndLoginsRequest, ListLoginsRequest, ResetFactorsRequest, UnlockUserRequest,
};

use crate::args::{UsersRevokeArgs, UsersSessionsArgs};

pub(crate) async fn sessions(client: &Client, args: UsersSessionsArgs) -> Result<(), Failure> {
    let doing = format!("list the logins of user `{}`", args.name);
    let request = ListLoginsRequest { user: args.name };
    let listed = rpc::call(&doing, client.people().list_logins(request)).await?;
    let logins: Vec<login::Login> = listed.logins.iter().map(login::Login::from).collect();
    Output::new(args.format).list(&logins, || login::table(&logins))
}

pub(crate) async fn revoke(client: &Client, args: UsersRevokeArgs) -> Result<(), Failure> {
    let doing = format!("end logins of user `{}`", args.name);
    let request = EndLoginsRequest {
        user: args.name.clone(),
        id: args.session.clone().unwrap_or_default(),
    };
    let answer = rpc::call(&doing, client.people().end_logins(request)).await?;
    let name = visible(&args.name);
    output::print(&match args.session {
        Some(id) => format!("Login {} of user \"{name}\" has ended.\n", visible(&id)),
        None => format!(
            "All logins of user \"{name}\" have ended: {} that were listed.\n",
            answer.ended
        ),
    })
}

pub(crate) async fn unlock(client: &Client, name: &str) -> Result<(), Failure> {
    let doing = format!("unlock user `{name}`");
    let request = UnlockUserRequest {
        user: name.to_owned(),
    };
    let answer = rpc::call(&doing, client.people().unlock_user(request)).await?;
    let name = visible(name);
    output::print(&if answer.was_locked_out {
        format!("User \"{name}\" can try to log in again at once.\n")
    } else {
        format!("User \"{name}\" was not locked out; failed tries are forgotten.\n")
    })
}

pub(super) async fn reset_factors(
    client: &Client,
    name: &str,
    format: Format,
) -> Result<(), Failure> {
    let doing = format!("remove the second factors of user `{name}`");
    let request = ResetFactorsRequest {
        user: name.to_owned(),
    };
    let user = rpc::call(&doing, client.people().reset_factors(request)).await?;
    let user = resource::User::from(&user);
    Output::new(format).value(&user, || {
        format!(
            "User \"{}\" has no second factor any more. Password and logins are as they were.\n",
            visible(&user.metadata.name)
        )
    })
}
