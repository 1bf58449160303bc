//! `tgctl users`: who may log in.

pub(crate) mod logins;

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use tidegate_console::{
    Failure, Format, Output, Table, client::Client, output, resource, rpc, shell, table::visible,
    when,
};
use tidegate_core::access::{TRAIT_DB_NAMES, TRAIT_DB_USERS};
use tidegate_proto::{
    convert,
    v1::{
        self, CreateUserRequest, DeleteUserRequest, GetClusterStatusRequest, ListProxiesRequest,
        ListUsersRequest, ResetUserRequest, UpdateUserRequest,
    },
};

use crate::args::{UsersAddArgs, UsersResetArgs, UsersUpdateArgs};

/// Stands for the proxy in the command to redeem a token, when none is up.
const PROXY_UNKNOWN: &str = "PROXY_HOST:3080";

/// A new user, and how to sign up.
#[derive(Serialize)]
struct Added {
    user: resource::User,
    signup_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<jiff::Timestamp>,
    /// What the person types.
    command: String,
}

pub(crate) async fn add(client: &Client, args: UsersAddArgs) -> Result<(), Failure> {
    let request = CreateUserRequest {
        user: Some(v1::User {
            name: args.name.clone(),
            roles: args.roles,
            traits: traits(args.db_users, args.db_names),
            ..v1::User::default()
        }),
        ttl: args.ttl.map(duration),
    };
    let doing = format!("create user `{}`", args.name);
    let created = rpc::call(&doing, client.access().create_user(request)).await?;
    let user = created.user.unwrap_or_default();
    let added = Added {
        command: login_command(client, &user.name, &created.signup_token).await,
        user: resource::User::from(&user),
        signup_token: created.signup_token,
        expires: created
            .expires_at
            .as_ref()
            .and_then(|at| convert::instant(at).ok()),
    };
    Output::new(args.format).value(&added, || {
        let name = visible(&added.user.metadata.name);
        text(
            &format!("User \"{name}\" has been created and has no password yet."),
            &added,
        )
    })
}

pub(crate) async fn reset(client: &Client, args: UsersResetArgs) -> Result<(), Failure> {
    if args.mfa_only {
        return logins::reset_factors(client, &args.name, args.format).await;
    }
    let request = ResetUserRequest {
        name: args.name.clone(),
        ttl: args.ttl.map(duration),
    };
    let doing = format!("reset user `{}`", args.name);
    let reset = rpc::call(&doing, client.access().reset_user(request)).await?;
    let user = reset.user.unwrap_or_default();
    let added = Added {
        command: login_command(client, &user.name, &reset.signup_token).await,
        user: resource::User::from(&user),
        signup_token: reset.signup_token,
        expires: reset
            .expires_at
            .as_ref()
            .and_then(|at| convert::instant(at).ok()),
    };
    Output::new(args.format).value(&added, || {
        let name = visible(&added.user.metadata.name);
        let happened = format!(
            "The password and the second factors of user \"{name}\" are void, and all logins have ended."
        );
        text(&happened, &added)
    })
}

pub(crate) async fn update(client: &Client, args: UsersUpdateArgs) -> Result<(), Failure> {
    if args.set_roles.is_none() && args.set_db_users.is_none() && args.set_db_names.is_none() {
        return Err(Failure::usage("what is to be changed?")
            .hint("name at least one of --set-roles, --set-db-users and --set-db-names"));
    }
    let listed = rpc::call(
        "list users",
        client.access().list_users(ListUsersRequest {}),
    )
    .await?;
    let known = listed.users.into_iter().find(|user| user.name == args.name);
    let Some(mut user) = known else {
        return Err(Failure::new(format!("there is no user `{}`", args.name))
            .hint("`tgctl users ls` lists them"));
    };
    if let Some(roles) = args.set_roles {
        user.roles = roles;
    }
    for (key, values) in [
        (TRAIT_DB_USERS, args.set_db_users),
        (TRAIT_DB_NAMES, args.set_db_names),
    ] {
        if let Some(values) = values {
            set_trait(&mut user, key, values);
        }
    }
    let doing = format!("update user `{}`", args.name);
    let request = UpdateUserRequest { user: Some(user) };
    let updated = rpc::call(&doing, client.access().update_user(request)).await?;
    let updated = resource::User::from(&updated);
    Output::new(args.format).value(&updated, || {
        format!(
            "User \"{}\" has been updated. It counts from the next login on.\n",
            visible(&updated.metadata.name)
        )
    })
}

