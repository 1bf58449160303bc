//! How this agent logs in to a database: what AWS is asked for, as which role, and what a refusal means.
//!
//! [`plan_login`] decides from the database, its effective role and the user that the client named; it is pure. The
//! passwords come through the [`Credentials`] trait, which [`AwsCredentials`] implements on the shared cache.
//!
//! Names: `role/<name>` or a role's ARN is a role to assume on top of the effective one, and the database derives its
//! user from it. Anything else is a database user.

mod aws;
mod explain;

use futures::future::BoxFuture;
use tidegate_aws::RoleChain;
use tidegate_core::{DatabaseKind, ErrorCode, Problem, Region, RoleArn};

pub(crate) use aws::AwsCredentials;

use crate::{engine::DbLogin, wanted::Wanted};

/// Prefix of a database user that is a role by its name.
const ROLE_PREFIX: &str = "role/";

/// Prefixes that Redshift puts before users of temporary passwords; people do not write them.
const REWRITTEN_PREFIXES: [&str; 2] = ["IAM:", "IAMR:"];

/// What to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LoginPlan {
    /// A password for an existing user of a Redshift cluster.
    ClusterUser {
        cluster: Cluster,
        db_user: String,
        db_name: String,
    },
    /// A password for the user that belongs to the chain's last role.
    ClusterRole { cluster: Cluster, db_name: String },
    /// No password: the database is not in AWS, and has to trust the agent.
    Trust { db_user: String },
}

/// A cluster, and as whom to ask for its passwords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    pub(crate) id: String,
    pub(crate) region: Region,
    pub(crate) account: Option<String>,
    pub(crate) chain: RoleChain,
}

/// Gives logins.
pub(crate) trait Credentials: Send + Sync + 'static {
    /// A login by `plan` for the person `user`, who is named in AWS's own trail.
    fn login<'c>(
        &'c self,
        plan: &'c LoginPlan,
        user: &'c str,
    ) -> BoxFuture<'c, Result<DbLogin, Problem>>;
}

/// Decides how to log in.
///
/// # Errors
///
/// A [`Problem`] for a user that cannot be one here, or a database that lacks what AWS asks for.
pub(crate) fn plan_login(
    wanted: &Wanted,
    db_user: &str,
    db_name: &str,
) -> Result<LoginPlan, Problem> {
    let database = &wanted.database;
    let is_redshift =
        database.kind == Some(DatabaseKind::Redshift) || database.aws.redshift_cluster_id.is_some();
    let role = named_role(wanted, db_user)?;
    if !is_redshift {
        return match role {
            Some(_) => Err(unusable(
                db_user,
                "this database does not know IAM roles",
                "name a database user",
            )),
            None => Ok(LoginPlan::Trust {
                db_user: db_user.to_owned(),
            }),
        };
    }
    if REWRITTEN_PREFIXES
        .iter()
        .any(|prefix| db_user.starts_with(prefix))
    {
        return Err(unusable(
            db_user,
            "it is the form in which Redshift shows users of temporary passwords",
            "leave out the part up to the colon",
        ));
    }
    let incomplete = |what: &str| {
        Problem::new(
            ErrorCode::Internal,
            format!("database `{}` has no {what}", database.name),
        )
        .hint("an operator has to add it to the database's `aws` section")
    };
    let cluster = Cluster {
        id: database
            .aws
            .redshift_cluster_id
            .clone()
            .ok_or_else(|| incomplete("cluster identifier"))?,
        region: database
            .aws
            .region
            .clone()
            .ok_or_else(|| incomplete("region"))?,
        account: database
            .aws
            .account_id
            .as_ref()
            .map(|account| account.to_string()),
        chain: RoleChain::new(wanted.effective.role.clone(), role.clone()),
    };
    let db_name = db_name.to_owned();
    Ok(match role {
        Some(_) => LoginPlan::ClusterRole { cluster, db_name },
        None => LoginPlan::ClusterUser {
            cluster,
            db_user: db_user.to_owned(),
            db_name,
        },
    })
}

