//! What a refusal of AWS means to a client and to an administrator. Pure.

use tidegate_aws::{AwsErrorClass, AwsFailure, RoleChain};
use tidegate_core::{Problem, RoleArn};

use super::{Cluster, LoginPlan, partition};

/// A refusal of AWS as a client may read it: which call, of whom, and the statement that would allow it.
pub(super) fn explain(failure: &AwsFailure, plan: &LoginPlan) -> Problem {
    let problem = failure.problem();
    let cluster = match plan {
        LoginPlan::ClusterUser { cluster, .. } | LoginPlan::ClusterRole { cluster, .. } => cluster,
        LoginPlan::Trust { .. } => return problem,
    };
    let caller = caller(failure, &cluster.chain);
    let told = Problem {
        message: match &failure.hop {
            Some(role) => format!("{}, assuming {role} as {caller}", problem.message),
            None => format!("{}, called as {caller}", problem.message),
        },
        ..problem
    };
    if failure.class != AwsErrorClass::AccessDenied {
        return told;
    }
    let hint = match &failure.hop {
        Some(role) => format!(
            "an AWS administrator has to add to the policies of {caller}: {}; and the trust policy of {role} must name \
             {caller}, with the external id that is configured here, if it asks for one",
            statement("sts:AssumeRole", &[role.to_string()])
        ),
        None => format!(
            "an AWS administrator has to add to the policies of {caller}: {}",
            statement(
                failure.denied_action.as_deref().unwrap_or(failure.action),
                &resources(plan, cluster)
            )
        ),
    };
    told.hint(hint)
}

/// Who made the call that failed: the role before the hop, or the last one.
fn caller(failure: &AwsFailure, chain: &RoleChain) -> String {
    let own = || "the database service's own AWS identity".to_owned();
    match &failure.hop {
        None => chain.last().map_or_else(own, ToString::to_string),
        Some(hop) => chain
            .hops()
            .iter()
            .take_while(|role| role.role_arn != *hop)
            .last()
            .map_or_else(own, |role| role.role_arn.to_string()),
    }
}

/// The ARNs that a policy has to name.
///
/// Source: service authorization reference, "Amazon Redshift", resource types.
fn resources(plan: &LoginPlan, cluster: &Cluster) -> Vec<String> {
    let partition = cluster
        .chain
        .last()
        .map_or_else(|| partition(Some(&cluster.region)), RoleArn::partition);
    let account = cluster.account.as_deref().unwrap_or("*");
    let arn = |kind: &str, name: &str| {
        format!(
            "arn:{partition}:redshift:{}:{account}:{kind}:{}/{name}",
            cluster.region, cluster.id
        )
    };
    match plan {
        LoginPlan::ClusterUser {
            db_user, db_name, ..
        } => vec![arn("dbuser", db_user), arn("dbname", db_name)],
        LoginPlan::ClusterRole { db_name, .. } => vec![arn("dbname", db_name)],
        LoginPlan::Trust { .. } => Vec::new(),
    }
}

/// One statement of an IAM policy, as it can be pasted.
fn statement(action: &str, resources: &[String]) -> String {
    let resources: Vec<String> = resources.iter().map(|arn| format!("{arn:?}")).collect();
    format!(
        r#"{{"Effect": "Allow", "Action": {action:?}, "Resource": [{}]}}"#,
        resources.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use tidegate_core::ErrorCode;

    use super::*;
    use crate::{
        credentials::plan_login,
        testing::{role, wanted_as as wanted},
    };

    #[test]
    fn a_denied_call_tells_caller_action_and_the_statement_to_add() {
        let plan = plan_login(&wanted(Some("agent")), "reader", "dev").unwrap();
        let failure = AwsFailure::new(
            AwsErrorClass::AccessDenied,
            "redshift:GetClusterCredentials",
            "User: arn:aws:sts::1:x is not authorized",
        );
        let problem = explain(&failure, &plan);
        assert_eq!(problem.code, ErrorCode::AwsAccessDenied);
        assert!(problem.message.contains("redshift:GetClusterCredentials"));
        assert!(problem.message.contains("role/agent"));
        assert!(!problem.message.contains("not authorized"));
        assert!(problem.operator.contains("not authorized"));
        let hint = problem.hint.unwrap();
        assert!(
            hint.contains(r#""arn:aws:redshift:us-east-1:123456789012:dbuser:orders/reader""#),
            "{hint}"
        );
    }

    #[test]
    fn a_denied_hop_names_the_role_before_it() {
        let plan = plan_login(&wanted(Some("agent")), "role/analyst", "dev").unwrap();
        let mut failure = AwsFailure::new(AwsErrorClass::AccessDenied, "sts:AssumeRole", "no");
        failure.hop = Some(role("analyst").role_arn);
        let problem = explain(&failure, &plan);
        assert!(
            problem.message.contains("assuming arn:aws:iam::123456789012:role/analyst as arn:aws:iam::123456789012:role/agent"),
            "{}",
            problem.message
        );
        failure.hop = Some(role("agent").role_arn);
        assert!(
            explain(&failure, &plan)
                .message
                .contains("own AWS identity")
        );
    }
}
