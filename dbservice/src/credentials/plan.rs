//! Decides how to log in to a database. Pure.
//!
//! Names: `role/<name>` or a role's ARN is a role to assume on top of the effective one, where the database derives its
//! user from roles; in Redshift Serverless, where every user is a role, so is a bare name. Anything else is a database
//! user.
//!
//! Source: Amazon Redshift API reference, `GetClusterCredentials` (what database users and groups may be called).

use std::collections::BTreeMap;

use tidegate_aws::{
    Login, LoginRequest, RoleChain,
    diagnosis::rds_login_refused,
    login::{NewUser, RdsLogin, Workgroup},
};
use tidegate_core::{
    AccountId, AssumeRole, Database, DatabaseKind, ErrorCode, ExternalId, Permit, Problem, Region,
    RoleArn,
};

use super::rds_host;
use crate::wanted::Wanted;

/// Prefix of a database user that is a role by its name.
const ROLE_PREFIX: &str = "role/";

/// Prefixes that Redshift puts before users of temporary passwords; people do not write them.
const REWRITTEN_PREFIXES: [&str; 3] = ["IAM:", "IAMA:", "IAMR:"];

/// The longest name of a database user that Redshift takes.
const DB_USER_CHARS_MAX: usize = 64;

/// What to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum LoginPlan {
    /// Credentials from AWS.
    Aws(Box<AwsLogin>),
    /// No password: the database is not in AWS, and has to trust the agent.
    Trust { db_user: String },
}

/// Credentials from AWS, as far as they can be planned without asking it anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AwsLogin {
    /// The database's name in the inventory.
    pub(crate) database: String,
    /// The database user, as it was asked for.
    pub(crate) db_user: String,
    login: Login,
    region: Region,
    account: Option<AccountId>,
    effective: Option<AssumeRole>,
    user_role: Option<UserRole>,
    /// For the user's role, when there is no effective one.
    external_id: Option<ExternalId>,
    /// What the database has sent with every role.
    pub(super) session_tags: BTreeMap<String, String>,
}

/// A role that was named as database user.
#[derive(Clone, Debug, PartialEq, Eq)]
enum UserRole {
    Known(RoleArn),
    /// By its name and path, in the account of this agent's own identity.
    InOwnAccount {
        partition: &'static str,
        path: String,
    },
}

impl LoginPlan {
    /// What it means that the database refused the login with `said`; `None` where its own words say enough. RDS tells
    /// nobody why it takes no token.
    pub(crate) fn refusal(&self, said: &str) -> Option<Problem> {
        let Self::Aws(plan) = self else { return None };
        // Tokens of RDS are for no role, so that nothing has to be asked of AWS.
        let request = plan.request(None).ok()?;
        let diagnosis = rds_login_refused(&request, said)?;
        Some(diagnosis.problem())
    }
}

impl AwsLogin {
    /// Whether AWS has to be asked for this agent's own account before [`Self::request`].
    pub(crate) const fn needs_own_account(&self) -> bool {
        matches!(self.user_role, Some(UserRole::InOwnAccount { .. }))
    }

    /// The database's region.
    pub(crate) const fn region(&self) -> &Region {
        &self.region
    }

    /// What AWS is asked for; `own` is the account of this agent's own identity, which counts only where
    /// [`Self::needs_own_account`] says so.
    ///
    /// # Errors
    ///
    /// A [`Problem`] for a name that no role has, or an account that is needed and not given.
    pub(crate) fn request(&self, own: Option<&AccountId>) -> Result<LoginRequest, Problem> {
        let user_role = match (&self.user_role, own) {
            (None, _) => None,
            (Some(UserRole::Known(role)), _) => Some(role.clone()),
            (Some(UserRole::InOwnAccount { partition, path }), Some(account)) => {
                Some(role_arn(&self.db_user, partition, account, path)?)
            }
            (Some(UserRole::InOwnAccount { .. }), None) => {
                let why = "the account of the role is not known";
                return Err(unusable(&self.db_user, why, "name the role by its ARN"));
            }
        };
        Ok(LoginRequest {
            login: self.login.clone(),
            region: self.region.clone(),
            account: self.account.clone(),
            chain: RoleChain::with_external_id(
                self.effective.clone(),
                user_role,
                self.external_id.clone(),
            ),
        })
    }
}