/// The role that a database user names, if it names one.
fn named_role(wanted: &Wanted, db_user: &str) -> Result<Option<RoleArn>, Problem> {
    if db_user.starts_with("arn:") {
        return db_user.parse().map(Some).map_err(|error| {
            unusable(
                db_user,
                &format!("{error}"),
                "name a role by its ARN, or as `role/<name>`",
            )
        });
    }
    let Some(name) = db_user.strip_prefix(ROLE_PREFIX) else {
        return Ok(None);
    };
    let effective = wanted.effective.role.as_ref().map(|role| &role.role_arn);
    let account = wanted
        .database
        .aws
        .account_id
        .clone()
        .or_else(|| effective.map(RoleArn::account))
        .ok_or_else(|| {
            unusable(
                db_user,
                "the account of the role is not known",
                "name the role by its ARN",
            )
        })?;
    let partition = effective.map_or_else(
        || partition(wanted.database.aws.region.as_ref()),
        RoleArn::partition,
    );
    format!("arn:{partition}:iam::{account}:role/{name}")
        .parse()
        .map(Some)
        .map_err(|error| {
            unusable(
                db_user,
                &format!("{error}"),
                "name a role by its ARN, or as `role/<name>`",
            )
        })
}

/// The partition of a region, by the names that AWS gives its regions.
fn partition(region: Option<&Region>) -> &'static str {
    region.map_or("aws", Region::partition)
}

fn unusable(db_user: &str, why: &str, hint: &str) -> Problem {
    Problem::new(
        ErrorCode::AccessDenied,
        format!("database user `{db_user}` cannot be used here: {why}"),
    )
    .hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::wanted_as as wanted;

    fn hops(plan: &LoginPlan) -> Vec<String> {
        match plan {
            LoginPlan::ClusterUser { cluster, .. } | LoginPlan::ClusterRole { cluster, .. } => {
                cluster
                    .chain
                    .hops()
                    .iter()
                    .map(|hop| hop.role_arn.role_name().to_owned())
                    .collect()
            }
            LoginPlan::Trust { .. } => Vec::new(),
        }
    }

    #[test]
    fn a_plain_user_is_asked_for_as_the_effective_role() {
        let plan = plan_login(&wanted(Some("agent")), "reader", "dev").unwrap();
        assert_eq!(hops(&plan), ["agent"]);
        assert!(matches!(plan, LoginPlan::ClusterUser { db_user, .. } if db_user == "reader"));
    }

    #[test]
    fn a_role_is_assumed_on_top_of_the_effective_one() {
        for db_user in ["role/analyst", "arn:aws:iam::123456789012:role/analyst"] {
            let plan = plan_login(&wanted(Some("agent")), db_user, "dev").unwrap();
            assert_eq!(hops(&plan), ["agent", "analyst"]);
            assert!(matches!(plan, LoginPlan::ClusterRole { .. }));
        }
    }

    #[test]
    fn a_bare_role_is_of_the_databases_account_or_else_of_the_effective_roles() {
        let mut here = wanted(Some("agent"));
        here.database_mut().aws.account_id = Some("999999999999".parse().unwrap());
        let account = |wanted: &Wanted| match plan_login(wanted, "role/x", "dev").unwrap() {
            LoginPlan::ClusterRole { cluster, .. } => {
                cluster.chain.last().unwrap().account().to_string()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(account(&here), "999999999999");
        here.database_mut().aws.account_id = None;
        assert_eq!(account(&here), "123456789012");
        here.effective.role = None;
        assert!(plan_login(&here, "role/x", "dev").is_err());
    }

    #[test]
    fn users_as_redshift_rewrites_them_are_refused() {
        for db_user in ["IAM:alice", "IAMR:analyst", "arn:aws:iam::1:user/x"] {
            let problem = plan_login(&wanted(None), db_user, "dev").unwrap_err();
            assert_eq!(problem.code, ErrorCode::AccessDenied, "{db_user}");
        }
    }

    #[test]
    fn a_database_outside_aws_has_to_trust_us() {
        let mut own = wanted(None);
        own.database_mut().kind = None;
        own.database_mut().aws = Default::default();
        assert_eq!(
            plan_login(&own, "app", "dev").unwrap(),
            LoginPlan::Trust {
                db_user: "app".to_owned()
            }
        );
        assert!(plan_login(&own, "role/x", "dev").is_err());
    }
}
