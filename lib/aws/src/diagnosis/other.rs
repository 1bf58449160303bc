//! Failures that no policy ends.

use tidegate_core::{ErrorCode, Protocol, RoleArn};

use super::{Actor, Call, Diagnosis, Edit, Identity, PolicyChange, PolicyKind, Step};
use crate::{
    error::{AwsErrorClass, AwsFailure},
    login::{Login, LoginRequest, RdsLogin},
};

/// The code of a failure: that of its class, but for what says more.
pub(super) fn code(failure: &AwsFailure) -> ErrorCode {
    match failure.code.as_deref() {
        Some("InvalidClusterState") => ErrorCode::DatabaseNotAvailable,
        // A role that does not fit is no fault of the database user.
        _ if failure.hop.is_some() && failure.class == AwsErrorClass::InvalidRequest => {
            ErrorCode::AwsCredentials
        }
        _ => failure.class.code(),
    }
}

/// Who has to act, and how.
pub(super) fn remedy(failure: &AwsFailure, step: &Step) -> (Actor, String) {
    let wait = |text: &str| (Actor::Wait, text.to_owned());
    match failure.class {
        AwsErrorClass::AccessDenied => {
            (Actor::AwsAdministrator, format!("allow {}", step.action()))
        }
        AwsErrorClass::ClockSkew => (
            Actor::Operator,
            "set the clock of the machine that made the call: AWS takes a difference of 5 minutes"
                .to_owned(),
        ),
        AwsErrorClass::ExpiredCredentials => expired(failure, step),
        AwsErrorClass::InvalidRequest => invalid(failure, step),
        AwsErrorClass::NoCredentials => no_credentials(failure),
        AwsErrorClass::NotFound => not_found(step),
        AwsErrorClass::RegionDisabled => region_disabled(failure, step),
        AwsErrorClass::OverBudget => wait(
            "too many different logins want credentials at once: try again in a moment, or spread them over more time",
        ),
        AwsErrorClass::Throttled => {
            wait("try again in a moment: AWS limits how often it may be asked")
        }
        AwsErrorClass::Malformed | AwsErrorClass::Timeout | AwsErrorClass::Unavailable => {
            wait("try again in a moment; if it lasts, the database service's way to AWS is broken")
        }
    }
}

fn expired(failure: &AwsFailure, step: &Step) -> (Actor, String) {
    match (&step.caller, &failure.hop) {
        (Identity::Role(role), None) => (
            Actor::Wait,
            format!("try again in a moment: {role} is assumed anew"),
        ),
        _ => (
            Actor::Operator,
            "give the database service AWS credentials that are valid; they are read again by themselves"
                .to_owned(),
        ),
    }
}

fn no_credentials(failure: &AwsFailure) -> (Actor, String) {
    let remedy = match failure.code.as_deref() {
        Some("SignatureDoesNotMatch" | "InvalidSignatureException" | "IncompleteSignature") => {
            "correct the secret access key of the database service: it does not belong to its access key"
        }
        Some("InvalidIdentityToken" | "IDPRejectedClaim") => {
            "have the web identity token of the database service renewed, and its issuer and audience trusted by the \
             role that `AWS_ROLE_ARN` names"
        }
        _ => {
            "give the database service AWS credentials: by environment, profile, web identity, container or instance \
             role. From a container on an instance the metadata service needs a hop limit of 2"
        }
    };
    (Actor::Operator, remedy.to_owned())
}

fn region_disabled(failure: &AwsFailure, step: &Step) -> (Actor, String) {
    if failure.code.as_deref() == Some("RegionDisabledException") {
        return (
            Actor::AwsAdministrator,
            "activate STS in this region, in the account settings of IAM".to_owned(),
        );
    }
    match (&step.caller, &step.call) {
        (Identity::Role(role), Call::Mint(request)) => (
            Actor::AwsAdministrator,
            format!(
                "enable region {} in account {}",
                request.region,
                role.account()
            ),
        ),
        _ => (
            Actor::Operator,
            "give the database service AWS credentials that exist, or an AWS administrator to enable the region"
                .to_owned(),
        ),
    }
}

