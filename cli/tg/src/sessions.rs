//! `tg sessions` and `tg logout`: one's own logins.
//!
//! Logging out forgets certificates on this machine whatever the cluster says, and ends the login there when the cluster
//! can be reached: from then on copies of its certificates are refused, and sessions end.

use std::time::Duration;

use jiff::Timestamp;
use tidegate_console::{
    Failure, Format, Output,
    client::Client,
    login, output,
    profile::{Home, Profile, ProxyAddr},
    rpc,
    table::visible,
};
use tidegate_proto::v1::{EndLoginsResponse, EndOwnLoginsRequest, ListOwnLoginsRequest};
use tokio::time::timeout;

use crate::{args::LogoutArgs, db};

/// How long a log-out waits for the cluster.
const END_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn ls(proxy: Option<&ProxyAddr>, format: Format) -> Result<(), Failure> {
    let profile = Home::locate()?.profile(proxy)?;
    let client = Client::of_login(&profile)?;
    let listed = rpc::call(
        "list your logins",
        client.people().list_own_logins(ListOwnLoginsRequest {}),
    )
    .await?;
    let logins: Vec<login::Login> = listed.logins.iter().map(login::Login::from).collect();
    Output::new(format).list(&logins, || login::table(&logins))
}

pub(crate) async fn logout(proxy: Option<&ProxyAddr>, args: LogoutArgs) -> Result<(), Failure> {
    let home = Home::locate()?;
    if let Some(id) = args.session {
        return end_one(&home.profile(proxy)?, id).await;
    }
    let profiles = match proxy {
        Some(proxy) => vec![home.profile(Some(proxy))?],
        None => home.profiles()?,
    };
    let mut left = 0;
    for profile in &profiles {
        if profile.facts().expires_at.is_some() {
            left += 1;
            end(profile, args.all).await?;
        }
        db::forget_all(profile)?;
        profile.log_out()?;
    }
    if left == 0 {
        output::print("You were not logged in.\n")?;
    }
    Ok(())
}

/// Ends the login of a profile at the cluster, or all of the person's. Where all are meant, that it failed is a failure;
/// a single login is forgotten here in any case, and ends by itself.
async fn end(profile: &Profile, all: bool) -> Result<(), Failure> {
    let addr = &profile.facts().proxy_addr;
    let request = EndOwnLoginsRequest {
        id: String::new(),
        all,
    };
    let outcome = match profile.own_credentials(Timestamp::now()) {
        // Nothing to end: its certificate is over, or cannot be read.
        Err(_) if !all => return output::print(&format!("Logged out of {addr}.\n")),
        Err(error) => Err(error.into()),
        Ok(_) => ask_to_end(profile, request).await,
    };
    match outcome {
        Ok(answer) if all => output::print(&format!(
            "Logged out of {addr}, and everywhere else: {} logins ended.\n",
            answer.ended
        )),
        Ok(_) => output::print(&format!("Logged out of {addr}.\n")),
        Err(failure) if all => Err(failure),
        Err(failure) => {
            output::remark(&format!(
                "Your certificates for {addr} are forgotten here, but copies of them work until they end: {}.",
                failure.message()
            ));
            output::print(&format!("Logged out of {addr}.\n"))
        }
    }
}

async fn ask_to_end(
    profile: &Profile,
    request: EndOwnLoginsRequest,
) -> Result<EndLoginsResponse, Failure> {
    let client = Client::of_login(profile)?;
    let mut people = client.people();
    let ending = rpc::call("end the login", people.end_own_logins(request));
    timeout(END_TIMEOUT, ending).await.unwrap_or_else(|_| {
        Err(Failure::new(format!(
            "the cluster did not answer within {} seconds",
            END_TIMEOUT.as_secs()
        )))
    })
}

/// Ends one login by its id, which may be that of this machine.
async fn end_one(profile: &Profile, id: String) -> Result<(), Failure> {
    let own = profile.own_credentials(Timestamp::now())?.user.login;
    let request = EndOwnLoginsRequest {
        id: id.clone(),
        all: false,
    };
    let client = Client::of_login(profile)?;
    rpc::call("end the login", client.people().end_own_logins(request)).await?;
    if own.is_some_and(|own| own.id == id) {
        db::forget_all(profile)?;
        profile.log_out()?;
    }
    output::print(&format!("Login {} has ended.\n", visible(&id)))
}
