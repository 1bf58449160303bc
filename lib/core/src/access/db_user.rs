//! When two texts name the same database user.
//!
//! Where IAM roles can be database users, `role/x` and the ARN of role `x` in the database's account are one user, and on
//! Redshift Serverless, where every user is a role, so is `x`. Elsewhere a user has one name.

use crate::{
    database::Database,
    ids::{AccountId, RoleArn},
    matcher::DatabaseKind,
};

/// How the users of one database are named.
pub(super) struct UserNames {
    roles: Roles,
    /// The account that a role without one is in; `None` when only the agent knows.
    account: Option<AccountId>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Roles {
    Always,
    Sometimes,
    Never,
}

/// What to answer when it depends on an account that is not known.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum InDoubt {
    /// They are two users: for an allow.
    Different,
    /// They are one user: for a deny.
    Same,
}

impl UserNames {
    pub(super) fn of(database: &Database) -> Self {
        let aws = &database.aws;
        let is = |kind| database.kind == Some(kind);
        let roles = if is(DatabaseKind::RedshiftServerless)
            || aws.redshift_serverless_workgroup.is_some()
        {
            Roles::Always
        } else if is(DatabaseKind::Redshift) || aws.redshift_cluster_id.is_some() {
            Roles::Sometimes
        } else {
            Roles::Never
        };
        Self {
            roles,
            account: aws.account_id.clone(),
        }
    }

    /// Whether both texts name one user.
    pub(super) fn same(&self, left: &str, right: &str, in_doubt: InDoubt) -> bool {
        if left == right {
            return true;
        }
        let (Some(left), Some(right)) = (self.role(left), self.role(right)) else {
            return false;
        };
        left.1 == right.1
            && match (left.0, right.0) {
                (Some(left), Some(right)) => left == right,
                // Both are in the account that is not known.
                (None, None) => true,
                _ => in_doubt == InDoubt::Same,
            }
    }

    /// The account, if it is known, and the path of the role that a text names.
    fn role<'t>(&self, text: &'t str) -> Option<(Option<AccountId>, &'t str)> {
        if self.roles == Roles::Never {
            return None;
        }
        if let Ok(arn) = text.parse::<RoleArn>() {
            let (_, path) = text.split_once(":role/")?;
            return Some((Some(arn.account()), path));
        }
        let path = match text.strip_prefix("role/") {
            Some(path) => path,
            None if self.roles == Roles::Always && !text.contains(':') => text,
            None => return None,
        };
        Some((self.account.clone(), path))
    }
}
