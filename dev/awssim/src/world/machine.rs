//! Where programs run: EC2 instances, containers and pods, each with a role whose credentials it hands out.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{WorldError, check_iam_name, invalid, is_no};

/// How long sessions of instances and containers last, in seconds (6 hours).
const SESSION_SECONDS: u32 = 21_600;

/// A place where programs get AWS credentials from. Its role must trust it: `ec2.amazonaws.com`, `ecs-tasks.amazonaws.com`,
/// `pods.eks.amazonaws.com` (with `sts:TagSession`), or the OIDC provider of its token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// ARN of the role whose sessions it hands out.
    pub role_arn: String,
    /// How programs get at them.
    pub source: CredentialSource,
    /// How long a session lasts, in seconds of the simulation's clock, 900 to 43200. Default 6 hours. Not used by service accounts, whose
    /// programs ask STS themselves.
    #[serde(default = "default_session")]
    pub session_seconds: u32,
    /// Region that instances say they are in. Default `us-east-1`.
    #[serde(default = "default_region")]
    pub region: String,
}

/// How programs on a machine get credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum CredentialSource {
    /// The instance metadata service of an EC2 instance, version 2 alone.
    Instance {
        /// The program is one network hop further than the hop limit lets answers go, as a container with a network
        /// of its own is by default: the request for a token is never answered, and nothing else is without one.
        #[serde(default, skip_serializing_if = "is_no")]
        beyond_hop_limit: bool,
    },
    /// The container credentials of an ECS task.
    EcsTask {},
    /// EKS Pod Identity.
    EksPod {
        /// Session tags that go along, transitive as EKS's are: `kubernetes-namespace` and the like.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        tags: BTreeMap<String, String>,
    },
    /// A token of an OIDC provider in a file, as IRSA (IAM roles for service accounts) has it.
    ServiceAccount {
        /// Issuer without `https://`.
        issuer: String,
        /// Whom the token is about, for instance `system:serviceaccount:default:agent`.
        subject: String,
    },
}

impl Machine {
    /// A machine with this role, in `us-east-1`.
    pub fn new(role_arn: &str, source: CredentialSource) -> Self {
        Self {
            role_arn: role_arn.to_owned(),
            source,
            session_seconds: SESSION_SECONDS,
            region: default_region(),
        }
    }

    pub(crate) fn validate(&self, name: &str) -> Result<(), WorldError> {
        check_iam_name("machines", name)?;
        if !(900..=43_200).contains(&self.session_seconds) {
            let rule = "must be a session of 900 to 43200 seconds";
            let at = format!("machines.{name}.session_seconds");
            return Err(invalid(&at, &self.session_seconds.to_string(), rule));
        }
        Ok(())
    }
}

fn default_session() -> u32 {
    SESSION_SECONDS
}

fn default_region() -> String {
    "us-east-1".to_owned()
}
