//! Which database user and logical database are meant when none is named. Pure.
//!
//! This is for convenience only: whether the person may is decided by the agent.

use tidegate_console::{Failure, table::visible};
use tidegate_core::{
    Traits,
    access::{TRAIT_DB_NAMES, TRAIT_DB_USERS},
};

const ANY: &str = "*";
/// The database that a Redshift cluster is made with.
///
/// Source: Amazon Redshift API reference, `CreateCluster`, parameter `DBName`.
const REDSHIFT_NAME: &str = "dev";
/// The database that every PostgreSQL server has.
const POSTGRES_NAME: &str = "postgres";

/// What a person's traits say of one choice.
enum Allowed {
    Any,
    /// Sorted; may be empty.
    These(Vec<String>),
}

fn allowed(traits: &Traits, name: &str) -> Allowed {
    let mut values = traits.get(name).cloned().unwrap_or_default();
    if values.iter().any(|value| value == ANY) {
        return Allowed::Any;
    }
    values.sort();
    values.dedup();
    Allowed::These(values)
}

/// The database user.
///
/// # Errors
///
/// When none was asked for and there is not exactly one to choose from.
pub(super) fn db_user(asked: Option<String>, traits: &Traits) -> Result<String, Failure> {
    if let Some(asked) = asked {
        return Ok(asked);
    }
    match allowed(traits, TRAIT_DB_USERS) {
        Allowed::Any => {
            Err(Failure::usage("which database user? You may be any")
                .hint("name one with --db-user"))
        }
        Allowed::These(users) => only(users, "database user", "--db-user"),
    }
}

/// The logical database; `None` when any is allowed, so that the caller can take a usual one.
///
/// # Errors
///
/// When none was asked for, and there is neither exactly one to choose from nor a free choice.
pub(super) fn db_name(asked: Option<String>, traits: &Traits) -> Result<Option<String>, Failure> {
    if asked.is_some() {
        return Ok(asked);
    }
    match allowed(traits, TRAIT_DB_NAMES) {
        Allowed::Any => Ok(None),
        Allowed::These(names) => only(names, "database name", "--db-name").map(Some),
    }
}

fn only(mut values: Vec<String>, what: &str, option: &str) -> Result<String, Failure> {
    if values.len() > 1 {
        let listed = visible(&values.join(", "));
        return Err(
            Failure::usage(format!("which {what}? You may use: {listed}"))
                .hint(format!("name one with {option}")),
        );
    }
    values.pop().ok_or_else(|| {
        Failure::usage(format!("which {what}? Your traits name none")).hint(format!(
            "name one with {option} if a role of yours allows it; an administrator can add traits for you"
        ))
    })
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

    #[test]
    fn the_only_allowed_value_is_taken() {
        let traits = traits(&["reader"], &["dev"]);
        assert_eq!(db_user(None, &traits).unwrap(), "reader");
        assert_eq!(db_name(None, &traits).unwrap().as_deref(), Some("dev"));
    }

    #[test]
    fn what_was_asked_for_is_never_changed() {
        let traits = traits(&["reader"], &["dev"]);
        assert_eq!(
            db_user(Some("role/x".to_owned()), &traits).unwrap(),
            "role/x"
        );
        assert_eq!(
            db_name(Some("other".to_owned()), &traits)
                .unwrap()
                .as_deref(),
            Some("other")
        );
    }

    #[test]
    fn of_several_values_one_has_to_be_named() {
        let traits = traits(&["writer", "reader"], &["a", "b"]);
        assert_eq!(
            db_user(None, &traits).unwrap_err().to_string(),
            "ERROR: which database user? You may use: reader, writer\n  hint: name one with --db-user"
        );
        assert!(db_name(None, &traits).is_err());
    }

    #[test]
    fn any_user_is_no_user() {
        let traits = traits(&["*", "reader"], &["*"]);
        assert!(db_user(None, &traits).is_err());
        assert_eq!(db_name(None, &traits).unwrap(), None);
        assert!(db_user(None, &Traits::new()).is_err());
    }

    #[test]
    fn a_redshift_cluster_has_a_database_dev() {
        assert_eq!(usual_name("redshift"), "dev");
        assert_eq!(usual_name("redshift-serverless"), "dev");
        assert_eq!(usual_name("rds"), "postgres");
        assert_eq!(usual_name(""), "postgres");
    }
}
