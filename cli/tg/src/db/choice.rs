//! Which database user and logical database are meant when none is named. Pure but for [`Choices::ask`].
//!
//! This is for convenience only: whether the person may is decided by the agent.

use tidegate_console::{Failure, client::Client, rpc, table::visible};
use tidegate_core::{
    Traits,
    access::{TRAIT_DB_NAMES, TRAIT_DB_USERS},
};
use tidegate_proto::v1;
use tonic::Code;

const ANY: &str = "*";
/// The database that a Redshift cluster is made with.
///
/// Source: Amazon Redshift API reference, `CreateCluster`, parameter `DBName`.
const REDSHIFT_NAME: &str = "dev";
/// The database that every PostgreSQL server has.
const POSTGRES_NAME: &str = "postgres";

/// What a person may choose from.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    Any,
    /// Sorted; may be empty.
    These(Vec<String>),
}

impl Allowed {
    fn new(mut values: Vec<String>) -> Self {
        if values.iter().any(|value| value == ANY) {
            return Self::Any;
        }
        values.sort();
        values.dedup();
        Self::These(values)
    }
}

/// What a person may choose from on one database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Choices {
    users: Allowed,
    names: Allowed,
    /// The one user of sessions, where users are made for people.
    own_user: Option<String>,
}

impl Choices {
    /// Asks the cluster what the person's roles allow. A cluster that cannot tell yet leaves what the certificate says.
    pub(super) async fn ask(
        client: &Client,
        database: &str,
        traits: &Traits,
    ) -> Result<Self, Failure> {
        let request = v1::DescribeChoicesRequest {
            database: database.to_owned(),
        };
        let mut doors = client.front_doors();
        let asked = tokio::time::timeout(rpc::CALL_TIMEOUT, doors.describe_choices(request)).await;
        match asked {
            Ok(Ok(told)) => Ok(Self::of(told.into_inner())),
            Ok(Err(status)) if status.code() == Code::Unimplemented => Ok(Self::of_traits(traits)),
            // It was listed, and no role lets it be used: there is nothing to choose from.
            Ok(Err(status)) if status.code() == Code::NotFound => Ok(Self {
                users: Allowed::These(Vec::new()),
                names: Allowed::These(Vec::new()),
                own_user: None,
            }),
            Ok(Err(status)) => Err(rpc::failure("ask what your roles allow", &status)),
            Err(_) => Err(Failure::new(
                "could not ask what your roles allow: no answer",
            )),
        }
    }

    fn of(told: v1::DescribeChoicesResponse) -> Self {
        let values = |choices: Option<v1::Choices>| choices.unwrap_or_default().values;
        Self {
            users: Allowed::new(values(told.db_users)),
            names: Allowed::new(values(told.db_names)),
            own_user: Some(told.own_db_user).filter(|user| !user.is_empty()),
        }
    }

    fn of_traits(traits: &Traits) -> Self {
        let of = |name: &str| Allowed::new(traits.get(name).cloned().unwrap_or_default());
        Self {
            users: of(TRAIT_DB_USERS),
            names: of(TRAIT_DB_NAMES),
            own_user: None,
        }
    }

    /// The database user.
    ///
    /// # Errors
    ///
    /// When none was asked for and there is not exactly one to choose from.
    pub(super) fn db_user(&self, asked: Option<String>) -> Result<String, Failure> {
        if let Some(user) = asked.or_else(|| self.own_user.clone()) {
            return Ok(user);
        }
        match &self.users {
            Allowed::Any => Err(Failure::usage("which database user? You may be any")
                .hint("name one with --db-user")),
            Allowed::These(users) => only(users, "database user", "--db-user"),
        }
    }

    /// The logical database; `None` when any is allowed, so that the caller can take a usual one.
    ///
    /// # Errors
    ///
    /// When none was asked for, and there is neither exactly one to choose from nor a free choice.
    pub(super) fn db_name(&self, asked: Option<String>) -> Result<Option<String>, Failure> {
        if asked.is_some() {
            return Ok(asked);
        }
        match &self.names {
            Allowed::Any => Ok(None),
            Allowed::These(names) => only(names, "database name", "--db-name").map(Some),
        }
    }
}

fn only(values: &[String], what: &str, option: &str) -> Result<String, Failure> {
    match values {
        [one] => Ok(one.clone()),
        [] => Err(
            Failure::usage(format!("which {what}? Your roles allow none here")).hint(format!(
                "an administrator can give you a role that allows one, or traits; then name it with {option}"
            )),
        ),
        several => {
            let listed = visible(&several.join(", "));
            Err(
                Failure::usage(format!("which {what}? You may use: {listed}"))
                    .hint(format!("name one with {option}")),
            )
        }
    }
}

/// The logical database that there usually is, when any may be opened and none was named.
pub(super) fn usual_name(kind: &str) -> &'static str {
    if kind.starts_with("redshift") {
        REDSHIFT_NAME
    } else {
        POSTGRES_NAME
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn traits(users: &[&str], names: &[&str]) -> Traits {
        let owned = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        [
            (TRAIT_DB_USERS.to_owned(), owned(users)),
            (TRAIT_DB_NAMES.to_owned(), owned(names)),
        ]
        .into()
    }

    fn choices(users: &[&str], names: &[&str]) -> Choices {
        Choices::of_traits(&traits(users, names))
    }

    #[test]
    fn the_only_allowed_value_is_taken() {
        let choices = choices(&["reader"], &["dev"]);
        assert_eq!(choices.db_user(None).unwrap(), "reader");
        assert_eq!(choices.db_name(None).unwrap().as_deref(), Some("dev"));
    }

    #[test]
    fn what_was_asked_for_is_never_changed() {
        let choices = choices(&["reader"], &["dev"]);
        let asked = |value: &str| Some(value.to_owned());
        assert_eq!(choices.db_user(asked("role/x")).unwrap(), "role/x");
        let name = choices.db_name(asked("other")).unwrap();
        assert_eq!(name.as_deref(), Some("other"));
    }

    #[test]
    fn of_several_values_one_has_to_be_named() {
        let choices = choices(&["writer", "reader"], &["a", "b"]);
        assert_eq!(
            choices.db_user(None).unwrap_err().to_string(),
            "ERROR: which database user? You may use: reader, writer\n  hint: name one with --db-user"
        );
        assert!(choices.db_name(None).is_err());
    }

    #[test]
    fn any_user_is_no_user() {
        let any = choices(&["*", "reader"], &["*"]);
        assert!(any.db_user(None).is_err());
        assert_eq!(any.db_name(None).unwrap(), None);
        let none = choices(&[], &[]).db_user(None).unwrap_err();
        assert!(none.message().contains("allow none here"), "{none}");
    }

    #[test]
    fn where_users_are_made_for_people_one_is_ones_own() {
        let told = v1::DescribeChoicesResponse {
            own_db_user: "alice".to_owned(),
            ..v1::DescribeChoicesResponse::default()
        };
        assert_eq!(Choices::of(told).db_user(None).unwrap(), "alice");
    }

    #[test]
    fn a_redshift_cluster_has_a_database_dev() {
        assert_eq!(usual_name("redshift"), "dev");
        assert_eq!(usual_name("redshift-serverless"), "dev");
        assert_eq!(usual_name("rds"), "postgres");
        assert_eq!(usual_name(""), "postgres");
    }
}