/// Decides how to log in as what was permitted, with the user that is to be made for it.
///
/// # Errors
///
/// As [`plan_login`].
pub(crate) fn plan_permitted(wanted: &Wanted, permit: &Permit) -> Result<LoginPlan, Problem> {
    let create = permit.user_mode().is_on().then(|| NewUser {
        // Names in Redshift are in lower case however they are written.
        groups: permit
            .db_roles()
            .iter()
            .map(|role| role.to_lowercase())
            .collect(),
    });
    plan(wanted, permit.db_user(), permit.db_name(), create)
}

/// Decides how to log in as a user that is not made.
///
/// # Errors
///
/// A [`Problem`] for a user that cannot be one here, or a database that lacks what AWS asks for.
pub(crate) fn plan_login(
    wanted: &Wanted,
    db_user: &str,
    db_name: &str,
) -> Result<LoginPlan, Problem> {
    plan(wanted, db_user, db_name, None)
}

/// What a database is to AWS.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    Rds,
    RdsProxy,
    Redshift,
    Serverless,
}

fn target(database: &Database) -> Option<Target> {
    let aws = &database.aws;
    match database.kind {
        Some(DatabaseKind::Rds) => Some(Target::Rds),
        Some(DatabaseKind::Rdsproxy) => Some(Target::RdsProxy),
        Some(DatabaseKind::Redshift) => Some(Target::Redshift),
        Some(DatabaseKind::RedshiftServerless) => Some(Target::Serverless),
        None if aws.redshift_cluster_id.is_some() => Some(Target::Redshift),
        None if aws.redshift_serverless_workgroup.is_some() => Some(Target::Serverless),
        None if aws.rdsproxy_name.is_some() => Some(Target::RdsProxy),
        None if aws.rds_instance_id.is_some() || aws.rds_cluster_id.is_some() => Some(Target::Rds),
        None => None,
    }
}

fn plan(
    wanted: &Wanted,
    db_user: &str,
    db_name: &str,
    create: Option<NewUser>,
) -> Result<LoginPlan, Problem> {
    let database = &wanted.database;
    let Some(target) = target(database) else {
        if names_role(db_user) {
            return Err(no_roles(db_user));
        }
        return Ok(LoginPlan::Trust {
            db_user: db_user.to_owned(),
        });
    };
    let region = database
        .aws
        .region
        .clone()
        .ok_or_else(|| incomplete(database, "region"))?;
    let (login, user_role) = match target {
        Target::Redshift => redshift(wanted, db_user, db_name, create)?,
        Target::Serverless => serverless(wanted, db_user, db_name)?,
        Target::Rds | Target::RdsProxy => (rds(database, &region, db_user, target)?, None),
    };
    Ok(LoginPlan::Aws(Box::new(AwsLogin {
        database: database.name.to_string(),
        db_user: db_user.to_owned(),
        login,
        region,
        account: database.aws.account_id.clone(),
        effective: wanted.effective.role.clone(),
        user_role,
        external_id: database.aws.external_id.clone(),
        session_tags: database.aws.session_tags.clone(),
    })))
}

fn redshift(
    wanted: &Wanted,
    db_user: &str,
    db_name: &str,
    create: Option<NewUser>,
) -> Result<(Login, Option<UserRole>), Problem> {
    let database = &wanted.database;
    let cluster = database
        .aws
        .redshift_cluster_id
        .clone()
        .ok_or_else(|| incomplete(database, "cluster identifier"))?;
    let db_name = db_name.to_owned();
    if names_role(db_user) {
        let role = named_role(wanted, db_user)?;
        return Ok((Login::ClusterRole { cluster, db_name }, Some(role)));
    }
    not_rewritten(db_user)?;
    if !is_cluster_user(db_user) {
        return Err(unusable(
            db_user,
            "Redshift takes no such name for a user of a temporary password",
            "use a name of at most 64 letters, digits and `_+.@-` that begins with a letter",
        ));
    }
    let login = Login::ClusterUser {
        cluster,
        db_user: db_user.to_owned(),
        db_name,
        create,
    };
    Ok((login, None))
}

fn serverless(
    wanted: &Wanted,
    db_user: &str,
    db_name: &str,
) -> Result<(Login, Option<UserRole>), Problem> {
    let database = &wanted.database;
    not_rewritten(db_user)?;
    let role = named_role(wanted, db_user)?;
    let workgroup = match &database.aws.redshift_serverless_workgroup {
        Some(name) => Workgroup::Named {
            name: name.clone(),
            arn: workgroup_arn(database),
        },
        None => Workgroup::CustomDomain(database.uri.host().to_owned()),
    };
    let login = Login::Workgroup {
        workgroup,
        db_name: db_name.to_owned(),
    };
    Ok((login, Some(role)))
}