/// Gives a user other values of a trait; none takes it away.
fn set_trait(user: &mut v1::User, key: &str, mut values: Vec<String>) {
    values.retain(|value| !value.is_empty());
    if values.is_empty() {
        user.traits.remove(key);
    } else {
        user.traits
            .insert(key.to_owned(), v1::LabelValues { values });
    }
}

/// What happened, and how to sign up.
fn text(happened: &str, added: &Added) -> String {
    let until = added
        .expires
        .map(|at| format!(" and works until {}", when::utc(at)))
        .unwrap_or_default();
    format!(
        "{happened}\n\
         \n\
         Sign-up token: {}\n\
         It can be used once{until}. To set a password and log in, the person runs:\n\
         \n    {}\n",
        added.signup_token, added.command,
    )
}

/// The command that redeems a sign-up token. What cannot be asked for is left for the administrator to fill in: the
/// user is created by now, and the token would be lost with a failure.
pub(crate) async fn login_command(client: &Client, user: &str, token: &str) -> String {
    let proxies = rpc::call(
        "list proxies",
        client.inventory().list_proxies(ListProxiesRequest {}),
    )
    .await;
    let proxy = proxies
        .ok()
        .and_then(|listed| listed.proxies.into_iter().next())
        .map(|proxy| proxy.public_addr)
        .filter(|addr| !addr.is_empty())
        .unwrap_or_else(|| PROXY_UNKNOWN.to_owned());
    let status = rpc::call(
        "get the cluster's status",
        client
            .access()
            .get_cluster_status(GetClusterStatusRequest {}),
    )
    .await;
    let pins = status.map(|status| status.ca_pins).unwrap_or_default();
    let mut words = vec![
        "tg".to_owned(),
        "login".to_owned(),
        format!("--proxy={proxy}"),
        format!("--user={user}"),
    ];
    words.extend(pins.iter().map(|pin| format!("--ca-pin={pin}")));
    words.push(format!("--token={token}"));
    let words: Vec<String> = words.iter().map(|word| shell::quote(word)).collect();
    words.join(" ")
}

fn traits(db_users: Vec<String>, db_names: Vec<String>) -> BTreeMap<String, v1::LabelValues> {
    [(TRAIT_DB_USERS, db_users), (TRAIT_DB_NAMES, db_names)]
        .into_iter()
        .filter(|(_, values)| !values.is_empty())
        .map(|(key, values)| (key.to_owned(), v1::LabelValues { values }))
        .collect()
}

/// A length of time for the wire.
pub(crate) fn duration(length: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(length.as_secs()).unwrap_or(i64::MAX),
        nanos: 0,
    }
}

pub(crate) async fn ls(client: &Client, format: Format) -> Result<(), Failure> {
    let users = list(client).await?;
    Output::new(format).list(&users, || table(&users))
}

pub(crate) async fn list(client: &Client) -> Result<Vec<resource::User>, Failure> {
    let listed = rpc::call(
        "list users",
        client.access().list_users(ListUsersRequest {}),
    )
    .await?;
    Ok(listed.users.iter().map(resource::User::from).collect())
}

pub(crate) fn table(users: &[resource::User]) -> Table {
    let mut table = Table::new([
        "User",
        "Roles",
        "DB Users",
        "DB Names",
        "Signed Up",
        "MFA",
        "Locked Out Until",
    ]);
    for user in users {
        let values = |key: &str| user.spec.traits.get(key).map(|all| all.join(","));
        let status = user.status.clone().unwrap_or_default();
        table.row([
            user.metadata.name.as_str(),
            &user.spec.roles.join(","),
            &values(TRAIT_DB_USERS).unwrap_or_default(),
            &values(TRAIT_DB_NAMES).unwrap_or_default(),
            if status.signed_up { "yes" } else { "no" },
            &status.second_factors.to_string(),
            &status.locked_out_until.map(when::utc).unwrap_or_default(),
        ]);
    }
    table
}

pub(crate) async fn rm(client: &Client, names: &[String]) -> Result<(), Failure> {
    for name in names {
        let request = DeleteUserRequest { name: name.clone() };
        let doing = format!("remove user `{name}`");
        let _: v1::DeleteUserResponse =
            rpc::call(&doing, client.access().delete_user(request)).await?;
        output::print(&format!(
            "User \"{}\" has been removed, and all logins have ended.\n",
            visible(name)
        ))?;
    }
    Ok(())
}
