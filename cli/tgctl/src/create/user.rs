//! `kind: user` as people write it.
//!
//! A file says what a person may do; passwords and second factors are the person's, and are in no file.

use std::collections::BTreeMap;

use serde::{Deserialize, de::IgnoredAny};
use serde_yaml::Spanned;
use tidegate_console::{Failure, client::Client, output, rpc, table::visible};
use tidegate_proto::v1::{self, CreateUserRequest, ListUsersRequest, UpdateUserRequest};
use tonic::Code;

use super::{
    exists_hint,
    place::{Place, Problem},
    role::one_or_many,
};
use crate::users;

const VERSION: &str = "v2";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[expect(dead_code, reason = "told apart before")]
    kind: String,
    version: Spanned<String>,
    metadata: Metadata,
    spec: Spec,
    #[serde(default)]
    #[expect(dead_code, reason = "it is not asked for")]
    status: Option<IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: Spanned<String>,
    #[serde(default)]
    #[expect(dead_code, reason = "`tgctl get` prints it; it is not asked for")]
    revision: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    roles: Spanned<Vec<String>>,
    #[serde(default)]
    traits: BTreeMap<String, Vec<String>>,
}

/// Reads the users of a document.
pub(super) fn parse(document: &str) -> Result<Vec<v1::User>, Vec<Problem>> {
    let written: Vec<Written> = one_or_many(document)?;
    written
        .into_iter()
        .map(|written| user(written).map_err(|problem| vec![problem]))
        .collect()
}

fn user(written: Written) -> Result<v1::User, Problem> {
    let (version, name) = (&written.version, &written.metadata.name);
    let problem = |place: Place, text: String| Problem { place, text };
    if version.value != VERSION {
        let text = format!(
            "version `{}` of a user is not known; write {VERSION}",
            version.value
        );
        return Err(problem(Place::of(version), text));
    }
    if name.value.is_empty() {
        let text = "metadata.name of a user is empty".to_owned();
        return Err(problem(Place::of(name), text));
    }
    let roles = &written.spec.roles;
    if roles.value.is_empty() {
        let text = "spec.roles: a user has at least one role".to_owned();
        return Err(problem(Place::of(roles), text));
    }
    let traits = written.spec.traits.into_iter();
    Ok(v1::User {
        name: written.metadata.name.value,
        roles: written.spec.roles.value,
        traits: traits
            .map(|(key, values)| (key, v1::LabelValues { values }))
            .collect(),
        ..v1::User::default()
    })
}

/// Creates a user, who signs up with the token that is printed; with `replace` one that is there gets other roles and
/// traits, and keeps the password.
pub(super) async fn create(client: &Client, user: v1::User, replace: bool) -> Result<(), Failure> {
    let name = user.name.clone();
    let mut access = client.access();
    let listed = rpc::call("list users", access.list_users(ListUsersRequest {})).await?;
    if listed.users.iter().any(|known| known.name == name) {
        if !replace {
            let failure = Failure::new(format!("there is a user `{name}` already"));
            return Err(exists_hint(failure, Code::AlreadyExists));
        }
        let request = UpdateUserRequest { user: Some(user) };
        rpc::call(
            &format!("update user `{name}`"),
            access.update_user(request),
        )
        .await?;
        let name = visible(&name);
        return output::print(&format!("User \"{name}\" has been updated.\n"));
    }
    let request = CreateUserRequest {
        user: Some(user),
        ttl: None,
    };
    let doing = format!("create user `{name}`");
    let created = rpc::call(&doing, access.create_user(request)).await?;
    let command = users::login_command(client, &name, &created.signup_token).await;
    output::print(&format!(
        "User \"{}\" has been created. To set a password, the person runs once:\n  {command}\n",
        visible(&name)
    ))
}

#[cfg(test)]
mod tests {
    use tidegate_console::{output, resource};

    use super::*;

    #[test]
    fn what_get_prints_can_be_given_back() {
        let text = "kind: user\nversion: v2\nmetadata: {name: alice}\nspec:\n  roles: [access]\n  traits: {db_users: ['*']}\n";
        let users = parse(text).unwrap();
        let shown = v1::User {
            signed_up: true,
            revision: 3,
            ..users[0].clone()
        };
        let printed = output::yaml(&resource::User::from(&shown)).unwrap();
        assert_eq!(parse(&printed), Ok(users));
    }

    #[test]
    fn a_user_without_roles_is_told_with_its_place() {
        let text = "kind: user\nversion: v2\nmetadata: {name: alice}\nspec:\n  roles: []\n";
        assert_eq!(parse(text).unwrap_err()[0].place.line, 5);
    }
}