/// The ARN of the workgroup behind a discovered database, which is all of its identity but the endpoint.
fn workgroup_arn(database: &Database) -> Option<String> {
    let arn = database.identity.split('#').next()?;
    arn.contains(":workgroup/").then(|| arn.to_owned())
}

fn rds(
    database: &Database,
    region: &Region,
    db_user: &str,
    target: Target,
) -> Result<Login, Problem> {
    if names_role(db_user) {
        return Err(no_roles(db_user));
    }
    let host = rds_host::canonical(database, region).ok_or_else(|| {
        Problem::new(
            ErrorCode::DatabaseLogin,
            format!(
                "database `{}` is reached by a name that is not its RDS endpoint, and tokens are signed for the endpoint",
                database.name
            ),
        )
        .hint(
            "an operator has to give the endpoint's own name (`….rds.amazonaws.com`) as the database's `tls.server_name`; with the name of an instance or proxy in its `aws` section and a permission to describe it, the database service finds it by itself",
        )
    })?;
    Ok(Login::RdsToken(RdsLogin {
        host: host.to_ascii_lowercase(),
        port: database.uri.port(),
        db_user: db_user.to_owned(),
        protocol: database.protocol,
        resource_id: database.aws.rds_resource_id.clone(),
        is_proxy: target == Target::RdsProxy,
    }))
}

fn names_role(db_user: &str) -> bool {
    db_user.starts_with("arn:") || db_user.starts_with(ROLE_PREFIX)
}

/// The role that a database user names, by its ARN, its name behind `role/`, or its bare name.
fn named_role(wanted: &Wanted, db_user: &str) -> Result<UserRole, Problem> {
    if db_user.starts_with("arn:") {
        return db_user.parse().map(UserRole::Known).map_err(|error| {
            let hint = "name a role by its ARN, or as `role/<name>`";
            unusable(db_user, &format!("{error}"), hint)
        });
    }
    let path = db_user.strip_prefix(ROLE_PREFIX).unwrap_or(db_user);
    let effective = wanted.effective.role.as_ref().map(|role| &role.role_arn);
    let aws = &wanted.database.aws;
    let account = aws
        .account_id
        .clone()
        .or_else(|| effective.map(RoleArn::account));
    let partition = aws.region.as_ref().map_or("aws", Region::partition);
    match account {
        Some(account) => {
            let partition = effective.map_or(partition, RoleArn::partition);
            role_arn(db_user, partition, &account, path).map(UserRole::Known)
        }
        None => Ok(UserRole::InOwnAccount {
            partition,
            path: path.to_owned(),
        }),
    }
}

fn role_arn(
    db_user: &str,
    partition: &str,
    account: &AccountId,
    path: &str,
) -> Result<RoleArn, Problem> {
    format!("arn:{partition}:iam::{account}:role/{path}")
        .parse()
        .map_err(|error| {
            let hint = "name a role by its ARN, or as `role/<name>`";
            unusable(db_user, &format!("{error}"), hint)
        })
}

fn not_rewritten(db_user: &str) -> Result<(), Problem> {
    let is_rewritten = REWRITTEN_PREFIXES
        .iter()
        .any(|prefix| db_user.starts_with(prefix));
    if !is_rewritten {
        return Ok(());
    }
    Err(unusable(
        db_user,
        "it is the form in which Redshift shows users of temporary passwords",
        "leave out the part up to the colon",
    ))
}

/// Whether Redshift gives temporary passwords to a user of that name.
fn is_cluster_user(db_user: &str) -> bool {
    let allowed = |c: char| c.is_alphanumeric() || "_+.@-".contains(c);
    db_user.chars().count() <= DB_USER_CHARS_MAX
        && db_user.starts_with(char::is_alphabetic)
        && db_user.chars().all(allowed)
        && !db_user.eq_ignore_ascii_case("public")
}

fn no_roles(db_user: &str) -> Problem {
    unusable(
        db_user,
        "this database does not know IAM roles",
        "name a database user",
    )
}

fn incomplete(database: &Database, what: &str) -> Problem {
    Problem::new(
        ErrorCode::Internal,
        format!("database `{}` has no {what}", database.name),
    )
    .hint("an operator has to add it to the database's `aws` section")
}

fn unusable(db_user: &str, why: &str, hint: &str) -> Problem {
    Problem::new(
        ErrorCode::AccessDenied,
        format!("database user `{db_user}` cannot be used here: {why}"),
    )
    .hint(hint)
}

#[cfg(test)]
mod tests;