fn not_found(step: &Step) -> (Actor, String) {
    let Call::Mint(request) = &step.call else {
        return (
            Actor::Operator,
            "correct the role that the configuration names".to_owned(),
        );
    };
    let (what, region) = (named(&request.login), &request.region);
    let calling = match &step.caller {
        Identity::Role(role) => Some(RoleArn::account(role)),
        Identity::Own => None,
    };
    let elsewhere = match (&request.account, calling) {
        (Some(account), Some(calling)) if *account != calling => Some(format!(
            "have a role of account {account} assumed for this database: {what} was looked for in account {calling}"
        )),
        (Some(account), None) => Some(format!(
            "check that {what} still exists in region {region}, and that the database service is in account \
             {account} or assumes a role there"
        )),
        _ => None,
    };
    let remedy =
        elsewhere.unwrap_or_else(|| format!("check that {what} still exists in region {region}"));
    (Actor::Operator, remedy)
}

fn invalid(failure: &AwsFailure, step: &Step) -> (Actor, String) {
    let Call::Mint(request) = &step.call else {
        return (Actor::Operator, invalid_hop(failure));
    };
    match failure.code.as_deref() {
        Some("InvalidClusterState") => (
            Actor::Wait,
            "the cluster takes no logins in its present state; try again when it is available"
                .to_owned(),
        ),
        Some("UnsupportedOperation") => (
            Actor::AwsAdministrator,
            format!(
                "see why {} does not support {}",
                named(&request.login),
                request.action()
            ),
        ),
        _ => (
            Actor::User,
            "check the database user and the database name: AWS does not take them as they are"
                .to_owned(),
        ),
    }
}

fn invalid_hop(failure: &AwsFailure) -> String {
    let said = &failure.message;
    if failure.code.as_deref() == Some("PackedPolicyTooLarge") {
        return "set fewer or shorter session tags in `db_service.aws_session.tags` and the database's `aws.session_tags`".to_owned();
    }
    if said.contains("role chaining") || said.contains("MaxSessionDuration") {
        return "let the role's sessions last at least an hour (its maximum session duration)"
            .to_owned();
    }
    "correct what the configuration says of the role: its ARN, external id or session tags"
        .to_owned()
}

fn named(login: &Login) -> String {
    use crate::login::Workgroup;
    match login {
        Login::ClusterRole { cluster, .. } | Login::ClusterUser { cluster, .. } => {
            format!("cluster `{cluster}`")
        }
        Login::RdsToken(rds) => format!("database `{}`", rds.host),
        Login::Workgroup { workgroup, .. } => match workgroup {
            Workgroup::CustomDomain(domain) => format!("the workgroup at `{domain}`"),
            Workgroup::Named { name, .. } => format!("workgroup `{name}`"),
        },
    }
}

/// What a login that RDS refused means. RDS tells a client no reason: the token may lack the permission, or the
/// database user may not be made for tokens. `None` for logins without a token.
///
/// `said` is what the database said.
///
/// Source: Amazon RDS user guide, "IAM database authentication"; Amazon RDS Proxy, "Setting up database credentials".
#[must_use]
pub fn rds_login_refused(request: &LoginRequest, said: &str) -> Option<Diagnosis> {
    let Login::RdsToken(rds) = &request.login else {
        return None;
    };
    let caller = request.caller();
    let changes = request.needs().into_iter().map(|statement| PolicyChange {
        policy: PolicyKind::Identity,
        of: caller.to_string(),
        edit: Edit::Add(statement),
    });
    Some(Diagnosis {
        code: ErrorCode::DatabaseLogin,
        what: format!(
            "the database refused the login of `{}` with an IAM token of {caller}",
            rds.db_user
        ),
        who: Actor::DatabaseAdministrator,
        remedy: format!(
            "{}; or an AWS administrator has to allow {}",
            inside(rds),
            request.action()
        ),
        evidence: said.to_owned(),
        changes: changes.collect(),
        any_of: false,
    })
}

/// What has to be so inside the database.
fn inside(rds: &RdsLogin) -> String {
    let user = &rds.db_user;
    if rds.is_proxy {
        return format!(
            "give the proxy a secret for `{user}`, and its IAM authentication has to be on"
        );
    }
    match rds.protocol {
        Protocol::Postgres => format!(
            "run `GRANT rds_iam TO \"{}\"`, and the IAM authentication of the database has to be on",
            user.replace('"', "\"\"")
        ),
        Protocol::Mysql => format!(
            "have user `{user}` identified with `AWSAuthenticationPlugin as 'RDS'`, and the IAM authentication of \
             the database has to be on"
        ),
    }
}
