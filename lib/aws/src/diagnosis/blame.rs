//! Which policy a refusal of AWS names.
//!
//! Source: IAM user guide, "Troubleshoot access denied error messages": "because no … policy allows the … action" and
//! "with an explicit deny in a … policy", the latter with the policy's ARN behind it where AWS tells it. Services
//! that say neither leave it open, STS for most refusals of `sts:AssumeRole`.

use tidegate_core::RoleArn;

/// Kinds of policy that decide about a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PolicyKind {
    /// The permissions boundary of the one who calls.
    Boundary,
    /// A policy attached to the one who calls.
    Identity,
    /// A resource control policy of the organization that owns what is called.
    ResourceControl,
    /// A service control policy of the organization that the caller's account is in.
    ServiceControl,
    /// The policy that was handed in when the caller's session began.
    Session,
    /// The trust policy of the role that is assumed.
    Trust,
    /// The policy of the VPC endpoint that the call goes through.
    VpcEndpoint,
}

impl PolicyKind {
    /// What it is called in AWS's console and here.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Boundary => "permissions boundary",
            Self::Identity => "identity policy",
            Self::ResourceControl => "resource control policy",
            Self::ServiceControl => "service control policy",
            Self::Session => "session policy",
            Self::Trust => "trust policy",
            Self::VpcEndpoint => "VPC endpoint policy",
        }
    }
}

/// What AWS says about why a call was denied.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Blame {
    /// A policy of this kind denies it, whatever others allow.
    Denied {
        /// Which kind.
        policy: PolicyKind,
        /// Which one, where AWS tells.
        arn: Option<String>,
    },
    /// No policy of this kind allows it.
    Missing(PolicyKind),
    /// AWS does not say.
    Unsaid,
}

/// What AWS calls each kind in its messages.
const NAMES: [(&str, PolicyKind); 8] = [
    ("identity-based policy", PolicyKind::Identity),
    ("permissions boundary", PolicyKind::Boundary),
    ("resource control policy", PolicyKind::ResourceControl),
    // Of all that is called here only roles have one.
    ("resource-based policy", PolicyKind::Trust),
    ("role trust policy", PolicyKind::Trust),
    ("service control policy", PolicyKind::ServiceControl),
    ("session policy", PolicyKind::Session),
    ("VPC endpoint policy", PolicyKind::VpcEndpoint),
];

impl Blame {
    /// Reads it off a message.
    #[must_use]
    pub fn read(message: &str) -> Self {
        if let Some((_, named)) = message.split_once("with an explicit deny in ") {
            let named = ["an ", "a ", "the "]
                .iter()
                .find_map(|article| named.strip_prefix(article))
                .unwrap_or(named);
            if let Some((policy, behind)) = policy(named) {
                let arn = behind
                    .strip_prefix(": arn:")
                    .and_then(|rest| rest.split_whitespace().next())
                    .map(|rest| format!("arn:{}", rest.trim_end_matches('.')));
                return Self::Denied { policy, arn };
            }
        }
        if let Some((_, named)) = message.split_once("because no ")
            && let Some((policy, _)) = policy(named)
        {
            return Self::Missing(policy);
        }
        Self::Unsaid
    }
}

fn policy(named: &str) -> Option<(PolicyKind, &str)> {
    NAMES
        .iter()
        .find_map(|(name, kind)| Some((*kind, named.strip_prefix(name)?)))
}

/// Who called, in "User: … is not authorized to perform: …".
pub(crate) fn told_caller(message: &str) -> Option<&str> {
    let (_, behind) = message.split_once("User: ")?;
    let arn = behind.split_whitespace().next()?;
    arn.starts_with("arn:").then_some(arn)
}

/// Whom a trust policy has to name for a caller: the role behind a session, else the caller itself.
///
/// The ARN of a session does not tell the path of its role.
pub(crate) fn principal(caller: &str) -> String {
    let role = || {
        let (partition, rest) = caller.strip_prefix("arn:")?.split_once(":sts::")?;
        let (account, session) = rest.split_once(":assumed-role/")?;
        let (role, _) = session.split_once('/')?;
        format!("arn:{partition}:iam::{account}:role/{role}")
            .parse::<RoleArn>()
            .ok()
    };
    role().map_or_else(|| caller.to_owned(), |role| role.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPENING: &str = "User: arn:aws:sts::123456789012:assumed-role/agent/i-1 is not authorized to perform: \
                           sts:AssumeRole on resource: arn:aws:iam::123456789012:role/dba";

    #[test]
    fn the_policy_that_does_not_allow_is_read() {
        for (said, kind) in [
            ("identity-based policy", PolicyKind::Identity),
            ("permissions boundary", PolicyKind::Boundary),
            ("resource control policy", PolicyKind::ResourceControl),
            ("resource-based policy", PolicyKind::Trust),
            ("role trust policy", PolicyKind::Trust),
            ("service control policy", PolicyKind::ServiceControl),
            ("session policy", PolicyKind::Session),
            ("VPC endpoint policy", PolicyKind::VpcEndpoint),
        ] {
            let message = format!("{OPENING} because no {said} allows the sts:AssumeRole action");
            assert_eq!(Blame::read(&message), Blame::Missing(kind), "{said}");
        }
    }

    #[test]
    fn the_policy_that_denies_is_read_with_its_arn_where_it_is_told() {
        for (said, policy, arn) in [
            ("an identity-based policy", PolicyKind::Identity, None),
            ("a permissions boundary", PolicyKind::Boundary, None),
            ("the role trust policy", PolicyKind::Trust, None),
            (
                "a service control policy: arn:aws:organizations::1:policy/o-1/service_control_policy/p-1",
                PolicyKind::ServiceControl,
                Some("arn:aws:organizations::1:policy/o-1/service_control_policy/p-1"),
            ),
        ] {
            let message = format!("{OPENING} with an explicit deny in {said}");
            let arn = arn.map(str::to_owned);
            assert_eq!(
                Blame::read(&message),
                Blame::Denied { policy, arn },
                "{said}"
            );
        }
    }

    #[test]
    fn what_aws_does_not_say_stays_open() {
        for message in [OPENING, "Access denied", "", "because no reason at all"] {
            assert_eq!(Blame::read(message), Blame::Unsaid, "{message}");
        }
    }

    #[test]
    fn a_session_is_trusted_by_its_role_and_a_user_by_itself() {
        assert_eq!(
            told_caller(OPENING).map(principal).as_deref(),
            Some("arn:aws:iam::123456789012:role/agent")
        );
        assert_eq!(
            principal("arn:aws-cn:iam::123456789012:user/bot"),
            "arn:aws-cn:iam::123456789012:user/bot"
        );
        assert_eq!(told_caller("User: somebody is not"), None);
    }
}
